"""Counting against brute force: every path, policy and defined error."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import torch
from torch import nn

from recllm_bench.data.histories import Histories
from recllm_bench.data.splits import Cases, Split
from recllm_bench.errors import BenchError
from recllm_bench.evaluation import ranks as ranks_module
from recllm_bench.evaluation.candidates import sample_candidates
from recllm_bench.evaluation.metrics import aggregate, per_user
from recllm_bench.evaluation.protocols import PROTOCOLS, Protocol
from recllm_bench.evaluation.ranks import UNRANKED, rank_cases

FULL = PROTOCOLS["unified.full"]


def random_histories(n_users: int = 60, n_items: int = 40, seed: int = 0) -> Histories:
    """Histories of 2 to 14 items with repeats."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, n_items + 1, rng.integers(2, 15)) for _ in range(n_users)]
    return Histories.from_rows(rows, n_items=n_items)


def last_item_split(histories: Histories) -> Split:
    """Every user's last item is the target."""
    ends = histories.offsets[1:] - 1
    cases = Cases(np.arange(1, histories.n_users + 1), ends, histories.items[ends].astype(np.int32))
    return Split("leave_one_out", histories, ends, cases, cases, checksum="x")


class Table(nn.Module):
    """A recommender whose scores are given: user row x item column."""

    max_seq_length = 10

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__()
        self.scores = scores

    def full_sort_predict(self, interaction) -> torch.Tensor:
        return self.scores[interaction["user_id"]]


