"""What a row costs: size, time, memory, tokens, money; each a column that can be asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from recllm_bench.errors import BenchError, nearest
from recllm_bench.language.chat_spending import price
from recllm_bench.reporting.records import RunRecord

Prices = Mapping[str, Mapping[str, float]]
_SPENT = ("prompt_tokens", "completion_tokens")


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
    """Tokens that language models read and wrote for one user when the row was measured; None where none were counted.

    Chat models are counted by name (``spent``), a method's own model for all users together (``prompt``,
    ``generated``), and dialogues as the mean of one (``input``, ``output``): the first of these that a record has.
    """
    if record.members:
        each = [found for run in record.members if (found := tokens_a_user(run))]
        return (fmean(tokens[0] for tokens in each), fmean(tokens[1] for tokens in each)) if each else None
    found, users = record.tokens, _users(record)
    if users and record.spent:
        read, wrote = (sum(of[name] for of in record.spent.values()) / users for name in _SPENT)
        return read, wrote
    if "input" in found or "output" in found:
        return found.get("input", 0.0), found.get("output", 0.0)
    if users and ("prompt" in found or "generated" in found):
        return found.get("prompt", 0.0) / users, found.get("generated", 0.0) / users
    return None


def price_a_thousand(record: RunRecord, prices: Prices) -> float | None:
    """Money for a thousand users; None where no chat model was asked, or the table lacks one that was."""
    if record.members:
        each = [found for run in record.members if (found := price_a_thousand(run, prices)) is not None]
        return fmean(each) if each else None
    users = _users(record)
    if not users or not record.spent or not record.spent.keys() <= prices.keys():
        return None
    sums = ((prices[model], *(of[name] for name in _SPENT)) for model, of in record.spent.items())
    return 1000 / users * sum(price(*each) for each in sums)


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
