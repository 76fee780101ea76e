"""Windows and batches against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recllm_bench.data.histories import Histories
from recllm_bench.data.splits import leave_one_out
from recllm_bench.data.windows import DeviceHistories, Windows, training_windows
from recllm_bench.errors import BenchError


def histories_of(lengths: list[int], seed: int = 0) -> Histories:
    rng = np.random.default_rng(seed)
    return Histories.from_rows([rng.integers(1, 50, length) for length in lengths], n_items=50)


@pytest.mark.parametrize(("coverage", "epoch"), [("all", 1), ("moving", 1), ("moving", 2), ("moving", 3)])
@pytest.mark.parametrize("max_length", [1, 2, 3, 4, 5, 8, 13, 50])
def test_every_target_once_with_half_a_window_of_context(max_length, coverage, epoch):
    histories = histories_of(list(range(0, 40)))
    ends = histories.offsets[1:].copy()
    windows = training_windows(histories, ends, max_length, coverage, (5, epoch))
    seen: dict[int, int] = {}
    for start, end, loss_from, user in zip(windows.starts, windows.ends, windows.loss_from, windows.users, strict=True):
        first, last = histories.offsets[user - 1 : user + 1]
        assert first <= start < loss_from < end <= last
        assert end - start - 1 <= max_length
        for target in range(loss_from, end):
            assert target not in seen
            seen[target] = target - start
            assert target - start >= min(max_length / 2, target - first)
    expected = {p for a, b in zip(histories.offsets[:-1], histories.offsets[1:], strict=True) for p in range(a + 1, b)}
    assert set(seen) == expected
    assert (windows.ends - windows.loss_from).sum() == len(expected)


def moving_windows(histories: Histories, max_length: int, epoch: int) -> Windows:
    return training_windows(histories, histories.offsets[1:], max_length, "moving", (3, epoch))


@pytest.mark.parametrize("max_length", [4, 7])
def test_moving_borders_bring_a_target_to_every_position(max_length):
    """Over the epochs a target of a long history is seen at each position from the half of a window to its end."""
    histories = histories_of([2, 60, 5])
    target = int(histories.offsets[1]) + 30
    positions, newest = set(), set()
    for epoch in range(1, 60):
        windows = moving_windows(histories, max_length, epoch)
        row = np.flatnonzero((windows.loss_from <= target) & (target < windows.ends))
        positions.add(target - int(windows.starts[row].item()) - 1)
        last = np.flatnonzero(windows.ends == histories.offsets[2]).item()
        newest.add(int(windows.ends[last] - windows.loss_from[last]))
    step = max_length // 2 + 1
    assert positions == set(range(max_length - step, max_length))
    assert newest == set(range(1, step + 1))


def test_moving_borders_are_fixed_by_seed_and_epoch_and_differ_between_users():
    histories = histories_of([60] * 30)
    one, again, other = (moving_windows(histories, 8, epoch) for epoch in (1, 1, 2))
    assert np.array_equal(one.loss_from, again.loss_from)
    assert not np.array_equal(one.loss_from, other.loss_from)
    newest = one.ends - one.loss_from
    assert len(set(newest[one.ends == histories.offsets[one.users]])) > 1
    short = histories_of([9, 3, 9])  # one window each: nothing can move
    fixed = training_windows(short, short.offsets[1:], 8)
    assert np.array_equal(moving_windows(short, 8, 1).loss_from, fixed.loss_from)


@pytest.mark.parametrize("max_length", [1, 4, 7])
def test_last_coverage_keeps_the_newest_targets(max_length):
    histories = histories_of([0, 1, 2, 5, 20])
    windows = training_windows(histories, histories.offsets[1:], max_length, "last")
    assert windows.users.tolist() == [3, 4, 5]
    for row, user in enumerate(windows.users):
        first, last = histories.offsets[user - 1 : user + 1]
        assert windows.ends[row] == last
        assert windows.starts[row] == max(first, last - max_length - 1)
        assert windows.loss_from[row] == windows.starts[row] + 1


def test_no_window_reads_validation_or_test_items():
    """Poison every item after the training prefix: none may show in any batch."""
    histories = histories_of([3, 4, 9, 30, 2, 1, 61])
    split = leave_one_out(histories)
    poisoned = histories.items.copy()
    owners = histories.users_of_positions()
    future = np.arange(len(poisoned)) >= split.train_ends[owners - 1]
    assert future.sum() == 2 * 5
    poisoned[future] = 999
    poisoned = Histories(poisoned, histories.offsets, 999)
    device = DeviceHistories(poisoned, "cpu")
    for coverage in ("all", "moving", "last"):
        windows = training_windows(poisoned, split.train_ends, 6, coverage)
        batch = device.window_batch(windows, np.arange(len(windows)), 6)
        assert not (batch.inputs == 999).any()
        assert not (batch.targets == 999).any()


def test_window_batch_equals_the_loop():
    histories = histories_of([2, 5, 17, 30, 8])
    windows = training_windows(histories, histories.offsets[1:], 6)
    rng = np.random.default_rng(1)
    device = DeviceHistories(histories, "cpu")
    for _ in range(5):
        rows = rng.permutation(len(windows))[:4]
        batch = device.window_batch(windows, torch.from_numpy(rows), 6)
        width = int((windows.ends[rows] - windows.starts[rows] - 1).max())
        inputs, targets = np.zeros((4, width), int), np.zeros((4, width), int)
        for line, row in enumerate(rows):
            for column, position in enumerate(range(windows.starts[row], windows.ends[row] - 1)):
                inputs[line, column] = histories.items[position]
                if position + 1 >= windows.loss_from[row]:
                    targets[line, column] = histories.items[position + 1]
        assert batch.inputs.tolist() == inputs.tolist()
        assert batch.targets.tolist() == targets.tolist()
        assert batch.lengths.tolist() == (inputs > 0).sum(1).tolist()
        assert batch.users.tolist() == windows.users[rows].tolist()
        assert batch.inputs.dtype == batch.targets.dtype == batch.lengths.dtype == torch.int64


def test_history_batch_equals_the_loop():
    histories = histories_of([2, 5, 17, 1])
    device = DeviceHistories(histories, "cpu")
    users = np.array([3, 1, 2, 4, 3])
    ends = np.array(
        [histories.offsets[2] + 12, 1, histories.offsets[2], histories.offsets[4], histories.offsets[2] + 2]
    )
    item_seq, lengths = device.history_batch(users, torch.from_numpy(ends), 8)
    assert item_seq.shape == (5, 8)
    for row, (user, end) in enumerate(zip(users, ends, strict=True)):
        expected = histories.items[histories.offsets[user - 1] : end][-8:].tolist()
        assert lengths[row] == len(expected)
        assert item_seq[row].tolist() == expected + [0] * (8 - len(expected))
    short, _ = device.history_batch(users[1:2], ends[1:2], 8)
    assert short.shape == (1, 1), "trimmed to the longest of the batch"


def test_mistakes():
    histories = histories_of([5])
    device = DeviceHistories(histories, "cpu")
    with pytest.raises(BenchError, match="user 1 has an empty history"):
        device.history_batch(np.array([1]), np.array([0]), 3)
    with pytest.raises(BenchError, match="Did you mean 'last'"):
        training_windows(histories, histories.offsets[1:], 3, "lst")
    with pytest.raises(BenchError, match="at least 1"):
        training_windows(histories, histories.offsets[1:], 0)
    with pytest.raises(ValueError, match="4 inputs"):
        device.window_batch(training_windows(histories, histories.offsets[1:], 4), np.array([0]), 3)


def test_nothing_to_train_on_gives_no_window():
    histories = histories_of([1, 1])
    assert len(training_windows(histories, histories.offsets[1:], 3)) == 0


def test_a_million_interactions_are_cut_at_once():
    import time

    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 300, 6000)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    histories = Histories(rng.integers(1, 3000, offsets[-1]).astype(np.int32), offsets, 3000)
    start = time.perf_counter()
    windows = training_windows(histories, offsets[1:], 200)
    assert time.perf_counter() - start < 0.5
    assert (windows.ends - windows.loss_from).sum() == offsets[-1] - 6000
