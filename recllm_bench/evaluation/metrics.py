"""Ranking metrics, derived from two whole numbers for each target: how many candidates beat it, how many tie with it.

A metric is one small function of :class:`Targets`; :mod:`recllm_bench.api.metric` says how to add one. Formulas:
``docs/protocols.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from recllm_bench.api import registry
from recllm_bench.api.modules import registered
from recllm_bench.errors import BenchError, nearest
from recllm_bench.evaluation.own_metrics import Facts, Metric, case_facts, code_hash, computed, own_metric
from recllm_bench.evaluation.places import UNRANKED
from recllm_bench.evaluation.targets import Targets
from recllm_bench.progress import log

if TYPE_CHECKING:
    from recllm_bench.evaluation.places import Ranks

MOST_CUTOFF = 1_000_000
_MANY_TIES = 0.01

METRICS: dict[str, Metric] = {}


def register_metric(name: str, *, uncut: bool = False) -> Callable[[Callable], Callable]:
    """Register ``compute(targets, k) -> float64 [n_rankings]`` under a name.

    Parameters
    ----------
    name : str
        As printed, such as ``"Recall"``.
    uncut : bool
        Whether ``k=None`` (the whole ranking) makes sense and is reported too.
    """

    def register(compute: Callable[[Targets, int | None], np.ndarray]) -> Callable:
        METRICS[name] = Metric(name, compute, uncut)
        return compute

    return register


def metric_named(name: str) -> Metric:
    """Return a metric of the bench, or somebody's own.

    Parameters
    ----------
    name : str
        A name of :data:`METRICS`; of an entry point ``recllm_bench.metrics`` or of a file under ``modules:``; or
        ``module:function``. :class:`recllm_bench.api.metric.Metric` says what such a function is.

    Raises
    ------
    BenchError
        For an unknown name, with the nearest valid one; for a function that breaks the contract on invented targets.
    """
    if name in METRICS:
        if name in registered("metrics"):
            raise BenchError(f"'{name}' is a metric of the bench; register yours under another name")
        return METRICS[name]
    if ":" not in name and name.casefold() not in {known.casefold() for known in registry.names("metrics")}:
        raise BenchError(f"unknown metric '{name}'.{nearest(name, {*METRICS, *registry.names('metrics')})}")
    return own_metric(name, registry.resolve("metrics", name))


def metric_lines() -> list[tuple[str, str]]:
    """Name and one line about every metric that has a name; the bench's first."""
    rows = [(name, (metric.compute.__doc__ or "").partition("\n")[0]) for name, metric in METRICS.items()]
    for name in registry.names("metrics"):
        try:
            rows.append((name, (metric_named(name).compute.__doc__ or "").strip().partition("\n")[0]))
        except BenchError as error:  # somebody's broken plug-in is shown, and does not hide the others
            rows.append((name, f"cannot be used: {error}"))
    return rows


def metric_key(name: str) -> str:
    """What a metric's values depend on: its name and, for somebody's own, the hash of its source file."""
    metric = metric_named(name.partition("@")[0])
    return name if metric.name in METRICS else f"{name}#{code_hash(metric.compute)}"


def validation_metric(text: str) -> str:
    """Check what ``training.validate_metric`` says, and return the name of its one value.

    Raises
    ------
    BenchError
        For an unknown metric, or one that needs a cut-off and has none.
    """
    try:
        wanted = wanted_metrics((text,), ())
    except BenchError as error:
        raise BenchError(f"training: validate_metric: {error}") from error
    if len(wanted) != 1:
        raise BenchError(f"training: validate_metric: write it as metric@K, such as NDCG@10, got '{text}'")
    return wanted[0][0]


@register_metric("Recall")
def recall(targets: Targets, k: int) -> np.ndarray:
    """Share of the targets among the first k: min(1, max(0, (k - g) / t)) for one target."""
    return targets.total_gain(np.ones(k)) / targets.relevant


@register_metric("HR")
def hit_rate(targets: Targets, k: int) -> np.ndarray:
    """Whether any target is among the first k (probability of it under ties); Recall when there is one target."""
    if len(targets.owner) == targets.n_rankings:
        return recall(targets, k)
    owner, rank, probability = targets.first_ranks()
    return np.minimum(np.bincount(owner, probability * (rank <= k), targets.n_rankings), 1.0)


