"""Which items the same people had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from recllm_bench.data.histories import Histories

_LEAST_SHARED = 3  # users; fewer are chance
_NEAR = 2  # items of the history that are named


class Near(NamedTuple):
    """An item of the history, how many had it among those who had another, and how many those were."""

    item: int
    both: int
    users: int


class Neighbours:
    """Which items the same people had.

    Parameters
    ----------
    histories : Histories
    train_ends : int64 [n_users]
        Ends of the training part; what comes after counts for nothing.
    """

    def __init__(self, histories: Histories, train_ends: np.ndarray) -> None:
        kept = histories.before(train_ends)
        users, items = histories.users_of_positions()[kept] - 1, histories.items[kept]
        shape = (histories.n_users, histories.n_items + 1)
        found = sparse.csc_matrix((np.ones(len(items), dtype=np.float32), (users, items)), shape=shape)
        found.data[:] = 1  # who had an item twice counts once
        self._had = found
        self._counts = np.diff(found.indptr)

    def near(self, item: int, history: Sequence[int]) -> list[Near]:
        """Items of a history that many of an item's users had, the nearest first by the phi coefficient.

        Only what at least three users share, and more than chance would give.
        """
        own = list(dict.fromkeys(int(other) for other in history if other != item))
        users = int(self._counts[item])
        if not own or not users:
            return []
        shared = np.asarray((self._had[:, own].T @ self._had[:, [item]]).todense()).ravel()
        phi = self._phi(shared, self._counts[own], users)
        best = [place for place in np.argsort(-phi, kind="stable")[:_NEAR].tolist() if phi[place] > 0]
        return [Near(own[place], int(shared[place]), users) for place in best]

    def beside(self, item: int) -> np.ndarray:
        """Items that more of an item's users had than chance would give, at least three, bool [n_items + 1]."""
        shared = np.asarray((self._had.T @ self._had[:, [item]]).todense()).ravel()
        return self._phi(shared, self._counts, int(self._counts[item])) > 0

    def _phi(self, shared: np.ndarray, counts: np.ndarray, users: int) -> np.ndarray:
        """The phi coefficient of having one item and another; 0 where too few had both."""
        everybody = float(self._had.shape[0])
        spread = counts * (everybody - counts) * users * (everybody - users)
        phi = (shared * everybody - counts * users) / np.sqrt(np.maximum(1, spread))
        return np.where(shared < _LEAST_SHARED, 0, phi)
