"""Tests of one pair of rows over the same users, Holm's correction, and the percentile bootstrap of run records.

Resampling users with replacement and averaging needs only how often each distinct value is drawn. Per-user metrics
of one target take few distinct values, so the counts come from one multinomial draw (the same distribution as
drawing users one by one, at a fraction of the work); otherwise users are drawn in blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from recllm_bench.errors import BenchError
from recllm_bench.evaluation.intervals import Interval

RESAMPLES = 10_000
SEED = 20_240_501
_DRAWS_AT_ONCE = 1 << 22


def bootstrap(values: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = SEED) -> Interval:
    """Percentile interval of a mean by resampling users (Efron and Tibshirani, 1993).

    Run records keep it; tables show :func:`.mean_interval`, which covers better where hits are few.

    Parameters
    ----------
    values : float [n]
        One value for each user.
    level : float
        Confidence.
    resamples, seed : int
        Number of resamples and their fixed seed.

    Raises
    ------
    BenchError
        Without values, or with values that are not numbers.
    """
    values = _numbers(values)
    means = resampled_means(values, resamples, seed)
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(values.mean()), float(low), float(high), len(values))


def resampled_means(values: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """Means of bootstrap resamples, float64 [resamples]."""
    values = _numbers(values)
    n = len(values)
    rng = np.random.default_rng(seed)
    levels, counts = np.unique(values, return_counts=True)
    if len(levels) == 1:
        return np.full(resamples, levels[0])
    means = np.empty(resamples)
    if len(levels) <= max(16, n // 8):
        for rows in _blocks(resamples, len(levels)):
            means[rows] = rng.multinomial(n, counts / n, size=rows.stop - rows.start) @ levels / n
        return means
    for rows in _blocks(resamples, n):
        means[rows] = values[rng.integers(0, n, (rows.stop - rows.start, n), dtype=np.int32)].mean(1)
    return means


def sign_flip(a: np.ndarray, b: np.ndarray, *, draws: int = RESAMPLES, seed: int = SEED) -> float:
    """Two-sided permutation test of a paired mean difference: signs are random under the null hypothesis.

    Returns
    -------
    float
        p-value, with the observed signs counted as one draw.
    """
    difference = _paired(a, b)
    sizes, counts = np.unique(np.abs(difference[difference != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    rng = np.random.default_rng(seed)
    observed = abs(difference.sum())
    sums = np.empty(draws)
    if len(sizes) <= len(difference) // 4:  # of c equal sizes, Binomial(c, 1/2) keep their sign
        for rows in _blocks(draws, len(sizes)):
            signs = 2 * rng.binomial(counts, 0.5, (rows.stop - rows.start, len(sizes))) - counts
            sums[rows] = signs @ sizes
    else:
        moved = difference[difference != 0]
        for rows in _blocks(draws, len(moved)):
            width = -(-len(moved) // 8)
            bits = rng.integers(0, 256, (rows.stop - rows.start, width), dtype=np.uint8)
            kept = np.unpackbits(bits, axis=1, count=len(moved))
            sums[rows] = 2 * (kept @ moved) - moved.sum()
    slack = 1e-9 * np.abs(difference).sum()  # sums in another order must not miss equality
    return (1 + np.count_nonzero(np.abs(sums) >= observed - slack)) / (draws + 1)


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """Exact McNemar test of two paired success indicators (HR@K, S@K); two-sided p-value."""
    from scipy.stats import binomtest

    a, b = _numbers(a), _numbers(b)
    _paired(a, b)
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise BenchError("McNemar's test takes successes and failures (0 and 1) only")
    only_a, only_b = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def wilcoxon(a: np.ndarray, b: np.ndarray) -> float:
    """Wilcoxon signed-rank test of paired values; two-sided p-value, 1 when nothing differs."""
    from scipy import stats

    difference = _paired(a, b)
    if not difference.any():
        return 1.0
    return float(stats.wilcoxon(difference).pvalue)


PAIR_TESTS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "sign-flip": sign_flip,
    "mcnemar": mcnemar,
    "wilcoxon": wilcoxon,
}
"""Tests of one pair by name: two-sided p-value of per-user values."""


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for the number of tests (Holm, 1979): step down, monotone, at most 1; in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]


def align_pairs(
    users_a: np.ndarray, users_b: np.ndarray, fingerprints: tuple[str, str], names: tuple[str, str] = ("a", "b")
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that put two results in the same order of users.

    Parameters
    ----------
    users_a, users_b : int [n]
        User ids of the rows of each result.
    fingerprints : tuple of str
        What the results were measured under: protocol fingerprint, split checksum, candidate file.
    names : tuple of str
        For the message.

    Raises
    ------
    BenchError
        When the fingerprints or the sets of users differ: such results must not be paired.
    """
    if fingerprints[0] != fingerprints[1]:
        raise BenchError(
            f"{names[0]} and {names[1]} cannot be paired: their protocol, split or candidates differ; "
            "run both with the same ones"
        )
    order_a, order_b = np.argsort(users_a, kind="stable"), np.argsort(users_b, kind="stable")
    if len(users_a) != len(users_b) or not np.array_equal(users_a[order_a], users_b[order_b]):
        raise BenchError(f"{names[0]} and {names[1]} cannot be paired: they were measured on different users")
    return order_a, order_b


def _numbers(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise BenchError("statistics need one value for each user, and at least one user")
    if not np.isfinite(values).all():
        raise BenchError("a per-user value is not a number; there is nothing to average")
    return values


def _paired(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = _numbers(a), _numbers(b)
    if len(a) != len(b):
        raise BenchError(f"paired values need the same users: got {len(a)} and {len(b)}")
    return a - b


def _blocks(total: int, width: int) -> Iterator[slice]:
    step = max(1, _DRAWS_AT_ONCE // max(width, 1))
    return (slice(start, min(start + step, total)) for start in range(0, total, step))
