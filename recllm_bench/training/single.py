"""The one stage of a model that is no pipeline: build the model, train it, keep the best epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recllm_bench import recbole_bridge
from recllm_bench.api.method import Method, Stage
from recllm_bench.training.finished import WEIGHTS, Outcome, load_weights, save_outcome
from recllm_bench.training.sequence import train_sequence_model, validator

STATE = "state.pt"


class SingleStage(Method):
    """The method of a model class without a method of its own; :meth:`of` binds it to the class."""

    @classmethod
    def of(cls, model: type) -> type[SingleStage]:
        """The method of one model."""
        return type(f"{model.__name__}Stage", (cls,), {"model": model, "__module__": cls.__module__})

    def stages(self) -> list[Stage]:
        """The stage ``train``; its key holds the model's and the training loop's options."""
        training = dataclasses.asdict(self.job.training)
        name = f"{self.model.__module__}:{self.model.__qualname__}"
        return [Stage("train", {"model": name, "options": self._options(), "training": training}, self._make)]

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
        if not recbole_bridge.trains_by_gradient(model):
            recbole_bridge.save_state(model, work / STATE)
            save_outcome(work, Outcome(0, float("nan"), 0, 0.0, "nothing to train"))
            return
        columns = self.columns(job.split.valid, job.words) or None
        validate = validator(model, job.split, job.protocol, job.training, device=job.device, columns=columns)
        train_sequence_model(
            model,
            job.split,
            job.training,
            validate=validate,
            work=work,
            device=job.device,
            seed=job.recipe.seed,
            label=getattr(model, "display_name", type(model).__name__),
        )

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
