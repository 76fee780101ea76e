"""Running the stages of a method: what exists already is not made again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from recllm_bench.api.method import Job, Stage
from recllm_bench.artifacts import content_hash
from recllm_bench.progress import log


def run_stages(job: Job, stages: Sequence[Stage], kind: str) -> tuple[dict[str, Path], dict[str, float]]:
    """Run what does not exist yet and return the folders.

    Parameters
    ----------
    kind : str
        Artifact family, usually the model's name.

    Returns
    -------
    folders : dict of str to Path
        The product of each stage.
    seconds : dict of str to float
        Time each product took when it was made (by this run or an earlier one).
    """
    folders: dict[str, Path] = {}
    seconds: dict[str, float] = {}
    for stage, key in zip(stages, stage_keys(job, stages), strict=True):
        if job.store.find(kind, key) is None:
            log.info(f"{kind}: {stage.name}")
        folder = job.store.build(kind, key, partial(_make, stage, dict(folders)))
        folders[stage.name] = folder
        seconds[stage.name] = _seconds(folder)
    return folders, seconds


def stage_keys(job: Job, stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """The key of each stage's product: its own, and those of the stages it builds on."""
    base = {
        "data": job.dataset.checksum,
        "split": job.split.checksum,
        "seed": job.recipe.seed,
        "code": dict(job.code),
    }
    keys: list[dict[str, Any]] = []
    hashes: dict[str, str] = {}
    for stage in stages:
        after = {name: hashes[name] for name in (tuple(hashes) if stage.needs is None else stage.needs)}
        keys.append({**base, "stage": stage.name, "key": dict(stage.key), "after": after})
        hashes[stage.name] = content_hash(keys[-1])
    return keys


def _make(stage: Stage, done: dict[str, Path], work: Path) -> None:
    stage.make(work, done)


def _seconds(folder: Path) -> float:
    """Time a product took; the training loop's own sum counts interrupted attempts too."""
    seconds = json.loads((folder / "artifact.json").read_text())["seconds"]
    outcome = folder / "outcome.json"
    return max(seconds, json.loads(outcome.read_text())["seconds"]) if outcome.exists() else seconds
