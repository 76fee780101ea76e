"""Whether order matters: planted data with a known answer, and the parts against plain readings."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from recllm_bench.data.histories import Histories
from recllm_bench.data.markov import MarkovChain, Places
from recllm_bench.data.sequential_structure import (
    _seen_items,
    _tied_from,
    expected_gains,
    sequential_structure,
)
from recllm_bench.data.splits import leave_one_out
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.metrics import per_user
from recllm_bench.evaluation.places import Ranks
from tests.conftest import planted_histories


def cyclic(n_users: int = 300, n_items: int = 60, length: int = 15) -> Histories:
    """Everybody walks the same circle of items, from a starting point of their own."""
    rng = np.random.default_rng(0)
    starts = rng.integers(0, n_items, n_users)
    return Histories.from_rows([((start + np.arange(length)) % n_items + 1).tolist() for start in starts], n_items)


def independent(n_users: int = 3000, n_items: int = 60, length: int = 12, repeats: bool = True) -> Histories:
    """Items drawn from one long-tailed distribution, whatever came before."""
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, n_items + 1)
    weights /= weights.sum()
    if repeats:
        rows = rng.choice(n_items, (n_users, length), p=weights) + 1
    else:  # Gumbel's trick: draws without replacement
        rows = np.argsort(-(np.log(weights) + rng.gumbel(size=(n_users, n_items))), axis=1)[:, :length] + 1
    return Histories.from_rows(rows.tolist(), n_items)


def test_a_planted_order_is_found():
    found = sequential_structure(cyclic())
    assert found.true == {"HR@10": 1.0, "NDCG@10": 1.0}
    assert found.change["NDCG@10"] < -0.6
    assert found.fall_low > 0.5
    assert found.verdict == "order carries signal"
    assert (found.cases, found.users, found.tied_targets, found.ties_shuffled) == (300, 300, None, None)


def test_circles_that_repeat_keep_the_history_among_the_candidates():
    found = sequential_structure(cyclic(n_items=10, length=25))
    assert found.repeated_targets == 1.0
    assert not found.history_excluded
    assert found.true["NDCG@10"] == 1.0
    assert found.change["NDCG@10"] < -0.3


@pytest.mark.parametrize("repeats", [True, False])
def test_independent_draws_show_hardly_any_order(repeats):
    found = sequential_structure(independent(repeats=repeats))
    assert found.history_excluded is not repeats
    assert abs(found.change["NDCG@10"]) < 0.05
    assert found.fall_low < 0.01
    assert found.verdict == "hardly any"


def test_the_planted_chain_of_the_other_tests_carries_signal():
    assert sequential_structure(planted_histories()).verdict == "order carries signal"


def test_the_same_seed_gives_the_same_numbers():
    histories = planted_histories(80)
    assert sequential_structure(histories, seed=3) == sequential_structure(histories, seed=3)
    assert sequential_structure(histories, seed=3) != sequential_structure(histories, seed=4)


def test_drawing_the_last_input_is_shuffling_the_history():
    """Real permutations of whole histories give the same mean as the draws, within its standard error."""
    histories = planted_histories(150, 40, 8)
    found = sequential_structure(histories, shuffles=200)
    split = leave_one_out(histories)
    chain = MarkovChain.fit(histories, split.train_ends)
    rng = np.random.default_rng(5)
    means = []
    for _ in range(200):
        last, offsets, seen = [], [0], []
        for user, end, target in zip(split.test.users, split.test.ends, split.test.targets, strict=True):
            inputs = rng.permutation(histories.items[histories.offsets[user - 1] : end])
            last.append(int(inputs[-1]))
            seen += sorted({*inputs.tolist()} - {int(target)})
            offsets.append(len(seen))
        excluded = (np.array(offsets), np.array(seen)) if found.history_excluded else None
        places = chain.places(np.array(last), split.test.targets, excluded)
        means.append(expected_gains(places)["NDCG@10"].mean())
    error = np.std(means, ddof=1) * (2 / 200) ** 0.5
    assert abs(np.mean(means) - found.shuffled["NDCG@10"]) < 4 * error


def test_interval_and_change_follow_from_the_users():
    """The true row and the fall, recomputed user by user."""
    histories = planted_histories(100, 30, 10)
    found = sequential_structure(histories, shuffles=1, seed=9)
    split = leave_one_out(histories)
    chain = MarkovChain.fit(histories, split.train_ends)
    starts = histories.offsets[split.test.users - 1]
    offsets, seen, _ = _seen_items(histories, starts, split.test.ends, split.test.targets)
    excluded = (offsets, seen) if found.history_excluded else None
    drawn = np.random.default_rng(9).integers(starts, split.test.ends)
    true, shuffled = (
        expected_gains(chain.places(histories.items[where], split.test.targets, excluded))["NDCG@10"]
        for where in (split.test.ends - 1, drawn)
    )
    lost = true - shuffled
    assert found.true["NDCG@10"] == pytest.approx(true.mean())
    assert found.fall == pytest.approx(lost.mean())
    assert found.fall_high - found.fall == pytest.approx(1.96 * lost.std(ddof=1) / 10, rel=1e-3)
    assert found.change["NDCG@10"] == pytest.approx(shuffled.mean() / true.mean() - 1)
    assert found.change_spread["NDCG@10"] is None, "one shuffle has no spread"


def test_gains_equal_the_metrics_of_the_bench():
    rng = np.random.default_rng(0)
    higher, tied = rng.integers(0, 14, 60), rng.integers(1, 9, 60)
    ranks = Ranks(np.arange(60), np.ones(60, np.int32), higher, tied, np.full(60, 40))
    wanted = per_user(ranks, ("HR", "NDCG"), (10,), warn=False)
    for name, values in expected_gains(Places(higher, tied)).items():
        np.testing.assert_allclose(values, wanted[name])


def test_seen_items_are_those_of_the_history_without_the_target():
    histories = Histories.from_rows([[3, 1, 3, 2, 3], [4, 4, 4], [1, 2]], n_items=4)
    split = leave_one_out(histories)
    starts = histories.offsets[split.test.users - 1]
    offsets, seen, repeated = _seen_items(histories, starts, split.test.ends, split.test.targets)
    assert [seen[a:b].tolist() for a, b in pairwise(offsets)] == [[1, 2], []]
    assert repeated.tolist() == [True, True]


def test_tied_inputs_are_the_run_before_the_target():
    rows = [[1, 2, 3, 4, 5], [1, 2, 3], [1, 2, 3, 4]]
    times = [[7, 8, 8, 8, 9], [9, 9, 9], [9, 10, 11, 11]]
    histories = Histories.from_rows(rows, times=times)
    ends = leave_one_out(histories).test.ends
    assert (_tied_from(histories, ends) - histories.offsets[:-1]).tolist() == [1, 0, 2]


def test_order_that_only_the_file_has_shows_in_the_tie_row():
    """All times equal: shuffling ties is shuffling everything, and every target is tied."""
    plain = cyclic()
    histories = Histories(plain.items, plain.offsets, plain.n_items, times=np.zeros(len(plain.items), np.int64))
    found = sequential_structure(histories)
    assert found.tied_targets == 1.0
    assert found.ties_shuffled["NDCG@10"] == pytest.approx(found.shuffled["NDCG@10"], abs=0.05)
    distinct = Histories(plain.items, plain.offsets, plain.n_items, times=np.arange(len(plain.items)))
    assert sequential_structure(distinct).ties_shuffled is None


def test_many_cases_are_sampled():
    found = sequential_structure(cyclic(), max_cases=40)
    assert (found.cases, found.users) == (40, 300)
    assert found.true["HR@10"] == 1.0


def test_nothing_to_find_is_no_verdict():
    rows = [[user * 20 + place + 1 for place in range(20)] for user in range(15)]
    found = sequential_structure(Histories.from_rows(rows, n_items=5000))
    assert found.true["NDCG@10"] == 0.0
    assert found.verdict == "cannot tell"
    assert found.change == {"HR@10": None, "NDCG@10": None}


def test_too_few_hits_are_no_verdict():
    """A perfect circle, but not enough users to say so."""
    assert sequential_structure(cyclic(), max_cases=29).verdict == "cannot tell"
    assert sequential_structure(cyclic(), max_cases=30).verdict == "order carries signal"


def test_without_three_interactions_there_is_no_check():
    with pytest.raises(BenchError, match="no user has enough interactions"):
        sequential_structure(Histories.from_rows([[1, 2], [2, 1]]))
