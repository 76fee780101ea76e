"""What methods measure beside the ranking: which of it varies and matters, in names for people."""

from __future__ import annotations

from collections.abc import Sequence

from recllm_bench.api.measure import Measure
from recllm_bench.conversation.disclosure import FITTING
from recllm_bench.reporting.records import RunRecord

PEOPLE = {
    "n_lines": "lines written",
    "n_lists": "lists written",
    "n_exact": "lines that are a title",
    "n_fuzzy": "lines that are nearly a title",
    "n_embed": "lines taken by meaning",
    "n_kept": "places that kept their title",
    "n_dropped": "lines without a title",
    "n_ambiguous": "titles of several items",
    "n_len_mismatch": "lists of another length",
    "n_changed_positions": "places changed",
    "n_unparsable": "answers that could not be read",
    "n_unchanged": "lists left as they were",
}
"""Counters of written lists of titles, as people would call them."""


def own_measures(record: RunRecord) -> list[Measure]:
    """What a method measured itself; what its users' words give away stands over its block."""
    return [measure for measure in record.measures if measure.name != FITTING]


def measures_grid(records: Sequence[RunRecord], every: bool = True) -> list[list[str]]:
    """What methods measured: a row for each measure, in the order they give, and a column for each record.

    Parameters
    ----------
    every : bool
        Otherwise only what varies and matters: no counters of the workings, no time (a cost), nothing by length of
        history (a figure), nothing that is 0 or the same in all rows.
    """
    found = [{measure.label: measure for measure in own_measures(record)} for record in records]
    labels = list(dict.fromkeys(label for measures in found for label in measures))
    rows = []
    for label in labels:
        measures = [each.get(label) for each in found]
        if every or _matters([measure for measure in measures if measure is not None]):
            name, about, more = label.partition(", ")
            shown = [measure_text(measure.value) if measure else "" for measure in measures]
            rows.append([PEOPLE.get(name, name) + about + more, *shown])
    return [["measure", *(record.name for record in records)], *rows]


def _matters(measures: Sequence[Measure]) -> bool:
    first, values = measures[0], {measure.value for measure in measures}
    workings = first.name in PEOPLE or first.name.startswith("n_") or "seconds" in first.name
    same = len(values) == 1 and (len(measures) > 1 or 0.0 in values)
    return not (workings or same or first.lengths is not None)


def measure_text(value: float) -> str:
    """A count in full, another number with four digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"
