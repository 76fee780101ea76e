"""What simulated users say. It is made from the target, so only a model that declares it ever gets to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

from recllm_bench.errors import BenchError

if TYPE_CHECKING:
    import numpy as np

Ids: TypeAlias = "Sequence[int] | np.ndarray"
"""Ids of users or items, one for each row."""
NEUTRAL_OPENING = "I am looking for something I will like."
"""Stands for a user who has nothing to say."""


class Speaker(Protocol):
    """Who answers a recommendation in a sentence: one dislike, one wish.

    Attributes
    ----------
    name : str
        Shown beside the results.
    n_leaks : int
        Titles of targets that the guard took out so far.
    n_empty : int
        Times there was nothing to say so far; a plain refusal stands there.
    """

    name: str

    @property
    def n_empty(self) -> int:
        """Times there was nothing to say so far."""
        ...

    @property
    def n_leaks(self) -> int:
        """Titles of targets taken out so far."""
        ...

    def say(self, users: Ids, shown: Ids, targets: Ids, turn: int | Ids = 0) -> list[str]:
        """One utterance a row; equal rows get equal words, whatever else is in the batch."""
        ...

    def key(self) -> dict[str, Any]:
        """What decides the words, JSON-able: part of the key of whatever is made with them."""
        ...


class Words(Protocol):
    """The simulated users of a run: ``job.words``, and what :meth:`Method.columns` is handed.

    Attributes
    ----------
    key : mapping
        Simulator, encoder and whose words: part of the key of whatever is made with them.
    """

    @property
    def key(self) -> Mapping[str, Any]:
        """What decides sentences and vectors, JSON-able."""
        ...

    @property
    def speaker_key(self) -> Mapping[str, Any]:
        """Who speaks, JSON-able: simulator, its options, its vocabulary of facts; rows of others do not compare."""
        ...

    def openings(self, cases: Any) -> list[str]:
        """The first sentence of each case's user, ``""`` where there was nothing to say."""
        ...

    @property
    def attributes(self) -> Any:
        """The vocabulary of facts that the users speak of (an ``AttributeTable``)."""
        ...

    def facts(self, cases: Any) -> list[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        """Facts that each opening wants, and refuses: for a class that declares ``reads_facts`` alone."""
        ...

    def opening_vectors(self, cases: Any) -> np.ndarray:
        """Vectors ``float32 [n, width]`` of the openings; :data:`NEUTRAL_OPENING` stands for an empty one."""
        ...

    def distinct_vectors(self, cases: Any) -> tuple[np.ndarray, np.ndarray]:
        """Rows ``int64 [n]`` (-1 where nothing was said) into vectors ``float32 [m, width]`` of distinct openings."""
        ...

    @property
    def practice_key(self) -> Mapping[str, Any]:
        """What decides the dialogues of :meth:`practice`, and vectors."""
        ...

    def practice(self, cases: Any) -> list[Any]:
        """A dialogue (``conversation.dialogue.Dialogue``) of each case's user, held up to some turn, to learn from."""
        ...

    def hold(self, respond: Any, cases: Any, turns: int, shown: int) -> Any:
        """Dialogues of some cases' users with ``respond(dialogues)``, as ``conversation.dialogue_loop.Outcomes``."""
        ...

    def feedback(self, spec: str, facts: int, cases: Any = None) -> Speaker:
        """Who answers recommendations: ``rules``, ``exact``, ``local:NAME`` or ``server:MODEL@URL``.

        ``cases`` are whom it will answer for; another user's words need to know them.
        """
        ...


class Undeclared:
    """Stands in ``job.words`` for a model that does not declare that it reads words: any use of it is refused.

    Parameters
    ----------
    model : str
        Named in the message.
    """

    def __init__(self, model: str) -> None:
        self._model = model

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise BenchError(
            f"{self._model} asks for what simulated users say (words.{name}) but does not declare it; words are made "
            "from the target: set reads_words = True in the class of the model"
        )
