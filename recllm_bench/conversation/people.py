"""Simulated users who speak like people: vague before specific, several facts in a sentence, dislikes, comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from math import log
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recllm_bench.conversation.answers import WHO, Answers, Manners
from recllm_bench.conversation.attributes import AttributeTable, Fact
from recllm_bench.conversation.dialogue import Dialogue, Reply
from recllm_bench.conversation.draws import Draw
from recllm_bench.conversation.phrasings import TESTED, TRAINING
from recllm_bench.conversation.profile import Profile
from recllm_bench.conversation.redaction import Redactor
from recllm_bench.conversation.spoken import SpokenFacts, noun_phrase, refused_phrase, spoken_title
from recllm_bench.errors import BenchError

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue

_TIMES = ("era", "decade")
_MOST_FACTS, _KNOWN_FACTS = 4, 9  # in one wish; of an item, for choosing among its sets
_SETS = 4  # sets of facts among which users differ, each at most twice as far from the share asked for
_DISLIKES = 10  # commonest categories, of which one is not wanted
_ATTEMPTS = 8
_SELDOM = 0.5  # of a fact's share in the catalogue: what is rarer in the history may be disliked
_TERSE = 6  # shortest frames of an opening, which are those of people of few words


class Wish(NamedTuple):
    """What a user says first.

    Attributes
    ----------
    wanted, refused : tuple of Fact
        Facts that an item must have, and must not have.
    like : int
        An item of the history that has one of the facts; 0 without.
    """

    wanted: tuple[Fact, ...]
    refused: tuple[Fact, ...]
    like: int


class People:
    """Users who say some facts of the wanted item in one of many ways.

    The facts of the first utterance are chosen so that about ``leaves`` of the catalogue fits them: among the sets of
    up to four facts (one of time) those that come nearest. A third of the users also name a common category that they
    do not want, two in five compare with an item of their history that has one of the facts. How they answer what
    they are shown and asked, :class:`.Manners` says. All is drawn from (seed, user, target, turn) alone, answers also
    from what was said and shown before. Tested users speak in phrasings that training users never use.

    Parameters
    ----------
    catalogue : Catalogue
        Gives the vocabulary of facts.
    seed : int
        Of all draws.
    leaves : float
        Share of the catalogue that a first utterance should leave.
    **manners
        Of :class:`.Manners`.
    """

    name = "rules"
    target_free = False

    def __init__(self, catalogue: Catalogue, seed: int = 0, leaves: float = 0.05, **manners: Any) -> None:
        if not 0 < leaves <= 1:
            raise BenchError(f"simulator {self.name}: leaves is a share of the catalogue above 0, got {leaves}")
        self.seed, self.leaves, self.domain = seed, leaves, catalogue.domain
        self.attributes: AttributeTable = SpokenFacts(catalogue)
        self._titles, self._guard = [spoken_title(title) for title in catalogue.titles], Redactor(catalogue)
        self._goal = max(1.0, leaves * (len(catalogue) - 1))
        self._everything = ((1 << len(catalogue)) - 1) ^ 1
        self._columns = self.attributes.matrix.tocsc()
        self._shares = np.diff(self._columns.indptr) / (len(catalogue) - 1)
        self._dislikes = [fact for fact in self.attributes.vocabulary if fact.kind == "category"][:_DISLIKES]
        self._items_of, self._sets = lru_cache(None)(self._bits), lru_cache(1 << 16)(self._near_sets)
        self._facts_of = lru_cache(None)(self._safe_facts)
        self._wish = lru_cache(1 << 15)(self._new_wish)
        self.manners, self._years = Manners(**manners), catalogue.years
        self._answers = Answers(catalogue, self, self.manners)

    @property
    def key(self) -> dict[str, Any]:
        """Who speaks: name, options, vocabulary."""
        return {"simulator": self.name, "leaves": self.leaves, **self.manners.key, **self.attributes.key}

    def open(self, profiles: Sequence[Profile]) -> list[str | None]:
        """First utterance of each user."""
        return [self._opening(profile, *self._wish(profile)) for profile in profiles]

    def facts_said(self, profiles: Sequence[Profile]) -> list[tuple[Fact, ...]]:
        """Facts that :meth:`open` states as wanted."""
        return [self._wish(profile)[0].wanted for profile in profiles]

    def facts_refused(self, profiles: Sequence[Profile]) -> list[tuple[Fact, ...]]:
        """Facts that :meth:`open` states as not wanted."""
        return [self._wish(profile)[0].refused for profile in profiles]

    def reply(
        self, profiles: Sequence[Profile], dialogues: Sequence[Dialogue], shown: Sequence[Sequence[int]]
    ) -> list[Reply]:
        """Answer of each user to the items just shown."""
        return [self._answers.reply(*row) for row in zip(profiles, dialogues, shown, strict=True)]

    def accepts(self, profile: Profile, items: Sequence[int]) -> bool:
        """Whether the item is among those shown, by id."""
        return profile.target in items

    def known(self, profile: Profile) -> tuple[Fact, ...]:
        """Facts that this user can say, most common first."""
        return self._facts_of(profile.target)

    def about(self, profile: Profile) -> Sequence[Fact]:
        """Facts of what this user has in mind."""
        return self.attributes.facts(profile.target)

    def likes(self, profile: Profile) -> Sequence[Fact]:
        """Facts that this user never dislikes: also those of what was named as an example."""
        return *self.about(profile), *self.attributes.facts(self._wish(profile)[0].like)

    def years(self, profile: Profile) -> tuple[int, int]:
        """First and last year of what this user has in mind; 0 where it has none."""
        return (int(self._years[profile.target]),) * 2

    def drawn(self, profile: Profile, turn: int) -> Draw:
        """The random choices of a user in a turn."""
        return Draw(self.seed, profile.user, profile.target, turn)

    def _new_wish(self, profile: Profile) -> tuple[Wish, int]:
        """The wish, and the state of the draw that goes on with its wording."""
        draw = self.drawn(profile, 0)
        refused: tuple[Fact, ...] = ()
        if draw.below(3) == 0:
            has = set(self.about(profile))
            never = draw.of([fact for fact in self._dislikes if fact not in has] or [None])
            refused = (never,) if never and self.is_safe(never.value, profile) else ()
        wanted = draw.of(self._sets(self.known(profile), refused))
        like = 0
        if draw.below(5) < 2:
            facts = set(wanted)
            alike = [item for item in profile.past if not facts or facts & set(self.attributes.facts(item))]
            like = draw.of(alike or [0])
            like = like if self._titles[like] and self.is_safe(self._titles[like], profile) else 0
        return Wish(wanted, refused, like), draw.state

    def is_safe(self, text: str, profile: Profile) -> bool:
        """Whether a text does not name what the user must not name."""
        return self.target_free or not self._guard.names(text, profile.target)

    def _opening(self, profile: Profile, wish: Wish, state: int) -> str:
        pool, draw = TESTED if profile.tested else TRAINING, Draw.at(state)
        terse = self.manners.of(self.drawn(profile, WHO))["persona"] == "terse"
        frames = sorted(pool.frames, key=len)[:_TERSE] if terse else pool.frames
        for _ in range(_ATTEMPTS):
            said, after = noun_phrase(wish.wanted, self.domain, draw.below(2) == 0), []
            if not wish.wanted and not wish.like:
                said += " that I will like"
            frame, plain = draw.of(frames), said
            if wish.like and draw.below(2):
                said = draw.of(pool.alike).format(wish=said, like=self._titles[wish.like])
            elif wish.like:
                after.append(draw.of(pool.liked).format(like=self._titles[wish.like]))
            if wish.refused:
                never = refused_phrase(wish.refused[0])
                if after or draw.below(2):
                    after.append(draw.of(pool.never).format(never=never))
                else:
                    said = draw.of(pool.but).format(wish=said, never=never)
            while said != plain and not frame.endswith(("{wish}.", "{wish}?")):  # a long wish ends its sentence
                frame = draw.of(frames)
            text = " ".join(map(_sentence, [frame.format(wish=said), *after]))
            if self.is_safe(text, profile):
                break
        return text

    def _safe_facts(self, target: int) -> tuple[Fact, ...]:
        facts = [fact for fact in self.attributes.facts(target) if not self._guard.names(fact.value, target)]
        return tuple(facts)

    def _bits(self, fact: Fact) -> int:
        """Items that have a fact, as bits."""
        column = self.attributes.index[fact]
        items = self._columns.indices[self._columns.indptr[column] : self._columns.indptr[column + 1]]
        flags = np.zeros(self._everything.bit_length(), dtype=np.uint8)
        flags[items] = 1
        return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")

    def _near_sets(self, facts: tuple[Fact, ...], refused: tuple[Fact, ...]) -> list[tuple[Fact, ...]]:
        """Sets of facts that leave about the share of the catalogue that is asked for, nearest first."""
        times = [fact for fact in facts if fact.kind in _TIMES]
        others = [fact for fact in facts if fact.kind not in _TIMES][: _KNOWN_FACTS - len(times)]
        allowed = self._everything
        for fact in refused:
            allowed &= ~self._items_of(fact)
        found = []
        for count in range(1, _MOST_FACTS + 1):
            for chosen in combinations((*others, *times), count):
                if sum(fact.kind in _TIMES for fact in chosen) > 1:
                    continue
                left = allowed
                for fact in chosen:
                    left &= self._items_of(fact)
                found.append((abs(log(max(left.bit_count(), 1) / self._goal)), len(chosen), chosen))
        found.sort(key=lambda row: row[:2])
        near = [chosen for distance, _, chosen in found[:_SETS] if distance <= found[0][0] + log(2)]
        return near or [()]


class Taste(People):
    """Users without a target: they wish for what is common in their training history and rare in the catalogue.

    Nothing that they say depends on what is wanted, so nothing can leak; what fits their words need not hold the
    target.
    """

    name = "taste"
    target_free = True

    def accepts(self, profile: Profile, items: Sequence[int]) -> bool:
        return False

    def about(self, profile: Profile) -> Sequence[Fact]:
        return [fact for item in profile.past for fact in self.attributes.facts(item)]

    def likes(self, profile: Profile) -> Sequence[Fact]:
        """What is at least half as common in the history as in the catalogue, and what the example has."""
        often = self._counts(profile) >= _SELDOM * self._shares * len(profile.past)
        told = [self.attributes.vocabulary[column] for column in np.flatnonzero(often).tolist()]
        return *told, *self.attributes.facts(self._wish(profile)[0].like)

    def years(self, profile: Profile) -> tuple[int, int]:
        """Between which the middle half of the history lies."""
        dated = [int(self._years[item]) for item in profile.past if self._years[item]]
        if not dated:
            return 0, 0
        low, high = np.quantile(dated, [0.25, 0.75], method="nearest")
        return int(low), int(high)

    def known(self, profile: Profile) -> tuple[Fact, ...]:
        if not profile.past:
            return ()
        counts = self._counts(profile)
        gain = np.where(counts > 1, counts * np.log(np.maximum(counts, 1) / len(profile.past) / self._shares), 0.0)
        best = [column for column in np.argsort(-gain, kind="stable")[:_KNOWN_FACTS].tolist() if gain[column] > 0]
        return tuple(self.attributes.vocabulary[column] for column in sorted(best))

    def drawn(self, profile: Profile, turn: int) -> Draw:
        return Draw(self.seed, profile.user, len(profile.past), *profile.past[-3:], turn)

    def _counts(self, profile: Profile) -> np.ndarray:
        """How many items of the history have each fact."""
        pointers, indices = self.attributes.matrix.indptr, self.attributes.matrix.indices
        rows = [indices[pointers[item] : pointers[item + 1]] for item in profile.past]
        return np.bincount(np.concatenate(rows or [indices[:0]]), minlength=len(self._shares))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
