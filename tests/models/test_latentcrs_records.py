"""Records, negatives and intents of LatentCRS."""

from __future__ import annotations

import numpy as np
import pytest

from recllm_bench.data.histories import Histories
from recllm_bench.errors import BenchError
from recllm_bench.models.latentcrs.intents import cluster_states, reseed_empty
from recllm_bench.models.latentcrs.records import draw_negatives, training_records


def long_and_short() -> tuple[Histories, np.ndarray]:
    rng = np.random.default_rng(0)
    lengths = [3, 10, 11, 60, 4, 200]
    histories = Histories.from_rows([rng.choice(300, length, replace=False) + 1 for length in lengths], n_items=300)
    return histories, histories.offsets[1:] - 2  # leave one out for validation and one for test


def test_one_or_six_records_and_never_a_held_out_target() -> None:
    histories, train_ends = long_and_short()
    records = training_records(histories, train_ends, 25)
    # Training lengths are 1, 8, 9, 58, 2 and 198: the first has no record, 8 is below 25/3, from 9 on there are six.
    assert np.bincount(records.users, minlength=7).tolist() == [0, 0, 1, 6, 6, 1, 6]
    assert (records.ends < train_ends[records.users - 1]).all()
    assert (records.ends > histories.offsets[records.users - 1]).all()
    assert (records.targets == histories.items[records.ends]).all()


def test_raw_record_ends_with_the_training_part_and_cuts_keep_their_range() -> None:
    histories, train_ends = long_and_short()
    raw = training_records(histories, train_ends, 25, augment=False)
    assert (raw.ends == train_ends[raw.users - 1] - 1).all()
    cut = training_records(histories, train_ends, 25)
    cut = cut.take(np.arange(len(raw), len(cut)))
    points = cut.ends + 1 - histories.offsets[cut.users - 1]
    lengths = (train_ends - histories.offsets[:-1])[cut.users - 1]
    assert (points >= 4).all()
    assert (points <= lengths - 4).all()


def test_cut_points_reach_both_ends() -> None:
    histories = Histories.from_rows([list(range(1, 13))] * 300)
    records = training_records(histories, histories.offsets[1:] - 2, 25)
    points = (records.ends + 1 - histories.offsets[records.users - 1])[300:]
    assert sorted(set(points.tolist())) == [4, 5, 6]


def test_records_ignore_held_out_items() -> None:
    histories, train_ends = long_and_short()
    poisoned = Histories(histories.items.copy(), histories.offsets, histories.n_items)
    poisoned.items[np.concatenate([train_ends, train_ends + 1])] = 1
    one, two = training_records(histories, train_ends, 25), training_records(poisoned, train_ends, 25)
    assert (one.ends == two.ends).all()
    assert (one.targets == two.targets).all()


def test_nothing_to_learn_from() -> None:
    histories = Histories.from_rows([[1, 2, 3]] * 4)
    with pytest.raises(BenchError, match="no record"):
        training_records(histories, histories.offsets[1:] - 2, 25)


@pytest.mark.parametrize("exclude", ["window", "all_interactions"])
def test_negatives(exclude: str) -> None:
    rng = np.random.default_rng(1)
    histories = Histories.from_rows([rng.integers(1, 41, 30) for _ in range(50)], n_items=40)
    records = training_records(histories, histories.offsets[1:] - 2, 6)
    drawn = draw_negatives(histories, records, 10, 3, exclude=exclude, window=6, seed=5)
    assert drawn.shape == (3, len(records), 10)
    assert drawn.min() >= 1
    assert drawn.max() <= 40
    known_but_drawn = 0
    for row, (user, end) in enumerate(zip(records.users, records.ends, strict=True)):
        start = histories.offsets[user - 1]
        record = set(histories.items[max(start, end - 5) : end + 1].tolist())
        everything = set(histories.of(user).tolist())
        found = set(drawn[:, row].ravel().tolist())
        assert not found & record
        known_but_drawn += len(found & everything)
    assert (known_but_drawn == 0) == (exclude == "all_interactions")
    again = draw_negatives(histories, records, 10, 3, exclude=exclude, window=6, seed=5)
    assert (again == drawn).all()
    assert (drawn[0] != drawn[1]).any()


def test_negatives_are_uniform() -> None:
    histories = Histories.from_rows([[1, 2, 3, 4, 5]] * 500, n_items=15)
    records = training_records(histories, histories.offsets[1:] - 2, 25)
    drawn = draw_negatives(histories, records, 10, 2, exclude="all_interactions", window=25, seed=0)
    counts = np.bincount(drawn.ravel(), minlength=16)
    assert counts[:6].sum() == 0
    assert np.abs(counts[6:] / drawn.size - 0.1).max() < 0.015


def test_no_negative_left() -> None:
    histories = Histories.from_rows([[1, 2, 3, 4, 5, 6]] * 3)
    records = training_records(histories, histories.offsets[1:] - 2, 25)
    with pytest.raises(BenchError, match="no negative found for user"):
        draw_negatives(histories, records, 2, 1, exclude="all_interactions", window=25, seed=0)


def test_intents_find_planted_groups() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(4, 8, dtype=np.float32) * 10
    states = np.repeat(centres, 50, 0) + rng.normal(0, 0.1, (200, 8)).astype(np.float32)
    found = cluster_states(states, 4, normalise=False)
    distances = np.linalg.norm(found[:, None] - centres, axis=-1)
    assert sorted(distances.argmin(1).tolist()) == [0, 1, 2, 3]
    assert distances.min(1).max() < 0.2
    assert np.linalg.norm(cluster_states(states, 4, normalise=True), axis=1) == pytest.approx(1.0, abs=1e-5)


def test_more_intents_than_users() -> None:
    with pytest.raises(BenchError, match="intents=5 is more than the 3 users"):
        cluster_states(np.eye(3, dtype=np.float32), 5, True)


def test_empty_clusters_start_at_users() -> None:
    states = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    centroids = np.stack([states.mean(0), np.full(4, 100, np.float32)])
    found = reseed_empty(centroids.copy(), states, 0)
    assert (found[0] == centroids[0]).all()
    assert (found[1] == states).all(1).any()
    same = np.ones((20, 4), np.float32)
    assert np.isfinite(cluster_states(same, 5, True)).all()
