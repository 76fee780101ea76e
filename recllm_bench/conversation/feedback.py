"""What a user says about one recommendation: one dislike and one wish (CESRec (6); protocols, section 5.2).

The speaker knows the shown item and the attributes of the wanted one, never its title; whatever is said passes the
leakage guard. A user is asked once a round, all users in one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.api.words import Ids
from recllm_bench.artifacts import content_hash
from recllm_bench.conversation.attributes import AttributeTable, Fact
from recllm_bench.conversation.redaction import Redactor, words
from recllm_bench.conversation.rules import PLAIN_REFUSALS, REFUSALS, mixed, phrase
from recllm_bench.errors import BenchError

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue
    from recllm_bench.language.chat import ChatModel

WISHES = (
    "I would rather have {wish}.",
    "Show me {wish} instead.",
    "What I want is {wish}.",
    "I prefer {wish}.",
)
PLAIN_WISHES = ("Something else, please.", "Show me something else.")
_DESCRIPTION_WORDS = 60
_ANSWER_TOKENS = 80
_VERSION, _RULES_VERSION = 1, 2  # parts of keys: raise them when equal options give other words
_TIMES = ("decade", "year")


class RuleFeedback:
    """Feedback made of attributes: no model, the same words on every machine.

    The dislike is an attribute of the shown item that the target lacks, the wish are attributes of the target,
    first those that the shown item lacks. Later rounds name others, in turn. Attributes that would name the target
    are never used. A wish names one time, a decade or a year, and a user who is shown an item again says another
    sentence, as long as there are templates.

    Parameters
    ----------
    catalogue : Catalogue
        Gives attributes and titles.
    seed : int
        Chooses among the templates.
    facts : int
        Most attributes in a wish.
    exact : bool
        Speak as this class did at first: a decade and its year may share a wish, and rounds may repeat a sentence.
    """

    def __init__(self, catalogue: Catalogue, seed: int = 0, facts: int = 2, *, exact: bool = False) -> None:
        if facts < 1:
            raise BenchError(f"feedback: a wish needs at least one attribute, got facts={facts}")
        self.seed, self.facts, self.domain, self._n_ids = seed, facts, catalogue.domain, len(catalogue)
        self.exact, self.name = exact, "exact" if exact else "rules"
        self.attributes = AttributeTable(catalogue)
        self.redactor = Redactor(catalogue)
        self.n_empty = 0
        self._known: dict[tuple[int, int], tuple[list[Fact], list[Fact]]] = {}
        self._safe: dict[tuple[int, tuple[str, ...]], tuple[str, ...]] = {}
        self._vocabulary: dict[tuple[str, ...], list[frozenset[str]]] = {
            templates: [frozenset(_plain_words(text)) for text in templates]
            for templates in (REFUSALS, PLAIN_REFUSALS, WISHES, PLAIN_WISHES)
        }

    @property
    def n_leaks(self) -> int:
        """Titles of targets taken out so far."""
        return self.redactor.n_leaks

    def key(self) -> dict[str, Any]:
        """Words depend on these alone, beside the catalogue."""
        version = _VERSION if self.exact else _RULES_VERSION
        return {"feedback": "rules", "facts": self.facts, "seed": self.seed, "version": version}

    def say(self, users: Ids, shown: Ids, targets: Ids, turn: int | Ids = 0) -> list[str]:
        """What each user says about the shown item.

        Parameters
        ----------
        users, shown, targets : sequence of int [n]
            Who is asked, what is shown, what is wanted.
        turn : int or sequence of int [n]
            Round, from 0: it chooses among the attributes.

        Returns
        -------
        list of str
            Redacted; never empty.

        Raises
        ------
        BenchError
            When the columns differ in length or an item is not in the catalogue.
        """
        columns = _columns(users, shown, targets, turn, self._n_ids)
        # The draw of a user's first round holds for all: rounds count on from its templates.
        draws = _draws(self.seed, *columns[:3], columns[3] if self.exact else np.zeros_like(columns[3]))
        _, items, wanted, turns = (column.tolist() for column in columns)
        said = [self._utterance(*row) for row in zip(items, wanted, turns, draws, strict=True)]
        return self.redactor.redact(said, wanted).texts

    def wishes(self, item: int, count: int, rng: np.random.Generator) -> list[str]:
        """At most ``count`` different noun phrases, each of up to ``facts`` attributes of an item, drawn at random."""
        known = [fact for fact in self.attributes.facts(item) if not self.redactor.names(fact.value, item)]
        drawn = (rng.permutation(len(known)).tolist() for _ in range(count if known else 0))
        phrases = [phrase([known[place] for place in sorted(self._wished(known, row))], self.domain) for row in drawn]
        return self.redactor.redact(list(dict.fromkeys(phrases)), [item] * len(set(phrases))).texts

    def _utterance(self, shown: int, target: int, turn: int, draw: int) -> str:
        dislikes, wishes = self._contrast(shown, target)
        refusals, wanting = REFUSALS if dislikes else PLAIN_REFUSALS, WISHES if wishes else PLAIN_WISHES
        rounds = 0 if self.exact else turn
        wording, count = self._pick(wanting, target, (draw >> 8) + rounds)
        refusal, _ = self._pick(refusals, target, draw + rounds // count)
        if dislikes:
            refusal = refusal.format(dislike=phrase([dislikes[turn % len(dislikes)]], self.domain))
        if not wishes:
            self.n_empty += not dislikes
            return f"{refusal} {wording}"
        first = turn * self.facts % len(wishes)
        places = [*range(first, len(wishes)), *range(first)]
        wish = phrase([wishes[place] for place in self._wished(wishes, places)], self.domain)
        return f"{refusal} {wording.format(wish=wish)}"

    def _wished(self, facts: Sequence[Fact], places: Sequence[int]) -> list[int]:
        """The first places of a wish; of times only one, for a decade says nothing beside its year."""
        chosen: list[int] = []
        for place in places:
            is_time = facts[place].kind in _TIMES
            if self.exact or not (is_time and any(facts[other].kind in _TIMES for other in chosen)):
                chosen.append(place)
        return chosen[: self.facts]

    def _contrast(self, shown: int, target: int) -> tuple[list[Fact], list[Fact]]:
        """Attributes the shown item has and the target lacks; those of the target, what the shown item lacks first."""
        if (shown, target) not in self._known:
            of_shown, of_target = self.attributes.facts(shown), self.attributes.facts(target)
            safe = [fact for fact in of_target if not self.redactor.names(fact.value, target)]
            dislikes = [
                fact for fact in of_shown if fact not in of_target and not self.redactor.names(fact.value, target)
            ]
            new = [fact for fact in safe if fact not in of_shown]
            self._known[shown, target] = (dislikes, new + [fact for fact in safe if fact in of_shown])
        return self._known[shown, target]

    def _pick(self, templates: tuple[str, ...], target: int, draw: int) -> tuple[str, int]:
        """One of the templates, but none with a word that only the target's title has; and how many these are."""
        if (target, templates) not in self._safe:
            rare = self.redactor.rare_words(target)
            rows = zip(templates, self._vocabulary[templates], strict=True)
            self._safe[target, templates] = tuple(text for text, row in rows if not row & rare) or templates
        safe = self._safe[target, templates]
        return safe[draw % len(safe)], len(safe)


