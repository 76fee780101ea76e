"""Intervals and tests over users: is a number sharp, is a difference real?

Resampling users with replacement and averaging needs only how often each distinct value is drawn. Per-user metrics
of one target take few distinct values, so the counts come from one multinomial draw (the same distribution as
drawing users one by one, at a fraction of the work); otherwise users are drawn in blocks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from recllm_bench.errors import BenchError

RESAMPLES = 10_000
SEED = 20_240_501
_DRAWS_AT_ONCE = 1 << 22
_DRAWS_KEPT = 1 << 27


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2

    def as_dict(self) -> dict[str, float]:
        """Plain values for a run record."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}


@dataclass(frozen=True)
class Difference:
    """A paired mean difference a - b with its interval and its p-value."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def bootstrap(
    values: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = SEED, method: str = "percentile"
) -> Interval:
    """Confidence interval of a mean by resampling users (Efron and Tibshirani, 1993).

    Parameters
    ----------
    values : float [n]
        One value for each user.
    level : float
        Confidence.
    resamples, seed : int
        Number of resamples and their fixed seed.
    method : str
        ``percentile`` or ``bca`` (bias-corrected and accelerated; the jackknife acceleration of a mean).

    Raises
    ------
    BenchError
        Without values, or with values that are not numbers.
    """
    values = _numbers(values)
    means = resampled_means(values, resamples, seed)
    tails = ((1 - level) / 2, (1 + level) / 2)
    mean = float(values.mean())
    if method == "bca":
        tails = _bca_tails(values, means, mean, tails)
    elif method != "percentile":
        raise BenchError(f"bootstrap method '{method}' is not one of percentile, bca")
    low, high = np.quantile(means, tails)
    return Interval(mean, float(low), float(high), len(values))


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


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a rate (Wilson, 1927).

    Parameters
    ----------
    successes : float
        Number of successes; a published rate times n may be fractional.
    n : int
        Trials.
    """
    if n < 1 or not 0 <= successes <= n * (1 + 1e-9):
        raise BenchError(f"{successes} successes of {n} trials give no rate")
    z = NormalDist().inv_cdf((1 + level) / 2)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(max(rate * (1 - rate), 0.0) / n + z * z / (4 * n * n))
    low = 0.0 if successes <= 0 else max(0.0, centre - reach)
    high = 1.0 if successes >= n else min(1.0, centre + reach)
    return low, high


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = SEED
) -> Difference:
    """Mean difference a - b over the same users, with a percentile interval and a two-sided p-value.

    The p-value is twice the smaller share of resampled differences on the other side of 0, counting the observed
    sample as one resample; it is 1 when all differences are 0.
    """
    difference = _paired(a, b)
    means = resampled_means(difference, resamples, seed)
    return _difference(float(difference.mean()), means, level, len(difference))


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
            kept = rng.binomial(counts, 0.5, (rows.stop - rows.start, len(sizes)))
            sums[rows] = (2 * kept - counts) @ sizes
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


def holm(p_values: Sequence[float] | Mapping[str, float]) -> list[float] | dict[str, float]:
    """Adjust p-values for the number of tests (Holm, 1979): step down, monotone, at most 1.

    Returns
    -------
    list or dict
        Adjusted p-values, keyed and ordered as given.
    """
    if isinstance(p_values, Mapping):
        return dict(zip(p_values, holm(list(p_values.values())), strict=True))
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted.tolist()


def hierarchical_bootstrap(
    values: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """Interval of the mean over training seeds and users: seeds are resampled, then users.

    The users are the same people under every seed, so one draw of users serves all drawn seeds.

    Parameters
    ----------
    values : float [seeds, users]
        Users in the same order in every row.
    """
    values = _of_seeds(values)
    means = _hierarchical_means([values], resamples, seed)[0]
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(values.mean()), float(low), float(high), values.shape[1])


def hierarchical_difference(
    a: np.ndarray, b: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = SEED
) -> Difference:
    """Mean difference a - b over training seeds and the same users; p-value as in :func:`paired_bootstrap`.

    Users are drawn once for both sides, seeds for each side on its own: a seed of one model has no partner in another.

    Parameters
    ----------
    a, b : float [seeds, users]
        Users in the same order; the sides may have different numbers of seeds.
    """
    a, b = _of_seeds(a), _of_seeds(b)
    if a.shape[1] != b.shape[1]:
        raise BenchError(f"paired values need the same users: got {a.shape[1]} and {b.shape[1]}")
    left, right = _hierarchical_means([a, b], resamples, seed)
    return _difference(float(a.mean() - b.mean()), left - right, level, a.shape[1])


def _of_seeds(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise BenchError("values of several seeds are [seeds, users], with at least one of each")
    _numbers(values.ravel())
    return values


def _hierarchical_means(sides: Sequence[np.ndarray], resamples: int, seed: int) -> np.ndarray:
    """Means ``[sides, resamples]`` of values ``[seeds, users]``: users drawn for all sides, seeds for each."""
    values = np.concatenate(sides).T
    ends = np.cumsum([len(side) for side in sides])
    rng = np.random.default_rng([seed, 1])
    means, done = np.empty((len(sides), resamples)), 0
    for times in _draws(len(values), resamples, seed):
        rows = slice(done, done + len(times))
        of_seed = times.astype(np.float64) @ values / len(values)
        for number, end in enumerate(ends):
            seeds = len(sides[number])
            weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(times)) / seeds
            means[number, rows] = (weights * of_seed[:, end - seeds : end]).sum(1)
        done = rows.stop
    return means


def _draws(n: int, resamples: int, seed: int) -> Iterable[np.ndarray]:
    """How often each of ``n`` users is drawn in each resample, uint8 blocks ``[rows, n]``; the same for all tests."""
    return _kept_draws(n, resamples, seed) if n * resamples <= _DRAWS_KEPT else _new_draws(n, resamples, seed)


@functools.lru_cache(maxsize=1)
def _kept_draws(n: int, resamples: int, seed: int) -> tuple[np.ndarray, ...]:
    return tuple(_new_draws(n, resamples, seed))


def _new_draws(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    for rows in _blocks(resamples, n):
        size = rows.stop - rows.start
        drawn = rng.integers(0, n, (size, n)) + np.arange(size)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=size * n).astype(np.uint8).reshape(size, n)


def _difference(mean: float, means: np.ndarray, level: float, n: int) -> Difference:
    """Interval and p-value of a difference from its resampled means."""
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    beyond = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    return Difference(mean, float(low), float(high), min(1.0, 2 * (beyond + 1) / (len(means) + 1)), n)


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


def _bca_tails(values: np.ndarray, means: np.ndarray, mean: float, tails: tuple[float, float]) -> tuple[float, float]:
    centred = values - mean
    spread = float((centred**2).sum())
    if spread == 0:
        return tails
    # Half of the resamples equal to the estimate count as below it: means of few distinct values tie.
    below = (np.count_nonzero(means < mean) + np.count_nonzero(means == mean) / 2) / len(means)
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(below, 1 / len(means)), 1 - 1 / len(means)))
    acceleration = float((centred**3).sum()) / (6 * spread**1.5)

    def moved(tail: float) -> float:
        z = bias + normal.inv_cdf(tail)
        return normal.cdf(bias + z / (1 - acceleration * z))

    return moved(tails[0]), moved(tails[1])


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
