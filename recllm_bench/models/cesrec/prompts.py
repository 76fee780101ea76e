"""What the constructor is asked: a history, a remark, and what to do (specification, section 7.2)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from recllm_bench.errors import BenchError
from recllm_bench.language.titles.lists import MODES
from recllm_bench.language.titles.trie import tokens_after

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recllm_bench.language.titles.lists import ListLayout

WORDINGS = ("auto", "full", "short")
INSTRUCTIONS = {
    "sequence": (
        "Below is a numbered list of titles that a user chose, the oldest first, and a remark that the user made. "
        "Write the list again: put in place of titles that the user would now reject ones that the user would now "
        "like, leave all others as they are, keep the order, and write one numbered title a line."
    ),
    "edits": (
        "Below is a numbered list of titles that a user chose, the oldest first, and a remark that the user made. "
        "Find the titles that the user would now reject. For each of them write one line, in the order of the list: "
        "its number, an arrow, and a title that the user would now like, as in '3 -> Title'. Leave all others out."
    ),
}
REMARK = {"full": "\nThe user's remark:", "short": "User:"}
ANSWER = {"sequence": "\nNew list:\n", "edits": "\nChanges:\n"}
_LIST_HERE, _REMARK_HERE = "\ue000", "\ue001"  # private characters mark where the pieces go in a chat template
_REMARK_TOKENS = 128


def with_hidden(items: Sequence[Sequence[int]], masked: Sequence[Sequence[bool]] | None) -> list[list[int]]:
    """Histories as a prompt shows them: 0 in every hidden place."""
    if masked is None:
        return [list(map(int, row)) for row in items]
    pairs = (zip(row, flags, strict=True) for row, flags in zip(items, masked, strict=True))
    return [[0 if hidden else int(item) for item, hidden in pair] for pair in pairs]


class PromptWriter:
    """Prompts for one tokenizer, each piece tokenised apart and put together.

    ``full`` wording asks in words, inside the tokenizer's chat template or, where it has none, in an instruction,
    input, output layout. ``short`` wording only labels the pieces: a model too small to follow an instruction is
    tuned to the form anyway, and saves the tokens. ``auto`` is short where ``small`` says so.

    Parameters
    ----------
    layout : ListLayout
        How lists are written.
    output : {"edits", "sequence"}
        What is asked for.
    limit : int
        Most tokens of prompt and answer together: the model's context, or less.
    items : int
        Newest items of a history that are shown at most; fewer where the limit asks for it.
    wording : {"auto", "full", "short"}
    small : bool
        Whether the model is a miniature.
    edits : int
        Changed lines that an answer in ``edits`` must have room for.
    """

    def __init__(
        self,
        layout: ListLayout,
        tokenizer: PreTrainedTokenizerBase,
        *,
        output: str = "edits",
        limit: int,
        items: int = 20,
        wording: str = "auto",
        small: bool = False,
        edits: int = 1,
    ) -> None:
        if output not in MODES or wording not in WORDINGS:
            raise BenchError(
                f"prompts: output '{output}' must be one of {', '.join(MODES)} and wording '{wording}' one of "
                f"{', '.join(WORDINGS)}"
            )
        self.layout, self.tokenizer, self.output = layout, tokenizer, output
        self.limit, self.items, self.edits = limit, min(items, layout.most_lines), edits
        self.wording = ("short" if small else "full") if wording == "auto" else wording
        self.before, self.between, self.after = self._frame()

    def remarks(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of remarks; control tokens in them are spelt as text, and long ones lose their end."""
        if not texts:
            return []
        # Behind a colon, since some tokenizers lose the space with which a text begins.
        spoken = [":", *(": " + " ".join(text.split()) for text in texts)]
        colon, *rows = self.tokenizer(spoken, add_special_tokens=False, split_special_tokens=True, verbose=False)[
            "input_ids"
        ]
        skipped = [len(colon) if row[: len(colon)] == colon else 0 for row in rows]
        return [row[start : start + _REMARK_TOKENS] for row, start in zip(rows, skipped, strict=True)]

    def write(self, histories: Sequence[Sequence[int]], remarks: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Prompts up to where the answer begins.

        Parameters
        ----------
        histories : sequence of sequence of int
            Item ids, oldest first; 0 is a masked place.
        remarks : sequence of str
            What each user said.

        Returns
        -------
        prompts : list of list of int
        shown : list of int
            How many of each history's newest items its prompt shows.

        Raises
        ------
        BenchError
            When not even one item has room.
        """
        prompts, shown = [], []
        for items, remark in zip(histories, self.remarks(remarks), strict=True):
            count = self.room(items, len(remark))
            listed = self.layout.encode_history(items[len(items) - count :])
            prompts.append([*self.before, *listed, *self.between, *remark, *self.after])
            shown.append(count)
        return prompts, shown

    def room(self, items: Sequence[int], remark: int) -> int:
        """How many of the newest items fit with a remark of so many tokens."""
        newest = np.asarray(items, np.int64)[len(items) - min(len(items), self.items) :]
        titles, heads, closing = self._sizes
        lines = titles[self.layout.path_of_item[newest]][::-1].cumsum() + (heads + closing) * np.arange(
            1, len(newest) + 1
        )
        fixed = len(self.before) + len(self.between) + len(self.after) + remark + self.layout.reserve
        if self.output == "sequence":  # what changes may be longer than what was there
            needed = fixed + 2 * lines
        else:
            needed = fixed + lines + (self.edits - 1) * self.layout.reserve
        count = int((needed <= self.limit).sum())
        if len(newest) and not count:
            raise BenchError(
                f"a prompt with one title needs {int(needed[0])} tokens, and there is room for {self.limit}; choose a "
                "model with a longer context, or lower title_tokens"
            )
        return count

    @cached_property
    def _sizes(self) -> tuple[np.ndarray, int, int]:
        """Tokens of each path's title, of the longest head, and of a line end."""
        _, lengths = self.layout.spans
        heads = lengths[self.layout.first_head : self.layout.first_head + self.layout.most_lines]
        return lengths[self.layout.first_title :], int(heads.max()), int(lengths[0])

    def _frame(self) -> tuple[list[int], list[int], list[int]]:
        """Tokens before the list, between list and remark, and after the remark."""
        begin = self.tokenizer("a", add_special_tokens=True)["input_ids"]
        bos = [begin[0]] if begin and begin[0] == self.tokenizer.bos_token_id else []
        remark, answer = REMARK[self.wording], ANSWER[self.output]
        if self.wording == "short":
            text = f"{_LIST_HERE}{remark}{_REMARK_HERE}{answer}"
        elif self.tokenizer.chat_template:
            asked = f"{INSTRUCTIONS[self.output]}\n\n{_LIST_HERE}{remark}{_REMARK_HERE}"
            text = str(
                self.tokenizer.apply_chat_template(
                    [{"role": "user", "content": asked}],
                    tokenize=False,
                    add_generation_prompt=True,
                    enable_thinking=False,
                    date_string="26 Jul 2024",  # some templates would otherwise put today's
                )
            )
            if self.tokenizer.bos_token and text.startswith(self.tokenizer.bos_token):
                bos = []
            if text.count(_LIST_HERE) != 1 or text.count(_REMARK_HERE) != 1:
                raise BenchError("the tokenizer's chat template loses or repeats the user's words; set wording=short")
        else:
            text = (
                f"### Instruction:\n{INSTRUCTIONS[self.output]}\n\n### Input:\n{_LIST_HERE}{remark}{_REMARK_HERE}"
                f"\n\n### Response:\n"
            )
        before, rest = text.split(_LIST_HERE)
        between, after = rest.split(_REMARK_HERE)
        opening = self.tokenizer(before, add_special_tokens=False)["input_ids"] if before else []
        middle, closing = (tokens_after(self.tokenizer, "\n", [piece])[0] for piece in (between, after))
        return [*bos, *opening], middle, closing
