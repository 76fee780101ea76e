"""Run records to publish: without what belongs to the owner of the data."""

from __future__ import annotations

import shutil
from pathlib import Path

from recllm_bench.reporting.users_file import drop_targets
from recllm_bench.reporting.verification import verify_record


def share_record(folder: Path, root: Path) -> Path:
    """Copy a record without what belongs to the dataset's owner, so that it may be published.

    Metrics, manifest, recipe, log and per-user ranks stay; target ids and dialogues (which hold titles) do not.

    Parameters
    ----------
    root : Path
        Folder of the copies.

    Returns
    -------
    Path
        The copy, from which tables and paired tests can be made again.

    Raises
    ------
    BenchError
        When the record is not as it was written.
    """
    verify_record(folder)
    copy = Path(root) / Path(folder).name
    copy.mkdir(parents=True, exist_ok=True)
    for name in ("run.json", "recipe.yaml", "log.jsonl"):
        if (Path(folder) / name).exists():
            shutil.copy2(Path(folder) / name, copy / name)  # the time orders the rows
    drop_targets(Path(folder) / "users.parquet", copy / "users.parquet")
    return copy
