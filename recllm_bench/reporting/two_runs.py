"""Two runs in depth: how far apart they are, what was done differently, for which users, and some of these users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recllm_bench.errors import BenchError
from recllm_bench.reporting.comparison import Comparison, compare
from recllm_bench.reporting.dependence import depends_of, difference
from recllm_bench.reporting.page import Cell
from recllm_bench.reporting.record_families import Families, direction
from recllm_bench.reporting.records import RunRecord
from recllm_bench.reporting.remembered import Remembered
from recllm_bench.reporting.seeds import UserValues
from recllm_bench.reporting.subject import row_key, row_named
from recllm_bench.reporting.table import MARKS, describe, finding, p_text
from recllm_bench.reporting.users_file import DIALOGUE_METRICS, read_ranks, record_data

if TYPE_CHECKING:
    import numpy as np

_FEWEST = 10  # users of a group that is shown
_GROUPS = 12  # categories shown, those of most users
_EXAMPLES = 3  # users shown either way
_HISTORY = 5  # newest titles of a history shown
_RECIPE = ("recipe", "words", "data", "split")


@dataclass
class Section:
    """A part of what is said: a heading, and a grid (its head first) or lines."""

    title: str
    about: str = ""
    grid: list[list[Cell]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def sections(
    first: RunRecord, second: RunRecord, metrics: list[str] | None = None, every: bool = False
) -> list[Section]:
    """Everything that is said of two runs.

    Parameters
    ----------
    first, second : RunRecord
        Runs, or rows of several seeds, of one dataset under one protocol. Differences are the first minus the second.
    metrics : list of str, optional
        By default those of the table.
    every : bool
        Also what differs in code and libraries.

    Raises
    ------
    BenchError
        When they were not measured on the same cases, or are the same run.
    """
    for record in (first, second):
        if record.folder is None and not record.members:
            raise BenchError(f"the record of {record.name} has no folder, so its users cannot be read")
    if row_key(first) == row_key(second) and first.users_hash == second.users_hash:
        raise BenchError(f"'{first.name}' is held against itself; name two runs")
    one, other = (f"{each.dataset.get('name')} under {each.protocol.get('name')}" for each in (first, second))
    if one != other or first.fingerprint != second.fingerprint:
        raise BenchError(f"two runs are of one dataset under one protocol; these are of {one} and of {other}")
    if not first.pairs_with(second):
        raise BenchError(f"{first.name} and {second.name} were measured on other cases or other words: nothing to pair")
    found = compare([first, second], metrics=metrics)
    ours = {record.users_hash: row for row, record in enumerate(found.records)}
    rows = [ours[first.users_hash], ours[second.users_hash]]
    if rows[0] == rows[1]:  # the same values to the bit
        rows = [row_named(found.records, record.name) for record in (first, second)]
    records = [found.records[row] for row in rows]
    users, values = _user_means(records, found.primary)
    where = [_by_length(records, found.primary, users, values)]
    try:
        data = record_data(records[0].members[0] if records[0].members else records[0])
        where += _by_target(records, found.primary, users, values, data)
    except BenchError as error:
        where.append(Section("Targets and titles", lines=[f"not shown: {error}"]))
    head, _, about = describe(records).partition("\n")
    title = Section(f"{records[0].name} against {records[1].name}", f"{head}. {about}")
    where = [part for part in where if part.grid or part.lines]
    return [title, _measured(found, rows), _settings(records, every), *where]


def _measured(found: Comparison, rows: list[int]) -> Section:
    records = [found.records[row] for row in rows]
    families = Families(found.records, UserValues(), Remembered(records), found.test)
    names = [name for name in found.metrics if all(name in record.metrics for record in records)]
    names += [name for name in DIALOGUE_METRICS if all(name in record.dialogue for record in records)]
    head = ("metric", records[0].name, records[1].name, "difference", "95 % interval", "p", "")
    grid = [[Cell(text) for text in head]]
    for name in names:
        means = [(record.metrics.get(name) or record.dialogue[name])["mean"] for record in records]
        pair = families.planned(rows[0], [rows[1]], name).pairs.get((name, rows[1]))
        cells = [Cell(name), *(Cell(f"{mean:.4f}") for mean in means)]
        best = direction(name) * (means[0] - means[1])
        cells[1:3] = [Cell(cell.text, best * sign > 0) for cell, sign in zip(cells[1:], (1, -1), strict=True)]
        if pair is None:
            grid.append([*cells, Cell(f"{means[0] - means[1]:+.4f}"), Cell("-"), Cell("-"), Cell("cannot be paired")])
            continue
        said = "better" if best > 0 else "worse"
        mark = said if pair.significant else "equal" if pair.equal else "open"
        shown = Cell(f"{pair.mean:+.4f}", mark=MARKS[mark], tone=mark)
        interval = Cell(f"[{pair.low:+.4f}, {pair.high:+.4f}]")
        grid.append([*cells, shown, interval, Cell(_short_p(pair.adjusted)), Cell(finding(pair))])
    about = f"{found.primary} is the main metric; each line is a test of its own, not corrected for the others"
    return Section("What was measured", about, grid)


def _settings(records: list[RunRecord], every: bool) -> Section:
    lines = difference(*(depends_of(record) for record in records))
    shown = [line for line in lines if every or line.startswith(_RECIPE)]
    hidden = len(lines) - len(shown)
    more = [f"({hidden} more in code, libraries and stages: --verbose)"] if hidden else []
    return Section("What was done differently", f"{records[0].name} -> {records[1].name}", lines=[*shown, *more])


def _user_means(records: list[RunRecord], metric: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Users that both have, and each run's values of them (the mean over seeds)."""
    import numpy as np

    found = [UserValues().of(record, metric) for record in records]
    users = np.intersect1d(found[0][0], found[1][0])
    return users, [matrix.mean(0)[np.searchsorted(own, users)] for own, matrix in found]


