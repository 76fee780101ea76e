"""JSON lines of a user's own, read whole as columns; literals of JavaScript and Python are read where they stand."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import warnings
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from recllm_bench.data.prepare.textfiles import pieces
from recllm_bench.data.prepare.values import scalar_text
from recllm_bench.errors import BenchError

_PIECE_BYTES = 8 << 20
# Syntax trees take five hundred times the memory of their text.
_LONGEST_LITERAL = 2 << 20
# A string, or a word outside of strings; only these words mean something.
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|-?[A-Za-z_]\w*')
_AS_JSON = {
    **dict.fromkeys(("None", "NaN", "nan", "NAN", "-nan", "NaT", "NA", "undefined"), "null"),
    **{"True": "true", "False": "false", "Infinity": "1e999", "inf": "1e999", "-Infinity": "-1e999", "-inf": "-1e999"},
}
_AS_PYTHON = {**_AS_JSON, "null": "None", "true": "True", "false": "False"}
_AS_PYTHON |= {name: "None" for name, value in _AS_JSON.items() if value == "null"} | {"True": "True", "False": "False"}


def read_json_lines(path: Path, data: bytes) -> dict[str, pa.Array]:
    """Read one object a line as columns: strings, or lists of strings where a field holds lists.

    Numbers become the text they were written as, so that ``7`` and ``"7"`` are one id; a missing field, ``null`` and
    ``NaN`` become an empty string. A field that holds objects, or lists of anything but plain values, has the type
    ``struct``: whoever wants it must refuse it.

    Raises
    ------
    BenchError
        With the line, for anything but one object a line.
    """
    if data[:4096].lstrip()[:1] == b"[":
        raise BenchError(f"{path}:1: a JSON array; write one object a line (JSON lines)")
    decoder = msgspec.json.Decoder(dict)
    columns: dict[str, list[pa.Array]] = {}
    lengths: list[int] = []
    for start, stop in pieces(data, 0, _PIECE_BYTES):
        lines = data[start:stop]
        try:
            records = decoder.decode_lines(lines)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            records = []
        if len(records) != lines.count(b"\n") + (not lines.endswith(b"\n")):
            records = _line_by_line(path, lines.removesuffix(b"\n"), decoder, data.count(b"\n", 0, start) + 1)
        for name in {**columns, **dict.fromkeys(chain.from_iterable(records))}:
            before = columns.setdefault(name, [pa.array([""] * length, pa.string()) for length in lengths])
            before.append(_column([record.get(name) for record in records]))
        lengths.append(len(records))
    return {name.strip(): _merged(parts) for name, parts in columns.items()}


def _line_by_line(
    path: Path, lines: bytes, decoder: msgspec.json.Decoder[dict], first_line: int
) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(lines.split(b"\n"), first_line):
        if not line.strip():
            raise BenchError(f"{path}:{number}: an empty line")
        try:
            records.append(decoder.decode(line))
        except (ValueError, RecursionError) as error:
            record = _with_literals(line)
            if record is None:
                why = str(error).splitlines()[0] if str(error) else "nested too deeply"
                raise BenchError(f"{path}:{number}: not one JSON object ({why})") from error
            records.append(record)
    return records


def _with_literals(line: bytes) -> dict[str, Any] | None:
    """An object with words that JSON lacks (``NaN``, ``Infinity``, ``None``), or a Python literal; None for others."""
    try:
        text = line.decode()
        with contextlib.suppress(ValueError):
            return _object(json.loads(_translated(text, _AS_JSON)))
        if len(line) > _LONGEST_LITERAL:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's, of escapes in literals
            return _object(ast.literal_eval(_translated(text, _AS_PYTHON).strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError("no object with names")
    # Half of a surrogate pair is no text: neither here nor in a line that is plain JSON.
    json.dumps(value, ensure_ascii=False, default=_listed).encode()
    return value


def _listed(value: Any) -> list[Any]:
    if isinstance(value, (set, frozenset)):
        return list(value)
    raise TypeError("bytes and other values that JSON has no word for")


def _translated(text: str, words: dict[str, str]) -> str:
    return _WORD.sub(lambda found: words.get(found[0], found[0]), text)


def _merged(parts: list[pa.Array]) -> pa.Array:
    """One column of its pieces; when they differ in kind, the most deeply nested kind decides."""
    if any(pa.types.is_struct(part.type) for part in parts):
        flags = [
            part.field("nested") if pa.types.is_struct(part.type) else pa.array([False] * len(part)) for part in parts
        ]
        return pa.StructArray.from_arrays([pa.concat_arrays(flags)], ["nested"])
    if any(pa.types.is_list(part.type) for part in parts):
        parts = [
            part if pa.types.is_list(part.type) else _column([[text] if text else [] for text in part.to_pylist()])
            for part in parts
        ]
    return pa.concat_arrays(parts)


def _column(values: Iterable[Any]) -> pa.Array:
    values = list(values)
    with contextlib.suppress(pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array(values, pa.string()).fill_null("")
    kinds = set(map(type, values))
    if kinds <= {int, type(None)}:
        with contextlib.suppress(OverflowError):  # longer than any integer column: id by id
            return pa.array(values, pa.int64()).cast(pa.string()).fill_null("")
    nested_kinds = (dict, list, tuple, set)
    if kinds & {dict, set}:
        nested = [isinstance(value, (dict, set)) for value in values]
    elif kinds & {list, tuple}:
        lists = [
            list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value] for value in values
        ]
        nested = [any(isinstance(part, nested_kinds) for part in value) for value in lists]
        if not any(nested):
            return pa.array([[scalar_text(part) for part in value] for value in lists], pa.list_(pa.string()))
    else:
        return pa.array([scalar_text(value) for value in values], pa.string())
    return pa.array([{"nested": flag} for flag in nested])
