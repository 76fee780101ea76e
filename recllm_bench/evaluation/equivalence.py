"""Are two rows equal for all purposes, and what would it take to tell? Two one-sided tests (Schuirmann, 1987)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from recllm_bench.evaluation.families import ALPHA, Rows

MARGIN = 0.02
"""Smallest relative difference of interest."""
POWER = 0.8


@dataclass(frozen=True)
class Equivalence:
    """Outcome of two one-sided tests.

    Attributes
    ----------
    p : float
        The larger of both p-values: below 5 % the rows are equal within the margin.
    users : int or None
        Users that equality could be shown with, four times out of five where the rows are the same; None where users
        alone are not enough, because seeds differ too much.
    seeds : int or None
        The same for seeds of each row; None where seeds alone are not enough, or only one seed is there.
    """

    p: float
    users: int | None = None
    seeds: int | None = None

    @property
    def equal(self) -> bool:
        """Whether the rows are equal within the margin."""
        return self.p < ALPHA


def equivalence(rows: Rows, first: int, second: int, margin: float = MARGIN) -> Equivalence:
    """Test whether a row's mean lies within a relative margin of another's.

    Both limits are contrasts of their own, ``first - (1 ± margin) * second``: the second mean's own error counts too.
    One-sided t statistics are corrected for the skewness of what is averaged (Hall, 1992): rows that differ in few
    users, all in one direction, would be called equal too often.

    Parameters
    ----------
    rows : Rows
        Means and how they vary together.
    first, second : int
        Rows; the margin is relative to the second.
    margin : float
        Relative.
    """
    p_values = [_one_sided(rows, first, second, 1 + sign * margin, -sign) for sign in (-1, 1)]
    pair = rows.contrast(first, second)
    reach = margin * abs(float(rows.means[second]))
    allowed = (reach / (_normal(1 - ALPHA) + _normal((1 + POWER) / 2))) ** 2
    users = seeds = None
    if pair.seed_variance < allowed:
        users = math.ceil(rows.users * pair.user_variance / (allowed - pair.seed_variance))
    if pair.seed_variance > 0 and pair.user_variance < allowed:
        most = int(max(rows.seeds[first], rows.seeds[second]))
        seeds = math.ceil(most * pair.seed_variance / (allowed - pair.user_variance))
    return Equivalence(max(p_values), users, seeds)


def _one_sided(rows: Rows, first: int, second: int, factor: float, sign: int) -> float:
    """p-value of ``sign * (first - factor * second) > 0``."""
    from scipy import stats

    side = rows.contrast(first, second, factor)
    if side.error == 0:
        return 0.0 if sign * side.estimate > 0 else 1.0
    t = sign * side.estimate / side.error
    # Seeds' part is taken as symmetric.
    skew = sign * rows.skewness(first, second, factor) * (side.user_variance / side.error**2) ** 1.5
    lean = skew / rows.users**0.5
    corrected = t + lean / 6 + lean * t**2 / 3 + lean**2 * t**3 / 27  # monotone in t
    return float(stats.t.sf(min(t, corrected), side.freedom))


def _normal(level: float) -> float:
    return NormalDist().inv_cdf(level)
