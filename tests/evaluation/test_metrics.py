"""Metrics against closed forms and permutations; ``test_agreement`` holds them against a public implementation."""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys

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


PLANTED = """
import numpy as np

def lift(targets, k):
    \"\"\"Hits, weighted by the target's rarity.

    More.
    \"\"\"
    rare = 1 / (1 + targets.facts["popularity"][targets.facts["items"]])
    hit = (targets.higher < k) * rare
    return np.bincount(targets.owner, hit, targets.n_rankings)
lift.needs = ("popularity", "items")

def auc(targets, k):
    \"\"\"Share of the other candidates behind the target.\"\"\"
    value = 1 - (targets.higher + (targets.tied - 1) / 2) / (targets.facts["candidates"] - 1)
    return np.bincount(targets.owner, np.where(targets.ranked, value, 0.0), targets.n_rankings) / targets.relevant
auc.cutoffs = False
auc.needs = ("candidates",)

def fails(targets, k):
    return {}["x"]

def wrong_shape(targets, k):
    return targets.higher.astype(float)

def not_finite(targets, k):
    return np.full(targets.n_rankings, np.nan)

def words(targets, k):
    return np.array(["a"] * targets.n_rankings)

def one_argument(targets):
    return np.zeros(targets.n_rankings)

def greedy(targets, k):
    return np.zeros(targets.n_rankings)
greedy.needs = ("popularitty",)

def careless(targets, k):
    return np.zeros(targets.n_rankings)
careless.needs = "popularity"

def only_later(targets, k):
    return np.full(targets.n_rankings, np.inf if targets.n_rankings > 3 else 0.0)

def undeclared(targets, k):
    return targets.facts["titles"]

NUMBER = 5
"""


@pytest.fixture
def planted(tmp_path, monkeypatch):
    (tmp_path / "planted_measures.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "planted_measures", raising=False)
    return "planted_measures"


def test_own_metrics_get_the_facts_they_declare(planted):
    ranks = ranks_of([0, 4, 9], candidates=11)
    counts = np.array([0, 3, 1, 9])
    found = per_user(ranks, (f"{planted}:lift", f"{planted}:auc"), (5,), facts={"popularity": lambda: counts})
    assert list(found) == [f"{planted}:lift@5", f"{planted}:auc"]
    assert found[f"{planted}:lift@5"].tolist() == [1 / 4, 1 / 2, 0]
    assert found[f"{planted}:auc"] == pytest.approx([1, 0.6, 0.1])
    with pytest.raises(BenchError, match="needs popularity, which is not at hand"):
        per_user(ranks, (f"{planted}:lift",), (5,))
    without_ids = dataclasses.replace(ranks, targets=np.zeros(3, np.int32))  # a record that was shared
    with pytest.raises(BenchError, match="needs items, which is not at hand"):
        per_user(without_ids, (f"{planted}:lift",), (5,), facts={"popularity": lambda: counts})
    with pytest.raises(BenchError, match="has no cut-off; ask for planted_measures:auc"):
        per_user(ranks, (f"{planted}:auc@5",), ())


def test_auc_equals_pairs_counted_one_by_one(planted):
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 5, (40, 30))
    higher, tied = zip(*(counts_of(row, 0) for row in scores), strict=True)
    found = per_user(ranks_of(higher, tied, candidates=30), (f"{planted}:auc",), ())[f"{planted}:auc"]
    pairs = [np.mean([(row[0] > other) + 0.5 * (row[0] == other) for other in row[1:]]) for row in scores]
    assert found == pytest.approx(pairs, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fails", r"metric 'planted_measures:fails' fails at k=1: .*planted_measures\.py:\d+: KeyError: 'x'"),
        ("wrong_shape", r"one value for each of 3 rankings, got shape \(4,\)"),
        ("not_finite", "a value that is not finite"),
        ("words", "values of type <U1"),
        ("one_argument", r"it is called as metric\(targets, k\), but too many positional"),
        ("greedy", "which is no fact. Did you mean 'popularity'"),
        ("careless", "needs must be a tuple of names"),
        ("undeclared", "KeyError: 'titles'"),
        ("NUMBER", "a function .* is needed, got int"),
        ("nothing", "has no 'nothing'"),
    ],
)
def test_a_metric_that_breaks_the_contract_is_refused_when_it_is_named(planted, name, said):
    from recllm_bench.evaluation.metrics import metric_named

    with pytest.raises(BenchError, match=said) as caught:
        metric_named(f"{planted}:{name}")
    assert "\n" not in str(caught.value)


def test_values_are_checked_on_real_ranks_too(planted):
    with pytest.raises(BenchError, match="not finite"):
        per_user(ranks_of([0] * 5), (f"{planted}:only_later",), (5,))


def test_a_metric_under_modules_is_named_listed_and_keyed(tmp_path, monkeypatch):
    from recllm_bench.api import modules
    from recllm_bench.evaluation.metrics import metric_key, metric_lines, validation_metric

    monkeypatch.setattr(modules, "_targets", {kind: {} for kind in modules.KINDS})
    monkeypatch.setattr(modules, "_owners", {})
    own = tmp_path / "measures.py"
    own.write_text(PLANTED + "METRICS = {'Lift': lift, 'AUC': auc, 'Broken': fails}\n")
    modules.load_modules([own])
    lines = dict(metric_lines())
    assert lines["Lift"] == "Hits, weighted by the target's rarity."
    assert lines["Recall"].startswith("Share of the targets among the first k")
    assert lines["Broken"].startswith("cannot be used: metric 'Broken' fails")
    assert (validation_metric("Lift@5"), validation_metric("AUC"), validation_metric("MRR")) == ("Lift@5", "AUC", "MRR")
    assert metric_key("NDCG@10") == "NDCG@10"
    before = metric_key("Lift@5")
    own.write_text(own.read_text() + "# changed\n")
    modules.load_modules([own])
    assert metric_key("Lift@5") != before
    modules.register("metrics", "NDCG", print)
    with pytest.raises(BenchError, match="'NDCG' is a metric of the bench"):
        per_user(ranks_of([0]), ("NDCG",), (5,))


@pytest.mark.parametrize("entry", ["NDCG@0", "NDCG@²", "NDCG@-1", "NDCG@99999999999999999999", "NDCG@"])
def test_a_cut_off_is_a_whole_number(entry):
    with pytest.raises(BenchError, match="cut-off"):
        per_user(ranks_of([0]), (entry,), ())
