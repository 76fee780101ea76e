"""CESRec in dialogues: every sentence rewrites the history once more, and the backend ranks by what is left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recllm_bench.conversation.dialogue_state import StateReader
from recllm_bench.conversation.showing import show_best
from recllm_bench.conversation.understanding import put_first
from recllm_bench.errors import BenchError
from recllm_bench.models.cesrec.rounds import Pseudo

if TYPE_CHECKING:
    from recllm_bench.api.method import Job
    from recllm_bench.conversation.dialogue import Dialogue, Response


class Talker:
    """Answers dialogues with a trained method.

    The first sentence, too, rewrites the history: it is what the user says before anything was recommended.

    Parameters
    ----------
    method : CESRecMethod
        Its stages are finished.
    folders : mapping
        Of these stages.
    """

    def __init__(self, method: Any, folders: Mapping[str, Path]) -> None:
        self.options, self._method, self._folders = method.options, method, folders
        self._parts: tuple[Any, Any, Any] | None = None
        self._known: dict[tuple[int, bytes, tuple[str, ...]], list[int]] = {}

    @cached_property
    def _states(self) -> StateReader:
        return StateReader(self._method.job.dataset.catalogue, self._method.reader)

    def respond(self, job: Job, dialogues: Sequence[Dialogue]) -> list[Response]:
        """The best items by the rewritten histories, none shown before; all dialogues are one batch.

        Raises
        ------
        BenchError
            Under ``forbid_target``, which asks for what no system knows, and for an empty history.
        """
        if self.options.forbid_target:
            raise BenchError("cesrec: forbid_target=true needs the target, which no system in a dialogue knows")
        start, device = time.perf_counter(), self._load()[0].device
        histories = self.rewritten(dialogues)
        everyone = np.arange(len(dialogues))
        users = torch.tensor([dialogue.user for dialogue in dialogues], device=device)
        backend = self._load()[0]
        scores = backend.score(*Pseudo.from_lists(histories).tensors(everyone, device), users).clone()
        if self.options.ranks_by_words:
            scores = scores * 0 if self.options.edit == "words" else scores
            scores = put_first(scores, self._states.fitting(dialogues))
        return show_best(scores, job, dialogues, seconds=time.perf_counter() - start)

    def rewritten(self, dialogues: Sequence[Dialogue]) -> list[list[int]]:
        """Each history after all that its user said, sentence by sentence; what was rewritten before is kept."""
        length = self._load()[0].history_length
        said = [tuple(dialogue.user_sentences()) for dialogue in dialogues]
        firsts = [np.asarray(dialogue.history[-length:], dtype=np.int64) for dialogue in dialogues]
        if not all(map(len, firsts)):
            raise BenchError("cesrec: a dialogue has an empty history; it recommends to users with at least one item")
        whose = [(dialogue.user, first.tobytes()) for dialogue, first in zip(dialogues, firsts, strict=True)]
        lists = [first.tolist() for first in firsts]
        for turn in range(max(map(len, said), default=0)):
            rows = [row for row, texts in enumerate(said) if len(texts) > turn]
            keys = {row: (*whose[row], said[row][: turn + 1]) for row in rows}
            new = [row for row in rows if keys[row] not in self._known]
            base = [lists[row] if self.options.refine_from == "last" else firsts[row].tolist() for row in new]
            for row, items in zip(new, self._rewrite(base, [said[row][turn] for row in new]), strict=True):
                self._known[keys[row]] = items[-length:]
            for row in rows:
                lists[row] = self._known[keys[row]]
        return lists

    def _rewrite(self, lists: list[list[int]], said: list[str]) -> list[list[int]]:
        """Mask and construct once."""
        if not lists:
            return []
        backend, mask, construct = self._load()
        before, flags = lists, None
        if mask is not None:
            found = mask(*Pseudo.from_lists(lists).tensors(np.arange(len(lists)), backend.device))
            lengths = found.lengths.cpu().numpy()
            lists = Pseudo(found.items.cpu().numpy(), lengths).lists(np.arange(len(lists)))
            if self.options.mask_mode == "mark":
                marks = found.masked.cpu().numpy()
                flags = [row[:size].tolist() for row, size in zip(marks, lengths.tolist(), strict=True)]
        if construct is not None:
            lists = [
                [item for item in items if item] for items in construct(lists, flags, said, [0] * len(lists)).lists
            ]
        elif flags is not None:
            lists = [
                [item for item, masked in zip(items, marks, strict=True) if not masked]
                for items, marks in zip(lists, flags, strict=True)
            ]
        return [new or old for new, old in zip(lists, before, strict=True)]

    def _load(self) -> tuple[Any, Any, Any]:
        """Backend, masker and constructor, loaded at the first use."""
        if self._parts is None:
            method, folders = self._method, self._folders
            self._parts = (method.backend(folders), method.masker(folders), method.constructor(folders))
        return self._parts
