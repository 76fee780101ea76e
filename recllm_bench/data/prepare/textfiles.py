"""Reading text sources whole and fast, with errors that name the file and the line."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from recllm_bench.errors import BenchError

_BOM = b"\xef\xbb\xbf"
_JSON_PIECE_BYTES = 8 << 20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_MILLISECONDS_FROM = 100_000_000_000  # as seconds this is the year 5138
_LATEST = 4_102_444_800  # 2100-01-01


def read_bytes(path: Path, encoding: str = "") -> bytes:
    """Read a file, gunzipped when its name ends in ``.gz``, without a byte order mark.

    Parameters
    ----------
    path : Path
        The file.
    encoding : str
        Its encoding, when that is known not to be UTF-8; the result is UTF-8 then.

    Raises
    ------
    BenchError
        When it cannot be read, is truncated, is empty, or is UTF-16 without saying so.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BenchError(f"{path}: truncated or damaged gzip file ({error}); copy or download it again") from error
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror or error}") from error
    if encoding and encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
        data = decode(path, data, encoding).encode("utf-8")
    elif data.startswith(_UTF16):
        raise BenchError(f"{path}:1: UTF-16 text; save the file as UTF-8")
    data = data.removeprefix(_BOM)
    # The first piece decides for every file but odd ones: stripping all of a large file would copy it.
    if not data[:4096].strip() and not data.strip():
        raise BenchError(f"{path}: the file is empty")
    return data


def decode(path: Path, data: bytes, encoding: str = "utf-8") -> str:
    """Decode text, naming the line of the first wrong byte.

    Raises
    ------
    BenchError
        When the bytes are not text in this encoding, or the encoding is unknown.
    """
    try:
        return data.decode(encoding)
    except LookupError as error:
        raise BenchError(f"{path}: unknown encoding '{encoding}'; write utf-8, latin-1, cp1252 or utf-16") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BenchError(f"{path}:{line}: not {encoding.upper()} text; save the file as UTF-8") from error


def read_columns(
    path: Path,
    data: bytes,
    delimiter: str,
    names: list[str] | None = None,
    quoted: bool = False,
    first_line: int = 1,
) -> dict[str, pa.Array]:
    """Read delimited text as columns of strings.

    Parameters
    ----------
    path : Path
        For messages.
    data : bytes
        The file's content, or whole lines of it.
    delimiter : str
        One character.
    names : list of str, optional
        Column names; without them the first line is the header.
    quoted : bool
        Whether fields may stand in double quotes.
    first_line : int
        Number of the first line of ``data`` in the file.

    Raises
    ------
    BenchError
        For a line with the wrong number of fields, or bytes that are not UTF-8.
    """
    skip = 1 if names is None else 0
    names = names or header(path, data, delimiter, quoted)
    if skip and b"\n" not in data.rstrip(b"\r\n"):
        raise BenchError(f"{path}: the file has a header but no line of data")
    # Empty lines become rows of empty fields, which readers refuse: so row numbers are line numbers.
    data = data.rstrip(b"\r\n")
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            read_options=arrow_csv.ReadOptions(column_names=names, skip_rows=skip, block_size=1 << 24),
            parse_options=parse_options(delimiter, quoted),
            convert_options=arrow_csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        _find_bad_line(path, data, delimiter, len(names), quoted, first_line)
        raise BenchError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    # One piece instead of Arrow's chunks: every later step is one array operation.
    return {name: pc.utf8_trim_whitespace(table[name]).combine_chunks() for name in names}


def parse_options(delimiter: str, quoted: bool) -> arrow_csv.ParseOptions:
    """How Arrow cuts lines into fields; empty lines stay, so that row numbers are line numbers."""
    return arrow_csv.ParseOptions(
        delimiter=delimiter,
        quote_char='"' if quoted else False,
        newlines_in_values=quoted,
        ignore_empty_lines=False,
    )


