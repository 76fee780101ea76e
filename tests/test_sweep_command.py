"""Sweeps: cells side by side, a cell that fails, resuming, and trackers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recllm_bench import cli
from recllm_bench.locations import results_folder
from recllm_bench.reporting.records import find_records, read_record


@pytest.fixture
def sweep(own_data) -> Path:
    """Three cells that work and one whose code breaks."""
    module = own_data.parent / "breaks.py"
    name = f"broken{abs(hash(module))}"  # a name is registered once in a process
    module.write_text(
        "import os, signal\n"
        "from recllm_bench.api.modules import register\n"
        "from recllm_bench.models.recent_knn import RecentKNNMethod\n\n\n"
        "class Broken(RecentKNNMethod):\n"
        "    def load(self, folders):\n"
        "        if os.environ.get('BREAK') == 'killed':\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        if os.environ.get('BREAK') != 'no':\n"
        "            raise RuntimeError('no such luck')\n"
        "        return super().load(folders)\n\n\n"
        f"register('models', '{name}', Broken)\n"
    )
    path = own_data.parent / "sweep.yaml"
    path.write_text(
        f"model: sasrec\ndataset: {own_data}\nmodules: ['{module}']\ntraining: {{epochs: 1, max_length: 10}}\nrows:\n"
        "- {label: narrow, options: {hidden_size: 8}}\n"
        f"- {{label: broken, model: {name}}}\n"
        "- {label: wide, options: {hidden_size: 16}}\n"
        "- {label: popular, model: pop}\n"
    )
    return path


def made() -> dict[str, float]:
    folders = find_records(results_folder() / "runs")
    return {read_record(folder).name: folder.stat().st_mtime for folder in folders}


def values() -> dict[str, dict]:
    return {read_record(folder).name: read_record(folder).metrics for folder in find_records(results_folder() / "runs")}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_cell_that_fails_stops_no_other_and_is_tried_again(capsys, sweep, monkeypatch, jobs: int):
    monkeypatch.setenv("BREAK", "yes")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cli.main(["sweep", str(sweep), "--jobs", str(jobs)]) == 2
    out, err = capsys.readouterr()
    for name in ("narrow", "wide", "popular", "Not run: broken:"):
        assert name in out
    assert "no such luck" in out and "not run: broken" in err.splitlines()[-1]
    first = made()
    assert sorted(first) == ["narrow", "popular", "wide"]
    monkeypatch.setenv("BREAK", "no")
    assert cli.main(["sweep", str(sweep), "--jobs", str(jobs)]) == 0
    again = made()
    assert sorted(again) == ["broken", "narrow", "popular", "wide"]
    assert all(again[name] == first[name] for name in first), "what was finished is not run again"
    for folder in find_records(results_folder() / "runs"):
        facts = json.loads((folder / "run.json").read_text())
        assert facts["costs"]["peak_memory"] > 2**20 and (folder / "log.jsonl").stat().st_size > 0
        assert facts["name"] in ("popular", "broken") or facts["costs"]["parameters"] > 0


def test_side_by_side_gives_the_same_numbers_and_a_killed_process_is_told(capsys, sweep, tmp_path, monkeypatch):
    monkeypatch.setenv("BREAK", "killed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cli.main(["sweep", str(sweep), "--jobs", "3"]) == 2
    assert f"its process ended with signal {int(signal.SIGKILL)}" in capsys.readouterr().out
    apart = values()
    monkeypatch.setenv("BREAK", "yes")
    monkeypatch.setenv("RECLLM_RESULTS", str(tmp_path / "one"))
    monkeypatch.setenv("RECLLM_CACHE", str(tmp_path / "cache"))
    assert cli.main(["sweep", str(sweep)]) == 2
    import torch

    if torch.get_num_threads() == 1:
        assert values() == apart
    assert "--jobs must be at least 1" in _error(capsys, "sweep", str(sweep), "--jobs", "0")


def test_a_quick_sweep_trains_each_row_a_little(capsys, sweep, monkeypatch):
    monkeypatch.setenv("BREAK", "no")
    assert cli.main(["sweep", str(sweep), "--quick", "1", "--set", "training.epochs=9"]) == 0
    out = capsys.readouterr().out
    assert "quick: at most 1 passes over the data in every training" in out and "Not run" not in out
    curves = {
        read_record(folder).name: read_record(folder).curves for folder in find_records(results_folder() / "runs")
    }
    assert len(curves["narrow"]["train"]) == len(curves["wide"]["train"]) == 1


def test_tensorboard_gets_metrics_and_curves(capsys, own_data):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    arguments = ["run", "sasrec", str(own_data), "--alone", "--track", "tensorboard", "--set"]
    arguments += ["training.epochs=3", "training.patience=0", "training.max_length=10", "hidden_size=8"]
    for _ in range(2):  # a second time changes nothing
        assert cli.main(arguments) == 0
        (folder,) = find_records(results_folder() / "runs")
        record = read_record(folder)
        (logs,) = (results_folder() / "tensorboard").iterdir()
        events = EventAccumulator(str(logs)).Reload()
        assert logs.name == folder.name
        (point,) = events.Scalars("test/NDCG_at_10")
        assert point.value == pytest.approx(record.metrics["NDCG@10"]["mean"])
        curve = [[event.step, event.value] for event in events.Scalars("validation/train")]
        assert len(curve) == 3 and curve == [[step, pytest.approx(v)] for step, v in record.curves["train"]]
        losses = [[event.step, event.value] for event in events.Scalars("loss/train")]
        assert len(losses) == 3 and losses == [[step, pytest.approx(v)] for step, v in record.losses["train"]]
    assert "tensorboard --logdir" in capsys.readouterr().err


def test_mlflow_gets_each_run_once(capsys, own_data, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra 'tracking' is not installed")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    mlflow.set_tracking_uri(None)
    arguments = ["run", "sasrec", str(own_data), "--alone", "--track", "mlflow", "--set"]
    arguments += ["training.epochs=3", "training.patience=0", "training.max_length=10", "hidden_size=8"]
    for _ in range(2):  # a second time changes nothing
        assert cli.main(arguments) == 0
    record = read_record(*find_records(results_folder() / "runs"))
    assert (results_folder() / "mlruns").is_dir() and "MLflow: file:" in capsys.readouterr().err
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert run.data.params["options.hidden_size"] == "8" and run.data.tags["record"] == record.folder.name
    assert run.data.metrics["test/NDCG_at_10"] == pytest.approx(record.metrics["NDCG@10"]["mean"])
    for kind, stages in (("validation", record.curves), ("loss", record.losses)):
        points = client.get_metric_history(run.info.run_id, f"{kind}/train")
        assert [[point.step, point.value] for point in points] == [[e, pytest.approx(v)] for e, v in stages["train"]]


def test_wandb_keeps_runs_here_without_a_key(own_data, monkeypatch):
    pytest.importorskip("wandb", reason="the extra 'tracking' is not installed")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(own_data.parent / "no-netrc"))
    monkeypatch.setenv("HOME", str(own_data.parent))
    arguments = ["run", "sasrec", str(own_data), "--alone", "--track", "wandb", "--set"]
    arguments += ["training.epochs=3", "training.patience=0", "training.max_length=10", "hidden_size=8"]
    done = subprocess.run(  # its file is whole when the process ends
        [sys.executable, "-m", "recllm_bench.cli", *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "wandb sync" in done.stderr, done.stderr
    (kept,) = (results_folder() / "wandb").glob("offline-run-*/run-*.wandb")
    written = kept.read_bytes()
    assert b"NDCG_at_10" in written and b"validation/train" in written and b"loss/train" in written


def test_a_tracker_that_fails_leaves_the_runs_and_one_line(capsys, own_data):
    mlflow = pytest.importorskip("mlflow", reason="the extra 'tracking' is not installed")
    mlflow.set_tracking_uri("nonsense://there")
    said = _error(capsys, "run", "pop", str(own_data), "--alone", "--track", "mlflow").splitlines()[-1]
    assert said.startswith("error: --track mlflow:") and "the runs are finished" in said
    assert len(find_records(results_folder() / "runs")) == 1


def test_trackers_that_are_not_there_are_refused_before_training(capsys, own_data, monkeypatch):
    assert "no tracker 'tensorbord'" in _error(capsys, "run", "pop", str(own_data), "--track", "tensorbord")
    monkeypatch.setattr("recllm_bench.reporting.tracking.find_spec", lambda name: None)
    assert "pip install '.[tracking]'" in _error(capsys, "run", "pop", str(own_data), "--track", "mlflow")
    assert not (results_folder() / "runs").exists()


def _error(capsys, *arguments: str) -> str:
    capsys.readouterr()
    assert cli.main(list(arguments)) == 2
    return capsys.readouterr().err
