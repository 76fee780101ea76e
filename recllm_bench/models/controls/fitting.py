"""The control "what the words give away": items that fit the facts of the sentence first, by popularity or by the best
row that sees histories alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from recllm_bench.api.method import Job, Method, Stage
from recllm_bench.api.words import Undeclared, Words
from recllm_bench.artifacts import write_json
from recllm_bench.conversation.dialogue import Dialogue, Response
from recllm_bench.conversation.dialogue_state import StateReader
from recllm_bench.conversation.showing import history_batch, show_best
from recllm_bench.conversation.understanding import Understanding, Wish, put_first, reader_for
from recllm_bench.data.splits import Cases
from recllm_bench.models.controls.history_rows import AmongOptions, HistoryRows, all_scores
from recllm_bench.options import option, options_from_config
from recllm_bench.recbole_bridge.bare import Ids, bare_config
from recllm_bench.recbole_bridge.untrained import Untrained

CHOSEN = "chosen.json"


@dataclass(frozen=True)
class WordsFitOptions(AmongOptions):
    """Options of :class:`Fitting`."""

    hears: str = option(
        "all", "what is understood in a dialogue: all, its opening alone, or nothing (the dialogue is ignored)",
        choices=("all", "opening", "nothing"),
    )  # fmt: skip


class Fitting(Untrained):
    """Orders items by a history-only row, those that fit what the user's sentence says before those that do not.

    Nothing is trained on words: the sentence is read by :mod:`recllm_bench.conversation.understanding`, as any system
    could. A method that reads words has to beat it.

    Parameters
    ----------
    config : recbole.config.Config
        Of RecBole.
    dataset : recbole.data.dataset.Dataset
        For the number of items.
    row : torch.nn.Module, optional
        The trained history-only row; without one all items are equal.
    reader : Understanding, optional
        Who knows which items fit.
    """

    Options = WordsFitOptions
    display_name = "Popularity among items that fit the words"
    reads_words = True
    default_protocol = "latentcrs.one_turn"
    training_defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any, dataset: Any, row: Any = None, reader: Understanding | None = None) -> None:
        super().__init__(config, dataset)
        self.row, self.reader = row, reader
        self.hears = options_from_config(WordsFitOptions, config).hears

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """Scores ``float [B, n_items + 1]``; padding has minus infinity."""
        if self.row is None:
            scores = self.nothing.new_zeros(len(interaction[self.ITEM_SEQ]), self.n_items)
        else:
            scores = all_scores(self.row, interaction, self.n_items)
        if self.reader is not None and self.hears != "nothing":
            scores = self.reader.fitting_first(scores, interaction)
        scores[:, 0] = -torch.inf
        return scores


class WordsFit(Fitting):
    """In dialogues too, where it reads all that was said."""

    @torch.inference_mode()
    def respond(self, job: Job, dialogues: Sequence[Dialogue]) -> list[Response]:
        """Show what fits all that was said and is best by the row; nothing twice, and what does not fit at the end."""
        start = time.perf_counter()
        batch = history_batch(dialogues, self.history_length, self.nothing.device)
        scores = all_scores(self.row, batch, self.n_items)
        if self.hears != "nothing":
            last = 0 if self.hears == "opening" else None
            scores = put_first(scores, self._states.fitting(dialogues, last))
        return show_best(scores, job, dialogues, seconds=time.perf_counter() - start)


class FactsFit(Fitting):
    """The ceiling: the same with the facts handed over that are behind the sentence; nothing has to be understood."""

    display_name = "Popularity among items that fit, told the facts"
    reads_facts = True


class WordsFitMethod(Method):
    """One stage: which history-only row orders best on validation, under the words of the validation cases."""

    model: ClassVar[type[Fitting]] = WordsFit

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.rows = HistoryRows(job, f"{self.model.display_name}: options")
        self._fits = ""

    @cached_property
    def reader(self) -> Understanding:
        """Reads sentences by the catalogue's facts."""
        return reader_for(self.job)

    def stages(self) -> list[Stage]:
        """``choose``; its key holds what the rows and the words depend on."""
        key = {"among": self.rows.key, "words": dict(self.job.words.key), "facts": bool(_told(self))}
        return [Stage("choose", {**key, "measured": self.job.protocol.fingerprint()}, self._choose)]

    def load(self, folders: Mapping[str, Path]) -> Fitting:
        """The model around the chosen row."""
        return self._around(json.loads((folders["choose"] / CHOSEN).read_text())["row"])

    def columns(self, cases: Cases, words: Words | Undeclared) -> dict[str, np.ndarray]:
        """What each user wants and refuses, as numbers of facts."""
        wishes = self.wishes(cases, words)
        masks = {wish: self.reader.fits(wish) for wish in set(wishes)}
        fits = [masks[wish][target] for wish, target in zip(wishes, cases.targets.tolist(), strict=True)]
        left = float(np.median([int(masks[wish].sum()) for wish in wishes]))
        self._fits = f"a median of {left:,.0f} items fit, the wanted one in {np.mean(fits):.1%}"
        return self.reader.columns(wishes)

    def wishes(self, cases: Cases, words: Words | Undeclared) -> list[Wish]:
        """What each user is understood to want."""
        if _told(self):
            return self.reader.told(words.facts(cases))
        return self.reader.read(words.openings(cases))

    def report(self, folders: Mapping[str, Path]) -> dict[str, Any]:
        """How many items fit, and which row orders them."""
        note = self.rows.note(json.loads((folders["choose"] / CHOSEN).read_text()))
        return {"notes": {"ordered by": f"{note}; {self._fits}"}, "substitutes": {"text encoder": ""}}

    def _choose(self, work: Path, done: Mapping[str, Path]) -> None:
        names = list(self.rows.cells)
        if len(names) == 1:
            write_json(work / CHOSEN, {"row": names[0], "found": {}})
            return
        columns = self.columns(self.job.split.valid, self.job.words)
        found = {name: self.rows.measured(self._around(name), columns) for name in names}
        write_json(work / CHOSEN, {"row": max(found, key=lambda name: found[name]), "found": found})

    def _around(self, name: str) -> Fitting:
        job, (row, length) = self.job, self.rows.row(name)
        model = self.model(
            bare_config(job.options, length, job.device), Ids(job.split.histories.n_items), row, self.reader
        )
        model.history_length = length
        model._states = StateReader(job.dataset.catalogue, self.reader)
        return model.to(job.device).eval()


class FactsFitMethod(WordsFitMethod):
    """The ceiling of :class:`WordsFitMethod`."""

    model = FactsFit

    def stages(self) -> list[Stage]:
        """As without the facts, once the simulator is known to tell them."""
        self.job.words.facts(self.job.split.valid.take(np.zeros(0, dtype=np.int64)))
        return super().stages()


def _told(method: Method) -> bool:
    return bool(getattr(method.model, "reads_facts", False))
