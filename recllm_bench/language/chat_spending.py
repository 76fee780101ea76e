"""What a run asked of chat models, what that costs by a table of prices, and the limit of what it may take."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recllm_bench.errors import BenchError
from recllm_bench.yaml_files import read_mapping

PRICES = "RECLLM_PRICES"
"""Environment variable that names the table: YAML, ``MODEL: {input: 0.15, output: 0.6}``, per million tokens."""
BUDGET = "RECLLM_TOKEN_BUDGET"
"""Environment variable: most tokens that a process may ask of all servers on other machines; -1 for no limit."""
_SIDES = ("input", "output")
_OPEN: list[Spending] = []
_CHARACTERS_PER_TOKEN = 4  # of English text under the usual tokenizers


@dataclass
class Spending:
    """Different questions of a run, by model.

    An answer that was known from an earlier run counts like one that was written now, each once: so a run costs the
    same whatever its cache holds. ``new`` says how many were written now.
    """

    models: dict[str, dict[str, int]] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def add(self, model: str, key: str, prompt_tokens: int, completion_tokens: int, new: bool) -> None:
        """Count one answer, unless the run had it before."""
        if key in self._seen:
            return
        self._seen.add(key)
        sums = self.models.setdefault(model, dict.fromkeys(("answers", "new", "prompt_tokens", "completion_tokens"), 0))
        for name, count in zip(sums, (1, int(new), prompt_tokens, completion_tokens), strict=True):
            sums[name] += count

    def facts(self) -> dict[str, dict[str, float]]:
        """The sums by model, with ``price`` where the table has the model."""
        table, found = price_table(), dict[str, dict[str, float]]()
        for model, sums in self.models.items():
            found[model] = dict(sums)
            if model in table:
                found[model]["price"] = price(table[model], sums["prompt_tokens"], sums["completion_tokens"])
        return found


class TokenBudget:
    """Most tokens that questions may take. One in flight holds room for the longest answer that it may get.

    Parameters
    ----------
    name : str
        What a user sets, for messages.
    limit : int
        0 where none was set, -1 where none is wanted.

    Attributes
    ----------
    spent : int
        Tokens of the questions that were answered.
    """

    def __init__(self, name: str, limit: int = 0) -> None:
        self.name, self.limit, self.spent = name, limit, 0
        self._held = 0
        self._change = threading.Condition()

    @contextmanager
    def room(self, most: int) -> Iterator[Callable[[int], None]]:
        """Hold room for so many tokens; what is yielded is told how many were used, if any.

        Raises
        ------
        BenchError
            When they would pass the limit, also once everything in flight is answered.
        """
        with self._change:
            self._change.wait_for(lambda: self._reaches(most) or not self._held)
            if not self._reaches(most):
                raise BenchError(
                    f"{self.name}={self.limit} is used up: about {self.spent} tokens are spent, and the next question"
                    f" may take {most}. Answers so far are kept: the same command goes on from there, with as many"
                    f" tokens again or with a larger {self.name}"
                )
            self._held += most
        used = [0]
        try:
            yield used.append
        finally:
            with self._change:
                self._held -= most
                self.spent += used[-1]
                self._change.notify_all()

    def _reaches(self, most: int) -> bool:
        return self.limit <= 0 or self.spent + self._held + most <= self.limit


_PROCESS = TokenBudget(BUDGET)


def process_budget() -> TokenBudget:
    """What ``RECLLM_TOKEN_BUDGET`` leaves to this process, all models together.

    Raises
    ------
    BenchError
        When its value is no number.
    """
    value = os.environ.get(BUDGET, "").strip() or "0"
    if not re.fullmatch(r"-1|[0-9]+", value):
        raise BenchError(f"{BUDGET}={value}: give the most tokens as a whole number, or -1 for no limit")
    _PROCESS.limit = int(value)
    return _PROCESS


def text_tokens(text: str) -> int:
    """About how many tokens a text has."""
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def question_tokens(conversation: Sequence[Mapping[str, str]]) -> int:
    """About how many tokens a model reads of a conversation."""
    return sum(text_tokens(message["content"]) for message in conversation)


@contextmanager
def spending() -> Iterator[Spending]:
    """Count what chat models are asked for while this is open."""
    own = Spending()
    _OPEN.append(own)
    try:
        yield own
    finally:
        _OPEN.remove(own)


def spend(model: str, key: str, prompt_tokens: int, completion_tokens: int, new: bool) -> None:
    """Tell whoever counts of one answer."""
    for each in _OPEN:
        each.add(model, key, prompt_tokens, completion_tokens, new)


def price(rates: Mapping[str, float], prompt_tokens: float, completion_tokens: float) -> float:
    """Price of so many tokens at rates per million: in the currency of the table."""
    return (rates["input"] * prompt_tokens + rates["output"] * completion_tokens) / 1e6


def price_table(path: Path | str | None = None) -> dict[str, dict[str, float]]:
    """Prices by model: of a file, by default the one that ``RECLLM_PRICES`` names; empty without one.

    Raises
    ------
    BenchError
        For a file that cannot be read, or a price that is none, with its line.
    """
    path = path or os.environ.get(PRICES)
    if not path:
        return {}
    says = "a table of prices has a line for each model, such as 'gpt-4o-mini: {input: 0.15, output: 0.6}'"
    values, lines = read_mapping(Path(path).expanduser(), says)
    for model, rates in values.items():
        where = f"{path}:{lines.get((model,), 1)}: {model}"
        if not isinstance(rates, Mapping) or set(rates) != set(_SIDES):
            raise BenchError(f"{where}: give the price of a million tokens as {{input: 0.15, output: 0.6}}")
        wrong = next((side for side in _SIDES if not _is_price(rates[side])), None)
        if wrong:
            raise BenchError(f"{where}: {wrong} is a price of at least 0, got {rates[wrong]!r}")
    return values


def _is_price(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")
