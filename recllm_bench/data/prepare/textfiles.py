"""Reading text sources whole and fast, with errors that name the file and the line."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from recllm_bench.errors import BenchError

_BOM = b"\xef\xbb\xbf"
# Marks at the start of a file, the longer before the shorter that begins it.
_MARKED = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def read_bytes(path: Path, encoding: str = "") -> bytes:
    """Read a file, gunzipped when its name ends in ``.gz``, without a byte order mark.

    Parameters
    ----------
    encoding : str
        Its encoding, when that is known not to be UTF-8; a mark at its start (UTF-16, UTF-32) says so as well.

    Returns
    -------
    bytes
        UTF-8, unless the file is in another encoding and nothing says so.

    Raises
    ------
    BenchError
        When it cannot be read, is truncated, empty, or no text in its encoding.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BenchError(f"{path}: truncated or damaged gzip file ({error}); copy or download it again") from error
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror or error}") from error
    marked = next((name for mark, name in _MARKED if data.startswith(mark)), "")
    encoding = encoding if encoding.lower().replace("_", "-") not in ("", "utf-8", "utf8") else marked
    if encoding:
        data = decode(path, data, encoding).encode("utf-8", "surrogatepass")
    data = data.removeprefix(_BOM)
    # The first piece decides for every file but odd ones: stripping all of a large file would copy it.
    if not data[:4096].strip() and not data.strip():
        raise BenchError(f"{path}: the file is empty")
    return data


def decode(path: Path, data: bytes, encoding: str = "utf-8", first_line: int = 1) -> str:
    """Decode text, naming the line of the first wrong byte; ``first_line`` is that of the first byte.

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
        line = data.count(b"\n", 0, error.start) + first_line
        raise BenchError(
            f"{path}:{line}: not {encoding.upper()} text; save the file as UTF-8, or name a table's encoding in a card "
            "(encoding: latin-1)"
        ) from error
    except UnicodeError as error:  # UTF-16 without a mark where one is needed
        raise BenchError(f"{path}: not {encoding.upper()} text ({error}); save the file as UTF-8") from error


def refuse_zeros(path: Path, data: bytes) -> None:
    """Raise with the line of the first zero byte.

    Raises
    ------
    BenchError
        Text in UTF-8 has none: it is UTF-16 without a mark, or no text at all.
    """
    if (place := data.find(b"\0")) >= 0:
        raise BenchError(
            f"{path}:{data.count(10, 0, place) + 1}: a zero byte: UTF-16 text without a mark at its start (save it as "
            "UTF-8, or write 'encoding: utf-16-le' in a card), or no text at all"
        )


def with_line_feeds(data: bytes) -> bytes:
    """The same text with LF at every line end: CRLF, the CR alone of old programs, and their mixtures."""
    if b"\r" not in data:
        return data
    if b"\r\r\n" in data:  # CRLF that was written as text once more
        data = re.sub(rb"\r+\n", b"\n", data)
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


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


def header(path: Path, data: bytes, delimiter: str, quoted: bool, line: int = 1) -> list[str]:
    """Names in the first line, which is the file's line ``line``.

    Raises
    ------
    BenchError
        When two columns have the same name.
    """
    text = decode(path, data.split(b"\n", 1)[0].rstrip(b"\r"))
    try:
        names = (
            next(csv.reader([text], delimiter=delimiter, skipinitialspace=True)) if quoted else text.split(delimiter)
        )
    except csv.Error as error:
        raise BenchError(f"{path}:{line}: the header cannot be read ({error})") from error
    names = [name.strip() for name in names]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BenchError(f"{path}:{line}: two columns are named '{twice[0]}'; rename one")
    return names


def _find_bad_line(path: Path, data: bytes, delimiter: str, width: int, quoted: bool, first_line: int) -> None:
    text = decode(path, data.rstrip(b"\r\n"), first_line=first_line)
    if quoted:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        lines = ((reader.line_num, row) for row in reader)
    else:
        lines = ((number, line.split(delimiter)) for number, line in enumerate(text.split("\n"), 1))
    for number, row in lines:
        if "".join(row).strip() and len(row) != width:
            raise BenchError(f"{path}:{first_line + number - 1}: {len(row)} fields instead of {width}")
