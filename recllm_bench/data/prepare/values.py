"""Fields of text and tables as ids, numbers, times and clean text; what cannot be one is named with its line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recllm_bench.data.item_texts import ItemText
from recllm_bench.errors import BenchError

# How programs write that there is no value; the case matters, since Nan, Nat and Na are names of people.
MISSING = (
    *("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "NaT", "NULL", "Null", "null", "(null)"),
    *("None", "NONE", "none", "undefined", "\\N", "-", "--"),
    *("N.A.", "n.a.", "#NULL!", "#VALUE!", "#REF!", "#DIV/0!", "#NAME?", "#NUM!", "#ERROR!"),
)
LATEST = 4_102_444_800  # 2100-01-01
# From here on a number is in a finer unit: as seconds it would lie beyond the year 5000. (From, per second.) Below
# 7e17, 1992 in nanoseconds, are the ticks that Windows and .NET count from the years 1601 and 1.
_UNITS = ((1e11, 1e3), (1e14, 1e6), (7e17, 1e9))
# Earlier than any interaction on the web (1973), later than any position in a history.
_FIRST_SECOND = 100_000_000
_EXACT = 2**53  # from here on floats skip whole numbers
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE_FLOAT = re.compile(r"-?(0|[1-9]\d*)(\.0+)?|-?\d\.\d+[eE]\+?\d+|-?\d[eE]\+\d+", re.ASCII)
_DATE = re.compile(r"\d{4}[-/]\d{1,2}")
_ZONE_NAME = r"\s*(UTC|GMT)$"


def whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def scalar_text(value: Any) -> str:
    """A plain value as text: whole floats without their point, so that the id ``7.0`` is the id ``7``."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    return str(value).strip()


def clean_text(value: Any) -> str:
    """Text of a field on one line; "" when it is missing, never "nan"."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return " ".join(str(value).split())


def refuse_first(path: Path, wrong: np.ndarray, first_line: int | np.ndarray, why: Callable[[int], str]) -> None:
    """Raise with the line of the first row under a mask; ``first_line`` is the first row's, or has the line of each."""
    if wrong.any():
        row = int(np.argmax(wrong))
        line = int(first_line[row]) if isinstance(first_line, np.ndarray) else first_line + row
        raise BenchError(f"{path}:{line}: {why(row)}")


def add_item_text(text: dict[str, ItemText], path: Path, line: int, token: str, item: ItemText) -> None:
    """Note what a line says of an item; BenchError where another line says something else of it."""
    if text.setdefault(token, item) != item:  # twice the same is a copy
        raise BenchError(f"{path}:{line}: the item {token} appears twice with different text; keep one of its lines")


def encode_tokens(column: pa.Array) -> tuple[np.ndarray, list[str]]:
    """Number the tokens of a column by first appearance: codes int32 [n], and the tokens."""
    coded = whole(whole(column).dictionary_encode())
    return coded.indices.to_numpy(), [str(token) for token in coded.dictionary.to_pylist()]


def plain_ids(path: Path, column: pa.Array, what: str, first_line: int) -> pa.Array:
    """Ids as the source meant them: a column of whole numbers written as floats (``4.0``) loses its points.

    Programs make floats of an integer column that has gaps, so one file says ``4.0`` where the other says ``4``. Ids
    with leading zeros are text and stay as they are.

    Raises
    ------
    BenchError
        With the line of an id that lost digits on its way through floating point: it may be several ids in one.
    """
    codes, tokens = encode_tokens(column)
    floats = [token for token in tokens if token and not token.lstrip("-").isdecimal()]
    if not floats or not all(_WHOLE_FLOAT.fullmatch(token) for token in tokens if token):
        return column
    numbers = {token: float(token) for token in floats}
    if not all(number.is_integer() for number in numbers.values()):
        return column
    for token, number in numbers.items():
        if abs(number) >= _EXACT:
            row = first_line + int(np.argmax(codes == tokens.index(token)))
            raise BenchError(
                f"{path}:{row}: the {what} {token} is a whole number that lost its last digits on its way through "
                "floating point; write the ids as text or as integers"
            )
    plain = [str(int(numbers[token])) if token in numbers else token for token in tokens]
    return pa.array(plain, pa.string()).take(pa.array(codes))


def refuse_empty(
    path: Path, column: pa.Array, what: str, first_line: int, missing: Collection[str] = (), mend: str = ""
) -> None:
    """Raise with the line of the first field that is empty, or one of the spellings of a missing value."""
    column = whole(column)
    empty = pc.is_in(column, value_set=pa.array(["", *missing], column.type)).to_numpy(zero_copy_only=False)

    def why(row: int) -> str:
        value = column[row].as_py()
        said = f"'{value}', which stands for a missing value" if value else "empty"
        return f"the {what} is {said}{mend}"

    refuse_first(path, empty, first_line, why)


