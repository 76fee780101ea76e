"""Samples of users and candidate files: distinct, untouched, the same for every model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recllm_bench.artifacts import ArtifactStore
from recllm_bench.data.histories import Histories
from recllm_bench.data.splits import Cases, Split
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.candidates import evaluated_cases, protocol_candidates, sample_candidates
from recllm_bench.evaluation.protocols import PROTOCOLS


def planted(n_users: int = 50, n_items: int = 300, length: int = 8, seed: int = 0) -> tuple[Histories, Cases]:
    rng = np.random.default_rng(seed)
    histories = Histories.from_rows([rng.integers(1, n_items + 1, length) for _ in range(n_users)], n_items=n_items)
    ends = histories.offsets[1:] - 1
    return histories, Cases(np.arange(1, n_users + 1), ends, histories.items[ends].astype(np.int32))


@pytest.mark.parametrize("n_items", [108, 130, 300, 5000])
def test_lists_are_distinct_untouched_and_hold_the_target_once(n_items: int):
    histories, cases = planted(n_items=n_items)
    items = sample_candidates(histories, cases, 100, seed=1).items
    assert items.shape == (50, 101)
    for row, user in enumerate(cases.users):
        assert len(set(items[row].tolist())) == 101
        assert items[row, 0] == cases.targets[row]
        assert not set(items[row, 1:].tolist()) & set(histories.of(user).tolist())
        assert items[row].min() >= 1
        assert items[row].max() <= n_items


def test_a_foreign_target_is_no_negative():
    histories, cases = planted(n_items=200)
    moved = replace(cases, targets=np.roll(cases.targets, 1))
    items = sample_candidates(histories, moved, 100, seed=1).items
    assert ((items == items[:, :1]).sum(1) == 1).all()


@pytest.mark.parametrize("n_items", [60, 24])
def test_every_untouched_item_is_equally_likely(n_items: int):
    """Rejection (many left) and shuffling (few left) draw uniformly: binomial bounds of 5 standard errors."""
    histories = Histories.from_rows([[1, 2, 3]] * 3000, n_items=n_items)
    cases = Cases(np.arange(1, 3001), histories.offsets[1:] - 1, np.full(3000, 3, np.int32))
    items = sample_candidates(histories, cases, 10, seed=3).items[:, 1:]
    counts = np.bincount(items.ravel(), minlength=n_items + 1)
    rate = 10 / (n_items - 3)
    assert (counts[:4] == 0).all()
    assert np.abs(counts[4:] - 3000 * rate).max() < 5 * np.sqrt(3000 * rate * (1 - rate))


def test_the_file_is_made_once_and_is_equal_for_all(tmp_path):
    histories, cases = planted()
    split = Split("leave_one_out", histories, cases.ends, cases, cases, checksum="c")
    store, protocol = ArtifactStore(tmp_path), PROTOCOLS["cesrec.sampled100"]
    first, second = (protocol_candidates(protocol, split, cases, store) for _ in range(2))
    assert first.hash() == second.hash() == sample_candidates(histories, cases, 100, protocol.user_seed).hash()
    assert len(list(tmp_path.glob("candidates/*/candidates.npy"))) == 1
    assert sample_candidates(histories, cases, 100, 1).hash() != first.hash()
    assert protocol_candidates(PROTOCOLS["unified.full"], split, cases, store) is None


def test_too_few_items_are_left():
    histories, cases = planted(n_items=100)
    with pytest.raises(BenchError, match="untouched items"):
        sample_candidates(histories, cases, 100, seed=1)


def test_sample_of_users():
    _, cases = planted(n_users=200)
    protocol = replace(PROTOCOLS["unified.full"], users=50)
    chosen = evaluated_cases(cases, protocol)
    assert len(chosen) == 50
    assert np.array_equal(chosen.users, evaluated_cases(cases, protocol).users)
    shuffled = cases.take(np.random.default_rng(0).permutation(200))
    assert set(evaluated_cases(shuffled, protocol).users) == set(chosen.users)  # not a matter of row order
    assert evaluated_cases(cases, PROTOCOLS["unified.full"]) is cases
    with pytest.raises(BenchError, match="samples 500 users, but there are 200"):
        evaluated_cases(cases, PROTOCOLS["latentcrs.multi_turn"])
