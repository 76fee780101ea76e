"""What the two sides of a conversation exchange."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np


@dataclass
class Dialogue:
    """Everything the system under test sees of a conversation.

    Attributes
    ----------
    user : int
        User id.
    history : int32 [h]
        Items the user consumed before, oldest first.
    messages : list of (role, text)
        ``("user", ...)`` and ``("assistant", ...)``, oldest first; the last one is the user's.
    shown : list of int
        Items shown so far, in order.
    asked : list of str
        What the system asked for in each of its turns: a kind of fact (of the catalogue's ``AttributeTable``), or
        ``""`` where it only recommended.
    sizes : list of int
        How many items it showed in each of its turns.
    """

    user: int
    history: np.ndarray
    messages: list[tuple[str, str]] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def user_sentences(self) -> list[str]:
        """What the user said so far, oldest first, empty messages left out."""
        return [text for role, text in self.messages if role == "user" and text]

    def lists(self) -> list[list[int]]:
        """The items shown in each turn of the system."""
        ends = np.cumsum([0, *self.sizes]).tolist()
        return [self.shown[start:end] for start, end in pairwise(ends)]


@dataclass
class Response:
    """What a system answers.

    Attributes
    ----------
    items : list of int
        Recommended items, best first; may be empty where the system asks instead.
    ask : str
        The kind of fact the system asks for (``Dialogue.asked``); ``say`` then holds the question.
    say : str
        Its sentence; when it is empty, the loop lists the titles.
    input_tokens, output_tokens : int
        Cost of the language model's calls.
    seconds : float
        Time spent on this dialogue.
    error : str
        Why there is no answer; the dialogue is then invalid and left out of all means.
    """

    items: list[int]
    say: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    error: str = ""
    ask: str = ""


@dataclass
class Reply:
    """What a simulated user answers.

    Attributes
    ----------
    text : str
        The sentence.
    accepted : bool
        Whether the user says to have found the item. Success is decided by item id, not by this.
    end : bool
        Whether the user leaves.
    error : str
        Why there is no reply; the dialogue is then invalid.
    """

    text: str
    accepted: bool = False
    end: bool = False
    error: str = ""
