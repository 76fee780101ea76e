"""Simulate tables and count what their marks, intervals and equalities get wrong.

    python benchmarks/marks.py                  every simulation
    python benchmarks/marks.py --tables 500     fewer tables (faster, coarser)
    python benchmarks/marks.py --json FILE      write the shares as well

Values are as rankings give them: sparse, skewed, correlated over models through how hard a user is. Nothing here
decides anything: tables go through ``evaluation.families``, ``intervals`` and ``equivalence``, as the bench's do.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from recllm_bench.evaluation.equivalence import equivalence
from recllm_bench.evaluation.families import ALPHA, Rows, all_pairs, max_t, with_best
from recllm_bench.evaluation.intervals import mean_interval
from recllm_bench.evaluation.statistics import holm
from recllm_bench.reporting.machine import machine_facts

Table = list[list[np.ndarray]]


def planted_table(
    rng: np.random.Generator,
    rows: int,
    users: int,
    *,
    seeds: int = 1,
    deviation: float = 0.0,
    gains: Sequence[float] = (),
    metrics: int = 1,
) -> Table:
    """Values ``[seeds, users]`` of each row, for each metric: NDCG@10, HR@10, NDCG@5, HR@5, NDCG@20.

    Parameters
    ----------
    deviation : float
        Standard deviation of a seed's mean.
    gains : sequence of float
        How many times better the first rows rank; the others are alike.
    """
    difficulty = rng.exponential(30, users)
    table: Table = [[] for _ in range(metrics)]
    for row in range(rows):
        own = difficulty * rng.exponential(1, users) ** 0.5
        places = own * rng.exponential(1, (seeds, users)) ** 0.5 / (gains[row] if row < len(gains) else 1.0)
        shift = rng.normal(0, deviation, (seeds, 1)) if deviation else 0.0
        for metric in range(metrics):
            cut = (10, 10, 5, 5, 20)[metric % 5]
            worth = 1 / np.log2(np.floor(places) + 2) if metric % 2 == 0 else np.ones_like(places)
            table[metric].append(np.where(places < cut, worth, 0.0) + shift)
    return table


def with_the_best(table: Table) -> np.ndarray:
    """Corrected p-values of the first metric, float64 [rows], 1 at the best row."""
    return _one_family(table[:1])[0]


def _one_family(table: Table) -> list[np.ndarray]:
    each = [Rows(values) for values in table]
    best = [int(np.argmax(rows.means)) for rows in each]
    _, p_values = with_best(each, best)
    return [np.insert(found, top, 1.0) for found, top in zip(p_values, best, strict=True)]


def all_pairs_max_t(table: Table) -> np.ndarray:
    """The same of the first metric by max-T, stepped down over all pairs, also those that nobody marks."""
    return _of_pairs(table, lambda rows, pairs: max_t([(rows, pairs)])[1][0])


def all_pairs_holm(table: Table) -> np.ndarray:
    """The same by Holm's correction over all pairs."""
    return _of_pairs(table, lambda rows, pairs: np.array(holm([each.p for each in rows.contrasts(pairs)])))


def _of_pairs(table: Table, test: Callable[[Rows, list[tuple[int, int]]], np.ndarray]) -> np.ndarray:
    rows, pairs = Rows(table[0]), all_pairs(len(table[0]))
    best, found = int(np.argmax(rows.means)), np.ones(len(table[0]))
    for (a, b), p in zip(pairs, test(rows, pairs), strict=True):
        if best in (a, b):
            found[a + b - best] = p
    return found


def holm_over_rows(table: Table) -> np.ndarray:
    """What the bench did at first: Holm over rows and metrics against the best, the best pair twice; first metric."""
    tests: list[tuple[int, int, float]] = []
    for metric, values in enumerate(table):
        rows = Rows(values)
        best, second = np.argsort(-rows.means)[:2]
        others = [(row, int(best)) for row in range(len(values)) if row != best] + [(int(best), int(second))]
        tests += [(metric, a, each.p) for (a, _), each in zip(others, rows.contrasts(others), strict=True)]
    found = np.ones(len(table[0]))
    for (metric, row, _), p in zip(tests, holm([p for *_, p in tests]), strict=True):
        if metric == 0 and row != int(np.argmax(Rows(table[0]).means)):
            found[row] = p
    return found


