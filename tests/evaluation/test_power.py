"""What a plan promises is what simulated tables find."""

from __future__ import annotations

import numpy as np
import pytest

from recllm_bench.errors import BenchError
from recllm_bench.evaluation.families import Rows, with_best
from recllm_bench.evaluation.power import Plan


def hits(rng: np.random.Generator, rates: list[float], users: int, agreement: float) -> list[np.ndarray]:
    """Rates of rows whose hits are correlated over users: with a chance, a user's own draw decides in every row."""
    shared, own = rng.random(users), rng.random((len(rates), users))
    common = rng.random((len(rates), users)) < agreement**0.5
    return [(np.where(common[row], shared, own[row]) < rate).astype(float)[None] for row, rate in enumerate(rates)]


def test_the_planned_difference_is_found_four_times_out_of_five():
    rng, plan = np.random.default_rng(0), Plan(users=2000, rows=4)
    more = plan.difference(0.1)
    found = 0
    for _ in range(150):
        rows = Rows(hits(rng, [0.1, 0.1, 0.1, 0.1 + more], 2000, 0.5))
        best = int(rows.means.argmax())
        _, (p_values,) = with_best([rows], [best])
        found += best == 3 and p_values[0] < 0.05
    assert 0.72 < found / 150 < 0.95, "a plan takes the threshold of the first mark; later ones need less"


def test_more_of_anything_tells_more():
    plan = Plan(users=1000, seeds=3)
    assert Plan(users=4000, seeds=3).difference(0.1) < plan.difference(0.1)
    assert Plan(users=1000, seeds=9).difference(0.1) < plan.difference(0.1)
    assert Plan(users=1000, seeds=3, rows=20).difference(0.1) > plan.difference(0.1)
    assert Plan(users=1000, seeds=3, deviation=0.1).difference(0.1) > plan.difference(0.1)


def test_nonsense_is_refused():
    for changes in ({"users": 1}, {"rows": 1}, {"seeds": 0}, {"deviation": 2.0}, {"agreement": 1.0}):
        with pytest.raises(BenchError):
            Plan(**{"users": 100, **changes})
