"""A user's own data: RecBole's atomic files, or a CSV, TSV, Parquet or JSON lines file with named columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recllm_bench.data.cards import user_card
from recllm_bench.data.interactions import Interactions, ItemText
from recllm_bench.data.prepare.column_names import COLUMNS, ITEM_COLUMNS, TEXT_COLUMNS, check_map, recognise
from recllm_bench.data.prepare.item_lists import holds_item_lists, read_item_lists
from recllm_bench.data.prepare.textfiles import (
    clean_text,
    decode,
    encode_tokens,
    numbers,
    read_bytes,
    read_columns,
    read_json_lines,
    refuse_empty,
    unix_seconds,
)
from recllm_bench.errors import BenchError, nearest

_PARQUET = (".parquet", ".pq")
_JSON_LINES = (".jsonl", ".ndjson", ".json")
TABLE_KINDS = (".csv", ".tsv", *_PARQUET, *_JSON_LINES)
_YEAR = re.compile(r"(?<!\d)(1[89]\d\d|20\d\d|21\d\d)(?!\d)")
_EXACT = 2.0**53  # from here on floats skip whole numbers
_CARD_KEYS = (
    *("name", "title", "domain", "table", "columns", "items", "item_columns", "encoding", "delimiter", "text_fields"),
)


def read_table(
    files: Mapping[str, Path],
    columns: Mapping[str, str | None] | None = None,
    item_columns: Mapping[str, str | None] | None = None,
    encoding: str = "",
    delimiter: str = "",
) -> Interactions:
    """Read interactions from a CSV, TSV, Parquet or JSON lines file; columns are recognised by their common names.

    Parameters
    ----------
    files : dict
        ``table``, and optionally ``items``, a table of the items' text: ``item, title, year, categories,
        description``; :func:`table_files` finds one beside the table.
    columns, item_columns : mapping, optional
        Column names by role (``user, item, time, rating``; ``item, title, year, categories, description``) where
        they are not to be recognised; None leaves a role out.
    encoding, delimiter : str
        Of delimited text that is not UTF-8, or separated by another sign than a comma (CSV) or a tab (TSV).

    Raises
    ------
    BenchError
        With the columns found when one is missing, and with file and line for a value that cannot be read.
    """
    rows = _interactions(files["table"], *_table(files["table"], encoding, delimiter), columns)
    if "items" not in files:
        return rows
    return replace(rows, text=_item_text(files["items"], *_table(files["items"], encoding, delimiter), item_columns))


def table_files(path: Path) -> dict[str, Path]:
    """A table by role: itself, and ``<name>.items.csv`` (or another kind of table) beside it as ``items``."""
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    packed = ("", ".gz")
    beside = (path.with_name(f"{stem}.items{kind}{gz}") for kind in TABLE_KINDS for gz in packed)
    found = next((candidate for candidate in beside if candidate.is_file()), None)
    return {"table": path, "items": found} if found else {"table": path}


def own_card(path: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """Read a user's small YAML card of a table: where it lies and what its columns mean.

    Returns
    -------
    card : dict
        A card as :func:`recllm_bench.data.cards.user_card` makes it, with ``options`` for :func:`read_table`.
    files : dict of str to Path
        ``table``, and ``items`` when there is one; paths in the card are relative to its folder.

    Raises
    ------
    BenchError
        For broken YAML, unknown keys and files that do not exist.
    """
    import yaml

    try:
        said = yaml.safe_load(decode(path, read_bytes(path)))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise BenchError(f"{place}: not valid YAML ({getattr(error, 'problem', error)})") from error
    if not isinstance(said, dict) or "table" not in said:
        raise BenchError(f"{path}: a card of your own data needs 'table: file.csv', the table of interactions")
    for key in said:
        if key not in _CARD_KEYS:
            raise BenchError(f"{path}: unknown key '{key}'.{nearest(str(key), _CARD_KEYS)}")
    for key in ("columns", "item_columns"):
        check_map(path, key, said.get(key) or {}, COLUMNS if key == "columns" else ITEM_COLUMNS)
    files = {}
    for role in ("table", "items"):
        if said.get(role) is not None:
            files[role] = path.parent / Path(str(said[role])).expanduser()
            if not files[role].is_file():
                raise BenchError(f"{path}: {role}: no such file: {files[role]}")
    card = user_card(str(said.get("name") or path.stem), "table")
    card["title"] = str(said.get("title") or card["name"])
    card["domain"] = str(said.get("domain") or card["domain"])
    fields = said.get("text_fields")
    if fields is not None:
        wrong = [name for name in fields if name not in TEXT_COLUMNS] if isinstance(fields, list) else [fields]
        if wrong or not fields:
            raise BenchError(f"{path}: text_fields is a list of {', '.join(TEXT_COLUMNS)}, not {wrong or fields}")
        card["text_fields"] = fields
    names = ("columns", "item_columns", "encoding", "delimiter")
    card["options"] = {name: said[name] for name in names if said.get(name)}
    return card, {**table_files(files["table"]), **files}


def read_atomic(files: Mapping[str, Path]) -> Interactions:
    """Read RecBole atomic files.

    A file with lists (``item_id_list:token_seq``, RecBole's form of benchmark and sequential data) holds a user's
    whole history a line: the list, then the line's own ``item_id`` as the newest item. Where a user has several
    lines, the others must be beginnings of the longest.

    Parameters
    ----------
    files : dict
        ``inter``: ``*.inter``; optionally ``item``: ``*.item``.

    Raises
    ------
    BenchError
        For a header without types, or missing columns.
    """
    path = files["inter"]
    columns, first_line = _atomic(path)
    read = read_item_lists if holds_item_lists(columns) else _interactions
    rows = read(path, columns, first_line)
    return replace(rows, text=_item_text(files["item"], *_atomic(files["item"]))) if "item" in files else rows


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
        raise BenchError(
            f"{folder}: several .inter files ({names}); join them, our protocols make the splits; of files with whole "
            "histories (item_id_list) give the path of the one with the longest, the test file"
        )
    files = {"inter": found[0]}
    name = found[0].name.removesuffix(".gz").removesuffix(".inter")
    for candidate in (folder / f"{name}.item", folder / f"{name}.item.gz"):
        if candidate.exists():
            files["item"] = candidate
    return files


def _table(path: Path, encoding: str = "", delimiter: str = "") -> tuple[dict[str, pa.Array], int]:
    """Columns as strings or as typed Arrow arrays, and the line of the first row."""
    kind = Path(path.name.removesuffix(".gz")).suffix.lower()
    if kind in _PARQUET:
        import pyarrow.parquet as parquet

        try:
            table = parquet.read_table(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise BenchError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from error
        if not table.num_rows:
            raise BenchError(f"{path}: the file has no rows")
        return {name: table[name].combine_chunks() for name in table.column_names}, 1
    if kind not in TABLE_KINDS:
        raise BenchError(f"{path}: not a kind of table; known are {', '.join(TABLE_KINDS)}, text also with .gz")
    data = read_bytes(path, encoding)
    if kind in _JSON_LINES:
        return read_json_lines(path, data), 1
    return read_columns(path, data, delimiter or ("\t" if kind == ".tsv" else ","), quoted=True), 2


def _atomic(path: Path) -> tuple[dict[str, pa.Array], int]:
    columns = read_columns(path, read_bytes(path), "\t")
    untyped = [name for name in columns if ":" not in name]
    if untyped:
        raise BenchError(f"{path}:1: the header field '{untyped[0]}' has no type; atomic files write name:type")
    return columns, 2


def _interactions(
    path: Path, columns: dict[str, pa.Array], first_line: int, given: Mapping[str, str | None] | None = None
) -> Interactions:
    found = recognise(path, columns, COLUMNS, ("user", "item"), given)
    coded = {}
    for what in ("user", "item"):
        tokens = _strings(path, found[what], columns[found[what]], first_line)
        refuse_empty(path, tokens, f"{what} id", first_line)
        coded[what] = encode_tokens(tokens)
    order = _seconds(path, found["time"], columns[found["time"]], first_line) if "time" in found else None
    ratings = None
    if "rating" in found:
        written = _strings(path, found["rating"], columns[found["rating"]], first_line)
        ratings = numbers(path, written, "rating", first_line).astype(np.float32)
    (users, user_tokens), (items, item_tokens) = coded["user"], coded["item"]
    return Interactions(users, items, user_tokens, item_tokens, order, order is not None, ratings)


def _strings(path: Path, name: str, column: pa.Array, first_line: int) -> pa.Array:
    """A column of plain values as strings, "" where one is missing."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_nested(column.type):
        _refuse_nested(path, name, column, first_line)
    if pa.types.is_floating(column.type):
        # An id column with gaps comes as floats: 7.0 is the id 7, and no number is a missing value.
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        whole = pc.all(pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), _EXACT))).as_py()
        column = column.cast(pa.int64()) if whole else column
    return pc.utf8_trim_whitespace(column.cast(pa.string())).fill_null("")


