"""The control "text retrieval fused with the best history-only row": what a weighted sum of both reaches."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from recllm_bench.api.method import Job, Method, Stage
from recllm_bench.artifacts import write_json
from recllm_bench.conversation.dialogue import Dialogue, Response
from recllm_bench.conversation.showing import history_batch, show_best
from recllm_bench.models.controls.history_rows import AmongOptions, HistoryRows, all_scores
from recllm_bench.options import option
from recllm_bench.recbole_bridge.bare import Ids, bare_config
from recllm_bench.recbole_bridge.untrained import Untrained
from recllm_bench.training.cells import inner_cell

CHOSEN = "chosen.json"


@dataclass(frozen=True)
class TextFusedOptions(AmongOptions):
    """Options of :class:`TextFused`."""

    steps: int = option(10, "weights of the text that are tried on validation, from 0 to 1 in so many steps", low=1)


class TextFused(Untrained):
    """The sum of two scores, each standardised over a user's items: of the text, and of a history-only row.

    Parameters
    ----------
    config : recbole.config.Config
        Of RecBole.
    dataset : recbole.data.dataset.Dataset
        For the number of items.
    row, text : torch.nn.Module, optional
        The trained history-only row and text retrieval; without them all items are equal.
    weight : float
        Of the text, from 0 to 1.
    """

    Options = TextFusedOptions
    display_name = "Text retrieval with popularity"
    reads_words = True
    default_protocol = "latentcrs.one_turn"
    training_defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any, dataset: Any, row: Any = None, text: Any = None, weight: float = 0.5) -> None:
        super().__init__(config, dataset)
        self.row, self.text, self.weight = row, text, weight

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """Scores ``float [B, n_items + 1]``; padding has minus infinity."""
        if self.row is None or self.text is None:
            scores = self.nothing.new_zeros(len(interaction[self.ITEM_SEQ]), self.n_items)
        else:
            parts = [standardised(all_scores(model, interaction, self.n_items)) for model in (self.row, self.text)]
            scores = (1 - self.weight) * parts[0] + self.weight * parts[1]
        scores[:, 0] = -torch.inf
        return scores

    @torch.inference_mode()
    def respond(self, job: Job, dialogues: Sequence[Dialogue]) -> list[Response]:
        """Show the best by the sum of both, the text being all that was said."""
        start = time.perf_counter()
        batch = history_batch(dialogues, self.history_length, self.nothing.device)
        parts = [all_scores(self.row, batch, self.n_items), self.text.dialogue_scores(job, dialogues)]
        row, text = map(standardised, parts)
        scores = (1 - self.weight) * row + self.weight * text
        return show_best(scores, job, dialogues, seconds=time.perf_counter() - start)


class TextFusedMethod(Method):
    """One stage: the history-only row and the weight of the text that are best together on validation."""

    model = TextFused

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.rows = HistoryRows(job, f"{self.model.display_name}: options")
        self.text = inner_cell(job, "text-retrieval", None, None, "text retrieval")

    def stages(self) -> list[Stage]:
        """``choose``; its key holds what the rows, the texts and the words depend on."""
        key = {"among": self.rows.key, "text": self.text.key, "words": dict(self.job.words.key)}
        key |= {"steps": self.job.options.steps, "measured": self.job.protocol.fingerprint()}
        return [Stage("choose", key, self._choose)]

    def load(self, folders: Mapping[str, Path]) -> TextFused:
        """The model with the chosen row and weight."""
        chosen = json.loads((folders["choose"] / CHOSEN).read_text())
        return self._around(chosen["row"], chosen["weight"])

    def report(self, folders: Mapping[str, Path]) -> dict[str, Any]:
        """Which row, and the weight of the text."""
        return {"notes": {"ordered by": self.rows.note(json.loads((folders["choose"] / CHOSEN).read_text()))}}

    def _choose(self, work: Path, done: Mapping[str, Path]) -> None:
        columns = self.columns(self.job.split.valid, self.job.words)
        found = {name: self.rows.measured(self._around(name, 0.5), columns) for name in self.rows.cells}
        best = max(found, key=lambda name: found[name])
        weights = np.linspace(0, 1, self.job.options.steps + 1).round(6).tolist()
        weighed = {weight: self.rows.measured(self._around(best, weight), columns) for weight in weights}
        chosen = {"row": best, "weight": max(weights, key=lambda weight: weighed[weight])}
        write_json(work / CHOSEN, {**chosen, "found": found, "weighed": list(weighed.items())})

    def _around(self, name: str, weight: float) -> TextFused:
        job, (row, length) = self.job, self.rows.row(name)
        config, ids = bare_config(job.options, length, job.device), Ids(job.split.histories.n_items)
        model = self.model(config, ids, row, self._text, weight)
        model.history_length = length
        return model.to(job.device).eval()

    @property
    def _text(self) -> Any:
        if not hasattr(self, "_loaded"):
            self._loaded = self.text.load()
        return self._loaded


def standardised(scores: torch.Tensor) -> torch.Tensor:
    """Scores ``[B, n_items + 1]`` with mean 0 and deviation 1 over the items of each row; equal scores become 0."""
    items = scores[:, 1:]
    centred = items - items.mean(1, keepdim=True)
    scaled = centred / items.std(1, correction=0, keepdim=True).clamp(min=torch.finfo(items.dtype).tiny)
    return torch.cat([torch.full_like(scores[:, :1], -torch.inf), scaled], 1)
