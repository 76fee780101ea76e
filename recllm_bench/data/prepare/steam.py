"""Steam: McAuley's reviews and games (Python literals, one a line), and the Australian reviews and libraries.

The Australian files come as published, one user a line with all reviews or games, or flattened, one review or game a
line; both may be Python literals or JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from recllm_bench.data.prepare.corpus import Stream, item_batches, missing, review_batch
from recllm_bench.data.prepare.records import BAD_SHARE, RecordChunk, Records, dates, ids, text
from recllm_bench.data.prepare.textfiles import clean_text

Id = str | int | None
_POSTED = re.compile(r"^(?:Posted\s+)?([A-Z][a-z]+ \d{1,2})(?:, (\d{4}))?\.?$")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")


class Review(msgspec.Struct, gc=False):
    """A line of ``steam_reviews.json``: who is a user name, there is no rating."""

    username: Id = None
    product_id: Id = None
    date: str | None = None
    text: str | None = None


class Game(msgspec.Struct, gc=False):
    """A line of ``steam_games.json``."""

    id: Id = None
    title: Any = None
    app_name: Any = None
    genres: list[Any] | None = None
    tags: list[Any] | None = None
    release_date: Any = None
    developer: Any = None


class AustralianEntry(msgspec.Struct, gc=False):
    """One review, or one game of a library."""

    item_id: Id = None
    posted: str | None = None
    review: str | None = None
    item_name: str | None = None
    user_id: Id = None


class AustralianUser(msgspec.Struct, gc=False):
    """One user with reviews or games; a flattened line has one entry's fields beside the user."""

    user_id: Id = None
    reviews: list[AustralianEntry] | None = None
    items: list[AustralianEntry] | None = None
    item_id: Id = None
    posted: str | None = None
    review: str | None = None
    item_name: str | None = None


def open_steam(files: dict[str, Path], most_bad: float = BAD_SHARE) -> Stream:
    """Open ``steam_reviews.json`` and, when it is there, ``steam_games.json``.

    Parameters
    ----------
    files : dict
        ``reviews``, and optionally ``items`` (games).
    most_bad : float
        Share of lines that may be bad.
    """
    stream = Stream()
    stream.reviews = _reviews(_records(files["reviews"], Review, most_bad), stream)
    _add_games(stream, files, most_bad)
    return stream


def open_australian(
    files: dict[str, Path], most_bad: float = BAD_SHARE, year_of_crawl: int | None = None, times: bool = True
) -> Stream:
    """Open the Australian users' reviews or libraries.

    Steam leaves the year out of the dates of the current year ("Posted May 20."). With ``year_of_crawl`` such dates
    get that year; without it they are unknown, and what has no whole date comes last in a history.

    Parameters
    ----------
    files : dict
        ``reviews`` (reviews or libraries), and optionally ``items`` (games).
    most_bad : float
        Share of lines that may be bad.
    year_of_crawl : int, optional
        Year of the dates without one.
    times : bool
        Whether entries have dates; libraries have none.
    """
    stream = Stream()
    stream.reviews = _australian(_records(files["reviews"], AustralianUser, most_bad), year_of_crawl, times, stream)
    _add_games(stream, files, most_bad)
    return stream


def _records(path: Path, kind: type, most_bad: float) -> Records:
    """Records of a file whose first line tells whether lines are JSON or Python literals."""
    from recllm_bench.data.prepare.lines import stream_lines

    chunks = stream_lines(path, 1 << 16)
    try:
        first = next(chunks).data.lstrip().split(b"\n", 1)[0]
    finally:
        chunks.close()
    try:
        msgspec.json.decode(first)
        literals = False
    except (msgspec.DecodeError, UnicodeDecodeError):
        literals = first.startswith(b"{")
    return Records(path, kind, most_bad, literals=literals)


def _reviews(records: Records, stream: Stream) -> Iterator[pa.RecordBatch]:
    for chunk in records.chunks():
        if batch := _batch(chunk):
            yield batch
    stream.note_lines("reviews", records)


