"""A chat model puts a short list in order: what it is shown, and how its answer is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from recllm_bench.language.titles.matching import plain_key

T = TypeVar("T")
NUMBER_TOKENS = 3
"""Tokens of a number with its comma."""
_NUMBER = re.compile(r"(?<![\w.])\d{1,4}(?![\w]|\.\d)")
_LETTER, _LEAD = re.compile(r"[^\W\d_]"), re.compile(r"^[^:]*:")  # "The order: 3, 1, 2"


def listed(lines: Sequence[str]) -> str:
    """Lines with their numbers, from 1."""
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


def read_order(text: str, names: Sequence[str]) -> list[int] | None:
    """Places from 0 in the order in which an answer names the lines of a list, by number (from 1) or by name.

    A line of words counts where it holds one of the names, whatever number it begins with; without any such line, the
    first line of numbers alone counts, so that reasons may follow, or all lines where each has one number of its own.
    Numbers that are no line and what was named before are passed over.

    Returns
    -------
    list of int or None
        None where no line of the list is named.
    """
    keys = sorted(
        ((plain_key(name), place) for place, name in enumerate(names) if name), key=lambda pair: -len(pair[0])
    )
    named, rows = [], []
    for line in text.splitlines():
        key = f" {plain_key(line)} "
        named += [place for name, place in keys if f" {name} " in key][:1]
        numbers = _LEAD.sub("", line)
        if not _LETTER.search(numbers):
            rows.append([int(number) - 1 for number in _NUMBER.findall(numbers)])
    if named:
        return list(dict.fromkeys(named))
    rows = [row for row in rows if row]
    if len(rows) > 1 and all(len(row) == 2 and row[0] == place for place, row in enumerate(rows)):
        rows = [row[1:] for row in rows]  # numbers in a numbered list
    rows = rows if all(len(row) == 1 for row in rows) else rows[:1]
    order = list(dict.fromkeys(place for row in rows for place in row if 0 <= place < len(names)))
    return order or None


def reordered(items: Sequence[T], order: Sequence[int]) -> list[T]:
    """What is named first, then the rest as it stood."""
    named = set(order)
    return [*(items[place] for place in order), *(item for place, item in enumerate(items) if place not in named)]
