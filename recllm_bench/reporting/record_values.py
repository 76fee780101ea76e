"""The content of ``run.json``: sealed when it is written; checked for types and changes when it is read."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recllm_bench.artifacts import content_hash
from recllm_bench.errors import BenchError

SEAL = "seal"
_DEEPEST = 32
# What tables and comparisons cannot do without, in the fields that are plain mappings.
_NAMED = {"recipe": ("model", "dataset", "protocol"), "dataset": ("name",), "protocol": ("name",)}
_INTERVAL = ("mean", "low", "high", "n")


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values and a hash of them, by which a later change of the file is noticed."""
    plain = json.loads(json.dumps(values, default=str))
    return {**plain, SEAL: content_hash(plain)}


def is_sealed(path: Path) -> bool:
    """Whether a ``run.json`` that was read keeps a hash of itself; those of earlier versions do not."""
    return SEAL in json.loads(path.read_text(encoding="utf-8"))


def read_values(path: Path, newest: int) -> dict[str, Any]:
    """Read ``run.json``.

    Parameters
    ----------
    newest : int
        The highest ``schema`` that is understood.

    Raises
    ------
    BenchError
        When it is absent, no JSON mapping, written by a newer version, or no longer what was written (files of
        earlier versions have no seal and may have been edited).
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BenchError(f"{path.parent} is no run record: it has no {path.name}") from error
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path} is damaged ({_short(error)})") from error
    except OSError as error:
        raise BenchError(f"{path} cannot be read ({error.strerror})") from error
    if not isinstance(values, dict):
        raise BenchError(f"{path} is damaged (it holds no mapping)")
    schema = values.get("schema", 0)
    if isinstance(schema, int) and schema > newest:
        raise BenchError(f"{path} was written by a newer recllm-bench (schema {schema}); update it")
    place = _too_deep(values)
    if place:
        raise BenchError(f"{path} is damaged ({place} is nested too deep)")
    seal = values.pop(SEAL, None)
    if seal is not None and seal != content_hash(values):
        raise BenchError(f"{path} is not as it was written (edited by hand, or damaged)")
    return values


def check_types(values: Mapping[str, Any], hints: Mapping[str, Any], path: Path) -> None:
    """Compare values with the fields of a record.

    Raises
    ------
    BenchError
        Naming the first value that is of another type, or a name that tables need and that is absent.
    """
    for name, value in values.items():
        wrong = _misfit(value, hints.get(name, Any), name)
        if wrong:
            raise BenchError(f"{path} is damaged ({wrong})")
    for field, names in _NAMED.items():
        for name in names:
            if not isinstance(values.get(field, {}).get(name), str):
                raise BenchError(f"{path} is damaged ({field}.{name} is no text)")
    measured = {**values.get("metrics", {}), **_intervals(values.get("dialogue", {}))}
    for metric, facts in measured.items():
        missing = [part for part in _INTERVAL if not (isinstance(facts, dict) and _is_number(facts.get(part)))]
        if missing:
            raise BenchError(f"{path} is damaged ({metric} has no number '{missing[0]}')")
    for name in ("n", "invalid", "leaks"):
        if not _is_number(values.get("dialogue", {}).get(name, 0)):
            raise BenchError(f"{path} is damaged (dialogue.{name} is no number)")
    for name, value in values.get("cases", {}).items():
        if value != value or abs(value) == float("inf"):
            raise BenchError(f"{path} is damaged (cases.{name} is {value})")


def _intervals(dialogue: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of dialogues; the other entries are counts and nested facts."""
    return {name: facts for name, facts in dialogue.items() if "@" in name or name == "AT"}


def _misfit(value: Any, hint: Any, place: str) -> str:
    """What is wrong with a value, empty when it fits its annotation; classes of our own are left to their readers."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return "" if any(not _misfit(value, part, place) for part in inside) else _wanted(place, "another value", value)
    if origin is dict:
        if not isinstance(value, dict):
            return _wanted(place, "a mapping", value)
        return next(filter(None, (_misfit(part, inside[1], f"{place}.{name}") for name, part in value.items())), "")
    if origin is list:
        if not isinstance(value, list):
            return _wanted(place, "a list", value)
        return next(filter(None, (_misfit(part, inside[0], f"{place}[{row}]") for row, part in enumerate(value))), "")
    if hint is float:
        return "" if _is_number(value) else _wanted(place, "a number", value)
    if hint is int:
        return "" if isinstance(value, int) and not isinstance(value, bool) else _wanted(place, "a whole number", value)
    if hint is str:
        return "" if isinstance(value, str) else _wanted(place, "a text", value)
    if hint is type(None):
        return "" if value is None else _wanted(place, "nothing", value)
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _wanted(place: str, what: str, value: Any) -> str:
    return f"{place[:60]} should be {what}, not {str(value)[:30]!r}"


def _too_deep(values: Mapping[str, Any]) -> str:
    """Name of a field whose nesting no record has; without recursion, since that is what it guards."""
    for name, value in values.items():
        level: list[Any] = [value]
        for _ in range(_DEEPEST):
            level = [
                part
                for each in level
                if isinstance(each, (dict, list))
                for part in (each.values() if isinstance(each, dict) else each)
            ]
            if not level:
                break
        else:
            return name[:60]
    return ""


def _short(error: BaseException) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error).splitlines()[0][:100]
