"""One record a line: typed decoding of JSON and of Python literals, with every bad line counted and named."""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recllm_bench.data.prepare.bad_lines import BAD_SHARE, BadLines
from recllm_bench.data.prepare.lines import Chunk, stream_lines
from recllm_bench.data.prepare.values import LATEST, in_seconds
from recllm_bench.errors import BenchError

# Syntax trees take five hundred times the memory of their text; the longest line of a published file is under 1 MiB.
_LONGEST_LITERAL = 2 << 20
# Strict: NumPy alone would also take "today", and make a day of "2011".
_ISO_DATE = re.compile(r"\s*(\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?)(?:(?<=:\d\d:\d\d)\.\d+)?(?:Z|[+-]00:?00)?\s*")
Record = TypeVar("Record", bound=msgspec.Struct)


class Records(Generic[Record]):
    """The records of a file, chunk by chunk.

    Parameters
    ----------
    path : Path
        One record a line.
    kind : type
        The fields wanted; others are passed over without being built.
    most_bad : float
        Share of lines that may be bad.
    literals : bool
        Whether a line that is no JSON may be a Python literal (``{u'key': True}``).
    base : type, optional
        What ``kind`` extends: a line is bad when it is a bad ``base``, whatever the fields added hold. So two readings
        of a file, with and without some fields, have the same records.
    """

    def __init__(
        self,
        path: Path,
        kind: type[Record],
        most_bad: float = BAD_SHARE,
        literals: bool = False,
        base: type[msgspec.Struct] | None = None,
    ) -> None:
        self.path, self.kind = path, kind
        self.bad = BadLines(path, most_bad)
        self.lines = 0
        self._json = msgspec.json.Decoder(kind)
        self._base = msgspec.json.Decoder(base) if base else None
        self._literals = literals

    def chunks(self) -> Iterator[RecordChunk[Record]]:
        """Decode the file.

        Raises
        ------
        BenchError
            For a file that cannot be read, or with too many bad lines.
        """
        with closing(stream_lines(self.path)) as chunks:
            for chunk in chunks:
                if chunk.first_line == 1 and chunk.data.lstrip()[:1] == b"[":
                    raise BenchError(f"{self.path}:1: a JSON array; expected one object a line (JSON lines)")
                yield self._decode(chunk)
        self.bad.finish(self.lines)

    def _decode(self, chunk: Chunk) -> RecordChunk[Record]:
        self.lines = chunk.first_line - 1 + chunk.lines
        try:
            records = self._json.decode_lines(chunk.data)
            if len(records) == chunk.lines:
                return RecordChunk(records, range(chunk.first_line, self.lines + 1), self.bad)
        except (ValueError, RecursionError):
            pass  # some line is bad, or no JSON
        records, numbers = [], []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's, of escapes in literals
            for number, line in enumerate(chunk.data.split(b"\n"), chunk.first_line):
                if line.strip():
                    try:
                        records.append(self._record(line))
                        numbers.append(number)
                    except (ValueError, RecursionError) as error:
                        self.bad.add(number, _reason(error, line))
        return RecordChunk(records, numbers, self.bad)

    def _record(self, line: bytes) -> Record:
        if self._base is None:
            return self._decoded(self._json, line)
        plain = self._decoded(self._base, line)
        for text in (line, line.decode("utf-8", "replace").encode()):
            try:
                return self._decoded(self._json, text)
            except (ValueError, RecursionError):
                continue  # what was added cannot be read: the record stays, without it
        return self.kind(**msgspec.structs.asdict(plain))

    def _decoded(self, decoder: msgspec.json.Decoder, line: bytes) -> Any:
        try:
            return decoder.decode(line)
        except msgspec.ValidationError:
            raise
        except (ValueError, RecursionError):
            if not self._literals:
                raise
        return msgspec.convert(literal(line), decoder.type)


