"""Ranked lists of users, in whatever form somebody has them, checked and in our ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.errors import BenchError

if TYPE_CHECKING:
    from recllm_bench.data.prepared import PreparedDataset

_USER_COLUMNS, _ITEM_COLUMNS = ("user_id", "user"), ("item_id", "item")
_READERS = {".csv": ",", ".tsv": "\t", ".inter": "\t"}


@dataclass(frozen=True)
class RankedLists:
    """Ranked items of users, flat and in our ids.

    Attributes
    ----------
    users, items : int64 [n]
        Whose list an item stands in.
    scores : float32 [n]
        Whole numbers, the highest is best.
    empty : int64 [m]
        Users whose list is empty.
    """

    users: np.ndarray
    items: np.ndarray
    scores: np.ndarray
    empty: np.ndarray


def lists_of_mapping(lists: Mapping[Any, Any], prepared: PreparedDataset, ids: Any) -> RankedLists:
    """Of a mapping of users to their items, best first; ``ids`` is ``"data"`` or ``"bench"``."""
    for user, items in lists.items():
        if isinstance(items, str) or not (isinstance(items, Sequence) or hasattr(items, "tolist")):
            raise BenchError(f"the list of user {user} must hold items, best first, got {items!r}")
    rows = {user: items.tolist() if hasattr(items, "tolist") else list(items) for user, items in lists.items()}
    counts = np.array([len(items) for items in rows.values()], dtype=np.int64)
    users = _ids(list(rows), "user", prepared, ids)
    if len(np.unique(users)) < len(users):
        raise BenchError("two lists belong to one user: the same id as text and as a number")
    flat = [item for items in rows.values() for item in items]
    place = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
    items = _ids(flat, "item", prepared, ids)
    return RankedLists(np.repeat(users, counts), items, -place.astype(np.float32), users[counts == 0])


def lists_of_frame(frame: Any, prepared: PreparedDataset, ids: Any) -> RankedLists:
    """Of a frame with a user, an item and perhaps a ``rank`` or ``score`` in each row."""
    columns = []
    for names in (_USER_COLUMNS, _ITEM_COLUMNS):
        found = [name for name in names if name in frame.columns]
        if not found:
            raise BenchError(f"ranked lists need a column {names[0]}; there are {', '.join(map(str, frame.columns))}")
        columns.append(frame[found[0]].tolist())
    users, items = _ids(columns[0], "user", prepared, ids), _ids(columns[1], "item", prepared, ids)
    by = next((name for name in ("rank", "score") if name in frame.columns), "")
    values = np.arange(len(frame), dtype=np.float64)
    if by:
        try:
            values = frame[by].to_numpy().astype(np.float64)
        except (TypeError, ValueError) as error:
            raise BenchError(f"ranked lists: column {by} holds what is no number ({error})") from error
        if np.isnan(values).any():
            raise BenchError(f"ranked lists: column {by} is empty in row {int(np.flatnonzero(np.isnan(values))[0])}")
    # As whole numbers in the same order: single precision would make ties of near values.
    places = np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.float32)
    return RankedLists(users, items, places if by == "score" else -places, np.zeros(0, dtype=np.int64))


def read_lists(path: Path) -> Any:
    """The frame of a CSV, TSV or Parquet file; ids stay text."""
    import pandas as pd

    if not path.is_file():
        raise BenchError(f"'{path}' is no file of ranked lists; to run a model by name use run('{path}', ...)")
    if path.suffix not in (*_READERS, ".parquet"):
        raise BenchError(f"{path}: ranked lists are read from .csv, .tsv or .parquet")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        text = pd.read_csv(path, sep=_READERS[path.suffix], dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise BenchError(f"{path} cannot be read ({' '.join(str(error).split())})") from error
    return text.rename(columns=lambda name: name.partition(":")[0])  # RecBole's headers carry types


def _ids(values: Sequence[Any], what: str, prepared: PreparedDataset, ids: Any) -> np.ndarray:
    """Our ids of some users or items; ``ids`` says whose theirs are."""
    tokens = prepared.user_tokens if what == "user" else prepared.catalogue.tokens
    count = len(tokens) - 1
    if ids == "bench":
        for value in values:
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not whole or not 1 <= value <= count:
                raise BenchError(f"ranked lists: {what} {value!r} is none of the bench's ids, 1 to {count}")
        return np.array(values, dtype=np.int64)
    if ids != "data":
        raise BenchError(f"ids must be 'data' or 'bench' for ranked lists, got {ids!r}")
    known = {token: row for row, token in enumerate(tokens) if row}
    found = np.array([known.get(_token(value), 0) for value in values], dtype=np.int64)
    if len(found) and not found.all():
        lost = np.flatnonzero(found == 0).tolist()
        raise BenchError(
            f"ranked lists: {what} {values[lost[0]]!r} is not in {prepared.name} under the filter "
            f"'{prepared.filter}' ({len(np.unique([_token(values[row]) for row in lost]))} such {what}s)"
        )
    return found


def _token(value: Any) -> str:
    """An id as text; a whole number that pandas made a float is that number."""
    return str(int(value)) if isinstance(value, (float, np.floating)) and float(value).is_integer() else str(value)
