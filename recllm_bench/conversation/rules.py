"""A simulated user made of rules: no model, no cost, the same words on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.conversation.attributes import AttributeTable, Fact
from recllm_bench.conversation.dialogue import Dialogue, Reply
from recllm_bench.conversation.profile import Profile
from recllm_bench.conversation.redaction import Redactor, words
from recllm_bench.errors import BenchError

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue

OPENINGS = (
    "I am in the mood for {wish}.",
    "Can you recommend {wish}?",
    "I would like {wish}.",
    "I am looking for {wish}.",
    "Do you know {wish} for me?",
    "Please suggest {wish}.",
    "Could you find me {wish}?",
    "Today I want {wish}.",
)
REFUSALS = (
    "No, I do not want {dislike}.",
    "Not quite: please, not {dislike}.",
    "I have no wish for {dislike}.",
    "Thanks, but {dislike} is not for me.",
)
PLAIN_REFUSALS = ("No, that is not it.", "Not quite.", "Thanks, but no.", "I had something else in mind.")
WISHES = (
    "I want {wish}.",
    "It should be {wish}.",
    "What I want is {wish}.",
    "Rather {wish}.",
)
GOODBYES = ("I cannot say more than that.", "That is all I know.", "I give up.", "Let us stop here.")
ACCEPTANCES = ("Yes, that is it.", "Yes, I will take it.")


class RuleSimulator:
    """Says the target's attributes one after the other (protocols, section 5.5).

    ``open`` states the first facts; each ``reply`` names one attribute of the first shown item that the target
    lacks, and one new fact; with no fact left it ends. Which template is used depends on (seed, user, target, turn)
    alone, so that an utterance is the same in every batch.

    Parameters
    ----------
    catalogue : Catalogue
        Gives the attributes of shown items.
    seed : int
        Chooses among the templates.
    facts_in_opening : int or {"all"}
        Facts in the first sentence: 1 (the protocol's default), 2 (the most a chat message has), or ``"all"``.

    Raises
    ------
    BenchError
        When ``facts_in_opening`` is none of these.
    """

    target_free = False

    def __init__(self, catalogue: Catalogue, seed: int = 0, facts_in_opening: int | str = 1) -> None:
        choices = {"1": 1, "2": 2, "all": 1 << 30}
        if str(facts_in_opening) not in choices:
            raise BenchError(f"simulator rules: facts_in_opening '{facts_in_opening}' is not one of 1, 2, all")
        self.seed, self.first = seed, choices[str(facts_in_opening)]
        self.attributes = AttributeTable(catalogue)
        self.name = f"rules:{facts_in_opening}"
        self._redactor = Redactor(catalogue)
        sets = (OPENINGS, REFUSALS, PLAIN_REFUSALS, WISHES, GOODBYES, ACCEPTANCES)
        self._words: dict[tuple[str, ...], list[frozenset[str]]] = {
            templates: [frozenset(_template_words(text)) for text in templates] for templates in sets
        }
        self._vocabulary = frozenset(word for rows in self._words.values() for row in rows for word in row)
        self._safe: dict[tuple[int, tuple[str, ...]], tuple[str, ...]] = {}

    @property
    def key(self) -> dict[str, Any]:
        """Who speaks: name and vocabulary."""
        return {"simulator": self.name, **self.attributes.key}

    def open(self, profiles: Sequence[Profile]) -> list[str]:
        """First sentence of each user."""
        draws = self._draws(profiles, np.zeros(len(profiles), dtype=np.int64))
        sentences = []
        for profile, draw in zip(profiles, draws, strict=True):
            wish = phrase(profile.facts[: self.first], profile.domain) or f"{_article(profile.domain)} I will like"
            sentences.append(self._pick(OPENINGS, profile.target, draw).format(wish=wish))
        return sentences

    def facts_said(self, profiles: Sequence[Profile]) -> list[tuple[Fact, ...]]:
        """What :meth:`open` states of each target."""
        return [profile.facts[: self.first] for profile in profiles]

    def reply(
        self, profiles: Sequence[Profile], dialogues: Sequence[Dialogue], shown: Sequence[Sequence[int]]
    ) -> list[Reply]:
        """Answer to the items just shown.

        Parameters
        ----------
        profiles, dialogues : sequence [n]
            The users, and what was said so far.
        shown : sequence of sequence of int [n]
            Items the system has just shown, best first.
        """
        turns = np.array(
            [sum(role == "user" for role, _ in dialogue.messages) for dialogue in dialogues], dtype=np.int64
        )
        draws = self._draws(profiles, turns)
        rows = zip(profiles, shown, turns.tolist(), draws, strict=True)
        return [self._reply(profile, items, turn, draw) for profile, items, turn, draw in rows]

    def _reply(self, profile: Profile, items: Sequence[int], turn: int, draw: int) -> Reply:
        if profile.target in items:
            return Reply(self._pick(ACCEPTANCES, profile.target, draw), accepted=True, end=True)
        refusal = f"{self._refusal(profile, items, draw)} " if len(items) else ""  # a question is not refused
        place = self.first + turn - 1  # the opening stated the first facts, each later sentence one more
        if place >= len(profile.facts):
            return Reply(f"{refusal}{self._pick(GOODBYES, profile.target, draw >> 8)}", end=True)
        wish = phrase(profile.facts[place : place + 1], profile.domain)
        return Reply(f"{refusal}{self._pick(WISHES, profile.target, draw >> 8).format(wish=wish)}")

    def _refusal(self, profile: Profile, items: Sequence[int], draw: int) -> str:
        has = set(self.attributes.facts(profile.target))
        lacking = [fact for fact in self.attributes.facts(items[0]) if fact not in has] if len(items) else []
        lacking = [fact for fact in lacking if not self._redactor.names(fact.value, profile.target)]
        if not lacking:
            return self._pick(PLAIN_REFUSALS, profile.target, draw)
        return self._pick(REFUSALS, profile.target, draw).format(dislike=phrase(lacking[:1], profile.domain))

    def _pick(self, templates: tuple[str, ...], target: int, draw: int) -> str:
        """One of the templates, but none that holds a word which only the target's title has."""
        key = (target, templates)
        if key not in self._safe:
            clash = self._redactor.rare_words(target) & self._vocabulary
            rows = zip(templates, self._words[templates], strict=True)
            self._safe[key] = tuple(text for text, row in rows if not row & clash) or templates
        safe = self._safe[key]
        return safe[draw % len(safe)]

    def _draws(self, profiles: Sequence[Profile], turns: np.ndarray) -> list[int]:
        """A number for each (seed, user, target, turn), the same whatever else is in the batch."""
        state = np.full(len(profiles), self.seed & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
        users = np.array([profile.user for profile in profiles], dtype=np.uint64)
        targets = np.array([profile.target for profile in profiles], dtype=np.uint64)
        for column in (users, targets, turns.astype(np.uint64)):
            state = mixed(state + np.uint64(0x9E3779B97F4A7C15) * (column + np.uint64(1)))
        return (state >> np.uint64(16)).tolist()


def phrase(facts: Sequence[Fact], domain: str) -> str:
    """Facts as a noun phrase: ``"a Comedy movie from the 1990s"``; empty without facts."""
    if not facts:
        return ""
    kinds = ", ".join(fact.value for fact in facts if fact.kind == "category")
    years = [fact.value for fact in facts if fact.kind == "year"]
    decades = [fact.value for fact in facts if fact.kind == "decade"]
    when = f" from {years[0]}" if years else f" from the {decades[0]}" if decades else ""
    if years and decades:
        when = f" from the {decades[0]}, of {years[0]}"
    return _article(f"{kinds} {domain}".strip()) + when


def _article(noun: str) -> str:
    return ("an " if noun[:1].casefold() in tuple("aeiou") else "a ") + noun


def _template_words(template: str) -> list[str]:
    return [word for word, _, _ in words(template.replace("{wish}", " ").replace("{dislike}", " "))]


def mixed(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele et al., 2014): neighbouring numbers give unrelated ones."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
