"""Writing large files fast: compression behind the caller's back, bytes and lines counted, equal input equal bytes."""

from __future__ import annotations

import os
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

# Pieces are cut by size alone, so that the file does not depend on the number of threads or on timing.
_PIECE = 4 << 20
_WINDOW = 32768
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # no name, no time


class RawFile:
    """A file to which whole lines are added; gzipped when its name ends in ``.gz``.

    The gzip file is one member, as the published files are. Its pieces are deflated side by side, each with the end of
    the one before as its dictionary.

    Parameters
    ----------
    path : Path
        Its folder is made. The file appears under this name when it is whole.
    level : int
        Of zlib, 1 (fast) to 9.
    threads : int
        Threads that deflate.
    """

    def __init__(self, path: Path, level: int = 1, threads: int = 2) -> None:
        self.path, self.level, self.threads = path, level, threads
        self.lines = self.raw_bytes = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._gzip = path.suffix == ".gz"
        self._held: list[bytes] = []
        self._held_bytes = self._sum = 0
        self._tail = b""
        self._pending: deque[Future[bytes]] = deque()

    def __enter__(self) -> RawFile:
        self._file = open(self._temporary, "wb")
        self._pool = ThreadPoolExecutor(self.threads)
        if self._gzip:
            self._file.write(_HEADER)
        return self

    def add(self, content: bytes, lines: int) -> None:
        """Append ``lines`` whole lines."""
        self.lines += lines
        self.raw_bytes += len(content)
        if not self._gzip:
            self._file.write(content)
            return
        self._held.append(content)
        self._held_bytes += len(content)
        if self._held_bytes >= _PIECE:
            self._deflate()

    def facts(self) -> dict[str, int]:
        """Lines, bytes of content and bytes on disk of the finished file."""
        return {"lines": self.lines, "raw_bytes": self.raw_bytes, "bytes": self.path.stat().st_size}

    def _deflate(self) -> None:
        content = b"".join(self._held)
        self._held, self._held_bytes = [], 0
        self._sum = zlib.crc32(content, self._sum)
        self._pending.append(self._pool.submit(_deflated, content, self.level, self._tail))
        self._tail = content[-_WINDOW:]
        while len(self._pending) > self.threads:
            self._file.write(self._pending.popleft().result())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._gzip:
                self._deflate()
                while self._pending:
                    self._file.write(self._pending.popleft().result())
                self._file.write(b"\x03\x00")  # an empty last block
                self._file.write(self._sum.to_bytes(4, "little") + (self.raw_bytes % 2**32).to_bytes(4, "little"))
        finally:
            self._pool.shutdown()
            self._file.close()
            if kind is None:
                os.replace(self._temporary, self.path)
            self._temporary.unlink(missing_ok=True)


def _deflated(content: bytes, level: int, before: bytes) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, before)
    return packer.compress(content) + packer.flush(zlib.Z_SYNC_FLUSH)
