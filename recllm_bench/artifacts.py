"""A store of expensive products: addressed by what they depend on, written whole or not at all, resumable."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from recllm_bench.errors import BenchError

MANIFEST = "artifact.json"


def content_hash(value: Any, length: int = 16) -> str:
    """Hash a JSON-able value: equal values give equal hashes, whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def write_atomic(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file through a temporary name, so that a kill leaves the old file or the new one.

    Parameters
    ----------
    path : Path
        Final name; its folder is made.
    write : callable
        Gets the open binary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=_plain) + "\n"
    write_atomic(path, lambda file: file.write(text.encode()))


class ArtifactStore:
    """Folders named by the hash of their key.

    Parameters
    ----------
    root : Path
        Folder of the store; made on first use.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def path(self, kind: str, key: Mapping[str, Any]) -> Path:
        """Folder that the product has, or would have."""
        return self.root / kind / content_hash(key)

    def build(self, kind: str, key: Mapping[str, Any], make: Callable[[Path], Any]) -> Path:
        """Return the product's folder, making it first when it does not exist.

        Parameters
        ----------
        kind : str
            Family of the product, such as ``"dataset"``.
        key : mapping
            Everything the product depends on (JSON-able).
        make : callable
            Fills the folder it is given. After a kill it is called again with what it had written.

        Raises
        ------
        BenchError
            When the folder cannot be written.
        """
        final = self.path(kind, key)
        if (final / MANIFEST).exists():
            return final
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with _lock(final.with_suffix(".lock")):
                if (final / MANIFEST).exists():  # another process was faster
                    return final
                work = final.with_suffix(".partial")
                work.mkdir(exist_ok=True)
                start = time.perf_counter()
                make(work)
                seconds = time.perf_counter() - start
                write_json(work / MANIFEST, {"kind": kind, "key": key, "seconds": round(seconds, 3)})
                if final.exists():
                    shutil.rmtree(final)  # a folder without manifest: never finished by us
                os.replace(work, final)
        except OSError as error:
            place = error.filename or final
            raise BenchError(
                f"cannot write {place}: {error.strerror}; free space or set RECLLM_CACHE to a writable folder"
            ) from error
        return final


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _digest(file: IO[bytes]) -> str:  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (set, frozenset, tuple)):
        return sorted(value) if not isinstance(value, tuple) else list(value)
    if hasattr(value, "item") and not getattr(value, "shape", None):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be part of a key: {value!r}")
