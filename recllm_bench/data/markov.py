"""A first-order Markov chain over items whose full rankings are counted, never built."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from recllm_bench.data.histories import Histories

# Excluded items are looked up in blocks of this many, so that temporary arrays stay small.
_BLOCK = 1 << 21


class Places(NamedTuple):
    """Where targets stand: candidates that beat each one, and candidates that equal it (itself included), int64 [m]."""

    higher: np.ndarray
    tied: np.ndarray


@dataclass(frozen=True)
class MarkovChain:
    """Counted transitions from item to item, smoothed by popularity.

    The probability of ``y`` after ``x`` is ``(c(x, y) + T(x) p(y)) / (c(x) + T(x))``: ``c`` counts transitions,
    ``T(x)`` is the number of different successors of ``x``, ``p(y) = n(y) / N`` the popularity (interpolation of
    Witten and Bell, The zero-frequency problem, IEEE Transactions on Information Theory 37(4), 1991). After one ``x``
    the order of the ``y`` is that of the whole numbers ``N c(x, y) + T(x) n(y)``, so ties are exact. After an item
    that was never followed by another, popularity alone decides.

    Attributes
    ----------
    n_items : int
        Items in the id space; all of ``1..n_items`` are candidates.
    popularity : int64 [n_items + 1]
        ``n(y)``: occurrences in the training part.
    keys : int64 [transitions]
        ``x * (n_items + 1) + y`` of each different transition, ascending.
    counts : int64 [transitions]
        ``c(x, y)``.
    """

    n_items: int
    popularity: np.ndarray
    keys: np.ndarray
    counts: np.ndarray

    @classmethod
    def fit(cls, histories: Histories, train_ends: np.ndarray) -> MarkovChain:
        """Count the training prefixes and nothing else.

        Parameters
        ----------
        train_ends : int64 [n_users]
            Absolute exclusive end of each user's training prefix.
        """
        items, width = histories.items, histories.n_items + 1
        trained = histories.before(train_ends)
        first = np.zeros(len(items) + 1, dtype=bool)
        first[histories.offsets[:-1]] = True
        follows = np.flatnonzero(trained[1:] & trained[:-1] & ~first[1 : len(items)])
        pairs = items[follows].astype(np.int64) * width + items[follows + 1]
        keys, counts = np.unique(pairs, return_counts=True)
        return cls(histories.n_items, np.bincount(items[trained], minlength=width), keys, counts.astype(np.int64))

    @cached_property
    def _starts(self) -> np.ndarray:
        """Transitions of item x are ``keys[_starts[x]:_starts[x + 1]]``, int64 [n_items + 2]."""
        width = self.n_items + 1
        return np.searchsorted(self.keys, np.arange(width + 1, dtype=np.int64) * width)

    @cached_property
    def _weights(self) -> np.ndarray:
        """T(x), at least 1, int64 [n_items + 1]."""
        return np.maximum(np.diff(self._starts), 1)

    @cached_property
    def _orders(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All popularities; all scores of transitions; both again within the rows of x, as ascending numbers."""
        rows, successors = np.divmod(self.keys, self.n_items + 1)
        popularity = self.popularity[successors]
        scores = int(self.popularity.sum()) * self.counts + self._weights[rows] * popularity
        levels, level = np.unique(scores, return_inverse=True)
        by_score = np.sort(rows * (len(levels) + 1) + level)
        by_popularity = np.sort(rows * (int(self.popularity.max()) + 2) + popularity)
        return np.sort(self.popularity[1:]), levels, by_score, by_popularity

    def scores(self, previous: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Score of each item after each previous item, pair by pair, int64 [m]; comparable for equal ``previous``."""
        wanted = previous.astype(np.int64) * (self.n_items + 1) + items
        counts = np.zeros(len(wanted), dtype=np.int64)
        if len(self.keys):
            places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
            counts = np.where(self.keys[places] == wanted, self.counts[places], 0)
        return int(self.popularity.sum()) * counts + self._weights[previous] * self.popularity[items]

    def places(
        self,
        previous: np.ndarray,
        targets: np.ndarray,
        excluded: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Places:
        """Rank targets among all items.

        Counting takes the time of a few binary searches for each case and excluded item, whatever the number of items.

        Parameters
        ----------
        previous : int [m]
            The item before each target; 0 for popularity alone.
        targets : int [m]
            Item ids.
        excluded : (int64 [m + 1], int [k]), optional
            Offsets and items that are no candidates: case ``i`` leaves out ``items[offsets[i]:offsets[i + 1]]``,
            which names each item once and never the target.

        Returns
        -------
        Places
        """
        popularities, levels, by_score, by_popularity = self._orders
        previous = previous.astype(np.int64)
        score, weight = self.scores(previous, targets), self._weights[previous]
        end = self._starts[previous + 1]
        # Without a transition the score is weight * popularity: compare popularities with score / weight.
        level, rest = np.divmod(score, weight)
        even = rest == 0
        at_most = np.searchsorted(popularities, level, "right")
        higher = self.n_items - at_most
        tied = np.where(even, at_most - np.searchsorted(popularities, level, "left"), 0)
        # The successors were counted there by popularity: take them out, count them again by their own scores.
        step = int(self.popularity.max()) + 2
        place = previous * step + np.minimum(level, step - 1)
        at_most = np.searchsorted(by_popularity, place, "right")
        higher -= end - at_most
        tied -= np.where(even, at_most - np.searchsorted(by_popularity, place, "left"), 0)
        row = previous * (len(levels) + 1)
        above = np.searchsorted(by_score, row + np.searchsorted(levels, score, "right"))
        higher += end - above
        tied += above - np.searchsorted(by_score, row + np.searchsorted(levels, score, "left"))
        if excluded is not None:
            self._leave_out(previous, score, excluded, higher, tied)
        return Places(higher, tied)

    def _leave_out(
        self,
        previous: np.ndarray,
        score: np.ndarray,
        excluded: tuple[np.ndarray, np.ndarray],
        higher: np.ndarray,
        tied: np.ndarray,
    ) -> None:
        offsets, items = excluded
        for low in range(0, len(items), _BLOCK):
            block = slice(low, min(low + _BLOCK, len(items)))
            first, last = np.searchsorted(offsets, [low, block.stop - 1], "right") - 1
            inside = np.clip(offsets[first : last + 2], low, block.stop)
            case = np.repeat(np.arange(first, last + 1), np.diff(inside))
            found = self.scores(previous[case], items[block])
            count = last + 1 - first
            higher[first : last + 1] -= np.bincount(case[found > score[case]] - first, minlength=count)
            tied[first : last + 1] -= np.bincount(case[found == score[case]] - first, minlength=count)
