"""A sentence of a conversation to what it asks for: a command, constraints with their sign, titles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from recllm_bench.conversation.redaction import SMALL_WORDS, words
from recllm_bench.conversation.understanding import Understanding
from recllm_bench.talk.commands import (
    ACCEPT,
    FILLERS,
    HELP,
    ORDINALS,
    SEEN,
    SMALL_TALK,
    command_in,
    is_small_talk,
    numbers_in,
    seen_in,
    taken_in,
)
from recllm_bench.talk.reasons import called
from recllm_bench.talk.titles_said import TitlesSaid
from recllm_bench.talk.vocabulary import NOUNS, Meant, Slots, Vocabulary, folded, word_set
from recllm_bench.talk.wishes import FACTS, LIKE, YEARS, Constraint
from recllm_bench.talk.years_said import years_in

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue

MOST_LETTERS = 1000  # of a sentence that are read
_SLOTS = [f"slotq{letter}x" for letter in "abcdefghijklmnopqrstuvwxyz"]
_LEAST_RATIO = 84  # of a misspelt category
_REWRITTEN = (
    (re.compile(r"\brom[\s-]?coms?\b", re.IGNORECASE), "romantic comedy"),
    (re.compile(r"\bdramed(?:y|ies)\b", re.IGNORECASE), "dramatic comedy"),
    (re.compile(r"\b(?:less|fewer|not (?:so|too|that|very)|no more|enough with)\b", re.IGNORECASE), "not"),
    (re.compile(r"\bnon[\s-](?=[a-z])", re.IGNORECASE), "not "),
    (re.compile(r"\b((?:instead of|rather than) [^,.;]+),", re.IGNORECASE), r"\1;"),
)
_LIKE = re.compile(
    r"\b(?:(?P<weak>(?:\bi|we|you|would|to|\w'd|id|also|really|don'?t|doesn'?t)\s+)?like|similar to|akin to|close to|"
    r"in the (?:style|vein|spirit|mood|manner) of|remind(?:s|ing)?\s+me\s+of|along the lines of|such as|same as|"
    r"(?P<loved>loved|enjoyed|liked|adored|fan of|favou?rite(?: \w+)? (?:is|was)))\s+",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"[,.;!?\n]|\b(?:but|from|without|only|please|not|no|before|after|older|newer|with|instead|made|or|"
    r"and (?:no|not|from|older|newer))\b",
    re.IGNORECASE,
)
_SHOWN = re.compile(rf"(?:the |number |no\.? ?|#)*(\d{{1,2}}|{'|'.join(ORDINALS)}|last)(?: one)?(?!\w)", re.IGNORECASE)
_QUOTED = re.compile(r"[\"“”«'‘](.+?)[\"“”»'’](?!\w)")
_ANOTHER = re.compile(r"\s*(?:,|\band\b|\bor\b|&)\s*", re.IGNORECASE)
_INSTEAD = re.compile(r"\b(?:instead|rather|actually|now|switch|change)\b", re.IGNORECASE)
_JOINS = word_set("also and with but plus too make it should be even more both preferably ideally additionally keep")
_JOINS_AFTER = re.compile(r"\b(?:too|also|as well|in addition)\b[\s.!]*$", re.IGNORECASE)
_BETWEEN_OR = word_set("or a an the some maybe either possibly")
_ABOUT = word_set("about with featuring involving on of")
_CLAUSE = re.compile(r"[,.;:!?\n]|\bbut\b|\bthen\b", re.IGNORECASE)
_DROPS = re.compile(
    r"\b(?:drop|forget|ignore|remove|never\s*mind|don'?t care about|no matter|regardless of|lift|allow)\b",
    re.IGNORECASE,
)
_ALLOWS = re.compile(r"\b(?:is|are)\s+(?:fine|ok|okay|allowed|all right|alright)\b", re.IGNORECASE)
_ANY = {
    YEARS: re.compile(r"\b(?:any|the|all)\s+(?:years?|decades?|times?|age|dates?|period)\b", re.IGNORECASE),
    FACTS: re.compile(r"\b(?:any|the|all)\s+(?:genres?|kinds?|types?|categor(?:y|ies))\b", re.IGNORECASE),
    LIKE: re.compile(r"\b(?:any|the)\s+titles?\b", re.IGNORECASE),
}
_ANY_ALONE = re.compile(r"\b(?:any|all)\b", re.IGNORECASE)
_BETWEEN_WORDS = re.compile(r"[.!?;:,\n]")


class Mention(NamedTuple):
    """A place in a sentence and what it says."""

    start: int
    end: int
    constraint: Constraint
    adjective: bool = False


class Question(NamedTuple):
    """A title that may mean several items."""

    said: str
    items: tuple[int, ...]
    wanted: bool = True
    purpose: str = LIKE


@dataclass
class Request:
    """What a sentence asks for.

    Attributes
    ----------
    command : str
        A name of :mod:`recllm_bench.talk.commands`; empty for a wish.
    number : int
        Of the list, for ``accept``; -1 for the last.
    items : tuple of int
        Items taken or known.
    constraints : list of Constraint
        Wanted and refused, in the order of the sentence.
    instead : bool
        Whether wanted facts take the place of earlier ones.
    dropped : list of Constraint
        Constraints that are taken back, with either sign.
    kinds : list of str
        Kinds of constraints that are taken back altogether.
    questions : list of Question
        Titles of which several may be meant.
    notes : list of str
        What was read with doubt, or not at all, for people.
    unknown : list of str
        Words that name nothing.
    heard : bool
        Whether anything in it may change what is shown.
    """

    command: str = ""
    number: int = 0
    items: tuple[int, ...] = ()
    constraints: list[Constraint] = field(default_factory=list)
    instead: bool = False
    dropped: list[Constraint] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def heard(self) -> bool:
        return bool(self.constraints or self.dropped or self.kinds or self.questions)


class Reader:
    """Reads sentences by a catalogue's own words.

    Parameters
    ----------
    catalogue : Catalogue
    vocabulary : Vocabulary
    titles : TitlesSaid

    Notes
    -----
    Facts, years and titles are found first; in their places invented words are put, and
    :class:`~recllm_bench.conversation.understanding.Understanding` tells which of those are wanted and which refused.
    """

    def __init__(self, catalogue: Catalogue, vocabulary: Vocabulary, titles: TitlesSaid) -> None:
        self.catalogue, self.vocabulary, self.titles = catalogue, vocabulary, titles
        self._signs = Understanding(catalogue, Slots(catalogue, _SLOTS))
        self._names = [" ".join(spelled) for spelled in self._signs.terms]
        self._single = [form[0] for form, meant in vocabulary.forms.items() if len(form) == 1 and not meant.content]
        self._nouns = (
            NOUNS | set(folded(catalogue.domain)) | {f"{noun}s" for noun in (*NOUNS, *folded(catalogue.domain))}
        )

    def read(self, text: str, shown: Sequence[int] = ()) -> Request:
        """What a sentence asks for.

        Parameters
        ----------
        text : str
        shown : sequence of int
            Items of the list that was shown last, for "newer" and "like 2".
        """
        text = " ".join(text[:MOST_LETTERS].split())
        if text.strip() == "?":
            return Request(HELP)
        spoken = " ".join(folded(text))
        command, number = command_in(spoken)
        if command and not (command == ACCEPT and number > len(shown) and self.titles.exact(text)):  # "12 Monkeys"
            return Request(command, number)
        known = seen_in(spoken)
        if known and (numbers := numbers_in(known)):
            return Request(SEEN, items=tuple(shown[n - 1] for n in numbers if n <= len(shown)))
        form = self.vocabulary.forms.get(tuple(spoken.split()))
        bare = text if (form is None or form.content) and not is_small_talk(spoken.split()) else ""
        for rest, what in ((known, SEEN), (taken_in(text), ACCEPT), (bare, LIKE)):
            if rest and (found := self.titles.exact(rest)):
                if len(found) > 1:
                    return Request(questions=[Question(rest, tuple(found), True, what)])
                if what == LIKE:
                    return Request(constraints=[self._like(found[0])])
                return Request(what, items=tuple(found))
        return self._wish(text, list(shown))

    def _like(self, item: int) -> Constraint:
        return Constraint(LIKE, f"like {self.called(item)}", item=item)

    def _wish(self, text: str, shown: list[int]) -> Request:
        for pattern, other in (*_REWRITTEN, (re.compile(r"\bslotq[a-z]x\b", re.IGNORECASE), "")):
            text = pattern.sub(other, text)
        request = Request()
        mentions, questions = self._titles_in(text, shown, request)
        for found in years_in(text, self.vocabulary, shown):
            if _free(found.start, found.end, mentions):
                mentions.append(Mention(found.start, found.end, found.constraint))
        self._facts_in(text, mentions, request)
        mentions = sorted(mentions)[: len(_SLOTS)]
        signed = [
            mention._replace(constraint=replace(mention.constraint, wanted=wanted))
            for mention, wanted in zip(mentions, self._wanted(text, mentions), strict=True)
        ]
        for mention in signed:
            if mention.constraint.kind == YEARS and not self.vocabulary.has_years:
                request.notes.append(
                    f"this catalogue has no years, so I leave out '{text[mention.start : mention.end].strip()}'"
                )
        signed = [mention for mention in signed if self.vocabulary.has_years or mention.constraint.kind != YEARS]
        self._take_back(text, signed, request)
        asked = [
            m
            for m in signed
            if m.constraint not in request.dropped and (m.constraint.kind != LIKE or m.constraint.item)
        ]
        request.constraints = [c for c in _either(text, asked) if c.item not in questions]
        request.questions = [
            Question(question.said, question.items, mention.constraint.wanted)
            for mention in asked
            if (question := questions.get(mention.constraint.item)) is not None
        ]
        request.instead = self._replaces(text, asked)
        if not request.heard and not request.notes and is_small_talk(request.unknown):
            request.command = SMALL_TALK
        return request

    # titles

    def _titles_in(self, text: str, shown: list[int], request: Request) -> tuple[list[Mention], dict[int, Question]]:
        """Titles after "like" and its kind; those with several meanings have a number below zero for an item."""
        mentions: list[Mention] = []
        questions: dict[int, Question] = {}
        for match in _LIKE.finditer(text):
            if not _free(match.start(), match.end(), mentions):
                continue
            start, place = match.start(), match.end()
            if match["weak"]:
                start += len(match["weak"])
            while True:
                strong = not (match["weak"] or match["loved"])
                items, end, said = self._title_at(text, place, shown, strong, request)
                if not end:
                    break
                item = items[0] if items else 0
                if len(items) > 1:
                    item = -1 - len(questions)
                    questions[item] = Question(said, tuple(items))
                if end:
                    mentions.append(
                        Mention(start, end, self._like(item) if item > 0 else Constraint(LIKE, said, item=item))
                    )
                another = _ANOTHER.match(text, end)
                if another is None or not self._longest_exact(text, another.end(), single=False)[0]:
                    break
                start = place = another.end()
        return mentions, questions

    def _title_at(
        self, text: str, place: int, shown: list[int], strong: bool, request: Request
    ) -> tuple[list[int], int, str]:
        """Items that a title at a place may mean, where it ends (0 when there is none), and how it was said."""
        quoted = _QUOTED.match(text, place)
        if quoted:
            return self._near(quoted[1], quoted.end(), request)
        items, end = self._longest_exact(text, place, single=strong)
        if items:
            return items, end, text[place:end]
        number = _SHOWN.match(text, place)
        if number and shown:
            said = number[1].casefold()
            which = len(shown) if said == "last" else ORDINALS.get(said) or int(said)
            if which <= len(shown):
                return [shown[which - 1]], number.end(), number[0]
        if not strong:
            return [], 0, ""
        cut = _TAIL.search(text, place)
        end = cut.start() if cut else len(text)
        said = text[place:end].strip()
        spelled = [word for word in folded(said) if word not in SMALL_WORDS | self._nouns]
        if all(word in FILLERS or self._is_category(word) for word in spelled):
            return [], 0, ""
        return self._near(said, end, request)

    def _near(self, said: str, end: int, request: Request) -> tuple[list[int], int, str]:
        items, way = self.titles.find(said)
        if not items:
            request.notes.append(f"no title here is like '{said}'")
        elif len(items) == 1 and way != "exact":
            request.notes.append(f"I take '{said}' for {self.called(items[0])}")
        return items, end, said

    def _longest_exact(self, text: str, place: int, single: bool) -> tuple[list[int], int]:
        """Items whose title stands at a place, the longest there is, and where it ends."""
        spelled = words(text[place:])[: self.titles.longest + 1]
        for length in range(len(spelled), 0, -1):
            form = tuple(word for word, _, _ in spelled[:length])
            if length == 1 and (self._is_category(form[0]) or form[0] in FILLERS) and not single:
                continue
            if length == 1 and form[0] in SMALL_WORDS | self._nouns | {"something", "anything"}:
                continue
            if items := self.titles.exact(form):
                return items, place + spelled[length - 1][2]
        return [], place

    def called(self, item: int) -> str:
        """Title and year of an item."""
        year, title = int(self.vocabulary.years[item]), self.catalogue.titles[item]
        title = called(title) if title.strip() else f"item {self.catalogue.tokens[item]}"
        return f"{title} ({year})" if year else title

    def named_in(self, text: str) -> list[list[int]]:
        """Items whose titles of several words stand anywhere in a text, those of one title together."""
        found, end = [], 0
        for _, start, _ in words(text):
            if start >= end and len(folded(text[start:])) > 1:
                items, stop = self._longest_exact(text, start, single=False)
                if items and len(folded(text[start:stop])) > 1:
                    found.append(items)
                    end = stop
        return found

    # facts

    def _facts_in(self, text: str, mentions: list[Mention], request: Request) -> None:
        spelled = [(word, start, end) for word, start, end in words(text)]
        place, about = 0, False
        while place < len(spelled):
            word, start, end = spelled[place]
            if not _free(start, end, mentions):
                place, about = place + 1, False
                continue
            meant, length = self._fact_at(text, spelled, place, mentions)
            following = spelled[place + length][0] if meant and place + length < len(spelled) else ""
            if meant and (not meant.content or self._is_content(word, about or following in self._nouns)):
                stop = spelled[place + length - 1][2]
                mentions.append(
                    Mention(
                        start, stop, Constraint(FACTS, meant.label, terms=meant.terms), meant.adjective or meant.content
                    )
                )
                place += length
                continue
            about = word in _ABOUT or (about and word in _BETWEEN_OR | {"and"})
            place += 1
            if word in FILLERS or word.isdigit() or word in self._nouns:
                continue
            if (near := self._misspelt(word)) is not None:
                request.notes.append(f"I read '{text[start:end]}' as {near.label}")
                mentions.append(Mention(start, end, Constraint(FACTS, near.label, terms=near.terms), near.adjective))
            else:
                request.unknown.append(text[start:end])

    def _fact_at(
        self, text: str, spelled: list[tuple[str, int, int]], place: int, mentions: list[Mention]
    ) -> tuple[Meant | None, int]:
        """The longest form of a fact whose words begin at a place, and how many words it has."""
        for length in range(min(self.vocabulary.longest, len(spelled) - place), 0, -1):
            part = spelled[place : place + length]
            meant = self.vocabulary.forms.get(tuple(word for word, _, _ in part))
            gaps = [text[one[2] : other[1]] for one, other in pairwise(part)]
            if meant and not any(map(_BETWEEN_WORDS.search, gaps)) and _free(part[0][1], part[-1][2], mentions):
                return meant, length
        return None, 0

    def _is_category(self, word: str) -> bool:
        return (word,) in self.vocabulary.forms and not self.vocabulary.forms[(word,)].content

    def _is_content(self, word: str, told: bool) -> bool:
        """Whether a word of descriptions or titles is meant as one."""
        return word not in FILLERS and (told or not self.vocabulary.n_categories)

    def _misspelt(self, word: str) -> Meant | None:
        if len(word) < 5:
            return None
        from rapidfuzz import fuzz, process

        known = [form for form in self._single if form[0] == word[0] and len(form) > 4]
        found = process.extractOne(word, known, scorer=fuzz.ratio, score_cutoff=_LEAST_RATIO)
        return self.vocabulary.forms[(found[0],)] if found else None

    # signs

    def _wanted(self, text: str, mentions: list[Mention]) -> list[bool]:
        """Whether each mention is wanted, by the negations around it."""
        slotted, last = "", 0
        for slot, mention in zip(_SLOTS, mentions, strict=False):
            slotted += f"{text[last : mention.start]} {slot} "
            last = mention.end
        wish = self._signs.read([slotted + text[last:]])[0]
        refused = {self._names[term] for term in wish.unwanted}
        return [slot not in refused for slot, _ in zip(_SLOTS, mentions, strict=False)]

    def _take_back(self, text: str, mentions: list[Mention], request: Request) -> None:
        """What a sentence gives up: "any year", "forget the comedy", "war is fine"."""
        ends = [match.start() for match in _CLAUSE.finditer(text)] + [len(text)]
        start = 0
        for end in ends:
            clause = text[start:end]
            inside = [mention.constraint for mention in mentions if start <= mention.start < end]
            drops = bool(_DROPS.search(clause) or _ALLOWS.search(clause))
            if drops:
                request.dropped += inside
            for kind, pattern in _ANY.items():
                found = pattern.search(clause)
                if found and not inside and (drops or _ANY_ALONE.match(found[0])):
                    request.kinds.append(kind)
            start = end

    def _replaces(self, text: str, mentions: list[Mention]) -> bool:
        """Whether what is wanted takes the place of what was wanted before: a noun does, an adjective joins."""
        wanted = [mention for mention in mentions if mention.constraint.kind == FACTS and mention.constraint.wanted]
        if not wanted:
            return False
        if _INSTEAD.search(text):
            return True
        before, after = folded(text[: wanted[0].start]), text[wanted[-1].end :]
        if _JOINS & set(before) or _JOINS_AFTER.search(after):
            return False
        headed = bool((self._nouns | {"something", "anything"}) & set(folded(text)))
        return headed or not all(mention.adjective for mention in wanted)


def _either(text: str, mentions: list[Mention]) -> list[Constraint]:
    """Constraints of some mentions; wanted facts, or years, with "or" between them are one."""
    found: list[Constraint] = []
    last: Mention | None = None
    for mention in mentions:
        one, between = mention.constraint, folded(text[last.end : mention.start]) if last else ()
        joined = "or" in between and set(between) <= _BETWEEN_OR and found and found[-1].kind == one.kind
        if joined and one.wanted and found[-1].wanted and one.kind in (FACTS, YEARS):
            other = found.pop()
            terms, low, high = (
                tuple(dict.fromkeys(other.terms + one.terms)),
                min(other.low, one.low),
                max(other.high, one.high),
            )
            label = f"{other.label} or {one.label}" if one.kind == FACTS else f"{low} to {high}"
            one = replace(one, label=label, terms=terms, low=low, high=high)
        found.append(one)
        last = mention
    return found


def _free(start: int, end: int, mentions: list[Mention]) -> bool:
    return all(end <= mention.start or start >= mention.end for mention in mentions)
