"""Asking a chat model on behalf of many dialogues at once, with what each of them cost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from recllm_bench.language.chat import Chat, Conversation


@dataclass
class Cost:
    """What one dialogue's calls took.

    Attributes
    ----------
    calls : int
        Answers, those that were known before included: a repeated run costs what the first one did.
    input_tokens, output_tokens : int
        As the model counts them; of an answer that was known before, what it took when it was written.
    seconds : float
        An equal share of the time of every batch that the dialogue was in.
    lost : int
        Questions that got no answer in all their attempts.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    lost: int = 0

    @property
    def error(self) -> str:
        """Why the dialogue is invalid; empty where every question was answered."""
        return "the chat model gave no answer" if self.lost else ""


def ask(
    chat: Chat, conversations: Sequence[Conversation], costs: Sequence[Cost], *, max_tokens: int, seed: int = 0
) -> list[str]:
    """Answers to conversations, greedily, as one batch; what each took is added to its cost.

    A question that gets no answer has an empty one, and its cost says so: the others go on.

    Parameters
    ----------
    chat : Chat
        Who is asked.
    conversations : sequence
        Messages with ``role`` and ``content``.
    costs : sequence of Cost
        One for each conversation.
    max_tokens : int
        Of an answer.
    seed : int
        For a server that wants one.
    """
    if not conversations:
        return []
    answers = chat.attempt(conversations, max_tokens=max_tokens, temperature=0.0, seed=seed)
    for cost, answer in zip(costs, answers, strict=True):
        cost.calls += 1
        if answer is None:
            cost.lost += 1
            continue
        cost.input_tokens += answer.prompt_tokens
        cost.output_tokens += answer.completion_tokens
    return [answer.text if answer else "" for answer in answers]


@contextmanager
def timed(costs: Sequence[Cost]) -> Iterator[None]:
    """Share the time spent within among some dialogues."""
    start = time.perf_counter()
    yield
    share = (time.perf_counter() - start) / max(1, len(costs))
    for cost in costs:
        cost.seconds += share
