"""Sequence files: ``user item item ...`` lines (S3Rec, ICLRec) and ``user item`` lines (SASRec, BERT4Rec)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from recllm_bench.data.interactions import Interactions, ItemText
from recllm_bench.data.prepare.textfiles import (
    clean_text,
    decode,
    encode_tokens,
    read_bytes,
    read_columns,
    refuse_empty,
)
from recllm_bench.errors import BenchError

# Ids far beyond the number of items would make an item table of mostly unused rows.
_SPARSEST = 4


def read_sequences(files: dict[str, Path], drop_root: bool = False) -> Interactions:
    """Read one user's whole history a line, oldest first; the source's integer item ids are kept.

    Parameters
    ----------
    files : dict
        ``sequences``, and optionally ``items``: JSON of item id to ``{"title", "categories"}``.
    drop_root : bool
        Leave out the first name of every category path (the department).

    Raises
    ------
    BenchError
        For a line without items, a repeated user, or an item id that is no whole number above 0.
    """
    path = files["sequences"]
    lines = [
        (number, fields) for number, line in enumerate(read_bytes(path).split(b"\n"), 1) if (fields := line.split())
    ]
    users = [fields[0] for _, fields in lines]
    if len(set(users)) != len(users):
        seen: set[bytes] = set()
        for number, fields in lines:
            if fields[0] in seen:
                raise BenchError(f"{path}:{number}: the user {fields[0].decode(errors='replace')} appears twice")
            seen.add(fields[0])
    for number, fields in lines:
        if len(fields) < 2:
            raise BenchError(f"{path}:{number}: the user has no items")
    lengths = np.array([len(fields) - 1 for _, fields in lines])
    try:
        items = np.array([item for _, fields in lines for item in fields[1:]]).astype(np.int64)
    except (ValueError, OverflowError):
        items = np.zeros(1, dtype=np.int64)
    if items.min() < 1 or items.max() > np.iinfo(np.int32).max:
        _refuse_bad_id(path, lines)
    known, codes = np.unique(items, return_inverse=True)
    if known[-1] > _SPARSEST * len(known) + 1000:
        raise BenchError(f"{path}: item ids go up to {known[-1]} for {len(known)} items; renumber them from 1")
    tokens = [str(item) for item in known]
    text = _item_json(files["items"], drop_root) if "items" in files else {}
    user_tokens = [decode(path, user) for user in users]
    owners = np.repeat(np.arange(len(lines)), lengths)
    return Interactions(owners, codes.reshape(-1), user_tokens, tokens, text=text, source_ids=True)


def read_pairs(files: dict[str, Path]) -> Interactions:
    """Read ``user item`` lines, oldest first within each user; integer item ids are kept where they are dense."""
    path = files["sequences"]
    data = b"\n".join(b" ".join(line.split()) for line in read_bytes(path).split(b"\n"))
    columns = read_columns(path, data, " ", ["user", "item"])
    for what in ("user", "item"):
        refuse_empty(path, columns[what], f"{what} id", 1)
    users, user_tokens = encode_tokens(columns["user"])
    items, item_tokens = encode_tokens(columns["item"])
    whole = all(token.isdecimal() and not token.startswith("0") for token in item_tokens)
    dense = whole and max(map(int, item_tokens)) <= _SPARSEST * len(item_tokens) + 1000
    return Interactions(users, items, user_tokens, item_tokens, source_ids=dense)


def holds_pairs(path: Path) -> bool:
    """Whether every line has exactly two fields."""
    return all(len(line.split()) in (0, 2) for line in read_bytes(path).split(b"\n"))


def _refuse_bad_id(path: Path, lines: list[tuple[int, list[bytes]]]) -> None:
    for number, fields in lines:
        for item in fields[1:]:
            text = item.decode(errors="replace")
            if not text.isdecimal() or not 0 < int(text) <= np.iinfo(np.int32).max:
                raise BenchError(f"{path}:{number}: the item id '{text}' is not a whole number above 0")


def _item_json(path: Path, drop_root: bool) -> dict[str, ItemText]:
    try:
        entries = json.loads(decode(path, read_bytes(path)))
    except json.JSONDecodeError as error:
        raise BenchError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from error
    if not isinstance(entries, dict):
        raise BenchError(f"{path}:1: expected an object of item id to title and categories")
    return {
        str(token): ItemText(
            clean_text(entry.get("title")), categories=_category_names(entry.get("categories"), drop_root)
        )
        for token, entry in entries.items()
        if isinstance(entry, dict)
    }


def _category_names(value: Any, drop_root: bool) -> tuple[str, ...]:
    """Names of one or several category paths, in order, each once."""
    value = value or []
    paths = value if value and isinstance(value[0], list) else [value]
    names = [clean_text(name) for path in paths for name in path[1 if drop_root else 0 :]]
    return tuple(dict.fromkeys(name for name in names if name))
