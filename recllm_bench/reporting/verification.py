"""Whether a record is whole: ``run.json`` against its seal and types, and its numbers against ``users.parquet``.

Tables check each record once; that it was whole is remembered beside the records (``.checked.json``) by size and time
of its two files. The command ``verify`` checks without that memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recllm_bench.api.modules import load_modules
from recllm_bench.artifacts import write_json
from recllm_bench.errors import BenchError
from recllm_bench.progress import log
from recllm_bench.reporting.record_values import is_sealed
from recllm_bench.reporting.records import RunRecord, read_record

if TYPE_CHECKING:
    import numpy as np

_CHECKED = ".checked.json"
_VERSION = 1
_FILES = ("run.json", "users.parquet")
_TOLERANCE = 1e-9  # of sums in another order


def verify_record(folder: Path) -> list[str]:
    """Check a record against its own files.

    Returns
    -------
    list of str
        What was compared, a line each.

    Raises
    ------
    BenchError
        Naming the first thing that is not as it was written.
    """
    from recllm_bench.reporting.users_file import dialogue_outcomes, read_ranks

    folder = Path(folder)
    record = _with_modules(read_record(folder))
    ranks = read_ranks(record)  # compares users.parquet with users_hash
    done = ["run.json: as it was written"]
    if not is_sealed(folder / "run.json"):
        done = ["run.json: of an earlier version, without a seal; only its numbers can be compared"]
    hashed = f"hash {record.users_hash}" if ranks.targets.any() else "no target ids (shared), so no hash to compare"
    done.append(f"users.parquet: {len(ranks.users):,} cases, {hashed}")
    names = _compare_metrics(record, ranks)
    done.append(f"metrics computed again and equal: {', '.join(names)}")
    if record.dialogue:
        _, turns = dialogue_outcomes(record)
        names = _compare_dialogue(record, turns)
        done.append(f"dialogue metrics computed again and equal: {', '.join(names)}")
    return done


def whole_records(folders: Iterable[Path]) -> list[RunRecord]:
    """Read records; each bad one is named in one warning and left out."""
    memories: dict[Path, _Memory] = {}
    records = []
    for folder in folders:
        memory = memories.setdefault(folder.parent, _Memory(folder.parent))
        try:
            records.append(_read_whole(folder, memory))
        except BenchError as error:
            log.warning(f"left out: {error}")
    for memory in memories.values():
        memory.save()
    return records


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a whole record; one that is damaged is named in the log, to be made again."""
    if not Path(folder).exists():
        return False
    try:
        memory = _Memory(Path(folder).parent)
        _read_whole(folder, memory)
        memory.save()
        return True
    except BenchError as error:
        log.warning(f"the record {Path(folder).name} is made again: {error}")
        return False


def _read_whole(folder: Path, memory: _Memory) -> RunRecord:
    if memory.knows(folder):
        return _with_modules(read_record(folder))
    verify_record(folder)
    memory.add(folder)
    return read_record(folder)


def _with_modules(record: RunRecord) -> RunRecord:
    """The record, once the files of the user's own that its recipe names are loaded: its metrics may be theirs."""
    try:
        load_modules(record.recipe.get("modules") or (), f"{record.folder}: modules")
    except BenchError as error:
        log.warning(f"{error}; what it defines is unknown here")
    return record


def _compare_metrics(record: RunRecord, ranks: Any) -> list[str]:
    from recllm_bench.evaluation.metrics import per_user

    names = []
    for metric, kept in record.metrics.items():
        try:
            found = per_user(ranks, [metric], (), record.protocol.get("ties", "expected"), warn=False)[metric]
        except (BenchError, KeyError):
            continue  # a plug-in's metric, and the plug-in is not here
        _compare(record, metric, kept, found)
        names.append(metric)
    if record.metrics and not names:
        log.warning(f"{record.folder}: none of its metrics is known here, so none was compared")
    cases = record.cases.get("cases")
    if cases is not None and cases != len(ranks.users):
        raise BenchError(f"{record.folder}: run.json speaks of {cases:,} cases, users.parquet has {len(ranks.users):,}")
    return names


def _compare_dialogue(record: RunRecord, turns: np.ndarray) -> list[str]:
    from recllm_bench.evaluation.dialogue_outcomes import INVALID, dialogue_values

    at_failure = record.protocol.get("at_failure", "max_turns")
    values = dialogue_values(turns, int(record.protocol.get("turns") or 5), at_failure)
    names = [name for name, column in values.items() if name in record.dialogue and len(column)]
    for name in names:
        _compare(record, name, record.dialogue[name], values[name])
    held = int((turns != INVALID).sum())
    if record.dialogue.get("n", held) != held:
        raise BenchError(
            f"{record.folder}: run.json speaks of {record.dialogue['n']} dialogues, users.parquet has {held}"
        )
    return names


def _compare(record: RunRecord, metric: str, kept: dict[str, float], values: np.ndarray) -> None:
    mean = float(values.mean())
    if kept["n"] != len(values) or not abs(kept["mean"] - mean) <= _TOLERANCE * max(1.0, abs(mean)):
        raise BenchError(
            f"{record.folder}: run.json says {metric} = {kept['mean']:.6g} over {kept['n']:g} users, users.parquet "
            f"gives {mean:.6g} over {len(values)}; one of them was edited or damaged"
        )


class _Memory:
    """Which records of a folder were whole, by what their files looked like then."""

    def __init__(self, folder: Path) -> None:
        self.path, self.changed = folder / _CHECKED, False
        self.known: dict[str, Any] = {}
        try:
            values = json.loads(self.path.read_text(encoding="utf-8"))
            self.known = values if isinstance(values, dict) else {}
        except (OSError, ValueError, RecursionError):
            return  # absent or damaged: everything is checked

    def knows(self, folder: Path) -> bool:
        looks = _looks(folder)
        return bool(looks) and self.known.get(folder.name) == looks

    def add(self, folder: Path) -> None:
        self.known[folder.name], self.changed = _looks(folder), True

    def save(self) -> None:
        if self.changed:
            try:
                write_json(self.path, self.known)
            except OSError:
                return  # a folder that may not be written is checked each time


def _looks(folder: Path) -> Sequence[Any]:
    try:
        at = [(folder / name).stat() for name in _FILES]
    except OSError:
        return []
    return [_VERSION, *(value for each in at for value in (each.st_size, each.st_mtime_ns, each.st_ino))]
