"""The primary metric over parts of the users (length of history, popularity of the target), and success by turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recllm_bench.errors import BenchError
from recllm_bench.reporting.comparison import Comparison
from recllm_bench.reporting.figures import Figure
from recllm_bench.reporting.record_families import has
from recllm_bench.reporting.seeds import UserValues, on_disk
from recllm_bench.reporting.site.prepared_behind import training_counts
from recllm_bench.reporting.users_file import dialogue_outcomes, read_ranks

if TYPE_CHECKING:
    import numpy as np

_FEWEST = 10  # users in a part


def sliced_figures(comparison: Comparison) -> tuple[list[Figure], list[Figure]]:
    """The primary metric by quarters of the users: by length of history, and by popularity of the target.

    The second needs the prepared data in the cache and target ids in the records; it is empty without them. Users
    with several cases count by their first.
    """
    metric, subject = comparison.primary, comparison.records[comparison.subject]
    rows = [
        record
        for record in comparison.records
        if on_disk(record) and has(record, metric) and record.pairing == subject.pairing
    ]
    if not rows:
        return [], []
    import numpy as np

    ranks = read_ranks((rows[0].members or rows)[0])
    users, first = np.unique(ranks.users, return_index=True)
    lengths, targets = ranks.lengths[first], ranks.targets[first]
    values = UserValues()
    matrices: dict[str, Any] = {}
    for record in rows:
        found, matrix = values.of(record, metric)
        if np.array_equal(found, users):
            matrices[_free(record.name, matrices)] = matrix
    by_length = _by_quarters(metric, "interactions in the history", lengths, matrices) if lengths.any() else []
    counts = training_counts(subject) if targets.any() else None
    by_count = [] if counts is None else _by_quarters(metric, "training interactions", counts[targets], matrices)
    return by_length, by_count


def turn_figures(comparison: Comparison) -> list[Figure]:
    """Share of dialogues that have succeeded after each turn, with Wilson's 95 % intervals."""
    figure = Figure("Share of dialogues in which the target was shown, after each turn.", "turn", [])
    figure.quantity = "share of dialogues"
    for record in comparison.records:
        if record.dialogue and on_disk(record):
            name = _free(record.name, figure.lines)
            figure.lines[name] = _success([_turns(run) for run in record.members or [record]])
    return [figure] if figure.lines else []


def _turns(record) -> tuple[np.ndarray, int]:
    return dialogue_outcomes(record)[1], int(record.protocol.get("turns") or 5)


def _success(runs: Sequence[tuple[np.ndarray, int]]) -> dict[int, tuple[float, float, float]]:
    """By turn; dialogues of all seeds together, so the interval is of dialogues alone."""
    import numpy as np

    from recllm_bench.evaluation.dialogue_outcomes import success_at, valid_outcomes
    from recllm_bench.evaluation.intervals import wilson

    turns, most = np.concatenate([turns for turns, _ in runs]), max(most for _, most in runs)
    try:
        turns = valid_outcomes(turns)
    except BenchError:
        turns = turns[turns >= 0]
    line = {}
    for turn in range(1, most + 1):
        hits = success_at(turns, turn)
        if len(hits):
            low, high = wilson(float(hits.sum()), len(hits))
            line[turn] = (low, float(hits.mean()), high)
    return line


def _by_quarters(metric: str, axis: str, amounts: np.ndarray, matrices: dict[str, np.ndarray]) -> list[Figure]:
    """A figure over parts of the users of about the same size; none where they cannot be parted.

    Parameters
    ----------
    amounts : int [n]
        What users are parted by.
    matrices : dict of str to float [seeds, n]
        Values of each row.
    """
    import numpy as np

    from recllm_bench.evaluation.intervals import mean_interval

    edges = np.unique(np.quantile(amounts, (0.25, 0.5, 0.75, 1.0), method="inverted_cdf"))
    parts = np.searchsorted(edges, amounts)
    sizes = np.bincount(parts, minlength=len(edges))
    if len(edges) < 2 or sizes.min() < _FEWEST:
        return []
    ticks = []
    for part, size in enumerate(sizes):
        low, high = int(amounts[parts == part].min()), int(amounts[parts == part].max())
        ticks.append(f"{low} to {high} ({size:,} users)" if high > low else f"{low} ({size:,} users)")
    figure = Figure(f"{metric} by {axis}, in parts of about as many users, with 95 % intervals.", axis, ticks)
    figure.quantity = metric
    for name, matrix in matrices.items():
        line = {}
        for part in range(len(edges)):
            facts = mean_interval(matrix[:, parts == part])
            if math.isfinite(facts.mean):
                line[part] = (facts.low, facts.mean, facts.high)
        figure.lines[name] = line
    return [figure]


def _free(name: str, taken: dict) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free
