"""One record a line: typed decoding of JSON and of Python literals, with every bad line counted and named."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
import pyarrow as pa

from recllm_bench.data.prepare.lines import Chunk, stream_lines
from recllm_bench.errors import BenchError
from recllm_bench.progress import log

BAD_SHARE = 0.001
_SHOWN = 3
_EARLY = 1000
_MILLISECONDS_FROM = 100_000_000_000  # as seconds this is the year 5138
_LATEST = 4_102_444_800  # 2100-01-01
Record = TypeVar("Record", bound=msgspec.Struct)


class BadLines:
    """Counts the lines that had to be skipped, shows the first, and refuses a file that has too many.

    Parameters
    ----------
    path : Path
        The file, for messages.
    most : float
        Share of lines that may be bad (rounded up to whole lines).
    """

    def __init__(self, path: Path, most: float = BAD_SHARE) -> None:
        self.path, self.most = path, most
        self.count = 0
        self.first: list[str] = []

    def add(self, line: int, why: str) -> None:
        """Note one bad line.

        Raises
        ------
        BenchError
            As soon as no longer file could save it.
        """
        self.count += 1
        if len(self.first) < _SHOWN:
            self.first.append(f"{self.path}:{line}: {why}")
            log.warning(f"{self.first[-1]}; the line is skipped")
        if self.count > _EARLY and self.count > 10 * self.most * line:
            self._refuse(line)

    def finish(self, lines: int) -> None:
        """Judge the whole file.

        Raises
        ------
        BenchError
            When more than the allowed share of its lines is bad.
        """
        if self.count > math.ceil(self.most * lines):
            self._refuse(lines)
        if self.count > _SHOWN:
            log.warning(f"{self.path}: {self.count:,} of {lines:,} lines were skipped")

    def _refuse(self, lines: int) -> None:
        raise BenchError(
            f"{self.first[0]}; {self.count:,} of {lines:,} lines are bad, more than the {100 * self.most:g} % that may "
            "be skipped; mend the file, or allow more with --bad-lines"
        )


class Records(Generic[Record]):
    """The records of a file, chunk by chunk.

    Parameters
    ----------
    path : Path
        Lines of JSON or, when a line starts with a brace and a Python string, of Python literals.
    kind : type
        The fields wanted; others are passed over without being built.
    most_bad : float
        Share of lines that may be bad.
    literals : bool
        Whether lines are Python literals (``{u'key': True}``) and not JSON.
    """

    def __init__(self, path: Path, kind: type[Record], most_bad: float = BAD_SHARE, literals: bool = False) -> None:
        self.path, self.kind = path, kind
        self.bad = BadLines(path, most_bad)
        self.lines = 0
        self._json = msgspec.json.Decoder(kind)
        self._literals = literals

    def chunks(self) -> Iterator[RecordChunk[Record]]:
        """Decode the file.

        Raises
        ------
        BenchError
            For a file that cannot be read, or with too many bad lines.
        """
        for chunk in stream_lines(self.path):
            if chunk.first_line == 1 and chunk.data.lstrip()[:1] == b"[":
                raise BenchError(f"{self.path}:1: a JSON array; expected one object a line (JSON lines)")
            yield self._decode(chunk)
        self.bad.finish(self.lines)

    def _decode(self, chunk: Chunk) -> RecordChunk[Record]:
        self.lines = chunk.first_line - 1 + chunk.data.count(b"\n") + (not chunk.data.endswith(b"\n"))
        if not self._literals:
            try:
                return RecordChunk(self._json.decode_lines(chunk.data), chunk, None, self.bad)
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass  # some line is bad: find it
        decode = self._literal if self._literals else self._json.decode
        records, numbers = [], []
        for number, line in enumerate(chunk.data.split(b"\n"), chunk.first_line):
            if line.strip():
                try:
                    records.append(decode(line))
                    numbers.append(number)
                except (ValueError, SyntaxError, UnicodeDecodeError, MemoryError, RecursionError) as error:
                    self.bad.add(number, _reason(error, line))
        return RecordChunk(records, chunk, numbers, self.bad)

    def _literal(self, line: bytes) -> Record:
        # literal_eval builds constants and containers only: nothing in the file is ever called.
        return msgspec.convert(ast.literal_eval(line.decode().strip()), self.kind)


class RecordChunk(Generic[Record]):
    """Records of one chunk, with a way back to their lines."""

    def __init__(self, records: list[Record], chunk: Chunk, numbers: list[int] | None, bad: BadLines) -> None:
        self.records = records
        self._chunk, self._numbers, self._bad = chunk, numbers, bad

    def column(self, read: Callable[[Record], Any]) -> list[Any]:
        """One value of every record."""
        return [read(record) for record in self.records]

    def line(self, index: int) -> int:
        """Line number of a record."""
        if self._numbers is None:
            lines = enumerate(self._chunk.data.split(b"\n"), self._chunk.first_line)
            self._numbers = [number for number, line in lines if line.strip()]
        return self._numbers[index]

    def drop(self, wrong: np.ndarray, why: Callable[[Record], str]) -> bool:
        """Skip the records under a mask and count them as bad lines; tell whether there were any."""
        indices = np.flatnonzero(wrong)
        for index in indices.tolist():
            self._bad.add(self.line(index), why(self.records[index]))
        if len(indices):
            stays = np.flatnonzero(~wrong).tolist()
            self._numbers = [self.line(index) for index in stays]
            self.records = [self.records[index] for index in stays]
        return bool(len(indices))


def ids(values: list[Any]) -> pa.Array:
    """Ids as strings; ``7`` and ``"7"`` are one id, a missing one is null."""
    try:
        column = pa.array(values, pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        column = pa.array([value if value is None else str(value) for value in values], pa.string())
    return column


def floats(values: list[Any]) -> np.ndarray:
    """Numbers, also those written as strings; NaN where there is none: float64 [n]."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        return np.array([_float(value) for value in values], dtype=np.float64)


