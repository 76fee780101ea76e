"""Counting by a quick product: its bound, and ranks that are exact all the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from recllm_bench.data.histories import Histories
from recllm_bench.data.splits import Cases, Split
from recllm_bench.evaluation import filtering, ranks
from recllm_bench.evaluation.counting import Counter
from recllm_bench.evaluation.filtering import count_filtered, error_bound, exact_scores
from recllm_bench.evaluation.protocols import PROTOCOLS
from recllm_bench.evaluation.ranks import rank_cases

FULL = PROTOCOLS["unified.full"]
POLICIES = {
    "full": FULL,
    "with_history": dataclasses.replace(FULL, exclude_history=False),
    "with_pad": dataclasses.replace(FULL, exclude_history=False, exclude_pad=False),
    "seen_zero": PROTOCOLS["iclrec.released"],
}


def split_of(n_users: int, n_items: int, seed: int = 0) -> Split:
    """Histories of 2 to 14 items with repeats, among them the target."""
    rng = np.random.default_rng(seed)
    histories = Histories.from_rows(
        [rng.integers(1, n_items + 1, rng.integers(2, 15)) for _ in range(n_users)], n_items
    )
    ends = histories.offsets[1:] - 1
    cases = Cases(np.arange(1, n_users + 1), ends, histories.items[ends].astype(np.int32))
    return Split("leave_one_out", histories, ends, cases, cases, checksum="x")


def counted(queries, items, split, protocol, halves):
    counter = Counter(split.histories, split.test, protocol, torch.device("cpu"), 0, None)
    assert count_filtered(queries, items, counter, halves=halves)
    return [values.numpy() for values in (counter.higher, counter.tied, counter.candidates)]


def brute_force(queries, items, split, protocol):
    """One case at a time from the definition: float64 products rounded to float32."""
    rows = []
    for row, (user, end, target) in enumerate(zip(split.test.users, split.test.ends, split.test.targets, strict=True)):
        scores = (queries[row].double() * items.double()).sum(1).float().numpy().astype(np.float64)
        wanted = scores[target]
        if protocol.exclude_pad:
            scores[0] = -np.inf
        if protocol.exclude_history:
            seen = split.histories.items[split.histories.offsets[user - 1] : end]
            scores[seen] = -np.inf if protocol.seen_score == "neg_inf" else 0.0
        scores[target] = wanted
        rows.append(((scores > wanted).sum(), (scores == wanted).sum(), (scores > -np.inf).sum()))
    return np.array(rows).T


def vectors(kind: str, n_users: int, n_items: int, width: int, targets: np.ndarray):
    """Queries and items: by chance, or so that many scores lie within a rounding of the target's."""
    generator = torch.Generator().manual_seed(3)
    queries = torch.randn(n_users, width, generator=generator)
    items = torch.randn(n_items + 1, width, generator=generator)
    if kind == "near ties":  # neighbours of few vectors, a last bit of one number away
        items = items[torch.arange(n_items + 1) % 5].clone()
        step = torch.randint(-2, 3, (n_items + 1, 1), generator=generator)
        bits = items.view(torch.int32)
        bits[:, :1] += step.int()
    elif kind == "duplicates":
        items = items[torch.arange(n_items + 1) % 7].contiguous()
    elif kind == "whole numbers":
        queries, items = queries.round(), items.round()
    elif kind == "large and small":
        items *= 10.0 ** torch.randint(-12, 8, (n_items + 1, 1), generator=generator)
        queries *= 10.0 ** torch.randint(-25, 8, (n_users, 1), generator=generator)
    elif kind == "halfway":  # what bfloat16 rounds worst
        queries, items = (torch.sign(x) * (1 + 2.0**-8 + 2.0**-16) for x in (queries, items))
    elif kind == "tiny":
        queries, items = queries * 1e-22, items * 1e-20
    return queries, items


KINDS = ["by chance", "near ties", "duplicates", "whole numbers", "large and small", "halfway", "tiny"]


@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_ranks_are_those_of_brute_force(kind, policy, halves, monkeypatch):
    monkeypatch.setattr(filtering, "_COLUMNS", 16)  # several tiles each way, the last ones smaller
    monkeypatch.setattr(filtering, "_AT_ONCE", 16 * 25)
    monkeypatch.setattr(filtering, "_PAIRS", 37)
    split = split_of(60, 40)
    queries, items = vectors(kind, 60, 40, 16, split.test.targets)
    found = counted(queries, items, split, POLICIES[policy], halves)
    np.testing.assert_array_equal(found, brute_force(queries, items, split, POLICIES[policy]))


