"""What a run asked of chat models, and what that costs by a table of prices."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recllm_bench.errors import BenchError
from recllm_bench.yaml_files import read_mapping

PRICES = "RECLLM_PRICES"
"""Environment variable that names the table: YAML, ``MODEL: {input: 0.15, output: 0.6}``, per million tokens."""
_SIDES = ("input", "output")
_OPEN: list[Spending] = []


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
