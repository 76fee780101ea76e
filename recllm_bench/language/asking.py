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
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0


def ask(
    chat: Chat, conversations: Sequence[Conversation], costs: Sequence[Cost], *, max_tokens: int, seed: int = 0
) -> list[str]:
    """Answers to conversations, greedily, as one batch; what each took is added to its cost.

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
    answers = chat.answers(conversations, max_tokens=max_tokens, temperature=0.0, seed=seed)
    for cost, answer in zip(costs, answers, strict=True):
        cost.calls += 1
        cost.input_tokens += answer.prompt_tokens
        cost.output_tokens += answer.completion_tokens
    return [answer.text for answer in answers]


@contextmanager
def timed(costs: Sequence[Cost]) -> Iterator[None]:
    """Share the time spent within among some dialogues."""
    start = time.perf_counter()
    yield
    share = (time.perf_counter() - start) / max(1, len(costs))
    for cost in costs:
        cost.seconds += share