class ChatFeedback:
    """Feedback written by a chat model; answers are kept by the model's own cache.

    Parameters
    ----------
    catalogue : Catalogue
        Titles, attributes and descriptions.
    chat : ChatModel
        Who writes.
    seed : int
        Of the model's draws; at temperature 0 it writes the same anyway.
    """

    def __init__(self, catalogue: Catalogue, chat: ChatModel, seed: int = 0) -> None:
        self.catalogue, self.chat, self.seed = catalogue, chat, seed
        self.name = chat.name
        self.attributes = AttributeTable(catalogue)
        self.redactor = Redactor(catalogue)
        self._quiet = Redactor(catalogue)  # what is taken out of questions is no leak of the speaker's
        self.n_empty = 0

    @property
    def n_leaks(self) -> int:
        """Titles of targets taken out so far."""
        return self.redactor.n_leaks

    def key(self) -> dict[str, Any]:
        """Words depend on these alone, beside the catalogue."""
        asked = content_hash([_SYSTEM, _QUESTION, _AGAIN, _DESCRIPTION_WORDS, _ANSWER_TOKENS])
        own = self.chat.key() if hasattr(self.chat, "key") else self.name
        return {"feedback": own, "prompt": asked, "seed": self.seed, "version": _VERSION}

    def prompts(
        self, shown: Sequence[int], targets: Sequence[int], turns: Sequence[int] | None = None
    ) -> list[list[dict[str, str]]]:
        """The conversations the model is asked; none names its target.

        Each round (``turns``, from 0) puts other attributes of the target first and asks for something new.
        """
        shown, targets = [int(item) for item in shown], [int(item) for item in targets]
        turns = [0] * len(shown) if turns is None else [int(turn) for turn in turns]
        told = sorted({*shown, *targets})
        descriptions = dict(zip(told, self.catalogue.descriptions_of(told), strict=True))
        questions = [
            _QUESTION.format(
                domain=self.catalogue.domain,
                title=self.catalogue.titles[item] or f"a {self.catalogue.domain}",
                shown=self._facts(item, descriptions),
                wanted=self._facts(target, descriptions, turn) or "something else",
            )
            + (_AGAIN.format(turn=turn) if turn else "")
            for item, target, turn in zip(shown, targets, turns, strict=True)
        ]
        frames = [_SYSTEM.format(domain=self.catalogue.domain)] * len(questions)
        safe = self._quiet.redact(frames + questions, targets * 2).texts
        pairs = zip(safe[: len(frames)], safe[len(frames) :], strict=True)
        return [[{"role": "system", "content": frame}, {"role": "user", "content": asked}] for frame, asked in pairs]

    def say(self, users: Ids, shown: Ids, targets: Ids, turn: int | Ids = 0) -> list[str]:
        """What each user says about the shown item; see :meth:`RuleFeedback.say`."""
        columns = _columns(users, shown, targets, turn, len(self.catalogue))
        _, items, wanted, turns = (column.tolist() for column in columns)
        answers = self.chat.complete(
            self.prompts(items, wanted, turns), max_tokens=_ANSWER_TOKENS, temperature=0.0, seed=self.seed
        )
        texts = [" ".join(answer.split()) for answer in answers]
        self.n_empty += sum(not text for text in texts)
        texts = [text or f"{PLAIN_REFUSALS[0]} {PLAIN_WISHES[0]}" for text in texts]
        return self.redactor.redact(texts, wanted).texts

    def _facts(self, item: int, descriptions: dict[int, str], turn: int = 0) -> str:
        known = self.attributes.facts(item)
        first = turn % len(known) if known else 0
        told = ", ".join(fact.value for fact in known[first:] + known[:first])
        about = " ".join(descriptions[item].split("\n", 1)[0].split()[:_DESCRIPTION_WORDS])
        return "; ".join(part for part in (told, about) if part)


