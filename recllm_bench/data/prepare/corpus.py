"""A corpus of reviews read once: ids as arrays and item text; every filter of the same files shares it.

The reader streams; what stays in memory is a code and two numbers for each review and the distinct ids. What users
wrote is read by a second pass, when somebody asks for it, straight to disk and row by row beside the ids.
"""

from __future__ import annotations

import json
import reprlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from recllm_bench.artifacts import write_atomic, write_json
from recllm_bench.data.columns import TextFile, TextWriter, map_columns, write_columns
from recllm_bench.data.interactions import Interactions
from recllm_bench.data.item_texts import ITEM_COLUMNS, ItemTable
from recllm_bench.data.prepare.bad_lines import Skipped
from recllm_bench.data.prepare.line_records import RecordChunk, Records, dates, ids, missing, ratings
from recllm_bench.errors import BenchError

_ITEMS_AT_ONCE = 2048
_WRITES_AHEAD = 4
_TEXT = ("title", "text")


class ReviewFields(NamedTuple):
    """Names of the fields that make a review; "" where the source has no such field."""

    user: str
    item: str
    time: str
    read_time: Callable[[list], np.ndarray]
    rating: str = ""
    parent: str = ""
    title: str = ""
    text: str = ""


@dataclass
class Stream:
    """What a streaming reader gives.

    Attributes
    ----------
    reviews : iterator of RecordBatch
        In file order; see :func:`read_reviews` and :func:`review_batch`.
    items : callable, optional
        Given the ids wanted (item ids and ids of their products), batches of item text; see :func:`read_items`.
    has_text : bool
        Whether the source has what users wrote.
    facts : Counter
        What the reader noticed, by words for people.
    skipped : list of Skipped
        Bad lines, by file.
    """

    reviews: Iterator[pa.RecordBatch] = field(default_factory=lambda: iter(()))
    items: Callable[[Iterable[str]], Iterator[pa.RecordBatch]] | None = None
    has_text: bool = False
    facts: Counter = field(default_factory=Counter)
    skipped: list[Skipped] = field(default_factory=list)

    def note_lines(self, role: str, records: Records) -> None:
        """Note how many lines a file had, and how many were skipped."""
        self.facts[f"lines in {role}"] += records.lines
        if records.bad.count:
            self.facts[f"lines skipped in {role}"] += records.bad.count
            self.skipped.append(records.bad.skipped(records.lines))