def read_json_lines(path: Path, data: bytes) -> dict[str, pa.Array]:
    """Read one JSON object a line as columns: strings, or lists of strings where a field holds lists.

    Numbers become the text they were written as, so that ``7`` and ``"7"`` are one id; a missing field and ``null``
    become an empty string. A field that holds objects, or lists of anything but plain values, has the type
    ``struct``: whoever wants it must refuse it.

    Raises
    ------
    BenchError
        With the line, for anything but one object a line.
    """
    import msgspec

    if data[:4096].lstrip()[:1] == b"[":
        raise BenchError(f"{path}:1: a JSON array; write one object a line (JSON lines)")
    decoder = msgspec.json.Decoder(dict)
    columns: dict[str, list[pa.Array]] = {}
    lengths: list[int] = []
    for start, stop in pieces(data, 0, _JSON_PIECE_BYTES):
        lines = data[start:stop]
        try:
            records = decoder.decode_lines(lines)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            records = []
        if len(records) != lines.count(b"\n") + (not lines.endswith(b"\n")):
            _find_bad_record(path, lines.removesuffix(b"\n"), decoder, data.count(b"\n", 0, start) + 1)
        names = dict.fromkeys(chain.from_iterable(records))
        for name in {**columns, **names}:
            before = columns.setdefault(name, [pa.array([""] * length, pa.string()) for length in lengths])
            before.append(_json_column([record.get(name) for record in records]))
        lengths.append(len(records))
    return {name.strip(): _merged(parts) for name, parts in columns.items()}


