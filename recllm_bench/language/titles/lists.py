"""How a list of titles is written: as numbered lines, or as edits of a list that is known."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from recllm_bench.errors import BenchError
from recllm_bench.language.titles.paths import PathTrie, build_paths, gather_ragged
from recllm_bench.language.titles.trie import TitleTrie, build_trie, tokens_after

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODES = ("sequence", "edits")
"""``sequence``: ``1. Title``, a line for each item, then the end of text. ``edits``: ``3 -> Title``, a line for each
item that changes, in order, then the end of text."""

NEW_LINE, END = 0, 1


class ListLayout:
    """Tokens of lists of titles: prompts, answers to learn from, and what decoding walks, all the same.

    A line is a head (``"3."`` or ``"3 ->"``), the tokens of a title, and a line end; the pieces are tokenised apart and
    put together, so that no tokenizer can merge a title with what stands around it.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The one that the trie was built with.
    most_lines : int
        Lines of the longest list.

    Raises
    ------
    BenchError
        When the tokenizer has no end of text.
    """

    def __init__(self, trie: TitleTrie, tokenizer: PreTrainedTokenizerBase, *, most_lines: int = 200) -> None:
        if most_lines < 1:
            raise BenchError(f"a layout of lists with most_lines={most_lines}: at least 1")
        if tokenizer.eos_token_id is None:
            raise BenchError(
                f"tokenizer of {tokenizer.name_or_path} has no end of text, so no list would end; choose another model"
            )
        self.trie = trie
        self.most_lines = most_lines
        self.end = int(tokenizer.eos_token_id)
        lines = range(1, most_lines + 1)
        self._heads = tokens_after(tokenizer, "\n", [f"{line}." for line in lines])
        self._edit_heads = tokens_after(tokenizer, "\n", [f"{line} ->" for line in lines])
        self._positions: dict[int, tuple[PathTrie, torch.Tensor]] = {}

    @classmethod
    def of(
        cls,
        titles: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        *,
        most_tokens: int = 64,
        most_lines: int = 200,
    ) -> ListLayout:
        """The layout of a catalogue's titles, by item id (see :func:`build_trie`)."""
        return cls(build_trie(titles, tokenizer, most_tokens=most_tokens), tokenizer, most_lines=most_lines)

    # what is put together ---------------------------------------------------------------------------------------------

    @cached_property
    def pool(self) -> np.ndarray:
        """Tokens of all pieces, one after the other, int64."""
        heads = [token for row in (*self._heads, *self._edit_heads) for token in row]
        fixed = np.array([*self.trie.line_end, self.end, *heads], np.int64)
        return np.concatenate([fixed, self.trie.paths.path_token.cpu().numpy()])

    @cached_property
    def spans(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each piece begins in the pool and how long it is, int64 [n_pieces].

        Pieces: the line end, the end of text, heads of lines 1, 2, ..., heads of edits 1, 2, ..., titles by path
        without their line end.
        """
        closing = len(self.trie.line_end)
        fixed = [closing, 1, *map(len, self._heads), *map(len, self._edit_heads)]
        titles = np.diff(self.trie.paths.path_start.cpu().numpy())
        steps = np.concatenate([np.array(fixed, np.int64), titles])
        lengths = steps.copy()
        lengths[len(fixed) :] -= closing
        return np.concatenate([[0], np.cumsum(steps)[:-1]]), lengths

    @property
    def first_head(self) -> int:
        """Piece of the head of line 1."""
        return END + 1

    @property
    def first_edit_head(self) -> int:
        """Piece of the head of an edit of line 1."""
        return END + 1 + self.most_lines

    @property
    def first_title(self) -> int:
        """Piece of the title of path 0."""
        return END + 1 + 2 * self.most_lines

    @cached_property
    def reserve(self) -> int:
        """Tokens of the longest line there can be, and the end of text."""
        titles = int(self.trie.paths.depth.max())
        return max(map(len, (*self._heads, *self._edit_heads))) + titles + 1

    @cached_property
    def path_of_item(self) -> np.ndarray:
        """Path of each item's title, int64 [n_items + 1]; item 0 is the mask word."""
        return self.trie.path_of_item.cpu().numpy()

    def positions(self, lines: int) -> tuple[PathTrie, torch.Tensor]:
        """The trie of what may begin an edit of so many lines, and the path of each choice, int64 [lines + 1].

        Choice 0 is the end of text, the others are the heads of lines 1, 2, ...
        """
        self._check_lines(lines)
        if lines not in self._positions:
            rows = [[self.end], *self._edit_heads[:lines]]
            offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
            trie, numbers = build_paths(np.array([token for row in rows for token in row], np.int64), offsets)
            if trie.n_paths != len(rows):
                raise BenchError("the tokenizer writes two line numbers alike, so no list can be numbered with it")
            self._positions[lines] = trie, torch.from_numpy(numbers)
        return self._positions[lines]

    def tokens(self, pieces: np.ndarray) -> np.ndarray:
        """Tokens of pieces, one after the other, int64."""
        starts, lengths = self.spans
        return gather_ragged(self.pool, starts[pieces], lengths[pieces])

    # what is asked for ------------------------------------------------------------------------------------------------

    def encode_history(self, items: Sequence[int], masked: Sequence[bool] | None = None) -> list[int]:
        """A list as a prompt shows it: ``1. Title``, a line for each item, without an end.

        Parameters
        ----------
        items : sequence of int
            Item ids, oldest first; 0 shows the mask word.
        masked : sequence of bool, optional
            Which items show the mask word instead of their title.

        Returns
        -------
        list of int

        Raises
        ------
        BenchError
            For an id that is no item, or more items than the layout has lines.
        """
        listed = self._items(items)
        if masked is not None:
            listed = np.where(self._fitting(masked, listed), 0, listed)
        return self.tokens(self._lines(listed)).tolist()

    def encode_sequence(self, items: Sequence[int]) -> list[int]:
        """A whole list as an answer of mode ``sequence``, with the end of text."""
        return self.tokens(np.concatenate([self._lines(self._items(items)), [END]])).tolist()

    def encode_edits(self, before: Sequence[int], after: Sequence[int]) -> list[int]:
        """What changes from one list to another, as an answer of mode ``edits``, with the end of text.

        Parameters
        ----------
        before, after : sequence of int
            Item ids; equally many. Two items of one title are no change. In ``before``, 0 is a masked item.

        Raises
        ------
        BenchError
            When the lists differ in length, or an edit would write the mask word.
        """
        old, new = self._items(before), self._items(after)
        if len(old) != len(new):
            raise BenchError(f"edits of a list of {len(old)} items cannot give one of {len(new)}")
        lines = np.flatnonzero(self.path_of_item[old] != self.path_of_item[new])
        if (new[lines] == 0).any():
            raise BenchError("an edit cannot mask an item; leave its line out")
        titles = self.first_title + self.path_of_item[new[lines]]
        pieces = np.stack([self.first_edit_head + lines, titles, np.full(len(lines), NEW_LINE)], 1)
        return self.tokens(np.append(pieces.reshape(-1), END)).tolist()

    def _lines(self, items: np.ndarray) -> np.ndarray:
        """Pieces of numbered lines."""
        heads = self.first_head + np.arange(len(items))
        titles = self.first_title + self.path_of_item[items]
        return np.stack([heads, titles, np.full(len(items), NEW_LINE)], 1).reshape(-1)

    def _items(self, given: Sequence[int] | np.ndarray) -> np.ndarray:
        items = np.asarray(given, np.int64).reshape(-1)
        self._check_lines(len(items))
        if len(items) and not 0 <= items.min() <= items.max() <= self.trie.n_items:
            raise BenchError(f"a list holds item {items.min()} to {items.max()}; there are 1 to {self.trie.n_items}")
        return items

    def _check_lines(self, lines: int) -> None:
        if lines > self.most_lines:
            raise BenchError(f"a list of {lines} items; the layout has {self.most_lines} lines: raise most_lines")

    def _fitting(self, given: Sequence[bool] | np.ndarray, items: np.ndarray) -> np.ndarray:
        masked = np.asarray(given, bool).reshape(-1)
        if len(masked) != len(items):
            raise BenchError(f"{len(masked)} masks for a list of {len(items)} items")
        return masked