def read_reviews(
    path: Path,
    base: type,
    kind: type,
    fields: ReviewFields,
    with_text: bool,
    most_bad: float,
    stream: Stream,
    literals: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Read one review a record; a record without user, item, possible time or finite rating is a bad line.

    Parameters
    ----------
    base, kind : type
        Records without and with what was written.
    fields : ReviewFields
        Their fields.
    with_text : bool
        Read what was written; the same lines are bad either way.
    most_bad, literals
        As in :class:`Records`.
    stream : Stream
        Where to note what was noticed.
    """
    stream.has_text = True
    records: Records[Any] = (
        Records(path, kind, most_bad, literals, base) if with_text else Records(path, base, most_bad, literals)
    )
    return _read_reviews(records, fields, with_text, stream)


def _read_reviews(records: Records, fields: ReviewFields, with_text: bool, stream: Stream) -> Iterator[pa.RecordBatch]:
    for chunk in records.chunks():
        columns: dict[str, Any] = {
            "user": ids(chunk.column(fields.user)),
            "item": ids(chunk.column(fields.item)),
            "time": fields.read_time(chunk.column(fields.time)),
        }
        if fields.rating:
            columns["rating"] = ratings(chunk.column(fields.rating))
        columns = _without_faults(chunk, columns, fields)
        if fields.parent:  # what is no variant is its own product
            both = zip(chunk.column(fields.parent), columns["item"].to_pylist(), strict=True)
            columns["parent"] = ids([item if parent in (None, "") else parent for parent, item in both])
        for name in _TEXT if with_text else ():
            if getattr(fields, name):
                columns[name] = written(chunk.column(getattr(fields, name)))
        if chunk.records:
            yield review_batch(**columns)
    stream.note_lines("reviews", records)


def _without_faults(chunk: RecordChunk, columns: dict[str, Any], fields: ReviewFields) -> dict[str, Any]:
    faults = {
        name: missing(column) if isinstance(column, pa.Array) else np.isnan(column) for name, column in columns.items()
    }
    wrong = np.logical_or.reduce(list(faults.values()))
    if not wrong.any():
        return columns
    kinds = {"time": "date like 2001-02-03" if fields.read_time is dates else "Unix time", "rating": "finite number"}

    def why(index: int) -> str:
        name = next(name for name, mask in faults.items() if mask[index])
        value = getattr(records[index], getattr(fields, name))
        said = "missing" if value in (None, "") else f"no {kinds[name]} ({reprlib.repr(value)})"
        return f"the field {getattr(fields, name)} is {said}"

    records = chunk.records
    chunk.drop(wrong, why)
    kept = np.flatnonzero(~wrong)
    return {name: column.take(kept) for name, column in columns.items()}


def written(values: list[Any]) -> pa.Array:
    """A column of what users wrote; null where there is nothing, or no text."""
    return pa.array([value if isinstance(value, str) else None for value in values], pa.large_string())


def review_batch(
    user: pa.Array,
    item: pa.Array,
    time: np.ndarray | None = None,
    rating: np.ndarray | None = None,
    parent: pa.Array | None = None,
    title: pa.Array | None = None,
    text: pa.Array | None = None,
) -> pa.RecordBatch:
    """A piece of a corpus in file order.

    Parameters
    ----------
    user, item : string [n]
        The source's ids.
    time : float64 [n], optional
        Unix seconds; NaN where the source gives no whole date.
    rating : float32 [n], optional
    parent : string [n], optional
        The product of which the item is a variant.
    title, text : large_string [n], optional
        The review.
    """
    columns = {
        "user": user,
        "item": item,
        "parent": parent,
        "time": None if time is None else pa.array(time, pa.float64()),
        "rating": None if rating is None else pa.array(rating, pa.float32()),
        "title": title,
        "text": text,
    }
    given = {name: column for name, column in columns.items() if column is not None}
    return pa.RecordBatch.from_arrays(list(given.values()), names=list(given))


def read_items(
    records: Records,
    id_field: str,
    row: Callable[[Any], tuple[Any, ...]],
    wanted: Iterable[str],
    stream: Stream,
    extra: dict[str, pa.DataType] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Read the text of the items wanted; of several entries for an item the first counts.

    Parameters
    ----------
    records : Records
        One item a record.
    id_field : str
        The field with the item's id.
    row : callable
        Of a record what ``ITEM_COLUMNS`` has beside the id, in that order, then the extra columns.
    wanted : iterable of str
        Ids of items.
    stream : Stream
        Where to note what was noticed.
    extra : dict, optional
        Further columns of the source that are kept in the table but make no text.
    """
    schema = pa.schema([*ITEM_COLUMNS, *(extra or {}).items()])
    found = dict.fromkeys(wanted, False)
    held: list[tuple[Any, ...]] = []
    for chunk in records.chunks():
        stream.facts["items in the metadata"] += len(chunk.records)
        for record, token in zip(chunk.records, chunk.column(id_field), strict=True):
            token = "" if token is None else str(token)
            if not token:
                stream.facts["metadata without an id"] += 1
            elif found.get(token):
                stream.facts["items that stand twice in the metadata"] += 1
            elif token in found:
                found[token] = True
                held.append((token, *row(record)))
        if len(held) >= _ITEMS_AT_ONCE:
            yield _item_batch(held, schema)
            held = []
    yield _item_batch(held, schema)
    stream.note_lines("items", records)


def _item_batch(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def write_corpus(folder: Path, stream: Stream) -> None:
    """Read a stream to its end and store it in a folder.

    Raises
    ------
    BenchError
        For unreadable files, too many bad lines, or a stream without reviews.
    """
    for left in folder.iterdir():  # by an attempt that was killed: nothing in it is of use
        left.unlink()
    codes: dict[str, list[pa.Array]] = {"user": [], "item": [], "parent": []}
    numbers: dict[str, list[np.ndarray]] = {"time": [], "rating": []}
    for batch in stream.reviews:
        for name, parts in codes.items():
            if name in batch.schema.names:
                parts.append(batch.column(name).dictionary_encode())
        for name, pieces in numbers.items():
            if name in batch.schema.names:
                pieces.append(batch.column(name).to_numpy())
    if not codes["user"]:
        raise BenchError("the files hold no review; check that they are the ones the card names")
    users, user_tokens = _numbered(codes.pop("user"))
    items, item_tokens = _numbered(codes["item"])
    arrays = {"users": users, "items": items}
    if codes["parent"]:
        parents, item_tokens = _products(items, item_tokens, codes["parent"])
        arrays["parents"] = parents
    codes.clear()
    for name, pieces in numbers.items():
        if pieces:
            arrays[f"{name}s"] = np.concatenate(pieces)
    for name, array in arrays.items():
        write_atomic(folder / f"{name}.npy", partial(np.save, arr=array, allow_pickle=False))
    for name, tokens in (("user_tokens", user_tokens), ("item_tokens", item_tokens)):
        write_atomic(folder / f"{name}.arrow", partial(write_columns, table=pa.table({"token": tokens})))
    if stream.items is not None:
        with closing(TextWriter(folder / "items.parquet")) as items_file:
            for batch in stream.items(item_tokens.to_pylist()):
                items_file.write(batch)
    noticed = dict(sorted(stream.facts.items()))
    write_json(folder / "facts.json", {"noticed": noticed, "has_text": stream.has_text, "skipped": stream.skipped})


def write_reviews(folder: Path, stream: Stream, rows: int) -> None:
    """Read what users wrote into ``reviews.parquet``, a row for each review of the corpus; no file when it is nothing.

    Raises
    ------
    BenchError
        When the files do not have the ``rows`` reviews that the corpus has.
    """
    path = folder / "reviews.parquet"
    path.unlink(missing_ok=True)  # by an attempt that was killed
    found, wrote = 0, False
    with _text_file(path) as write_text:
        for batch in stream.reviews:
            found += len(batch)
            wrote = wrote or any(batch.column(name).null_count < len(batch) for name in _text_names(batch))
            write_text(batch)
    if found != rows:
        raise BenchError(f"the files hold {found:,} reviews, not {rows:,} as before; prepare the dataset again")
    if not wrote:  # the source has the field, but nobody wrote anything
        path.unlink(missing_ok=True)


def open_corpus(folder: Path) -> Interactions:
    """Map a stored corpus; only ids and numbers are read when they are used."""

    def array(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    def perhaps(name: str) -> np.ndarray | None:
        return array(name) if (folder / f"{name}.npy").exists() else None

    users, times, items_file = array("users"), perhaps("times"), folder / "items.parquet"
    tokens = {name: map_columns(folder / f"{name}.arrow")["token"] for name in ("user_tokens", "item_tokens")}
    parents = perhaps("parents")
    texts = ItemTable(TextFile(items_file), tokens["item_tokens"], parents) if items_file.exists() else {}
    # What has no whole date comes after what has one; among themselves file order decides.
    undated = times is not None and bool(np.isnan(times).any())
    order = np.where(np.isnan(times), np.inf, times) if times is not None and undated else times
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return Interactions(
        users=users,
        items=array("items"),
        user_tokens=tokens["user_tokens"],
        item_tokens=tokens["item_tokens"],
        order=order,
        has_times=times is not None and not undated,
        ratings=perhaps("ratings"),
        text=texts,
        parents=parents,
        rows=np.arange(len(users)) if facts["has_text"] else None,
        noticed=facts["noticed"],
        skipped=tuple(Skipped(*file) for file in facts["skipped"]),
    )


def _text_names(batch: pa.RecordBatch) -> list[str]:
    return [name for name in _TEXT if name in batch.schema.names]


@contextmanager
def _text_file(path: Path) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Write the text columns of batches behind the caller's back; no file when there are none."""
    pending: deque[Future] = deque()

    def write(batch: pa.RecordBatch) -> None:
        if names := _text_names(batch):
            pending.append(pool.submit(writer.write, batch.select(names)))
        while len(pending) > _WRITES_AHEAD:
            pending.popleft().result()

    with closing(TextWriter(path)) as writer, ThreadPoolExecutor(1) as pool:
        yield write
        for future in pending:
            future.result()


def _numbered(parts: list[pa.Array]) -> tuple[np.ndarray, pa.Array]:
    """Codes int32 [n] by first appearance, and the distinct tokens."""
    column = pa.chunked_array(parts).unify_dictionaries()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks]).astype(np.int32)
    return codes, column.chunk(0).dictionary


def _products(items: np.ndarray, item_tokens: pa.Array, parts: list[pa.Array]) -> tuple[np.ndarray, pa.Array]:
    """For each item code the code of its product (its first review decides), and the tokens with the products'."""
    codes, tokens = _numbered(parts)
    joined = pa.chunked_array([item_tokens, tokens]).dictionary_encode().unify_dictionaries()
    as_items = np.asarray(joined.chunk(1).indices).astype(np.int32)
    all_tokens = joined.chunk(0).dictionary
    parents = np.arange(len(all_tokens), dtype=np.int32)
    distinct, first = np.unique(items, return_index=True)
    parents[distinct] = as_items[codes[first]]
    return parents, all_tokens
