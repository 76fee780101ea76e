"""Files that are written whole or not at all, and hashes of values and files."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

_BLOCK = 1 << 20
TEMPORARY = ".*.tmp"
"""Pattern of the names that :func:`write_atomic` writes through; what a kill leaves of them may be removed."""


def content_hash(value: Any, length: int = 16) -> str:
    """Hash a JSON-able value: equal values give equal hashes, whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=as_plain)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def file_hash(path: Path, progress: Callable[[int], Any] | None = None) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; ``progress`` gets the number of bytes just read."""
    digest = hashlib.sha256()
    block = memoryview(bytearray(_BLOCK))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
            if progress is not None:
                progress(count)
    return digest.hexdigest()


def write_array(path: Path, values: Any) -> None:
    """Write an array as a NumPy file through a temporary name."""
    import numpy as np

    write_atomic(path, lambda file: np.save(file, values, allow_pickle=False))


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays as one ``.npz`` file through a temporary name."""
    import numpy as np

    write_atomic(path, lambda file: np.savez(file, **arrays))


def write_atomic(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file through a temporary name, so that a kill leaves the old file or the new one.

    Parameters
    ----------
    path : Path
        Final name; its folder is made.
    write : callable
        Gets the open binary file.

    Raises
    ------
    OSError
        When the disk is full or the file may not be written, also where ``write`` turned that into an error of its
        own; it names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    raw = None
    try:
        raw = _Noting(temporary, "wb")
        with io.BufferedWriter(raw, _BLOCK) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except Exception as error:
        failure = raw.failure if raw is not None and raw.failure is not None else error
        if not isinstance(failure, OSError):
            raise
        raise OSError(failure.errno or 0, failure.strerror or str(failure), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=as_plain) + "\n"
    write_atomic(path, lambda file: file.write(text.encode("utf-8", "surrogatepass")))


def as_plain(value: Any) -> Any:
    """What JSON holds of a path, a set, a tuple, a NumPy number or array.

    Raises
    ------
    TypeError
        For anything else.
    """
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (set, frozenset, tuple)):
        return sorted(value) if not isinstance(value, tuple) else list(value)
    if hasattr(value, "item") and not getattr(value, "shape", None):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be part of a key: {value!r}")


class _Noting(io.FileIO):
    """Keeps a failed write: libraries that call back into Python (torch.save) raise errors of their own instead."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise
