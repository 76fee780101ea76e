"""What the constructor learns to write, and which of its tokens decide anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recllm_bench.language.titles.lists import ListLayout
    from recllm_bench.language.titles.paths import PathTrie


def answer_tokens(
    layout: ListLayout, before: Sequence[int], after: Sequence[int], output: str = "edits"
) -> tuple[list[int], list[bool]]:
    """Tokens of an answer, and whether constrained decoding has a choice at each.

    Where only one token can follow, the likelihood (8) under constrained decoding is one whatever the model says; to
    learn such tokens anyway costs a small model what it needs for the choice of a title.

    Parameters
    ----------
    layout : ListLayout
    before, after : sequence of int
        The list as it was and as it shall be, equally long.
    output : {"edits", "sequence"}

    Returns
    -------
    tokens : list of int
    decided : list of bool
    """
    after = np.asarray(after, np.int64).reshape(-1)
    paths = layout.path_of_item[after]
    if output == "sequence":  # heads and the end follow from the number of lines
        _, sizes = layout.spans
        heads = sizes[layout.first_head : layout.first_head + len(after)]
        lines = [
            [False] * int(head) + _choices(layout.trie.paths, path) for head, path in zip(heads, paths, strict=True)
        ]
        return layout.encode_sequence(after), [flag for line in lines for flag in line] + [False]
    changed = np.flatnonzero(layout.path_of_item[np.asarray(before, np.int64).reshape(-1)] != paths)
    heads, numbers = layout.positions(len(after))
    decided = [
        flag
        for line in changed
        for flag in (*_choices(heads, int(numbers[line + 1])), *_choices(layout.trie.paths, paths[line]))
    ]
    return layout.encode_edits(before, after), decided + _choices(heads, int(numbers[0]))


def _choices(trie: PathTrie, path: int) -> list[bool]:
    """At which tokens of a path another one could follow."""
    nodes = trie.path_node[trie.path_start[path] : trie.path_start[path + 1]]
    return (trie.edge_start[nodes + 1] - trie.edge_start[nodes] > 1).tolist()
