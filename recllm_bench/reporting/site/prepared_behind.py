"""Prepared data behind a record, where it lies in the cache: nothing is prepared or fetched for a page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from recllm_bench.data.cards import default_store
from recllm_bench.errors import BenchError
from recllm_bench.reporting.records import RunRecord

if TYPE_CHECKING:
    import numpy as np

    from recllm_bench.data.prepared import PreparedDataset
    from recllm_bench.data.splits import Split


def prepared_of(record: RunRecord) -> PreparedDataset | None:
    """The very data that a record was made on (by checksum); None where the cache lacks them."""
    from recllm_bench.data.storage import load_prepared

    store = default_store()
    for path in sorted((store.root / "dataset").glob("*/facts.json")):
        try:
            known = json.loads(path.read_text(encoding="utf-8")).get("checksum")
        except (OSError, ValueError, AttributeError):
            continue
        if known and known == record.dataset.get("checksum"):
            folder = store.find_named("dataset", path.parent.name)
            if folder is not None:
                return load_prepared(folder, str(record.dataset["name"]), str(record.dataset["filter"]), {})
    return None


def split_of(record: RunRecord, prepared: PreparedDataset) -> Split | None:
    """The record's split of them; None where the rule now parts them otherwise."""
    from recllm_bench.data.splits import split_named

    try:
        params = dict(record.protocol.get("split_params") or ())
        split = split_named(str(record.protocol["split"]), prepared.histories, **params)
    except BenchError:
        return None
    return split if split.checksum == record.split.get("checksum") else None


def training_counts(record: RunRecord) -> np.ndarray | None:
    """Training interactions of each item, int64 [n_items + 1]; None without the data in the cache."""
    from recllm_bench.evaluation.own_metrics import training_popularity

    prepared = prepared_of(record)
    split = split_of(record, prepared) if prepared is not None else None
    return None if split is None else training_popularity(split)
