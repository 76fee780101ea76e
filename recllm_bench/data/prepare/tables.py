"""A user's own data: RecBole's atomic files, or a CSV, TSV or Parquet file with named columns."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recllm_bench.data.interactions import Interactions, ItemText
from recllm_bench.data.prepare.textfiles import (
    clean_text,
    encode_tokens,
    numbers,
    read_bytes,
    read_columns,
    refuse_empty,
)
from recllm_bench.errors import BenchError

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
_MILLISECONDS_FROM = 100_000_000_000  # as seconds this is the year 5138
_YEAR = re.compile(r"(?<!\d)(1[89]\d\d|20\d\d|21\d\d)(?!\d)")


def read_table(path: Path) -> Interactions:
    """Read interactions from a CSV, TSV or Parquet file; columns are recognised by their common names.

    A file ``<name>.items.csv`` beside it gives the items' text: ``item, title, year, categories, description``.

    Raises
    ------
    BenchError
        With the columns found when the user or item column is not recognised.
    """
    columns, first_line = _table(path)
    rows = _interactions(path, columns, first_line)
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    text = {}
    for suffix in (".items.csv", ".items.csv.gz"):
        if (sibling := path.with_name(stem + suffix)).exists():
            text = _item_text(sibling, *_table(sibling))
    rows.text.update(text)
    return rows


def read_atomic(files: dict[str, Path]) -> Interactions:
    """Read RecBole atomic files.

    Parameters
    ----------
    files : dict
        ``inter``: ``*.inter``; optionally ``item``: ``*.item``.

    Raises
    ------
    BenchError
        For a header without types, or missing columns.
    """
    rows = _interactions(files["inter"], *_atomic(files["inter"]))
    if "item" in files:
        rows.text.update(_item_text(files["item"], *_atomic(files["item"])))
    return rows


def atomic_files(folder: Path) -> dict[str, Path]:
    """Find the atomic files of a folder.

    Raises
    ------
    BenchError
        When there is no ``.inter`` file, or more than one.
    """
    found = sorted([*folder.glob("*.inter"), *folder.glob("*.inter.gz")])
    if not found:
        here = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise BenchError(f"{folder}: has no .inter file (RecBole atomic files); it holds {here}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise BenchError(f"{folder}: several .inter files ({names}); join them, our protocols make the splits")
    files = {"inter": found[0]}
    name = found[0].name.removesuffix(".gz").removesuffix(".inter")
    for candidate in (folder / f"{name}.item", folder / f"{name}.item.gz"):
        if candidate.exists():
            files["item"] = candidate
    return files


def _table(path: Path) -> tuple[dict[str, pa.Array], int]:
    """Columns as strings or as typed Arrow arrays, and the line of the first row."""
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1].lower()
    if kind in ("parquet", "pq"):
        import pyarrow.parquet as parquet

        try:
            table = parquet.read_table(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise BenchError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from error
        if not table.num_rows:
            raise BenchError(f"{path}: the file has no rows")
        return {name: table[name].combine_chunks() for name in table.column_names}, 1
    return read_columns(path, read_bytes(path), "\t" if kind == "tsv" else ",", quoted=True), 2


def _atomic(path: Path) -> tuple[dict[str, pa.Array], int]:
    columns = read_columns(path, read_bytes(path), "\t")
    untyped = [name for name in columns if ":" not in name]
    if untyped:
        raise BenchError(f"{path}:1: the header field '{untyped[0]}' has no type; atomic files write name:type")
    return columns, 2


def _interactions(path: Path, columns: dict[str, pa.Array], first_line: int) -> Interactions:
    found = _recognise(path, columns, COLUMNS, ("user", "item"))
    coded = {}
    for what in ("user", "item"):
        strings = _strings(columns[found[what]])
        refuse_empty(path, strings, f"{what} id", first_line)
        coded[what] = encode_tokens(strings)
    order = _seconds(path, columns[found["time"]], first_line) if "time" in found else None
    ratings = None
    if "rating" in found:
        ratings = numbers(path, _strings(columns[found["rating"]]), "rating", first_line).astype(np.float32)
    (users, user_tokens), (items, item_tokens) = coded["user"], coded["item"]
    return Interactions(users, items, user_tokens, item_tokens, order, order is not None, ratings)


def _recognise(
    path: Path, columns: Iterable[str], known: dict[str, tuple[str, ...]], needed: tuple[str, ...]
) -> dict[str, str]:
    plain = {_plain(name): name for name in columns}
    found = {}
    for what, names in known.items():
        for name in names:
            if _plain(name) in plain:
                found[what] = plain[_plain(name)]
                break
    for what in needed:
        if what not in found:
            there = ", ".join(columns)
            raise BenchError(f"{path}:1: no {what} column among {there}; name one of them '{known[what][0]}'")
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.split(":")[0].lower())


def _strings(column: pa.Array) -> pa.Array:
    if pa.types.is_string(column.type):
        return column.fill_null("")
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.string()).fill_null("")


def _seconds(path: Path, column: pa.Array, first_line: int) -> np.ndarray:
    """Unix seconds from numbers (seconds or milliseconds) or from dates."""
    if pa.types.is_temporal(column.type):
        if column.null_count:
            row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise BenchError(f"{path}:{first_line + row}: the time is empty")
        micro = pc.cast(pc.cast(column, pa.timestamp("us")), pa.int64()).to_numpy(zero_copy_only=False)
        return micro / 1e6
    strings = _strings(column)
    refuse_empty(path, strings, "time", first_line)
    if re.match(r"^\s*\d{4}-\d\d", strings[0].as_py()):
        import pandas as pd

        stamps = pd.to_datetime(pd.Series(strings.to_pylist()), utc=True, errors="coerce", format="ISO8601")
        wrong = np.flatnonzero(stamps.isna())
        if len(wrong):
            value = strings[int(wrong[0])].as_py()
            raise BenchError(f"{path}:{first_line + int(wrong[0])}: the time '{value}' is not a date like 2001-02-03")
        return ((stamps - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)).to_numpy()
    values = numbers(path, strings, "time", first_line)
    return values / 1000 if values.max() >= _MILLISECONDS_FROM else values


def _item_text(path: Path, columns: dict[str, pa.Array], first_line: int) -> dict[str, ItemText]:
    found = _recognise(path, columns, {"item": COLUMNS["item"], **TEXT_COLUMNS}, ("item",))
    values = {what: columns[name].to_pylist() for what, name in found.items()}
    # RecBole's token_seq separates by spaces; every other source by a sign that names do not contain.
    by_space = found.get("categories", "").endswith(":token_seq")
    text: dict[str, ItemText] = {}
    for row, token in enumerate(values["item"]):
        if (token := clean_text(token)) == "":
            raise BenchError(f"{path}:{first_line + row}: the item id is empty")
        if token in text:
            raise BenchError(f"{path}:{first_line + row}: the item {token} appears twice")
        year = _YEAR.search(clean_text(values["year"][row])) if "year" in values else None
        text[token] = ItemText(
            clean_text(values["title"][row]) if "title" in values else "",
            int(year[0]) if year else 0,
            _categories(values["categories"][row], by_space) if "categories" in values else (),
            clean_text(values["description"][row]) if "description" in values else "",
        )
    return text


def _categories(value: object, by_space: bool) -> tuple[str, ...]:
    if isinstance(value, (list, tuple)):
        names = [clean_text(name) for name in value]
    else:
        text = clean_text(value)
        separator = next((sign for sign in "|;," if sign in text), None)
        names = text.split() if by_space else text.split(separator) if separator else [text]
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip() and name.strip() != "unknown"))
