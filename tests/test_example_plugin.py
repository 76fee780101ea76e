"""The example plug-ins, installed as a user installs them, and benched without any change to the package."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import recllm_bench as rb
from recllm_bench import cli
from recllm_bench.api import registry
from recllm_bench.errors import BenchError
from recllm_bench.testing import ModelConformance, planted_files

SOURCE = Path(__file__).resolve().parent.parent / "examples" / "recllm_bench_example"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed plug-in; the build works on a copy, to leave the checkout clean."""
    folder = tmp_path_factory.mktemp("plugin")
    copy = folder / "source"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(folder / "site"), str(copy)], check=True, capture_output=True)
    return folder / "site"


@pytest.fixture
def plugin(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """The plug-in's class, found through the import path alone."""
    monkeypatch.syspath_prepend(installed)
    importlib.invalidate_caches()
    yield registry.resolve("models", "fading-mean")
    for name in [name for name in sys.modules if name.startswith("recllm_bench_example")]:
        del sys.modules[name]


def test_entry_point_and_explicit_class_lead_to_the_same(plugin: type, installed: Path) -> None:
    assert plugin is registry.resolve("models", "recllm_bench_example.fading_mean:FadingMean")
    assert Path(str(sys.modules[plugin.__module__].__file__)).is_relative_to(installed)
    assert {"fading-mean", "words-and-history"} <= set(registry.names("models"))
    assert registry.model_named("Fading-Mean").display_name == "FadingMean"


@pytest.mark.parametrize("name", ["fading-mean", "recllm_bench_example.fading_mean:FadingMean"])
def test_a_model_is_benched_by_name(name: str, plugin: type, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["run", name, "ml-100k", "--alone", "--set", "training.epochs=1", "--set", "hidden_size=8"]
    assert cli.main(arguments) == 0
    assert "FadingMean" in capsys.readouterr().out
    assert len(list((tmp_path / "results" / "runs").glob("*/run.json"))) == 1


def test_a_method_in_stages_a_dataset_and_a_simulator_are_benched(plugin: type) -> None:
    """Each is one file outside the package; the words are the simulator's, so its own controls fall behind."""
    data = rb.load_dataset("ml-100k-evenings")
    assert 0 < data.histories.n_users < 943 and data.titles[1]
    assert (data.to_frame().time % 86400 >= 18 * 3600).all()
    talk = {"simulator": "terse", "users": 20}
    own = rb.run("words-and-history", "ml-100k-evenings", options={"steps": 2}, conversation=talk)
    assert own.record.block == "text" and set(own.record.stages) == {"align", "weigh"}
    assert own.record.substitutes["simulator"] == "terse"
    others = [
        rb.run("words-and-history", "ml-100k-evenings", options={"steps": 2}, label=whose,
               conversation={**talk, "words": whose})
        for whose in ("another", "none")
    ]  # fmt: skip
    for other in others:
        assert other.record.stages == own.record.stages, "one training"
        assert own.metrics["NDCG@20"] > 2 * other.metrics["NDCG@20"]
    talker = rb.run("text-retrieval", "ml-100k-evenings", conversation=talk)
    assert talker.metrics["S@5"] > 0.3 and talker.record.dialogue["n"] == 20
    assert "ml-100k-evenings" in registry.names("datasets") and "terse" in registry.names("simulators")


@pytest.mark.parametrize("metric", ["Pages", "recllm_bench_example.pages:pages"])
def test_a_metric_and_a_protocol_measure(plugin: type, metric: str) -> None:
    """Against the formula: 1 / page of the target's rank."""
    protocol = importlib.import_module("recllm_bench_example.turning_pages").PROTOCOL
    protocol = dataclasses.replace(protocol, metrics=(metric, "NDCG"))
    scores = np.random.default_rng(0).permuted(np.tile(np.arange(1683.0), (944, 1)), axis=1)
    run = rb.evaluate(scores, "ml-100k", protocol)
    assert list(run.metrics)[:3] == [f"{metric}@{k}" for k in (5, 10, 20)]
    page = np.ceil(run.cases["rank"].to_numpy() / 10)
    np.testing.assert_allclose(run.users[f"{metric}@10"], np.where(page <= 20, 1 / page, 0.0))


@pytest.mark.parametrize("name", ["example.pages", "recllm_bench_example.turning_pages:PROTOCOL"])
def test_a_protocol_is_found_by_name(plugin: type, name: str) -> None:
    run = rb.run("pop", "ml-100k", protocol=name)
    assert list(run.metrics) == ["Pages@5", "Pages@10", "Pages@20", "NDCG@5", "NDCG@10", "NDCG@20"]
    assert rb.compare([run, "ItemKNN"]).records[1].protocol["name"] == "example.pages"


def test_its_options_are_checked(plugin: type, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["run", "fading-mean", "ml-100k", "--alone", "--set", "hiden_size=8"]) == 2
    assert "Did you mean 'hidden_size'" in capsys.readouterr().err


def test_its_own_tests_pass(installed: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(SOURCE / "tests")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "passed" in done.stdout


class TestConformanceOfOneOfTheZoo(ModelConformance):
    """The suite itself, on a model that is no causal encoder."""

    model = "FPMC"
    options = {"embedding_size": 16, "train_batch_size": 128}  # noqa: RUF012


class TestConformanceWithoutSteps(ModelConformance):
    """The suite on a model that takes no gradient steps."""

    model = "ItemKNN"
    learns = False


def test_the_suite_catches_what_it_is_for(tmp_path: Path) -> None:
    """A model that looks into the future, and one whose scores are not numbers, fail their tests."""
    (tmp_path / "test_bad.py").write_text(
        "import torch\n"
        "from recllm_bench.models.sequence.sasrec import SASRec\n"
        "from recllm_bench.testing import ModelConformance\n\n"
        "class Peeking(SASRec):\n"
        "    def sequence_states(self, item_seq, lengths):\n"
        "        future = self.item_embedding(item_seq).sum(1, keepdim=True)\n"
        "        return super().sequence_states(item_seq, lengths) + future\n\n"
        "class Broken(SASRec):\n"
        "    def item_vectors(self):\n"
        "        return self.item_embedding.weight / 0\n\n"
        "class TestPeeking(ModelConformance):\n"
        "    model, options, training = Peeking, {'n_layers': 1, 'hidden_size': 8}, {'epochs': 2}\n\n"
        "class TestBroken(ModelConformance):\n"
        "    model, options, training = Broken, {'n_layers': 1, 'hidden_size': 8}, {'epochs': 1}\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        str(tmp_path),
        "-rf",
        "-k",
    ]
    chosen = "(Peeking and (future_changes or agree_with_the_last)) or scores_every_item"
    done = subprocess.run([*command, chosen], capture_output=True, text=True)
    for test in (
        "TestPeeking::test_the_future_changes_no_state",
        "TestPeeking::test_all_positions_agree_with_the_last_one",
        "TestBroken::test_scores_every_item_with_a_number",
    ):
        assert re.search(rf"FAILED .*test_bad.py::{test}", done.stdout), done.stdout[-3000:]
    assert "3 failed, 1 passed" in done.stdout


BAD_METHODS = """
import json
from pathlib import Path

import numpy as np
from recllm_bench import Stage
from recllm_bench.artifacts import write_json
from recllm_bench.conversation.dialogue import Response
from recllm_bench.models.text_retrieval import TextRetrieval, TextRetrievalMethod
from recllm_bench.testing import MethodConformance


class Reads(TextRetrievalMethod):
    model = TextRetrieval
    wrote = 0

    def stages(self):
        return [*super().stages(), Stage("more", {}, self.more)]

    def more(self, work, done):
        self.note(work)

    def note(self, work):
        write_json(work / "note.json", {})


class Peeks(Reads):
    def note(self, work):
        write_json(work / "note.json", {"first": int(self.job.split.test.targets[0])})


class Appends(Reads):
    def note(self, work):
        path = work / "note.json"
        write_json(path, (json.loads(path.read_text()) if path.exists() else []) + [1])


class Deaf(Reads):
    def columns(self, cases, words):
        return {"utterance_vector": np.zeros((len(cases), 384), np.float32)}


class Nosy(Reads):
    def report(self, folders):
        return {"measures": [str(folders)]}


class Repeating(TextRetrieval):
    def respond(self, job, dialogues):
        return [Response([1, 2, 3]) for _ in dialogues]


class Repeats(Reads):
    model = Repeating


class TestPeeks(MethodConformance):
    method = Peeks


class TestAppends(MethodConformance):
    method = Appends


class TestDeaf(MethodConformance):
    method = Deaf
    changes = {"text_width": 12}


class TestNosy(MethodConformance):
    method = Nosy


class TestRepeats(MethodConformance):
    method = Repeats
"""


def test_a_report_of_another_shape_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nosy.py").write_text(BAD_METHODS.partition("class TestPeeks")[0])
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BenchError, match=r"report\(\) has .* among its measures; make it Measure"):
        rb.run("nosy:Nosy", planted_files(tmp_path))


def test_the_suite_of_methods_catches_what_it_is_for(tmp_path: Path) -> None:
    """Each of these methods does one thing that a method must not do, and fails that test alone."""
    (tmp_path / "test_bad.py").write_text(BAD_METHODS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(tmp_path), "-rf"]
    done = subprocess.run(command, capture_output=True, text=True)
    caught = re.findall(r"^FAILED .*::(Test\w+::\w+)", done.stdout, re.MULTILINE)
    assert sorted(caught) == [
        "TestAppends::test_every_stage_goes_on_after_a_kill",
        "TestDeaf::test_columns_follow_the_words",
        "TestDeaf::test_keys_follow_the_options",
        "TestNosy::test_report_is_plain",
        "TestPeeks::test_no_stage_reads_the_test_part",
        "TestRepeats::test_answers_are_items_not_shown_before",
    ], done.stdout[-3000:]
