"""What a user has said in a whole dialogue: wishes and dislikes apart, comparisons with what was shown, who still fits.

Any system could keep it: it is read from messages and shown items alone. Where sentences contradict each other the
later one counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from recllm_bench.conversation.spoken import noun_phrase, spoken_title
from recllm_bench.conversation.understanding import Understanding, Wish

if TYPE_CHECKING:
    from recllm_bench.conversation.attributes import Fact
    from recllm_bench.conversation.dialogue import Dialogue
    from recllm_bench.data.catalogue import Catalogue

PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
"""How the places of a list are called."""
TIMES = ("decade", "era")
FORMS = ("all", "summary", "last")
"""What a system may embed of a dialogue (:func:`dialogue_text`)."""
_NEVER = 1 << 15  # after every year
_OLDER, _NEWER = ("older", "earlier"), ("newer", "later", "recent")
_ORDER = re.compile(r"\b(older|earlier|newer|later|recent)\s+than\s+(?:the\s+)?(\w+)", re.IGNORECASE)
_LIKE = re.compile(
    r"(?<!not )\b(?:more\s+like|closer\s+to|nearer\s+to)\s+(?:the\s+)?(\w+)"
    r"|(\w+)\s+one\s+(?:comes\s+close|is\s+nearly)\b",
    re.IGNORECASE,
)


class State(NamedTuple):
    """What was said so far.

    Attributes
    ----------
    wanted, unwanted : tuple of int
        Terms (:attr:`.Understanding.terms`) that an item must have, and must not have, sorted.
    after, before : int
        The item's year lies between these, neither included.
    like : tuple of int
        Shown items with each of which the item must share a category, sorted.
    """

    wanted: tuple[int, ...] = ()
    unwanted: tuple[int, ...] = ()
    after: int = 0
    before: int = _NEVER
    like: tuple[int, ...] = ()


class StateReader:
    """Reads whole dialogues.

    Parameters
    ----------
    catalogue : Catalogue
        Years, categories and titles of the items.
    understanding : Understanding, optional
        Reads one sentence; by default by all that simulated users know to say.
    """

    def __init__(self, catalogue: Catalogue, understanding: Understanding | None = None) -> None:
        self.reader = understanding or Understanding(catalogue)
        self.years, self._titles, self._domain = np.asarray(catalogue.years), catalogue.titles, catalogue.domain
        self._categories = catalogue.categories
        self._wearing: dict[str, list[int]] = {}
        for item, names in enumerate(catalogue.categories):
            for name in names:
                self._wearing.setdefault(name, []).append(item)
        self.kin = lru_cache(4096)(self._kin)
        self.having = lru_cache(4096)(self.reader.having)
        self.fits = lru_cache(4096)(self._fits)

    def of(self, dialogue: Dialogue, turns: int | None = None) -> State:
        """What the user of a dialogue has said.

        Parameters
        ----------
        dialogue : Dialogue
            Messages and what was shown in each turn.
        turns : int, optional
            Read only what was said before the system's turn ``turns + 1``; by default everything.
        """
        state, lists, heard = State(), dialogue.lists(), 0
        for role, text in dialogue.messages:
            if role != "user":
                heard += 1
                if turns is not None and heard > turns:
                    break
            elif text:
                state = self.add(state, text, lists[heard - 1] if 0 < heard <= len(lists) else ())
        return state

    def add(self, state: State, text: str, items: Sequence[int] = ()) -> State:
        """The state after one more sentence, said about the items just shown."""
        wish = self.reader.read([text])[0]
        wanted = (set(state.wanted) - set(wish.unwanted)) | set(wish.wanted)
        unwanted = (set(state.unwanted) - set(wish.wanted)) | set(wish.unwanted)
        after, before, like = state.after, state.before, set(state.like)
        if items:
            for side, word in _ORDER.findall(text):
                year = int(self.years[item]) if (item := _at(word, items)) else 0
                if year and side.casefold() in _OLDER:
                    before = min(before, year)
                elif year:
                    after = max(after, year)
            like |= {item for words in _LIKE.findall(text) if (item := _at("".join(words), items))}
        return State(tuple(sorted(wanted)), tuple(sorted(unwanted)), after, before, tuple(sorted(like)))

    def fitting(self, dialogues: Sequence[Dialogue], turns: int | None = None) -> np.ndarray:
        """Which items fit all that was said in each dialogue, bool [n, n_items + 1]; ``turns`` as in :meth:`of`."""
        return np.stack([self.fits(self.of(dialogue, turns)) for dialogue in dialogues])

    def _fits(self, state: State) -> np.ndarray:
        mask = self.reader.fits(Wish(state.wanted, state.unwanted)).copy()
        if state.after or state.before < _NEVER:
            mask &= (self.years > state.after) & (self.years < state.before) & (self.years > 0)
        for item in state.like:
            mask &= self.kin(item)
        mask.setflags(write=False)
        return mask

    def _kin(self, item: int) -> np.ndarray:
        """Items that share a category with an item, bool [n_items + 1]."""
        mask = np.zeros(len(self.years), dtype=bool)
        for name in self._categories[item]:
            mask[self._wearing[name]] = True
        return mask

    def left(self, dialogue: Dialogue) -> int:
        """How many items still fit: all that was said, and not shown yet."""
        mask = self.fits(self.of(dialogue))
        return int(mask.sum()) - int(mask[list(set(dialogue.shown))].sum())

    def said(self, state: State) -> list[Fact]:
        """The facts that are wanted, at most one of them of time: the closest."""
        facts = [self.reader.facts[term] for term in state.wanted]
        times = sorted((fact for fact in facts if fact.kind in TIMES), key=lambda fact: TIMES.index(fact.kind))
        return [*(fact for fact in facts if fact.kind not in TIMES), *times[:1]]

    def summary(self, state: State) -> str:
        """The wishes in one sentence, without what is refused; empty when nothing is wished for."""
        like = [spoken_title(title) for item in state.like if (title := self._titles[item])]
        facts = self.said(state)
        if not (facts or like or state.after or state.before < _NEVER):
            return ""
        text = f"I'm looking for {noun_phrase(facts, self._domain)}"
        text += f", newer than {state.after}" if state.after else ""
        text += f", older than {state.before}" if state.before < _NEVER else ""
        return f"{text}, something like {' and '.join(like)}." if like else f"{text}."


def dialogue_text(dialogue: Dialogue, form: str, reader: StateReader | None = None) -> str:
    """What a system may embed of a dialogue: its ``last`` sentence, ``all``, or a ``summary`` of the wishes.

    A summary, which needs the reader, of nothing is all that was said; empty where nothing was.
    """
    said = [text.strip() for text in dialogue.user_sentences() if text.strip()]
    if form == "summary" and reader is not None and (text := reader.summary(reader.of(dialogue))):
        return text
    return " ".join(said[-1:] if form == "last" else said)


def _at(word: str, items: Sequence[int]) -> int:
    """The item at a place that is named in words; 0 where there is none."""
    place = {**{name: place for place, name in enumerate(PLACES)}, "last": len(items) - 1}.get(word.casefold(), -1)
    return int(items[place]) if 0 <= place < len(items) else 0
