"""The rows of an own table put together from its parts, and what is odd about them all: positions, repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from recllm_bench.data.interactions import Interactions
from recllm_bench.data.prepare.values import before_the_web, encode_tokens
from recllm_bench.errors import BenchError


def join_parts(path: Path, parts: Sequence[tuple[Interactions, bool]]) -> Interactions:
    """The rows of a table's parts in order, users and items numbered anew by first appearance.

    Parameters
    ----------
    path : Path
        The first part, for messages.
    parts : sequence of (Interactions, bool)
        Rows, and whether their times were plain numbers.

    Raises
    ------
    BenchError
        When some parts have times or ratings and some have none.
    """
    rows = parts[0][0]
    if len(parts) > 1:
        for name in ("order", "ratings"):
            if len({getattr(part, name) is None for part, _ in parts}) > 1:
                what = "time" if name == "order" else "rating"
                raise BenchError(f"{path.parent}: some parts have a {what} column and some have none")
        coded = {}
        for what in ("user", "item"):
            tokens = [pa.array(getattr(part, f"{what}_tokens"), pa.string()) for part, _ in parts]
            codes = [pa.array(getattr(part, f"{what}s")) for part, _ in parts]
            coded[what] = encode_tokens(pa.concat_arrays([one.take(at) for one, at in zip(tokens, codes, strict=True)]))
        order, stars = (
            None if getattr(rows, name) is None else np.concatenate([getattr(part, name) for part, _ in parts])
            for name in ("order", "ratings")
        )
        (users, user_tokens), (items, item_tokens) = coded["user"], coded["item"]
        notes = tuple(note for part, _ in parts for note in part.notes)
        rows = Interactions(users, items, user_tokens, item_tokens, order, order is not None, stars, notes=notes)
    if all(are_numbers for _, are_numbers in parts):
        rows = without_positions(rows)
    return _with_repeats_noted(rows)


def without_positions(rows: Interactions) -> Interactions:
    """The rows, with a column of positions taken for an order and not for times; some early times are only noted."""
    if rows.order is None or not (early := before_the_web(rows.order)).any():
        return rows
    if early.all():
        note = f"the time column holds numbers up to {rows.order.max():,.0f}: an order, no Unix times"
        return replace(rows, has_times=False, notes=(*rows.notes, note))
    some = f"{int(early.sum()):,} times lie before 1973, such as {rows.order[early][0]:,.0f}"
    note = f"{some}; if they are unknown, leave their rows out"
    return replace(rows, notes=(*rows.notes, note))


def _with_repeats_noted(rows: Interactions) -> Interactions:
    if not rows.has_times or rows.order is None:
        return rows
    pairs = rows.users.astype(np.int64) * len(rows.item_tokens) + rows.items
    sorting = np.lexsort((rows.order, pairs))
    same = (np.diff(pairs[sorting]) == 0) & (np.diff(rows.order[sorting]) == 0)
    if not (count := int(np.count_nonzero(same))):
        return rows
    said = f"{count:,} rows repeat another one (same user, item and time)"
    note = f"{said}; repeats=drop in a filter keeps the earliest of each user and item"
    return replace(rows, notes=(*rows.notes, note))
