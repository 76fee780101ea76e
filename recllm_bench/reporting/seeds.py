"""Runs of one recipe under several training seeds become one row, whose interval is over seeds and users."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recllm_bench.api.measure import Measure
from recllm_bench.artifacts import content_hash
from recllm_bench.errors import BenchError
from recllm_bench.reporting.records import RunRecord
from recllm_bench.reporting.remembered import Remembered
from recllm_bench.reporting.users_file import DIALOGUE_METRICS, dialogue_values_of, user_values

if TYPE_CHECKING:
    import numpy as np

_VERSION = 1
_COUNTS = ("n", "invalid", "leaks")


class UserValues:
    """Per-user values of rows, each record read once."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[np.ndarray, dict[str, np.ndarray]]] = {}

    def of(self, record: RunRecord, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Users and values of a row.

        Returns
        -------
        users : int64 [n]
            Ascending.
        values : float64 [seeds, n]
            NaN for a dialogue that could not be held.

        Raises
        ------
        BenchError
            When the seeds of a row were measured on different users.
        """
        import numpy as np

        from recllm_bench.evaluation.statistics import align_pairs

        runs = record.members or [record]
        columns = [self._column(run, metric) for run in runs]
        first, rows = columns[0][0], []
        for run, (users, values) in zip(runs, columns, strict=True):
            _, order = align_pairs(first, users, (runs[0].pairing, run.pairing), (runs[0].name, run.name))
            rows.append(values[order])
        return np.sort(first), np.stack(rows)

    def _column(self, run: RunRecord, metric: str) -> tuple[np.ndarray, np.ndarray]:
        if metric in DIALOGUE_METRICS:
            return dialogue_values_of(run, metric)
        if id(run) not in self._read:
            self._read[id(run)] = user_values(run)
        users, values = self._read[id(run)]
        return users, values[metric]


def over_seeds(
    records: Sequence[RunRecord], values: UserValues | None = None, remembered: Remembered | None = None
) -> list[RunRecord]:
    """Replace records that differ in the seed alone by one row, in the place of the last of them.

    Parameters
    ----------
    records : sequence of RunRecord
        Records of one table.
    values, remembered : optional
        Shared with what else is computed for the table.

    Returns
    -------
    list of RunRecord
        A row of several seeds has them as ``members``, their means, and intervals over seeds and users.
    """
    values, kept = values or UserValues(), remembered or Remembered(records)
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        recipe = {name: value for name, value in record.recipe.items() if name != "seed"}
        key = content_hash([record.name, record.block, recipe, record.pairing])
        groups[key] = [*groups.pop(key, []), record]  # in the place of the last
    rows: list[RunRecord] = []
    for group in groups.values():
        seeds = {record.recipe.get("seed") for record in group}
        alike = len(group) > 1 and len(seeds) == len(group) and all(record.folder is not None for record in group)
        rows += [_row(group, values, kept)] if alike else group
    if remembered is None:
        kept.save()
    return rows


def _row(group: list[RunRecord], values: UserValues, remembered: Remembered) -> RunRecord:
    first = group[0]
    row = dataclasses.replace(
        first,
        recipe={**first.recipe, "seed": [record.recipe.get("seed") for record in group]},
        beyond=_means([record.beyond for record in group]),
        stages=_means([record.stages for record in group]),
        evaluation_seconds=statistics.fmean(record.evaluation_seconds for record in group),
        measures=mean_measures([record.measures for record in group]),
        tokens=_means([record.tokens for record in group]),
        notes=list(dict.fromkeys(note for record in group for note in record.notes)),
        users_hash=content_hash([record.users_hash for record in group]),
        folder=None,
        members=group,
    )
    seeds = ", ".join(str(record.recipe.get("seed")) for record in group)
    row.notes.append(f"mean of seeds {seeds}: the interval is over seeds and users, training seconds are of one seed")
    row.metrics = _intervals(row, [record.metrics for record in group], values, remembered)
    if all(record.dialogue for record in group):
        measured = [{m: record.dialogue[m] for m in DIALOGUE_METRICS if m in record.dialogue} for record in group]
        counts = {name: sum(record.dialogue.get(name, 0) for record in group) for name in _COUNTS}
        row.dialogue = {**_intervals(row, measured, values, remembered), **counts}
    return row


def _intervals(
    row: RunRecord, measured: list[Mapping[str, Any]], values: UserValues, remembered: Remembered
) -> dict[str, dict[str, float]]:
    """Mean, interval and users of each metric that every seed has."""
    shared = [metric for metric in measured[0] if all(metric in each for each in measured)]
    code = [measured[0][metric]["code"] for metric in shared if "code" in measured[0][metric]]  # of somebody's own
    key = content_hash(["seeds", _VERSION, row.users_hash, shared, row.protocol.get("ties"), *code])
    return remembered.get(key, lambda: _computed(row, shared, measured, values))


def _computed(
    row: RunRecord, shared: list[str], measured: list[Mapping[str, Any]], values: UserValues
) -> dict[str, dict[str, float]]:
    import numpy as np

    from recllm_bench.evaluation.statistics import hierarchical_bootstrap

    result = {}
    for metric in shared:
        try:
            _, matrix = values.of(row, metric)
            held = np.isfinite(matrix).all(0)
            result[metric] = hierarchical_bootstrap(matrix[:, held]).as_dict()
        except BenchError:  # other dialogues succeeded under each seed, or none was held under all
            facts = [each[metric] for each in measured]
            result[metric] = {
                "mean": statistics.fmean(fact["mean"] for fact in facts),
                "low": min(fact["low"] for fact in facts),
                "high": max(fact["high"] for fact in facts),
                "n": min(fact["n"] for fact in facts),
            }
    return result


def mean_measures(each: Sequence[Sequence[Measure]]) -> list[Measure]:
    """Mean of each measure over the records that have it."""
    values: dict[Measure, list[float]] = {}
    for measures in each:
        for measure in measures:
            values.setdefault(dataclasses.replace(measure, value=0.0), []).append(measure.value)
    return [dataclasses.replace(place, value=statistics.fmean(found)) for place, found in values.items()]


def _means(facts: list[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each number over the records that have it."""
    names = dict.fromkeys(name for each in facts for name in each)
    return {name: statistics.fmean(each[name] for each in facts if name in each) for name in names}
