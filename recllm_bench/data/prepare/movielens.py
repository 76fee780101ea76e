"""MovieLens as GroupLens publishes it: ``ratings.dat``, ``u.data`` and ``ratings.csv`` with their movie tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from recllm_bench.data.interactions import Interactions, ItemText
from recllm_bench.data.prepare.textfiles import decode, header, parse_options, pieces, read_bytes, read_columns
from recllm_bench.data.prepare.values import (
    add_item_text,
    before_the_web,
    clean_text,
    encode_tokens,
    numbers,
    refuse_empty,
    unix_seconds,
)
from recllm_bench.errors import BenchError

# The year may be a span: "Fawlty Towers (1975-1979)", "Big Bang Theory, The (2007-)".
_TITLE = re.compile(r"^(?P<title>.*\S)\s*\((?P<year>\d{4})(?:[-\u2013]\s?(?:\d{4})?)?\)\s*(?:\((?:V|TV)\))?\s*$")
_NO_GENRE = {"unknown", "(no genres listed)"}
# Lines are parsed in pieces of this size, so that the copies a piece needs stay small beside the file.
_PIECE_BYTES = 16 << 20
_TYPES = {"user": pa.int32(), "item": pa.int32(), "rating": pa.float32(), "time": pa.int64()}
_CSV_NAMES = {"userId": "user", "movieId": "item", "rating": "rating", "timestamp": "time"}
_PLOT_FIELDS = 11
_PLOT = 9
_U_ITEM_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


def parse_title(text: str) -> tuple[str, int]:
    """Split ``"Title, The (1995)"`` into title and year, the first of a span; the year is 0 when there is none."""
    text = clean_text(text)
    match = _TITLE.match(text)
    return (match["title"], int(match["year"])) if match else (text, 0)


def read_dat(files: dict[str, Path], times: bool = True, encoding: str = "latin-1") -> Interactions:
    """Read ``UserID::MovieID::Rating::Timestamp`` and ``MovieID::Title::Genres`` (1M and 10M).

    Parameters
    ----------
    files : dict
        ``ratings`` and ``items``; optionally ``plots``: lines of ``MovieID::Title::Year::Rated::Released::Genres::
        Director::Writer::Actors::Plot::Poster`` in UTF-8, whose plots become descriptions (``N/A`` is none).
    times : bool
        Whether the fourth field is Unix time; else it is the position within the user.
    encoding : str
        Of the movie table: latin-1 for 1M, UTF-8 for 10M.

    Raises
    ------
    BenchError
        For malformed lines, or a fourth field that is not what the card says.
    """
    rows = _ratings(files["ratings"], "::", list(_TYPES), times)
    text: dict[str, ItemText] = {}
    for line, fields in _lines(files["items"], "::", 3, encoding):
        title, year = parse_title(fields[1])
        add_item_text(text, files["items"], line, fields[0], ItemText(title, year, _genres(fields[2].split("|"))))
    if "plots" in files:
        for _, fields in _lines(files["plots"], "::", _PLOT_FIELDS, "utf-8"):
            plot = clean_text(fields[_PLOT])
            # Only of movies in the movie table: an extra file must not make the catalogue longer.
            if fields[0] in text and plot not in ("", "N/A"):
                text[fields[0]] = replace(text[fields[0]], description=plot)
    return replace(rows, text=text)


def read_u(files: dict[str, Path], times: bool = True) -> Interactions:
    """Read tab-separated ``u.data`` and ``|``-separated ``u.item`` (latin-1) of MovieLens 100K."""
    rows = _ratings(files["ratings"], "\t", list(_TYPES), times)
    text: dict[str, ItemText] = {}
    for line, fields in _lines(files["items"], "|", 5 + len(_U_ITEM_GENRES), "latin-1"):
        title, year = parse_title(fields[1])
        released = fields[2][-4:]
        year = year or (int(released) if released.isdigit() else 0)
        genres = [name for name, flag in zip(_U_ITEM_GENRES, fields[5:], strict=True) if flag == "1"]
        add_item_text(text, files["items"], line, fields[0], ItemText(title, year, _genres(genres)))
    return replace(rows, text=text)


def read_csv(files: dict[str, Path]) -> Interactions:
    """Read ``ratings.csv`` and ``movies.csv`` (20M, 25M, 32M, latest-small): UTF-8, genres joined by ``|``.

    Parameters
    ----------
    files : dict
        ``ratings`` with the columns ``userId, movieId, rating, timestamp`` in any order, and ``items`` with
        ``movieId, title, genres``.

    Raises
    ------
    BenchError
        For missing columns and malformed lines.
    """
    rows = _ratings(files["ratings"], ",", None, True)
    path = files["items"]
    columns = read_columns(path, read_bytes(path), ",", quoted=True)
    _need(path, list(columns), ("movieId", "title", "genres"))
    refuse_empty(path, columns["movieId"], "item id", 2)
    text: dict[str, ItemText] = {}
    values = (columns[name].to_pylist() for name in ("movieId", "title", "genres"))
    for line, (token, named, genres) in enumerate(zip(*values, strict=True), 2):
        title, year = parse_title(named)
        add_item_text(text, path, line, token, ItemText(title, year, _genres(genres.split("|"))))
    return replace(rows, text=text)


def _ratings(path: Path, separator: str, names: list[str] | None, times: bool) -> Interactions:
    """Read the ratings of a file; ``names`` are its columns, or None when its first line says them."""
    data = read_bytes(path)
    first_line = 1
    start = 0
    if names is None:
        found = header(path, data, separator, quoted=True)
        _need(path, found, tuple(_CSV_NAMES))
        names = [_CSV_NAMES.get(name, name) for name in found]
        first_line, start = 2, data.find(b"\n") + 1
        if not start or not data[start : start + 4096].strip():
            raise BenchError(f"{path}: the file has a header but no line of data")
    parts = [_typed(path, data, *piece, separator, names) for piece in pieces(data, start, _PIECE_BYTES)]
    table = pa.concat_tables(parts)
    del data, parts
    order = table["time"].to_numpy()
    ratings = table["rating"].to_numpy()
    if order.min() < 0:
        unix_seconds(path, order, first_line)
    if times == bool(before_the_web(order.min())):
        found_ = "positions within the user, not Unix times" if times else "Unix times, not positions within the user"
        raise BenchError(
            f"{path}:{first_line}: the fourth field holds {found_}; this is another variant than its name says"
        )
    users, user_tokens = encode_tokens(table["user"])
    items, item_tokens = encode_tokens(table["item"])
    return Interactions(users, items, user_tokens, item_tokens, order, times, ratings)


def _typed(path: Path, data: bytes, start: int, stop: int, separator: str, names: list[str]) -> pa.Table:
    lines, delimiter = data[start:stop], separator
    if separator == "::":
        if b"\t" in lines:
            raise BenchError(f"{path}:{data.count(10, 0, data.index(9, start)) + 1}: a tab in a '::' file")
        lines, delimiter = lines.replace(b"::", b"\t"), "\t"
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(lines),
            # One block: the order of rows is the file's, and no field is cut.
            read_options=arrow_csv.ReadOptions(column_names=names, block_size=len(lines) + 1),
            parse_options=parse_options(delimiter, separator == ","),
            convert_options=arrow_csv.ConvertOptions(column_types=_TYPES, null_values=[], include_columns=list(_TYPES)),
        )
        if np.isfinite(table["rating"].to_numpy()).all():
            return table
    except pa.ArrowInvalid:
        pass
    # Something is not as it should be: once more with care, to say what and in which line.
    first_line = data.count(10, 0, start) + 1
    columns = read_columns(path, lines, delimiter, names, separator == ",", first_line)
    values = {}
    for what, said in (("user", "user id"), ("item", "item id"), ("rating", "rating"), ("time", "timestamp")):
        if said.endswith("id"):
            refuse_empty(path, columns[what], said, first_line)
        values[what] = numbers(path, columns[what], said, first_line)
        broken = (values[what] != np.floor(values[what])) & (what != "rating")
        if broken.any():
            row = int(np.argmax(broken))
            raise BenchError(f"{path}:{first_line + row}: the {said} '{columns[what][row]}' is not a whole number")
    return pa.table({what: pa.array(values[what]).cast(kind) for what, kind in _TYPES.items()})


def _need(path: Path, found: list[str], names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in found]
    if missing:
        raise BenchError(f"{path}:1: no column {missing[0]} among {', '.join(found)}; MovieLens has {', '.join(names)}")


def _lines(path: Path, separator: str, width: int, encoding: str) -> Iterator[tuple[int, list[str]]]:
    text = decode(path, read_bytes(path), encoding)
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        fields = line.rstrip("\r").split(separator)
        if len(fields) != width:
            raise BenchError(f"{path}:{number}: {len(fields)} fields instead of {width}")
        yield number, fields


def _genres(names: list[str]) -> tuple[str, ...]:
    return tuple(name for name in map(clean_text, names) if name and name not in _NO_GENRE)
