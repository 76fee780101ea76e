"""Intervals of means: Wilson's for rates and graded values, Student's for others; coverage on sparse data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from recllm_bench.errors import BenchError
from recllm_bench.evaluation.intervals import mean_interval, wilson


@pytest.mark.parametrize(
    ("n", "rate", "low", "high"), [(100, 0.40, 0.31, 0.50), (1000, 0.60, 0.57, 0.63), (500, 0.14, 0.11, 0.17)]
)
def test_wilson_of_published_rates(n: int, rate: float, low: float, high: float):
    got = wilson(rate * n, n)
    assert got == pytest.approx((low, high), abs=0.006)
    exact = stats.binomtest(round(rate * n), n).proportion_ci(method="wilson")
    assert got == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_wilson_at_the_ends():
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10)[1] == 1
    with pytest.raises(BenchError, match="no rate"):
        wilson(11, 10)


@pytest.mark.parametrize("hits", [0, 2, 37, 943])
def test_a_rate_gets_wilsons_interval(hits: int):
    found = mean_interval((np.arange(943) < hits).astype(float)[None])
    assert (found.low, found.high) == pytest.approx(proportion_confint(hits, 943, method="wilson"), rel=2e-3)
    assert found.high > found.low, "no hits are no certainty"


def test_graded_values_get_the_interval_of_hits_of_one_worth():
    rng = np.random.default_rng(0)
    values = np.where(rng.random(500) < 0.1, 0.4, 0.0)
    found, hits = mean_interval(values[None]), int((values > 0).sum())
    low, high = proportion_confint(hits, 500, method="wilson")
    assert (found.low, found.high) == pytest.approx((0.4 * low, 0.4 * high), rel=5e-3)
    many = rng.beta(2, 3, 100_000)  # many users: the normal interval
    found = mean_interval(many[None])
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * many.std() / 100_000**0.5, rel=1e-3)


def test_turns_get_students_interval():
    turns = np.random.default_rng(1).integers(1, 6, 60).astype(float)
    limits = stats.ttest_1samp(turns, 0).confidence_interval()
    found = mean_interval(turns[None])
    assert (found.low, found.high) == pytest.approx((limits.low, limits.high))
    assert (found.mean, found.n) == (pytest.approx(turns.mean()), 60)


def test_seeds_widen_an_interval():
    rng = np.random.default_rng(2)
    people = rng.random(2000) / 2
    calm, moved = np.stack([people] * 3), np.stack([people + shift for shift in (0.0, 0.02, 0.04)])
    one = mean_interval(people[None])
    assert mean_interval(calm).as_dict() == pytest.approx(one.as_dict(), rel=0.01)
    found = mean_interval(moved)
    error = (people.var() / 2000 + 0.0004 / 3) ** 0.5
    freedom = error**4 / ((0.0004 / 3) ** 2 / 2 + (people.var() / 2000) ** 2 / 1999)
    assert (found.high - found.low) / 2 == pytest.approx(stats.t.isf(0.025, freedom) * error, rel=0.04)


def test_nonsense_is_refused():
    for values in (np.ones((0, 3)), np.ones(3), np.full((1, 2), np.nan)):
        with pytest.raises(BenchError):
            mean_interval(values)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("graded", [False, True])
def test_intervals_cover_at_a_hundred_users(rate: float, graded: bool):
    rng = np.random.default_rng(3)
    gains = 1 / np.log2(np.arange(2, 12)) if graded else np.ones(10)
    covered, times = 0, 1000
    for _ in range(times):
        values = np.where(rng.random(100) < rate, rng.choice(gains, 100), 0.0)
        found = mean_interval(values[None])
        covered += found.low <= rate * gains.mean() <= found.high
    assert 0.915 < covered / times < 0.985
