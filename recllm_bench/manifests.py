"""What an artifact's manifest says of its files, and whether they still are what it says.

The manifest ``artifact.json`` (version 2) holds ``kind``, ``name`` (the folder's), ``key``, ``seconds``, ``files`` (of
each its size, SHA-256 and time of writing) and ``seal``, a hash of all of these.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recllm_bench.errors import BenchError
from recllm_bench.files import as_plain, content_hash, file_hash, write_json

MANIFEST = "artifact.json"
VERSION = 2
ALWAYS_HASHED = 16 << 20
"""Bytes of an artifact, its smallest files first, that are hashed at the first use in a process; larger files are
hashed when their time of writing is no longer the manifest's."""

_found_whole: dict[Path, tuple[Any, ...]] = {}


class Damaged(BenchError):
    """A file that the bench wrote is not what it wrote; the message says which and how."""


def seal(folder: Path, kind: str, name: str, key: Mapping[str, Any], seconds: float) -> None:
    """Write the manifest of a finished folder."""
    files = {path.relative_to(folder).as_posix(): _facts(path) for path in _files(folder)}
    manifest = {"version": VERSION, "kind": kind, "name": name, "key": key, "seconds": seconds, "files": files}
    _write(folder, manifest)


def check(folder: Path, *, whole: bool = False, progress: Callable[[int], Any] | None = None) -> None:
    """Compare a folder with its manifest.

    Presence and size of every file are compared each time, contents as :data:`ALWAYS_HASHED` says.

    Parameters
    ----------
    folder : Path
        ``<store>/<kind>/<name>``.
    progress : callable, optional
        Gets the number of bytes just read.

    Raises
    ------
    Damaged
        Naming the first thing that is not as written.
    PermissionError
        When a file may not be read.
    """
    manifest = read_manifest(folder)
    found: dict[str, os.stat_result] = {}
    for name, noted in manifest["files"].items():
        try:
            found[name] = os.stat(folder / name)
        except PermissionError:
            raise
        except (OSError, ValueError) as error:
            raise Damaged(f"its {name} is missing") from error
        if not stat.S_ISREG(found[name].st_mode) or found[name].st_size != noted["size"]:
            raise Damaged(f"its {name} has {found[name].st_size:,} bytes instead of {noted['size']:,}")
    signature = (manifest["seal"], *((name, at.st_mtime_ns, at.st_ino) for name, at in found.items()))
    if not whole and _found_whole.get(folder) == signature:
        return
    _found_whole.pop(folder, None)
    left, moved = ALWAYS_HASHED, False
    for name in sorted(found, key=lambda name: found[name].st_size):
        noted, left = manifest["files"][name], left - found[name].st_size
        touched = found[name].st_mtime_ns != noted["written"]
        if not (whole or touched or left >= 0):
            continue
        moved |= touched
        try:
            digest = file_hash(folder / name, progress)
        except PermissionError:
            raise
        except OSError as error:
            raise Damaged(f"its {name} cannot be read ({error.strerror})") from error
        if digest != noted["sha256"]:
            raise Damaged(f"its {name} has another content than was written (its checksum differs)")
    if moved:
        _remember_times(folder, manifest, found)
    else:
        _found_whole[folder] = signature


def read_manifest(folder: Path) -> dict[str, Any]:
    """A folder's manifest, checked against its own seal and the folder's name.

    Raises
    ------
    Damaged
        When there is none, it is no manifest, or it belongs to another folder.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest, dict):
            raise Damaged(f"its {MANIFEST} is no manifest")
        if manifest.get("version") != VERSION:
            raise Damaged(f"another version of recllm-bench made it, whose {MANIFEST} this one does not read")
        if manifest["seal"] != _seal_of(manifest):
            raise Damaged(f"its {MANIFEST} has another content than was written (its checksum differs)")
        if manifest["name"] != folder.name:
            raise Damaged(f"its {MANIFEST} belongs to {manifest['kind']}/{manifest['name']}")
    except FileNotFoundError as error:
        raise Damaged(f"it has no {MANIFEST}") from error
    except (PermissionError, Damaged):
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"its {MANIFEST} cannot be read ({type(error).__name__})") from error
    return manifest


def written_hash(path: Path) -> str:
    """SHA-256 of a product's file as its manifest has it; empty where size or time differ, or there is no manifest."""
    try:
        told, at = read_manifest(path.parent)["files"][path.name], path.stat()
    except (Damaged, OSError, KeyError):
        return ""
    return told["sha256"] if (told["size"], told["written"]) == (at.st_size, at.st_mtime_ns) else ""


def size_of(folder: Path) -> int:
    """Bytes that a whole check of the folder reads; 0 without a readable manifest."""
    try:
        return sum(noted["size"] for noted in read_manifest(folder)["files"].values())
    except (Damaged, OSError):
        return 0


def _files(folder: Path) -> list[Path]:
    """What the product consists of; damaged files that were set aside while it was made may be removed."""
    found = (path for path in folder.rglob("*") if path.is_file() and ".damaged-" not in path.name)
    return sorted(path for path in found if path != folder / MANIFEST)


def _facts(path: Path) -> dict[str, Any]:
    at = path.stat()
    return {"size": at.st_size, "sha256": file_hash(path), "written": at.st_mtime_ns}


def _write(folder: Path, manifest: dict[str, Any]) -> None:
    plain = {name: value for name, value in manifest.items() if name != "seal"}
    write_json(folder / MANIFEST, {**plain, "seal": _seal_of(plain)})


def _seal_of(manifest: Mapping[str, Any]) -> str:
    plain = {name: value for name, value in manifest.items() if name != "seal"}
    return content_hash(json.loads(json.dumps(plain, default=as_plain)), 32)


def _remember_times(folder: Path, manifest: dict[str, Any], found: Mapping[str, os.stat_result]) -> None:
    """Take over the times of files that were copied or touched and are whole, so that they need no second hashing."""
    files = {name: {**noted, "written": found[name].st_mtime_ns} for name, noted in manifest["files"].items()}
    try:
        _write(folder, {**manifest, "files": files})
    except OSError:
        return  # a cache that may not be written is hashed at each first use
