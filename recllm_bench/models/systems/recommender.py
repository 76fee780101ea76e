"""A history-only recommender of the bench inside a system: its scores for dialogues, trained once for all rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recllm_bench.api.method import Job, Stage
from recllm_bench.artifacts import write_json
from recllm_bench.conversation.dialogue import Dialogue
from recllm_bench.errors import BenchError
from recllm_bench.models.controls.history_rows import all_scores
from recllm_bench.models.systems.listing import SystemOptions
from recllm_bench.options import option
from recllm_bench.training.cells import Cell, inner_cell


@dataclass(frozen=True)
class RecommenderOptions(SystemOptions):
    """Options of a system with a recommender in it."""

    recommender: str = option("sasrec", "the history-only row of the bench that ranks")
    recommender_options: dict | None = option(None, "changes to its own options")  # noqa: RUF009
    recommender_training: dict | None = option(None, "changes to its training options")  # noqa: RUF009


class Recommender:
    """A history-only row on the data of a job.

    Parameters
    ----------
    job : Job
        Of the system; its options name the row.
    where : str
        What messages call the system.

    Raises
    ------
    BenchError
        For an unknown row, or one that reads words.
    """

    def __init__(self, job: Job, where: str) -> None:
        options = job.options
        changes = (options.recommender_options, options.recommender_training)
        self.job = job
        self.cell: Cell = inner_cell(job, options.recommender, *changes, f"{where}: recommender")
        if self.cell.entry.reads_words:
            raise BenchError(
                f"{where}: recommender={options.recommender} reads words; name one that does not, as sasrec"
            )

    @property
    def stage(self) -> Stage:
        """Trains it, or finds the table's row."""
        return Stage("recommender", self.cell.key, self._train, ())

    @cached_property
    def model(self) -> Any:
        """The trained row."""
        return self.cell.load()

    @torch.inference_mode()
    def scores(self, dialogues: Sequence[Dialogue], forbid: Sequence[set[int]]) -> torch.Tensor:
        """Scores ``float [B, n_items + 1]``; padding and what is forbidden have minus infinity."""
        length = self.cell.history_length(self.model)
        histories = [dialogue.history[-length:] for dialogue in dialogues]
        lengths = torch.tensor([len(history) for history in histories])
        items = torch.zeros(len(histories), max(1, int(lengths.max())), dtype=torch.long)
        for row, history in enumerate(histories):
            items[row, : len(history)] = torch.from_numpy(np.asarray(history, dtype=np.int64))
        device = self.job.device
        batch = {"item_id_list": items.to(device), "item_length": lengths.to(device)}
        batch["user_id"] = torch.tensor([dialogue.user for dialogue in dialogues], device=device)
        scores = all_scores(self.model, batch, self.job.split.histories.n_items + 1)
        for row, never in enumerate(forbid):
            scores[row, list(never)] = -torch.inf
        return scores

    def _train(self, work: Path, done: Mapping[str, Path]) -> None:
        seconds = self.cell.trained[1]
        write_json(work / "recommender.json", {"model": self.cell.entry.name, "stages": sorted(seconds)})


def best_first(scores: torch.Tensor, count: int) -> list[list[int]]:
    """The ``count`` best items of each row, without those that score minus infinity; equal scores in order of id."""
    values, items = scores.sort(dim=1, descending=True, stable=True)
    keep = values[:, :count] > -torch.inf
    return [row[kept].tolist() for row, kept in zip(items[:, :count].cpu(), keep.cpu(), strict=True)]
