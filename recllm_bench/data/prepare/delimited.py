"""Delimited text of a user's own: separators of any length, quotes that do not close, files without a header."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recllm_bench.data.prepare.textfiles import decode, header, read_columns, refuse_zeros, with_line_feeds
from recllm_bench.errors import BenchError

QUOTING = ("fields", "lines", "none")
_SIGNS = {"\t": "\\t", ";": ";", "|": "|", ",": ",", "::": "::", "^": "^", "~": "~", "\x01": "\\x01", " ": " "}
# Stand for a separator of several bytes while Arrow cuts the lines; text has none of them.
_SPARE = tuple(bytes([code]) for code in (31, 30, 29, 28, 1, 2))
_SAID = re.compile(rb'^"?sep=(.{1,3}?)"?$', re.IGNORECASE)  # the line by which a spreadsheet says its separator
_SHOWN = 40
# Python stops at 128 KiB a field, shorter than some descriptions.
csv.field_size_limit(1 << 30)


class Delimited(NamedTuple):
    """A table cut into fields.

    Attributes
    ----------
    columns : dict of str to string array
        Fields, without spaces around them.
    first_line : int
        Line of the first row.
    notes : tuple of str
        What was noticed, for people.
    """

    columns: dict[str, pa.Array]
    first_line: int
    notes: tuple[str, ...] = ()


def read_delimited(
    path: Path,
    data: bytes,
    delimiter: str,
    names: Sequence[str] | None = None,
    quoting: str = "",
    fits: Callable[[Sequence[str]], bool] = bool,
    of_items: bool = False,
) -> Delimited:
    """Read delimited text as columns of strings.

    Parameters
    ----------
    path : Path
        For messages.
    data : bytes
        The file in UTF-8.
    delimiter : str
        Separates fields; one sign or several.
    names : sequence of str, optional
        Column names of a file without a header line.
    quoting : str
        ``fields``: a field in double quotes may span lines; ``lines``: a quote counts where it closes on its line, and
        is text elsewhere; ``none``: a quote is text. By default ``fields``, but ``lines`` where only that fits.
    fits : callable
        Whether a header has the columns that are needed; where it has not, what it looks like is said instead.
    of_items : bool
        Whether this is the table of items, whose keys in a card begin with ``item_``.

    Raises
    ------
    BenchError
        For a header with another separator or with values, a line with the wrong number of fields, bytes that are not
        UTF-8, and quotes of which it cannot be told where they end.
    """
    refuse_zeros(path, data)
    data = with_line_feeds(data)
    first, rest = data.partition(b"\n")[::2]
    first_line = 1
    if names is None and (said := _SAID.match(first)) and rest:
        delimiter, data, first_line = said[1].decode(errors="replace"), rest, 2
        first, rest = data.partition(b"\n")[::2]
    if not first.strip():
        raise BenchError(f"{path}:{first_line}: the first line is empty; delete it")
    if names is None:
        _check_header(path, decode(path, first), delimiter, first_line, fits, of_items)
    real = delimiter
    if len(delimiter.encode()) > 1:
        delimiter = _spare(path, data)
        first, rest, data = (part.replace(real.encode(), delimiter.encode()) for part in (first, rest, data))
    if names is None:
        names = header(path, first, delimiter, quoted=quoting != "none", line=first_line)
        data, first_line = rest, first_line + 1
        if not data[:4096].strip() and not data.strip():
            raise BenchError(f"{path}: the file has a header but no line of data")
    elif (width := len(_cut(decode(path, first), delimiter))) != len(names):
        raise BenchError(f"{path}:1: {width} fields, but the card names {len(names)}; name every column")
    columns, notes = _fields(path, data, delimiter, list(names), quoting, first_line)
    if delimiter != real:  # it may stand inside quotes
        columns = {name: pc.replace_substring(column, delimiter, real) for name, column in columns.items()}
        columns = {name.replace(delimiter, real): column for name, column in columns.items()}
    return Delimited(columns, first_line, notes)


def _check_header(
    path: Path, line: str, delimiter: str, number: int, fits: Callable[[Sequence[str]], bool], of_items: bool
) -> None:
    names = _cut(line, delimiter)
    if fits(names):
        return
    key = "item_" if of_items else ""
    card = (
        "the card of the interactions" if of_items else f"a card ({path.stem}.yaml, with the line 'table: {path.name}')"
    )
    cuts = {sign: _cut(line, sign) for sign in _SIGNS if sign != delimiter}
    # A sign that gives the columns needed; else one that cuts where the separator does not.
    other = next((sign for sign, found in cuts.items() if len(found) > 1 and fits(found)), None)
    if other is None and len(names) == 1:
        sign, found = max(((sign, cut) for sign, cut in cuts.items() if sign != " "), key=lambda cut: len(cut[1]))
        other = sign if len(found) > 1 else None
    shown = line if len(line) <= _SHOWN else line[:_SHOWN] + "..."
    if other is not None:
        sign, wrong = _SIGNS[other], _SIGNS.get(delimiter, delimiter)
        raise BenchError(
            f"{path}:{number}: the header ({shown.strip()}) is separated by '{sign}', not by '{wrong}'; write in "
            f'{card}: {key}delimiter: "{sign}"'
        )
    if any(_is_number(name) for name in names):
        raise BenchError(
            f"{path}:{number}: the first line ({shown.strip()}) is a row, no header; name its columns in {card}: "
            f"{key}names: [{'item_id, title' if of_items else 'user_id, item_id, rating, timestamp'}]"
        )


def _cut(line: str, delimiter: str) -> list[str]:
    if len(delimiter) > 1:
        return [name.strip().strip('"') for name in line.split(delimiter)]
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]
    except csv.Error:
        return line.split(delimiter)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _spare(path: Path, data: bytes) -> str:
    """A sign that the file does not hold."""
    found = next((sign for sign in _SPARE if sign not in data), None)
    if found is None:
        raise BenchError(f"{path}: control characters in the text; separate the fields by a single sign")
    return found.decode()


def _fields(
    path: Path, data: bytes, delimiter: str, names: list[str], quoting: str, first_line: int
) -> tuple[dict[str, pa.Array], tuple[str, ...]]:
    if b'"' not in data or quoting == "none":
        return read_columns(path, data, delimiter, names, False, first_line), ()
    if not _quotes_close(data, delimiter):
        # Written by hand, or by R and SAS: blanks between a separator and the quote beside it.
        sign = re.escape(delimiter.encode())
        closer = re.sub(rb"(?m)(^|" + sign + rb')[ \t]+(?=")|(?<=")[ \t]+(?=' + sign + rb"|$)", rb"\1", data)
        data = closer if _quotes_close(closer, delimiter) else data
    if quoting == "lines":
        return _line_by_line(path, data, delimiter, names, first_line), ()
    fault = 0 if _quotes_close(data, delimiter) else _open_quote(path, data, delimiter, first_line)
    if fault and not quoting:
        try:
            columns = _line_by_line(path, data, delimiter, names, first_line)
        except BenchError:
            pass
        else:
            return columns, (f"quotes that do not close ({path.name}:{fault}) were read as text",)
    if fault:
        raise BenchError(
            f"{path}:{fault}: a quote opens here and does not close at the end of a field; double the quotes inside "
            "quoted fields, or write 'quoting: none' in a card if quotes are text"
        )
    columns = read_columns(path, data, delimiter, names, True, first_line)
    rows = len(columns[names[0]])
    if not quoting and rows < data.rstrip(b"\n").count(b"\n") + 1 and _each_line_is_a_row(path, data, delimiter, names):
        row = first_line + int(np.argmax(_spans_lines(columns)))
        raise BenchError(
            f"{path}:{row}: a field in quotes holds whole lines that read as rows of their own; write "
            "'quoting: lines' in a card if they are rows, 'quoting: fields' if they are text"
        )
    return columns, ()


def _quotes_close(data: bytes, delimiter: str) -> bool:
    """Whether every quote opens at the start of a field, closes at its end, or is doubled: no stray ones."""
    text = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(text == ord('"'))
    if len(quotes) % 2:
        return False
    edge = np.zeros(256, dtype=bool)
    edge[[ord(delimiter), ord("\n"), ord('"')]] = True  # of two quotes side by side one closes, one opens again
    opening, closing = quotes[0::2], quotes[1::2]
    opening, closing = opening[opening > 0], closing[closing < len(text) - 1]
    return bool(edge[text[opening - 1]].all() and edge[text[closing + 1]].all())


def _open_quote(path: Path, data: bytes, delimiter: str, first_line: int) -> int:
    """Line of the row in which a quoted field does not end as it should; 0 when all do."""
    text = io.StringIO(decode(path, data.rstrip(b"\n"), first_line=first_line), newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    line = 0
    try:
        for _ in reader:
            line = reader.line_num
    except csv.Error:
        return first_line + line
    return 0


def _rows(path: Path, data: bytes, delimiter: str) -> Iterator[list[str]]:
    """Each line as a row; a quote counts where it closes on its line."""
    for line in decode(path, data.rstrip(b"\n")).split("\n"):
        if '"' not in line:
            yield line.split(delimiter)
            continue
        # Dumps of databases and of programs write \" inside quotes.
        escape = "\\" if '\\"' in line else None
        try:
            yield next(csv.reader([line], delimiter=delimiter, strict=True, escapechar=escape))
        except csv.Error:
            yield line.split(delimiter)


def _each_line_is_a_row(path: Path, data: bytes, delimiter: str, names: list[str]) -> bool:
    return all(len(row) == len(names) for row in _rows(path, data, delimiter))


def _line_by_line(path: Path, data: bytes, delimiter: str, names: list[str], first_line: int) -> dict[str, pa.Array]:
    rows = list(_rows(path, data, delimiter))
    for number, row in enumerate(rows, first_line):
        if row == [""]:
            row *= len(names)  # an empty line is a row of empty fields, which readers refuse
        if len(row) != len(names):
            raise BenchError(f"{path}:{number}: {len(row)} fields instead of {len(names)}")
    columns = zip(*rows, strict=True)
    return {
        name: pc.utf8_trim_whitespace(pa.array(column, pa.string()))
        for name, column in zip(names, columns, strict=True)
    }


def _spans_lines(columns: dict[str, pa.Array]) -> np.ndarray:
    """Which rows have a field with a line break: bool [rows]."""
    masks = [pc.match_substring(column, "\n").to_numpy(zero_copy_only=False) for column in columns.values()]
    return np.logical_or.reduce(masks)
