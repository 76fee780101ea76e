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

from recllm_bench.data.prepare.bad_lines import BAD_SHARE
from recllm_bench.data.prepare.corpus import ReviewFields, Stream, read_items, read_reviews, review_batch, written
from recllm_bench.data.prepare.line_records import Records, dates, ids, missing
from recllm_bench.data.prepare.prices import price_of
from recllm_bench.data.prepare.values import clean_text

Id = str | int | None
_POSTED = re.compile(r"^(?:Posted\s+)?([A-Z][a-z]+ \d{1,2})(?:, (\d{4}))?\.?$")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")


class Review(msgspec.Struct, gc=False):
    """A line of ``steam_reviews.json``: who is a user name, there is no rating."""

    username: Id = None
    product_id: Id = None
    date: str | None = None


class WrittenReview(Review, gc=False):
    """The same with what was written."""

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
    price: Any = None


class AustralianEntry(msgspec.Struct, gc=False):
    """One review, or one game of a library."""

    item_id: Id = None
    posted: str | None = None
    review: Any = None


class AustralianUser(AustralianEntry, gc=False):
    """One user with reviews or games; a flattened line has one entry's fields beside the user."""

    user_id: Id = None
    reviews: list[AustralianEntry] | None = None
    items: list[AustralianEntry] | None = None


def open_steam(files: dict[str, Path], most_bad: float = BAD_SHARE, with_text: bool = False) -> Stream:
    """Open ``steam_reviews.json`` and, when it is there, ``steam_games.json``.

    ``files`` has ``reviews``, and optionally ``items`` (games). ``most_bad, with_text`` as for :func:`.read_reviews`.
    """
    stream = Stream()
    fields = ReviewFields("username", "product_id", "date", dates, text="text")
    stream.reviews = read_reviews(
        files["reviews"], Review, WrittenReview, fields, with_text, most_bad, stream, literals=True
    )
    _add_games(stream, files, most_bad)
    return stream


def open_australian(
    files: dict[str, Path],
    most_bad: float = BAD_SHARE,
    with_text: bool = False,
    year_of_crawl: int | None = None,
    times: bool = True,
) -> Stream:
    """Open the Australian users' reviews or libraries.

    Steam leaves the year out of the dates of the current year ("Posted May 20."). With ``year_of_crawl`` such dates
    get that year; without it they are unknown, and what has no whole date comes last in a history.

    Parameters
    ----------
    files : dict
        ``reviews`` (reviews or libraries), and optionally ``items`` (games).
    most_bad, with_text
        As for :func:`.read_reviews`.
    year_of_crawl : int, optional
        Year of the dates without one.
    times : bool
        Whether entries have dates; libraries have none.
    """
    stream = Stream(has_text=True)
    records = Records(files["reviews"], AustralianUser, most_bad, literals=True)
    stream.reviews = _australian(records, with_text, year_of_crawl, times, stream)
    _add_games(stream, files, most_bad)
    return stream


def _australian(
    records: Records, with_text: bool, year_of_crawl: int | None, dated: bool, stream: Stream
) -> Iterator[pa.RecordBatch]:
    for chunk in records.chunks():
        chunk.drop(missing(ids(chunk.column("user_id"))), lambda _: "the field user_id is missing")
        owners, entries = [], []
        for line in chunk.records:
            flat = line.reviews is None and line.items is None
            for entry in [line] if flat else [*(line.reviews or ()), *(line.items or ())]:
                if entry.item_id in (None, ""):
                    stream.facts["entries without an item"] += 1
                else:
                    owners.append(line.user_id)
                    entries.append(entry)
        times = None
        if dated:
            times = dates([_whole_date(entry.posted, year_of_crawl) for entry in entries])
            if undated := int(np.isnan(times).sum()):
                stream.facts["entries without a whole date"] += undated
        if entries:
            wrote = written([entry.review for entry in entries]) if with_text else None
            yield review_batch(ids(owners), ids([entry.item_id for entry in entries]), times, text=wrote)
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
        extra = {"tags": pa.list_(pa.string())}
        stream.items = lambda wanted: read_items(
            Records(files["items"], Game, most_bad, literals=True), "id", _row, wanted, stream, extra
        )


def _row(game: Game) -> tuple[Any, ...]:
    year = _YEAR.search(str(game.release_date or ""))
    tags = [name for name in map(clean_text, game.tags or ()) if name]
    genres = [name for name in map(clean_text, game.genres or ()) if name]
    title = clean_text(game.title) or clean_text(game.app_name)
    maker, price = clean_text(game.developer) or None, price_of(game.price)
    return title, int(year[0]) if year else 0, genres, ", ".join(tags), maker, price, tags
