"""Rating filter, k-core rounds, numbering: against plain loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from recllm_bench.data.interactions import (
    FilterOptions,
    Interactions,
    ItemText,
    apply_filter,
    build_histories,
    read_filter,
)
from recllm_bench.errors import BenchError


def random_rows(seed: int, n: int = 500, ties: bool = True) -> Interactions:
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, 40, n), rng.integers(0, 50, n) ** 2 // 50
    # Codes are by first appearance, as every reader makes them.
    users, items = (np.unique(x, return_inverse=True) for x in (users, items))
    coded = []
    for values, inverse in (users, items):
        first = {}
        coded.append((np.array([first.setdefault(int(c), len(first)) for c in inverse.reshape(-1)]), len(values)))
    (user_codes, n_users), (item_codes, n_items) = coded
    order = rng.integers(0, 20 if ties else 10**9, n)
    ratings = rng.integers(1, 6, n).astype(np.float32)
    names = [f"u{i}" for i in range(n_users)], [f"i{i}" for i in range(n_items)]
    return Interactions(user_codes, item_codes, *names, order=order, has_times=True, ratings=ratings)


def brute_force(
    pairs: list[tuple[int, int]], users_min: int, items_min: int, rounds: int | None, items_first: bool = False
):
    history = []
    while rounds is None or len(history) < rounds:
        per_item = Counter(i for _, i in pairs)
        per_user = Counter(u for u, i in pairs if not items_first or per_item[i] >= items_min)
        kept = [(u, i) for u, i in pairs if per_user[u] >= users_min and per_item[i] >= items_min]
        if len(kept) == len(pairs):
            break
        pairs = kept
        history.append((len({u for u, _ in pairs}), len({i for _, i in pairs})))
    return pairs, history


@pytest.mark.parametrize("cut", ["together", "items_first"])
@pytest.mark.parametrize("rounds", ["1", "2", "3", "fixpoint"])
@pytest.mark.parametrize(("users_min", "items_min"), [(5, 1), (1, 5), (9, 9), (10, 6)])
def test_kcore_equals_brute_force(rounds, users_min, items_min, cut):
    deepest = 0
    for seed in range(8):
        rows = random_rows(seed)
        most = None if rounds == "fixpoint" else int(rounds)
        pairs, expected = brute_force(
            list(zip(rows.users.tolist(), rows.items.tolist(), strict=True)),
            users_min,
            items_min,
            most,
            cut == "items_first",
        )
        if not pairs:
            with pytest.raises(BenchError, match="leaves no interaction"):
                apply_filter(rows, FilterOptions(None, users_min, items_min, rounds, cut))
            continue
        kept, history = apply_filter(rows, FilterOptions(None, users_min, items_min, rounds, cut))
        deepest = max(deepest, len(history))
        assert list(zip(kept.users.tolist(), kept.items.tolist(), strict=True)) == pairs
        assert history == expected
    assert deepest >= 1


def test_the_order_of_a_round_matters_until_the_fixed_point():
    rows = random_rows(0)
    ends = {
        (cut, rounds): len(apply_filter(rows, FilterOptions(None, 9, 9, rounds, cut))[0])
        for cut in ("together", "items_first")
        for rounds in ("1", "fixpoint")
    }
    assert ends["items_first", "1"] < ends["together", "1"]
    assert ends["items_first", "fixpoint"] == ends["together", "fixpoint"]


def test_rating_filter_comes_before_the_counts():
    rows = random_rows(0)
    kept, _ = apply_filter(rows, FilterOptions(4, 5))
    high = Counter(u for u, r in zip(rows.users.tolist(), rows.ratings.tolist(), strict=True) if r >= 4)
    assert len(kept) == sum(n for n in high.values() if n >= 5)
    assert kept.ratings.min() == 4
    assert len(kept.order) == len(kept.users)


def test_numbering_and_order_equal_the_loop():
    rows, _ = apply_filter(random_rows(3), FilterOptions(3, 4))
    histories, catalogue, user_tokens, _ = build_histories(rows, "movie")
    by_user: dict[int, list] = {}
    for line, (user, item, time) in enumerate(zip(rows.users, rows.items, rows.order, strict=True)):
        by_user.setdefault(int(user), []).append((int(time), line, int(item)))
    ids: dict[int, int] = {}
    expected = []
    for user in sorted(by_user):
        expected.append([ids.setdefault(item, len(ids) + 1) for _, _, item in sorted(by_user[user])])
    assert histories.n_users == len(expected)
    for row, wanted in enumerate(expected, 1):
        assert histories.of(row).tolist() == wanted
    assert user_tokens == ["", *(f"u{user}" for user in sorted(by_user))]
    assert catalogue.tokens == ["", *(f"i{item}" for item in ids)]
    assert histories.n_items == len(ids) == len(catalogue) - 1
    assert histories.items.dtype == np.int32
    assert histories.offsets.dtype == histories.times.dtype == np.int64


def test_ties_keep_file_order_and_repeats_stay():
    rows = Interactions(
        np.array([0, 1, 0, 0, 0]),
        np.array([0, 1, 2, 0, 1]),
        ["a", "b"],
        ["x", "y", "z"],
        np.array([5, 1, 5, 5, 2]),
        True,
    )
    histories, catalogue, _, _ = build_histories(rows, "item")
    assert [catalogue.tokens[i] for i in histories.of(1)] == ["y", "x", "z", "x"]
    assert histories.times[:4].tolist() == [2, 5, 5, 5]


def test_source_ids_are_kept():
    rows = Interactions(
        np.array([0, 0, 1]), np.array([0, 1, 2]), ["1", "2"], ["7", "3", "9"], source_ids=True,
        text={"3": ItemText("Three", 1999, ("a",), "text"), "9": ItemText("Nine")},
    )  # fmt: skip
    histories, catalogue, _, _ = build_histories(rows, "item")
    assert histories.items.tolist() == [7, 3, 9]
    assert histories.n_items == 9
    assert catalogue.titles[3] == "Three"
    assert catalogue.titles[4] == ""
    assert catalogue.text(3) == "Three, 1999, a"
    assert histories.times is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_ratng": 4}, "Did you mean 'min_rating'"),
        ({"users_min": "five"}, "whole number"),
        ({"users_min": 0}, "out of range"),
        ({"rounds": "never"}, "'fixpoint'"),
        ({"rounds": "0"}, "'fixpoint'"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(BenchError, match=message):
        read_filter(settings, "filter 'x'")


def test_filters_that_cannot_apply():
    rows = random_rows(0)
    with pytest.raises(BenchError, match="leaves no interaction"):
        apply_filter(rows, FilterOptions(None, 10_000))
    bare = Interactions(rows.users, rows.items, rows.user_tokens, rows.item_tokens)
    with pytest.raises(BenchError, match="no ratings"):
        apply_filter(bare, FilterOptions(4))
