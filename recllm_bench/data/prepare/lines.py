"""Lines of large files as a stream: plain or gzipped, unpacked in a thread of its own, never whole in memory."""

from __future__ import annotations

import queue
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from recllm_bench.errors import BenchError
from recllm_bench.progress import track

_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_READ = 1 << 18
# Large enough that the cost of a step vanishes, small enough that a few of them are nothing beside 4 GiB.
CHUNK_BYTES = 4 << 20
_LONGEST_LINE = 64 << 20
# Text shrinks 3 to 20 times; a bomb a thousand times. Small files may do as they like.
_MOST_GROWTH = 200
_FREE_GROWTH_BYTES = 64 << 20


class Chunk(NamedTuple):
    """Whole lines in file order; ``first_line`` counts from 1."""

    first_line: int
    data: bytes


def stream_lines(path: Path, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
    """Read a file in chunks of whole lines, gunzipped when its first bytes say so, without a byte order mark.

    A thread reads and unpacks ahead while the caller works on the last chunk. Where chunks end depends on the file
    alone, so equal files give equal chunks.

    Raises
    ------
    BenchError
        When the file cannot be read, is empty, truncated, a bomb, UTF-16, or has no lines.
    """
    ready: queue.Queue[bytes | int | BaseException | None] = queue.Queue(maxsize=8)
    stop = threading.Event()
    reader = threading.Thread(target=_read_ahead, args=(path, chunk_bytes, ready, stop), daemon=True)
    reader.start()
    line = 1
    try:
        with track(None, f"reading {path.name}", _size(path), "B") as bar:
            bar.unit_scale = True
            while (piece := ready.get()) is not None:
                if isinstance(piece, int):
                    bar.update(piece)
                elif isinstance(piece, BaseException):
                    raise piece
                else:
                    yield Chunk(line, piece)
                    line += piece.count(b"\n")
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
        for piece in _pieces(path, chunk_bytes):
            if stop.is_set():
                return
            ready.put(piece)
        ready.put(None)
    except BaseException as error:  # whatever it is, the caller's thread has to raise it
        ready.put(error)


def _pieces(path: Path, chunk_bytes: int) -> Iterator[bytes | int]:
    """Chunks that end with a line, and between them the number of bytes read from disk."""
    rest = b""
    lines = 0
    first = True
    try:
        for block, taken in _unpacked(path):
            yield taken
            if first and block:
                block, first = _first_block(path, block), False
            rest += block
            if len(rest) < chunk_bytes:
                continue
            end = rest.rfind(b"\n") + 1
            if end:
                lines += rest.count(b"\n", 0, end)
                yield rest[:end]
                rest = rest[end:]
            elif len(rest) > _LONGEST_LINE:
                raise BenchError(
                    f"{path}:{lines + 1}: a line of over {_LONGEST_LINE >> 20} MiB; expected one record a line"
                )
    except (EOFError, zlib.error) as error:
        lines += rest.count(b"\n")
        raise BenchError(
            f"{path}:{lines + 1}: truncated or damaged gzip file ({error}); copy or download it again"
        ) from error
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror or error}") from error
    if first or (not lines and not rest.strip()):
        raise BenchError(f"{path}: the file is empty")
    if rest.strip():
        yield rest


def _first_block(path: Path, block: bytes) -> bytes:
    if block[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise BenchError(f"{path}:1: UTF-16 text; save the file as UTF-8")
    return block.removeprefix(_BOM)


def _unpacked(path: Path) -> Iterator[tuple[bytes, int]]:
    """Blocks of content, each with the bytes of the file it took."""
    with open(path, "rb") as file:
        block = file.read(_READ)
        if not block.startswith(_GZIP):
            while block:
                yield block, len(block)
                block = file.read(_READ)
            return
        unpacker, inside = zlib.decompressobj(31), False
        taken = given = 0
        while block:
            taken += len(block)
            size = len(block)
            while block:
                # Bounded output: one block of a bomb must not fill the memory before it is counted.
                content = unpacker.decompress(block, _FREE_GROWTH_BYTES)
                given += len(content)
                if given > _FREE_GROWTH_BYTES and given > _MOST_GROWTH * taken:
                    raise BenchError(f"{path}: grows over {_MOST_GROWTH} times when unpacked; refused as unsafe")
                yield content, size
                size, inside = 0, not unpacker.eof
                block = unpacker.unconsumed_tail
                if unpacker.eof:  # a gzip file may be several members, one after another, and padding
                    block = unpacker.unused_data.lstrip(b"\0")
                    unpacker = zlib.decompressobj(31)
            block = file.read(_READ)
            if not inside:
                block = block.lstrip(b"\0")
        if inside:
            raise EOFError("its end is missing")
