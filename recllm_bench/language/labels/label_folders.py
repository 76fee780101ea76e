"""Labels as a folder of the ``datasets`` package: the same fields as in a file of labels, a row for each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from recllm_bench.data.saved_folders import SavedTable, save_tables
from recllm_bench.language.labels.label_records import Labels, label_rows, labels_of_rows

_SCHEMA = pa.schema(
    {"kind": "string", "id": "int64", "stage": "int64", "version": "int64", "text": "string", "model": "string",
     "prompt_hash": "string"}.items()
)  # fmt: skip


def save_labels(folder: Path, labels: Labels) -> None:
    """Write labels as a new folder that ``datasets.load_from_disk`` opens; :func:`open_labels` gives them back.

    Source, scope and counts stand in its description, as JSON.

    Raises
    ------
    BenchError
        When the folder is there already, or ``datasets`` is not installed.
    """
    about = {"source": labels.source, "scope": labels.scope, "counts": labels.counts}
    rows = [asdict(label) for label in label_rows(labels)]
    save_tables(Path(folder), [pa.Table.from_pylist(rows, _SCHEMA)], json.dumps(about, ensure_ascii=False))


def open_labels(folder: Path, n_users: int, n_items: int) -> Labels:
    """Read labels that :func:`save_labels` or another program wrote; see :func:`.read_labels` for what is refused."""
    table = SavedTable(folder)
    try:
        about = json.loads(table.about)
    except ValueError:  # somebody else's description
        about = {}

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        number = 0
        for batch in table.batches(table.columns):
            for entry in batch.to_pylist():
                number += 1
                yield f"{folder}:{number}", {name: value for name, value in entry.items() if value is not None}

    return labels_of_rows(rows(), n_users, n_items, folder.name, about if isinstance(about, dict) else {})
