"""Which column of a table is which: by a user's map, else by common names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from recllm_bench.errors import BenchError, nearest

# Compared without case, spaces and underscores. The first name found wins: Amazon's asin before its parent_asin.
COLUMNS = {
    "user": ("user_id", "user", "uid", "reviewer_id", "customer_id", "visitor_id", "steam_id"),
    "item": (
        *("item_id", "item", "iid", "movie_id", "asin", "parent_asin", "product_id", "business_id"),
        *("app_id", "track_id", "song_id", "artist_id"),
    ),
    "time": ("timestamp", "time", "unix_review_time", "unix_time", "datetime", "date", "created_at", "ts"),
    "rating": ("rating", "ratings", "score", "stars", "overall"),
}
TEXT_COLUMNS = {
    "title": ("title", "movie_title", "name", "item_name", "item_title", "product_name"),
    "year": ("year", "release_year", "published"),
    "categories": ("categories", "category", "genres", "genre", "class", "tags"),
    "description": ("description", "plot", "summary", "overview", "text"),
}
ITEM_COLUMNS = {
    "item": COLUMNS["item"],
    **TEXT_COLUMNS,
    "brand": ("brand", "manufacturer", "brand_name"),
    "price": ("price", "list_price"),
}


def recognise(
    path: Path,
    columns: Collection[str],
    known: Mapping[str, tuple[str, ...]],
    needed: tuple[str, ...],
    given: Mapping[str, str | None] | None = None,
) -> dict[str, str]:
    """Column names by role: those given, and for the other roles the common names.

    Raises
    ------
    BenchError
        When a needed or given column is not there, with the columns found.
    """
    given = given or {}
    check_map(path, "the column map", given, known)
    there = ", ".join(columns)
    for what, name in given.items():
        if name is not None and name not in columns:
            raise BenchError(
                f"{path}:1: the column map says '{name}' for {what}, but the columns are {there}."
                f"{nearest(name, columns)}"
            )
    found = found_columns(columns, known, given)
    for what, name in found.items():
        alike = [other for other in columns if _folded(other) == _folded(name)]
        if len(alike) > 1 and what not in given:
            raise BenchError(f"{path}:1: which is the {what}: {' or '.join(alike)}? Rename one, or say it in a card")
    for what in needed:
        if what not in found:
            key = "item_columns" if "title" in known else "columns"
            raise BenchError(
                f"{path}:1: no {what} column among {there}; name one of them '{known[what][0]}', or say in a card "
                f"which it is ('{key}: {{{what}: NAME}}')"
            )
    return found


def found_columns(
    columns: Collection[str], known: Mapping[str, tuple[str, ...]], given: Mapping[str, str | None]
) -> dict[str, str]:
    """Column names by role, as far as they are there: those given, and for the other roles the common names."""
    found = {what: name for what, name in given.items() if name is not None and name in columns}
    plain = {_folded(name): name for name in columns if name not in found.values()}
    for what, names in known.items():
        if what not in given and (key := next((_folded(name) for name in names if _folded(name) in plain), None)):
            found[what] = plain[key]
    return found


def check_map(path: Path, label: str, given: Any, known: Iterable[str]) -> None:
    if not isinstance(given, Mapping):
        raise BenchError(f"{path}: {label} is a mapping of what to a column's name, such as user: buyer_id")
    for what, name in given.items():
        if what not in known:
            raise BenchError(f"{path}: {label} has no {what!r}.{nearest(str(what), known)}")
        if name is not None and not isinstance(name, str):
            raise BenchError(f"{path}: {label}: the column of '{what}' is a name, not {name!r}")


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.split(":")[0].lower())
