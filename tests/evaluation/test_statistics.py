"""Tests of one pair against closed forms, brute force, scipy and statsmodels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from recllm_bench.errors import BenchError
from recllm_bench.evaluation.statistics import (
    align_pairs,
    bootstrap,
    holm,
    mcnemar,
    resampled_means,
    sign_flip,
    wilcoxon,
)


@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_bootstrap_agrees_with_scipy(kind: str):
    rng = np.random.default_rng(1)
    values = (rng.random(300) < 0.2).astype(float) if kind == "binary" else rng.exponential(size=300)
    ours = bootstrap(values)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=rng).confidence_interval
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


def test_identical_models_differ_by_nothing():
    values = np.random.default_rng(0).random(500)
    assert sign_flip(values, values) == 1
    assert wilcoxon(values, values) == 1


def test_a_planted_shift_is_detected():
    rng = np.random.default_rng(3)
    base = (rng.random(5000) < 0.3).astype(float)
    better = np.where((base == 0) & (rng.random(5000) < 0.05 / 0.7), 1.0, base)
    assert sign_flip(better, base) < 0.001
    assert mcnemar(better, base) < 0.001
    assert wilcoxon(better, base) < 0.001


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
    table = [[5, 7], [1, 0]]  # both, only a; only b, neither
    assert mcnemar(a, b) == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)
    with pytest.raises(BenchError, match="0 and 1"):
        mcnemar(a / 2, b)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    p_values = np.random.default_rng(8).random(30) ** 3
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_pairs_are_aligned_or_refused():
    first, second = np.array([3, 1, 2]), np.array([2, 3, 1])
    rows_a, rows_b = align_pairs(first, second, ("p", "p"))
    assert first[rows_a].tolist() == second[rows_b].tolist()
    with pytest.raises(BenchError, match="different users"):
        align_pairs(first, np.array([1, 2, 4]), ("p", "p"))
    with pytest.raises(BenchError, match="protocol"):
        align_pairs(first, second, ("p", "q"))
    with pytest.raises(BenchError, match="same users"):
        wilcoxon(np.ones(3), np.ones(4))
