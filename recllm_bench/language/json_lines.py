"""Files of JSON objects, one a line: read whole, or appended to by processes that may be killed."""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from recllm_bench.errors import BenchError
from recllm_bench.language.chat_replies import whole_text


def json_line(value: Mapping[str, Any]) -> bytes:
    """An object as one line of UTF-8; half surrogates become U+FFFD."""
    return whole_text(json.dumps(value, ensure_ascii=False) + "\n").encode()


def read_lines(path: Path, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a file that is complete, plain or gzipped, each with its place.

    Parameters
    ----------
    path : Path
        The file; empty lines are passed over.
    what : str
        What a line is, for errors, such as ``"label"``.

    Yields
    ------
    (str, dict)
        ``FILE:LINE`` and the object.

    Raises
    ------
    BenchError
        For a file that cannot be read, is cut short or not UTF-8, and for a line that is no object.
    """
    where = str(path)
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            raw = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if packed else file
            for number, line in enumerate(io.TextIOWrapper(raw, encoding="utf-8-sig"), 1):
                if line.strip():
                    where = f"{path}:{number}"
                    entry = json.loads(line)
                    if not isinstance(entry, dict):
                        raise BenchError(f'{where}: a line is an object, one {what} as {{"name": value, ...}}')
                    yield where, entry
    except UnicodeDecodeError as error:
        raise BenchError(f"{path}: not UTF-8 (byte {error.start} of a block); save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{where}: not valid JSON ({error}); a line is one {what}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BenchError(f"{path}: damaged ({error}); get it again") from error
    except OSError as error:
        raise BenchError(f"{path}: cannot read the {what}s: {error.strerror}") from error


def appended(path: Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any] | Exception]]:
    """Lines of a file that others may be writing to, from a byte on, up to one that is not complete.

    Yields
    ------
    (int, dict or Exception)
        Where the line ends, in bytes; the object, or why there is none.
    """
    if not path.exists():
        return
    with open(path, "rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return  # still being written, or torn by a kill
            start += len(line)
            try:
                entry = json.loads(line)
                yield start, entry if isinstance(entry, dict) else ValueError("a line is an object")
            except (ValueError, RecursionError) as error:
                yield start, error


def append(path: Path, values: Iterable[Mapping[str, Any]]) -> None:
    """Put objects at the end of a file, which is made if need be; they are on the disk when this returns.

    Several processes may do so at once. A line that a kill tore is ended first.

    Raises
    ------
    BenchError
        When the file cannot be written.
    """
    lines = b"".join(map(json_line, values))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                lines = lines if file.read(1) == b"\n" else b"\n" + lines
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BenchError(
            f"cannot write {path}: {error.strerror}; free space or set RECLLM_CACHE to a writable folder"
        ) from error