def _batch(chunk: RecordChunk) -> pa.RecordBatch | None:
    while True:
        users = ids(chunk.column(lambda review: review.username))
        items = ids(chunk.column(lambda review: review.product_id))
        times = dates(chunk.column(lambda review: review.date))
        if not chunk.drop(missing(users) | missing(items) | np.isnan(times), _why):
            break
    if not chunk.records:
        return None
    return review_batch(users, items, times, text=text(chunk.column(lambda review: review.text)))


def _why(review: Review) -> str:
    for name in ("username", "product_id"):
        if getattr(review, name) in (None, ""):
            return f"the field {name} is missing"
    return f"the field date is no date like 2001-02-03 ({review.date!r})"


def _australian(records: Records, year_of_crawl: int | None, dated: bool, stream: Stream) -> Iterator[pa.RecordBatch]:
    for chunk in records.chunks():
        wrong = missing(ids(chunk.column(lambda line: line.user_id)))
        chunk.drop(wrong, lambda line: "the field user_id is missing")
        owners, entries = [], []
        for line in chunk.records:
            flat = line.reviews is None and line.items is None
            for entry in [line] if flat else [*(line.reviews or ()), *(line.items or ())]:
                owners.append(line.user_id)
                entries.append(entry)
        items = ids([entry.item_id for entry in entries])
        lost = missing(items)
        if lost.any():
            stream.add("entries without an item", int(lost.sum()))
            kept = np.flatnonzero(~lost).tolist()
            owners, entries = [owners[i] for i in kept], [entries[i] for i in kept]
            items = ids([entry.item_id for entry in entries])
        if not entries:
            continue
        times = None
        if dated:
            times = dates([_whole_date(entry.posted, year_of_crawl) for entry in entries])
            if undated := int(np.isnan(times).sum()):
                stream.add("entries without a whole date", undated)
        wrote = [entry.review for entry in entries]
        yield review_batch(ids(owners), items, times, text=text(wrote))
    stream.note_lines("reviews", records)


def _whole_date(value: str | None, year_of_crawl: int | None) -> str | None:
    """``Posted November 5, 2011.`` as ``2011-11-05``; ISO dates stay; None where the year is unknown."""
    found = _POSTED.match(value.strip()) if value else None
    if not found:
        return value
    year = found[2] or year_of_crawl
    try:
        return datetime.strptime(f"{found[1]} {year}", "%B %d %Y").strftime("%Y-%m-%d") if year else None
    except ValueError:
        return None


def _add_games(stream: Stream, files: dict[str, Path], most_bad: float) -> None:
    if "items" in files:
        stream.items = lambda wanted: _games(_records(files["items"], Game, most_bad), wanted, stream)


def _games(records: Records, wanted: dict[str, bool], stream: Stream) -> Iterator[pa.RecordBatch]:
    def rows() -> Iterator[dict[str, Any]]:
        for chunk in records.chunks():
            for game in chunk.records:
                stream.add("items in the metadata")
                if game.id in (None, ""):
                    stream.add("metadata without an id")
                    continue
                token = str(game.id)
                if stream.is_first(token, wanted):
                    yield _row(token, game)
        stream.note_lines("items", records)

    return item_batches(rows(), extra={"tags": pa.list_(pa.string()), "developer": pa.string()})


def _row(token: str, game: Game) -> dict[str, Any]:
    year = _YEAR.search(str(game.release_date or ""))
    tags = [name for name in map(clean_text, game.tags or ()) if name]
    return {
        "token": token,
        "title": clean_text(game.title) or clean_text(game.app_name),
        "year": int(year[0]) if year else 0,
        "categories": [name for name in map(clean_text, game.genres or ()) if name],
        "description": ", ".join(tags),
        "tags": tags,
        "developer": clean_text(game.developer) or None,
    }
