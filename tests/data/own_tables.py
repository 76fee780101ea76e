"""Small tables of somebody's own for the tests of their odd forms."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

from recllm_bench.data.interactions import Interactions
from recllm_bench.data.prepare import prepare
from recllm_bench.data.prepare.table_files import table_files
from recllm_bench.data.prepare.tables import read_table
from recllm_bench.data.prepared import PreparedDataset

ROWS = [("u1", "b", 4.0, 978300760), ("u2", "a", 5.0, 978300700), ("u1", "a", 3.5, 978300100)]
CSV = "user,item,rating,time\nu1,b,4,978300760\nu2,a,5,978300700\nu1,a,3.5,978300100\n"


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def parquet_table(path: Path, **columns) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


def told(rows: Interactions) -> list[tuple]:
    """User, item, rating and time of each row."""
    ratings = [None] * len(rows) if rows.ratings is None else rows.ratings.tolist()
    times = [None] * len(rows) if rows.order is None else rows.order.tolist()
    return [
        (rows.user_tokens[user], rows.item_tokens[item], rating, time)
        for user, item, rating, time in zip(rows.users, rows.items, ratings, times, strict=True)
    ]


def read(
    folder: Path, content: str | bytes, name: str = "t.csv", items: tuple[str, str | bytes] | None = None, **options
):
    """Interactions of a file, with the items of another beside it."""
    path = write(folder / name, content)
    if items:
        write(folder / items[0], items[1])
    return read_table(table_files(path), **options)


def prepared_by_card(folder: Path, card: str, **files: str | bytes) -> PreparedDataset:
    """A dataset by a card, after writing its files (``t_csv`` is ``t.csv``)."""
    for name, content in files.items():
        write(folder / name.replace("_", "."), content)
    return prepare(str(write(folder / "card.yaml", card)))
