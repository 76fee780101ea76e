"""The constructor: a tuned language model that writes pseudo-histories (CESRec, equation 7)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from recllm_bench.errors import BenchError
from recllm_bench.language.titles.writing import Written, write_lists
from recllm_bench.models.cesrec.prompts import PromptWriter, with_hidden

if TYPE_CHECKING:
    from recllm_bench.language.backbone import Backbone


class Constructor:
    """Rewrites histories so that they agree with what users said.

    Parameters
    ----------
    backbone : Backbone
        The language model, with its adapter.
    prompts : PromptWriter
        Made with its tokenizer; tells what the model is to write.
    popularity : array [n_items + 1], optional
        Training interactions of each item, to tell apart items of one title.
    most_edits : int, optional
        Most items of a history that may change.
    speculate : bool
        Verify unchanged lines of a whole list at once.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompts: PromptWriter,
        *,
        popularity: np.ndarray | None = None,
        most_edits: int | None = None,
        speculate: bool = True,
        batch_size: int = 64,
    ) -> None:
        self.backbone, self.prompts, self.popularity = backbone, prompts, popularity
        self.most_edits, self.speculate, self.batch_size = most_edits, speculate, batch_size

    def construct(
        self,
        items: Sequence[Sequence[int]],
        masked: Sequence[Sequence[bool]] | None,
        feedback: Sequence[str],
        forbid: Sequence[Iterable[int]] | None = None,
    ) -> Written:
        """Pseudo-histories, all users in batches.

        Only the newest items that a prompt shows are rewritten; older ones stay, and are not written again. A user
        who said nothing keeps the history.

        Parameters
        ----------
        items : sequence of sequence of int
            Histories after masking, oldest first.
        masked : sequence of sequence of bool, optional
            Places whose title the prompt hides (``mask_mode`` mark).
        feedback : sequence of str
            What each user said.
        forbid : sequence of iterable of int, optional
            Items that may not be written for each user.

        Returns
        -------
        Written
            ``lists`` are whole histories; 0 stands where a hidden place was left empty.

        Raises
        ------
        BenchError
            When the columns differ in length.
        """
        counts = {len(column) for column in (items, masked, feedback, forbid) if column is not None}
        if len(counts) > 1:
            raise BenchError(f"constructor: columns of {sorted(counts)} rows do not belong together")
        lists = with_hidden(items, masked)
        rows = [row for row, (said, before) in enumerate(zip(feedback, lists, strict=True)) if said.strip() and before]
        prompts, shown = self.prompts.write([lists[row] for row in rows], [feedback[row] for row in rows])
        older = [lists[row][: len(lists[row]) - count] for row, count in zip(rows, shown, strict=True)]
        banned = [
            {*old, *(forbid[row] if forbid is not None else ())} - {0} for row, old in zip(rows, older, strict=True)
        ]
        written = write_lists(
            self.backbone,
            self.prompts.layout,
            prompts,
            [lists[row][len(old) :] for row, old in zip(rows, older, strict=True)],
            mode=self.prompts.output,
            speculate=self.speculate,
            most_edits=self.most_edits,
            forbid=banned,
            popularity=self.popularity,
            batch_size=self.batch_size,
            label="pseudo-histories",
        )
        for row, old, new in zip(rows, older, written.lists, strict=True):
            lists[row] = [*old, *new]
        written.lists = lists
        return written