class Encoder(nn.Module):
    """A tiny causal encoder: the state is the sum of all items so far."""

    max_seq_length = 6

    def __init__(self, n_items: int, width: int = 8, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.items = nn.Embedding(n_items + 1, width)

    def sequence_states(self, item_seq: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.items(item_seq).cumsum(1)

    def item_vectors(self) -> torch.Tensor:
        return self.items.weight


class WithUser(Encoder):
    """The query is the user's own row of a column, so that columns and their order matter."""

    def query_vectors(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["vector"]


def brute_force(scores: np.ndarray, split: Split, cases: Cases, protocol: Protocol):
    """One case at a time, straight from the definitions; scores [n_cases, n_items + 1]."""
    histories, rows = split.histories, []
    for row, (user, end, target) in enumerate(zip(cases.users, cases.ends, cases.targets, strict=True)):
        values = scores[row].astype(np.float64).copy()
        wanted = values[target]
        if protocol.exclude_pad:
            values[0] = -np.inf
        if protocol.exclude_history:
            for item in histories.items[histories.offsets[user - 1] : end]:
                values[item] = -np.inf if protocol.seen_score == "neg_inf" else 0.0
        values[target] = wanted
        higher, tied = int((values > wanted).sum()), int((values == wanted).sum())
        rows.append((UNRANKED, 1) if wanted == -np.inf else (higher, tied))
    return np.array(rows).T


POLICIES = [
    FULL,
    dataclasses.replace(FULL, exclude_history=False),
    dataclasses.replace(FULL, exclude_history=False, exclude_pad=False),
    PROTOCOLS["iclrec.released"],
]


@pytest.mark.parametrize("protocol", POLICIES, ids=["full", "with_history", "with_pad", "seen_zero"])
@pytest.mark.parametrize("batch_size", [7, 64])
def test_prediction_path_against_brute_force(protocol: Protocol, batch_size: int):
    pytest.importorskip("recbole")
    histories = random_histories()
    split = last_item_split(histories)
    torch.manual_seed(0)
    scores = torch.randint(-3, 4, (histories.n_users + 1, histories.n_items + 1)).float()
    scores[3, 5:9] = float("-inf")
    got = rank_cases(Table(scores), split, split.test, protocol, batch_size=batch_size)
    higher, tied = brute_force(scores[1:].numpy(), split, split.test, protocol)
    np.testing.assert_array_equal(got.higher, higher)
    np.testing.assert_array_equal(got.tied, tied)
    assert got.repeats > 0
    assert (got.candidates > got.higher).all()


@pytest.mark.parametrize("protocol", POLICIES, ids=["full", "with_history", "with_pad", "seen_zero"])
@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_product_path_against_brute_force(protocol: Protocol, chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ranks_module, "_ITEMS_AT_ONCE", chunk)
    monkeypatch.setattr(ranks_module, "_SCORES_AT_ONCE", 41 * 20)
    histories = random_histories()
    split = last_item_split(histories)
    model = Encoder(histories.n_items)
    with torch.no_grad():  # small whole numbers: products are exact and ties are many
        model.items.weight.copy_(torch.randint(-1, 2, model.items.weight.shape).float())
    scores = []
    for user in range(1, histories.n_users + 1):
        seen = histories.of(user)[:-1][-model.max_seq_length :]
        state = model.items.weight[torch.as_tensor(seen.astype(np.int64))].sum(0)
        scores.append((model.items.weight @ state).detach().numpy())
    got = rank_cases(model, split, split.test, protocol, batch_size=16, top=5)
    higher, tied = brute_force(np.stack(scores), split, split.test, protocol)
    np.testing.assert_array_equal(got.higher, higher)
    np.testing.assert_array_equal(got.tied, tied)
    for row, user in enumerate(split.test.users):  # every item of the list scores at least as high as any left out
        values = scores[row].copy()
        seen = histories.of(user)[:-1]
        if protocol.exclude_history:
            keep = values[split.test.targets[row]]
            values[seen] = -np.inf if protocol.seen_score == "neg_inf" else 0.0
            values[split.test.targets[row]] = keep
        if protocol.exclude_pad:
            values[0] = -np.inf
        assert sorted(values[got.top[row]]) == sorted(np.sort(values)[-5:])


@pytest.mark.parametrize("protocol", POLICIES, ids=["full", "with_history", "with_pad", "seen_zero"])
@pytest.mark.parametrize("chunk", [1, 7, 243])
@pytest.mark.parametrize("top", [0, 3])
def test_blocks_of_items_against_brute_force(protocol, chunk: int, top: int, monkeypatch: pytest.MonkeyPatch):
    """No two items are equal, so that the table is cut, and different items tie all the same."""
    monkeypatch.setattr(ranks_module, "_ITEMS_AT_ONCE", chunk)
    monkeypatch.setattr(ranks_module, "_SCORES_AT_ONCE", 20 * chunk)
    histories = random_histories(n_users=90, n_items=242)
    split = last_item_split(histories)
    model = WithUser(242, width=5)
    with torch.no_grad():  # all rows of -1, 0, 1: exact products, many ties
        model.items.weight.copy_(torch.cartesian_prod(*[torch.arange(-1.0, 2.0)] * 5))
    vectors = torch.randint(-2, 3, (90, 5), generator=torch.Generator().manual_seed(0)).float()
    scores = (vectors @ model.items.weight.T).detach().numpy()
    got = rank_cases(model, split, split.test, protocol, columns={"vector": vectors.numpy()}, batch_size=16, top=top)
    higher, tied = brute_force(scores, split, split.test, protocol)
    np.testing.assert_array_equal(got.higher, higher)
    np.testing.assert_array_equal(got.tied, tied)
    for row, (user, target) in enumerate(zip(split.test.users, split.test.targets, strict=True)):
        left = np.ones(243, dtype=bool)
        left[0] = not protocol.exclude_pad
        values = scores[row].copy()
        if protocol.exclude_history:
            seen = histories.of(user)[:-1]
            values[seen] = 0
            left[seen] = protocol.seen_score == "zero"
        values[target], left[target] = scores[row][target], True
        assert got.candidates[row] == left.sum()
        if top:
            np.testing.assert_array_equal(values[got.top[row]], np.sort(values[left])[::-1][:top])
            assert left[got.top[row]].all()


def test_infinite_scores_are_compared_like_others():
    pytest.importorskip("recbole")
    histories = random_histories()
    split = last_item_split(histories)
    scores = torch.randint(-2, 3, (histories.n_users + 1, histories.n_items + 1)).float()
    scores[scores == 2], scores[scores == -2] = float("inf"), float("-inf")
    got = rank_cases(Table(scores), split, split.test, FULL)
    higher, tied = brute_force(scores[1:].numpy(), split, split.test, FULL)
    np.testing.assert_array_equal(got.higher, higher)
    np.testing.assert_array_equal(got.tied, tied)


def test_both_paths_agree():
    pytest.importorskip("recbole")
    histories = random_histories(seed=3)
    split = last_item_split(histories)
    model = Encoder(histories.n_items)

    class ByPrediction(nn.Module):
        max_seq_length = model.max_seq_length

        def full_sort_predict(self, interaction) -> torch.Tensor:
            rows = torch.arange(len(interaction["item_length"]))
            states = model.sequence_states(interaction["item_id_list"], interaction["item_length"])
            return states[rows, interaction["item_length"] - 1] @ model.items.weight.T

    by_product = rank_cases(model, split, split.test, FULL, top=3)
    by_prediction = rank_cases(ByPrediction(), split, split.test, FULL, top=3)
    np.testing.assert_array_equal(by_product.higher, by_prediction.higher)
    np.testing.assert_array_equal(by_product.candidates, by_prediction.candidates)
    np.testing.assert_array_equal(by_product.top, by_prediction.top)


@pytest.mark.parametrize("n_items", [37, 1003])
def test_duplicated_vectors_always_tie(n_items: int):
    """A product may round differently at the edge of a tile; equal items must tie all the same."""
    rng = np.random.default_rng(0)
    rows = [rng.choice(np.arange(1, n_items + 1), 4, replace=False) for _ in range(300)]
    split = last_item_split(Histories.from_rows(rows, n_items=n_items))
    model = Encoder(n_items, width=67)
    half = n_items // 2
    with torch.no_grad():
        model.items.weight[half + 1 : 2 * half + 1] = model.items.weight[1 : half + 1]
    protocol = dataclasses.replace(FULL, exclude_history=False)
    got = rank_cases(model, split, split.test, protocol)
    expected = np.where(split.test.targets <= 2 * half, 2, 1)
    np.testing.assert_array_equal(got.tied, expected)


def test_columns_follow_their_cases():
    histories = random_histories()
    split = last_item_split(histories)
    model = WithUser(histories.n_items)
    vectors = model.item_vectors().detach()[split.test.targets.astype(np.int64)]
    with torch.no_grad():  # unit vectors: a target's own vector wins
        model.items.weight.div_(model.items.weight.norm(dim=1, keepdim=True))
    got = rank_cases(model, split, split.test, FULL, columns={"vector": vectors.numpy()}, batch_size=9)
    assert (got.higher == 0).all()
    with pytest.raises(BenchError, match="column 'vector'"):
        rank_cases(model, split, split.test, FULL, columns={"vector": vectors.numpy()[:-1]})


def test_sampled_candidates_on_both_paths():
    pytest.importorskip("recbole")
    histories = random_histories(n_items=200)
    split = last_item_split(histories)
    protocol = PROTOCOLS["cesrec.sampled100"]
    file = sample_candidates(histories, split.test, 100, protocol.user_seed)
    scores = torch.randint(0, 50, (histories.n_users + 1, 201)).float()
    got = rank_cases(Table(scores), split, split.test, protocol, candidates=file, top=101)
    listed = np.take_along_axis(scores[1:].numpy(), file.items.astype(np.int64), 1)
    np.testing.assert_array_equal(got.higher, (listed > listed[:, :1]).sum(1))
    np.testing.assert_array_equal(got.tied, (listed == listed[:, :1]).sum(1))
    assert (got.candidates == 101).all()
    np.testing.assert_array_equal(np.sort(got.top, 1), np.sort(file.items, 1))
    # Without a file the protocol's seed draws the same one; the product path counts the same list.
    model = Encoder(200)
    by_seed = rank_cases(model, split, split.test, protocol)
    by_file = rank_cases(model, split, split.test, protocol, candidates=file)
    np.testing.assert_array_equal(by_seed.higher, by_file.higher)
    with pytest.raises(BenchError, match="other cases"):
        rank_cases(model, split, split.test.take(np.arange(5)), protocol, candidates=file)


def test_oracle_inverse_and_constant_scores():
    pytest.importorskip("recbole")
    histories = random_histories()
    split = last_item_split(histories)
    base = torch.zeros(histories.n_users + 1, histories.n_items + 1)
    best = base.clone()
    best[torch.as_tensor(split.test.users), torch.as_tensor(split.test.targets.astype(np.int64))] = 1
    values = aggregate(per_user(rank_cases(Table(best), split, split.test, FULL), ("Recall", "NDCG", "MRR"), (1, 5)))
    assert set(values.values()) == {1.0}
    values = aggregate(per_user(rank_cases(Table(-best), split, split.test, FULL), ("Recall", "NDCG"), (1, 5)))
    assert set(values.values()) == {0.0}
    flat = rank_cases(Table(base), split, split.test, dataclasses.replace(FULL, exclude_history=False))
    assert (flat.tied == histories.n_items).all()
    assert aggregate(per_user(flat, ("HR",), (5,)))["HR@5"] == pytest.approx(5 / histories.n_items)


def test_unscored_target():
    pytest.importorskip("recbole")
    histories = random_histories()
    split = last_item_split(histories)
    scores = torch.full((histories.n_users + 1, histories.n_items + 1), float("-inf"))
    scores[:, 1:4] = 1.0
    got = rank_cases(Table(scores), split, split.test, FULL, top=5)
    without = split.test.targets > 3
    assert (got.higher[without] == UNRANKED).all()
    assert (got.top[:, 3:] == 0).all()
    assert aggregate(per_user(got, ("Recall",), (40,)))["Recall@40"] == pytest.approx(1 - without.mean())


def test_defined_errors():
    pytest.importorskip("recbole")
    histories = random_histories()
    split = last_item_split(histories)
    cases = split.test
    scores = torch.zeros(histories.n_users + 1, histories.n_items + 1)
    scores[4, 2] = float("nan")
    with pytest.raises(BenchError, match="user 4 are not numbers"):
        rank_cases(Table(scores), split, cases, FULL)
    model = Encoder(histories.n_items)
    for change, words in (
        ({"targets": np.where(cases.users == 2, 0, cases.targets)}, "user 2 has the target 0"),
        ({"targets": np.where(cases.users == 2, 41, cases.targets)}, "no item"),
        ({"users": np.where(cases.users == 2, 99, cases.users)}, "user id out of range"),
        ({"ends": np.where(cases.users == 2, histories.offsets[1], cases.ends)}, "user 2 has an empty history"),
        ({"ends": np.where(cases.users == 2, histories.offsets[3], cases.ends)}, "next user"),
    ):
        with pytest.raises(BenchError, match=words):
            rank_cases(model, split, dataclasses.replace(cases, **change), FULL)
    with pytest.raises(BenchError, match="nothing to evaluate"):
        rank_cases(model, split, cases.take(np.zeros(0, np.int64)), FULL)
    with pytest.raises(BenchError, match="rows for 41 ids"):
        rank_cases(Encoder(10), split, cases, FULL)


def test_training_mode_is_kept():
    histories = random_histories()
    split = last_item_split(histories)
    model = Encoder(histories.n_items).train()
    rank_cases(model, split, split.test, FULL)
    assert model.training


def test_speed_of_the_matrix_part():
    """6,040 users x 3,706 items x 64 on one core: well under a second when nothing else runs, 3 s as a safe bound."""
    rng = np.random.default_rng(0)
    rows = [rng.choice(np.arange(1, 3707), 165, replace=False) for _ in range(6040)]
    split = last_item_split(Histories.from_rows(rows, n_items=3706))
    model = Encoder(3706, width=64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads on busy cores wait for each other, which says nothing about this code
    try:
        rank_cases(model, split, split.test, FULL)
        start = time.perf_counter()
        rank_cases(model, split, split.test, FULL)
        assert time.perf_counter() - start < 3
    finally:
        torch.set_num_threads(threads)