def _refuse_nested(path: Path, name: str, column: pa.Array, first_line: int) -> None:
    if not pa.types.is_struct(column.type):
        raise BenchError(f"{path}: the column '{name}' holds lists; give it plain values")
    there = column.field("nested") if column.type.names == ["nested"] else column.is_valid()
    row = int(np.argmax(there.to_numpy(zero_copy_only=False)))
    raise BenchError(f"{path}:{first_line + row}: the column '{name}' holds nested values; give it plain ones")


def _seconds(path: Path, name: str, column: pa.Array, first_line: int) -> np.ndarray:
    """Unix seconds from numbers (seconds or milliseconds) or from dates."""
    if pa.types.is_temporal(column.type):
        if column.null_count:
            row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise BenchError(f"{path}:{first_line + row}: the time is empty")
        try:
            micro = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy(zero_copy_only=False)
        except pa.ArrowNotImplementedError as error:
            raise BenchError(f"{path}: the column '{name}' ({column.type}) holds no points in time") from error
        return unix_seconds(path, micro / 1e6, first_line)
    strings = _strings(path, name, column, first_line)
    refuse_empty(path, strings, "time", first_line)
    if not re.match(r"^\s*\d{4}-\d\d", strings[0].as_py()):
        return unix_seconds(path, numbers(path, strings, "time", first_line), first_line)
    import pandas as pd

    stamps = pd.to_datetime(pd.Series(strings.to_pylist()), utc=True, errors="coerce", format="ISO8601")
    wrong = np.flatnonzero(stamps.isna())
    if len(wrong):
        value = strings[int(wrong[0])].as_py()
        raise BenchError(f"{path}:{first_line + int(wrong[0])}: the time '{value}' is not a date like 2001-02-03")
    return unix_seconds(path, ((stamps - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)).to_numpy(), first_line)