_SYSTEM = (
    "You play a person who was recommended a {domain}. You know what you would rather have, but not its name. "
    "Speak as this person only, in one or two short sentences: one thing that you dislike about what was recommended, "
    "and one thing that you want instead. Never give a name or a title."
)
_QUESTION = "\n".join(
    (
        "Recommended to you: {title}.",
        "What is known of it: {shown}.",
        "What you would rather have: {wanted}.",
        "What do you say?",
    )
)
_AGAIN = "\nYou have answered {turn} times before: say something you have not said yet."


def feedback_named(
    spec: str, catalogue: Catalogue, *, seed: int = 0, facts: int = 2, **options: Any
) -> RuleFeedback | ChatFeedback:
    """A speaker by name.

    Parameters
    ----------
    spec : str
        ``"rules"``; ``"exact"``, what these said at first; or a chat model (``local:NAME``, ``server:MODEL@URL``).
    catalogue : Catalogue
        The items.
    seed : int
        Fixes every choice.
    facts : int
        Most attributes in one wish of the rules.
    **options
        Of :func:`~recllm_bench.language.chat.chat_model`.

    Raises
    ------
    BenchError
        For an unknown speaker.
    """
    if spec in ("rules", "exact"):
        return RuleFeedback(catalogue, seed, facts, exact=spec == "exact")
    if not spec.startswith(("local:", "server:", "replay:")):
        raise BenchError(f"feedback '{spec}' is unknown; use rules, exact, local:NAME, server:MODEL@URL or replay:FILE")
    from recllm_bench.language.chat import chat_model

    return ChatFeedback(catalogue, chat_model(spec, **options), seed)


def _plain_words(template: str) -> list[str]:
    return [word for word, _, _ in words(template.replace("{wish}", " ").replace("{dislike}", " "))]


def _columns(users: Any, shown: Any, targets: Any, turn: Any, n_ids: int) -> list[np.ndarray]:
    columns = [np.asarray(column, dtype=np.int64).reshape(-1) for column in (users, shown, targets)]
    if len({len(column) for column in columns}) > 1:
        sizes = ", ".join(str(len(column)) for column in columns)
        raise BenchError(f"feedback: users, shown items and targets differ in number ({sizes})")
    for name, items in zip(("shown item", "target"), columns[1:], strict=True):
        bad = items[(items < 1) | (items >= n_ids)]
        if len(bad):
            raise BenchError(f"feedback: {name} {bad[0]} is not in the catalogue of {n_ids - 1}")
    return [*columns, np.broadcast_to(np.asarray(turn, dtype=np.int64), columns[0].shape)]


def _draws(seed: int, *columns: np.ndarray) -> list[int]:
    """A number for each row, the same whatever else is in the batch."""
    state = np.full(len(columns[0]), seed & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    for column in columns:
        state = mixed(state + np.uint64(0x9E3779B97F4A7C15) * (column.astype(np.uint64) + np.uint64(1)))
    return (state >> np.uint64(16)).tolist()
