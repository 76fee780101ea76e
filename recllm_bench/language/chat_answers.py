"""What every chat model has: a check of what it is asked, a count of tokens, and a file of what it has answered."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from recllm_bench.artifacts import content_hash
from recllm_bench.errors import BenchError
from recllm_bench.language.chat_replies import Answer, spoken, whole_text
from recllm_bench.language.chat_spending import BUDGET, TokenBudget, spend
from recllm_bench.language.json_lines import append, appended
from recllm_bench.progress import log, track

Conversation = Sequence[Mapping[str, str]]
ROLES = ("system", "user", "assistant")


@dataclass
class Usage:
    """Sums over all answers of a chat model's life.

    Attributes
    ----------
    answers : int
        Answers written by the model.
    cached : int
        Answers that were known.
    prompt_tokens, completion_tokens : int
        Of the written answers.
    cut : int
        Written answers that reached ``max_tokens``.
    unspoken : int
        Written answers that are thoughts alone, most of them cut; they count as empty.
    lost : int
        Questions that were given up, where whoever asked allows it.
    """

    answers: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cut: int = 0
    unspoken: int = 0
    lost: int = 0

    def add(self, answer: Answer) -> None:
        """Count one written answer."""
        self.answers += 1
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens
        self.cut += not answer.finished
        self.unspoken += bool(answer.text) and not spoken(answer.text)


class AnswerCache:
    """Answers by key in a JSON-lines file, to which several processes may append.

    Parameters
    ----------
    path : Path
        The file; a line torn by a kill is passed over.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._read_to = 0
        self._answers: dict[str, Answer] = {}
        self._guard = threading.Lock()

    def get(self, key: str) -> Answer | None:
        """The answer of a key, or None."""
        return self._answers.get(key)

    def refresh(self) -> None:
        """Read what was appended since the last time."""
        with self._guard:
            for end, entry in appended(self.path, self._read_to):
                self._read_to = end
                if isinstance(entry, dict) and isinstance(entry.get("key"), str):
                    try:
                        self._answers[entry["key"]] = recorded_answer(entry)
                    except TypeError:
                        continue  # written by another version

    def put(self, key: str, model: str, answer: Answer, asked: Mapping[str, Any] | None = None) -> None:
        """Append an answer, with what was asked; it is on disk when this returns."""
        with self._guard:
            if key not in self._answers:
                append(self.path, [{"key": key, "model": model, "asked": asked or {}, **asdict(answer)}])
                self._answers[key] = answer


def recorded_answer(entry: Mapping[str, Any]) -> Answer:
    """The answer of a line of a file of answers.

    Raises
    ------
    TypeError
        When it holds none.
    """
    return Answer(**{name: value for name, value in entry.items() if name not in ("key", "model", "asked")})


