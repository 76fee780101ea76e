"""Amazon reviews as McAuley's lab publishes them: the editions of 2014, 2018 and 2023, with item metadata.

Every field that is used stands in one of the record types below; other fields are passed over.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from recllm_bench.data.prepare.corpus import Stream, item_batches, missing, review_batch
from recllm_bench.data.prepare.records import BAD_SHARE, RecordChunk, Records, floats, ids, seconds, text
from recllm_bench.data.prepare.textfiles import clean_text
from recllm_bench.errors import BenchError

Id = str | int | None
Number = float | int | str | None
# Signs of a scraped page where a title should stand: tags, and the script that fills Amazon's pages.
_SCRAP = re.compile(r"<\s*/?[a-z!]|getTime\(|function\s*\(|var\s+aPage|\{\s*\"", re.IGNORECASE)
_PAGE_TITLE = re.compile(r"id=\"?(?:productTitle|btAsinTitle)\"?[^>]*>([^<]+)<", re.IGNORECASE)
_LONGEST_CATEGORY = 60


class Review(msgspec.Struct, gc=False):
    """A review of the editions 2014 and 2018."""

    reviewerID: Id = None
    asin: Id = None
    overall: Number = None
    unixReviewTime: Number = None
    summary: str | None = None
    reviewText: str | None = None


class Review2023(msgspec.Struct, gc=False):
    """A review of the edition 2023: times in milliseconds, ``parent_asin`` joins the variants of a product."""

    user_id: Id = None
    asin: Id = None
    parent_asin: Id = None
    rating: Number = None
    timestamp: Number = None
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


def open_amazon(files: dict[str, Path], most_bad: float = BAD_SHARE, edition: int = 2018) -> Stream:
    """Open one category of one edition.

    Parameters
    ----------
    files : dict
        ``reviews``, and optionally ``meta``.
    most_bad : float
        Share of lines that may be bad.
    edition : int
        2014, 2018 or 2023; item metadata of 2014 are Python literals.
    """
    if edition not in (2014, 2018, 2023):
        raise BenchError(f"Amazon reviews: there is no edition {edition}; the editions are 2014, 2018 and 2023")
    stream = Stream()
    kind = Review2023 if edition == 2023 else Review
    stream.reviews = _reviews(Records(files["reviews"], kind, most_bad), edition == 2023, stream)
    if "meta" in files:
        stream.items = lambda wanted: _items(
            Records(files["meta"], Item, most_bad, literals=edition == 2014), edition, wanted, stream
        )
    return stream


def _reviews(records: Records, variants: bool, stream: Stream) -> Iterator[pa.RecordBatch]:
    for chunk in records.chunks():
        if batch := _review_batch(chunk, variants):
            yield batch
    stream.note_lines("reviews", records)


def _review_batch(chunk: RecordChunk, variants: bool) -> pa.RecordBatch | None:
    while True:
        if variants:
            users = ids(chunk.column(lambda review: review.user_id))
            times = seconds(chunk.column(lambda review: review.timestamp))
            ratings = floats(chunk.column(lambda review: review.rating))
        else:
            users = ids(chunk.column(lambda review: review.reviewerID))
            times = seconds(chunk.column(lambda review: review.unixReviewTime))
            ratings = floats(chunk.column(lambda review: review.overall))
        items = ids(chunk.column(lambda review: review.asin))
        wrong = missing(users) | missing(items) | np.isnan(times) | ~np.isfinite(ratings)
        if not chunk.drop(wrong, lambda review: _why(review, variants)):
            break
    if not chunk.records:
        return None
    columns: dict[str, Any] = {"user": users, "item": items, "time": times, "rating": ratings}
    if variants:
        columns["parent"] = ids(chunk.column(lambda review: review.parent_asin or review.asin))
        columns["title"] = text(chunk.column(lambda review: review.title))
        columns["text"] = text(chunk.column(lambda review: review.text))
    else:
        columns["title"] = text(chunk.column(lambda review: review.summary))
        columns["text"] = text(chunk.column(lambda review: review.reviewText))
    return review_batch(**columns)


def _why(review: Any, variants: bool) -> str:
    user, time, rating = ("user_id", "timestamp", "rating") if variants else ("reviewerID", "unixReviewTime", "overall")
    for name in (user, "asin"):
        if getattr(review, name) in (None, ""):
            return f"the field {name} is missing"
    if np.isnan(seconds([getattr(review, time)])[0]):
        return f"the field {time} is no Unix time ({getattr(review, time)!r})"
    return f"the field {rating} is no number ({getattr(review, rating)!r})"


def _items(records: Records, edition: int, wanted: dict[str, bool], stream: Stream) -> Iterator[pa.RecordBatch]:
    def rows() -> Iterator[dict[str, Any]]:
        for chunk in records.chunks():
            for item in chunk.records:
                token = item.parent_asin if edition == 2023 else item.asin
                if token in (None, ""):
                    stream.add("metadata without an id")
                    continue
                stream.add("items in the metadata")
                if stream.is_first(str(token), wanted):
                    yield _item_row(str(token), item, edition, stream)
        stream.note_lines("meta", records)

    return item_batches(rows(), extra={"brand": pa.string()})


def _item_row(token: str, item: Item, edition: int, stream: Stream) -> dict[str, Any]:
    title = clean_text(html.unescape(item.title)) if isinstance(item.title, str) else ""
    if _SCRAP.search(title):
        stream.add("titles that are scraps of HTML")
        title = _title_in_scrap(title)
        stream.add("titles recovered from a scrap" if title else "titles lost to a scrap")
    paths = item.categories if edition in (2014, 2023) else item.category
    return {
        "token": token,
        "title": title,
        "year": 0,
        "categories": category_names(paths),
        "description": "\n".join(_paragraphs(item.description)),
        "brand": clean_text(item.store if edition == 2023 else item.brand) or None,
    }


def _title_in_scrap(scrap: str) -> str:
    """The product's title when the scrap of a page holds it, else nothing."""
    found = _PAGE_TITLE.search(scrap)
    return clean_text(html.unescape(found[1])) if found else ""


def category_names(paths: Any) -> list[str]:
    """Names of one or several category paths without their root (the department), each once, scraps left out."""
    if not isinstance(paths, list) or not paths:
        return []
    names = [name for path in (paths if isinstance(paths[0], list) else [paths]) for name in path[1:]]
    clean = [clean_text(html.unescape(name)) for name in names if isinstance(name, str)]
    fit = (name for name in clean if name and len(name) <= _LONGEST_CATEGORY and not _SCRAP.search(name))
    return list(dict.fromkeys(name for name in fit if not name.endswith(".")))


def _paragraphs(value: Any) -> list[str]:
    parts = value if isinstance(value, list) else [value]
    clean = [clean_text(re.sub(r"<[^>]{0,200}>", " ", html.unescape(part))) for part in parts if isinstance(part, str)]
    return [part for part in clean if part]
