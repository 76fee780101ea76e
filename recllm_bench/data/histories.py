"""Who consumed what, in order, as flat arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Histories:
    """Compressed rows of item ids, oldest first.

    Attributes
    ----------
    items : int32 [total]
        Item ids, ``1..n_items``.
    offsets : int64 [n_users + 1]
        User ``u`` (``1..n_users``) owns ``items[offsets[u - 1]:offsets[u]]``.
    n_items : int
        Items in the id space, padding not counted.
    times : int64 [total] or None
        Unix seconds, when the source has them.
    ratings : float32 [total] or None
        Ratings, when the source has them.
    """

    items: np.ndarray
    offsets: np.ndarray
    n_items: int
    times: np.ndarray | None = None
    ratings: np.ndarray | None = None

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Interactions of each user, int64 [n_users]."""
        return np.diff(self.offsets)

    def of(self, user: int) -> np.ndarray:
        """History of a user id, a view."""
        return self.items[self.offsets[user - 1] : self.offsets[user]]

    def users_of_positions(self) -> np.ndarray:
        """User id of every interaction, int64 [total]."""
        return np.repeat(np.arange(1, self.n_users + 1), self.lengths)

    def before(self, ends: np.ndarray) -> np.ndarray:
        """Which interactions lie before an absolute end of each user's row, such as ``train_ends``: bool [total]."""
        return np.arange(len(self.items)) < np.repeat(ends, self.lengths)

    @classmethod
    def from_rows(cls, rows: list, n_items: int | None = None, times: list | None = None) -> Histories:
        """Build from one sequence of item ids for each user (tests and small data)."""
        lengths = [len(row) for row in rows]
        items = np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]) if rows else np.zeros(0, np.int32)
        flat_times = np.concatenate([np.asarray(row, dtype=np.int64) for row in times]) if times else None
        largest = int(items.max()) if len(items) else 0
        return cls(items, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), n_items or largest, flat_times)
