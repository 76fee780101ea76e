"""Restrict a corpus to published lists of users and items (ReLRec's corpora are those of RLMRec's id maps)."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recllm_bench.data.interactions import Interactions
from recllm_bench.data.prepare.textfiles import decode, read_bytes
from recllm_bench.errors import BenchError

_NUMBERS = ("uid", "iid")


@dataclass(frozen=True)
class IdLists:
    """Files with the ids that may stay, present and checked.

    Attributes
    ----------
    name : str
        What the card calls the lists.
    users, items : Path or None
        One id a line, plain or as JSON.
    checksums : dict
        SHA-256 by role.
    """

    name: str
    users: Path | None
    items: Path | None
    checksums: dict[str, str]


def read_ids(path: Path) -> list[str]:
    """Ids of a file, one a line: bare, or JSON objects such as ``{"uid": 0, "user_id": "x"}``.

    Raises
    ------
    BenchError
        For a line without exactly one id, or an id that stands twice.
    """
    found: dict[str, None] = {}
    # Not splitlines: it would also cut at separators that a JSON string may hold.
    for number, line in enumerate(decode(path, read_bytes(path)).split("\n"), 1):
        token = line.strip()
        if not token:
            continue
        if token.startswith("{"):
            token = _id_of(token, f"{path}:{number}")
        if token in found:
            raise BenchError(f"{path}:{number}: the id {token} stands twice")
        found[token] = None
    return list(found)


def _id_of(line: str, place: str) -> str:
    try:
        entry = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BenchError(f"{place}: not valid JSON ({error})") from error
    values = [value for key, value in entry.items() if key not in _NUMBERS]
    if len(values) != 1 or not isinstance(values[0], (str, int)) or values[0] == "":
        raise BenchError(f"{place}: expected one id beside the number, found {reprlib.repr(values)}")
    return str(values[0])


def keep_listed_ids(rows: Interactions, lists: IdLists) -> tuple[Interactions, dict[str, Any]]:
    """Keep the interactions whose user and item are listed.

    Returns
    -------
    rows : Interactions
    found : dict
        For users and items: how many ids the list has, and how many of them occur in the corpus.

    Raises
    ------
    BenchError
        For a malformed list, or one of which no id occurs in the corpus.
    """
    mask = np.ones(len(rows), dtype=bool)
    found: dict[str, Any] = {"name": lists.name}
    for what, path, tokens, codes in (
        ("users", lists.users, rows.user_tokens, rows.users),
        ("items", lists.items, rows.item_tokens, rows.items),
    ):
        if path is None:
            continue
        ids = read_ids(path)
        column = tokens if isinstance(tokens, (pa.ChunkedArray, pa.Array)) else pa.array(tokens, pa.string())
        inside = pc.is_in(column, value_set=pa.array(ids, column.type)).to_numpy(zero_copy_only=False)
        if not inside.any():
            raise BenchError(
                f"{path}: none of its {len(ids):,} {what} occurs in the data; the list is of another edition or dataset"
            )
        mask &= inside[codes]
        found[what] = {"listed": len(ids), "in the corpus": int(inside.sum())}
    return rows.keep(mask), found
