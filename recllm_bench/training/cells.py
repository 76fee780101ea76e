"""A model on a job: its method, its trained weights. The row of a table and the recommender inside another method are
the same thing, so nothing is trained twice.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from recllm_bench.api.method import Job, Method
from recllm_bench.api.registry import ModelEntry, model_named
from recllm_bench.api.words import Undeclared
from recllm_bench.data.splits import Split
from recllm_bench.evaluation.metrics import metric_code, validation_metric
from recllm_bench.options import fitted, quickened, read_options
from recllm_bench.provenance import code_hash, package_code_hash, versions_of_libraries
from recllm_bench.recipe import shipped_recipe
from recllm_bench.training.finished import OUTCOME
from recllm_bench.training.single import SingleStage
from recllm_bench.training.stages import run_stages
from recllm_bench.training.training_options import TrainingOptions

_TRAINS = ("api", "data", "dropout.py", "evaluation", "options.py", "products.py", "recbole_bridge", "training")
"""Parts of the package that every training goes through."""
_PLACE = re.compile(r"\{(options|training|conversation|protocol)\.(\w+)\}")  # where a budget names a value
_LIBRARIES = ("faiss-cpu", "numpy", "recbole", "torch")


@dataclass(frozen=True)
class Cell:
    """A model on a job.

    Attributes
    ----------
    entry : ModelEntry
        Which model.
    job : Job
        On which data, with which options.
    """

    entry: ModelEntry
    job: Job

    @cached_property
    def method(self) -> Method:
        """What trains and loads it; one object, so that its parts share what they build."""
        return self.entry.method(self.job)

    @property
    def key(self) -> dict[str, Any]:
        """What the trained model depends on, beside data, split and seed."""
        return {
            "model": self.entry.name,
            "code": dict(self.job.code),
            "stages": [{"stage": stage.name, "key": dict(stage.key)} for stage in self.method.stages()],
        }

    @cached_property
    def trained(self) -> tuple[dict[str, Path], dict[str, float]]:
        """The product of each stage and the seconds it took; made now where it does not exist."""
        return run_stages(self.job, self.method.stages(), self.entry.family)

    @property
    def schedule(self) -> str:
        """The budget that its recipe states, with the values of this job, and the epochs that its stages ran."""
        job, rules = self.job, {"users": self.job.protocol.users or "all"}
        parts = {"options": job.options, "training": job.training, "conversation": job.recipe.conversation}
        text = _PLACE.sub(lambda found: _value({**parts, "protocol": rules}[found[1]], found[2]), job.recipe.budget)
        ran = [f"{facts['epochs']} ({name})" for name, facts in outcomes(self.trained[0]).items() if facts["epochs"]]
        return "; ".join(filter(None, [text, f"epochs run: {', '.join(ran)}" if ran else ""]))

    def load(self) -> Any:
        """The trained model in evaluation mode."""
        model = self.method.load(self.trained[0])
        return model.eval() if hasattr(model, "eval") else model

    def history_length(self, model: Any) -> int:
        """Items of a history that the model reads."""
        return int(getattr(model, "history_length", 0) or self.job.training.max_length)


def outcomes(folders: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """``outcome.json`` of every stage that trained something."""
    paths = {name: folder / OUTCOME for name, folder in folders.items()}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def _value(options: Any, name: str) -> str:
    found = options.get(name, "?") if isinstance(options, Mapping) else getattr(options, name, "?")
    return f"{found:,}" if isinstance(found, int) else str(found)


def typed_options(
    entry: ModelEntry,
    options: Mapping[str, Any],
    training: Mapping[str, Any],
    where: str,
    *,
    quick: int = 0,
    split: Split | None = None,
) -> tuple[Any, TrainingOptions]:
    """A model's options and those of its training, checked; RecBole's models keep a dict.

    Parameters
    ----------
    quick : int
        Most passes over data; 0 for no limit.
    split : Split, optional
        Data whose counts lower defaults, and refuse what was set.

    Raises
    ------
    BenchError
        For an unknown option or a value that it cannot have.
    """
    loop = read_options(TrainingOptions, {**entry.training_defaults, **training}, f"{where}: training")
    validation_metric(loop.validate_metric)
    loop = quickened(loop, quick) if quick else loop
    if entry.options is None:
        return dict(options), loop
    own: Any = read_options(entry.options, options, f"{where}: options")
    if split is not None:
        starts = split.histories.offsets[:-1]
        counts = {"users": int((split.train_ends - starts > 1).sum()), "items": split.histories.n_items}
        own = fitted(own, options, counts, f"{where}: options")
    return (quickened(own, quick) if quick else own), loop


def code_of(entry: ModelEntry, device: Any, validate_metric: str = "") -> dict[str, Any]:
    """What code, libraries and threads train a model, for the keys of its stages.

    Parameters
    ----------
    entry : ModelEntry
        Which model; one from outside the package counts with its own source.
    device : torch.device
        On a CPU the number of threads orders sums, and so decides the last digits.
    validate_metric : str
        What decides the best epoch; somebody's own counts with its source.
    """
    import torch

    parts, libraries = list(_TRAINS), list(_LIBRARIES)
    is_pipeline = not issubclass(entry.method, SingleStage)
    own = [_part(source) for source in (entry.model, entry.method)]
    parts += [part for part in own if part.startswith("models")]
    if is_pipeline:
        parts.append("language")
        libraries += ["peft", "tokenizers", "transformers"]
    if entry.reads_words:
        parts.append("conversation")
    if entry.is_zoo:
        libraries.append("scipy")
    outside = {source.__qualname__: found for source in (entry.model, entry.method) if (found := _outside(source))}
    if validate_metric and (metric := metric_code(validate_metric)):
        outside[validate_metric] = metric
    return {
        "package": package_code_hash(parts),
        "classes": outside,
        "libraries": versions_of_libraries(libraries),
        "threads": torch.get_num_threads() if torch.device(device).type == "cpu" else 0,
    }


def _part(source: type) -> str:
    """The part of this package that a class lies in: its method's folder, or its file."""
    names = source.__module__.split(".")
    if names[:2] != [__name__.partition(".")[0], "models"]:
        return ""
    return "/".join(names[1:3]) if len(names) > 3 else "/".join(names[1:]) + ".py"


