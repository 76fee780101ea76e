"""The Yelp Open Dataset: one JSON object a line, reviews and businesses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from recllm_bench.data.prepare.bad_lines import BAD_SHARE
from recllm_bench.data.prepare.corpus import ReviewFields, Stream, read_items, read_reviews
from recllm_bench.data.prepare.line_records import Records, dates, ratings
from recllm_bench.data.prepare.values import clean_text


class Review(msgspec.Struct, gc=False):
    """A line of ``yelp_academic_dataset_review.json``; dates such as ``2014-02-05 20:30:30`` or ``2014-02-05``."""

    user_id: str | int | None = None
    business_id: str | int | None = None
    stars: float | int | str | None = None
    date: str | None = None


class WrittenReview(Review, gc=False):
    """The same with what was written."""

    text: str | None = None


class Business(msgspec.Struct, gc=False):
    """A line of ``yelp_academic_dataset_business.json``; categories are one string, in some rounds a list."""

    business_id: str | int | None = None
    name: str | None = None
    city: str | None = None
    state: str | None = None
    stars: float | int | str | None = None
    categories: str | list[str] | None = None


def open_yelp(files: dict[str, Path], most_bad: float = BAD_SHARE, with_text: bool = False) -> Stream:
    """Open ``reviews`` and, when they are there, ``items`` (businesses); the rest as for :func:`.read_reviews`."""
    stream = Stream()
    fields = ReviewFields("user_id", "business_id", "date", dates, rating="stars", text="text")
    stream.reviews = read_reviews(files["reviews"], Review, WrittenReview, fields, with_text, most_bad, stream)
    if "items" in files:
        extra = {"city": pa.string(), "state": pa.string(), "stars": pa.float32()}
        stream.items = lambda wanted: read_items(
            Records(files["items"], Business, most_bad), "business_id", _row, wanted, stream, extra
        )
    return stream


def _row(business: Business) -> tuple[Any, ...]:
    names = business.categories.split(",") if isinstance(business.categories, str) else business.categories or []
    city, state = clean_text(business.city), clean_text(business.state)
    stars = float(ratings([business.stars])[0])
    # The average of the stars stays out of the text: it knows the reviews that are to be predicted.
    place = ", ".join(part for part in (city, state) if part)
    categories = [name for name in map(clean_text, names) if name]
    average = None if math.isnan(stars) else stars
    return clean_text(business.name), 0, categories, place, None, None, city or None, state or None, average
