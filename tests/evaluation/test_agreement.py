"""Metrics against an independent public implementation: ranx (a test dependency)."""

from __future__ import annotations

import os

import numpy as np
import pytest

from recllm_bench.evaluation.metrics import per_user
from recllm_bench.evaluation.ranks import Ranks

ALL = ("Recall", "HR", "NDCG", "MRR", "Precision")
NAMES = {"Recall": "recall", "HR": "hit_rate", "NDCG": "ndcg", "MRR": "mrr", "Precision": "precision"}


@pytest.fixture(scope="module")
def ranx():
    """The library without its just-in-time compiler, which takes longer than everything measured here."""
    before = os.environ.get("NUMBA_DISABLE_JIT")
    os.environ["NUMBA_DISABLE_JIT"] = "1"
    yield pytest.importorskip("ranx")
    if before is None:
        del os.environ["NUMBA_DISABLE_JIT"]


def ranks_of(higher, tied=None, users=None) -> Ranks:
    higher = np.asarray(higher, dtype=np.int64)
    n = len(higher)
    return Ranks(
        users=np.arange(1, n + 1) if users is None else np.asarray(users),
        targets=np.arange(1, n + 1, dtype=np.int32),
        higher=higher,
        tied=np.ones(n, np.int64) if tied is None else np.asarray(tied, dtype=np.int64),
        candidates=np.full(n, 100, np.int64),
    )


def counts_of(scores: np.ndarray, target: int) -> tuple[int, int]:
    return int((scores > scores[target]).sum()), int((scores == scores[target]).sum())


def test_agrees_with_ranx_on_random_rankings_with_ties(ranx):
    """Ties are averaged over every place the target can take in its tie."""
    rng = np.random.default_rng(5)
    n_users, n_items = 60, 25
    scores = rng.integers(0, 8, (n_users, n_items)).astype(float)
    targets = rng.integers(0, n_items, n_users)
    places = [counts_of(scores[user], targets[user]) for user in range(n_users)]
    higher, tied = map(np.asarray, zip(*places, strict=True))
    got = per_user(ranks_of(higher, tied), ALL, (1, 5, 10))

    qrels, run, weight = {}, {}, {}
    for user in range(n_users):
        for place in range(tied[user]):
            query = f"{user:03d}-{place:02d}"
            # A strict ranking: all others in their order, the target put at one of the places of its tie.
            others = [item for item in np.argsort(-scores[user], kind="stable") if item != targets[user]]
            order = [*others[: higher[user] + place], targets[user], *others[higher[user] + place :]]
            run[query] = {f"i{item}": float(n_items - rank) for rank, item in enumerate(order)}
            qrels[query] = {f"i{targets[user]}": 1}
            weight[query] = user
    wanted = [f"{NAMES[name]}@{k}" for name in ALL for k in (1, 5, 10)] + ["mrr"]
    run_object = ranx.Run(run)
    ranx.evaluate(ranx.Qrels(qrels), run_object, wanted)
    for name in ALL:
        for k in (1, 5, 10):
            expected = np.zeros(n_users)
            for query, value in run_object.scores[f"{NAMES[name]}@{k}"].items():
                expected[weight[query]] += value / tied[weight[query]]
            np.testing.assert_allclose(got[f"{name}@{k}"], expected, atol=1e-9, rtol=0, err_msg=f"{name}@{k}")
    expected = np.zeros(n_users)
    for query, value in run_object.scores["mrr"].items():
        expected[weight[query]] += value / tied[weight[query]]
    np.testing.assert_allclose(got["MRR"], expected, atol=1e-9, rtol=0)


def test_agrees_with_ranx_on_several_targets(ranx):
    rng = np.random.default_rng(6)
    n_users, n_items = 40, 30
    qrels, run, users, higher = {}, {}, [], []
    for user in range(n_users):
        scores = rng.permutation(n_items).astype(float)
        relevant = rng.choice(n_items, rng.integers(1, 6), replace=False)
        run[f"{user:03d}"] = {f"i{item}": float(scores[item]) for item in range(n_items)}
        qrels[f"{user:03d}"] = {f"i{item}": 1 for item in relevant}
        for item in relevant:
            users.append(user + 1)
            higher.append(int((scores > scores[item]).sum()))
    got = per_user(ranks_of(higher, users=users), ALL, (3, 10))
    run_object = ranx.Run(run)
    ranx.evaluate(ranx.Qrels(qrels), run_object, [f"{NAMES[name]}@{k}" for name in ALL for k in (3, 10)])
    for name in ALL:
        for k in (3, 10):
            expected = np.array([run_object.scores[f"{NAMES[name]}@{k}"][f"{user:03d}"] for user in range(n_users)])
            np.testing.assert_allclose(got[f"{name}@{k}"], expected, atol=1e-9, rtol=0, err_msg=f"{name}@{k}")
