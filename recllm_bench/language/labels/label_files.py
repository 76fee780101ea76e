"""Files of labels by name, whichever of the two known forms they have."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING

from recllm_bench.errors import BenchError
from recllm_bench.language.labels.records import Labels, read_labels
from recllm_bench.locations import data_mirror

if TYPE_CHECKING:
    from recllm_bench.data.prepared import PreparedDataset


def find_label_file(name: str | Path) -> Path:
    """Find a file of labels or profiles, plain or ``.gz``: here, or under the folder ``RECLLM_DATA_MIRROR``.

    Raises
    ------
    BenchError
        When it is in neither place.
    """
    given = Path(name).expanduser()
    mirror = data_mirror()
    folders = [Path()]
    if mirror and "://" not in mirror and not given.is_absolute():
        folders.append(Path(mirror).expanduser())
    bare = given.with_name(given.name.removesuffix(".gz"))
    for folder in folders:
        for path in (given, bare, bare.with_name(f"{bare.name}.gz")):
            if (folder / path).is_file():
                return folder / path
    raise BenchError(f"{given}: no such file of labels, here or under the folder RECLLM_DATA_MIRROR")


def labels_from_file(name: str | Path, dataset: PreparedDataset) -> Labels:
    """Read labels by id (:func:`.read_labels`) or profiles by the source's numbers (:func:`.import_profiles`).

    Which of the two a file holds is seen by its first line: labels have a ``kind``, profiles a ``uid``.

    Raises
    ------
    BenchError
        When the file is neither, and whatever the two readers refuse.
    """
    from recllm_bench.language.labels.profiles import import_profiles

    path = find_label_file(name)
    fields = _first_fields(path)
    if "kind" in fields:
        return read_labels(path, dataset.histories.n_users, dataset.histories.n_items)
    if "uid" in fields:
        return import_profiles(path, dataset)
    raise BenchError(
        f"{path}:1: neither labels (kind, id, version, text) nor profiles (uid, iid, user_summary, item_summary)"
    )


def _first_fields(path: Path) -> set[str]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            line = next((line for line in file if line.strip()), b"")
        entry = json.loads(line)
    except (OSError, EOFError, ValueError):
        return set()
    return set(entry) if isinstance(entry, dict) else set()
