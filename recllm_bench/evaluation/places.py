"""What ranking leaves behind: a few whole numbers for each case. Needs no torch, so that tables stay quick."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNRANKED = 2**31 - 1
"""``higher`` of a target that the model gave no score (minus infinity): every metric is 0."""


@dataclass(frozen=True)
class Ranks:
    """Ranks of the targets, one row for each case.

    Attributes
    ----------
    users : int64 [n]
        User ids.
    targets : int32 [n]
        Item ids.
    higher : int64 [n]
        Candidates that score strictly higher than the target; :data:`UNRANKED` when the target has no score.
    tied : int64 [n]
        Candidates with exactly the target's score, the target included: at least 1.
    candidates : int64 [n]
        Number of candidates, the target included.
    top : int32 [n, top] or None
        Best items first, 0 where there are fewer candidates; only when asked for.
    lengths : int64 [n] or None
        Interactions in each case's history. Cases of one user with equal lengths are the targets of one ranking, others
        are rankings of their own; None: all cases of a user are the targets of one ranking.
    repeats : int
        Cases whose target is already in the history; it stays a candidate all the same.
    """

    users: np.ndarray
    targets: np.ndarray
    higher: np.ndarray
    tied: np.ndarray
    candidates: np.ndarray
    top: np.ndarray | None = None
    lengths: np.ndarray | None = None
    repeats: int = 0

    def __len__(self) -> int:
        return len(self.users)
