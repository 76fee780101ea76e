"""A user's own data: RecBole's atomic files, or CSV, TSV, Parquet and JSON lines with named columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recllm_bench.data.interactions import Interactions, ItemText
from recllm_bench.data.prepare.column_names import COLUMNS, ITEM_COLUMNS, check_map, found_columns, recognise
from recllm_bench.data.prepare.delimited import read_delimited
from recllm_bench.data.prepare.item_lists import holds_item_lists, read_item_lists
from recllm_bench.data.prepare.item_match import match_items
from recllm_bench.data.prepare.json_tables import read_json_lines
from recllm_bench.data.prepare.prices import price_of
from recllm_bench.data.prepare.table_files import JSON_LINES, PARQUET, PART, TABLE_KINDS, table_kind
from recllm_bench.data.prepare.table_rows import join_parts, without_positions
from recllm_bench.data.prepare.textfiles import header, read_bytes, read_columns, with_line_feeds
from recllm_bench.data.prepare.values import (
    MISSING,
    add_item_text,
    clean_text,
    encode_tokens,
    plain_ids,
    ratings,
    refuse_empty,
    refuse_first,
    times,
    unix_seconds,
)
from recllm_bench.errors import BenchError

_YEAR = re.compile(r"(?<!\d)(1[89]\d\d|20\d\d|21\d\d)(?!\d)")
_EXACT = 2.0**53  # from here on floats skip whole numbers
_ATOMIC_TYPES = ("token", "token_seq", "float", "float_seq")
_INFINITE = ("inf", "-inf")  # an Infinity in JSON where an id should be


class _Form(NamedTuple):
    """What a card says of a table's form; see :func:`read_table`."""

    encoding: str = ""
    delimiter: str = ""
    names: Sequence[str] | None = None
    quoting: str = ""
    missing: Sequence[str] = MISSING
    given: Mapping[str, str | None] | None = None


class _Columns(NamedTuple):
    columns: dict[str, pa.Array]
    first_line: int
    notes: tuple[str, ...] = ()


def read_table(
    files: Mapping[str, Path],
    columns: Mapping[str, str | None] | None = None,
    item_columns: Mapping[str, str | None] | None = None,
    encoding: str = "",
    delimiter: str = "",
    names: Sequence[str] | None = None,
    quoting: str = "",
    missing: Sequence[str] = MISSING,
    item_encoding: str = "",
    item_delimiter: str = "",
    item_names: Sequence[str] | None = None,
) -> Interactions:
    """Read interactions from a CSV, TSV, Parquet or JSON lines file; columns are recognised by their common names.

    Parameters
    ----------
    files : dict
        ``table``, perhaps its further parts (``part 2`` ...), and optionally ``items``, a table of the items' text:
        ``item, title, year, categories, description, brand, price``; :func:`table_files` finds them.
    columns, item_columns : mapping, optional
        Column names by role (``user, item, time, rating``; ``item, title, year, categories, description, brand,
        price``) where they are not to be recognised; None leaves a role out.
    encoding, delimiter : str
        Of delimited text that is not UTF-8, or separated by another sign than a comma (CSV) or a tab (TSV).
    names : sequence of str, optional
        Column names of delimited text that has no header line.
    quoting : str
        As in :func:`recllm_bench.data.prepare.delimited.read_delimited`.
    missing : sequence of str
        Spellings of a missing value: text that is one is empty, an id that is one is refused.
    item_encoding, item_delimiter, item_names
        Of the table of items, where they differ.

    Raises
    ------
    BenchError
        With the columns found when one is missing, and with file and line for a value that cannot be read.
    """
    for label, given, known in (("columns", columns, COLUMNS), ("item_columns", item_columns, ITEM_COLUMNS)):
        check_map(files["table"], label, given or {}, known)
    form = _Form(encoding, delimiter, names, quoting, missing, columns)
    parts = [path for role, path in files.items() if role == "table" or role.startswith(PART)]
    rows = join_parts(files["table"], [_interactions(path, _table(path, form), form) for path in parts])
    if "items" not in files:
        return rows
    items = _Form(item_encoding or encoding, item_delimiter or delimiter, item_names, quoting, missing, item_columns)
    return match_items(rows, files["items"], *_item_text(files["items"], _table(files["items"], items, True), items))


