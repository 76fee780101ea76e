"""Tests of the rows of one table: which rows can be paired, and what their families of comparisons found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from recllm_bench.artifacts import content_hash
from recllm_bench.errors import BenchError
from recllm_bench.reporting.records import RunRecord
from recllm_bench.reporting.remembered import Remembered
from recllm_bench.reporting.seeds import UserValues
from recllm_bench.reporting.users_file import DIALOGUE_METRICS

if TYPE_CHECKING:
    from recllm_bench.evaluation.families import Rows

ALPHA = 0.05
TESTS = ("max-t", "t", "sign-flip", "mcnemar", "wilcoxon")


@dataclass(frozen=True)
class Pair:
    """A row's paired difference from another row.

    Attributes
    ----------
    mean, low, high : float
        First minus second, with an interval (95 %; for planned contrasts, of all of them together).
    p : float
        p-value of this difference alone.
    adjusted : float
        p-value corrected for the family.
    equal : bool
        Whether both are equal within the margin of ``evaluation.equivalence``.
    users, seeds : int or None
        What it takes to show that, see :class:`.Equivalence`.
    """

    mean: float
    low: float
    high: float
    p: float
    adjusted: float
    equal: bool = False
    users: int | None = None
    seeds: int | None = None

    @property
    def tested(self) -> bool:
        """Whether the chosen test can take these values: McNemar's takes hits alone."""
        return self.adjusted == self.adjusted

    @property
    def significant(self) -> bool:
        """Whether the difference survives the correction at 5 %."""
        return self.adjusted < ALPHA


@dataclass
class Family:
    """Comparisons that are corrected together.

    Attributes
    ----------
    metrics : list of str
        Of one metric, or of several together.
    references : dict of str to int
        For each metric the row that the others are held against.
    pairs : dict of (metric, row) to Pair
        A row minus the reference.
    deviations : dict of row to float
        Standard deviation between the seeds of a row, in the first metric.
    """

    metrics: list[str]
    references: dict[str, int] = field(default_factory=dict)
    pairs: dict[tuple[str, int], Pair] = field(default_factory=dict)
    deviations: dict[int, float] = field(default_factory=dict)


def has(record: RunRecord, metric: str) -> bool:
    """Whether a record has a metric."""
    return metric in (record.dialogue if metric in DIALOGUE_METRICS else record.metrics)


def mean_of(record: RunRecord, metric: str) -> float:
    """A record's mean; minus infinity without one."""
    facts = record.metrics.get(metric) or record.dialogue.get(metric)
    return float(facts["mean"]) if facts else float("-inf")


def direction(metric: str) -> int:
    """1 where more is better, -1 where less is."""
    return -1 if metric == "AT" else 1


