"""Reading text sources whole and fast, with errors that name the file and the line."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from recllm_bench.errors import BenchError

_BOM = b"\xef\xbb\xbf"


def read_bytes(path: Path) -> bytes:
    """Read a file, gunzipped when its name ends in ``.gz``, without a byte order mark.

    Raises
    ------
    BenchError
        When it cannot be read, is truncated, or is empty.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BenchError(f"{path}: truncated or damaged gzip file ({error}); copy or download it again") from error
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror or error}") from error
    data = data.removeprefix(_BOM)
    if not data.strip():
        raise BenchError(f"{path}: the file is empty")
    return data


def decode(path: Path, data: bytes, encoding: str = "utf-8") -> str:
    """Decode text, naming the line of the first wrong byte.

    Raises
    ------
    BenchError
        When the bytes are not text in this encoding.
    """
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BenchError(f"{path}:{line}: not {encoding.upper()} text; save the file as UTF-8") from error


def read_columns(
    path: Path, data: bytes, delimiter: str, names: list[str] | None = None, quoted: bool = False
) -> dict[str, pa.Array]:
    """Read delimited text as columns of strings.

    Parameters
    ----------
    path : Path
        For messages.
    data : bytes
        The file's content.
    delimiter : str
        One character.
    names : list of str, optional
        Column names; without them the first line is the header.
    quoted : bool
        Whether fields may stand in double quotes.

    Raises
    ------
    BenchError
        For a line with the wrong number of fields, or bytes that are not UTF-8.
    """
    skip = 1 if names is None else 0
    names = names or _header(path, data, delimiter, quoted)
    if skip and b"\n" not in data.rstrip(b"\r\n"):
        raise BenchError(f"{path}: the file has a header but no line of data")
    # Empty lines become rows of empty fields, which readers refuse: so row numbers are line numbers.
    data = data.rstrip(b"\r\n")
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            read_options=arrow_csv.ReadOptions(column_names=names, skip_rows=skip, block_size=1 << 24),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if quoted else False,
                newlines_in_values=quoted,
                ignore_empty_lines=False,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        _find_bad_line(path, data, delimiter, len(names), quoted)
        raise BenchError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    # One piece instead of Arrow's chunks: every later step is one array operation.
    return {name: pc.utf8_trim_whitespace(table[name]).combine_chunks() for name in names}


def encode_tokens(column: pa.Array) -> tuple[np.ndarray, list[str]]:
    """Number the tokens of a column by first appearance: codes int64 [n], and the tokens."""
    coded = _whole(column).dictionary_encode()
    return coded.indices.to_numpy().astype(np.int64), [str(token) for token in coded.dictionary.to_pylist()]


def numbers(path: Path, column: pa.Array, what: str, first_line: int) -> np.ndarray:
    """Read a column of strings as numbers: int64 when all are whole, else float64.

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
        raise BenchError(f"{path}:{first_line + row}: the {what} {column[row].as_py()!r} is not a number")
    return values


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


def _whole(column: pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _header(path: Path, data: bytes, delimiter: str, quoted: bool) -> list[str]:
    line = decode(path, data.split(b"\n", 1)[0].rstrip(b"\r"))
    names = next(csv.reader([line], delimiter=delimiter)) if quoted else line.split(delimiter)
    names = [name.strip() for name in names]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BenchError(f"{path}:1: two columns are named '{twice[0]}'")
    return names


def _find_bad_line(path: Path, data: bytes, delimiter: str, width: int, quoted: bool) -> None:
    text = decode(path, data.rstrip(b"\r\n"))
    if quoted:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        lines = ((reader.line_num, row) for row in reader)
    else:
        lines = ((number, line.split(delimiter)) for number, line in enumerate(text.split("\n"), 1))
    for number, row in lines:
        if "".join(row).strip() and len(row) != width:
            raise BenchError(f"{path}:{number}: {len(row)} fields instead of {width}")