def seconds(values: list[Any]) -> np.ndarray:
    """Unix times given in seconds or milliseconds, as seconds; NaN for none or an impossible one: float64 [n].

    Each value is judged by itself: from 100,000,000,000 on it is milliseconds. Negative values and years beyond 2100
    are impossible.
    """
    times = floats(values)
    times = np.where(times >= _MILLISECONDS_FROM, times / 1000, times)
    return np.where((times >= 0) & (times < _LATEST), times, np.nan)


def dates(values: list[str | None]) -> np.ndarray:
    """ISO dates (``2001-02-03``, perhaps with a time of day) as Unix seconds in UTC; NaN for others: float64 [n]."""
    try:
        times = np.array(values, dtype="datetime64[s]")
    except ValueError:
        times = np.array([_date(value) for value in values], dtype="datetime64[s]")
    known = ~np.isnat(times)
    unix = np.where(known, times.astype(np.int64), -1).astype(np.float64)
    return np.where((unix >= 0) & (unix < _LATEST), unix, np.nan)


def text(values: list[Any]) -> pa.Array:
    """Free text as it is; null where there is none."""
    try:
        return pa.array(values, pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        clean = [None if value is None else str(value).encode("utf-8", "replace").decode() for value in values]
        return pa.array(clean, pa.large_string())


def _float(value: Any) -> float:
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError):
        return math.nan


def _date(value: str | None) -> np.datetime64:
    try:
        return np.datetime64(value.strip() if value else "NaT", "s")
    except ValueError:
        return np.datetime64("NaT", "s")


def _reason(error: Exception, line: bytes) -> str:
    if isinstance(error, msgspec.ValidationError):
        return f"not the record expected ({error})"
    try:
        line.decode()
    except UnicodeDecodeError:
        return "not UTF-8 text"
    return f"not a readable record ({str(error).splitlines()[0][:80] if str(error) else type(error).__name__})"