class Families:
    """Families of comparisons among the rows of a table, kept for the next time.

    Parameters
    ----------
    records : list of RunRecord
        Rows.
    values : UserValues
        Per-user values.
    remembered : Remembered
        Results of earlier tables.
    test : str
        One of :data:`TESTS`.
    """

    def __init__(
        self, records: list[RunRecord], values: UserValues, remembered: Remembered, test: str = "max-t"
    ) -> None:
        self.records, self.values, self.remembered, self.test = records, values, remembered, test

    def with_the_best(self, rows: Sequence[int], metrics: list[str], named: int | None = None) -> Family:
        """Every row against the best, or against a named one; in each metric.

        The choice of the best by the data is covered, see ``evaluation.families.with_best``.

        Parameters
        ----------
        rows : sequence of int
            Rows that can be paired and have the metrics.
        metrics : list of str
            Corrected together.
        named : int, optional
            The row that all are held against.
        """
        from recllm_bench.evaluation.families import all_pairs

        rows = list(rows)
        references = {
            metric: max(rows, key=lambda row: direction(metric) * mean_of(self.records[row], metric))
            if named is None
            else named
            for metric in metrics
        }
        tested = all_pairs(len(rows))
        if named is not None:
            tested = [(place, rows.index(named)) for place, row in enumerate(rows) if row != named]
        wanted = {
            metric: [(row, references[metric]) for row in rows if row != references[metric]] for metric in metrics
        }
        return self._family(rows, metrics, tested, wanted, references, "best" if named is None else "named")

    def planned(self, subject: int, others: Sequence[int], metric: str) -> Family:
        """A row against others that were chosen before anything was measured: pairs are row ``subject`` minus each.

        Parameters
        ----------
        subject : int
            The row.
        others : sequence of int
            Rows that it can be paired with.
        metric : str
            Compared.
        """
        rows = [subject, *others]
        tested = [(0, place) for place in range(1, len(rows))]
        wanted = {metric: [(subject, row) for row in others]}
        return self._family(rows, [metric], tested, wanted, {metric: subject}, "planned")

    def _family(
        self,
        rows: list[int],
        metrics: list[str],
        tested: list[tuple[int, int]],
        wanted: dict[str, list[tuple[int, int]]],
        references: dict[str, int],
        kind: str,
    ) -> Family:
        hashes = [self.records[row].users_hash for row in rows]
        ties = self.records[rows[0]].protocol.get("ties")
        held = [rows.index(references[metric]) for metric in metrics]
        code = [self.records[row].metrics.get(metric, {}).get("code", "") for row in rows for metric in metrics]
        key = content_hash([kind, self.test, hashes, metrics, ties, held, code])
        known = self.remembered.get(key, lambda: self._computed(rows, metrics, tested, wanted, kind, held))
        family = Family(metrics, references)
        for metric, place, facts in known["pairs"]:
            family.pairs[metric, rows[place]] = Pair(**facts)
        family.deviations = {rows[place]: deviation for place, deviation in known["deviations"]}
        return family

    def _computed(
        self,
        rows: list[int],
        metrics: list[str],
        tested: list[tuple[int, int]],
        wanted: dict[str, list[tuple[int, int]]],
        kind: str,
        held: list[int],
    ) -> dict[str, Any]:
        """Pairs by metric and place of the row in ``rows``."""
        import numpy as np
        from scipy import stats

        from recllm_bench.evaluation.equivalence import equivalence
        from recllm_bench.evaluation.families import Rows, critical

        matrices = self._matrices(rows, metrics)
        if not matrices or not tested:
            return {"pairs": [], "deviations": []}
        each = {metric: Rows(found) for metric, found in matrices.items()}
        best = [place for metric, place in zip(metrics, held, strict=True) if metric in each]
        adjusted = self._adjusted(each, matrices, tested, kind, best)
        pairs = []
        for metric, means in each.items():
            score = critical(means, tested) if kind == "planned" else float(stats.norm.isf(ALPHA / 2))
            for first, second in wanted[metric]:
                place, other = rows.index(first), rows.index(second)
                found = means.contrast(place, other)
                reach = float(stats.t.isf(stats.norm.sf(score), found.freedom)) * found.error
                same = equivalence(means, place, other)
                p = adjusted.get((metric, min(place, other), max(place, other)), float("nan"))
                pair = Pair(
                    found.estimate,
                    found.estimate - reach,
                    found.estimate + reach,
                    found.p,
                    p,
                    same.equal,
                    same.users,
                    same.seeds,
                )
                pairs.append([metric, other if kind == "planned" else place, asdict(pair)])
        first_metric = next(iter(each.values()))
        deviations = [[place, float(d)] for place, d in enumerate(first_metric.deviations) if np.isfinite(d)]
        return {"pairs": pairs, "deviations": deviations}

    def _adjusted(
        self,
        each: dict[str, Rows],
        matrices: dict[str, list[Any]],
        tested: list[tuple[int, int]],
        kind: str,
        best: list[int],
    ) -> dict[tuple[str, int, int], float]:
        """Corrected p-value of each metric and pair of places, smaller place first."""
        from recllm_bench.evaluation.families import max_t, with_best
        from recllm_bench.evaluation.statistics import PAIR_TESTS, holm

        if self.test == "max-t" and kind == "best":
            _, found = with_best(list(each.values()), best)
            size = range(len(next(iter(each.values())).means))
            held = [(metric, [row for row in size if row != top], top) for metric, top in zip(each, best, strict=True)]
            pairs = [(metric, min(row, top), max(row, top)) for metric, others, top in held for row in others]
            return dict(zip(pairs, (float(p) for values in found for p in values), strict=True))
        places = [(metric, min(pair), max(pair)) for metric in each for pair in tested]
        if self.test == "max-t":
            _, found = max_t([(rows, tested) for rows in each.values()], step_down=kind != "planned")
            return dict(zip(places, (float(p) for values in found for p in values), strict=True))
        if self.test == "t":
            p_values = [contrast.p for rows in each.values() for contrast in rows.contrasts(tested)]
            return dict(zip(places, holm(p_values), strict=True))
        if any(len(matrix) > 1 for found in matrices.values() for matrix in found):
            raise BenchError(f"--test {self.test} knows users only, and a row has several seeds; use --test max-t or t")
        test, single = PAIR_TESTS[self.test], {}
        for metric, first, second in places:
            a, b = matrices[metric][first][0], matrices[metric][second][0]
            if self.test != "mcnemar" or _is_rate(a, b):  # McNemar's test leaves other metrics without marks
                single[metric, first, second] = test(a, b)
        return dict(zip(single, holm(list(single.values())), strict=True))

    def _matrices(self, rows: list[int], metrics: list[str]) -> dict[str, list[Any]]:
        """Values ``[seeds, users]`` of each row, by metric, over users that have a value in all rows and metrics."""
        from functools import reduce

        import numpy as np

        result: dict[str, list[Any]] = {}
        for metric in metrics:
            found = [self.values.of(self.records[row], metric) for row in rows]
            if all(np.isfinite(matrix).any() for _, matrix in found):  # else only successes count: nothing to pair
                shared = reduce(np.intersect1d, (users for users, _ in found))
                result[metric] = [matrix[:, np.searchsorted(users, shared)] for users, matrix in found]
        if not result:
            return {}
        held = np.all([np.isfinite(matrix).all(0) for found in result.values() for matrix in found], axis=0)
        return {m: [matrix[:, held] for matrix in found] for m, found in result.items()} if held.any() else {}


def _is_rate(*columns: Any) -> bool:
    return all(((column == 0) | (column == 1)).all() for column in columns)