def typed_interactions(path: Path, columns: Mapping[str, pa.Array]) -> Interactions:
    """Interactions from columns in memory, recognised and refused as those of a table in the file ``path`` are."""
    return join_parts(path, [_interactions(path, _Columns(dict(columns), 1), _Form())])


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
        For a header without types or with unknown ones, or missing columns.
    """
    path = files["inter"]
    table = _atomic(path)
    if holds_item_lists(table.columns):
        rows = without_positions(read_item_lists(path, table.columns, table.first_line))
    else:  # RecBole has no missing ids: what stands there is one
        rows = join_parts(path, [_interactions(path, table, _Form(missing=()))])
    if "item" not in files:
        return rows
    return match_items(rows, files["item"], *_item_text(files["item"], _atomic(files["item"]), _Form()))


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
        raise BenchError(f"{folder}: has no .inter file (RecBole atomic files) and no Parquet file; it holds {here}")
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


def _table(path: Path, form: _Form, of_items: bool = False) -> _Columns:
    """Columns as strings or as typed Arrow arrays."""
    kind = table_kind(path)
    if form.names and (kind in PARQUET or kind in JSON_LINES):
        raise BenchError(f"{path}: names are for delimited text without a header; {kind} files have names of their own")
    if kind in PARQUET:
        import pyarrow.parquet as parquet

        try:
            table = parquet.read_table(path, partitioning=None)
        except (pa.ArrowInvalid, OSError) as error:
            raise BenchError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from error
        if not table.num_rows:
            raise BenchError(f"{path}: the file has no rows")
        twice = [name for name in table.column_names if table.column_names.count(name) > 1]
        if twice:
            raise BenchError(f"{path}: two columns are named '{twice[0]}'")
        return _Columns({name: table[name].combine_chunks() for name in table.column_names}, 1)
    if kind not in TABLE_KINDS:
        raise BenchError(f"{path}: not a kind of table; known are {', '.join(TABLE_KINDS)}, text also with .gz")
    data = read_bytes(path, form.encoding)
    if kind in JSON_LINES:
        return _Columns(read_json_lines(path, with_line_feeds(data)), 1)
    known, needed = (ITEM_COLUMNS, {"item"}) if of_items else (COLUMNS, {"user", "item"})

    def fits(names: Sequence[str]) -> bool:
        there = found_columns(names, known, form.given or {})
        return needed <= there.keys() and all(what in there for what, name in (form.given or {}).items() if name)

    delimiter = form.delimiter or ("\t" if kind == ".tsv" else ",")
    return _Columns(*read_delimited(path, data, delimiter, form.names, form.quoting, fits, of_items))


def _atomic(path: Path) -> _Columns:
    data = with_line_feeds(read_bytes(path))
    for name in header(path, data, "\t", quoted=False):
        if ":" not in name:
            raise BenchError(f"{path}:1: the header field '{name}' has no type; atomic files write name:type")
        if (kind := name.partition(":")[2]) not in _ATOMIC_TYPES:
            raise BenchError(
                f"{path}:1: the header field '{name}' has the type '{kind}'; types are {', '.join(_ATOMIC_TYPES)}, and "
                "fields are separated by tabs"
            )
    return _Columns(read_columns(path, data, "\t"), 2)


def _interactions(path: Path, table: _Columns, form: _Form) -> tuple[Interactions, bool]:
    """Rows of a table, and whether their times were written as plain numbers."""
    columns, first_line = table.columns, table.first_line
    found = recognise(path, columns, COLUMNS, ("user", "item"), form.given)

    def strings(what: str, name: str, mend: str, missing: Sequence[str] = form.missing) -> pa.Array:
        """A column without empty fields."""
        column = _strings(path, found[what], columns[found[what]], first_line)
        refuse_empty(path, column, name, first_line, missing, mend)
        return column

    coded = {}
    for what in ("user", "item"):
        mend = "; leave the line out, or write 'missing: []' in a card if it is an id" if form.missing else ""
        ids = strings(what, f"{what} id", mend, (*form.missing, *_INFINITE) if form.missing else ())
        coded[what] = encode_tokens(plain_ids(path, ids, f"{what} id", first_line))
    _refuse_header_again(path, found, coded, first_line)
    order, are_numbers, stars = None, False, None
    mend = "; leave the line out, or the column ('columns: {{{}: null}}' in a card)"
    if "time" in found:
        if pa.types.is_temporal(columns[found["time"]].type):
            order = _stamps(path, found["time"], columns[found["time"]], first_line)
        else:
            order, are_numbers = times(path, strings("time", "time", mend.format("time")), first_line)
    if "rating" in found:
        stars = ratings(path, strings("rating", "rating", mend.format("rating")), first_line)
    (users, user_tokens), (items, item_tokens) = coded["user"], coded["item"]
    rows = Interactions(users, items, user_tokens, item_tokens, order, order is not None, stars, notes=table.notes)
    return rows, are_numbers


def _refuse_header_again(
    path: Path, found: Mapping[str, str], coded: Mapping[str, tuple[np.ndarray, list[str]]], first_line: int
) -> None:
    """Raise where files were joined with their headers: a row that holds the columns' own names."""
    again = np.ones(len(coded["user"][0]), dtype=bool)
    for what in ("user", "item"):
        codes, tokens = coded[what]
        again &= codes == (tokens.index(found[what]) if found[what] in tokens else -1)
    refuse_first(path, again, first_line, lambda _: "the header stands here once more; delete the line")


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
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    try:
        return pc.utf8_trim_whitespace(column.cast(pa.string())).fill_null("")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BenchError(
            f"{path}: the column '{name}' ({column.type}) is no text and no numbers; write it as text"
        ) from error


