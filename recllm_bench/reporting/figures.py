"""Lines of run records: a metric by round, by length of history, or by the option that a sweep changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from recllm_bench.reporting.records import RunRecord


@dataclass
class Figure:
    """A plot to be drawn.

    Attributes
    ----------
    caption : str
        What it shows.
    axis : str
        What the places on the horizontal axis are.
    ticks : list of str
        Their labels, in order; empty where places are numbers themselves.
    lines : dict of str to {int: (low, mean, high)}
        For each line its values by place; low and high are equal where there is no interval.
    quantity : str
        What the values are.
    title : str
        Its name among others of its kind; by default the quantity.
    """

    caption: str
    axis: str
    ticks: list[str]
    lines: dict[str, dict[int, tuple[float, float, float]]] = field(default_factory=dict)
    quantity: str = ""
    title: str = ""


def figures_of(records: Sequence[RunRecord], metric: str = "") -> list[Figure]:
    """Every figure that some records have the values for.

    Parameters
    ----------
    records : sequence of RunRecord
        Under one protocol on one dataset.
    metric : str
        Of the sweep's figure; by default the first that all records have.
    """
    return [*_by_round(records), *_by_length(records), *_by_option(records, metric)]


def _by_round(records: Sequence[RunRecord]) -> list[Figure]:
    """The longest runs of rounds of each metric; shorter runs with the same name are parts of them."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for record in records:
        for measure in record.measures:
            if measure.round is not None and not measure.about and measure.lengths is None:
                found.setdefault(measure.name, {}).setdefault(record.name, {})[measure.round] = measure.value
    figures = []
    for metric, lines in found.items():
        lines = {name: line for name, line in lines.items() if len(line) > 2 and not _is_part(line, lines.values())}
        if lines:
            ticks = [str(number) for number in range(max(max(line) for line in lines.values()) + 1)]
            figure = Figure(f"{metric} after each round of feedback.", "round", ticks, quantity=metric)
            figure.title = f"{metric} by round"
            figure.lines = {name: {at: (value,) * 3 for at, value in line.items()} for name, line in lines.items()}
            figures.append(figure)
    return figures


def _by_length(records: Sequence[RunRecord]) -> list[Figure]:
    """A metric by length of history: the first record's round 0, and every record's last round."""
    found: dict[str, dict[str, dict[tuple[int, int | None], float]]] = {}
    bucket_names: dict[tuple[int, int | None], str] = {}
    for record in records:
        placed = [measure for measure in record.measures if measure.lengths is not None and measure.round is not None]
        last = max((measure.round or 0 for measure in placed), default=0)
        for measure in placed:
            if measure.round in (0, last) and measure.lengths is not None:
                bucket_names[measure.lengths] = measure.bucket.removeprefix("of ")
                name = record.name if measure.round else "before any feedback"
                found.setdefault(measure.name, {}).setdefault(name, {})[measure.lengths] = measure.value
    figures = []
    for metric, lines in found.items():
        buckets = sorted({bucket for line in lines.values() for bucket in line}, key=lambda bucket: bucket[0])
        if len(buckets) > 1:
            ticks = [bucket_names[bucket] for bucket in buckets]
            figure = Figure(f"{metric} by length of history.", "interactions", ticks, quantity=metric)
            figure.title = f"{metric} by length"
            for name, line in lines.items():
                figure.lines[name] = {buckets.index(bucket): (value,) * 3 for bucket, value in line.items()}
            figures.append(figure)
    return figures


def _by_option(records: Sequence[RunRecord], metric: str) -> list[Figure]:
    """A metric by the one number in which the recipes of a model differ."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(str(record.recipe.get("model")), []).append(record)
    figures = []
    for model, rows in groups.items():
        options = [dict(row.recipe.get("options") or {}) for row in rows]
        names = {name for values in options for name in values}
        changed = [name for name in sorted(names) if len({repr(values.get(name)) for values in options}) > 1]
        shared = [name for name in rows[0].metrics if all(name in row.metrics for row in rows)]
        if len(changed) != 1 or len(rows) < 3 or not shared:
            continue
        places: list[Any] = [values.get(changed[0]) for values in options]
        if not all(isinstance(place, (int, float)) and not isinstance(place, bool) for place in places):
            continue
        if len(set(places)) < len(places) or not all(math.isfinite(place) for place in places):
            continue
        chosen = metric if metric in shared else shared[-1]
        order = sorted(range(len(rows)), key=lambda row: places[row])
        figure = Figure(
            f"{chosen} by {changed[0]}.", changed[0], [f"{places[row]:g}" for row in order], quantity=chosen
        )
        figure.title = f"{chosen} by {changed[0]}"
        for at, row in enumerate(order):
            facts = rows[row].metrics[chosen]
            line = figure.lines.setdefault(model, {})
            line[at] = (facts["low"], facts["mean"], facts["high"])
        figures.append(figure)
    return figures


def _is_part(line: dict[int, float], others: Iterable[dict[int, float]]) -> bool:
    """Whether a longer line goes through the very same values."""
    return any(len(line) < len(other) and line.items() <= other.items() for other in others)