@register_metric("Precision")
def precision(targets: Targets, k: int) -> np.ndarray:
    """Targets among the first k, divided by k."""
    return targets.total_gain(np.ones(k)) / k


@register_metric("NDCG")
def ndcg(targets: Targets, k: int) -> np.ndarray:
    """Gain 1 / log2(rank + 1) of the targets among the first k over that of the best order of min(k, |R|) targets."""
    gains = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(gains)[np.minimum(targets.relevant, k) - 1]
    return targets.total_gain(gains) / ideal


@register_metric("MRR", uncut=True)
def reciprocal_rank(targets: Targets, k: int | None) -> np.ndarray:
    """1 / rank of the first target, 0 beyond k."""
    if len(targets.owner) == targets.n_rankings:
        ranked = targets.ranked
        last = int((targets.higher + targets.tied)[ranked].max()) if ranked.any() else 1
        return targets.total_gain(1.0 / np.arange(1, min(k or last, last) + 1))
    owner, rank, probability = targets.first_ranks()
    gain = probability / rank if k is None else np.where(rank <= k, probability / rank, 0.0)
    return np.bincount(owner, gain, targets.n_rankings)


def resolve_targets(ranks: Ranks, ties: str = "expected") -> Targets:
    """Group ranks by ranking (user and history) and apply the tie policy.

    Parameters
    ----------
    ranks : Ranks
        One row for each case.
    ties : str
        ``expected``: keep ties, metrics take the mean over random orders. ``pessimistic``: a tied target stands
        behind all others of its score (rank g + t). ``optimistic``: before them (rank g + 1). Targets of one
        ranking that tie with each other take successive ranks.
    """
    rows, owner = _owners(_rankings(ranks))
    higher, tied = ranks.higher.astype(np.int64), ranks.tied.astype(np.int64)
    if (tied < 1).any():
        raise BenchError("ranks with tied = 0: the target itself counts, so it is at least 1")
    relevant = np.bincount(owner, minlength=len(rows))
    ranked = higher < UNRANKED
    if ties == "expected":
        return Targets(higher, tied, owner, relevant, ranked)
    if ties not in ("pessimistic", "optimistic"):
        raise BenchError(f"ties: '{ties}' is not one of expected, pessimistic, optimistic")
    order = np.lexsort((higher, owner))
    same = np.zeros(len(order), dtype=bool)
    same[1:] = (owner[order][1:] == owner[order][:-1]) & (higher[order][1:] == higher[order][:-1])
    start = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    place, block = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - start  # 0, 1, ... among the ranking's targets of one score
    block[order] = np.bincount(start, minlength=len(order))[start]
    shift = place if ties == "optimistic" else tied - block + place
    higher = np.where(ranked, higher + shift, higher)
    return Targets(higher, np.ones_like(tied), owner, relevant, ranked)


def per_user(
    ranks: Ranks,
    metrics: Iterable[str],
    cutoffs: Iterable[int],
    ties: str = "expected",
    *,
    warn: bool = True,
    facts: Facts | None = None,
) -> dict[str, np.ndarray]:
    """Metric values of every user: the mean over the user's rankings.

    Parameters
    ----------
    ranks : Ranks
        From ``rank_cases``.
    metrics : iterable of str
        Registered names, such as ``"NDCG"``: each is cut at every cut-off (and reported uncut where that makes
        sense, as ``"MRR"``). ``"NDCG@10"`` asks for that one alone.
    cutoffs : iterable of int
        The K.
    ties : str
        Tie policy, see :func:`resolve_targets`.
    warn : bool
        Log a warning when more than 1 % of the targets tie.
    facts : mapping of str to callable, optional
        What metrics may need of the data, made when one asks for it: ``popularity``, ``titles``; see
        :func:`data_facts`.

    Returns
    -------
    dict of str to float64 [n_users]
        Such as ``{"NDCG@10": ...}``; users in the order of :func:`user_ids`.

    Raises
    ------
    BenchError
        For an unknown metric, a cut-off below 1, a fact that is not at hand, or values that are no finite numbers.
    """
    wanted = wanted_metrics(metrics, tuple(cutoffs))
    targets = resolve_targets(ranks, ties)
    share = share_with_ties(ranks)
    if warn and share > _MANY_TIES:
        log.warning(f"{share:.1%} of the targets tie with another candidate; metrics take the {ties} value")
    first, _ = _owners(_rankings(ranks))
    users, owner = _owners(ranks.users[first])
    rankings = np.bincount(owner, minlength=len(users))
    values, known = {}, {**case_facts(ranks), **(facts or {})}
    for name, metric, k in wanted:
        of_ranking = computed(metric, targets, k, known)
        values[name] = np.bincount(owner, of_ranking, len(users)) / rankings
    return values


