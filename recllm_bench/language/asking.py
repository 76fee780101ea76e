"""Asking a chat model on behalf of many dialogues at once, with what each of them cost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from recllm_bench.api.measure import Measure
from recllm_bench.language.chat import Chat, Conversation
from recllm_bench.language.chat_spending import price, price_table


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
    error : str
        Why a call got no answer, where one did not.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    error: str = ""


def ask(
    chat: Chat, conversations: Sequence[Conversation], costs: Sequence[Cost], *, max_tokens: int, seed: int = 0
) -> list[str]:
    """Answers to conversations, greedily, as one batch; what each took is added to its cost.

    One that the model gave up alone is empty, with an error in its cost; the others go on.

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
            cost.error = f"{chat.name} gave no answer"
            continue
        cost.input_tokens += answer.prompt_tokens
        cost.output_tokens += answer.completion_tokens
    return [answer.text if answer else "" for answer in answers]


def spent(costs: Sequence[Cost], about: str, chat: Chat, dialogues: int = 0) -> list[Measure]:
    """What the turns of a phase took, for a run record.

    Parameters
    ----------
    costs : sequence of Cost
        One for each turn of each dialogue.
    about : str
        The phase.
    chat : Chat
        Who was asked; its price stands in the table of prices, or nowhere.
    dialogues : int
        How many dialogues they belong to.
    """
    if not costs:
        return []
    sums = {name: sum(getattr(cost, name) for cost in costs) for name in ("calls", "input_tokens", "output_tokens")}
    named = {"calls": "calls", "tokens read": "input_tokens", "tokens written": "output_tokens"}
    found = [Measure(f"{what} a turn", sums[name] / len(costs), about) for what, name in named.items()]
    if lost := sum(bool(cost.error) for cost in costs):
        found.append(Measure("turns without an answer", lost, about))
    if rates := price_table().get(chat.name):
        total = price(rates, sums["input_tokens"], sums["output_tokens"])
        found.append(Measure("price a turn", total / len(costs), about))
        found += [Measure("price a dialogue", total / dialogues, about)] if dialogues else []
    return found


@contextmanager
def timed(costs: Sequence[Cost]) -> Iterator[None]:
    """Share the time spent within among some dialogues."""
    start = time.perf_counter()
    yield
    share = (time.perf_counter() - start) / max(1, len(costs))
    for cost in costs:
        cost.seconds += share