@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 16, 64, 257])
def test_no_quick_score_leaves_its_bound(kind, width, halves):
    queries, items = vectors(kind, 200, 300, width, np.ones(200))
    left, right = (
        (filtering._halves(queries, "left"), filtering._halves(items, "right")) if halves else (queries, items)
    )
    exact = queries.double() @ items.double().T
    sizes = queries.double().norm(dim=1)[:, None] * items.double().norm(dim=1)
    error = (filtering._quick(left, right).double() - exact).abs() - filtering._SMALLEST
    assert (error <= error_bound(width, halves) * sizes).all()
    if kind == "halfway" and halves and width == 1:  # and the bound is of the right size
        assert float((error / sizes).max()) > error_bound(width, halves) / 8


def test_few_scores_are_told_apart_one_by_one(monkeypatch):
    split = split_of(300, 1000)
    queries, items = vectors("by chance", 300, 1000, 64, split.test.targets)
    pairs = []
    monkeypatch.setattr(filtering, "_tell_apart", lambda *given, **_: pairs.append(len(given[3])))
    counted(queries, items, split, POLICIES["with_history"], True)
    assert 300 <= sum(pairs) < 300 * 1000 / 200  # the targets themselves, and few more


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("where", ["queries", "items"])
def test_what_has_no_bound_is_left_to_the_plain_way(bad, where):
    split = split_of(30, 40)
    queries, items = vectors("by chance", 30, 40, 16, split.test.targets)
    (queries if where == "queries" else items)[3, 2] = bad
    counter = Counter(split.histories, split.test, FULL, torch.device("cpu"), 0, None)
    assert not count_filtered(queries, items, counter, halves=True)
    assert not counter.higher.any() and not counter.candidates.any()


def test_products_that_may_be_rounded_have_no_bound():
    split = split_of(30, 40)
    queries, items = vectors("by chance", 30, 40, 16, split.test.targets)
    counter = Counter(split.histories, split.test, FULL, torch.device("cpu"), 0, None)
    torch.set_float32_matmul_precision("medium")
    try:
        assert not count_filtered(queries, items, counter, halves=False)
        assert count_filtered(queries, items, counter, halves=True)  # halves are exact in any precision
    finally:
        torch.set_float32_matmul_precision("highest")
    assert (counter.higher.numpy() == brute_force(queries, items, split, FULL)[0]).all()


def test_equal_scores_everywhere_are_left_to_the_plain_way():
    split = split_of(300, 400)
    counter = Counter(split.histories, split.test, FULL, torch.device("cpu"), 0, None)
    assert not count_filtered(torch.zeros(300, 8), torch.zeros(401, 8), counter, halves=True)


def test_exact_scores_are_rounded_once():
    queries, items = torch.tensor([[1.0, 2.0**-30], [1.0, 2.0**-24]]), torch.tensor([[1.0, 1.0], [1.0, 1.5]])
    assert exact_scores(queries, items, torch.tensor([0, 1])).tolist() == [1.0, 1.0 + 2.0**-23]


def test_repeats_on_a_device_are_those_on_the_host():
    split = split_of(200, 30)
    counter = Counter(split.histories, split.test, POLICIES["with_history"], torch.device("cpu"), 0, None)
    assert counter.repeats() == ranks._count_repeats(split.histories, split.test) > 20
    listed = Counter(split.histories, split.test, FULL, torch.device("cpu"), 0, np.ones((200, 3), np.int64))
    assert listed.repeats() is None


class Given:
    """Vectors as a model gives them."""

    def __init__(self, queries: torch.Tensor, items: torch.Tensor) -> None:
        self.queries, self.items = queries, items

    def item_vectors(self) -> torch.Tensor:
        return self.items

    def query_vectors(self, batch) -> torch.Tensor:
        return self.queries[batch["user_id"] - 1]


@pytest.mark.gpu
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_cuda_ranks_exactly(policy):
    split = split_of(700, 3000)
    queries, items = vectors("by chance", 700, 3000, 64, split.test.targets)
    found = rank_cases(Given(queries.cuda(), items.cuda()), split, split.test, POLICIES[policy], device="cuda")
    expected = brute_force(queries, items, split, POLICIES[policy])
    np.testing.assert_array_equal([found.higher, found.tied, found.candidates], expected)
