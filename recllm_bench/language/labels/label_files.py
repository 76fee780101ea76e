"""Where files of labels and profiles are looked for."""

from __future__ import annotations

from pathlib import Path

from recllm_bench.errors import BenchError
from recllm_bench.locations import data_mirror


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