def _outside(source: type) -> str:
    return "" if source.__module__.split(".")[0] in ("recbole", "recllm_bench") else code_hash(source)


def inner_cell(
    job: Job, name: str, options: Mapping[str, Any] | None, training: Mapping[str, Any] | None, where: str
) -> Cell:
    """A recommender inside another method: its own recipe on the same data, split and seed, with the changes asked for.

    Parameters
    ----------
    options, training : mapping, optional
        Changes to its recipe.

    Raises
    ------
    BenchError
        For an unknown model or wrong options.
    """
    entry = model_named(name)
    shipped = shipped_recipe(entry.name, job.recipe.dataset)
    own = {**(shipped.get("options") or {}), **(options or {})}
    trained = {**(shipped.get("training") or {}), **(training or {})}
    budget = str(shipped.get("budget") or "")
    typed, loop = typed_options(entry, own, trained, where, quick=job.recipe.quick, split=job.split)
    inner = dataclasses.replace(
        job,
        recipe=dataclasses.replace(job.recipe, model=entry.name, options=own, training=trained, budget=budget),
        options=typed,
        training=loop,
        words=_words_for(entry, job.words),
        code=code_of(entry, job.device, loop.validate_metric),
    )
    return Cell(entry, inner)


def _words_for(entry: ModelEntry, words: Any) -> Any:
    """What a recommender inside another method may hear: nothing that its own class does not declare."""
    if not entry.reads_words:
        return Undeclared(entry.name)
    closed = not isinstance(words, Undeclared) and getattr(words, "reads_facts", False) and not entry.reads_facts
    return dataclasses.replace(words, reads_facts=False) if closed else words
