"""Simulate tables and count what their marks, intervals and equalities get wrong.

    python benchmarks/marks.py                  every simulation
    python benchmarks/marks.py --tables 2000    more tables (slower, sharper)
    python benchmarks/marks.py --json FILE      write the shares as well

Values are as rankings give them: sparse, skewed, correlated over models through how hard a user is. Nothing here
decides anything: tables go through ``evaluation.families``, ``intervals`` and ``equivalence``, as the bench's do.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recllm_bench.evaluation.equivalence import equivalence
from recllm_bench.evaluation.families import ALPHA, Rows, all_pairs, max_t
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


def marked(table: Table) -> list[set[int]]:
    """Rows of each metric that are marked against the best: the first metric's family, then that of the others."""
    each = [Rows(values) for values in table]
    pairs = all_pairs(len(table[0]))
    _, first = max_t([(each[0], pairs)])
    found = [_against_best(each[0], pairs, first[0])]
    if len(each) > 1 and found[0]:
        _, others = max_t([(rows, pairs) for rows in each[1:]])
        found += [_against_best(rows, pairs, p) for rows, p in zip(each[1:], others, strict=True)]
    return found + [set()] * (len(each) - len(found))


def _against_best(rows: Rows, pairs: list[tuple[int, int]], p_values: np.ndarray) -> set[int]:
    best = int(np.argmax(rows.means))
    return {a + b - best for (a, b), p in zip(pairs, p_values, strict=True) if best in (a, b) and p < ALPHA}


def marked_as_before(table: Table) -> set[int]:
    """Rows marked in the first metric by what the bench did before: Holm over rows and metrics, the best pair twice."""
    tests: list[tuple[int, int, float]] = []
    for metric, values in enumerate(table):
        rows = Rows(values)
        best, second = np.argsort(-rows.means)[:2]
        others = [(row, int(best)) for row in range(len(values)) if row != best] + [(int(best), int(second))]
        tests += [(metric, a, each.p) for (a, _), each in zip(others, rows.contrasts(others), strict=True)]
    adjusted = holm([p for *_, p in tests])
    return {row for (metric, row, _), p in zip(tests, adjusted, strict=True) if metric == 0 and p < ALPHA}


def false_marks(
    rows: int, metrics: int, tables: int, *, users: int = 500, seeds: int = 1, deviation: float = 0.0
) -> float:
    """Share of tables with any mark where no row differs."""
    rng = np.random.default_rng([rows, metrics, seeds, int(1e4 * deviation)])
    wrong = 0
    for _ in range(tables):
        wrong += any(marked(planted_table(rng, rows, users, seeds=seeds, deviation=deviation, metrics=metrics)))
    return wrong / tables


def power(tables: int, metrics: int, *, users: int = 1000, gain: float = 1.16) -> tuple[float, float]:
    """Share of the four worse rows of five that are marked, now and as before."""
    rng = np.random.default_rng(metrics)
    now = before = 0
    for _ in range(tables):
        table = planted_table(rng, 5, users, gains=(gain,), metrics=metrics)
        now += len(marked(table)[0] - {0})
        before += len(marked_as_before(table) - {0})
    return now / tables / 4, before / tables / 4


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


def simulated(tables: int) -> dict[str, float]:
    """Every share by name."""
    found: dict[str, float] = {}

    def say(name: str, value: float) -> None:
        found[name] = round(value, 4)
        print(f"{name:<58} {value:.4f}", flush=True)

    for rows in (2, 5, 8, 16, 60):
        for metrics in (1, 5):
            count = max(100, tables // max(1, rows * metrics // 16))
            say(f"false marks, {rows} rows, {metrics} metrics", false_marks(rows, metrics, count))
    for deviation in (0.003, 0.008):
        for rows in (2, 5, 8):
            share = false_marks(rows, 1, tables, seeds=3, deviation=deviation)
            say(f"false marks, {rows} rows, 3 seeds, deviation {deviation}", share)
    for metrics in (1, 5):
        now, before = power(tables // 2, metrics)
        say(f"found differences, 5 rows, {metrics} metrics", now)
        say(f"found differences, 5 rows, {metrics} metrics, as before", before)
    for users in (100, 1000, 6000):
        for rate in (0.02, 0.1, 0.5):
            for graded in (False, True):
                kind = "graded values" if graded else "hits"
                share = coverage(users, rate, 2 * tables, graded=graded)
                say(f"covered means, {kind}, {users} users, rate {rate}", share)
    say("wrong equalities", wrong_equalities(2 * tables))
    return found


def main() -> None:
    """Run every simulation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=1000, help="tables of each simulation (default 1000)")
    parser.add_argument("--json", type=Path, help="write the shares to this file")
    options = parser.parse_args()
    found = simulated(options.tables)
    if options.json:
        record = {"tables": options.tables, "shares": found, "machine": machine_facts("cpu")}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
