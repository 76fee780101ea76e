"""The command line: help, listings, mistakes that end in one line, and whole runs on a user's own file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import recllm_bench
from recllm_bench import cli
from recllm_bench.cli.parser import EPILOG, build_parser
from recllm_bench.cli.running import seeded
from recllm_bench.errors import BenchError
from recllm_bench.recipe import override, read_recipe_file

QUICK = ["--set", "training.epochs=2", "training.max_length=10", "training.batch_size=64"]


def run(*arguments: str | Path) -> int:
    return cli.main([str(argument) for argument in arguments])


def error_of(capsys: pytest.CaptureFixture, *arguments: str | Path) -> str:
    """The one line a mistake ends in."""
    assert run(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def records(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((folder / "results" / "runs").glob("*/run.json"))]


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for command in (
        "run",
        "sweep",
        "compare",
        "plan",
        "report",
        "prepare",
        "evaluate",
        "chat",
        "share",
        "list",
        "options",
        "doctor",
    ):
        assert f"\n    {command} " in text


def test_the_command_line_starts_without_heavy_imports():
    code = "import sys, recllm_bench.cli as c; c.build_parser(); print({'torch', 'numpy', 'recbole'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_list_and_options(capsys):
    assert run("list") == 0
    text = capsys.readouterr().out
    for name in ("latentcrs", "rules", "smollm2", "ml-100k", "unified.full", "NDCG", "latentcrs-ml1m"):
        found = re.findall(rf"^  {re.escape(name)}  +(\S.*)$", text, re.MULTILINE)
        assert len(found) == 1 and len(found[0]) > 15, f"{name} stands there once, with a line about it"
    assert "GRU4Rec" not in text.split("simulated users")[0], "RecBole's are a list of their own"
    assert run("list", "zoo") == 0
    zoo = capsys.readouterr().out
    assert len(re.findall(r"^  GRU4Rec  +sequential: \S", zoo, re.MULTILINE)) == 1 and "Pop " in zoo
    from recllm_bench.models import ABOUT, MODELS

    assert ABOUT.keys() == MODELS.keys()
    assert run("list", "models") == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert all(len(line.split(maxsplit=1)[1]) > 15 for line in lines if line[2] != " ")
    assert run("options", "latentcrs") == 0
    assert "intents = 256" in capsys.readouterr().out
    assert run("options", "GRU4Rec") == 0
    assert "hidden_size = 128" in capsys.readouterr().out


@pytest.mark.shared
def test_the_released_iclrec_checkpoint_gives_its_published_numbers(capsys, data_mirror, monkeypatch):
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(data_mirror))
    checkpoint = data_mirror / "sequences" / "iclrec_checkpoints" / "ICLRec-Beauty-1.pt"
    assert run("evaluate", "--checkpoint", checkpoint, "--dataset", "s3rec-beauty") == 0
    found = dict(line.split() for line in capsys.readouterr().out.splitlines() if "@" in line)
    published = {"HR@5": "0.0500", "NDCG@5": "0.0326", "HR@10": "0.0744", "NDCG@10": "0.0403"}
    assert found == {**published, "HR@20": "0.1058", "NDCG@20": "0.0483"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "grru4rec", "ml-100k"], "Did you mean 'GRU4Rec'?"),
        (["run", "sasrec", "ml-10k"], "Did you mean 'ml-100k'?"),
        (["run", "sasrec", "ml-100k", "--protocol", "unified.ful"], "Did you mean 'unified.full'?"),
        (["run", "sasrec", "ml-100k", "--alone", "--set", "hiden_size=8"], "Did you mean 'hidden_size'?"),
        (["run", "sasrec", "ml-100k", "--alone", "--set", "training.epochs=many"], "expected a whole number"),
        (["run", "sasrec", "ml-100k", "--alone", "--set", "training.epochs=0"], "out of range"),
        (["run", "cesrec", "ml-100k", "--set", "options.bakend=pop"], "Did you mean 'backend'"),
        (["run", "cesrec", "ml-100k", "--set", "options.backend.epochs=5"], "backend: expected text"),
        (["run", "sasrec", "ml-100k", "--alone", "--set", "dropout"], "write it as key=value"),
        (["run", "sasrec", "ml-100k", "--alone", "--set", "trainig.epochs=1"], "unknown section 'trainig'"),
        (["run", "sasrec", "ml-100k", "--alone", "--seed", "-1"], "seed must be"),
        (["run", "sasrec", "ml-100k", "--alone", "--device", "tpu"], "device 'tpu' is unknown"),
        (["run", "no.such.module:Model", "ml-100k", "--alone"], "cannot import"),
        (["run", "recbole:SASReck", "ml-100k", "--alone"], "Did you mean 'SASRec'?"),
        (["sweep", "sasrec-ml1m"], "a sweep needs 'rows'"),
        (["run", "sasrec", "my/data.csv"], "there is no file or folder 'my/data.csv'"),
        (["run", "sasrec", "ratings.parquet"], "there is no file or folder 'ratings.parquet'"),
        (["describe", "ratings.csv"], "ratings.csv: no such file or folder"),
        (["run", "relrec", "ml1m", "--recipe", "cesrec-ml-100k"], "--set model=relrec dataset=ml1m"),
        (["run", "cesrec", "ml1m", "--recipe", "cesrec-ml-100k"], "--recipe cesrec-ml-100k --set dataset=ml1m"),
        (["sweep", "no-such-recipe"], "no recipe 'no-such-recipe'"),
        (["compare"], "holds no run records"),
        (["evaluate", "--checkpoint", "missing.pt", "--dataset", "ml-100k"], "missing.pt"),
    ],
)
def test_a_mistake_ends_in_one_line(capsys, arguments, said):
    assert said in error_of(capsys, *arguments)


@pytest.mark.parametrize(
    ("model", "asked", "expected"),
    [
        ("zero-shot", "smollm2", {"chat": "local:smollm2"}),
        ("chat-rec", "server:m@http://localhost:9/v1", {"chat": "server:m@http://localhost:9/v1"}),
        ("interecagent", "local:smollm2", {"chat": "local:smollm2"}),
        ("cesrec", "smollm2", {"llm": "smollm2"}),  # has both: the constructor is the one that is named
        ("relrec", "smollm2", {"llm": "smollm2"}),
    ],
)
def test_a_language_model_goes_to_the_option_that_the_model_has(model, asked, expected):
    options = build_parser().parse_args(["run", model, "ml-100k", "--llm", asked])
    (values,), _ = seeded(options)
    assert {name: values["options"].get(name) for name in ("llm", "chat") if name in values["options"]} == expected


def test_a_recipe_may_be_named_beside_its_own_model_and_dataset(own_data):
    recipe = own_data.parent / "own.yaml"
    recipe.write_text(f"model: pop\ndataset: {own_data}\ncompare: []\n")
    assert run("run", "POP", own_data, "--recipe", recipe) == 0
    assert run("run", "--recipe", recipe, "--set", "model=BPR", "training.epochs=1") == 0


def test_more_intents_than_users_are_refused(capsys, own_data):
    said = error_of(capsys, "run", "iclrec", own_data, "--alone", *QUICK, "intents=1000")
    assert "1000" in said and "users" in said


def test_results_folder_that_cannot_be_made(capsys, own_data, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RECLLM_RESULTS", str(tmp_path / "file"))
    assert "RECLLM_RESULTS" in error_of(capsys, "run", "pop", own_data, "--alone")


def test_a_comparison_on_a_users_own_file(capsys, own_data, tmp_path):
    recipe = tmp_path / "own.yaml"
    recipe.write_text(f"model: sasrec\ndataset: {own_data}\ncompare: [pop, BPR]\n")
    assert run("run", "--recipe", recipe, *QUICK, "hidden_size=16") == 0
    table = capsys.readouterr().out
    for name in ("Pop (RecBole)", "BPR (RecBole)", "SASRec (ours)", "NDCG@10"):
        assert name in table
    assert len(records(tmp_path)) == 3
    again = time.perf_counter()
    assert run("run", "--recipe", recipe, *QUICK, "hidden_size=16") == 0
    assert capsys.readouterr().out == table
    assert time.perf_counter() - again < 10
    assert run("compare", "--markdown") == 0
    assert "| SASRec (ours)" in capsys.readouterr().out.replace("**", "")
    assert run("report") == 0
    assert "SASRec (ours)" in (tmp_path / "results" / "report.html").read_text()
    runs = sorted((tmp_path / "results" / "runs").glob("*/"))
    assert run("share", *runs, "--to", tmp_path / "shared") == 0
    capsys.readouterr()
    assert run("compare", "--results", tmp_path / "shared") == 0
    assert capsys.readouterr().out == table, "the same table from the copies, paired tests included"
    import pyarrow.parquet as pq

    for path in (tmp_path / "shared").rglob("users.parquet"):
        assert set(pq.read_table(path)["target"].to_pylist()) == {0}
    assert run("run", "sasrec", own_data, "--alone", *QUICK, "hidden_size=16") == 0
    assert len(records(tmp_path)) == 3, "the same model without a recipe file is the same cell"


def test_several_seeds_are_one_row(capsys, own_data, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    recipe = tmp_path / "own.yaml"
    recipe.write_text(f"model: sasrec\ndataset: {own_data}\ncompare: [pop]\n")
    assert run("run", "--recipe", recipe, "--seed", 3, 4, *QUICK, "hidden_size=16") == 0
    table = capsys.readouterr().out
    assert "mean of seeds 3, 4" in table
    assert len(re.findall(r"\nSASRec \(ours\), hidden_size=16, .* and 2 more \[1\]", table)) == 1
    found = records(tmp_path)
    assert sorted((record["name"], record["recipe"]["seed"]) for record in found) == [
        ("Pop (RecBole)", 3),
        ("Pop (RecBole)", 4),
        ("SASRec (ours)", 3),
        ("SASRec (ours)", 4),
    ]
    values = [record["metrics"]["NDCG@10"]["mean"] for record in found if record["name"] == "SASRec (ours)"]
    assert values[0] != values[1]
    assert f"{np.mean(values):.4f} ±" in next(
        line for line in table.splitlines() if line.startswith("SASRec (ours), h") and "±" in line
    )
    assert run("compare") == 0
    assert capsys.readouterr().out == table
    assert "name each seed once" in error_of(capsys, "run", "sasrec", own_data, "--seed", 3, 3)
    before = {json.dumps(record["recipe"], sort_keys=True) for record in found}
    recipe.write_text(f"model: sasrec\ndataset: {own_data}\ncompare: [pop]\nseed: 3\nseeds: 2\n")
    assert run("run", "--recipe", recipe, *QUICK, "hidden_size=16") == 0
    assert capsys.readouterr().out == table, "the same cells, found again"
    assert {json.dumps(record["recipe"], sort_keys=True) for record in records(tmp_path)} == before


def test_two_runs_that_differ_in_an_option_are_two_names(capsys, own_data, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    wide = ["run", "sasrec", own_data, "--alone", "--set", "training.epochs=1", "n_layers=1"]
    assert run(*wide) == 0
    assert run(*wide, "hidden_size=16") == 0
    assert run(*wide, "hidden_size=64", "training.patience=10") == 0, "defaults that were written out"
    capsys.readouterr()
    assert run("compare") == 0
    table = capsys.readouterr().out
    assert re.search(r"\nSASRec \(ours\), hidden_size=16 ", table)
    found = {tuple(sorted(record["changed"])) for record in records(tmp_path)}
    common = ("options.n_layers", "training.epochs")
    assert found == {common, ("options.hidden_size", *common)}
    assert {record["model_name"] for record in records(tmp_path)} == {"SASRec (ours)"}


def test_latentcrs_end_to_end_with_dialogues_and_its_control(capsys, own_data, tmp_path):
    small = [
        "intents=4",
        "warmup_epochs=1",
        "text_hidden=16",
        "conversation.users=30",
        "conversation.simulator=rules:2",
    ]
    recipe = tmp_path / "talk.yaml"
    recipe.write_text(
        f"model: latentcrs\ndataset: {own_data}\n"
        "options: {backbone_options: {hidden_size: 16, intents: 4}, backbone_training: {epochs: 1, max_length: 20}}\n"
        "compare:\n- text-retrieval\n"
        "- {model: latentcrs, label: 'shuffled', conversation: {words: another}}\n"
    )
    assert run("run", "--recipe", recipe, "--set", "training.epochs=1", *small) == 0
    table = capsys.readouterr().out
    for words in ("With words", "Text retrieval only", "shuffled", "LatentCRS", "S@3", "AT", "simulator rules:2"):
        assert words in table
    found = {record["name"]: record for record in records(tmp_path)}
    assert found["LatentCRS"]["dialogue"]["n"] == 30
    assert found["LatentCRS"]["stages"] == found["shuffled"]["stages"], "the control is the same trained model"
    transcripts = next((tmp_path / "results" / "runs").glob("latentcrs-*/dialogues.jsonl"))
    assert len(transcripts.read_text().splitlines()) == 30


def test_a_sweep_runs_its_rows(capsys, own_data, tmp_path):
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text(
        f"model: sasrec\ndataset: {own_data}\ntraining: {{epochs: 1, max_length: 10}}\n"
        "rows:\n- {options: {hidden_size: 8}}\n- {label: wide, options: {hidden_size: 16}}\n"
    )
    assert run("sweep", recipe) == 0
    table = capsys.readouterr().out
    assert "hidden_size=8" in table and "wide" in table
    assert run("sweep", recipe, "--seed", 1, 2) == 0
    table = capsys.readouterr().out
    assert table.count("wide [1]") == 1 and "mean of seeds 1, 2" in table


def test_the_global_time_split_needs_times(capsys, own_data, tmp_path):
    assert run("run", "pop", own_data, "--alone", "--protocol", "unified.time") == 0
    timeless = tmp_path / "timeless.csv"
    timeless.write_text("\n".join(line.rsplit(",", 1)[0] for line in own_data.read_text().splitlines()) + "\n")
    assert "no global time split" in error_of(capsys, "run", "pop", timeless, "--alone", "--protocol", "unified.time")


def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(own_data, tmp_path):
    """SIGKILL at three moments; the metrics and the per-user ranks equal those of an undisturbed run."""
    import pyarrow.parquet as pq

    command = [sys.executable, "-m", "recllm_bench.cli", "run", "sasrec", str(own_data), "--alone", "--set"]
    command += ["training.epochs=12", "training.patience=0", "training.max_length=10", "training.batch_size=8"]

    def environment(name: str) -> dict[str, str]:
        import os

        return {**os.environ, "RECLLM_CACHE": str(tmp_path / name), "RECLLM_RESULTS": str(tmp_path / name / "results")}

    subprocess.run(command, env=environment("calm"), check=True, capture_output=True)
    for epoch in (1, 4, 9):
        process = subprocess.Popen(command, env=environment("killed"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while process.poll() is None and _epochs(tmp_path / "killed") < epoch:
            time.sleep(0.02)
        process.kill()
        process.communicate()
    assert not list((tmp_path / "killed" / "results").rglob("run.json")), "killed before the end each time"
    subprocess.run(command, env=environment("killed"), check=True, capture_output=True)
    tables = []
    for name in ("calm", "killed"):
        folder = next((tmp_path / name / "results").rglob("run.json")).parent
        metrics = json.loads((folder / "run.json").read_text())["metrics"]
        tables.append((metrics, pq.read_table(folder / "users.parquet")))
    assert tables[0][0] == tables[1][0]
    assert tables[0][1].equals(tables[1][1])
    assert np.isfinite(tables[0][0]["NDCG@10"]["mean"])


def _epochs(cache: Path) -> int:
    """Epochs that the interrupted training has behind it."""
    for path in cache.rglob("*.partial/history.json"):
        try:
            return len(json.loads(path.read_text()))
        except (json.JSONDecodeError, FileNotFoundError):
            return 0
    return 0


def test_settings_reach_into_options_that_are_mappings():
    values = {"options": {"backend_training": {"epochs": 300, "patience": 3}}}
    changed = override(values, ["options.backend_training.epochs=5", "options.backend_options.n_layers=1", "k=2"])
    assert changed["options"] == {
        "backend_training": {"epochs": 5, "patience": 3},
        "backend_options": {"n_layers": 1},
        "k": 2,
    }
    assert values["options"]["backend_training"]["epochs"] == 300, "the given mapping stays as it is"


def test_a_recipe_stands_on_its_base(tmp_path):
    (tmp_path / "low.yaml").write_text(
        "model: sasrec\ndataset: ml-100k\noptions: {hidden_size: 8, n_layers: 1}\ncompare: [pop]\n"
    )
    (tmp_path / "mid.yaml").write_text(
        f"base: {tmp_path}/low.yaml\noptions: {{n_layers: 2}}\ntraining: {{epochs: 3}}\n"
    )
    (tmp_path / "top.yaml").write_text(f"base: {tmp_path}/mid.yaml\ndataset: ml1m\ncompare: []\n")
    assert read_recipe_file(str(tmp_path / "top.yaml")) == {
        "model": "sasrec",
        "dataset": "ml1m",
        "options": {"hidden_size": 8, "n_layers": 2},
        "training": {"epochs": 3},
        "compare": [],
    }
    (tmp_path / "low.yaml").write_text(f"base: {tmp_path}/top.yaml\n")
    with pytest.raises(BenchError, match="its own base"):
        read_recipe_file(str(tmp_path / "top.yaml"))
    (tmp_path / "low.yaml").write_text("base: cesrec-ml100k\n")
    with pytest.raises(BenchError, match=r"no recipe 'cesrec-ml100k'.*cesrec-ml-100k"):
        read_recipe_file(str(tmp_path / "top.yaml"))


def test_help_names_every_variable_of_the_environment():
    read = {
        name
        for path in Path(recllm_bench.__file__).parent.rglob("*.py")
        for name in re.findall(r"RECLLM_[A-Z_]+[A-Z]", path.read_text(encoding="utf-8"))
    }
    assert len(read) >= 7
    assert sorted(name for name in read if name not in EPILOG) == []
