"""Titles that a chat model names freely, as lists of catalogue items: what names no item is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from recllm_bench.language.titles.grounding import parse_lines
from recllm_bench.language.titles.matching import EXACT, NONE, TitleMatcher

COUNTED = ("answers", "without a title", "lines", "exact", "fuzzy", "embed", "none", "repeated", "forbidden")
"""What :func:`named_items` counts."""


def named_items(
    texts: Sequence[str],
    matcher: TitleMatcher,
    most: int,
    forbid: Sequence[Collection[int]],
    prefer: Sequence[Collection[int]] | None = None,
) -> tuple[list[list[int]], Counter[str]]:
    """The items that each answer names, in its order; lines beyond the first ``most`` items are not read.

    Parameters
    ----------
    texts : sequence of str
        Answers, a title on each line.
    matcher : TitleMatcher
        Finds the items that a title may mean.
    most : int
        Items wanted of each answer.
    forbid : sequence of collection of int
        Items that an answer may not name, such as those shown before.
    prefer : sequence of collection of int, optional
        Where a title has several ids, those to take first.

    Returns
    -------
    list of list of int
        Item ids, none twice.
    Counter
        Of :data:`COUNTED`: the ways in which lines were found are ``exact``, ``fuzzy``, ``embed`` and ``none``.
    """
    parsed = [[line.title for line in parse_lines(text)[0]] for text in texts]
    matches = iter(matcher.match([title for titles in parsed for title in titles]))
    counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
    lists = []
    for row, titles in enumerate(parsed):
        found: list[int] = []
        first = prefer[row] if prefer is not None else ()
        for items, way in (next(matches) for _ in titles):
            if len(found) == most:
                continue
            counts["lines"] += 1
            counts[way] += 1
            if way == NONE:
                continue
            allowed = sorted((item for item in items if item not in forbid[row]), key=lambda item: item not in first)
            if not allowed:
                counts["forbidden"] += 1
            elif allowed[0] in found:
                counts["repeated"] += 1
            else:
                found.append(allowed[0])
        counts["answers"] += 1
        counts["without a title"] += not found
        lists.append(found)
    return lists, counts


def validity(counts: Counter[str]) -> float:
    """Share of the lines that are a catalogue title as they stand, before anything is guessed; 0 without lines."""
    return counts[EXACT] / max(1, counts["lines"])
