"""Sequence files: ``user item item ...`` lines (S3Rec, ICLRec, P5), ``user item`` lines (SASRec, BERT4Rec), JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recllm_bench.data.interactions import Interactions, ItemText
from recllm_bench.data.prepare.prices import price_of
from recllm_bench.data.prepare.textfiles import decode, read_bytes, read_columns, with_line_feeds
from recllm_bench.data.prepare.values import clean_text, encode_tokens, refuse_empty, scalar_text
from recllm_bench.errors import BenchError

# Ids far beyond the number of items would make an item table of mostly unused rows.
_SPARSEST = 4


def read_sequences(files: dict[str, Path], drop_root: bool = False) -> Interactions:
    """Read one user's whole history a line, oldest first; the source's integer item ids are kept.

    Parameters
    ----------
    files : dict
        ``sequences``; optionally ``items``: JSON of item id to ``{"title", "categories"}``; optionally ``ids``: JSON
        with ``id2user`` and ``id2item``, the owner's ids by those of the file (P5, LLM-RecSys-ID). With them tokens
        are the owner's ids, so that other tables of the owner join, and items are numbered by first appearance.
    drop_root : bool
        Leave out the first name of every category path (the department).

    Raises
    ------
    BenchError
        For a line without items, a repeated user, an item id that is no whole number above 0, or an id without an
        owner's id.
    """
    path = files["sequences"]
    lines = [
        (number, fields)
        for number, line in enumerate(with_line_feeds(read_bytes(path)).split(b"\n"), 1)
        if (fields := line.split())
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
    rows = Interactions(owners, codes.reshape(-1), user_tokens, tokens, text=text, source_ids=True)
    return _with_owner_ids(rows, files["ids"]) if "ids" in files else rows


def read_json_sequences(files: dict[str, Path], drop_root: bool = False) -> Interactions:
    """Read ``{user: [item, item, ...]}``, oldest first (LETTER, LC-Rec); items are numbered by first appearance.

    Parameters
    ----------
    files : dict
        ``sequences``, and optionally ``items``: JSON of item id to ``{"title", "categories", "description"}``.
    drop_root : bool
        Leave out the first name of every category path.

    Raises
    ------
    BenchError
        For another shape, a user without items, or a repeated user.
    """
    path = files["sequences"]
    histories = _read_json(path)
    users, items = list(histories), []
    for user, row in histories.items():
        if not isinstance(row, list) or any(isinstance(item, (list, dict)) or item is None for item in row):
            raise BenchError(f"{path}: the history of user {user} is not a list of item ids")
        if not row:
            raise BenchError(f"{path}: the user {user} has no items")
        items.append(row)
    codes: dict[str, int] = {}
    flat = [codes.setdefault(scalar_text(item), len(codes)) for row in items for item in row]
    if "" in codes:
        raise BenchError(f"{path}: an item id is empty")
    owners = np.repeat(np.arange(len(users)), [len(row) for row in items])
    text = _item_json(files["items"], drop_root) if "items" in files else {}
    return Interactions(owners, np.array(flat, dtype=np.int64), users, list(codes), text=text)


def read_pairs(files: dict[str, Path]) -> Interactions:
    """Read ``user item`` lines, oldest first within each user; integer item ids are kept where they are dense."""
    path = files["sequences"]
    data = b"\n".join(b" ".join(line.split()) for line in with_line_feeds(read_bytes(path)).split(b"\n"))
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
    return all(len(line.split()) in (0, 2) for line in with_line_feeds(read_bytes(path)).split(b"\n"))


def _refuse_bad_id(path: Path, lines: list[tuple[int, list[bytes]]]) -> None:
    for number, fields in lines:
        for item in fields[1:]:
            text = item.decode(errors="replace")
            if not text.isdecimal() or not 0 < int(text) <= np.iinfo(np.int32).max:
                raise BenchError(f"{path}:{number}: the item id '{text}' is not a whole number above 0")


def _with_owner_ids(rows: Interactions, path: Path) -> Interactions:
    maps = _read_json(path)
    found = {}
    for what, tokens in (("user", rows.user_tokens), ("item", rows.item_tokens)):
        known = maps.get(f"id2{what}")
        if not isinstance(known, dict):
            raise BenchError(f"{path}:1: has no 'id2{what}', the owner's {what} ids by those of the sequences")
        unknown = next((token for token in tokens if token not in known), None)
        if unknown is not None:
            raise BenchError(
                f"{path}: 'id2{what}' has no entry for the {what} {unknown}; it belongs to other sequences"
            )
        found[what] = known
    text = {found["item"].get(token, token): text for token, text in rows.text.items()}
    tokens = {
        f"{what}_tokens": [str(found[what][token]) for token in getattr(rows, f"{what}_tokens")] for what in found
    }
    return replace(rows, **tokens, text=text, source_ids=False)


def _item_json(path: Path, drop_root: bool) -> dict[str, ItemText]:
    return {
        str(token): ItemText(
            clean_text(entry.get("title")),
            categories=_category_names(entry.get("categories"), drop_root),
            description=_description(entry.get("description")),
            brand=clean_text(entry.get("brand")),
            price=price_of(entry.get("price")),
        )
        for token, entry in _read_json(path).items()
        if isinstance(entry, dict)
    }


def _read_json(path: Path) -> dict[str, Any]:
    """An object, no key of which appears twice."""
    try:
        value = json.loads(decode(path, read_bytes(path)), object_pairs_hook=lambda pairs: _once(path, pairs))
    except json.JSONDecodeError as error:
        raise BenchError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from error
    except RecursionError as error:
        raise BenchError(f"{path}:1: not valid JSON (nested too deeply)") from error
    if not isinstance(value, dict):
        raise BenchError(f"{path}:1: expected a JSON object")
    return value


def _once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        times = Counter(key for key, _ in pairs)
        twice = next(key for key, count in times.items() if count > 1)
        raise BenchError(f"{path}: '{twice}' appears twice")
    return found


def _description(value: Any) -> str:
    parts = value if isinstance(value, list) else [value]
    return " ".join(text for text in map(clean_text, parts) if text)


def _category_names(value: Any, drop_root: bool) -> tuple[str, ...]:
    """Names of one or several category paths, in order, each once."""
    value = value.split(",") if isinstance(value, str) else value or []
    paths = value if value and isinstance(value[0], list) else [value]
    names = [clean_text(name) for path in paths for name in path[1 if drop_root else 0 :]]
    return tuple(dict.fromkeys(name for name in names if name))