def user_ids(ranks: Ranks) -> np.ndarray:
    """User id of each row of :func:`per_user`: in order of first appearance."""
    return ranks.users[_owners(ranks.users)[0]]


def aggregate(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean over users, each user once."""
    return {name: float(np.mean(column)) for name, column in values.items()}


def share_with_ties(ranks: Ranks) -> float:
    """Share of targets that tie with at least one other candidate."""
    return float(np.mean(ranks.tied > 1))


def beyond_accuracy(top: np.ndarray, popularity: np.ndarray, k: int) -> dict[str, float]:
    """What the recommended lists look like, whatever the targets.

    Parameters
    ----------
    top : int [n, >= k]
        Best items first, 0 where a list ends early.
    popularity : int [n_items + 1]
        Training interactions of each item; entry 0 is padding.
    k : int
        List length.

    Returns
    -------
    dict
        ``Coverage@k``: share of the catalogue that is recommended to anyone. ``Popularity@k``: mean percentile of
        the items' popularity, 1 for the most popular, ties sharing their mean. ``Novelty@k``: mean of
        -log2(p) with p the item's smoothed share (count + 1) / (total + n_items) of the training interactions.
    """
    if top.shape[1] < k:
        raise BenchError(f"lists of {top.shape[1]} items cannot be cut at {k}; rank with top={k}")
    counts = np.asarray(popularity[1:], dtype=np.float64)
    shown = top[:, :k][top[:, :k] > 0] - 1
    if not len(shown):
        return {f"Coverage@{k}": 0.0, f"Popularity@{k}": float("nan"), f"Novelty@{k}": float("nan")}
    order = np.sort(counts)
    below, until = np.searchsorted(order, counts, "left"), np.searchsorted(order, counts, "right")
    percentile = (below + until - 1) / 2 / max(len(counts) - 1, 1)
    information = -np.log2((counts + 1) / (counts.sum() + len(counts)))
    return {
        f"Coverage@{k}": len(np.unique(shown)) / len(counts),
        f"Popularity@{k}": float(percentile[shown].mean()),
        f"Novelty@{k}": float(information[shown].mean()),
    }


def _rankings(ranks: Ranks) -> np.ndarray:
    """A key for each case, equal for the targets of one ranking."""
    if ranks.lengths is None:
        return ranks.users
    return ranks.users * (int(ranks.lengths.max()) + 1) + ranks.lengths


def _owners(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row of each key in order of appearance, and the place of each row's key in that order."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[inverse]


def wanted_metrics(metrics: Iterable[str], cutoffs: tuple[int, ...]) -> list[tuple[str, Metric, int | None]]:
    """The columns that names ask for: (column, metric, cut-off or None); see :func:`per_user`.

    Raises
    ------
    BenchError
        For an unknown metric, or a cut-off that is none or that the metric does not have.
    """
    rows: list[tuple[str, Metric, int | None]] = []
    for k in cutoffs:
        if not 1 <= k <= MOST_CUTOFF:
            raise BenchError(f"cut-offs must be at least 1 and at most {MOST_CUTOFF:,}, got {k}")
    for entry in metrics:
        name, at, cut = entry.partition("@")
        metric = metric_named(name)
        if at and not metric.cutoffs:
            raise BenchError(f"metric '{entry}': {name} has no cut-off; ask for {name}")
        if at and not (cut.isdecimal() and 1 <= int(cut[:9]) <= MOST_CUTOFF and len(cut) < 9):
            raise BenchError(f"metric '{entry}': the cut-off must be a whole number of at least 1, as in {name}@10")
        if metric.uncut and not at:
            rows.append((name, metric, None))
        if metric.cutoffs:
            rows.extend((f"{name}@{k}", metric, k) for k in ((int(cut),) if at else cutoffs))
    return rows