def hsu(table: Table) -> np.ndarray:
    """Hsu's comparisons with the best (1984): each row in turn is Dunnett's control, one-sided, of all the others."""
    rows, size = Rows(table[0]), len(table[0])
    pairs = [(a, b) for a in range(size) for b in range(size) if a != b]
    score = np.full((size, size), -np.inf)
    for (a, b), each in zip(pairs, rows.contrasts(pairs), strict=True):
        score[a, b] = each.estimate / each.error
    return np.array([(_dunnett(size) >= each).mean() for each in score.max(0)])


@functools.cache
def _dunnett(rows: int) -> np.ndarray:
    """Largest one-sided statistic of rows against one control where none differs, drawn."""
    normal = np.random.default_rng(0).normal(size=(40_000, rows))
    return (normal[:, 1:].max(1) - normal[:, 0]) / 2**0.5


METHODS: dict[str, Callable[[Table], np.ndarray]] = {
    "with the best, stepped down": with_the_best,
    "all pairs, max-T stepped down": all_pairs_max_t,
    "all pairs, Holm": all_pairs_holm,
    "rows and metrics, Holm": holm_over_rows,
    "Hsu's comparisons with the best": hsu,
}


def false_marks(
    rows: int, tables: int, *, users: int = 500, seeds: int = 1, deviation: float = 0.0, metrics: int = 5
) -> dict[str, float]:
    """Share of tables with any mark where no row differs.

    Returns
    -------
    dict
        ``one metric``: of the first metric's family. ``five metrics``: of both families, the second of which is marked
        where the first metric has a mark. ``secondary``: of the second on its own, as if the first metric had one
        (every fourth table).
    """
    rng = np.random.default_rng([rows, seeds, int(1e4 * deviation)])
    wrong = dict.fromkeys(("one metric", "five metrics", "secondary")[: 3 if metrics > 1 else 1], 0)
    for number in range(tables):
        table = planted_table(rng, rows, users, seeds=seeds, deviation=deviation, metrics=metrics)
        first = bool((with_the_best(table) < ALPHA).any())
        wrong["one metric"] += first
        if metrics > 1:
            wrong["five metrics"] += first  # no secondary mark without a primary one
            if number % 4 == 0:
                wrong["secondary"] += any((found < ALPHA).any() for found in _one_family(table[1:]))
    return {name: count / (-(-tables // 4) if name == "secondary" else tables) for name, count in wrong.items()}


def partly_false(tables: int, *, users: int = 500) -> float:
    """Share of tables with a wrong mark where two of six rows are the best, two a little and two far worse."""
    rng = np.random.default_rng(6)
    gains = np.array([1.5, 1.5, 1.3, 1.3, 1.0, 1.0])
    wrong = 0
    for _ in range(tables):
        table = planted_table(rng, 6, users, gains=gains)
        best = int(np.argmax(Rows(table[0]).means))
        wrong += bool((gains[with_the_best(table) < ALPHA] >= gains[best]).any())
    return wrong / tables


def power(
    tables: int, metrics: int, methods: Sequence[str] = tuple(METHODS), *, users: int = 1000, gain: float = 1.16
) -> dict[str, tuple[float, float, float]]:
    """False marks and found differences of each method, on the same tables of five rows.

    Returns
    -------
    dict of str to (float, float, float)
        Share of tables with a mark where no row differs; share of the four worse rows that are marked where one is
        better; and that share at the level at which this method's false marks are 5 %.
    """
    null, planted = ([] for _ in range(2))
    rng = np.random.default_rng(metrics)
    for _ in range(tables):
        for kept, gains in ((null, ()), (planted, (gain,))):
            table = planted_table(rng, 5, users, gains=gains, metrics=metrics)
            kept.append([METHODS[method](table) for method in methods])
    least, found = np.array(null).min(2), np.array(planted)[:, :, 1:]
    level = np.quantile(least, ALPHA, axis=0)
    return {
        method: (
            float((least[:, place] < ALPHA).mean()),
            float((found[:, place] < ALPHA).mean()),
            float((found[:, place] < level[place]).mean()),
        )
        for place, method in enumerate(methods)
    }


def coverage(users: int, rate: float, times: int, *, graded: bool = False) -> float:
    """Share of intervals that hold the true mean."""
    rng = np.random.default_rng([users, int(rate * 100), graded])
    gains = 1 / np.log2(np.arange(2, 12)) if graded else np.ones(10)
    covered = 0
    for _ in range(times):
        values = np.where(rng.random(users) < rate, rng.choice(gains, users), 0.0)
        found = mean_interval(values[None])
        covered += found.low <= rate * gains.mean() <= found.high
    return covered / times


def wrong_equalities(times: int, *, users: int = 4000) -> float:
    """Share of pairs exactly on the margin that are called equal."""
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(times):
        people = np.where(rng.random(users) < 0.3, rng.random(users), 0.0)
        kept = people * (rng.random(users) < 0.98)  # 2 % of what the other row has is missing
        wrong += equivalence(Rows([kept[None], people[None]]), 0, 1).equal
    return wrong / times


def _of_power(tables: int, metrics: int) -> dict[str, float]:
    return {
        f"{method}: {kind}": share
        for method, each in power(tables, metrics).items()
        for kind, share in zip(("false marks", "found", "found at equal false marks"), each, strict=True)
    }


def simulations(tables: int) -> Iterator[tuple[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]]]:
    """Name, function and arguments of each, the longest first."""
    for rows in (60, 16, 8, 5, 2):
        yield f"false marks, {rows} rows", false_marks, (rows, tables // {60: 2}.get(rows, 1)), {}
    for metrics in (5, 1):
        yield f"5 rows, {metrics} metrics", _of_power, (tables // 2, metrics), {}
    for deviation in (0.003, 0.008):
        for rows in (8, 5, 2):
            changes = {"seeds": 3, "deviation": deviation, "metrics": 1}
            yield f"false marks, {rows} rows, 3 seeds, deviation {deviation}", false_marks, (rows, tables), changes
    yield "false marks, 6 rows of three levels", partly_false, (tables,), {}
    for users in (6000, 1000, 100):
        for rate in (0.02, 0.1, 0.5):
            for graded in (False, True):
                kind = "graded values" if graded else "hits"
                name = f"covered means, {kind}, {users} users, rate {rate}"
                yield name, coverage, (users, rate, 2 * tables), {"graded": graded}
    yield "wrong equalities", wrong_equalities, (2 * tables,), {}


def simulated(tables: int, processes: int) -> dict[str, float]:
    """Every share by name."""
    found: dict[str, float] = {}
    with ProcessPoolExecutor(processes) as pool:
        asked = [(name, pool.submit(what, *given, **changes)) for name, what, given, changes in simulations(tables)]
        for name, future in asked:
            shares = future.result()
            for kind, share in shares.items() if isinstance(shares, dict) else [("", shares)]:
                found[f"{name}, {kind}" if kind else name] = round(share, 4)
                print(f"{f'{name}, {kind}' if kind else name:<84} {share:.4f}", flush=True)
    return found


def main(words: list[str] | None = None) -> None:
    """Run every simulation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=4000, help="tables of each simulation (default 4000)")
    parser.add_argument("--processes", type=int, default=2, help="simulations at a time (default 2)")
    parser.add_argument("--json", type=Path, help="write the shares to this file")
    options = parser.parse_args(words)
    found = simulated(options.tables, options.processes)
    if options.json:
        record = {"tables": options.tables, "shares": found, "machine": machine_facts("cpu")}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
