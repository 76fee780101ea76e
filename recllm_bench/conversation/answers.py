"""How people answer what they are shown and asked: a dislike, a comparison, a correction, a fact, or nothing new.

A user remembers by reading the dialogue (:mod:`.dialogue_state`), so that equal dialogues get equal answers. How much
is given away is bounded by what still fits the words (:class:`Manners`), and never by the system that is measured.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from recllm_bench.conversation.attributes import Fact
from recllm_bench.conversation.dialogue import Dialogue, Reply
from recllm_bench.conversation.dialogue_state import PLACES, State, StateReader
from recllm_bench.conversation.phrasings import TESTED, TRAINING
from recllm_bench.conversation.profile import Profile
from recllm_bench.conversation.spoken import noun_phrase, refused_phrase
from recllm_bench.conversation.understanding import Understanding
from recllm_bench.errors import BenchError

if TYPE_CHECKING:
    from recllm_bench.conversation.attributes import AttributeTable
    from recllm_bench.conversation.draws import Draw
    from recllm_bench.conversation.phrasings import Phrasings
    from recllm_bench.data.catalogue import Catalogue

PERSONAS: dict[str, dict[str, Any]] = {
    "plain": {"patience": 3, "silence": 0.2, "tells": 1},
    "talkative": {"patience": 3, "silence": 0.05, "tells": 2},
    "terse": {"patience": 3, "silence": 0.4, "tells": 1},
    "patient": {"patience": 0, "silence": 0.2, "tells": 1},
    "impatient": {"patience": 1, "silence": 0.2, "tells": 1},
}
"""What users are like: turns that may bring nothing (0: any number), silence on questions, new things in a reply."""
MIXED = "mixed"
VERSION = 2
"""Of what is answered, part of who speaks in dialogues: rows whose users answer in another way are not compared."""
WHO = 1 << 20
"""The turn of the draw that says what a user is like."""
_TRIES = 8  # wordings, of which one is let through that the guard would not touch and that repeats least
_SENTENCE = re.compile(r"(?<=[.?!])\s+")
_YEARS = ("year", "decade", "era")
_DISLIKE, _OLDER, _NEWER, _NEARER, _FACT = "dislike", "older", "newer", "nearer", "fact"
_NO_FACT = Fact("", "")
_LEAST = 0.5  # no reply leaves less than this share of what fitted before, unless it answers a question


@dataclasses.dataclass(frozen=True)
class Manners:
    """How users behave in a dialogue.

    Attributes
    ----------
    persona : str
        One of :data:`PERSONAS`, or ``mixed``: each user has one of them.
    patience : int, optional
        A user leaves when so many turns in a row brought nothing (0: never); by default the persona's.
    silence : float, optional
        Rate at which a question gets no answer; by default the persona's.
    mistakes : float
        Rate at which a new fact is a wrong one of its kind.
    keeps : float
        No words leave less than this share of the catalogue.
    """

    persona: str = "plain"
    patience: int | None = None
    silence: float | None = None
    mistakes: float = 0.0
    keeps: float = 0.02

    def __post_init__(self) -> None:
        if self.persona not in (*PERSONAS, MIXED):
            raise BenchError(f"persona '{self.persona}' is not one of {', '.join([*PERSONAS, MIXED])}")
        for name in ("silence", "mistakes", "keeps"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise BenchError(f"{name} of simulated users is a share from 0 to 1, got {value}")
        if self.patience is not None and self.patience < 0:
            raise BenchError(f"patience is a number of turns (0: never leaves), got {self.patience}")

    @property
    def key(self) -> dict[str, Any]:
        """What is not as by default."""
        return {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }

    def of(self, draw: Draw) -> dict[str, Any]:
        """The manners of one user."""
        name = draw.of(list(PERSONAS)) if self.persona == MIXED else self.persona
        own = {key: getattr(self, key) for key in ("patience", "silence") if getattr(self, key) is not None}
        return {"persona": name, **PERSONAS[name], **own}


class Speaks(Protocol):
    """Who answers: what :class:`Answers` asks of :class:`.People`."""

    domain: str
    attributes: AttributeTable

    def accepts(self, profile: Profile, items: Sequence[int]) -> bool:
        """Whether the item is among those shown."""
        ...

    def known(self, profile: Profile) -> tuple[Fact, ...]:
        """Facts that the user can say."""
        ...

    def about(self, profile: Profile) -> Sequence[Fact]:
        """Facts of what the user has in mind."""
        ...

    def likes(self, profile: Profile) -> Sequence[Fact]:
        """Facts that the user never dislikes."""
        ...

    def years(self, profile: Profile) -> tuple[int, int]:
        """First and last year of what the user has in mind; 0 where it has none."""
        ...

    def drawn(self, profile: Profile, turn: int) -> Draw:
        """The random choices of a user in a turn."""
        ...

    def is_safe(self, text: str, profile: Profile) -> bool:
        """Whether a text does not name what the user must not name."""
        ...


class Act(NamedTuple):
    """One thing that could be said: its kind, its fact or the place of a shown item, and what then still fits."""

    kind: str
    fact: Fact
    place: int
    left: np.ndarray


class Answers:
    """The answers of :class:`.People`.

    Parameters
    ----------
    catalogue : Catalogue
        The items.
    people : Speaks
        Who answers: its draws, its guard, what it knows.
    manners : Manners
        How.
    """

    def __init__(self, catalogue: Catalogue, people: Speaks, manners: Manners) -> None:
        self.people, self.manners = people, manners
        self.reader = StateReader(catalogue, Understanding(catalogue, people.attributes))
        self._floor = manners.keeps * (len(catalogue) - 1)

    def reply(self, profile: Profile, dialogue: Dialogue, items: Sequence[int]) -> Reply:
        """What a user says to the items just shown."""
        people, pool = self.people, TESTED if profile.tested else TRAINING
        turn = sum(role == "user" for role, _ in dialogue.messages)
        own, draw = self.manners.of(people.drawn(profile, WHO)), people.drawn(profile, turn)
        if people.accepts(profile, items):
            return Reply(draw.of(pool.accepted), accepted=True, end=True)
        if own["patience"] and self._is_fed_up(dialogue, own["patience"]):
            return Reply(draw.of(pool.leaving), end=True)
        state = self.reader.of(dialogue)
        asked = dialogue.asked[-1] if dialogue.asked else ""
        heard = {part for text in dialogue.user_sentences() for part in _SENTENCE.split(text)}
        if asked and draw.rate(own["silence"]):
            return Reply(draw.of([text for text in pool.unsure if text not in heard] or pool.unsure))
        acts = self._told(profile, state, dialogue, items, own["tells"], asked, draw)
        brief = own["persona"] == "terse" or (turn > 1 and self.reader.of(dialogue, turn - 2) == state)
        found: list[tuple[int, str]] = []
        for _ in range(_TRIES):
            if asked:
                text = self._answer(profile, state, acts, asked, pool, draw)
            else:
                text = self._worded(profile, state, items, acts, brief, pool, draw)
            unsafe = len(text) * (not people.is_safe(text, profile))
            found.append((unsafe + sum(part in heard for part in _SENTENCE.split(text)), text))
            if not found[-1][0]:
                break
        return Reply(min(found, key=lambda each: each[0])[1])

    def _is_fed_up(self, dialogue: Dialogue, patience: int) -> bool:
        """Whether none of the last turns asked, or showed something new with half of what was wished for."""
        lists = dialogue.lists()
        if len(lists) < patience:
            return False
        before = set(dialogue.shown[: -sum(map(len, lists[-patience:])) or None])
        for turn in range(len(lists) - patience, len(lists)):
            state = self.reader.of(dialogue, turn)
            if dialogue.asked[turn] or any(self._comes_near(item, state) for item in set(lists[turn]) - before):
                return False
            before |= set(lists[turn])
        return True

    def _comes_near(self, item: int, state: State) -> bool:
        has = [bool(self.reader.having(term)[item]) for term in state.wanted]
        refused = any(self.reader.having(term)[item] for term in state.unwanted)
        return not refused and 2 * sum(has) >= len(has)

    def _told(
        self,
        profile: Profile,
        state: State,
        dialogue: Dialogue,
        items: Sequence[int],
        most: int,
        asked: str,
        draw: Draw,
    ) -> list[Act]:
        """What is new in the reply, at most so many things."""
        left = self.reader.fits(state).copy()
        left[list(dialogue.shown)] = False
        left = np.flatnonzero(left)
        acts = list(self._acts(profile, state, items, left))
        if asked:
            kinds = _YEARS if asked in _YEARS else (asked,)
            acts = [act for act in acts if act.kind == _FACT and act.fact.kind in kinds]
        chosen: list[Act] = []
        while acts and len(chosen) < most:
            least = max(self._floor, 0.0 if asked else _LEAST * len(left))
            fitting = [act for act in acts if least <= len(act.left) < len(left)]
            if not fitting:
                break
            kind = draw.of(sorted({act.kind for act in fitting}))
            act = next(act for act in fitting if act.kind == kind)
            if act.kind == _DISLIKE and not self.people.is_safe(act.fact.value, profile):
                acts.remove(act)
                continue
            chosen.append(act)
            acts = [other for other in acts if other.kind != kind]
            left = act.left
            acts = [other._replace(left=np.intersect1d(other.left, left, assume_unique=True)) for other in acts]
        return [self._mistaken(profile, act, draw) for act in chosen]

    def _acts(self, profile: Profile, state: State, items: Sequence[int], left: np.ndarray) -> Iterator[Act]:
        """All that is true and not said yet, vague before specific; each kind in the order of preference."""
        has, (first, last) = self.people.likes(profile), self.people.years(profile)
        known = self.people.known(profile)
        said = {fact for fact in known if self.reader.reader.term(fact) in state.wanted}
        vague = [fact for fact in known if fact.kind == "era"]
        for fact in sorted((fact for fact in known if fact not in said), key=lambda fact: fact.kind == "decade"):
            if fact.kind == "decade" and vague and not said & set(vague):
                continue
            yield Act(_FACT, fact, 0, left[self._having(fact)[left]])
        years, listed = self.reader.years, list(items)[: len(PLACES)]
        for place, item in enumerate(listed):
            for fact in self.people.attributes.facts(item):
                if fact.kind == "category" and fact not in has and self.reader.reader.term(fact) not in state.unwanted:
                    yield Act(_DISLIKE, fact, place, left[~self._having(fact)[left]])
            if first and years[item] > 0 and not first <= years[item] <= last:
                side = _OLDER if last < years[item] else _NEWER
                fits = (years[left] < years[item]) if side == _OLDER else (years[left] > years[item])
                yield Act(side, _NO_FACT, place, left[fits & (years[left] > 0)])
        kinds = {fact for fact in known if fact.kind == "category"}
        shared = [len(kinds & set(self.people.attributes.facts(item))) for item in listed]
        if shared and 0 < max(shared) > min(shared):
            place = shared.index(max(shared))
            yield Act(_NEARER, _NO_FACT, place, left[self.reader.kin(listed[place])[left]])

    def _having(self, fact: Fact) -> np.ndarray:
        return self.reader.having(self.reader.reader.term(fact))

    def _mistaken(self, profile: Profile, act: Act, draw: Draw) -> Act:
        """The act, or at the rate of mistakes one with a wrong fact of the same kind."""
        if act.kind != _FACT or not self.manners.mistakes or not draw.rate(self.manners.mistakes):
            return act
        has = self.people.about(profile)
        others = [fact for fact in self.people.attributes.vocabulary if fact.kind == act.fact.kind and fact not in has]
        others = [fact for fact in others if self.people.is_safe(fact.value, profile)]
        return act._replace(fact=draw.of(others)) if others else act

    def _answer(
        self, profile: Profile, state: State, acts: Sequence[Act], asked: str, pool: Phrasings, draw: Draw
    ) -> str:
        """The answer to a question: a fact of its kind, what was said of it before, or that there is none."""
        kinds = _YEARS if asked in _YEARS else (asked,)
        new = [act.fact for act in acts]
        told = [] if new else [fact for fact in self.reader.said(state) if fact.kind in kinds]
        wish = noun_phrase(new or told, self.people.domain, draw.below(2) == 0)
        frame = draw.of(pool.answered if new else pool.again if told else pool.unsure)
        return _capitalised(frame.format(wish=wish))

    def _worded(
        self,
        profile: Profile,
        state: State,
        items: Sequence[int],
        acts: Sequence[Act],
        brief: bool,
        pool: Phrasings,
        draw: Draw,
    ) -> str:
        """The reply as sentences: what is wrong with what is shown, what is new, or the wish in other words."""
        parts, domain, facts = list[str](), self.people.domain, self.people.attributes.facts
        again = [fact for item in items for fact in facts(item) if fact.kind == "category"]
        again = [fact for fact in again if self.reader.reader.term(fact) in state.unwanted]
        if again:
            parts.append(draw.of(pool.corrected).format(never=refused_phrase(again[0])))
        for act in acts:
            if act.kind == _DISLIKE:
                parts.append(draw.of(pool.refusals).format(never=refused_phrase(act.fact)))
        known = [place for place, item in enumerate(items[: len(PLACES)]) if item in profile.past]
        if not parts and known and not brief and draw.below(2) == 0:
            parts.append(draw.of(pool.familiar).format(place=PLACES[draw.of(known)]))
        elif not parts and items and not (brief and acts):
            parts.append(draw.of(pool.plain_refusals))
        for act in acts:
            if act.kind == _FACT:
                parts.append(draw.of(pool.more).format(wish=noun_phrase([act.fact], domain, draw.below(2) == 0)))
            elif act.kind != _DISLIKE:
                parts.append(draw.of(getattr(pool, act.kind)).format(place=PLACES[act.place]))
        wish = [] if acts or (brief and parts) else self.reader.said(state)
        if wish:
            parts.append(draw.of(pool.again).format(wish=noun_phrase(wish, domain, draw.below(2) == 0)))
        return _capitalised(*parts) or draw.of(pool.plain_refusals)


def _capitalised(*sentences: str) -> str:
    return " ".join(text[:1].upper() + text[1:] for text in sentences)