def _grouped(
    title: str, about: str, records: list[RunRecord], groups: Mapping[str, np.ndarray], values: list[np.ndarray]
) -> Section:
    """Both means and their difference in each group of users; p-values are Holm's over the groups."""
    import numpy as np
    from scipy import stats

    from recllm_bench.evaluation.statistics import holm

    kept = {name: mask for name, mask in groups.items() if mask.sum() >= _FEWEST}
    if not kept:
        return Section(title)
    gaps = {name: (values[0] - values[1])[mask] for name, mask in kept.items()}
    errors = {name: float(gap.std(ddof=1)) / np.sqrt(len(gap)) for name, gap in gaps.items()}
    single = [
        float(2 * stats.t.sf(abs(gap.mean()) / errors[name], len(gap) - 1)) if errors[name] else float(gap.mean() == 0)
        for name, gap in gaps.items()
    ]
    grid = [[Cell(text) for text in (title.lower(), "users", records[0].name, records[1].name, "difference", "p")]]
    for (name, mask), p in zip(kept.items(), holm(single), strict=True):
        mean, reach = float(gaps[name].mean()), float(stats.t.isf(0.025, int(mask.sum()) - 1)) * errors[name]
        tone = ("better" if mean > 0 else "worse") if p < 0.05 else "open"
        gap = Cell(f"{mean:+.4f}", below=f"±{reach:.4f}", mark=MARKS[tone], tone=tone)
        means = [Cell(f"{each[mask].mean():.4f}") for each in values]
        grid.append([Cell(name), Cell(f"{mask.sum():,}"), *means, gap, Cell(_short_p(p))])
    return Section(f"By {title.lower()}", about, grid)


def _by_length(records: list[RunRecord], metric: str, users: np.ndarray, values: list[np.ndarray]) -> Section:
    ranks = read_ranks(records[0].members[0] if records[0].members else records[0])
    lengths = _per_user(ranks, ranks.lengths, users)
    about = f"{metric} by interactions before the target: quarters of the users; Student's t, Holm's p over the groups"
    return _grouped("History length", about, records, dict(_quarters(lengths)), values)


