"""Reviews of a prepared dataset as a folder of the ``datasets`` package, for other programs and for this one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from recllm_bench.data.saved_folders import ROWS, save_tables
from recllm_bench.errors import BenchError

if TYPE_CHECKING:
    from recllm_bench.data.prepared import PreparedDataset


def save_reviews(folder: Path, dataset: PreparedDataset) -> Path:
    """Write all reviews of a dataset; see :meth:`recllm_bench.python.datasets.Dataset.save_reviews`."""
    if dataset.reviews() is None:
        raise BenchError(
            f"{dataset.name} has no reviews to save; 'recllm-bench describe {dataset.name}' says what it has"
        )
    save_tables(folder, _tables(dataset), f"Reviews of {dataset.name}, filter {dataset.filter}.")
    return folder


def _tables(dataset: PreparedDataset) -> Iterator[pa.Table]:
    histories, reviews = dataset.histories, dataset.reviews()
    assert reviews is not None
    owners = histories.users_of_positions()
    users, items = (pa.array(list(tokens), pa.string()) for tokens in (dataset.user_tokens, dataset.catalogue.tokens))
    for start in range(0, len(owners), ROWS):
        at = np.arange(start, min(start + ROWS, len(owners)))
        columns = {"user_id": users.take(pa.array(owners[at])), "item_id": items.take(pa.array(histories.items[at]))}
        for name, values in (("timestamp", histories.times), ("rating", histories.ratings)):
            if values is not None:
                columns[name] = pa.array(values[at])
        yield pa.table(columns | reviews.columns(at))
