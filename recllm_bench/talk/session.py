"""A conversation with a recommender: memory of all turns, a filter in the open, and any model's order under it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from recllm_bench.talk import commands
from recllm_bench.talk.commands import numbers_in
from recllm_bench.talk.neighbours import Neighbours
from recllm_bench.talk.reading import Question, Reader, Request
from recllm_bench.talk.reasons import called, why
from recllm_bench.talk.vocabulary import Vocabulary, folded
from recllm_bench.talk.wishes import LIKE, Constraint, Wishes, fitting, joined, loosened

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue

_MOST_CATEGORIES, _MOST_LETTERS = 4, 90  # shown of an item
_HELP = """\
Say what you want, in your words: {examples}.
Each sentence joins what you said before; the latest word wins. Whatever I filter by, I say.
  more            the next of the list          undo        takes your last sentence back
  2, accept 2     takes the second              history     what you know, by which the model ranks
  seen 2          you know it; it goes          filter      what I filter by now
  like 2          such as the second            start over  forgets your wishes
  any year, any kind, forget the comedy         quit, Ctrl-D
"near" names titles of your history that many of those who had an item had too."""


class Orders(Protocol):
    """What a conversation needs of a model (:class:`recllm_bench.talk.model_order.ModelOrder`)."""

    name: str
    hears: bool

    def order(self, user: int, history: Sequence[int], said: Sequence[str] = ()) -> np.ndarray:
        """Items, best first."""


@dataclass(frozen=True)
class State:
    """All that a conversation remembers; ``undo`` goes back to the one before.

    Attributes
    ----------
    wishes : tuple of Constraint
    history : tuple of int
        Items known, oldest first, those accepted and told included.
    said : tuple of str
        Sentences that reach a model which hears.
    page : tuple of int
        Items shown since the wishes changed.
    last : tuple of int
        The list shown last.
    """

    wishes: Wishes = ()
    history: tuple[int, ...] = ()
    said: tuple[str, ...] = ()
    page: tuple[int, ...] = ()
    last: tuple[int, ...] = ()


@dataclass
class Reply:
    """An answer, line by line; catalogue text in it is as it came.

    Attributes
    ----------
    says : list of str
        Before the list.
    items : list of int
        The list.
    lines : list of (str, str)
        For each item what it is, and why it is there.
    after : list of str
    ends : bool
        Whether the conversation is over.
    """

    says: list[str] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    ends: bool = False


class Conversation:
    """Answers sentences, one after the other.

    Parameters
    ----------
    catalogue : Catalogue
    vocabulary : Vocabulary
    reader : Reader
    orders : Orders
        The model.
    neighbours : Neighbours
        For reasons.
    user : int
        User id for models that know users by number.
    history : sequence of int
        Items known, oldest first.
    shown : int
        Items of a list.
    filters : bool
        Whether wishes filter; without, the model is alone.
    wording : callable, optional
        ``wording(wishes, items) -> str``: a sentence before the list, empty for none.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        vocabulary: Vocabulary,
        reader: Reader,
        orders: Orders,
        neighbours: Neighbours,
        *,
        user: int = 1,
        history: Sequence[int] = (),
        shown: int = 5,
        filters: bool = True,
        wording: Callable[[Wishes, Sequence[int]], str] | None = None,
    ) -> None:
        self.catalogue, self.vocabulary, self.reader = catalogue, vocabulary, reader
        self.orders, self.neighbours, self.user, self.shown = orders, neighbours, user, shown
        self.filters, self.wording = filters, wording
        self.state = State(history=tuple(int(item) for item in history))
        self._earlier: list[State] = []
        self._asked: tuple[Request, str] | None = None
        noun = catalogue.domain
        self.noun = noun[:-1] + "ies" if noun.endswith("y") else noun + "es" if noun.endswith("s") else noun + "s"

    def greeting(self, who: str) -> list[str]:
        """What is said first."""
        return [
            f"{who} {'know' if who == 'You' else 'knows'}: {self._titles(self.state.history)}",
            f"Say what you are looking for: {self._examples()}. 'help' tells more; Ctrl-D ends.",
        ]

    def answer(self, text: str) -> Reply:
        """The answer to a sentence; what it changes is remembered."""
        text = text.strip()
        asked, self._asked = self._asked, None
        if asked is not None and (chosen := self._chosen(asked[0].questions[0], text)):
            return self._settled(*asked, chosen)
        request = self.reader.read(text, self.state.last)
        if request.questions:
            return self._ask(request, text)
        return self._do(request, text)

    def _do(self, request: Request, text: str) -> Reply:
        simple = {
            commands.UNDO: self._undo,
            commands.HISTORY: lambda: Reply([f"You know: {self._titles(self.state.history, 20)}"]),
            commands.WISHES: lambda: Reply([self.filter_line(), *self._sentences()]),
            commands.HELP: lambda: Reply(_HELP.format(examples=self._examples()).splitlines()),
            commands.QUIT: lambda: Reply(["Goodbye."], ends=True),
            commands.SMALL_TALK: self._small_talk,
            commands.MORE: lambda: self._change(self.state),
            commands.SHOW: lambda: self._change(replace(self.state, page=())),
        }
        if request.command in simple:
            return simple[request.command]()
        if request.command == commands.RESTART:
            self._earlier.append(self.state)
            self.state = State(history=self.state.history)
            return Reply([f"All wishes are gone; your history stays. Say for instance {self._examples()}."])
        if request.command in (commands.ACCEPT, commands.SEEN):
            return self._learn(request)
        return self._wish(request, text)

    # wishes

    def _wish(self, request: Request, text: str) -> Reply:
        state, notes = self.state, list(request.notes)
        hears = self.orders.hears and bool(request.unknown or request.constraints)
        if not request.heard and not hears:
            what = f"Nothing in that names a fact of this catalogue, and {self.orders.name} hears no words"
            notes = [f"{note[0].upper()}{note[1:]}" for note in notes] or [what]
            return Reply([f"{'; '.join(notes)}: nothing changes. Say for instance {self._examples()}."])
        if request.unknown:
            rest = ", ".join(request.unknown[:4])
            notes.append(f"{self.orders.name} alone hears: {rest}" if self.orders.hears else f"I pass over: {rest}")
        wishes = tuple(wish for wish in state.wishes if not _taken_back(wish, request))
        gone = [str(wish) for wish in state.wishes if wish not in wishes]
        wishes, replaced = joined(wishes, request.constraints, instead=request.instead)
        if gone:
            notes.append(f"gone: {', '.join(gone)}")
        if replaced:
            both = " (say 'also ...' to have both)" if request.instead else ""
            notes.append(f"in place of: {', '.join(replaced)}{both}")
        return self._change(replace(state, wishes=wishes, said=(*state.said, text), page=()), notes)

    def _change(self, state: State, notes: Sequence[str] = ()) -> Reply:
        """Show what fits under a state, which is remembered from now on."""
        known = np.zeros(len(self.vocabulary.years), dtype=bool)
        known[[0, *state.history]] = True
        says = [f"{note[0].upper()}{note[1:]}." for note in notes]
        page = ~known
        page[list(state.page)] = False
        if self.filters:
            fits = fitting(state.wishes, self.vocabulary)
            if state.page and not (fits & page).any():
                all_ = f"That is all: no other {self.catalogue.domain} fits {_named(state.wishes)}"
                return Reply([*says, f"{all_}. Loosen it, or 'start over'."])
            if not (fits & page).any() and state.wishes:
                said = "you know all that fits" if fits.any() else "nothing fits"
                wishes, how = loosened(state.wishes, self.vocabulary, page)
                says.append(f"{said[0].upper()}{said[1:]} {_named(state.wishes)}: {how}.")
                state = replace(state, wishes=wishes)
                fits = fitting(wishes, self.vocabulary)
            page &= fits
            known |= ~fits
        if not page.any():
            return Reply([*says, f"There is no {self.catalogue.domain} left that you do not know."])
        like = [wish.item for wish in state.wishes if wish.kind == LIKE and wish.wanted]
        history = [*(item for item in state.history if item not in like), *like]
        order = self.orders.order(self.user, history, state.said)
        items = order[page[order]][: self.shown].tolist()
        self._earlier.append(self.state)
        self.state = replace(state, page=(*state.page, *items), last=tuple(items))
        says.append(self.filter_line(int((~known).sum()) if self.filters else None))
        if self.wording and (sentence := self.wording(state.wishes, items)):
            says.append(sentence)
        return self._listed(says, items)

    def _listed(self, says: list[str], items: list[int]) -> Reply:
        """A list, with a reason for each item."""
        wishes, history, titles = self.state.wishes if self.filters else (), self.state.history, self.catalogue.titles
        reasons = [why(item, wishes, self.vocabulary, self.neighbours, history, titles) for item in items]
        return Reply(says, items, list(zip(map(self._line, items), reasons, strict=True)))

    def _learn(self, request: Request) -> Reply:
        """Items that were taken, or that are known, join the history."""
        last = self.state.last
        place = len(last) if request.number < 0 else request.number
        items = request.items or ((last[place - 1],) if 0 < place <= len(last) else ())
        if not items:
            return Reply([f"There is no number {place} in the list." if last else "There is no list yet to take from."])
        seen = request.command == commands.SEEN
        new = [item for item in items if item not in self.state.history]
        state = replace(self.state, history=(*self.state.history, *new))
        named = " and ".join(map(self.reader.called, items))
        if seen and self.state.last:
            return self._change(replace(state, page=()), [f"you know {named}"])
        self._earlier.append(self.state)
        self.state = state
        joins = "your history, and the next list counts with it ('undo' takes that back)."
        return Reply([f"{named} now in {joins}" if seen else f"Enjoy {named}! It joins {joins}"])

    # questions

    def _ask(self, request: Request, text: str) -> Reply:
        self._asked = request, text
        question = request.questions[0]
        lines = [(self._line(item), "") for item in question.items]
        return Reply(
            [f"Which one do you mean by '{question.said}'?"],
            lines=lines,
            after=["Say its number, or go on with something else."],
        )

    def _chosen(self, question: Question, text: str) -> int:
        """The item that an answer names, or 0."""
        spoken = folded(text)
        numbers = numbers_in(" ".join(spoken))
        if len(numbers) == 1 and numbers[0] <= len(question.items):
            return question.items[numbers[0] - 1]
        named = [item for item in self.reader.titles.find(text)[0] if item in question.items] if spoken else []
        return named[0] if len(named) == 1 else 0

    def _settled(self, request: Request, text: str, item: int) -> Reply:
        question, *rest = request.questions
        if question.purpose in (commands.ACCEPT, commands.SEEN):
            return self._learn(Request(question.purpose, items=(item,)))
        like = Constraint(LIKE, f"like {self.reader.called(item)}", question.wanted, item=item)
        settled = replace(request, questions=rest, constraints=[*request.constraints, like])
        return self._ask(settled, text) if rest else self._do(settled, text)

    # small things

    def _undo(self) -> Reply:
        if not self._earlier:
            return Reply(["There is nothing to take back."])
        self.state = self._earlier.pop()
        return self._listed(["Taken back.", self.filter_line()], list(self.state.last))

    def _small_talk(self) -> Reply:
        if self.state.wishes:
            return Reply([f"That changes nothing. {self.filter_line()}"])
        return Reply([f"Hello! That changes nothing. Say for instance {self._examples()}."])

    def filter_line(self, left: int | None = None) -> str:
        """What is filtered by and who ranks; with how many items fit where that is known."""
        wishes = self.state.wishes
        like = [self.reader.called(wish.item) for wish in wishes if wish.kind == LIKE and wish.wanted]
        after = f" after {' and '.join(like)}" if like else ""
        heard = ", which hears your words" if self.orders.hears and self.state.said else ""
        ranked = f"ranked by {self.orders.name}{after}{heard}"
        if not self.filters:
            return f"No filter; {ranked}."
        fit = (
            ""
            if left is None
            else f" ({left:,} {self.noun if left != 1 else self.catalogue.domain} {'fit' if left != 1 else 'fits'})"
        )
        return f"I filter: {', '.join(map(str, wishes))}{fit}; {ranked}." if wishes else f"No filter; {ranked}."

    def _sentences(self) -> list[str]:
        return [f"You said: {'; '.join(self.state.said)}"] if self.state.said else []

    def _line(self, item: int) -> str:
        year, categories = int(self.vocabulary.years[item]), self.catalogue.categories[item][:_MOST_CATEGORIES]
        title = self.catalogue.titles[item] or f"item {self.catalogue.tokens[item]}"
        title = title if len(title) <= _MOST_LETTERS else title[: _MOST_LETTERS - 1] + "…"
        return " · ".join([f"{title} ({year})" if year else title, *([", ".join(categories)] if categories else [])])

    def _titles(self, items: Sequence[int], most: int = 5) -> str:
        earlier = f" and {len(items) - most} before" if len(items) > most else ""
        return "; ".join(map(self.reader.called, items[-most:])) + earlier if items else "nothing yet"

    def _examples(self) -> str:
        names = self.vocabulary.examples(2)
        found = [f"'{names[-1]}'", f"'no {names[0]}'"] if names else ["'surprise me'"]
        if self.vocabulary.has_years:
            years = self.vocabulary.years
            decade = int(np.median(years[years > 0])) // 10 * 10
            found.insert(1, f"'from the {decade}s'")
        known = [item for item in self.state.history if self.catalogue.titles[item]]
        return ", ".join([*found, *([f"'like {called(self.catalogue.titles[known[-1]])}'"] if known else [])])


def _named(wishes: Wishes) -> str:
    return f"'{', '.join(map(str, wishes))}'" if wishes else "that"


def _taken_back(wish: Constraint, request: Request) -> bool:
    same = any(
        wish.kind == other.kind
        and (set(wish.terms) & set(other.terms) or (not wish.terms and _extent(wish) == _extent(other)))
        for other in request.dropped
    )
    return same or wish.kind in request.kinds


def _extent(wish: Constraint) -> tuple[int, int, int]:
    return wish.low, wish.high, wish.item
