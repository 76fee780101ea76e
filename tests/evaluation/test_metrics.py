"""Metrics against closed forms and permutations; ``test_agreement`` holds them against a public implementation."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from recllm_bench.api import registry
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.metrics import (
    aggregate,
    beyond_accuracy,
    per_user,
    register_metric,
    share_with_ties,
    user_ids,
)
from recllm_bench.evaluation.ranks import UNRANKED, Ranks

ALL = ("Recall", "HR", "NDCG", "MRR", "Precision")


def ranks_of(higher, tied=None, users=None, candidates=100) -> Ranks:
    higher = np.asarray(higher, dtype=np.int64)
    n = len(higher)
    return Ranks(
        users=np.arange(1, n + 1) if users is None else np.asarray(users),
        targets=np.arange(1, n + 1, dtype=np.int32),
        higher=higher,
        tied=np.ones(n, np.int64) if tied is None else np.asarray(tied, dtype=np.int64),
        candidates=np.full(n, candidates, np.int64),
    )


def counts_of(scores: np.ndarray, target: int) -> tuple[int, int]:
    return int((scores > scores[target]).sum()), int((scores == scores[target]).sum())


def by_hand(order: list[int], relevant: set[int], k: int) -> dict[str, float]:
    """Metrics of one strict ranking, from their definitions."""
    hits = [rank for rank, item in enumerate(order, 1) if item in relevant]
    first = [rank for rank in hits if rank <= k]
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))
    return {
        f"Recall@{k}": len(first) / len(relevant),
        f"HR@{k}": float(bool(first)),
        f"Precision@{k}": len(first) / k,
        f"NDCG@{k}": sum(1 / math.log2(rank + 1) for rank in first) / ideal,
        "MRR": 1 / hits[0],
        f"MRR@{k}": 1 / first[0] if first else 0.0,
    }


def test_target_third():
    values = aggregate(per_user(ranks_of([2]), ALL, (5,)))
    assert values == pytest.approx(
        {"Recall@5": 1, "HR@5": 1, "NDCG@5": 0.5, "MRR": 1 / 3, "MRR@5": 1 / 3, "Precision@5": 0.2}, abs=1e-12
    )


def test_oracle_and_inverse_scores():
    best = aggregate(per_user(ranks_of([0] * 4), ("Recall", "NDCG", "MRR"), (1, 5)))
    assert all(value == 1 for value in best.values())
    worst = aggregate(per_user(ranks_of([99] * 4), ("Recall", "HR", "NDCG"), (1, 5, 99)))
    assert all(value == 0 for value in worst.values())


@pytest.mark.parametrize("candidates", [3, 10, 101])
def test_constant_scores(candidates: int):
    values = aggregate(per_user(ranks_of([0], [candidates], candidates=candidates), ALL, (1, 2, 3)))
    for k in (1, 2, 3):
        assert values[f"HR@{k}"] == pytest.approx(k / candidates, abs=1e-12)
        dcg = sum(1 / math.log2(rank + 1) for rank in range(1, k + 1))
        assert values[f"NDCG@{k}"] == pytest.approx(dcg / candidates, abs=1e-12)
    assert values["MRR"] == pytest.approx(sum(1 / rank for rank in range(1, candidates + 1)) / candidates, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n_relevant", [1, 2, 3])
def test_expected_ties_are_the_mean_over_permutations(seed: int, n_relevant: int):
    rng = np.random.default_rng(seed)
    n = 6
    scores = rng.integers(0, 3, n).astype(float)
    relevant = [int(item) for item in rng.choice(n, n_relevant, replace=False)]
    places = [counts_of(scores, target) for target in relevant]
    higher, tied = zip(*places, strict=True)
    ranks = ranks_of(higher, tied, users=[7] * n_relevant)
    for k in (1, 2, 4):
        got = {name: float(column[0]) for name, column in per_user(ranks, ALL, (k,)).items()}
        sums = dict.fromkeys(got, 0.0)
        orders = list(itertools.permutations(range(n)))
        for noise in orders:  # every order of equal scores appears equally often
            order = sorted(range(n), key=lambda item, noise=noise: (-scores[item], noise[item]))
            for name, value in by_hand(order, set(relevant), k).items():
                sums[name] += value
        assert got == pytest.approx({name: value / len(orders) for name, value in sums.items()}, abs=1e-12)


@pytest.mark.parametrize("n_relevant", [1, 3])
def test_policies_are_the_extremes(n_relevant: int):
    rng = np.random.default_rng(n_relevant)
    scores = rng.integers(0, 3, 8).astype(float)
    relevant = [int(item) for item in rng.choice(8, n_relevant, replace=False)]
    higher, tied = zip(*(counts_of(scores, target) for target in relevant), strict=True)
    ranks = ranks_of(higher, tied, users=[1] * n_relevant)
    for ties, sign in (("optimistic", -1), ("pessimistic", 1)):
        order = sorted(range(8), key=lambda item, sign=sign: (-scores[item], sign * (item in relevant)))
        got = {name: float(column[0]) for name, column in per_user(ranks, ALL, (3,), ties).items()}
        assert got == pytest.approx(by_hand(order, set(relevant), 3), abs=1e-12)


def test_one_target_inequalities():
    """Recall/log2(K+1) <= NDCG <= Recall, and the gain bounds that audit published tables."""
    rng = np.random.default_rng(0)
    values = aggregate(per_user(ranks_of(rng.integers(0, 60, 500)), ("Recall", "NDCG"), (5, 20)))
    for k in (5, 20):
        assert values[f"Recall@{k}"] / math.log2(k + 1) <= values[f"NDCG@{k}"] <= values[f"Recall@{k}"]
    gain = values["Recall@20"] - values["Recall@5"]
    assert gain / math.log2(21) <= values["NDCG@20"] - values["NDCG@5"] <= gain / math.log2(7)


def test_users_count_once_and_keep_their_order():
    ranks = ranks_of([0, 99, 0], users=[9, 4, 9])
    assert user_ids(ranks).tolist() == [9, 4]
    values = per_user(ranks, ("Recall",), (5,))["Recall@5"]
    assert values.tolist() == [1.0, 0.0]
    assert aggregate({"Recall@5": values}) == {"Recall@5": 0.5}


def test_rankings_at_different_moments_are_averaged():
    """A user ranked at two moments: two rankings with one target each, not one ranking with two targets."""
    higher, users = [0, 9, 3], [1, 1, 2]
    ranks = ranks_of(higher, users=users)
    rolling = dataclasses.replace(ranks, lengths=np.array([5, 6, 2]))
    values = per_user(rolling, ALL, (5,))
    single = per_user(ranks_of(higher), ALL, (5,))
    for name, column in values.items():
        assert column == pytest.approx([(single[name][0] + single[name][1]) / 2, single[name][2]]), name
    together = per_user(dataclasses.replace(ranks, lengths=np.array([5, 5, 2])), ALL, (5,))
    assert together["HR@5"][0] == 1 != values["HR@5"][0]
    assert together["NDCG@5"][0] == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_unranked_targets_gain_nothing():
    values = per_user(ranks_of([UNRANKED, 0], candidates=3), ALL, (5, 50))
    assert all(column[0] == 0 for column in values.values())
    assert values["MRR"][1] == 1
    pair = per_user(ranks_of([UNRANKED, 1], users=[1, 1]), ALL, (5,))
    assert pair["Recall@5"][0] == 0.5
    assert pair["MRR"][0] == 0.5
    assert per_user(ranks_of([UNRANKED] * 2, users=[1, 1]), ALL, (5,))["MRR"][0] == 0


def test_metric_names():
    assert list(per_user(ranks_of([0]), ("NDCG@10",), (5,))) == ["NDCG@10"]
    with pytest.raises(BenchError, match="Did you mean 'Recall'"):
        per_user(ranks_of([0]), ("recal",), (5,))
    with pytest.raises(BenchError, match="cut-off"):
        per_user(ranks_of([0]), ("NDCG@x",), (5,))


def test_a_registered_metric_is_reported(monkeypatch: pytest.MonkeyPatch):
    from recllm_bench.evaluation import metrics

    monkeypatch.setattr(metrics, "METRICS", dict(metrics.METRICS))
    register_metric("Top1")(lambda targets, k: targets.total_gain(np.ones(1)))
    assert per_user(ranks_of([0, 1]), ("Top1",), (5,))["Top1@5"].tolist() == [1, 0]


def test_a_plug_in_metric_is_found(monkeypatch: pytest.MonkeyPatch):
    from recllm_bench.evaluation import metrics

    monkeypatch.setattr(metrics, "METRICS", dict(metrics.METRICS))
    planted = {"Half": "recllm_bench.evaluation.metrics:recall", "Broken": "no_such_module:metric"}
    real = registry._built_in
    monkeypatch.setattr(registry, "_built_in", lambda kind: planted if kind == "metrics" else real(kind))
    assert per_user(ranks_of([0, 9]), ("Half",), (5,))["Half@5"].tolist() == [1, 0]
    named = "recllm_bench.evaluation.metrics:ndcg@5"
    assert per_user(ranks_of([2]), (named,), ())[named][0] == pytest.approx(0.5)
    with pytest.raises(BenchError, match="no_such_module"):
        per_user(ranks_of([0]), ("Broken",), (5,))
    with pytest.raises(BenchError, match="Did you mean 'Half'"):
        per_user(ranks_of([0]), ("Halv",), (5,))


def test_ties_warn(caplog: pytest.LogCaptureFixture):
    ranks = ranks_of([0] * 50, [2] + [1] * 49)
    assert share_with_ties(ranks) == 0.02
    with caplog.at_level("WARNING", logger="recllm_bench"):
        per_user(ranks, ("Recall",), (5,))
    assert "tie" in caplog.text


def test_beyond_accuracy():
    top = np.array([[1, 2], [1, 0]])
    values = beyond_accuracy(top, np.array([0, 6, 2, 0, 0]), 2)
    assert values["Coverage@2"] == 0.5
    # Counts 6, 2, 0, 0: percentiles 1, 2/3 and twice 1/6; shown are items 1, 2, 1.
    assert values["Popularity@2"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert values["Novelty@2"] == pytest.approx(-(2 * math.log2(7 / 12) + math.log2(3 / 12)) / 3)
    with pytest.raises(BenchError, match="top=3"):
        beyond_accuracy(top, np.ones(5), 3)
