"""The one stage of a method that is no pipeline: build the model, train it, keep the best epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recllm_bench import recbole_bridge
from recllm_bench.training.loop import OUTCOME, WEIGHTS, Outcome, load_weights, save_outcome
from recllm_bench.training.sequence import train_sequence_model, validator
from recllm_bench.training.stages import Job, Stage

STATE = "state.pt"


@dataclass(frozen=True)
class SingleStage:
    """A model class on a job: its training stage, and the way back from the finished stage."""

    job: Job
    model: str | type

    @property
    def stage(self) -> Stage:
        """The stage ``train``; its key holds the model's and the training loop's options."""
        training = dataclasses.asdict(self.job.training)
        name = self.model if isinstance(self.model, str) else f"{self.model.__module__}:{self.model.__qualname__}"
        return Stage("train", {"model": name, "options": self._options(), "training": training}, self._make)

    def load(self, folders: Mapping[str, Path]) -> Any:
        """The trained model, on the job's device."""
        model = self._build()
        folder = folders["train"]
        if (folder / WEIGHTS).exists():
            load_weights(folder, {"model": model})
        else:
            recbole_bridge.load_state(model, folder / STATE)
        return model.eval()

    def _make(self, work: Path, done: Mapping[str, Path]) -> None:
        job, model = self.job, self._build()
        label = getattr(model, "display_name", type(model).__name__)
        if not recbole_bridge.trains_by_gradient(model):
            recbole_bridge.save_state(model, work / STATE)
            save_outcome(work, Outcome(0, float("nan"), 0, 0.0, "nothing to train"))
            return
        columns = None
        if hasattr(type(model), "case_columns"):
            columns = type(model).case_columns(job, job.split.valid)
        validate = validator(model, job.split, job.protocol, job.training, device=job.device, columns=columns)
        train_sequence_model(
            model,
            job.split,
            job.training,
            validate=validate,
            work=work,
            device=job.device,
            seed=job.recipe.seed,
            label=label,
        )
        assert (work / OUTCOME).exists()

    def _build(self) -> Any:
        job = self.job
        model, _, _ = recbole_bridge.build_model(
            self.model,
            job.split.histories,
            job.split.train_ends,
            self._options(),
            seed=job.recipe.seed,
            device=job.device,
            max_length=job.training.max_length,
            name=job.dataset.name,
            categories=job.dataset.catalogue.categories,
        )
        return model

    def _options(self) -> dict[str, Any]:
        options = self.job.options
        return dict(options) if isinstance(options, Mapping) else dataclasses.asdict(options)


def single_stage(job: Job, model: str | type) -> SingleStage:
    """Bind a model (a class, or a zoo model's name) to a job."""
    return SingleStage(job, model)
