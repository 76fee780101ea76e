"""Typed options: a frozen dataclass whose fields explain themselves and refuse nonsense."""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from recllm_bench.errors import BenchError, nearest

T = TypeVar("T")
LARGEST = 2**31 - 1
"""Largest whole number of an option: sizes and counts beyond it fit no machine, and no index of a kernel."""


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[Any] | None = None,
    low: float | None = None,
    high: float | None = None,
    quick: int | bool = False,
    at_most: str = "",
    presets: Mapping[str, Any] | None = None,
) -> Any:
    """Declare one field of an options dataclass.

    Parameters
    ----------
    default : object
        Value when the user says nothing (immutable).
    help : str
        One line for ``--help`` and the docs.
    choices : sequence, optional
        The only values allowed.
    low, high : float, optional
        Inclusive bounds of a number.
    quick : int or bool
        Most that a quick run takes; True: passes over data, of which it takes the number asked for.
    at_most : str
        Name of a count of the data that the value may not exceed, such as ``"users"``: a default is lowered to it, a
        value that was set is refused.
    presets : mapping, optional
        Other defaults, by the name that ``preset_of(given)`` of the options' class returns.
    """
    limits = {"choices": choices, "low": low, "high": high, "quick": quick, "at_most": at_most, "presets": presets}
    return dataclasses.field(default=default, metadata={"help": help, **limits})


def read_options(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build an options object, refusing what it does not know.

    Parameters
    ----------
    cls : type
        A dataclass made of :func:`option` fields.
    values : mapping
        The user's values; strings are read as the field's type (``"8"`` for an int).
    where : str
        What the message calls the place, such as ``"options of latentcrs"``.

    Raises
    ------
    BenchError
        For an unknown key, a wrong type, or a value out of range.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    clean = {}
    for key, value in values.items():
        if key not in fields:
            raise BenchError(f"{where}: unknown option '{key}'.{nearest(str(key), fields)}")
        clean[key] = _checked(value, hints[key], fields[key].metadata, f"{where}: {key}")
    preset_of = getattr(cls, "preset_of", None)
    if preset_of is not None:
        preset = preset_of(clean)
        for name, field in fields.items():
            presets = field.metadata.get("presets") or {}
            if name not in clean and preset in presets:
                clean[name] = presets[preset]
    return cls(**clean)


def quickened(options: T, passes: int) -> T:
    """The options of a quick run: at most ``passes`` over any data, and small sizes where a field names one."""
    changes = {}
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        quick, value = field.metadata.get("quick", False), getattr(options, field.name)
        most = passes if quick is True else quick
        if quick is not False and value is not None and value > most:
            changes[field.name] = most
    return dataclasses.replace(options, **changes)  # type: ignore[type-var]


def fitted(options: T, given: Mapping[str, Any], counts: Mapping[str, int], where: str) -> T:
    """The options with defaults lowered to what the data has.

    Parameters
    ----------
    options : object
        From :func:`read_options`.
    given : mapping
        What was set; such a value is not lowered.
    counts : mapping
        Counts of the data by name, such as ``{"users": 150}``.
    where : str
        What the message calls the place.

    Raises
    ------
    BenchError
        When a value that was set exceeds the data.
    """
    changes = {}
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        most, value = counts.get(field.metadata.get("at_most", "")), getattr(options, field.name)
        if most is None or value is None or value <= most:
            continue
        if field.name in given:
            noun = field.metadata["at_most"]
            raise BenchError(f"{where}: {field.name}={value} needs at least as many {noun}, found {most}; set it lower")
        changes[field.name] = max(1, most)
    return dataclasses.replace(options, **changes)  # type: ignore[type-var]


def describe_options(cls: type) -> list[tuple[str, str, str]]:
    """Rows (name, default, help) of an options dataclass, for help pages."""
    rows = []
    for field in dataclasses.fields(cls):
        choices = field.metadata.get("choices")
        suffix = f" [{' | '.join(map(str, choices))}]" if choices else ""
        presets = field.metadata.get("presets")
        suffix += f" ({', '.join(f'{name}: {shown(value)}' for name, value in presets.items())})" if presets else ""
        rows.append((field.name, str(field.default), field.metadata.get("help", "") + suffix))
    return rows


def _checked(value: Any, hint: Any, limits: Mapping[str, Any], where: str) -> Any:
    value = _typed(value, hint, where)
    if value is None:
        return value
    choices, low, high = limits.get("choices"), limits.get("low"), limits.get("high")
    if choices is not None and value not in choices:
        known = ", ".join(map(str, choices))
        raise BenchError(f"{where}: {shown(value)} is not one of {known}")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, int) and abs(number) > LARGEST:
            raise BenchError(f"{where}: {shown(number)} is out of range (at most {LARGEST})")
        if (low is not None and number < low) or (high is not None and number > high):
            bounds = f"at least {low}" if high is None else f"at most {high}" if low is None else f"{low} to {high}"
            raise BenchError(f"{where}: {number} is out of range ({bounds})")
    return value


