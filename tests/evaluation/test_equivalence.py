"""Equality within a margin: two one-sided tests, and what it takes to show it."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.weightstats import ttost_paired

from recllm_bench.evaluation.equivalence import equivalence
from recllm_bench.evaluation.families import Rows


def test_against_a_known_mean_it_is_the_paired_test_of_statsmodels():
    rng = np.random.default_rng(0)
    values, known = 0.5 + rng.normal(0.003, 0.1, 3000), np.full(3000, 0.5)
    expected, *_ = ttost_paired(values, known, -0.01, 0.01)
    assert equivalence(Rows([values[None], known[None]]), 0, 1).p == pytest.approx(expected)


def test_the_users_it_asks_for_are_enough_four_times_out_of_five():
    rng = np.random.default_rng(1)

    def pair(users: int) -> Rows:
        people = rng.random(users)
        return Rows([(people + rng.normal(0, 0.2, users))[None] for _ in range(2)])

    asked = equivalence(pair(20_000), 0, 1).users
    assert asked is not None
    equal = np.mean([equivalence(pair(asked), 0, 1).equal for _ in range(400)])
    assert 0.72 < equal < 0.88


def test_rows_on_the_margin_are_called_equal_once_in_twenty():
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(1000):
        people = rng.random(2000)
        rows = Rows([(people * 0.98 + rng.normal(0, 0.05, 2000))[None], (people + rng.normal(0, 0.05, 2000))[None]])
        wrong += equivalence(rows, 0, 1).equal
    assert 0.02 < wrong / 1000 < 0.075


def test_it_says_whether_users_or_seeds_are_missing():
    rng = np.random.default_rng(3)
    people = rng.random(50_000)
    apart = np.array([-0.02, 0.0, 0.02])[:, None]
    rows = Rows([people + apart, people + rng.normal(0, 0.01, 50_000) + apart])
    found = equivalence(rows, 0, 1)
    assert not found.equal
    assert found.users is None, "no number of users makes up for seeds that differ so much"
    # Seeds of both sides must bring 2 * 0.0004 / k under (0.01 / 2.926)^2.
    assert found.seeds == pytest.approx(2 * 0.0004 / (0.01 / 2.926) ** 2, rel=0.1)
    same = equivalence(Rows([people[None], people[None]]), 0, 1)
    assert same.equal