def pieces(data: bytes, start: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut text from ``start`` on into whole lines of about ``size`` bytes, without the empty lines at its end.

    Yields
    ------
    start, stop : int
        Where a piece lies in ``data``.
    """
    end = len(data)
    while end > start and data[end - 1] in b"\r\n":
        end -= 1
    while start < end:
        stop = data.find(b"\n", min(start + size, end), end) + 1 or end
        yield start, stop
        start = stop


def _find_bad_record(path: Path, lines: bytes, decoder: Any, first_line: int) -> None:
    for number, line in enumerate(lines.split(b"\n"), first_line):
        if not line.strip():
            raise BenchError(f"{path}:{number}: an empty line")
        try:
            decoder.decode(line)
        except (ValueError, RecursionError) as error:
            why = str(error).splitlines()[0] if str(error) else "nested too deeply"
            raise BenchError(f"{path}:{number}: not one JSON object ({why})") from error
    raise BenchError(f"{path}:{first_line}: not one JSON object a line")


def _merged(parts: list[pa.Array]) -> pa.Array:
    """One column of its pieces; when they differ in kind, the most deeply nested kind decides."""
    if any(pa.types.is_struct(part.type) for part in parts):
        flags = [
            part.field("nested") if pa.types.is_struct(part.type) else pa.array([False] * len(part)) for part in parts
        ]
        return pa.StructArray.from_arrays([pa.concat_arrays(flags)], ["nested"])
    if any(pa.types.is_list(part.type) for part in parts):
        parts = [
            part if pa.types.is_list(part.type) else _json_column([[text] if text else [] for text in part.to_pylist()])
            for part in parts
        ]
    return pa.concat_arrays(parts)


def _json_column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values, pa.string()).fill_null("")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        pass
    kinds = set(map(type, values))
    if kinds <= {int, type(None)}:
        with contextlib.suppress(OverflowError):  # longer than any integer column: id by id
            return pa.array(values, pa.int64()).cast(pa.string()).fill_null("")
    if dict in kinds:
        nested = [type(value) is dict for value in values]
    elif list in kinds:
        lists = [value if type(value) is list else [] if value is None else [value] for value in values]
        nested = [any(type(part) in (dict, list) for part in value) for value in lists]
        if not any(nested):
            texts = [[scalar_text(part) for part in value] for value in lists]
            return pa.array(texts, pa.list_(pa.string()))
    else:
        return pa.array([scalar_text(value) for value in values], pa.string())
    return pa.array([{"nested": flag} for flag in nested])


def scalar_text(value: Any) -> str:
    """A plain value as text: whole floats without their point, so that the id ``7.0`` is the id ``7``."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def encode_tokens(column: pa.Array) -> tuple[np.ndarray, list[str]]:
    """Number the tokens of a column by first appearance: codes int32 [n], and the tokens."""
    coded = _whole(_whole(column).dictionary_encode())
    return coded.indices.to_numpy(), [str(token) for token in coded.dictionary.to_pylist()]


def numbers(path: Path, column: pa.Array, what: str, first_line: int | np.ndarray) -> np.ndarray:
    """Read a column of strings as numbers: int64 when all are whole, else float64.

    ``first_line`` is the line of the first value, or an array with the line of each.

    Raises
    ------
    BenchError
        With the line of the first value that is no finite number.
    """
    column = _whole(column)
    try:
        return column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        pass
    try:
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        values = np.array([_float(text) for text in column.to_pylist()])
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        row = int(wrong[0])
        raise BenchError(f"{path}:{_line(first_line, row)}: the {what} {column[row].as_py()!r} is not a number")
    return values


def unix_seconds(path: Path, values: np.ndarray, first_line: int | np.ndarray) -> np.ndarray:
    """Unix times in seconds, from seconds or milliseconds; each value is judged by itself.

    From 100,000,000,000 on a value is milliseconds: as seconds it would lie beyond the year 5000.

    Raises
    ------
    BenchError
        With the line of the first time before 1970 or beyond 2100: no interaction on the web has one, it is a missing
        value written as a number, or another unit.
    """
    late = values >= _MILLISECONDS_FROM
    seconds = np.where(late, values / 1000, values) if late.any() else values
    wrong = (seconds < 0) | (seconds >= _LATEST)
    if wrong.any():
        row = int(np.argmax(wrong))
        place, value = f"{path}:{_line(first_line, row)}", values[row]
        if seconds[row] < 0:
            raise BenchError(f"{place}: the time {value} lies before 1970; leave the line out if its time is unknown")
        raise BenchError(f"{place}: the time {value} lies beyond 2100; times are Unix seconds or milliseconds")
    return seconds


def refuse_empty(path: Path, column: pa.Array, what: str, first_line: int) -> None:
    """Raise with the line of the first empty field."""
    empty = pc.equal(_whole(column), "").to_numpy(zero_copy_only=False)
    if empty.any():
        raise BenchError(f"{path}:{first_line + int(np.argmax(empty))}: the {what} is empty")


def clean_text(value: Any) -> str:
    """Text of a field on one line; "" when it is missing, never "nan"."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return " ".join(str(value).split())


def header(path: Path, data: bytes, delimiter: str, quoted: bool) -> list[str]:
    """Names in the first line.

    Raises
    ------
    BenchError
        When two columns have the same name.
    """
    line = decode(path, data.split(b"\n", 1)[0].rstrip(b"\r"))
    names = next(csv.reader([line], delimiter=delimiter)) if quoted else line.split(delimiter)
    names = [name.strip() for name in names]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BenchError(f"{path}:1: two columns are named '{twice[0]}'")
    return names


def _whole(column: pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _line(first_line: int | np.ndarray, row: int) -> int:
    return int(first_line[row]) if isinstance(first_line, np.ndarray) else first_line + row


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _find_bad_line(path: Path, data: bytes, delimiter: str, width: int, quoted: bool, first_line: int) -> None:
    text = decode(path, data.rstrip(b"\r\n"))
    if quoted:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        lines = ((reader.line_num, row) for row in reader)
    else:
        lines = ((number, line.split(delimiter)) for number, line in enumerate(text.split("\n"), 1))
    for number, row in lines:
        if "".join(row).strip() and len(row) != width:
            raise BenchError(f"{path}:{first_line + number - 1}: {len(row)} fields instead of {width}")
