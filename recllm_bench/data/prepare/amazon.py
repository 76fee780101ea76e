"""Amazon reviews as McAuley's lab publishes them: the editions of 2014, 2018 and 2023, with item metadata.

Every field that is used stands in one of the record types below; other fields are passed over.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from recllm_bench.data.prepare.bad_lines import BAD_SHARE
from recllm_bench.data.prepare.corpus import ReviewFields, Stream, read_items, read_reviews
from recllm_bench.data.prepare.line_records import Records, seconds
from recllm_bench.data.prepare.prices import price_of
from recllm_bench.data.prepare.values import clean_text
from recllm_bench.errors import BenchError

Id = str | int | None
Number = float | int | str | None
# Signs of a scraped page where a title should stand: tags, and the script that fills Amazon's pages.
_SCRAP = re.compile(r"<\s*/?[a-z!]|getTime\(|function\s*\(|var\s+aPage|\{\s*\"", re.IGNORECASE)
_PAGE_TITLE = re.compile(r"id=\"?(?:productTitle|btAsinTitle)\"?[^>]*>([^<]+)<", re.IGNORECASE)
_TAG = re.compile(r"</?[a-z!][^<>]{0,200}>", re.IGNORECASE)
_LONGEST_CATEGORY, _LONGEST_BRAND = 60, 60
_BY = re.compile(r"^(?:by|visit the|brand:)\s+", re.IGNORECASE)


class Review(msgspec.Struct, gc=False):
    """A review of the editions 2014 and 2018."""

    reviewerID: Id = None
    asin: Id = None
    overall: Number = None
    unixReviewTime: Number = None


class WrittenReview(Review, gc=False):
    """The same with what was written."""

    summary: str | None = None
    reviewText: str | None = None


class Review2023(msgspec.Struct, gc=False):
    """A review of the edition 2023: times in milliseconds, ``parent_asin`` joins the variants of a product."""

    user_id: Id = None
    asin: Id = None
    parent_asin: Id = None
    rating: Number = None
    timestamp: Number = None


class WrittenReview2023(Review2023, gc=False):
    """The same with what was written."""

    title: str | None = None
    text: str | None = None


class Item(msgspec.Struct, gc=False):
    """An item of any edition."""

    asin: Id = None
    parent_asin: Id = None
    title: Any = None
    category: Any = None
    categories: Any = None
    description: Any = None
    brand: Any = None
    store: Any = None
    price: Any = None


_FIELDS = ReviewFields(
    "reviewerID", "asin", "unixReviewTime", seconds, rating="overall", title="summary", text="reviewText"
)
_FIELDS_2023 = ReviewFields(
    "user_id", "asin", "timestamp", seconds, rating="rating", parent="parent_asin", title="title", text="text"
)


def open_amazon(
    files: dict[str, Path], most_bad: float = BAD_SHARE, with_text: bool = False, edition: int = 2018
) -> Stream:
    """Open one category of one edition.

    Parameters
    ----------
    files : dict
        ``reviews``, and optionally ``meta``.
    most_bad, with_text
        As for :func:`.read_reviews`.
    edition : int
        2014, 2018 or 2023; item metadata of 2014 are Python literals.
    """
    if edition not in (2014, 2018, 2023):
        raise BenchError(f"Amazon reviews: there is no edition {edition}; the editions are 2014, 2018 and 2023")
    stream = Stream()
    base, kind, fields = (
        (Review2023, WrittenReview2023, _FIELDS_2023) if edition == 2023 else (Review, WrittenReview, _FIELDS)
    )
    stream.reviews = read_reviews(files["reviews"], base, kind, fields, with_text, most_bad, stream)
    if "meta" in files:
        stream.items = lambda wanted: read_items(
            Records(files["meta"], Item, most_bad, literals=edition == 2014),
            "parent_asin" if edition == 2023 else "asin",
            lambda item: _item_row(item, edition, stream),
            wanted,
            stream,
        )
    return stream


def _item_row(item: Item, edition: int, stream: Stream) -> tuple[Any, ...]:
    categories = category_names(item.category if edition == 2018 else item.categories)
    maker = item.store if edition == 2023 else item.brand
    brand = clean_text(html.unescape(maker)) if isinstance(maker, str) else ""
    brand = "" if len(brand) > _LONGEST_BRAND or _SCRAP.search(brand) else _BY.sub("", brand)
    description = "\n".join(_paragraphs(item.description))
    return _title(item.title, stream), 0, categories, description, brand or None, price_of(item.price)


def _title(raw: Any, stream: Stream) -> str:
    title = clean_text(html.unescape(raw)) if isinstance(raw, str) else ""
    if not _SCRAP.search(title):
        return title
    stream.facts["titles that are scraps of HTML"] += 1
    found = _PAGE_TITLE.search(raw)
    title = clean_text(html.unescape(found[1])) if found else ""
    stream.facts["titles recovered from a scrap" if title else "titles lost to a scrap"] += 1
    return title


def category_names(paths: Any) -> list[str]:
    """Names of one or several category paths without their root (the department), each once, scraps left out."""
    if not isinstance(paths, list):
        return []
    nested = [path for path in paths if isinstance(path, list)]
    return _names_of(tuple(name for path in nested or [paths] for name in path[1:] if isinstance(name, str)))


@lru_cache(maxsize=1 << 16)  # a few thousand paths stand with millions of items
def _names_of(names: tuple[str, ...]) -> list[str]:
    clean = [clean_text(html.unescape(name)) for name in names]
    fit = (name for name in clean if name and len(name) <= _LONGEST_CATEGORY and not _SCRAP.search(name))
    return list(dict.fromkeys(name for name in fit if not name.endswith(".")))


def _paragraphs(value: Any) -> list[str]:
    parts = value if isinstance(value, list) else [value]
    plain = (html.unescape(part) for part in parts if isinstance(part, str))
    clean = (clean_text(_TAG.sub(" ", part) if "<" in part else part) for part in plain)
    return [part for part in clean if part]
