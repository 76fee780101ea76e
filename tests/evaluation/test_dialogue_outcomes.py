"""S@K and AT against hand-worked outcomes and their bounds."""

from __future__ import annotations

import numpy as np
import pytest

from recllm_bench.errors import BenchError
from recllm_bench.evaluation.dialogue_outcomes import (
    FAILED,
    INVALID,
    dialogue_values,
    success_at,
    turn_counts,
    valid_outcomes,
)
from tests.reporting.published_audit import at_bounds

OUTCOMES = np.array([1, 3, FAILED])


@pytest.mark.parametrize(
    ("at_failure", "expected"),
    [("max_turns", 3.0), ("exclude", 2.0), ("max_turns_plus_1", 10 / 3), ("max_turns+1", 10 / 3)],
)
def test_average_turns(at_failure: str, expected: float):
    assert turn_counts(OUTCOMES, 5, at_failure).mean() == pytest.approx(expected)


def test_success():
    assert success_at(OUTCOMES, 3).mean() == success_at(OUTCOMES, 5).mean() == pytest.approx(2 / 3)
    assert success_at(OUTCOMES, 1).tolist() == [1, 0, 0]


@pytest.mark.parametrize("seed", range(20))
def test_bounds_hold_for_random_outcomes(seed: int):
    turns = np.random.default_rng(seed).integers(0, 6, 37)
    low, high = at_bounds(success_at(turns, 3).mean(), success_at(turns, 5).mean())
    assert low - 1e-9 <= turn_counts(turns, 5).mean() <= high + 1e-9


def test_bounds_are_reached():
    early, late = np.array([1, 4, 0]), np.array([3, 5, 0])
    low, high = at_bounds(1 / 3, 2 / 3)
    assert turn_counts(early, 5).mean() == pytest.approx(low)
    assert turn_counts(late, 5).mean() == pytest.approx(high)


def test_published_bounds():
    """The range given for Llama-3.1-8B on MovieLens (S@3 = 0.188, S@5 = 0.54)."""
    assert at_bounds(0.188, 0.54) == pytest.approx((3.896, 4.624))


def test_values():
    values = dialogue_values(np.array([1, 3, FAILED] * 100 + [INVALID]), 5)
    assert {name: column.mean() for name, column in values.items()} == pytest.approx(
        {"S@3": 2 / 3, "S@5": 2 / 3, "AT": 3.0}
    )
    assert set(dialogue_values(np.array([1]), 3)) == {"S@3", "AT"}


def test_mistakes():
    with pytest.raises(BenchError, match="invalid"):
        valid_outcomes(np.array([INVALID, 1, 2]))
    with pytest.raises(BenchError, match="turn 6"):
        turn_counts(np.array([6]), 5)
    with pytest.raises(BenchError, match="at_failure"):
        turn_counts(OUTCOMES, 5, "zero")
    with pytest.raises(BenchError, match="S@3"):
        at_bounds(0.5, 0.4)
    assert not len(turn_counts(np.array([FAILED]), 5, "exclude"))
