"""RecBole atomic files that hold a whole history a line: ``user_id, item_id_list, item_id``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recllm_bench.data.interactions import Interactions
from recllm_bench.data.prepare.column_names import COLUMNS, recognise
from recllm_bench.data.prepare.values import encode_tokens, numbers, refuse_empty, refuse_first, unix_seconds
from recllm_bench.errors import BenchError

_TOKENS = "_list:token_seq"
_NUMBERS = "_list:float_seq"


def holds_item_lists(columns: Iterable[str]) -> bool:
    """Whether a header has lists of tokens, such as ``item_id_list:token_seq``."""
    return any(name.endswith(_TOKENS) for name in columns)


def read_item_lists(path: Path, columns: dict[str, pa.Array], first_line: int) -> Interactions:
    """Interactions of lines with a list of items, the line's own item being the newest.

    Parameters
    ----------
    path : Path
        For messages.
    columns : dict of str to string array
        By header field, such as ``item_id_list:token_seq``. Of ``<item>_list`` and ``<item>`` the item is the same
        field; ``timestamp_list:float_seq`` with ``timestamp:float`` gives times, in the same way.
    first_line : int
        Line of the first row.

    Raises
    ------
    BenchError
        For several lists of tokens, a line without items, lists of different lengths, or several lines of one user
        that are not beginnings of the longest.
    """
    lists = [name for name in columns if name.endswith(_TOKENS)]
    wanted = recognise(path, [name.replace("_list:", ":") for name in lists], {"item": COLUMNS["item"]}, ("item",))
    users = columns[recognise(path, columns, {"user": COLUMNS["user"]}, ("user",))["user"]]
    refuse_empty(path, users, "user id", first_line)
    items, lengths = _flattened(columns, wanted["item"].split(":")[0], "token")
    refuse_first(path, lengths == 0, first_line, lambda _: "the user has no items")
    row_of = np.repeat(np.arange(len(lengths)), lengths)
    order = None
    lists = [name for name in columns if name.endswith(_NUMBERS)]
    times = recognise(path, [name.replace("_list:", ":") for name in lists], {"time": COLUMNS["time"]}, ())
    if "time" in times:
        stamps, counts = _flattened(columns, times["time"].split(":")[0], "float")
        refuse_first(path, counts != lengths, first_line, lambda row: f"{lengths[row]} items but {counts[row]} times")
        lines = first_line + row_of
        order = unix_seconds(path, numbers(path, stamps, "time", lines), lines)
    owners, user_tokens = encode_tokens(users)
    codes, item_tokens = encode_tokens(items)
    whole = _longest_of_each(path, owners, codes, lengths, first_line)
    kept = whole[row_of]
    if not kept.all():  # users keep their place, items are numbered again by what is left
        codes, item_tokens = encode_tokens(items.filter(pa.array(kept)))
        order = order[kept] if order is not None else None
    return Interactions(owners[row_of[kept]], codes, user_tokens, item_tokens, order, order is not None)


def _flattened(columns: dict[str, pa.Array], base: str, kind: str) -> tuple[pa.Array, np.ndarray]:
    """All values of ``<base>_list`` with ``<base>`` behind each list, and how many each line has."""
    parts = [columns[f"{base}_list:{kind}_seq"]]
    if f"{base}:{kind}" in columns:
        parts.append(columns[f"{base}:{kind}"])
    joined = pc.utf8_trim_whitespace(pc.binary_join_element_wise(*parts, " "))
    split = pc.utf8_split_whitespace(joined)
    lengths = pc.list_value_length(split).to_numpy(zero_copy_only=False).astype(np.int64)
    values = split.flatten()
    # An empty line splits into one empty piece.
    empty = pc.equal(joined, "").to_numpy(zero_copy_only=False)
    if empty.any():
        values, lengths = values.filter(pc.not_equal(values, "")), np.where(empty, 0, lengths)
    return values, lengths


def _longest_of_each(
    path: Path, owners: np.ndarray, codes: np.ndarray, lengths: np.ndarray, first_line: int
) -> np.ndarray:
    """Which lines are their user's longest: bool [lines]; the others must be its beginnings."""
    n_users = int(owners.max()) + 1
    if len(owners) == n_users:
        return np.ones(len(owners), dtype=bool)
    starts = np.cumsum(lengths) - lengths
    sorting = np.lexsort((np.arange(len(owners)), -lengths, owners))
    first = np.concatenate([[True], np.diff(owners[sorting]) != 0])
    longest = np.empty(n_users, dtype=np.int64)
    longest[owners[sorting[first]]] = sorting[first]
    for row in sorting[~first].tolist():
        start, length, best = starts[row], lengths[row], starts[longest[owners[row]]]
        if (codes[start : start + length] != codes[best : best + length]).any():
            raise BenchError(
                f"{path}:{first_line + row}: a second history of the user of line {first_line + longest[owners[row]]} "
                "that is not a beginning of it; join them"
            )
    whole = np.zeros(len(owners), dtype=bool)
    whole[longest] = True
    return whole
