"""What the commands ``verify`` and ``why`` do: a record against its files, and against the same run made again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recllm_bench.artifacts import ArtifactStore
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


def repeated(folder: Path) -> Iterator[str]:
    """Run the cell of a record again, stages and all, and compare.

    Every stage is trained anew in a folder of its own; prepared data, vectors of texts and answers of chat models come
    from the cache. Nothing is written to the results.

    Parameters
    ----------
    folder : Path
        A record.

    Yields
    ------
    str
        The verdict, then what differs, a line each.

    Raises
    ------
    BenchError
        When the run cannot be made here; at the end, when it does not agree: on the stack of the record (its code,
        libraries, data, threads and machine) a number differs, or elsewhere a mean lies outside the record's interval.
    """
    import tempfile

    from recllm_bench.reporting.dependence import depends_of, difference
    from recllm_bench.reporting.records import read_record
    from recllm_bench.reporting.repetition import agreement, same_machine

    record = read_record(folder)
    with tempfile.TemporaryDirectory(prefix="recllm-verify-") as work:
        again = read_record(_run_again(record, Path(work)))
        changed = difference(depends_of(record), again.depends) if record.depends else ["its record does not say"]
        if not same_machine(record, again):
            changed.append("hardware: another machine or device")
        exact, close, lines = agreement(record, again)
    where = "on the same stack" if not changed else "on another stack"
    if exact:
        yield f"agrees  {folder}: to the bit, {where}"
    else:
        word = "agrees " if close and changed else "differs"
        yield f"{word} {folder}: {'within its intervals' if close else 'beyond its intervals'}, {where}"
    yield from (f"    {line}" for line in lines)
    yield from (f"    stack: {line}" for line in changed)
    if not exact and not (close and changed):
        raise BenchError(f"{folder} was not repeated: its numbers are others when the same run is made again")


def _run_again(record: Any, work: Path) -> Path:
    """The record of the same recipe, made in an empty folder."""
    import os
    from unittest.mock import patch

    from recllm_bench.data.cards import default_store
    from recllm_bench.recipe import Recipe, recipe_from
    from recllm_bench.runner import BenchCell

    known = {field.name for field in dataclasses.fields(Recipe)}
    recipe = recipe_from({key: value for key, value in record.recipe.items() if key in known}, record.name)
    store = _Anew(work / "stages", default_store())
    with patch.dict(os.environ, {"RECLLM_RESULTS": str(work / "results")}):
        cell = BenchCell(recipe, record.name if record.name != record.model_name else "", store)
        cell.check()
        return cell.run()


class _Anew(ArtifactStore):
    """A store whose trained stages are made anew; everything else is the other store's."""

    def __init__(self, root: Path, other: ArtifactStore) -> None:
        super().__init__(root)
        self.other = other

    def _of(self, key: Mapping[str, Any]) -> ArtifactStore:
        return ArtifactStore(self.root) if "stage" in key else self.other

    def path(self, kind: str, key: Mapping[str, Any]) -> Path:
        return self._of(key).path(kind, key)

    def find(self, kind: str, key: Mapping[str, Any]) -> Path | None:
        return self._of(key).find(kind, key)

    def find_named(self, kind: str, name: str) -> Path | None:
        return super().find_named(kind, name) or self.other.find_named(kind, name)

    def build(self, kind: str, key: Mapping[str, Any], make: Callable[[Path], Any]) -> Path:
        return self._of(key).build(kind, key, make)


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
