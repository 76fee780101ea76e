"""MovieLens as GroupLens publishes it: ``ratings.dat``/``movies.dat`` and ``u.data``/``u.item``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from recllm_bench.data.interactions import Interactions, ItemText
from recllm_bench.data.prepare.textfiles import (
    clean_text,
    decode,
    encode_tokens,
    numbers,
    read_bytes,
    read_columns,
    refuse_empty,
)
from recllm_bench.errors import BenchError

_TITLE = re.compile(r"^(?P<title>.*\S)\s*\((?P<year>\d{4})\)\s*(?:\((?:V|TV)\))?\s*$")
_NO_GENRE = {"unknown", "(no genres listed)"}
# Earlier than any rating and later than any position in a history.
_FIRST_SECOND = 100_000_000
_U_ITEM_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


def parse_title(text: str) -> tuple[str, int]:
    """Split ``"Title, The (1995)"`` into title and year; the year is 0 when there is none."""
    text = clean_text(text)
    match = _TITLE.match(text)
    return (match["title"], int(match["year"])) if match else (text, 0)


def read_dat(files: dict[str, Path], times: bool = True) -> Interactions:
    """Read ``UserID::MovieID::Rating::Timestamp`` and ``MovieID::Title::Genres`` (latin-1).

    Parameters
    ----------
    files : dict
        ``ratings`` and ``items``.
    times : bool
        Whether the fourth field is Unix time; else it is the position within the user.

    Raises
    ------
    BenchError
        For malformed lines, or a fourth field that is not what the card says.
    """
    rows = _ratings(files["ratings"], "::", times)
    text: dict[str, ItemText] = {}
    for line, fields in _lines(files["items"], "::", 3):
        title, year = parse_title(fields[1])
        _add(text, files["items"], line, fields[0], ItemText(title, year, _genres(fields[2].split("|"))))
    return _with_text(rows, text)


def read_u(files: dict[str, Path], times: bool = True) -> Interactions:
    """Read tab-separated ``u.data`` and ``|``-separated ``u.item`` (latin-1) of MovieLens 100K."""
    rows = _ratings(files["ratings"], "\t", times)
    text: dict[str, ItemText] = {}
    for line, fields in _lines(files["items"], "|", 5 + len(_U_ITEM_GENRES)):
        title, year = parse_title(fields[1])
        released = fields[2][-4:]
        year = year or (int(released) if released.isdigit() else 0)
        genres = [name for name, flag in zip(_U_ITEM_GENRES, fields[5:], strict=True) if flag == "1"]
        _add(text, files["items"], line, fields[0], ItemText(title, year, _genres(genres)))
    return _with_text(rows, text)


def _ratings(path: Path, separator: str, times: bool) -> Interactions:
    data = read_bytes(path)
    if separator == "::":
        if b"\t" in data:
            raise BenchError(f"{path}:{data.count(bytes([10]), 0, data.index(bytes([9]))) + 1}: a tab in a '::' file")
        data = data.replace(b"::", b"\t")
    columns = read_columns(path, data, "\t", ["user", "item", "rating", "time"])
    for what in ("user", "item"):
        refuse_empty(path, columns[what], f"{what} id", 1)
    order = numbers(path, columns["time"], "timestamp", 1)
    if times != bool(order.min() >= _FIRST_SECOND):
        found = "positions within the user, not Unix times" if times else "Unix times, not positions within the user"
        raise BenchError(f"{path}:1: the fourth field holds {found}; this is another variant than its name says")
    ratings = numbers(path, columns["rating"], "rating", 1).astype(np.float32)
    users, user_tokens = encode_tokens(columns["user"])
    items, item_tokens = encode_tokens(columns["item"])
    return Interactions(users, items, user_tokens, item_tokens, order, times, ratings)


def _lines(path: Path, separator: str, width: int):
    text = decode(path, read_bytes(path), "latin-1")
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        fields = line.rstrip("\r").split(separator)
        if len(fields) != width:
            raise BenchError(f"{path}:{number}: {len(fields)} fields instead of {width}")
        yield number, fields


def _genres(names: list[str]) -> tuple[str, ...]:
    return tuple(name for name in map(clean_text, names) if name and name not in _NO_GENRE)


def _add(text: dict[str, ItemText], path: Path, line: int, token: str, item: ItemText) -> None:
    if token in text:
        raise BenchError(f"{path}:{line}: the item {token} appears twice")
    text[token] = item


def _with_text(rows: Interactions, text: dict[str, ItemText]) -> Interactions:
    rows.text.update(text)
    return rows
