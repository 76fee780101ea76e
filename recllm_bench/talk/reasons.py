"""Why an item is in the list: which wishes it fits, and near which items of the history it lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from recllm_bench.data.histories import Histories
from recllm_bench.talk.vocabulary import Vocabulary
from recllm_bench.talk.wishes import FACTS, YEARS, Constraint, Wishes

_LEAST_SHARED = 3  # users; fewer are chance
_NEAR = 2  # items of the history that are named
_MOST_LETTERS = 40


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
        everybody, counts = float(self._had.shape[0]), self._counts[own]
        spread = counts * (everybody - counts) * users * (everybody - users)
        phi = (shared * everybody - counts * users) / np.sqrt(np.maximum(1, spread))
        phi[shared < _LEAST_SHARED] = 0
        best = [place for place in np.argsort(-phi, kind="stable")[:_NEAR].tolist() if phi[place] > 0]
        return [Near(own[place], int(shared[place]), users) for place in best]


def why(
    item: int,
    wishes: Wishes,
    vocabulary: Vocabulary,
    neighbours: Neighbours,
    history: Sequence[int],
    titles: Sequence[str],
) -> str:
    """One line: the wishes that an item fits, and what of the history it lies near; empty when there is neither."""
    parts = []
    if wishes:
        parts.append("fits " + ", ".join(_fact(item, wish, vocabulary) for wish in wishes))
    near = neighbours.near(item, history)
    if near:
        named = [f"{_short(titles[one.item])} ({one.both} of its {one.users} users)" for one in near]
        parts.append("near " + " and ".join(named))
    return "; ".join(parts)


def _fact(item: int, wish: Constraint, vocabulary: Vocabulary) -> str:
    """What of an item meets a wish."""
    if not wish.wanted:
        return str(wish)
    if wish.kind == YEARS:
        return f"{vocabulary.years[item]}"
    own = vocabulary.terms_of(item)
    terms = [
        term for term in (wish.terms if wish.kind == FACTS else vocabulary.categories_of(wish.item)) if term in own
    ]
    names = " and ".join(vocabulary.facts[term].value for term in terms[: _NEAR + 1])
    return names if wish.kind == FACTS else f"{wish.label}{f' ({names})' if names else ''}"


def _short(title: str) -> str:
    return title if len(title) <= _MOST_LETTERS else title[: _MOST_LETTERS - 1] + "…"
