"""Every item of a catalogue in the order of any trained model: one that converses, reads words, or ranks by history."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.api.method import Method
from recllm_bench.data.histories import Histories
from recllm_bench.data.splits import Cases
from recllm_bench.errors import BenchError

if TYPE_CHECKING:
    from recllm_bench.runner import BenchCell


class ModelOrder:
    """What a trained model would recommend, from the first to the last item.

    Parameters
    ----------
    cell : BenchCell
        Trained now where it is not yet.

    Attributes
    ----------
    name : str
    hears : bool
        Whether sentences reach the model; another ranks by the history alone.
    named : int
        Items that the model itself ranked in the order asked for last.
    popularity : int64 [n_items + 1]
        Interactions of each item in the training part.
    """

    def __init__(self, cell: BenchCell) -> None:
        self.name, self._cell = cell.name, cell
        self._model: Any = cell.cell.load()
        self._converses = cell.entry.converses
        self._encodes = cell.entry.reads_words and type(cell.cell.method).columns is Method.columns
        self.hears = self._converses or self._encodes
        histories, split = cell.dataset.histories, cell.split
        train = histories.items[histories.before(split.train_ends)]
        self.popularity = np.bincount(train, minlength=histories.n_items + 1)
        self.named = 0
        self._order = lru_cache(maxsize=64)(self._ordered)

    def order(self, user: int, history: Sequence[int], said: Sequence[str] = ()) -> np.ndarray:
        """Item ids, best first; what the model does not rank comes after what it does, by popularity.

        Parameters
        ----------
        user : int
            User id, for models that know users by number.
        history : sequence of int
            Item ids, oldest first; at least one.
        said : sequence of str
            Sentences, oldest first; for a model that hears them.

        Raises
        ------
        BenchError
            When the history is empty.
        """
        if not len(history):
            raise BenchError("the history is empty, and a model ranks by it; name a title with --history")
        known, heard = tuple(int(item) for item in history), tuple(said) if self.hears else ()
        order, self.named = self._order(user, known, heard)
        return order

    def _ordered(self, user: int, history: tuple[int, ...], said: tuple[str, ...]) -> tuple[np.ndarray, int]:
        items = np.array(history, dtype=np.int32)
        ranked = self._responded(user, items, said) if self._converses else self._ranked(user, items, said)
        listed = set(ranked)
        rest = np.argsort(-self.popularity[1:], kind="stable") + 1
        return np.array([*ranked, *(item for item in rest.tolist() if item not in listed)]), len(ranked)

    def _responded(self, user: int, history: np.ndarray, said: tuple[str, ...]) -> list[int]:
        """All that a model which converses would show, were there room for everything."""
        from recllm_bench.conversation.dialogue import Dialogue

        job = self._cell.talking_job()
        protocol = dataclasses.replace(job.protocol, shown_per_turn=len(self.popularity) - 1)
        dialogue = Dialogue(user=user, history=history, messages=[("user", sentence) for sentence in said], shown=[])
        answer = self._model.respond(dataclasses.replace(job, protocol=protocol), [dialogue])[0]
        if answer.error:
            raise BenchError(f"{self.name} does not answer: {answer.error}")
        return list(dict.fromkeys(int(item) for item in answer.items))

    def _ranked(self, user: int, history: np.ndarray, said: tuple[str, ...]) -> list[int]:
        """The evaluation's own ranking of one case in which this user has this history, and nobody else has any."""
        from recllm_bench.evaluation.ranks import rank_cases

        cell, n_users = self._cell, self._cell.dataset.histories.n_users
        offsets = np.where(np.arange(n_users + 1) < user, 0, len(history)).astype(np.int64)
        histories = Histories(history, offsets, len(self.popularity) - 1)
        split = dataclasses.replace(cell.split, histories=histories)
        case = Cases(np.array([user]), offsets[user : user + 1], np.array([1], dtype=np.int32))
        rules = dataclasses.replace(cell.protocol, candidates="all", exclude_history=False)
        columns = {"utterance_vector": cell.job.encode([" ".join(said)])} if said and self._encodes else None
        ranks = rank_cases(
            self._model,
            split,
            case,
            rules,
            columns=columns,
            max_length=cell.cell.history_length(self._model),
            device=cell.device,
            top=len(self.popularity) - 1,
        )
        assert ranks.top is not None  # asked for
        return [item for item in ranks.top[0].tolist() if item]
