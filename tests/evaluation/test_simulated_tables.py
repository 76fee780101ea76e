"""Whole simulations of tables: false marks, found differences, coverage, wrong equalities."""

from __future__ import annotations

import pytest
from scipy import stats

from benchmarks.marks import coverage, false_marks, power, wrong_equalities


def most(times: int, share: float) -> float:
    """Largest share that this many trials show once in a thousand where the true one is ``share``."""
    return float(stats.binom.isf(0.001, times, share)) / times


def test_a_few_tables():
    assert false_marks(4, 3, 100) <= most(100, 0.05)
    assert 0 < coverage(100, 0.1, 50) <= 1
    now, before = power(30, 5)
    assert 0.3 < now < 0.8 and now >= before


@pytest.mark.slow
@pytest.mark.parametrize("metrics", [1, 5])
@pytest.mark.parametrize("rows", [2, 5, 8, 16, 60])
def test_false_marks(rows: int, metrics: int):
    tables = {60: 100, 16: 400}.get(rows, 1000)
    assert false_marks(rows, metrics, tables) <= most(tables, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("deviation", [0.003, 0.008])
@pytest.mark.parametrize("rows", [2, 5, 8])
def test_false_marks_over_seeds(rows: int, deviation: float):
    assert false_marks(rows, 1, 1000, seeds=3, deviation=deviation) <= most(1000, 0.055)


@pytest.mark.slow
@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("users", [100, 1000, 6000])
def test_coverage(users: int, rate: float, graded: bool):
    assert 0.93 <= coverage(users, rate, 4000, graded=graded) <= 0.97


@pytest.mark.slow
def test_power_is_no_lower_than_before():
    now, before = power(400, 5)
    assert now >= before


@pytest.mark.slow
def test_wrong_equalities():
    assert wrong_equalities(4000) <= most(4000, 0.05)
