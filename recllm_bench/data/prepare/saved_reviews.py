"""Reviews in a folder of the ``datasets`` package: who wrote what about which item, a row for each review."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from recllm_bench.data.prepare.bad_lines import BAD_SHARE
from recllm_bench.data.prepare.column_names import COLUMNS, found_columns, recognise
from recllm_bench.data.prepare.corpus import Stream, review_batch
from recllm_bench.data.prepare.tables import typed_interactions
from recllm_bench.data.saved_folders import ROWS, SavedTable
from recllm_bench.errors import BenchError

REVIEW_COLUMNS = {
    "title": ("title", "review_title", "summary", "headline"),
    "text": ("text", "review_text", "review", "review_body", "body", "content"),
}
"""Common names of what was written; a title counts only beside a text, for else it is the item's."""


def open_saved_reviews(files: dict[str, Path], most_bad: float = BAD_SHARE, with_text: bool = False) -> Stream:
    """Open a saved folder of reviews; columns are recognised by their common names, as those of own tables are.

    Parameters
    ----------
    files : dict
        Of :func:`recllm_bench.data.saved_folders.saved_files`.
    most_bad : float
        Not needed: as in every own table no row may be bad.
    with_text : bool
        Give what was written, instead of who wrote when about what.

    Raises
    ------
    BenchError
        For a missing column, and for an id, time or rating that is none, with its row.
    """
    folder = files["table"].parent
    table = SavedTable(folder)
    text = found_columns(table.columns, REVIEW_COLUMNS, {})
    stream = Stream(has_text="text" in text)
    stream.reviews = _written(table, text) if with_text else _told(table)
    return stream


def _told(table: SavedTable) -> Iterator[pa.RecordBatch]:
    names = list(recognise(table.folder, table.columns, COLUMNS, ("user", "item")).values())
    if not len(table):
        raise BenchError(f"{table.folder}: the folder has no rows")
    whole = pa.concat_tables(table.batches(names))
    rows = typed_interactions(table.folder, {name: whole[name].combine_chunks() for name in names})
    if rows.order is not None and not rows.has_times:
        raise BenchError(f"{table.folder}: {rows.notes[0]}; save Unix times, or sort the rows and leave the column out")
    users, items = pa.array(rows.user_tokens, pa.string()), pa.array(rows.item_tokens, pa.string())
    for start in range(0, len(rows), ROWS):
        part = slice(start, start + ROWS)
        yield review_batch(
            user=users.take(pa.array(rows.users[part])),
            item=items.take(pa.array(rows.items[part])),
            time=None if rows.order is None else rows.order[part],
            rating=None if rows.ratings is None else rows.ratings[part],
        )


def _written(table: SavedTable, text: dict[str, str]) -> Iterator[pa.RecordBatch]:
    for batch in table.batches(list(text.values())):
        columns = [batch[name].combine_chunks().cast(pa.large_string()) for name in text.values()]
        yield pa.RecordBatch.from_arrays(columns, names=list(text))