def _typed(value: Any, hint: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        if value is None or value in ("none", "null", ""):
            return None
        if len(kinds) == 1:
            return _typed(value, kinds[0], where)
        for kind in kinds:
            try:
                return _typed(value, kind, where)
            except BenchError:
                continue
        raise BenchError(f"{where}: cannot read {shown(value)} as {' or '.join(_name(kind) for kind in kinds)}")
    if origin is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, Sequence):
            parts = (parts,)
        kind = typing.get_args(hint)[0]
        return tuple(_typed(part.strip() if isinstance(part, str) else part, kind, where) for part in parts)
    if hint is bool:
        named = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in named:
            return named[value.lower()]
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,400}", value.strip()):
            return int(value)
    elif hint is float:
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            try:
                number = float(value)
            except (ValueError, OverflowError):
                number = math.nan
            if math.isfinite(number):  # a NaN would slip through every bound
                return number
    elif hint is str:
        if isinstance(value, str):
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
    elif hint is dict:
        if isinstance(value, Mapping):
            return plain_mapping(value, where)
    else:
        return value
    raise BenchError(f"{where}: expected {_name(hint)}, got {shown(value)}")


def plain_mapping(values: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """A copy of a mapping that a file or the command line gave: text keys, and values that JSON has too.

    Raises
    ------
    BenchError
        For a key that is no text, and for a date, a set or bytes, which YAML makes of some unquoted words.
    """
    clean = {}
    for key, value in values.items():
        if not isinstance(key, str):
            raise BenchError(f"{where}: {shown(key)} is no name of an option; names are text")
        clean[key] = _plain_value(value, f"{where}: {key}")
    return clean


def _plain_value(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        return plain_mapping(value, where)
    if isinstance(value, (list, tuple)):
        return [_plain_value(part, where) for part in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    kind = type(value).__name__
    raise BenchError(
        f"{where}: {shown(value)} was read as a {kind}; write text in quotes, or a number, list or mapping"
    )


def shown(value: Any, longest: int = 80) -> str:
    """A value as a message shows it: one line, cut where it is long."""
    try:
        text = str(value) if isinstance(value, (datetime.date, datetime.datetime)) else repr(value)
    except ValueError:  # Python refuses to write an integer of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= longest else f"{text[:longest]}..."


def _name(hint: Any) -> str:
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "a mapping"}.get(
        hint, str(hint)
    )


def options_from_config(cls: type[T], config: Any) -> T:
    """Read an options dataclass out of a RecBole ``Config``, so that a model runs in plain RecBole too."""
    names = (field.name for field in dataclasses.fields(cls))  # type: ignore[arg-type]
    values = {name: config[name] for name in names if name in config}
    return read_options(cls, values, f"configuration of {cls.__qualname__}")
