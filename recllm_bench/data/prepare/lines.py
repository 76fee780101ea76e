"""Lines of large files as a stream: plain or gzipped, unpacked in a thread of its own, never whole in memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple, cast

from isal import isal_zlib

from recllm_bench.errors import BenchError
from recllm_bench.progress import track

_DAMAGED = cast("type[Exception]", isal_zlib.error)  # a class, whatever its stub says
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_GZIP = b"\x1f\x8b"
_READ_BYTES = 1 << 20
# Large enough that the cost of a step vanishes, small enough that a few of them are nothing beside 4 GiB.
CHUNK_BYTES = 4 << 20
_CHUNKS_AHEAD = 3
_LONGEST_LINE = 64 << 20
# Text shrinks 3 to 20 times; a bomb a thousand times. Small files may do as they like.
_MOST_GROWTH = 200
_FREE_GROWTH_BYTES = 64 << 20


class Chunk(NamedTuple):
    """Whole lines in file order; ``first_line`` counts from 1, an unfinished last line counts as one."""

    first_line: int
    lines: int
    data: bytes


def stream_lines(path: Path, chunk_bytes: int = CHUNK_BYTES) -> Generator[Chunk, None, None]:
    """Read a file in chunks of whole lines, gunzipped when its first bytes say so, without a byte order mark.

    A thread reads and unpacks ahead while the caller works on the last chunk. A chunk is the whole lines in the next
    ``chunk_bytes``, or one longer line: where it ends depends on the content alone. Empty lines at the end of the
    file may be left out.

    Raises
    ------
    BenchError
        When the file cannot be read, is empty, truncated, a bomb, UTF-16, or has a line of over 64 MiB.
    """
    ready: queue.Queue[tuple[Chunk, int] | BaseException | None] = queue.Queue(_CHUNKS_AHEAD)
    stop = threading.Event()
    reader = threading.Thread(target=_read_ahead, args=(path, chunk_bytes, ready, stop), daemon=True)
    reader.start()
    try:
        with track(None, f"reading {path.name}", _size(path), "B") as bar:
            bar.unit_scale = True
            while (piece := ready.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                chunk, taken = piece
                bar.update(taken)
                yield chunk
    finally:
        stop.set()
        while reader.is_alive():  # a full queue must not hold the thread
            try:
                ready.get(timeout=0.05)
            except queue.Empty:
                continue


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _read_ahead(path: Path, chunk_bytes: int, ready: queue.Queue, stop: threading.Event) -> None:
    try:
        for piece in _chunks(path, chunk_bytes):
            if stop.is_set():
                return
            ready.put(piece)
        ready.put(None)
    except BaseException as error:  # whatever it is, the caller's thread has to raise it
        ready.put(error)


def _chunks(path: Path, chunk_bytes: int) -> Iterator[tuple[Chunk, int]]:
    """Chunks, each with the number of bytes read from disk since the last."""
    rest, begun = b"", False
    lines = taken = 0
    try:
        for block, read in _unpacked(path):
            rest += block
            taken += read
            if not begun:
                if len(rest) < len(_BOM):
                    continue
                rest, begun = _without_mark(path, rest), True
            while len(rest) >= chunk_bytes:
                end = rest.rfind(b"\n", 0, chunk_bytes) + 1 or rest.find(b"\n", chunk_bytes) + 1
                if (end or len(rest)) > _LONGEST_LINE:
                    raise BenchError(
                        f"{path}:{lines + 1}: a line of over {_LONGEST_LINE >> 20} MiB; expected one record a line"
                    )
                if not end:
                    break
                whole, rest = rest[:end], rest[end:]
                ended = whole.count(b"\n")
                yield Chunk(lines + 1, ended, whole), taken
                lines, taken = lines + ended, 0
    except (EOFError, _DAMAGED) as error:
        line = lines + rest.count(b"\n") + 1
        raise BenchError(
            f"{path}:{line}: truncated or damaged gzip file from here on ({error}); copy or download it again"
        ) from error
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror or error}") from error
    if not begun:
        rest = _without_mark(path, rest)
    if rest.strip():
        yield Chunk(lines + 1, rest.count(b"\n") + (not rest.endswith(b"\n")), rest), taken
    elif not lines:
        raise BenchError(f"{path}: the file is empty")


def _without_mark(path: Path, start: bytes) -> bytes:
    if start.startswith(_UTF16):
        raise BenchError(f"{path}:1: UTF-16 text; save the file as UTF-8")
    return start.removeprefix(_BOM)


def _unpacked(path: Path) -> Iterator[tuple[bytes, int]]:
    """Blocks of content, each with the bytes of the file it took."""
    with open(path, "rb") as file:
        block = file.read(_READ_BYTES)
        if not block.startswith(_GZIP):
            while block:
                yield block, len(block)
                block = file.read(_READ_BYTES)
            return
        unpacker = None
        taken = given = 0
        while block:
            size = len(block)
            taken += size
            while block:
                if unpacker is None:  # a gzip file may be several members, one after another, with zeros between
                    block = block.lstrip(b"\0")
                    if not block:
                        break
                    unpacker = isal_zlib.decompressobj(31)
                # Bounded output: one block of a bomb must not fill the memory before it is counted.
                content = unpacker.decompress(block, CHUNK_BYTES)
                given += len(content)
                if given > _FREE_GROWTH_BYTES and given > _MOST_GROWTH * taken:
                    raise BenchError(f"{path}: grows over {_MOST_GROWTH} times when unpacked; refused as unsafe")
                yield content, size
                size, block = 0, unpacker.unconsumed_tail
                if unpacker.eof:
                    block, unpacker = unpacker.unused_data, None
            block = file.read(_READ_BYTES)
        if unpacker is not None:
            raise EOFError("its end is missing")
