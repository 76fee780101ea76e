"""Intervals of a mean over users: Wilson's score interval, also for graded values and several seeds.

A metric in [0, 1] that is 0 for most users has a skew that a symmetric interval ignores and that resampling cannot see
where hits are few. Wilson's interval keeps its coverage there for rates. Values between 0 and 1 are taken as if every
hit had the same worth (the two-point distribution with the same mean and variance); for rates that is Wilson's interval
itself. Other values, such as turns, get Student's t interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from recllm_bench.errors import BenchError


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float]:
        """Plain values for a run record."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}


def wilson(successes: float, n: float, level: float = 0.95, *, quantile: float | None = None) -> tuple[float, float]:
    """Score interval of a rate (Wilson, 1927).

    Parameters
    ----------
    successes : float
        Number of successes; a published rate times n may be fractional.
    n : float
        Trials.
    level : float
        Confidence.
    quantile : float, optional
        In place of the normal quantile of ``level``.
    """
    if n <= 0 or not 0 <= successes <= n * (1 + 1e-9):
        raise BenchError(f"{successes} successes of {n} trials give no rate")
    z = NormalDist().inv_cdf((1 + level) / 2) if quantile is None else quantile
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(max(rate * (1 - rate), 0.0) / n + z * z / (4 * n * n))
    low = 0.0 if successes <= 0 else max(0.0, centre - reach)
    high = 1.0 if successes >= n else min(1.0, centre + reach)
    return low, high


def mean_interval(values: np.ndarray, level: float = 0.95) -> Interval:
    """Interval of a mean over users, and over seeds where there are several.

    Parameters
    ----------
    values : float [seeds, users]
        Users in the same order in every row.
    level : float
        Confidence.

    Raises
    ------
    BenchError
        Without values, or with values that are not numbers.
    """
    from scipy import stats

    from recllm_bench.evaluation.families import Rows

    rows = Rows([values])
    mean, n = float(rows.means[0]), rows.users
    user, seed, freedom = rows.variance(0)
    several = rows.seeds[0] > 1
    of_users = np.asarray(values, dtype=np.float64).mean(0)
    if of_users.min() < 0 or of_users.max() > 1:
        reach = float(stats.t.isf((1 - level) / 2, freedom)) * math.sqrt(user + seed)
        return Interval(mean, mean - reach, mean + reach, n)
    worth = float((of_users**2).sum() / of_users.sum()) if mean > 0 else 1.0
    users = n * user / (user + seed) if user > 0 else float(n)  # as many as leave the variance that seeds add
    quantile = float(stats.t.isf((1 - level) / 2, freedom)) if several else None
    low, high = wilson(min(mean / worth, 1.0) * users, users, level, quantile=quantile)
    return Interval(mean, worth * low, min(1.0, worth * high), n)