def _refuse_nested(path: Path, name: str, column: pa.Array, first_line: int) -> None:
    if not pa.types.is_struct(column.type):
        raise BenchError(f"{path}: the column '{name}' holds lists; give it plain values")
    there = column.field("nested") if column.type.names == ["nested"] else column.is_valid()
    why = f"the column '{name}' holds nested values; give it plain ones"
    refuse_first(path, there.to_numpy(zero_copy_only=False), first_line, lambda _: why)


def _stamps(path: Path, name: str, column: pa.Array, first_line: int) -> np.ndarray:
    """Unix seconds of a column of points in time."""
    refuse_first(path, column.is_null().to_numpy(zero_copy_only=False), first_line, lambda _: "the time is empty")
    try:
        micro = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowNotImplementedError as error:
        raise BenchError(f"{path}: the column '{name}' ({column.type}) holds no points in time") from error
    return unix_seconds(path, micro / 1e6, first_line)


def _item_text(path: Path, table: _Columns, form: _Form) -> tuple[dict[str, ItemText], tuple[str, ...]]:
    """Text by item id, and what was noticed."""
    columns, first_line = table.columns, table.first_line
    found = recognise(path, columns, ITEM_COLUMNS, ("item",), form.given)
    for name in found.values():
        kind = columns[name].type
        if pa.types.is_struct(kind) or (pa.types.is_list(kind) and pa.types.is_nested(kind.value_type)):
            _refuse_nested(path, name, columns[name], first_line)
    tokens = _strings(path, found["item"], columns[found["item"]], first_line)
    refuse_empty(path, tokens, "item id", first_line, form.missing, "; leave the line out")
    tokens = plain_ids(path, tokens, "item id", first_line)
    # RecBole's token_seq separates by spaces; every other source by a sign that names do not contain.
    by_space = found.get("categories", "").endswith(":token_seq")
    values = {what: columns[name].to_pylist() for what, name in found.items() if what != "item"}
    blanks: Counter[str] = Counter()

    def stated(what: str, row: int) -> Any:
        """A field; None where it is missing, however that is written."""
        value = values[what][row] if what in values else None
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str) and (word := value.strip()) in form.missing:
            blanks[word] += bool(word)
            return None
        return value

    text: dict[str, ItemText] = {}
    for row, token in enumerate(tokens.to_pylist()):
        year = _YEAR.search(clean_text(stated("year", row)))
        item = ItemText(
            _joined(stated("title", row), form.missing),
            int(year[0]) if year else 0,
            _categories(stated("categories", row), by_space, form.missing),
            _joined(stated("description", row), form.missing),
            _joined(stated("brand", row), form.missing),
            price_of(stated("price", row)),
        )
        add_item_text(text, path, first_line + row, token, item)
    notes = list(table.notes)
    if not any(item.title or item.categories or item.description for item in text.values()):
        known = ", ".join(what for what in found if what != "item") or "no column of title, categories or description"
        notes.append(
            f"{path.name}: no item has any text ({known}); name the column in a card (item_columns: {{title: NAME}})"
        )
    if count := sum(blanks.values()):
        said = "field says" if count == 1 else "fields say"
        words = ", ".join(f"'{word}'" for word, _ in blanks.most_common(3))
        notes.append(
            f"{path.name}: {count:,} {said} {words} for a missing value: empty ('missing: []' in a card keeps it)"
        )
    return text, tuple(notes)


def _joined(value: object, missing: Collection[str]) -> str:
    parts = value if isinstance(value, (list, tuple)) else [value]
    return " ".join(text for part in parts if (text := clean_text(part)) and text not in missing)


def _categories(value: object, by_space: bool, missing: Collection[str]) -> tuple[str, ...]:
    if isinstance(value, (list, tuple)):
        names = [clean_text(name) for name in value]
    else:
        text = clean_text(value)
        separator = next((sign for sign in "|;," if sign in text), None)
        names = text.split() if by_space else text.split(separator) if separator else [text]
    names = [name.strip() for name in names]
    return tuple(dict.fromkeys(name for name in names if name not in missing and name not in ("", "unknown")))
