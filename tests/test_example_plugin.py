"""The example plug-in, installed as a user installs it, and benched without any change to the package."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recllm_bench import cli
from recllm_bench.api import registry
from recllm_bench.testing import ModelConformance

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
def plugin(installed: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    """The plug-in's class, found through the import path alone."""
    monkeypatch.syspath_prepend(installed)
    importlib.invalidate_caches()
    yield registry.resolve("models", "fading-mean")
    for name in [name for name in sys.modules if name.startswith("recllm_bench_example")]:
        del sys.modules[name]


def test_entry_point_and_explicit_class_lead_to_the_same(plugin: type, installed: Path) -> None:
    assert plugin is registry.resolve("models", "recllm_bench_example.fading_mean:FadingMean")
    assert Path(sys.modules[plugin.__module__].__file__).is_relative_to(installed)
    assert "fading-mean" in registry.names("models")
    assert registry.model_named("Fading-Mean").display_name == "FadingMean"


@pytest.mark.parametrize("name", ["fading-mean", "recllm_bench_example.fading_mean:FadingMean"])
def test_it_is_benched_by_name(name: str, plugin: type, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["run", name, "ml-100k", "--alone", "--set", "training.epochs=1", "--set", "hidden_size=8"]
    assert cli.main(arguments) == 0
    assert "FadingMean" in capsys.readouterr().out
    assert len(list((tmp_path / "results" / "runs").glob("*/run.json"))) == 1


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
