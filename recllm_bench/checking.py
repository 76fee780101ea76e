"""What the commands ``verify`` and ``why`` do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recllm_bench.errors import BenchError, nearest
from recllm_bench.locations import cache_folder, results_folder

if TYPE_CHECKING:
    from recllm_bench.reporting.record import RunRecord


def check_cache(repair: bool = False) -> Iterator[str]:
    """Compare every product in the cache with its checksums.

    Parameters
    ----------
    repair : bool
        Set the damaged ones aside; what needs them makes them again.

    Yields
    ------
    str
        A line for each damaged product, then one for the whole.

    Raises
    ------
    BenchError
        At the end, when products are damaged and were left.
    """
    from recllm_bench.artifacts import ArtifactStore

    store = ArtifactStore(cache_folder() / "artifacts")
    total, damaged = len(store.products()), 0
    for finding in store.examine(repair=repair):
        damaged += 1
        aside = f"; set aside as {finding.moved_to.name}" if finding.moved_to else ""
        yield f"{finding.folder}: {finding.reason}{aside}"
    earlier = [path for path in store.root.glob("*/*.damaged-*") if path.is_dir()] if store.root.is_dir() else []
    if earlier:
        size = sum(file.stat().st_size for path in earlier for file in path.rglob("*") if file.is_file())
        yield f"{len(earlier)} set aside in {store.root} hold {size / 2**20:,.1f} MiB; remove */*.damaged-* to free it"
    if damaged and not repair:
        raise BenchError(
            f"{damaged} of {total} products in {store.root} cannot be used; 'recllm-bench verify --cache --repair' "
            "sets them aside, and what needs them makes them again"
        )
    yield f"{total - damaged} of {total} products in {store.root} are whole"


def check_records(folders: Sequence[Path]) -> Iterator[str]:
    """Check run records against their own files.

    Parameters
    ----------
    folders : sequence of Path
        Records, or folders of records; by default those of the results folder.

    Yields
    ------
    str
        For each record what was compared, or what is wrong.

    Raises
    ------
    BenchError
        When there is no record, and at the end when some are not whole.
    """
    from recllm_bench.reporting.verification import verify_record

    records, bad = record_folders(folders), 0
    for folder in records:
        try:
            yield "\n    ".join([f"whole  {folder}", *verify_record(folder)])
        except BenchError as error:
            bad += 1
            yield f"bad    {folder}\n    {error}"
    if bad:
        raise BenchError(
            f"{bad} of {len(records)} records are not whole; 'recllm-bench run' with the same recipe mends them"
        )


def record_folders(folders: Sequence[Path]) -> list[Path]:
    """Records among and below some folders.

    Raises
    ------
    BenchError
        When a folder holds none.
    """
    from recllm_bench.reporting.records import find_records

    found: list[Path] = []
    for folder in folders or [results_folder() / "runs"]:
        below = [folder] if (folder / "run.json").exists() else find_records(folder)
        if not below:
            raise BenchError(f"{folder} holds no run record; make one with 'recllm-bench run'")
        found += below
    return list(dict.fromkeys(found))


def record_named(name: str) -> RunRecord:
    """A record by its folder, or by the beginning of its name among the results.

    Raises
    ------
    BenchError
        When there is none, or there are several.
    """
    from recllm_bench.reporting.records import read_record

    root = results_folder() / "runs"
    if (Path(name) / "run.json").exists():
        return read_record(Path(name))
    known = sorted(path.parent for path in root.glob("*/run.json") if not path.parent.name.startswith("."))
    found = [folder for folder in known if name and folder.name.startswith(name)]
    if len(found) == 1:
        return read_record(found[0])
    if found:
        some = ", ".join(folder.name for folder in found[:6])
        raise BenchError(f"{len(found)} run records begin with '{name}': {some}; write more of the name")
    raise BenchError(f"no run record '{name}'.{nearest(name, [folder.name for folder in known])}")
