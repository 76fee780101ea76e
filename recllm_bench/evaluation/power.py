"""Before a run: which difference can so many users and seeds tell?"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

from recllm_bench.errors import BenchError
from recllm_bench.evaluation.equivalence import POWER
from recllm_bench.evaluation.families import ALPHA

RATES = (0.02, 0.05, 0.1, 0.2, 0.5)
AGREEMENT = 0.5
"""Correlation of two models' hits over users where no records tell; the reference runs have 0 to 0.7, 0.9 where one
model stands on the other."""


@dataclass(frozen=True)
class Plan:
    """What a table will be able to tell.

    Attributes
    ----------
    users, rows, seeds : int
        Size of the table.
    deviation : float
        Standard deviation between seeds, relative to the mean.
    agreement : float
        Correlation of two models' hits over users.
    """

    users: int
    rows: int = 6
    seeds: int = 1
    deviation: float = 0.05
    agreement: float = AGREEMENT

    def __post_init__(self) -> None:
        for name, least in (("users", 2), ("rows", 2), ("seeds", 1)):
            if getattr(self, name) < least:
                raise BenchError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.deviation <= 1 or not 0 <= self.agreement < 1:
            raise BenchError("deviation is a share of the mean, 0 to 1, and agreement a correlation from 0 to below 1")

    def difference(self, rate: float) -> float:
        """Smallest difference of two hit rates that is marked four times out of five, in a table of this size.

        Users count by the variance of the paired difference, ``2 (1 - agreement) rate (1 - rate)``; seeds, where there
        are several, by twice their variance. The threshold is that of the first mark among so many rows (Tukey's
        studentised range; later marks need less), with degrees of freedom by Welch and Satterthwaite.

        Parameters
        ----------
        rate : float
            Of the row to compare with.
        """
        from scipy import stats

        user = 2 * (1 - self.agreement) * rate * (1 - rate) / self.users
        seed = 2 * (self.deviation * rate) ** 2 / self.seeds if self.seeds > 1 else 0.0
        below = user**2 / (self.users - 1) + seed**2 / max(2 * (self.seeds - 1), 1)
        freedom = min((user + seed) ** 2 / below, 1e5)
        threshold = stats.studentized_range.isf(ALPHA, self.rows, freedom) / 2**0.5
        return float((threshold + NormalDist().inv_cdf(POWER)) * (user + seed) ** 0.5)
