"""What somebody wants so far: constraints in the order in which they were said, and which items fit them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from recllm_bench.talk.vocabulary import Vocabulary

FACTS, YEARS, LIKE = "facts", "years", "like"
NEVER, EVER = 0, 9999


@dataclass(frozen=True)
class Constraint:
    """One thing that was said.

    Attributes
    ----------
    kind : str
        ``facts`` (an item has any of ``terms``), ``years`` (made from ``low`` to ``high``) or ``like`` (another that
        shares at least half of the telling categories of ``item``; where that has none, one that the same people had).
    label : str
        How it is shown.
    wanted : bool
        Whether items must fit it, or must not.
    """

    kind: str
    label: str
    wanted: bool = True
    terms: tuple[int, ...] = ()
    low: int = NEVER
    high: int = EVER
    item: int = 0

    def __str__(self) -> str:
        return self.label if self.wanted else f"no {self.label}" if self.kind == FACTS else f"not {self.label}"

    def holds(self, vocabulary: Vocabulary) -> np.ndarray:
        """Items for which it is true, wanted or not, bool [n_items + 1]; an item without a year has none."""
        if self.kind == YEARS:
            years = vocabulary.years
            return (years > 0) & (years >= self.low) & (years <= self.high)
        if self.kind == FACTS:
            return vocabulary.has(self.terms)
        own = vocabulary.categories_of(self.item)
        shared = np.asarray(vocabulary.matrix[:, own].sum(1)).ravel() if own else np.zeros(len(vocabulary.years))
        fits = shared >= max(1, -(-len(own) // 2))
        if not own and vocabulary.neighbours is not None:
            fits = vocabulary.neighbours.beside(self.item)
        fits[self.item] = False
        return fits


Wishes = tuple[Constraint, ...]


def fitting(wishes: Wishes, vocabulary: Vocabulary) -> np.ndarray:
    """Items that fit all that is wanted and nothing that is refused, bool [n_items + 1]; padding never does."""
    mask = np.ones(len(vocabulary.years), dtype=bool)
    mask[0] = False
    for constraint in wishes:
        mask &= constraint.holds(vocabulary) == constraint.wanted
    return mask


def joined(wishes: Wishes, new: Sequence[Constraint], *, instead: bool = False) -> tuple[Wishes, list[str]]:
    """Earlier wishes and new ones; the latest word wins.

    What is said again, with either sign, takes the place of what was said before. A span of years takes the place of
    the one before, unless one is open to the past and the other to the future. A wanted title takes the place of the
    one before.

    Parameters
    ----------
    instead : bool
        Whether wanted facts take the place of the earlier wanted facts.

    Returns
    -------
    wishes : tuple of Constraint
    dropped : list of str
        What had to go, for people.
    """
    kept, dropped = list(wishes), list[str]()
    for constraint in new:
        for old in list(kept):
            if _gives_way(old, constraint) or (
                instead and constraint.wanted and old.kind == constraint.kind == FACTS and old.wanted
            ):
                kept.remove(old)
                dropped.append(str(old))
    said = {str(constraint) for constraint in new}
    return (*kept, *dict.fromkeys(new)), [old for old in dropped if old not in said]


def _gives_way(old: Constraint, new: Constraint) -> bool:
    if old.kind != new.kind:
        return False
    if old.kind == FACTS:
        return bool(set(old.terms) & set(new.terms)) and (old.wanted != new.wanted or old.terms == new.terms)
    if old.kind == LIKE:
        return (new.wanted and old.wanted) or old.item == new.item
    if not (old.wanted and new.wanted):
        return old.wanted != new.wanted and (old.low, old.high) == (new.low, new.high)
    opposite = (old.low == NEVER and new.high == EVER) or (old.high == EVER and new.low == NEVER)
    return not (opposite and max(old.low, new.low) <= min(old.high, new.high))


def loosened(wishes: Wishes, vocabulary: Vocabulary, left: np.ndarray) -> tuple[Wishes, str]:
    """Wishes that something fits, and what was done to them.

    Years are widened to the nearest that serve; else the oldest wish without which something fits goes, what is refused
    last of all; where no single one does, the oldest go one by one.

    Parameters
    ----------
    left : bool [n_items + 1]
        Items that may be shown.
    """
    order = sorted(range(len(wishes)), key=lambda place: (not wishes[place].wanted, place))
    for place in order:
        constraint = wishes[place]
        if constraint.kind == YEARS and constraint.wanted:
            rest = fitting(wishes[:place] + wishes[place + 1 :], vocabulary) & left & (vocabulary.years > 0)
            if rest.any():
                wider = _widened(constraint, vocabulary.years[rest])
                return (*wishes[:place], wider, *wishes[place + 1 :]), f"instead of {constraint} I take {wider.label}"
    for place in order:
        rest = wishes[:place] + wishes[place + 1 :]
        if (fitting(rest, vocabulary) & left).any():
            return rest, f"I leave out '{wishes[place]}'"
    gone: list[str] = []
    remaining = list(wishes)
    for place in order:
        if (fitting(tuple(remaining), vocabulary) & left).any():
            break
        remaining.remove(wishes[place])
        gone.append(str(wishes[place]))
    return tuple(remaining), f"I leave out '{', '.join(gone)}'"


def _widened(span: Constraint, years: np.ndarray) -> Constraint:
    """The span that reaches as far as the nearest year there is."""
    distance = np.where(years < span.low, span.low - years, years - span.high)
    year = int(years[distance.argmin()])
    low, high = min(span.low, year), max(span.high, year)
    shown = (
        f"{year}" if span.low > NEVER and span.high < EVER else f"before {high + 1}" if low == NEVER else f"{low} on"
    )
    return replace(
        span, low=year if shown == str(year) else low, high=year if shown == str(year) else high, label=shown
    )
