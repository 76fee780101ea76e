"""What a method's stage is given, and what a stage is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.artifacts import ArtifactStore, content_hash
from recllm_bench.progress import log

if TYPE_CHECKING:
    import torch

    from recllm_bench.data.prepared import PreparedDataset
    from recllm_bench.data.splits import Split
    from recllm_bench.evaluation.protocols import Protocol
    from recllm_bench.recipe import Recipe


@dataclass(frozen=True)
class Stage:
    """One step of a method, with an artifact as its product.

    Attributes
    ----------
    name : str
        Shown to the user and used in later stages' ``done`` mapping.
    key : mapping
        The options the product depends on, beside the dataset, the split, the seed and the stages before it.
    make : callable
        ``make(work, done)`` fills the folder ``work``; ``done`` maps earlier stages' names to their folders.
        Called again after a kill with what it left in ``work``.
    needs : tuple of str
        Earlier stages the product depends on; by default all of them.
    """

    name: str
    key: Mapping[str, Any]
    make: Callable[[Path, dict[str, Path]], None]
    needs: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Job:
    """Everything a method may use to train and to score.

    Attributes
    ----------
    recipe, dataset, split, protocol
        What is run, on which data, and how it is measured.
    store : ArtifactStore
        Where products are kept.
    device : torch.device
        Where tensors live.
    options : object
        The model's ``Options`` instance (or a dict for RecBole's zoo).
    training : object
        The ``TrainingOptions`` instance.
    speak : callable
        ``speak(users, ends, targets, seed) -> list[str]``: opening utterances of the simulated users.
    encode : callable
        ``encode(texts) -> float32 [n, width]``.
    text_key : mapping
        Identifies simulator and encoder, for the keys of stages that use them.
    feedback : callable
        ``feedback(spec, facts) -> Speaker`` of ``conversation.feedback``: who answers a recommendation in a sentence.
    """

    recipe: Recipe
    dataset: PreparedDataset
    split: Split
    protocol: Protocol
    store: ArtifactStore
    device: torch.device
    options: Any
    training: Any
    speak: Callable[[np.ndarray, np.ndarray, np.ndarray, int], list[str]] | None = None
    encode: Callable[[Sequence[str]], np.ndarray] | None = None
    text_key: Mapping[str, Any] = field(default_factory=dict)
    feedback: Callable[[str, int], Any] | None = None


def run_stages(job: Job, stages: Sequence[Stage], kind: str) -> tuple[dict[str, Path], dict[str, float]]:
    """Run what does not exist yet and return the folders.

    Parameters
    ----------
    job : Job
        What is run.
    stages : sequence of Stage
        In order.
    kind : str
        Artifact family, usually the model's name.

    Returns
    -------
    folders : dict of str to Path
        The product of each stage.
    seconds : dict of str to float
        Time each product took when it was made (by this run or an earlier one).
    """
    base = {"data": job.dataset.checksum, "split": job.split.checksum, "seed": job.recipe.seed}
    folders: dict[str, Path] = {}
    keys: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for stage in stages:
        needs = tuple(folders) if stage.needs is None else stage.needs
        key = {**base, "stage": stage.name, "key": dict(stage.key), "after": {name: keys[name] for name in needs}}
        keys[stage.name] = content_hash(key)
        if not (job.store.path(kind, key) / "artifact.json").exists():
            log.info(f"{kind}: {stage.name}")
        folder = job.store.build(kind, key, lambda work, make=stage.make: make(work, dict(folders)))
        folders[stage.name] = folder
        seconds[stage.name] = _seconds(folder)
    return folders, seconds


def _seconds(folder: Path) -> float:
    """Time a product took; the training loop's own sum counts interrupted attempts too."""
    seconds = json.loads((folder / "artifact.json").read_text())["seconds"]
    outcome = folder / "outcome.json"
    return max(seconds, json.loads(outcome.read_text())["seconds"]) if outcome.exists() else seconds
