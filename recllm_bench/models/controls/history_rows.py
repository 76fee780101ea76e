"""The history-only rows of a table inside a control: nothing is trained twice, validation finds the best."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from recllm_bench.api.method import Job
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.ranks import query_function
from recllm_bench.options import option, shown
from recllm_bench.recbole_bridge import interaction
from recllm_bench.training.cells import Cell, inner_cell
from recllm_bench.training.sequence import validator


@dataclasses.dataclass(frozen=True)
class AmongOptions:
    """Which rows a control may use."""

    among: dict | None = option(  # noqa: RUF009
        None, "history-only rows that may order the items, {name: {options: ..., training: ...}}; validation chooses"
    )


class HistoryRows:
    """Rows by name, as cells that share their training with the rows of the table.

    Parameters
    ----------
    job : Job
        Of the control.
    where : str
        What messages call it.

    Raises
    ------
    BenchError
        For an unknown row, or one that reads words.
    """

    def __init__(self, job: Job, where: str) -> None:
        self.job = job
        self.cells: dict[str, Cell] = {}
        for name, changes in (job.options.among or {"pop": {}}).items():
            changes = changes or {}
            if not isinstance(changes, Mapping) or set(changes) - {"options", "training"}:
                raise BenchError(
                    f"{where}: among: {name}: write {{options: {{...}}, training: {{...}}}}, got {shown(changes)}"
                )
            cell = inner_cell(job, name, changes.get("options"), changes.get("training"), f"{where}: among: {name}")
            if cell.entry.reads_words:
                raise BenchError(
                    f"{where}: among: {name} reads words; name rows that see histories alone, such as sasrec"
                )
            self.cells[cell.entry.name] = cell
        self._loaded: dict[str, tuple[Any, int]] = {}

    @property
    def key(self) -> list[dict[str, Any]]:
        """What the rows depend on."""
        return [cell.key for cell in self.cells.values()]

    def row(self, name: str) -> tuple[Any, int]:
        """A trained row, and how many items of a history it reads."""
        if name not in self._loaded:
            cell = self.cells[name]
            model = cell.load()
            self._loaded[name] = (model, cell.history_length(model))
        return self._loaded[name]

    def note(self, chosen: Mapping[str, Any]) -> str:
        """Which row orders the items, in words."""
        name = self.cells[chosen["row"]].entry.display_name
        if len(self.cells) > 1:
            name += f", the best of {len(self.cells)} on validation"
        weight = f"; weight of the text {chosen['weight']:g}" if "weight" in chosen else ""
        return name + weight

    def measured(self, model: Any, columns: Mapping[str, np.ndarray]) -> float:
        """The validation metric of a control with some columns of the validation cases; 0 where there are none."""
        job = self.job
        validate = validator(model, job.split, job.protocol, job.training, device=job.device, columns=columns)
        return validate() if validate else 0.0


def all_scores(model: Any, batch: Any, n_columns: int) -> torch.Tensor:
    """Scores ``float [B, n_items + 1]`` of a trained row; padding scores below every item."""
    query = query_function(model)
    if query is None:
        plain = {name: batch[name] for name in ("user_id", "item_id_list", "item_length")}
        scores = model.full_sort_predict(interaction(plain)).float().reshape(len(batch["user_id"]), -1)[:, :n_columns]
    else:
        scores = query(batch).float() @ model.item_vectors()[:n_columns].float().T
    scores = scores.clone()
    scores[:, 0] = -torch.inf
    return scores
