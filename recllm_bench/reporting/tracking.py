"""Finished runs handed to TensorBoard, MLflow or Weights & Biases: parameters, metrics, costs and learning curves."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recllm_bench.errors import BenchError, nearest
from recllm_bench.recipe import flat
from recllm_bench.reporting.costs import COSTS, cost_values
from recllm_bench.reporting.records import RunRecord

_COSTS = tuple(name for name in COSTS if name != "price")


def trackers(text: str) -> list[str]:
    """The trackers that a list such as ``"tensorboard,mlflow"`` names.

    Raises
    ------
    BenchError
        For an unknown one, or one that is not installed.
    """
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in TRACKERS:
            raise BenchError(f"--track: there is no tracker '{name}'.{nearest(name, TRACKERS)}")
        if find_spec(TRACKERS[name][0]) is None:
            raise BenchError(f"--track {name}: it is not installed; pip install '.[tracking]', or {name} alone")
    return names


def track_records(records: Sequence[RunRecord], names: Sequence[str], root: Path) -> list[str]:
    """Hand records to trackers.

    Parameters
    ----------
    records : sequence of RunRecord
        Single runs.
    names : sequence of str
        From :func:`trackers`.
    root : Path
        Folder for what is kept on this machine: TensorBoard's files, MLflow's unless ``MLFLOW_TRACKING_URI`` is set,
        those of Weights & Biases where there is no key.

    Returns
    -------
    list of str
        A line for each tracker: where the runs are.

    Raises
    ------
    BenchError
        When a tracker does not take them; the records stand.
    """
    return [_handed(name, records, root) for name in names]


def _handed(name: str, records: Sequence[RunRecord], root: Path) -> str:
    try:
        return TRACKERS[name][1](records, root)
    except Exception as error:  # whatever a tracker, its server or the network raises
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BenchError(
            f"--track {name}: {reason}; the runs are finished, and the same command hands them over again"
        ) from error


def _parameters(record: RunRecord) -> dict[str, str | int | float]:
    values = flat({key: value for key, value in record.recipe.items() if value not in ({}, [], "", None)})
    plain = (str, int, float)
    return {key: value if isinstance(value, plain) else str(value) for key, value in values.items()}


def _numbers(record: RunRecord) -> dict[str, float]:
    """Metrics and costs by name; a name has no sign that a tracker refuses."""
    found = {f"test/{name}": facts["mean"] for name, facts in record.metrics.items()}
    talked = {
        name: facts["mean"] for name, facts in record.dialogue.items() if isinstance(facts, dict) and "mean" in facts
    }
    found |= {f"dialogue/{name}": mean for name, mean in talked.items()}
    costs = {f"cost/{name}": value for name, value in cost_values(record, _COSTS, {}).items()}
    found |= {name: float(value) for name, value in costs.items() if value is not None}
    return {name.replace("@", "_at_"): float(value) for name, value in found.items()}


def _curves(record: RunRecord) -> Iterator[tuple[str, int, float]]:
    for kind, stages in (("validation", record.curves), ("loss", record.losses)):
        for stage, points in stages.items():
            for epoch, value in points:
                yield f"{kind}/{stage}", int(epoch), float(value)


def _name(record: RunRecord) -> str:
    return record.folder.name if record.folder else record.name


def _safe(name: str) -> str:
    """A name without signs that a tracker refuses."""
    return re.sub(r"[^\w.\-/]", "_", name)


def _tensorboard(records: Sequence[RunRecord], root: Path) -> str:
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    for record in records:
        folder = root / "tensorboard" / _name(record)
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()  # handed over before: once is enough
        with SummaryWriter(str(folder)) as writer:
            for name, epoch, value in _curves(record):
                writer.add_scalar(name, value, epoch)
            numbers = _numbers(record)
            for name, value in numbers.items():
                writer.add_scalar(name, value, 0)
            for part in hparams(_parameters(record), numbers):
                writer.file_writer.add_summary(part)
            writer.add_text("name", record.name)
    return f"tensorboard --logdir {root / 'tensorboard'}"


def _mlflow(records: Sequence[RunRecord], root: Path) -> str:
    # MLflow 3 keeps runs in a database unless it is told otherwise, which mlflow-skinny cannot open; files serve both.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow

    if not mlflow.is_tracking_uri_set():
        mlflow.set_tracking_uri((root / "mlruns").absolute().as_uri())
    for record in records:
        experiment = mlflow.set_experiment(f"{record.dataset.get('name')} {record.protocol.get('name')}")
        tags = {"record": _safe(_name(record)), "made": record.created}
        same = " and ".join(f"tags.{tag} = '{value}'" for tag, value in tags.items())
        if mlflow.MlflowClient().search_runs([experiment.experiment_id], same, max_results=1):
            continue  # handed over before: once is enough
        with mlflow.start_run(run_name=record.name, tags=tags):
            mlflow.log_params(_parameters(record))
            for name, value in _numbers(record).items():
                mlflow.log_metric(_safe(name), value)
            for name, epoch, value in _curves(record):
                mlflow.log_metric(_safe(name), value, step=epoch)
    return f"MLflow: {mlflow.get_tracking_uri()}"


def _wandb(records: Sequence[RunRecord], root: Path) -> str:
    import wandb

    offline = ""
    for record in records:
        run = _wandb_run(wandb, record, root)
        for name, epoch, value in _curves(record):
            run.log({name: value, "epoch": epoch})
        run.summary.update(_numbers(record))
        run.finish()
        offline = str(root / "wandb") if run.offline else ""
    return f"Weights & Biases: wandb sync {offline}/offline-run-*" if offline else "Weights & Biases: addresses above"


def _wandb_run(wandb: Any, record: RunRecord, root: Path) -> Any:
    """A run that takes values; kept on this machine where there is no key, and nobody to ask for one."""
    asked: dict[str, Any] = {
        "project": _safe(f"recllm-{record.dataset.get('name')}").replace("/", "_"),
        "name": record.name,
    }
    asked |= {"id": _safe(_name(record)), "config": _parameters(record), "dir": str(root)}
    try:
        return wandb.init(**asked, resume="allow")
    except wandb.errors.UsageError:
        return wandb.init(**asked, mode="offline")


TRACKERS: dict[str, tuple[str, Callable[[Sequence[RunRecord], Path], str]]] = {
    "tensorboard": ("tensorboard", _tensorboard),
    "mlflow": ("mlflow", _mlflow),
    "wandb": ("wandb", _wandb),
}
"""By name the module that must be installed, and what hands records over."""
