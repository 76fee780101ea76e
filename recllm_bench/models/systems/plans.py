"""Plans of tool calls as a chat model writes them: read, checked, and refused in words that it can act on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recllm_bench.errors import BenchError
from recllm_bench.models.systems.item_database import FIELDS, RULES, Condition

TOOLS = ("query", "similar", "rank")
MOST_STEPS = 6
_SHAPE = '[{"tool": "query", "where": [["category", "is", "..."], ["year", "from", 1990]]}, {"tool": "rank"}]'
TOLD = (
    'Write a plan as a JSON list of tool calls. "query" keeps items by attributes; "where" holds conditions: '
    f'{RULES}. "similar" keeps items that are like those under "titles". "rank" puts what is left in the order of the '
    f"user's taste. For example: {_SHAPE}. Write the JSON and nothing else."
)
"""The tools, for a prompt."""


@dataclass(frozen=True)
class Step:
    """One call of a tool.

    Attributes
    ----------
    tool : str
        One of :data:`TOOLS`.
    where : tuple of Condition
        Of a query.
    titles : tuple of str
        Of what is similar.
    """

    tool: str
    where: tuple[Condition, ...] = ()
    titles: tuple[str, ...] = field(default=())


FALLBACK = (Step("rank"),)
"""What is done where no plan can be read: the taste alone."""


def read_plan(text: str) -> tuple[Step, ...]:
    """The plan in an answer.

    Raises
    ------
    BenchError
        Where there is none, in words for who wrote it.
    """
    calls = _first_list(text)
    if not calls:
        raise BenchError(f"there is no JSON list of tool calls; write one such as {_SHAPE}")
    if len(calls) > MOST_STEPS:
        raise BenchError(f"{len(calls)} steps are too many; write at most {MOST_STEPS}")
    return tuple(_step(call) for call in calls)


def _step(call: Any) -> Step:
    if not isinstance(call, Mapping) or call.get("tool") not in TOOLS:
        named = call.get("tool") if isinstance(call, Mapping) else call
        raise BenchError(f"no tool {json.dumps(named)[:60]}; there are {', '.join(TOOLS)}")
    if call["tool"] == "query":
        where = call.get("where")
        if not isinstance(where, list) or not where:
            raise BenchError('a query needs "where", a list of conditions such as ["category", "is", "Drama"]')
        return Step("query", tuple(_condition(each) for each in where))
    if call["tool"] == "similar":
        titles = call.get("titles")
        titles = [titles] if isinstance(titles, str) else titles
        if not isinstance(titles, list) or not titles or not all(isinstance(title, str) for title in titles):
            raise BenchError('similar needs "titles", a list of titles')
        return Step("similar", titles=tuple(titles))
    return Step("rank")


def _condition(each: Any) -> Condition:
    if not isinstance(each, list) or len(each) != 3 or not all(isinstance(part, str) for part in each[:2]):
        raise BenchError(f'a condition is ["field", "rule", value], not {json.dumps(each)[:60]}')
    name, rule, value = each
    if name not in FIELDS or rule not in FIELDS[name]:
        raise BenchError(f'no condition "{name} {rule}"; there are {RULES}')
    if name == "year":
        if isinstance(value, bool) or not re.fullmatch(r"\d{4}", str(value)):
            raise BenchError(f"year {rule} {json.dumps(value)[:20]}: write a year of four digits")
        return Condition(name, rule, int(value))
    if not isinstance(value, str) or not value.strip():
        raise BenchError(f"{name} {rule} {json.dumps(value)[:20]}: write a word")
    return Condition(name, rule, value.strip())


def _first_list(text: str) -> list[Any] | None:
    """The first JSON list of objects in an answer, whatever stands around it; one object alone is a list of it."""
    for start in (match.start() for match in re.finditer(r"[\[{]", text)):
        try:
            found, _ = json.JSONDecoder().raw_decode(text[start:])
        except (ValueError, RecursionError):
            continue
        if isinstance(found, Mapping):
            return [found]
        if found and isinstance(found[0], Mapping):
            return found
    return None
