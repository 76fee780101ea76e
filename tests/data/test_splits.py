"""Split rules against plain loops, and the errors they raise."""

from __future__ import annotations

import numpy as np
import pytest

from recllm_bench.data.histories import Histories
from recllm_bench.data.splits import Split, global_time, leave_one_out, ratio, split_named
from recllm_bench.errors import BenchError


def random_histories(seed: int = 0, n_users: int = 60, times: bool = True) -> Histories:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 15, n_users)
    rows = [list(rng.integers(1, 30, length)) for length in lengths]
    clock = [sorted(rng.integers(0, 200, length).tolist()) for length in lengths]
    return Histories.from_rows(rows, n_items=30, times=clock if times else None)


def rows_of(cases) -> list[tuple[int, int, int]]:
    return list(zip(cases.users.tolist(), cases.ends.tolist(), cases.targets.tolist(), strict=True))


def assert_prefixes(split: Split) -> None:
    """Training ends before every case of the user, inside the user's own rows."""
    histories = split.histories
    assert (split.train_ends >= histories.offsets[:-1]).all()
    assert (split.train_ends <= histories.offsets[1:]).all()
    for cases in (split.valid, split.test):
        assert (cases.ends >= split.train_ends[cases.users - 1]).all()
        assert (cases.ends > histories.offsets[cases.users - 1]).all(), "a case has an empty history"
        assert (histories.items[cases.ends] == cases.targets).all()


def test_leave_one_out_equals_the_loop():
    histories = random_histories()
    split = leave_one_out(histories)
    valid, test, short = [], [], 0
    for user in range(1, histories.n_users + 1):
        start, end = histories.offsets[user - 1 : user + 1]
        if end - start < 3:
            short += 1
            assert split.train_ends[user - 1] == end
            continue
        assert split.train_ends[user - 1] == end - 2
        valid.append((user, end - 2, histories.items[end - 2]))
        test.append((user, end - 1, histories.items[end - 1]))
    assert rows_of(split.valid) == valid
    assert rows_of(split.test) == test
    assert split.dropped == {"short users": short}
    assert short > 0
    assert_prefixes(split)
    assert split.histories.items is histories.items


def test_leave_one_out_boundary_lengths():
    histories = Histories.from_rows([[1], [1, 2], [1, 2, 3]])
    split = leave_one_out(histories)
    assert rows_of(split.valid) == [(3, 4, 2)]
    assert rows_of(split.test) == [(3, 5, 3)]
    assert split.train_ends.tolist() == [1, 3, 4]


@pytest.mark.parametrize(("train", "valid"), [(0.8, 0.1), (0.5, 0.25), (0.6, 0.0)])
def test_ratio_equals_the_loop(train, valid):
    from fractions import Fraction
    from math import floor

    histories = random_histories(1)
    split = ratio(histories, train, valid)
    share_train, share_valid = Fraction(str(train)), Fraction(str(valid))
    expected_valid, expected_test, short = [], [], 0
    for user in range(1, histories.n_users + 1):
        start, end = (int(x) for x in histories.offsets[user - 1 : user + 1])
        n = end - start
        cut = max(1, floor(n * share_train))
        second = max(cut, floor(n * (share_train + share_valid)))
        if second >= n:
            short += 1
            assert split.train_ends[user - 1] == end
            continue
        assert split.train_ends[user - 1] == start + cut
        expected_valid += [(user, p, histories.items[p]) for p in range(start + cut, start + second)]
        expected_test += [(user, p, histories.items[p]) for p in range(start + second, end)]
    assert rows_of(split.valid) == expected_valid
    assert rows_of(split.test) == expected_test
    assert split.dropped == {"short users": short}
    assert_prefixes(split)


@pytest.mark.parametrize("targets", ["last", "first", "all"])
def test_global_time_equals_the_loop(targets):
    histories = random_histories(2)
    split = global_time(histories, 0.6, 0.8, targets)
    ordered = np.sort(histories.times)
    t_valid, t_test = ordered[int(len(ordered) * 0.6)], ordered[int(len(ordered) * 0.8)]
    expected = {"valid": [], "test": []}
    empty = {"valid": 0, "test": 0}
    for user in range(1, histories.n_users + 1):
        start, end = (int(x) for x in histories.offsets[user - 1 : user + 1])
        times = histories.times[start:end]
        assert split.train_ends[user - 1] == start + int((times < t_valid).sum())
        for part, low, high in (("valid", t_valid, t_test), ("test", t_test, np.inf)):
            inside = [p for p in range(start, end) if low <= histories.times[p] < high]
            chosen = {"last": inside[-1:], "first": inside[:1], "all": inside}[targets]
            for p in chosen:
                if p == start:
                    empty[part] += 1
                else:
                    expected[part].append((user, p, histories.items[p]))
    assert rows_of(split.valid) == expected["valid"]
    assert rows_of(split.test) == expected["test"]
    assert split.dropped["test cases without history"] == empty["test"]
    assert split.dropped["validation cases without history"] == empty["valid"]
    assert split.dropped["users without a test case"] == histories.n_users - len({u for u, _, _ in expected["test"]})
    assert_prefixes(split)
    owners = histories.users_of_positions()
    training = np.arange(len(histories.items)) < split.train_ends[owners - 1]
    assert histories.times[training].max() < histories.times[split.valid.ends].min()
    assert histories.times[split.valid.ends].max() < histories.times[split.test.ends].min()


def test_global_time_needs_times():
    with pytest.raises(BenchError, match=r"no global time split.*unified\.full"):
        global_time(random_histories(times=False))


def test_global_time_refuses_unsorted_histories():
    with pytest.raises(BenchError, match="not sorted by time"):
        global_time(Histories.from_rows([[1, 2, 3]], times=[[3, 1, 2]]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: leave_one_out(h, 2), "at least 3"),
        (lambda h: leave_one_out(Histories.from_rows([[1, 2]])), "no user has enough"),
        (lambda h: ratio(h, 0.9, 0.1), "share for testing"),
        (lambda h: ratio(h, 0.0, 0.1), "share for testing"),
        (lambda h: global_time(h, 0.9, 0.8), "0 < valid_from"),
        (lambda h: global_time(h, targets="newest"), "unknown targets"),
        (lambda h: split_named("leave_one_in", h), "Did you mean 'leave_one_out'"),
        (lambda h: split_named("ratio", h, trian=0.5), "Did you mean 'train'"),
    ],
)
def test_mistakes_are_one_clear_line(call, message):
    with pytest.raises(BenchError, match=message) as caught:
        call(random_histories())
    assert "\n" not in str(caught.value)


def test_checksum_names_the_split():
    histories = random_histories()
    same = leave_one_out(random_histories())
    assert leave_one_out(histories).checksum == same.checksum
    swapped = histories.items.copy()
    swapped[[0, 1]] = swapped[[1, 0]] if swapped[0] != swapped[1] else [swapped[0] % 30 + 1, swapped[1]]
    changed = Histories(swapped, histories.offsets, histories.n_items, histories.times)
    assert leave_one_out(changed).checksum != same.checksum
    assert ratio(histories).checksum != same.checksum
    assert split_named("leave_one_out", histories, min_length=5).checksum != same.checksum
    assert split_named("leave_one_out", histories, min_length=5).name == "leave_one_out(min_length=5)"
