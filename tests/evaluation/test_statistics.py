"""Intervals and tests against closed forms, brute force and scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from recllm_bench.errors import BenchError
from recllm_bench.evaluation.statistics import (
    align_pairs,
    bootstrap,
    hierarchical_bootstrap,
    hierarchical_difference,
    holm,
    mcnemar,
    paired_bootstrap,
    resampled_means,
    sign_flip,
    wilcoxon,
    wilson,
)


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_bootstrap_agrees_with_scipy(method: str, kind: str):
    rng = np.random.default_rng(1)
    values = (rng.random(300) < 0.2).astype(float) if kind == "binary" else rng.exponential(size=300)
    ours = bootstrap(values, method=method)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="BCa" if method == "bca" else "percentile", rng=rng
    ).confidence_interval
    # Resampling noise of a quantile is a few hundredths of the standard error; means of 0 and 1 come in steps of 1/n.
    slack = 0.12 * values.std() / math.sqrt(300) + (1.01 / 300 if kind == "binary" else 0)
    assert ours.mean == values.mean()
    assert ours.low == pytest.approx(theirs.low, abs=slack)
    assert ours.high == pytest.approx(theirs.high, abs=slack)


def test_both_ways_of_drawing_have_the_moments_of_resampling():
    rng = np.random.default_rng(2)
    few = rng.integers(0, 4, 400) / 3
    many = few + rng.normal(0, 1e-6, 400)  # distinct values: users are drawn one by one
    for values in (few, many):
        means = resampled_means(values)
        assert means.mean() == pytest.approx(values.mean(), abs=4 * values.std() / math.sqrt(400 * 10_000))
        assert means.std() == pytest.approx(values.std() / math.sqrt(400), rel=0.03)


def test_bootstrap_is_repeatable_and_refuses_nonsense():
    values = np.random.default_rng(0).random(50)
    assert bootstrap(values) == bootstrap(values)
    with pytest.raises(BenchError, match="not a number"):
        bootstrap(np.array([1.0, np.nan]))
    with pytest.raises(BenchError, match="at least one user"):
        bootstrap(np.array([]))
    with pytest.raises(BenchError, match="method"):
        bootstrap(values, method="jackknife")


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


def test_identical_models_differ_by_nothing():
    values = np.random.default_rng(0).random(500)
    same = paired_bootstrap(values, values)
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert sign_flip(values, values) == 1
    assert wilcoxon(values, values) == 1


def test_a_planted_shift_is_detected():
    rng = np.random.default_rng(3)
    base = (rng.random(5000) < 0.3).astype(float)
    better = np.where((base == 0) & (rng.random(5000) < 0.05 / 0.7), 1.0, base)
    found = paired_bootstrap(better, base)
    assert found.low > 0
    assert found.mean == pytest.approx(0.05, abs=0.01)
    assert found.p < 0.001
    assert sign_flip(better, base) < 0.001
    assert mcnemar(better, base) < 0.001
    assert wilcoxon(better, base) < 0.001


def test_pairing_finds_what_separate_intervals_hide():
    rng = np.random.default_rng(4)
    base = rng.random(2000)
    better = base + 0.01 + rng.normal(0, 0.02, 2000)
    a, b = bootstrap(better), bootstrap(base)
    assert a.low < b.high  # the intervals overlap
    assert paired_bootstrap(better, base).low > 0


@pytest.mark.parametrize("values", [[0.5, -0.25, 1.0, 0.75, 0.1], [1, 1, 1, -1, 1, 1, 1, 1, 0]])
def test_sign_flip_against_all_signs(values: list[float]):
    difference = np.array(values, dtype=float)
    sums = [abs(np.dot(signs, difference)) for signs in itertools.product((-1, 1), repeat=len(difference))]
    exact = np.mean([value >= abs(difference.sum()) - 1e-12 for value in sums])
    got = sign_flip(difference, np.zeros(len(difference)), draws=40_000)
    assert got == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 40_000) + 1e-4)


def test_null_p_values_are_uniform():
    rng = np.random.default_rng(7)
    p_values = []
    for seed in range(100):
        difference = rng.normal(size=60)
        p_values.append(sign_flip(difference, np.zeros(60), draws=400, seed=seed))
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


def test_mcnemar_by_hand():
    # 8 discordant pairs, 7 in favour: p = 2 * (C(8,0) + C(8,1)) / 2^8.
    a = np.array([1] * 7 + [0] + [1] * 5)
    b = np.array([0] * 7 + [1] + [1] * 5)
    assert mcnemar(a, b) == pytest.approx(2 * 9 / 256)
    with pytest.raises(BenchError, match="0 and 1"):
        mcnemar(a / 2, b)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm({"x": 0.9, "y": 0.8}) == {"x": 1.0, "y": 1.0}
    assert holm([]) == []


def test_hierarchical_interval_holds_seed_noise():
    rng = np.random.default_rng(5)
    people = rng.random(400)
    quiet = hierarchical_bootstrap(np.stack([people] * 4), resamples=2000)
    noisy = hierarchical_bootstrap(np.stack([people + shift for shift in (-0.1, -0.05, 0.05, 0.1)]), resamples=2000)
    assert quiet.half_width == pytest.approx(bootstrap(people).half_width, rel=0.1)
    # Variance of the resampled mean: users' part plus the seeds' part 0.00625 / 4.
    expected = 1.96 * math.sqrt(people.var() / 400 + 0.00625 / 4)
    assert noisy.half_width == pytest.approx(expected, rel=0.1)
    one_seed = hierarchical_bootstrap(people[None], resamples=2000)
    assert one_seed.half_width == pytest.approx(quiet.half_width, rel=0.05)


def test_a_difference_over_seeds_is_that_of_resampling_written_down():
    rng = np.random.default_rng(6)
    people = rng.random(150)
    a = people + 0.04 + rng.normal(0, 0.02, (3, 1)) + rng.normal(0, 0.05, (3, 150))
    b = people + rng.normal(0, 0.02, (2, 1)) + rng.normal(0, 0.05, (2, 150))
    found = hierarchical_difference(a, b)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    means = []
    for _ in range(4000):  # seeds of each side, then the same users for both
        users = rng.integers(0, 150, 150)
        drawn = [side[rng.integers(0, len(side), len(side))][:, users].mean() for side in (a, b)]
        means.append(drawn[0] - drawn[1])
    low, high = np.quantile(means, (0.025, 0.975))
    slack = 0.06 * (high - low)
    assert (found.low, found.high) == (pytest.approx(low, abs=slack), pytest.approx(high, abs=slack))
    share = min(np.mean(np.array(means) <= 0), np.mean(np.array(means) >= 0))
    assert found.p == pytest.approx(2 * share, abs=0.02)
    # With one seed a side it is the paired bootstrap, and seeds that disagree take significance away.
    one, paired = hierarchical_difference(a[:1], b[:1]), paired_bootstrap(a[0], b[0])
    assert (one.low, one.high) == (pytest.approx(paired.low, abs=1e-3), pytest.approx(paired.high, abs=1e-3))
    apart = np.stack([people + shift for shift in (-0.05, 0.0, 0.08)])
    assert paired_bootstrap(apart.mean(0), people).p < 0.01 < hierarchical_difference(apart, people[None]).p
    for bad in (np.ones(3), np.ones((0, 3)), np.full((2, 3), np.nan)):
        with pytest.raises(BenchError):
            hierarchical_difference(bad, np.ones((1, 3)))
    with pytest.raises(BenchError, match="same users"):
        hierarchical_difference(np.ones((2, 3)), np.ones((1, 4)))


def test_pairs_are_aligned_or_refused():
    first, second = np.array([3, 1, 2]), np.array([2, 3, 1])
    rows_a, rows_b = align_pairs(first, second, ("p", "p"))
    assert first[rows_a].tolist() == second[rows_b].tolist()
    with pytest.raises(BenchError, match="different users"):
        align_pairs(first, np.array([1, 2, 4]), ("p", "p"))
    with pytest.raises(BenchError, match="protocol"):
        align_pairs(first, second, ("p", "q"))
    with pytest.raises(BenchError, match="same users"):
        paired_bootstrap(np.ones(3), np.ones(4))
