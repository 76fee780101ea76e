"""The Yelp Open Dataset: one JSON object a line, reviews and businesses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from recllm_bench.data.prepare.corpus import Stream, item_batches, missing, review_batch
from recllm_bench.data.prepare.records import BAD_SHARE, RecordChunk, Records, dates, floats, ids, text
from recllm_bench.data.prepare.textfiles import clean_text


class Review(msgspec.Struct, gc=False):
    """A line of ``yelp_academic_dataset_review.json``; dates such as ``2014-02-05 20:30:30`` or ``2014-02-05``."""

    user_id: str | int | None = None
    business_id: str | int | None = None
    stars: float | int | str | None = None
    date: str | None = None
    text: str | None = None


class Business(msgspec.Struct, gc=False):
    """A line of ``yelp_academic_dataset_business.json``; categories are one string, in some rounds a list."""

    business_id: str | int | None = None
    name: str | None = None
    city: str | None = None
    state: str | None = None
    stars: float | int | str | None = None
    categories: str | list[str] | None = None


def open_yelp(files: dict[str, Path], most_bad: float = BAD_SHARE) -> Stream:
    """Open the reviews, and the businesses when they are there.

    Parameters
    ----------
    files : dict
        ``reviews``, and optionally ``items`` (businesses).
    most_bad : float
        Share of lines that may be bad.
    """
    stream = Stream()
    stream.reviews = _reviews(Records(files["reviews"], Review, most_bad), stream)
    if "items" in files:
        stream.items = lambda wanted: _businesses(Records(files["items"], Business, most_bad), wanted, stream)
    return stream


def _reviews(records: Records, stream: Stream) -> Iterator[pa.RecordBatch]:
    for chunk in records.chunks():
        if batch := _batch(chunk):
            yield batch
    stream.note_lines("reviews", records)


def _batch(chunk: RecordChunk) -> pa.RecordBatch | None:
    while True:
        users = ids(chunk.column(lambda review: review.user_id))
        items = ids(chunk.column(lambda review: review.business_id))
        times = dates(chunk.column(lambda review: review.date))
        ratings = floats(chunk.column(lambda review: review.stars))
        wrong = missing(users) | missing(items) | np.isnan(times) | ~np.isfinite(ratings)
        if not chunk.drop(wrong, _why):
            break
    if not chunk.records:
        return None
    return review_batch(users, items, times, ratings, text=text(chunk.column(lambda review: review.text)))


def _why(review: Review) -> str:
    for name in ("user_id", "business_id"):
        if getattr(review, name) in (None, ""):
            return f"the field {name} is missing"
    if np.isnan(dates([review.date])[0]):
        return f"the field date is no date like 2001-02-03 ({review.date!r})"
    return f"the field stars is no number ({review.stars!r})"


def _businesses(records: Records, wanted: dict[str, bool], stream: Stream) -> Iterator[pa.RecordBatch]:
    def rows() -> Iterator[dict[str, Any]]:
        for chunk in records.chunks():
            for business in chunk.records:
                if business.business_id in (None, ""):
                    stream.add("metadata without an id")
                    continue
                stream.add("items in the metadata")
                token = str(business.business_id)
                if stream.is_first(token, wanted):
                    yield _row(token, business)
        stream.note_lines("items", records)

    return item_batches(rows(), extra={"city": pa.string(), "state": pa.string(), "stars": pa.float32()})


def _row(token: str, business: Business) -> dict[str, Any]:
    names = business.categories.split(",") if isinstance(business.categories, str) else business.categories or []
    city, state = clean_text(business.city), clean_text(business.state)
    stars = floats([business.stars])[0]
    return {
        "token": token,
        "title": clean_text(business.name),
        "year": 0,
        "categories": [name for name in map(clean_text, names) if name],
        # The average of the stars stays out of the text: it knows the reviews that are to be predicted.
        "description": ", ".join(part for part in (city, state) if part),
        "city": city or None,
        "state": state or None,
        "stars": None if np.isnan(stars) else float(stars),
    }