class RecordChunk(Generic[Record]):
    """Records of one chunk, with the numbers of their lines."""

    def __init__(self, records: list[Record], numbers: Sequence[int], bad: BadLines) -> None:
        self.records = records
        self._numbers, self._bad = numbers, bad

    def column(self, name: str) -> list[Any]:
        """One field of every record."""
        return list(map(attrgetter(name), self.records))

    def drop(self, wrong: np.ndarray, why: Callable[[int], str]) -> None:
        """Skip the records under a mask and count them as bad lines; ``why`` is asked for each by its index."""
        for index in np.flatnonzero(wrong).tolist():
            self._bad.add(self._numbers[index], why(index))
        kept = np.flatnonzero(~wrong).tolist()
        self.records = [self.records[index] for index in kept]
        self._numbers = [self._numbers[index] for index in kept]


def literal(line: bytes) -> Any:
    """The value of a Python literal; only constants and containers are built, nothing in it is ever called.

    Raises
    ------
    ValueError
        For anything else, also when it is nested too deeply or longer than 2 MiB.
    """
    if len(line) > _LONGEST_LITERAL:
        raise ValueError(f"a Python literal of over {_LONGEST_LITERAL >> 20} MiB")
    try:
        value = ast.literal_eval(line.decode().strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("neither JSON nor a Python literal of plain values") from error
    return _whole_characters(value) if b"\\ud" in line or b"\\uD" in line else value


def ids(values: list[Any]) -> pa.Array:
    """Ids as strings; ``7`` and ``"7"`` are one id, a missing one is null."""
    try:
        return pa.array(values, pa.string())
    except pa.ArrowTypeError:
        return pa.array([value if value is None else str(value) for value in values], pa.string())


def floats(values: list[Any]) -> np.ndarray:
    """Numbers, also those written as strings; NaN where there is none: float64 [n]."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.array([_float(value) for value in values], dtype=np.float64)


def ratings(values: list[Any]) -> np.ndarray:
    """Ratings, also those written as strings; NaN where there is no finite one: float32 [n]."""
    numbers = floats(values)
    return np.where(np.abs(numbers) <= np.finfo(np.float32).max, numbers, np.nan).astype(np.float32)


def seconds(values: list[Any]) -> np.ndarray:
    """Unix times in seconds, milli-, micro- or nanoseconds as seconds; NaN for none or an impossible one: float64 [n].

    Each value is judged by itself. Negative values and years beyond 2100 are impossible.
    """
    times = in_seconds(floats(values))
    return np.where((times >= 0) & (times < LATEST), times, np.nan)


def dates(values: list[str | None]) -> np.ndarray:
    """ISO dates (``2001-02-03``, perhaps with a time of day) as Unix seconds in UTC; NaN for others: float64 [n].

    Fractions of a second are cut off. Dates before 1970 and beyond 2100 are impossible.
    """
    found = [_ISO_DATE.fullmatch(value) if value else None for value in values]
    iso = ["NaT" if match is None else match[1] for match in found]
    try:
        times = np.array(iso, dtype="datetime64[s]")
    except ValueError:
        times = np.array([_date(value) for value in iso], dtype="datetime64[s]")
    unix = np.where(np.isnat(times), -1, times.astype(np.int64)).astype(np.float64)
    return np.where((unix >= 0) & (unix < LATEST), unix, np.nan)


def missing(tokens: pa.Array) -> np.ndarray:
    """Mask of ids that are null or empty."""
    return pc.binary_length(tokens).fill_null(0).to_numpy(zero_copy_only=False) == 0


def _float(value: Any) -> float:
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _date(value: str) -> np.datetime64:
    try:
        return np.datetime64(value, "s")
    except ValueError:  # 30 February
        return np.datetime64("NaT", "s")


def _whole_characters(value: Any) -> Any:
    """Join the halves that Python 2 wrote for a character beyond U+FFFF; a half that is alone becomes U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_whole_characters(key): _whole_characters(part) for key, part in value.items()}
    return [_whole_characters(part) for part in value] if isinstance(value, (list, tuple)) else value


def _reason(error: Exception, line: bytes) -> str:
    if isinstance(error, msgspec.ValidationError):
        return f"not the record expected ({error})"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    try:
        line.decode()
    except UnicodeDecodeError:
        return "not UTF-8 text"
    return f"not a readable record ({error})"
