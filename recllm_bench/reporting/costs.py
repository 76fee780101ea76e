"""What a row costs: size, time, memory, tokens, money; each a column that can be asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recllm_bench.errors import BenchError, nearest
from recllm_bench.reporting.records import RunRecord

Prices = Mapping[str, Mapping[str, float]]
_MILLION = 1e6


def read_prices(path: Path) -> dict[str, dict[str, float]]:
    """Read a price table: ``MODEL: {input: 0.15, output: 0.60}``, money for a million tokens.

    Raises
    ------
    BenchError
        When the file is no such mapping.
    """
    from recllm_bench.yaml_files import read_mapping

    what = "a price table is a mapping such as 'gpt-4o-mini: {input: 0.15, output: 0.60}', for a million tokens"
    values, _ = read_mapping(path, what)
    for model, price in values.items():
        numbers = price.values() if isinstance(price, Mapping) and set(price) == {"input", "output"} else [None]
        if not all(isinstance(each, (int, float)) and 0 <= each < math.inf for each in numbers):
            raise BenchError(f"{path}: {model}: {what}")
    return {str(model): {kind: float(each) for kind, each in price.items()} for model, price in values.items()}


def cost_names(text: str) -> tuple[str, ...]:
    """The columns that a list such as ``"training,tokens"`` asks for; ``all`` is every one, ``none`` is none.

    Raises
    ------
    BenchError
        For an unknown one.
    """
    if text in ("all", "none"):
        return tuple(COSTS) if text == "all" else ()
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in COSTS:
            raise BenchError(f"--cost: there is no cost '{name}'.{nearest(name, [*COSTS, 'all', 'none'])}")
    return names


def tokens_a_user(record: RunRecord) -> tuple[float, float] | None:
    """Tokens that language models read and write for one user when the row is measured; None where none were counted.

    A method counts all users together (``prompt``, ``generated``), dialogues the mean of one (``input``, ``output``).
    """
    found, users = record.tokens, _users(record)
    if "input" in found or "output" in found:
        return found.get("input", 0.0), found.get("output", 0.0)
    if users and ("prompt" in found or "generated" in found):
        return found.get("prompt", 0.0) / users, found.get("generated", 0.0) / users
    return None


def price_a_thousand(record: RunRecord, prices: Prices) -> float | None:
    """Money for a thousand users; None without tokens, or where no price, or more than one, is that of a model used.

    A model is used where the recipe names it, with or without what stands around it (``server:MODEL@URL``).
    """
    from recllm_bench.recipe import flat

    tokens = tokens_a_user(record)
    named = [str(value) for value in flat(record.recipe).values() if isinstance(value, str)]
    named = [part for value in named for part in (value, value.partition(":")[2].rpartition("@")[0])]
    used = [model for model in prices if model in named]
    if tokens is None or len(used) != 1:
        return None
    price = prices[used[0]]
    return 1000 * (tokens[0] * price["input"] + tokens[1] * price["output"]) / _MILLION


def latency(record: RunRecord) -> float | None:
    """Seconds of answering and ranking for one user, many users at once; None where nothing was timed."""
    users, seconds = _users(record), record.evaluation_seconds + record.answer_seconds
    return seconds / users if users and seconds else None


def _users(record: RunRecord) -> float:
    return float(record.cases.get("users", 0))


def duration(seconds: float | None) -> str:
    """Seconds in the unit a person would use."""
    if seconds is None:
        return ""
    if 0 < seconds < 0.1:
        return f"{seconds * 1000:.2g} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _count(value: float | None) -> str:
    if value is None:
        return ""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if value >= size:
            return f"{value / (1e3 if unit == 'k' else size):.1f} {unit}"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _memory(value: float | None) -> str:
    return "" if value is None else f"{value / 2**20:,.0f} MiB" if value < 2**30 else f"{value / 2**30:.1f} GiB"


def _money(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value >= 0.01 or value == 0 else f"{value:.1g}"


def _part(record: RunRecord, place: int) -> float | None:
    tokens = tokens_a_user(record)
    return None if tokens is None else tokens[place]


Value = Callable[[RunRecord, Prices], "float | None"]
COSTS: dict[str, dict[str, tuple[Value, Callable[[Any], str]]]] = {
    "parameters": {"parameters": (lambda record, _: record.costs.get("parameters"), _count)},
    "training": {"training": (lambda record, _: record.training_seconds, duration)},
    "evaluation": {
        "evaluation": (lambda record, _: (record.evaluation_seconds + record.answer_seconds) or None, duration)
    },
    "memory": {"peak memory": (lambda record, _: record.costs.get("peak_memory"), _memory)},
    "tokens": {
        "tokens in": (lambda record, _: _part(record, 0), _count),
        "tokens out": (lambda record, _: _part(record, 1), _count),
    },
    "latency": {"latency": (lambda record, _: latency(record), duration)},
    "price": {"price": (price_a_thousand, _money)},
}
"""By what ``--cost`` calls them, the columns with their values and how these are written."""
ABOUT = {
    "parameters": "parameters: numbers in the loaded model",
    "memory": "peak memory: of the process while it measured, and while it trained where that was the same run; on a "
    "graphics card, of the card",
    "tokens": "tokens: read and written by language models for one user while measuring; training is not in them",
    "latency": "latency: answering and ranking for one user, many users at once",
    "price": "price: of a thousand users, by the given table",
}


def cost_values(record: RunRecord, names: Sequence[str], prices: Prices) -> dict[str, float | None]:
    """Each asked column's value; None where the record does not have it."""
    return {head: value(record, prices) for name in names for head, (value, _) in COSTS[name].items()}


def cost_texts(record: RunRecord, names: Sequence[str], prices: Prices) -> dict[str, str]:
    """As :func:`cost_values`, for people; empty where a record does not have it."""
    values = cost_values(record, names, prices)
    return {head: write(values[head]) for name in names for head, (_, write) in COSTS[name].items()}