def numbers(path: Path, column: pa.Array, what: str, first_line: int | np.ndarray) -> np.ndarray:
    """Read a column of strings as decimal numbers: int64 when all are whole, else float64.

    ``first_line`` is the line of the first value, or an array with the line of each.

    Raises
    ------
    BenchError
        With the line of the first value that is no finite number.
    """
    column = whole(column)
    wrong = pc.match_substring_regex(column, "[xX]").to_numpy(zero_copy_only=False)  # Arrow reads 0x10 as 16
    if not wrong.any():
        try:
            return column.cast(pa.int64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            pass
        try:
            values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            values = np.array([_float(text) for text in column.to_pylist()])
        wrong = ~np.isfinite(values)
    refuse_first(path, wrong, first_line, lambda row: f"the {what} {column[row].as_py()!r} is not a number")
    return values


def ratings(path: Path, column: pa.Array, first_line: int) -> np.ndarray:
    """Ratings: float32 [n].

    Raises
    ------
    BenchError
        As :func:`numbers`, and for a number that 32 bits cannot hold.
    """
    values = numbers(path, column, "rating", first_line)
    large = np.abs(values) > np.finfo(np.float32).max
    refuse_first(path, large, first_line, lambda row: f"the rating {column[row].as_py()!r} is too large for a rating")
    return values.astype(np.float32)


def in_seconds(values: np.ndarray) -> np.ndarray:
    """Unix times in seconds, milli-, micro- or nanoseconds as seconds; each value is judged by itself."""
    if not (values >= _UNITS[0][0]).any():
        return values
    seconds = values
    for start, per_second in _UNITS:
        seconds = np.where(values >= start, values / per_second, seconds)
    return seconds


def unix_seconds(path: Path, values: np.ndarray, first_line: int | np.ndarray) -> np.ndarray:
    """Unix times in seconds; see :func:`in_seconds`.

    Raises
    ------
    BenchError
        With the line of the first time before 1970 or beyond 2100: no interaction on the web has one, it is a missing
        value written as a number, or another unit.
    """
    seconds = in_seconds(values)

    def why(row: int) -> str:
        if seconds[row] < 0:
            return f"the time {values[row]} lies before 1970; leave the line out if its time is unknown"
        return f"the time {values[row]} lies beyond 2100; times are Unix seconds, milli-, micro- or nanoseconds"

    refuse_first(path, (seconds < 0) | (seconds >= LATEST), first_line, why)
    return seconds


def times(path: Path, column: pa.Array, first_line: int) -> tuple[np.ndarray, bool]:
    """Unix seconds from a column of strings: Unix times, ISO dates, or dates as numbers (``20010203``).

    Returns
    -------
    seconds : float64 or int64 [n]
    are_numbers : bool
        Whether they were plain numbers, which may be positions.

    Raises
    ------
    BenchError
        With the line of the first value that is none of them, or impossible.
    """
    first = column[0].as_py()
    if not _DATE.match(first):
        if not _NUMBER.fullmatch(first):
            raise BenchError(
                f"{path}:{first_line}: the time {first!r} is not a number and no date; write Unix times, or dates like "
                "2001-02-03 or 2001-02-03T04:05:06Z"
            )
        values = numbers(path, column, "time", first_line)
        dates = _number_dates(values)
        return unix_seconds(path, values if dates is None else dates, first_line), dates is None
    import pandas as pd

    # Pandas knows no name of a zone in ISO form, and Arrow's kernels copy nothing that does not change.
    plain = pc.replace_substring_regex(column, _ZONE_NAME, "Z")
    stamps = pd.to_datetime(pd.Series(plain.to_pylist()), utc=True, errors="coerce", format="ISO8601")
    wrong = stamps.isna().to_numpy()
    refuse_first(path, wrong, first_line, lambda row: f"the time '{column[row].as_py()}' is not a date like 2001-02-03")
    seconds = ((stamps - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)).to_numpy()
    return unix_seconds(path, seconds, first_line), False


def before_the_web(seconds: np.ndarray) -> np.ndarray:
    """Which times lie before March 1973, as positions (1, 2, 3) and a 0 for a missing time do: bool [n]."""
    return seconds < _FIRST_SECOND


def _number_dates(values: np.ndarray) -> np.ndarray | None:
    """Unix seconds of numbers all of which read as 20010203 or 20010203040506; None for other numbers."""
    if values.dtype.kind != "i":
        return None
    days, clock = values, np.zeros_like(values)
    if values.min() >= 10**13:
        days, clock = values // 10**6, values % 10**6
    years, months, day = days // 10_000, days // 100 % 100, days % 100
    hours, minutes, seconds = clock // 10_000, clock // 100 % 100, clock % 100
    possible = (years >= 1970) & (years < 2100) & (months >= 1) & (months <= 12) & (day >= 1)
    if not (possible & (hours < 24) & (minutes < 60) & (seconds < 60)).all():
        return None
    month = ((years - 1970) * 12 + months - 1).astype("datetime64[M]")
    date = month.astype("datetime64[D]") + (day - 1)
    if (date.astype("datetime64[M]") != month).any():  # 30 February
        return None
    return date.astype("datetime64[s]").astype(np.int64) + hours * 3600 + minutes * 60 + seconds


def _float(text: str) -> float:
    return float(text) if _NUMBER.fullmatch(text) else math.nan
