"""Where every target stands, grouped by ranking; what all metrics are computed from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recllm_bench.evaluation.places import UNRANKED


@dataclass(frozen=True)
class Targets:
    """Every target with its place, grouped by ranking; what a metric is computed from.

    A ranking is what one user was shown at one moment. It nearly always has one target.

    Attributes
    ----------
    higher, tied : int64 [targets]
        Candidates that beat the target; candidates that tie with it (itself included). The tie policy is already
        in them: under ``pessimistic`` and ``optimistic`` every target stands alone (``tied`` = 1).
    owner : int64 [targets]
        The target's ranking, ``0..n_rankings - 1``.
    relevant : int64 [n_rankings]
        Targets of each ranking, at least 1.
    ranked : bool [targets]
        Whether the model scored the target at all.
    facts : mapping
        What the metric declared that it needs; :class:`recllm_bench.api.metric.Places` lists the facts.
    """

    higher: np.ndarray
    tied: np.ndarray
    owner: np.ndarray
    relevant: np.ndarray
    ranked: np.ndarray
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_rankings(self) -> int:
        """Number of rankings."""
        return len(self.relevant)

    def total_gain(self, gains: np.ndarray) -> np.ndarray:
        """Sum over each ranking's targets of the expected gain of its rank.

        Parameters
        ----------
        gains : float64 [K]
            Gain of ranks 1 to K; later ranks gain nothing.

        Returns
        -------
        float64 [n_rankings]
            With g better and t equal candidates, a target's expectation is the mean gain of ranks g + 1 to g + t.
        """
        until = np.concatenate([[0.0], np.cumsum(gains)])
        last = len(gains)
        low, high = np.minimum(self.higher, last), np.minimum(self.higher + self.tied, last)
        values = np.where(self.ranked, (until[high] - until[low]) / self.tied, 0.0)
        return np.bincount(self.owner, values, self.n_rankings)

    def first_ranks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distribution of the rank of each ranking's best target.

        Returns
        -------
        owner : int64 [m]
            The ranking.
        rank : int64 [m]
            A rank the best target may have, from 1.
        probability : float64 [m]
            Its probability; a ranking's entries sum to 1, and one without a scored target has none.
        """
        best = np.full(self.n_rankings, UNRANKED)
        np.minimum.at(best, self.owner[self.ranked], self.higher[self.ranked])
        in_best = self.ranked & (self.higher == best[self.owner])
        wanted = np.bincount(self.owner[in_best], minlength=self.n_rankings)  # targets in the best tie
        size = np.ones(self.n_rankings, dtype=np.int64)
        size[self.owner[in_best]] = self.tied[in_best]
        rows = np.flatnonzero(wanted)
        t, w = size[rows], wanted[rows]
        owner = np.repeat(rows, t)
        step = np.arange(len(owner)) - np.repeat(np.cumsum(t) - t, t)  # 0 .. t - 1 in each tie
        # P(the first j of t places hold no target) is the product over i < j of (t - w - i) / (t - i).
        none_at = (np.repeat(t - w, t) - step).clip(min=0) / (np.repeat(t, t) - step)
        survive = _running_products(none_at, t)
        before = np.concatenate([[1.0], survive[:-1]]) if len(survive) else survive
        before[np.cumsum(t) - t] = 1.0
        return owner, best[owner] + 1 + step, before - survive


def _running_products(factors: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Cumulative products within consecutive groups."""
    with np.errstate(divide="ignore"):
        logs = np.where(factors > 0, np.log(np.where(factors > 0, factors, 1.0)), 0.0)
    sums, zeros = np.cumsum(logs), np.cumsum(factors <= 0)
    starts = np.cumsum(lengths) - lengths
    base = np.repeat(np.concatenate([[0.0], sums])[starts], lengths)
    base_zeros = np.repeat(np.concatenate([[0], zeros])[starts], lengths)
    return np.where(zeros > base_zeros, 0.0, np.exp(sums - base))
