"""A store of expensive products: addressed by what they depend on, written whole or not at all, resumable, checked.

What is damaged is set aside under the name ``<name>.damaged-N``, named in the log, and made again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recllm_bench.errors import BenchError
from recllm_bench.files import TEMPORARY, content_hash, file_hash, write_atomic, write_json
from recllm_bench.manifests import MANIFEST, Damaged, check, seal, size_of
from recllm_bench.progress import log, track

__all__ = [
    "MANIFEST",
    "ArtifactStore",
    "Damaged",
    "Finding",
    "content_hash",
    "file_hash",
    "set_aside",
    "set_aside_culprit",
    "write_atomic",
    "write_json",
]

_NAME = re.compile(r"[0-9a-f]{16}")
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, 0, None)
# Modules that decode files: an error that passes through one of them speaks of the file.
_DECODERS = re.compile(r"numpy/lib/|numpy/_?core/memmap|json/decoder|zipfile|torch/serialization|safetensors|pyarrow")
_used: dict[Path, None] = {}


@dataclass(frozen=True)
class Finding:
    """One damaged artifact: where it lies, what is wrong, and the name it was given (None: it was left)."""

    folder: Path
    reason: str
    moved_to: Path | None


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

    def find(self, kind: str, key: Mapping[str, Any]) -> Path | None:
        """The product's folder when it is finished and whole, else None."""
        return self.find_named(kind, content_hash(key))

    def find_named(self, kind: str, name: str) -> Path | None:
        """As :meth:`find`, for a key whose hash is known."""
        folder = self.root / kind / name
        if _damage(folder) is not None:
            return None
        _used[folder] = None
        return folder

    def build(self, kind: str, key: Mapping[str, Any], make: Callable[[Path], Any]) -> Path:
        """Return the product's folder, making it first when it does not exist or is damaged.

        Parameters
        ----------
        kind : str
            Family of the product, such as ``"dataset"``.
        key : mapping
            Everything the product depends on (JSON-able).
        make : callable
            Fills the folder it is given. After a kill it is called again with what it had written; when that cannot
            be read, it is set aside and ``make`` begins anew.

        Raises
        ------
        BenchError
            When the folder cannot be written, or something that ``make`` read from the store is damaged (which is
            set aside then, so that the same command mends it).
        """
        final = self.path(kind, key)
        reason = _damage(final)
        if reason is None:
            _used[final] = None
            return final
        damaged = f"{kind}/{final.name} cannot be used: {reason}" if final.exists() else ""
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with _lock(final.with_suffix(".lock")):
                reason = _damage(final)
                if reason is not None:  # else another process was faster
                    if final.exists():
                        set_aside(final, f"{kind}/{final.name} cannot be used: {reason}; making it again")
                    work = final.with_suffix(".partial")
                    start = time.perf_counter()
                    _fill(work, make)
                    seal(work, kind, final.name, key, round(time.perf_counter() - start, 3))
                    os.replace(work, final)
        except OSError as error:
            raise _explained(error, final, self.root, damaged) from error
        _used[final] = None
        return final

    def examine(self, repair: bool = False) -> Iterator[Finding]:
        """Compare every file of every product with its checksum, under a progress bar.

        Parameters
        ----------
        repair : bool
            Set the damaged ones aside, so that they are made again when something asks for them.

        Yields
        ------
        Finding
            For each damaged product.
        """
        folders = self.products()
        with track(label="checking the cache", total=sum(map(size_of, folders)), unit="B") as bar:
            bar.unit_scale = True
            for folder in folders:
                reason = _damage(folder, whole=True, progress=bar.update)
                if reason is not None:
                    what = f"{folder.parent.name}/{folder.name} cannot be used: {reason}"
                    yield Finding(folder, reason, set_aside(folder, what) if repair else None)

    def products(self) -> list[Path]:
        """Folders of all finished products, whole or not; neither unfinished ones nor what was set aside."""
        found = self.root.glob("*/*") if self.root.is_dir() else ()
        return sorted(path for path in found if _NAME.fullmatch(path.name) and path.is_dir())


def set_aside(path: Path, message: str) -> Path:
    """Rename a damaged file or folder to ``<name>.damaged-N`` and say so in the log.

    Parameters
    ----------
    message : str
        One line: what is damaged and what happens now.

    Returns
    -------
    Path
        The new name.

    Raises
    ------
    BenchError
        When it cannot be renamed.
    """
    number = 1
    while (to := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    try:
        os.replace(path, to)
    except OSError as error:
        raise BenchError(
            f"{message}, but {path} cannot be renamed ({error.strerror}); remove it, or set RECLLM_CACHE to a folder "
            "you may write"
        ) from error
    log.warning(f"{message} (kept as {to})")
    return to


def set_aside_culprit(error: Exception) -> str:
    """After an error in reading files: look whether a product that this process used is the cause.

    Large files are not hashed at every use, so damage that kept size and time shows only when they are read.

    Returns
    -------
    str
        What was damaged and set aside; empty when the error is of another kind, or everything is whole.
    """
    if not _while_decoding(error):
        return ""
    found = []
    for folder in list(_used):
        if folder.exists() and (reason := _damage(folder, whole=True)) is not None:
            found.append(f"{folder.parent.name}/{folder.name} cannot be used: {reason}")
            set_aside(folder, found[-1])
    return f"{'; '.join(found)}; it was set aside, and the same command makes it again" if found else ""


def _fill(work: Path, make: Callable[[Path], Any]) -> None:
    """Let ``make`` fill its folder; when it cannot read what an earlier attempt left there, from the beginning."""
    work.mkdir(exist_ok=True)
    for leftover in work.rglob(TEMPORARY):  # the lock is ours: whoever wrote these was killed
        leftover.unlink()
    begun = any(work.iterdir())
    try:
        make(work)
    except Exception as error:
        if begun and _while_decoding(error):
            set_aside(work, f"what an earlier attempt left in {work} cannot be read ({_line(error)}); beginning anew")
            work.mkdir()
            make(work)
            return
        culprit = set_aside_culprit(error)
        if culprit:
            raise BenchError(culprit) from error
        raise


def _damage(folder: Path, **how: Any) -> str | None:
    """What is wrong with a product; None when it is whole."""
    try:
        check(folder, **how)
    except Damaged as error:
        return str(error)
    except PermissionError as error:
        raise BenchError(f"{error.filename or folder} may not be read; change its permissions") from error
    return None


def _while_decoding(error: Exception) -> bool:
    """Whether an error came from decoding a file's content."""
    if isinstance(error, (Damaged, UnicodeDecodeError)) or _DECODERS.match(type(error).__module__):
        return True
    if isinstance(error, (BenchError, MemoryError)) or "out of memory" in str(error) or getattr(error, "errno", None):
        return False  # understood already, or no fault of the file
    trace = error.__traceback__
    while trace is not None:
        if _DECODERS.search(trace.tb_frame.f_code.co_filename):
            return True
        trace = trace.tb_next
    return False


def _explained(error: OSError, final: Path, root: Path, damaged: str) -> BenchError:
    place, reason = error.filename or final, error.strerror or str(error)
    if damaged and not os.access(root, os.W_OK):
        return BenchError(f"{damaged}, and {root} may not be written; set RECLLM_CACHE to a writable folder")
    if error.errno in _CANNOT_WRITE or str(place).startswith(str(root)):
        return BenchError(f"cannot write {place}: {reason}; free space or set RECLLM_CACHE to a writable folder")
    return BenchError(f"cannot read {place}: {reason}; check that it is there and may be read")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:120] or type(error).__name__


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
