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


def on_disk(record: RunRecord) -> bool:
    """Whether the per-user values of a row can be read."""
    return all(run.folder is not None for run in record.members or [record])


def over_seeds(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Replace records that differ in the seed alone by one row, in the place of the last of them.

    Parameters
    ----------
    records : sequence of RunRecord
        Records of one table.

    Returns
    -------
    list of RunRecord
        A row of several seeds has them as ``members``, by seed, and their means; its intervals, as those of any row,
        come from :func:`with_intervals`.
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        recipe = {name: value for name, value in record.recipe.items() if name != "seed"}
        key = content_hash([record.name, record.block, recipe, record.pairing, record.hears])
        groups[key] = [*groups.pop(key, []), record]  # in the place of the last
    rows: list[RunRecord] = []
    for group in groups.values():
        seeds = {record.recipe.get("seed") for record in group}
        alike = len(group) > 1 and len(seeds) == len(group) and all(record.folder is not None for record in group)
        rows += [_row(sorted(group, key=lambda record: record.recipe.get("seed", 0)))] if alike else group
    return rows


def _row(group: list[RunRecord]) -> RunRecord:
    first = group[0]
    row = dataclasses.replace(
        first,
        recipe={**first.recipe, "seed": [record.recipe.get("seed") for record in group]},
        beyond=_means([record.beyond for record in group]),
        stages=_means([record.stages for record in group]),
        evaluation_seconds=statistics.fmean(record.evaluation_seconds for record in group),
        measures=mean_measures([record.measures for record in group]),
        tokens=_means([record.tokens for record in group]),
        spent={},  # of single seeds
        costs=_means([record.costs for record in group]),
        notes=list(dict.fromkeys(note for record in group for note in record.notes)),
        users_hash=content_hash([record.users_hash for record in group]),
        created=max(record.created for record in group),
        metrics=_pooled([record.metrics for record in group]),
        folder=None,
        members=group,
    )
    seeds = ", ".join(str(record.recipe.get("seed")) for record in group)
    row.notes.append(f"mean of seeds {seeds}: the interval is over seeds and users, training seconds are of one seed")
    if all(record.dialogue for record in group):
        measured = [{m: record.dialogue[m] for m in DIALOGUE_METRICS if m in record.dialogue} for record in group]
        counts = {name: sum(record.dialogue.get(name, 0) for record in group) for name in _COUNTS}
        row.dialogue = {**_pooled(measured), **counts}
    return row


def _pooled(each: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean over the seeds of each metric that all have, with limits that hold every seed's interval."""
    return {
        metric: {
            "mean": statistics.fmean(facts[metric]["mean"] for facts in each),
            "low": min(facts[metric]["low"] for facts in each),
            "high": max(facts[metric]["high"] for facts in each),
            "n": min(facts[metric]["n"] for facts in each),
        }
        for metric in each[0]
        if all(metric in facts for facts in each)
    }


def with_intervals(record: RunRecord, metrics: Sequence[str], values: UserValues, remembered: Remembered) -> RunRecord:
    """A row with the intervals of :func:`.mean_interval`, over users and seeds, in some metrics and all of dialogues.

    Rows whose per-user values are not there stay as they are.
    """
    if not on_disk(record):
        return record
    names = [metric for metric in metrics if metric in record.metrics]
    names += [metric for metric in DIALOGUE_METRICS if metric in record.dialogue]
    code = [record.metrics.get(metric, {}).get("code", "") for metric in names]  # of somebody's own metrics
    key = content_hash(["intervals", record.users_hash, names, record.protocol.get("ties"), code])
    found = remembered.get(key, lambda: _intervals(record, names, values))
    return dataclasses.replace(
        record,
        metrics={name: found.get(name, facts) for name, facts in record.metrics.items()},
        dialogue={name: found.get(name, facts) for name, facts in record.dialogue.items()},
    )


def _intervals(record: RunRecord, names: Sequence[str], values: UserValues) -> dict[str, dict[str, float]]:
    import numpy as np

    from recllm_bench.evaluation.intervals import mean_interval

    result = {}
    for metric in names:
        try:
            matrix = values.of(record, metric)[1]
            result[metric] = mean_interval(matrix[:, np.isfinite(matrix).all(0)]).as_dict()
        except BenchError:
            continue  # other dialogues succeeded under each seed, or none was held under all
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