def _by_target(
    records: list[RunRecord], metric: str, users: np.ndarray, values: list[np.ndarray], data: tuple[Any, Any]
) -> Iterator[Section]:
    """By the target's popularity in the training part and its categories; then users as examples."""
    import numpy as np

    from recllm_bench.evaluation.own_metrics import training_popularity

    dataset, split = data
    ranks = [read_ranks(record.members[0] if record.members else record) for record in records]
    if not ranks[0].targets.any():
        raise BenchError("a shared record has no target ids")
    targets = _per_user(ranks[0], ranks[0].targets, users)
    popularity = training_popularity(split)
    about = f"{metric} by how often the target was had in training: quarters of the users"
    yield _grouped("Popularity of the target", about, records, dict(_quarters(popularity[targets])), values)
    of_item = dataset.catalogue.categories
    counts: dict[str, int] = {}
    for target in targets:
        for name in of_item[target]:
            counts[name] = counts.get(name, 0) + 1
    names = sorted(counts, key=lambda name: -counts[name])[:_GROUPS]
    groups = {name: np.array([name in of_item[target] for target in targets]) for name in names}
    about = f"{metric} by the target's categories; a target of several counts in each"
    yield _grouped("Category of the target", about, records, groups, values)
    yield from _examples(records, users, targets, values, ranks, data)


def _examples(
    records: list[RunRecord],
    users: np.ndarray,
    targets: np.ndarray,
    values: list[np.ndarray],
    ranks: Any,
    data: tuple[Any, Any],
) -> Iterator[Section]:
    """Users whose values differ most, both ways; of equal ones those whose ranks are furthest apart."""
    import numpy as np

    places = [_per_user(each, each.higher + (each.tied + 1) / 2, users) for each in ranks]
    dataset, split = data
    titles = dataset.catalogue.titles
    for winner, loser, sign in ((0, 1, 1), (1, 0, -1)):
        gap, apart = sign * (values[0] - values[1]), places[loser] - places[winner]
        order = [row for row in np.lexsort((-apart, -gap))[:_EXAMPLES] if gap[row] > 0]
        lines = []
        for row in order:
            user, target = int(users[row]), int(targets[row])
            end = split.test.ends[np.flatnonzero(split.test.users == user)[-1]]
            start = split.histories.offsets[user - 1]
            newest = split.histories.items[max(start, end - _HISTORY) : end][::-1]
            history = "; ".join(titles[int(item)] or f"item {item}" for item in newest)
            there = " and ".join(f"{_place(places[run][row])} by {records[run].name}" for run in (winner, loser))
            wanted = titles[target] or f"item {target}"
            lines.append(f"user {dataset.user_tokens[user]}: {wanted} is {there}; history, newest first: {history}")
        if lines:
            yield Section(f"Users for whom {records[winner].name} is better", lines=lines)


def _short_p(p: float) -> str:
    return p_text(p).removeprefix("= ")


def _place(rank: float) -> str:
    return f"number {rank:,.0f}" if rank == int(rank) else f"number {rank:,.1f} (tied)"


def _per_user(ranks: Any, column: np.ndarray, users: np.ndarray) -> np.ndarray:
    """A column's value in each user's last case."""
    import numpy as np

    order = np.argsort(ranks.users, kind="stable")
    return column[order][np.searchsorted(ranks.users[order], users, side="right") - 1]


def _quarters(numbers: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Users in about equal quarters of a whole number, named by its range."""
    import numpy as np

    edges = np.unique(np.quantile(numbers, [0.25, 0.5, 0.75], method="inverted_cdf"))
    group = np.searchsorted(edges, numbers)
    for place in range(len(edges) + 1):
        mask = group == place
        if mask.any():
            low, high = int(numbers[mask].min()), int(numbers[mask].max())
            yield (f"{low:,} to {high:,}" if high > low else f"{low:,}"), mask