def _item_text(
    path: Path, columns: dict[str, pa.Array], first_line: int, given: Mapping[str, str | None] | None = None
) -> dict[str, ItemText]:
    found = recognise(path, columns, ITEM_COLUMNS, ("item",), given)
    for name in found.values():
        kind = columns[name].type
        if pa.types.is_struct(kind) or (pa.types.is_list(kind) and pa.types.is_nested(kind.value_type)):
            _refuse_nested(path, name, columns[name], first_line)
    tokens = _strings(path, found["item"], columns[found["item"]], first_line)
    refuse_empty(path, tokens, "item id", first_line)
    values = {what: columns[name].to_pylist() for what, name in found.items() if what != "item"}
    # RecBole's token_seq separates by spaces; every other source by a sign that names do not contain.
    by_space = found.get("categories", "").endswith(":token_seq")
    text: dict[str, ItemText] = {}
    for row, token in enumerate(tokens.to_pylist()):
        year = _YEAR.search(clean_text(values["year"][row])) if "year" in values else None
        item = ItemText(
            _joined(values["title"][row]) if "title" in values else "",
            int(year[0]) if year else 0,
            _categories(values["categories"][row], by_space) if "categories" in values else (),
            _joined(values["description"][row]) if "description" in values else "",
        )
        # Twice the same is a copy; twice something else leaves open what the item is.
        if text.setdefault(token, item) != item:
            raise BenchError(f"{path}:{first_line + row}: the item {token} appears twice with different text")
    return text


def _joined(value: object) -> str:
    return clean_text(" ".join(map(clean_text, value)) if isinstance(value, (list, tuple)) else value)


def _categories(value: object, by_space: bool) -> tuple[str, ...]:
    if isinstance(value, (list, tuple)):
        names = [clean_text(name) for name in value]
    else:
        text = clean_text(value)
        separator = next((sign for sign in "|;," if sign in text), None)
        names = text.split() if by_space else text.split(separator) if separator else [text]
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip() and name.strip() != "unknown"))
