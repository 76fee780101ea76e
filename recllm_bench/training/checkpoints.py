"""Checkpoints: written whole, with a checksum at their end; what cannot be used is set aside and the one before serves.

A checkpoint is what ``torch.save`` writes, then :data:`MARK` and the SHA-256 of all bytes before the mark.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch

from recllm_bench.artifacts import Damaged, set_aside, write_atomic

MARK = b"\nsha256:"
_TAIL = len(MARK) + 64
_BLOCK = 1 << 20


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint and keep the one before it, for the case that this one is damaged.

    Parameters
    ----------
    path : Path
        The newest lies here, the one before at :func:`before`.
    content : mapping
        Tensors and plain values, which ``torch.load`` reads with ``weights_only``.

    Raises
    ------
    OSError
        When the disk is full or the folder may not be written; both older files are kept, or at least the newest.
    """

    def write(file: IO[bytes]) -> None:
        hashing = _Hashing(file)
        torch.save(content, cast(IO[bytes], hashing))
        file.write(MARK + hashing.digest.hexdigest().encode())

    old = before(path)
    try:
        write_atomic(path.with_name(f"{path.name}.new"), write)
    except OSError:
        if not old.exists():
            raise
        old.unlink()  # on a disk that is nearly full its room may be enough
        write_atomic(path.with_name(f"{path.name}.new"), write)
    if path.exists():
        os.replace(path, old)
    os.replace(path.with_name(f"{path.name}.new"), path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read one checkpoint file, on the CPU.

    Raises
    ------
    Damaged
        When it is cut short, has another content than was written, or is no checkpoint.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        left = os.fstat(file.fileno()).st_size - _TAIL
        while left > 0:
            block = file.read(min(_BLOCK, left))
            digest.update(block)
            left -= len(block)
        if left < 0 or file.read() != MARK + digest.hexdigest().encode():
            raise Damaged(f"{path} is cut short, damaged or no checkpoint of this version")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the bytes are whole, so they are somebody else's
        raise Damaged(f"{path} is no checkpoint ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise Damaged(f"{path} is no checkpoint (it holds a {type(content).__name__})")
    return content


def resume_from(path: Path, restore: Callable[[dict[str, Any]], Any]) -> bool:
    """Restore the newest usable checkpoint; one that is not is set aside and named in the log.

    Parameters
    ----------
    path : Path
        As for :func:`write_checkpoint`.
    restore : callable
        Takes over a checkpoint's content, or raises :class:`Damaged` (before it changes anything) when the content
        does not fit.

    Returns
    -------
    bool
        Whether one was restored.
    """
    for place in (path, before(path)):
        try:
            if place.exists():
                restore(read_checkpoint(place))
                return True
        except Damaged as error:
            older = before(path) if place == path and before(path).exists() else None
            then = f"the one before it, {older.name}, serves" if older else "training starts from the beginning"
            set_aside(place, f"{error}; {then}")
    return False


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and the one before it, once the product is finished."""
    for place in (path, before(path), path.with_name(f"{path.name}.new")):
        place.unlink(missing_ok=True)


def before(path: Path) -> Path:
    """Where the checkpoint before the newest lies."""
    return path.with_name(f"{path.stem}.before{path.suffix}")


def check_fits(kept: Mapping[str, torch.Tensor], module: torch.nn.Module, what: str) -> None:
    """Compare names and shapes of saved tensors with a module's.

    Raises
    ------
    Damaged
        Naming the first difference; the module is as before.
    """
    own = module.state_dict()
    for name in dict.fromkeys([*own, *kept]):
        ours, theirs = (_shape(side.get(name)) for side in (own, kept))
        if ours != theirs:
            raise Damaged(f"{what} does not fit {type(module).__name__}: '{name}' is {theirs} there, {ours} here")


def _shape(tensor: Any) -> str:
    return str(list(tensor.shape)) if isinstance(tensor, torch.Tensor) else "absent" if tensor is None else "no tensor"


class _Hashing(io.RawIOBase):
    """A file that hashes what is written to it (``torch.save`` writes from beginning to end)."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self.file.write(data)
