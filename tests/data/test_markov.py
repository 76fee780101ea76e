"""The Markov chain against a brute-force one that builds every score."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from recllm_bench.data import markov
from recllm_bench.data.histories import Histories
from recllm_bench.data.markov import MarkovChain
from recllm_bench.data.splits import leave_one_out


def random_histories(seed: int, n_users: int = 30, n_items: int = 12, longest: int = 9) -> Histories:
    """Small random histories with repeats, ties in popularity, users too short for a case, items nobody consumed."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, n_items - 1, rng.integers(1, longest)).tolist() for _ in range(n_users)]
    return Histories.from_rows(rows, n_items=n_items)


class PlainChain:
    """Witten-Bell smoothing as the formula reads, in exact fractions, one Python loop after another."""

    def __init__(self, rows: list[list[int]]) -> None:
        flat = [item for row in rows for item in row]
        self.popularity = {item: Fraction(flat.count(item), len(flat)) for item in flat}
        self.pairs: dict[tuple[int, int], int] = {}
        for row in rows:
            for pair in pairwise(row):
                self.pairs[pair] = self.pairs.get(pair, 0) + 1

    def probability(self, previous: int, item: int) -> Fraction:
        counts = [count for (x, _), count in self.pairs.items() if x == previous]
        popular = self.popularity.get(item, Fraction(0))
        if not counts:
            return popular
        different = len(counts)
        return (self.pairs.get((previous, item), 0) + different * popular) / Fraction(sum(counts) + different)

    def place(self, previous: int, target: int, candidates: list[int]) -> tuple[int, int]:
        mine = self.probability(previous, target)
        scores = [self.probability(previous, item) for item in candidates]
        return sum(score > mine for score in scores), sum(score == mine for score in scores)


@pytest.mark.parametrize("seed", range(12))
def test_places_equal_those_of_every_score_computed(seed):
    histories = random_histories(seed)
    split = leave_one_out(histories)
    chain = MarkovChain.fit(histories, split.train_ends)
    plain = PlainChain(
        [histories.items[a:b].tolist() for a, b in zip(histories.offsets[:-1], split.train_ends, strict=True)]
    )
    items = range(1, histories.n_items + 1)
    previous, targets = (part.ravel() for part in np.meshgrid(np.arange(histories.n_items + 1), np.array(items)))
    found = chain.places(previous, targets)
    for case, (x, target) in enumerate(zip(previous.tolist(), targets.tolist(), strict=True)):
        assert (found.higher[case], found.tied[case]) == plain.place(x, target, list(items)), (x, target)


@pytest.mark.parametrize("block", [1, 3, 1 << 21])
@pytest.mark.parametrize("seed", range(4))
def test_excluded_items_are_no_candidates(seed, block, monkeypatch):
    monkeypatch.setattr(markov, "_BLOCK", block)
    histories = random_histories(seed)
    split = leave_one_out(histories)
    chain = MarkovChain.fit(histories, split.train_ends)
    rng = np.random.default_rng(seed)
    previous, targets = rng.integers(0, 13, 40), rng.integers(1, 13, 40)
    left_out = [
        [] if case % 5 == 0 else rng.permutation([i for i in range(1, 13) if i != target])[: case % 12].tolist()
        for case, target in enumerate(targets.tolist())
    ]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in left_out])])
    flat = np.array([item for row in left_out for item in row], dtype=np.int64)
    found = chain.places(previous, targets, (offsets, flat))
    plain = PlainChain(
        [histories.items[a:b].tolist() for a, b in zip(histories.offsets[:-1], split.train_ends, strict=True)]
    )
    for case, row in enumerate(left_out):
        candidates = [item for item in range(1, 13) if item not in row]
        wanted = plain.place(int(previous[case]), int(targets[case]), candidates)
        assert (found.higher[case], found.tied[case]) == wanted


def test_the_fit_reads_the_training_prefixes_only():
    """Poison: every validation and test item is replaced by another; the chain must not notice."""
    histories = random_histories(1, n_users=50)
    split = leave_one_out(histories)
    held_out = np.ones(len(histories.items), dtype=bool)
    for start, end in zip(histories.offsets[:-1], split.train_ends, strict=True):
        held_out[start:end] = False
    assert held_out.sum() == len(split.valid) + len(split.test)
    poisoned = np.where(held_out, 12, histories.items).astype(np.int32)
    clean, other = (
        MarkovChain.fit(Histories(items, histories.offsets, 12), split.train_ends)
        for items in (histories.items, poisoned)
    )
    assert clean.popularity.sum() == (~held_out).sum()
    for name in ("popularity", "keys", "counts"):
        np.testing.assert_array_equal(getattr(clean, name), getattr(other, name))
    seen_all = MarkovChain.fit(Histories(poisoned, histories.offsets, 12), histories.offsets[1:])
    assert seen_all.popularity[12] > 0, "the poison would show"


def test_no_transition_runs_from_one_user_to_the_next():
    chain = MarkovChain.fit(Histories.from_rows([[1, 2], [3], [], [4, 5]]), np.array([2, 3, 3, 5]))
    assert chain.keys.tolist() == [1 * 6 + 2, 4 * 6 + 5]
    assert chain.popularity.tolist() == [0, 1, 1, 1, 1, 1]


def test_a_chain_without_any_transition_ranks_by_popularity():
    chain = MarkovChain.fit(Histories.from_rows([[1], [1], [2]], n_items=4), np.array([1, 2, 3]))
    found = chain.places(np.array([1, 1, 1]), np.array([1, 2, 3]))
    assert found.higher.tolist() == [0, 1, 2]
    assert found.tied.tolist() == [1, 1, 2]