class Chat(ABC):
    """A chat model with a cache before it.

    Attributes
    ----------
    name : str
        Shown beside whatever it wrote.
    usage : Usage
        Tokens so far.
    save : callable
        ``save(place, answer)`` puts the answer to a question of :meth:`ask` on disk; any thread may call it, and one
        that has paid for an answer does so before anybody waits for it.
    loses : bool
        Whether a question may be given up alone, as :meth:`attempt` allows.
    cache : AnswerCache or None
        Where answers are kept.
    budget : TokenBudget
        What whoever asks allows, beside the limit of the process; by default any number.
    """

    name: str

    def __init__(self, cache: Path | None) -> None:
        self.usage = Usage()
        self._warned = False
        self.save: Callable[[int, Answer], None] = lambda place, answer: None
        self.loses = False
        self.budget = TokenBudget("token_budget")
        self.cache = None if cache is None else AnswerCache(cache)

    def remember(self, path: Path) -> None:
        """Keep answers in this file from here on."""
        self.cache = AnswerCache(path)

    @property
    def lacks_limit(self) -> bool:
        """Whether it may have to be paid for, and nobody has set a limit."""
        return False

    def check_limit(self) -> None:
        """Refuse a model that :attr:`lacks_limit`; before anything is trained for its questions.

        Raises
        ------
        BenchError
            With what to set.
        """
        if self.lacks_limit:
            raise BenchError(
                f"{self.name} is on another machine and may have to be paid for: set {BUDGET} to the most tokens that"
                " all questions together may take, or to -1 for no limit"
            )

    @abstractmethod
    def key(self) -> dict[str, Any]:
        """What identifies the model, JSON-able."""

    @abstractmethod
    def ask(
        self, conversations: Sequence[Conversation], *, max_tokens: int, temperature: float, seed: int
    ) -> Iterator[tuple[int, Answer | None]]:
        """Answers with their places in ``conversations``, in the order in which they are ready; None for one that was
        given up, where :meth:`attempt` asks.
        """

    def complete(
        self, conversations: Sequence[Conversation], *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[str]:
        """The text of each of :meth:`answers`."""
        asked = self.answers(conversations, max_tokens=max_tokens, temperature=temperature, seed=seed)
        return [answer.text for answer in asked]

    def answers(
        self, conversations: Sequence[Conversation], *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Answer]:
        """Answer conversations; none is asked twice, now or in a later process.

        Parameters
        ----------
        conversations : sequence
            Each one a sequence of messages with ``role`` (``system``, ``user``, ``assistant``) and ``content``.
        temperature : float
            0 is greedy. Equal conversations get one answer; another ``seed`` draws another.
        seed : int
            Of the draws, where the model has any.

        Returns
        -------
        list of Answer
            In the order of the conversations, with the tokens that each took, now or when it was written; texts without
            surrounding space, empty where the model gave nothing. Thoughts are left out: an answer that ends within its
            thoughts is empty, counted and warned of once.

        Raises
        ------
        BenchError
            For a malformed conversation, or when the model cannot be asked. What was answered until then is kept.
        """
        answers = self._every_answer(conversations, max_tokens, temperature, seed, False)
        return [answer for answer in answers if answer is not None]

    def attempt(
        self, conversations: Sequence[Conversation], *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Answer | None]:
        """As :meth:`answers`, but a question that got no answer in all its attempts is None, and the others go on.

        It is asked again at the next call. A refusal ends the call all the same, as does a server that leaves question
        after question without an answer.
        """
        return self._every_answer(conversations, max_tokens, temperature, seed, True)

    def _every_answer(
        self, conversations: Sequence[Conversation], max_tokens: int, temperature: float, seed: int, loses: bool
    ) -> list[Answer | None]:
        if max_tokens < 1 or temperature < 0:
            raise BenchError(f"{self.name}: max_tokens={max_tokens}, temperature={temperature}: at least 1 and 0")
        parameters = {"max_tokens": max_tokens, "temperature": float(temperature), "seed": seed}
        own = self.key()
        keys: list[str] = []
        asked: list[Conversation] = []
        for number, conversation in enumerate(conversations):
            _refuse_malformed(conversation, number)
            messages = [
                {"role": message["role"], "content": whole_text(message["content"])} for message in conversation
            ]
            asked.append(messages)
            keys.append(content_hash({"model": own, "messages": messages, **parameters}, 32))
        known: dict[str, Answer] = {}
        if self.cache is not None:
            self.cache.refresh()
            known = {key: answer for key in keys if (answer := self.cache.get(key)) is not None}
        place_of = {key: place for place, key in reversed(list(enumerate(keys))) if key not in known}
        places = sorted(place_of.values())
        self.usage.cached += len(set(keys)) - len(places)
        if places:
            wanted = [asked[place] for place in places]

            def save(index: int, answer: Answer) -> None:
                if self.cache is not None:
                    question = {"messages": wanted[index], **parameters}
                    self.cache.put(keys[places[index]], self.name, answer, question)

            self.save, self.loses = save, loses
            with track(total=len(places), label=f"asking {self.name}", unit="answer") as bar:
                for index, answer in self.ask(wanted, max_tokens=max_tokens, temperature=temperature, seed=seed):
                    bar.update()
                    if answer is None:
                        self.usage.lost += 1
                        continue
                    answer = replace(answer, text=whole_text(answer.text))
                    known[keys[places[index]]] = answer
                    self.usage.add(answer)
                    save(index, answer)
            facts = {"model": self.name, **asdict(self.usage)}
            before = len(set(keys)) - len(places)
            log.info(f"{self.name}: {len(places)} answers, {before} known before", extra={"facts": facts})
        new = {keys[place] for place in places}
        for key, answer in known.items():
            spend(self.name, key, answer.prompt_tokens, answer.completion_tokens, key in new)
        said = {key: spoken(answer.text) for key, answer in known.items()}
        silent = sum(bool(answer.text) and not said[key] for key, answer in known.items())
        if silent and not self._warned:
            self._warned = True
            log.warning(
                f"{self.name}: {silent} of {len(known)} answers end within the model's thoughts and count as empty;"
                " switch its thinking off at the server, or name a model that answers at once"
            )
        return [replace(known[key], text=said[key]) if key in known else None for key in keys]


def _refuse_malformed(conversation: Conversation, number: int) -> None:
    roles = [message.get("role") for message in conversation]
    wrong = next((role for role in roles if role not in ROLES), None)
    if not roles:
        raise BenchError(f"conversation {number} has no messages")
    if wrong is not None or None in roles:
        raise BenchError(f"conversation {number} has a message of role {wrong!r}; roles are {', '.join(ROLES)}")
    if not all(isinstance(message.get("content"), str) for message in conversation):
        raise BenchError(f"conversation {number} has a message without text")
