"""Files and folders of labels by name, whichever of the known forms they have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recllm_bench.errors import BenchError
from recllm_bench.language.json_lines import read_lines
from recllm_bench.language.labels.label_folders import open_labels
from recllm_bench.language.labels.label_records import Labels, find_label_file, labels_hash, read_labels
from recllm_bench.language.labels.profiles import import_profiles

if TYPE_CHECKING:
    from recllm_bench.data.prepared import PreparedDataset

__all__ = ["find_label_file", "labels_from_file", "labels_hash"]


def labels_from_file(name: str | Path, dataset: PreparedDataset) -> Labels:
    """Read labels by id (:func:`.read_labels`) or profiles by the source's numbers (:func:`.import_profiles`).

    A folder of the ``datasets`` package holds labels (:func:`.open_labels`). Which of the two a file holds is seen by
    its first line: labels have a ``kind``, profiles a ``uid``.

    Raises
    ------
    BenchError
        When the file is neither, and whatever the two readers refuse.
    """
    path = find_label_file(name)
    if path.is_dir():
        return open_labels(path, dataset.histories.n_users, dataset.histories.n_items)
    try:
        fields = set(next(read_lines(path, "label"), ("", {}))[1])
    except BenchError:
        fields = set()
    if "kind" in fields:
        return read_labels(path, dataset.histories.n_users, dataset.histories.n_items)
    if "uid" in fields:
        return import_profiles(path, dataset)
    raise BenchError(
        f"{path}:1: neither labels (kind, id, version, text) nor profiles (uid, iid, user_summary, item_summary)"
    )
