"""Fetch a file and unpack an archive: checked, resumable, safe."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import http.client
import io
import lzma
import stat
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from recllm_bench.data.origins import note_origin
from recllm_bench.errors import BenchError
from recllm_bench.progress import track

_BLOCK = 1 << 18
_TRIES = 4
_TIMEOUT_S = 30.0
_PAUSE_S = 0.2
# An archive may grow this much: text compresses 5 to 20 times, a bomb a thousand times.
_MOST_GROWTH = 200
_FREE_GROWTH_BYTES = 64 << 20
_LARGEST_HEADER = 1 << 20
_ZIP = b"PK\x03\x04"
_PACKED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


def download(
    url: str,
    target: Path,
    checksums: Mapping[str, str | Sequence[str]] | None = None,
    notice: str = "",
    label: str = "",
) -> Path:
    """Download a file, continuing what an earlier attempt left in ``<target>.part``.

    Parameters
    ----------
    url : str
        ``http`` or ``https`` address.
    target : Path
        Where the file goes; it appears there only when complete and checked.
    checksums : mapping, optional
        Expected digest, or accepted digests, by algorithm, such as ``{"sha256": "..."}``; every algorithm must agree.
    notice : str
        Licence notice, printed to stderr before anything is transferred.
    label : str
        Name in the progress bar.

    Returns
    -------
    Path
        ``target``.

    Raises
    ------
    BenchError
        Without network, when the server refuses, when the disk is full, or on a wrong checksum.
    """
    checksums = checksums or {}
    if target.exists() and not wrong_checksum(target, checksums):
        return target
    if not url.startswith(("https://", "http://")):
        raise BenchError(f"cannot download {url}: only http and https addresses are read")
    if notice:
        print(notice.strip(), file=sys.stderr)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    resumed = part.exists() and part.stat().st_size > 0
    said = _fetch(url, part, label or target.name)
    wrong = wrong_checksum(part, checksums)
    if wrong and resumed:  # the remains were of another file or damaged: once more from the start
        part.unlink()
        said = _fetch(url, part, label or target.name)
        wrong = wrong_checksum(part, checksums)
    if wrong:
        part.unlink()
        raise BenchError(f"{url}: wrong checksum, {wrong}; the file was changed or damaged on its way, try again later")
    if not checksums:
        if not url.endswith((".html", ".htm")) and _is_page(part):
            part.unlink()
            raise BenchError(f"{url}: the server sends a web page in place of the file (a login or a notice){_WAY_OUT}")
        note_origin(target.parent, url, said)
    part.replace(target)
    return target


def _is_page(path: Path) -> bool:
    """Whether a file is a web page."""
    with open(path, "rb") as file:
        return file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html"))


def wrong_checksum(path: Path, checksums: Mapping[str, str | Sequence[str]]) -> str:
    """Compare a file with its expected digests; return what differs, or "" when all agree."""
    for algorithm, expected in checksums.items():
        digest = hashlib.new(algorithm, usedforsecurity=False)
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        accepted = [expected] if isinstance(expected, str) else list(expected)
        if digest.hexdigest() not in accepted:
            return f"{algorithm} {digest.hexdigest()} instead of {accepted[0]}"
    return ""


def unpack(archive: Path, folder: Path, members: Iterable[str] | None = None) -> None:
    """Unpack a zip or tar archive so that nothing lands outside ``folder``.

    Parameters
    ----------
    archive : Path
        A zip file, or a tar file, plain or compressed.
    folder : Path
        Where to; made when missing.
    members : iterable of str, optional
        Names to unpack; all files by default. Every name in the archive is checked either way.

    Raises
    ------
    BenchError
        For a damaged archive, a member that leaves the folder or is a link, a bomb, or a missing member.
    """
    try:
        with _Zip(archive) if _starts_with(archive, _ZIP) else _Tar(archive) as file:
            for name, link in file.names.items():
                _refuse_unsafe(archive, name, link)
            wanted = list(members) if members is not None else list(file.sizes)
            for name in wanted:
                if name not in file.sizes:
                    raise BenchError(f"{archive}: has no member {name}; this is another archive")
            total = sum(file.sizes[name] for name in wanted)
            if total > _FREE_GROWTH_BYTES and total > _MOST_GROWTH * archive.stat().st_size:
                raise BenchError(f"{archive}: would grow to {total:,} bytes when unpacked; refused as unsafe")
            for name in track(wanted, f"unpacking {archive.name}", unit="file"):
                _write_member(file, name, folder / PurePosixPath(name))
            file.check_end()
    except _DAMAGED as error:
        raise BenchError(f"{archive}: not a whole archive ({error}); delete it and run again") from error
    except OSError as error:
        if error.errno is None:  # of gzip and bzip2: not the disk, the data
            raise BenchError(f"{archive}: not a whole archive ({error}); delete it and run again") from error
        if error.errno == errno.ENOSPC:
            raise BenchError(f"disk full while unpacking {archive}; free space or set RECLLM_CACHE") from error
        raise BenchError(f"cannot unpack {archive}: {error.strerror or error}") from error


class _Zip:
    """A zip file: all names with whether each is a link, and the sizes of its files."""

    def __init__(self, archive: Path) -> None:
        self._file = zipfile.ZipFile(archive)
        entries = self._file.infolist()
        self.names = {entry.filename: stat.S_ISLNK(entry.external_attr >> 16) for entry in entries}
        self.sizes = {entry.filename: entry.file_size for entry in entries if not entry.is_dir()}

    def __enter__(self) -> _Zip:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def open(self, name: str) -> IO[bytes]:
        return self._file.open(name)

    def check_end(self) -> None:
        """Nothing to do: each member has a checksum of its own."""


class _Tar:
    """A tar file, plain or compressed, in the same shape; what is neither file nor folder counts as a link."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        unpacked = next((how for start, how in _PACKED.items() if _starts_with(archive, start)), None)
        self._packed = unpacked is not None
        self._stream = unpacked(archive) if unpacked else open(archive, "rb")  # noqa: SIM115, closed by __exit__
        # A compressed bomb grows while its members are listed: stop before it is listed to the end.
        self._most = max(_FREE_GROWTH_BYTES, _MOST_GROWTH * archive.stat().st_size)
        self.names: dict[str, bool] = {}
        self.sizes: dict[str, int] = {}
        self._entries: dict[str, tarfile.TarInfo] = {}
        try:
            self._list()
        except BaseException:
            self._stream.close()
            raise

    def _list(self) -> None:
        self._file = tarfile.open(fileobj=_SmallReads(self._stream, self._archive), mode="r:")  # noqa: SIM115
        total = 0
        for entry in self._file:
            name = entry.name.removeprefix("./")
            self.names[name] = self.names.get(name, False) or not (entry.isfile() or entry.isdir())
            if entry.isfile():
                self.sizes[name], self._entries[name] = entry.size, entry
                total += entry.size
            if total > self._most:
                raise BenchError(
                    f"{self._archive}: would grow to over {total:,} bytes when unpacked; refused as unsafe"
                )

    def __enter__(self) -> _Tar:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def open(self, name: str) -> IO[bytes]:
        found = self._file.extractfile(self._entries[name])
        if found is None:  # of a link or a device, which are refused by name
            raise BenchError(f"{self._archive}: the member {name!r} is no file; refused as unsafe")
        return found

    def check_end(self) -> None:
        """Read the rest of a compressed file, which ends with its checksum."""
        rest = 0
        while self._packed and (block := self._stream.read(_BLOCK)):
            rest += len(block)
            if rest > self._most:
                raise BenchError(f"{self._archive}: grows without end when unpacked; refused as unsafe")


class _SmallReads(io.RawIOBase):
    """A file that refuses the one huge read by which the header of a tar member would fill the memory."""

    def __init__(self, file: IO[bytes], archive: Path) -> None:
        super().__init__()
        self._file, self._archive = file, archive

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        if size > _LARGEST_HEADER:
            raise BenchError(f"{self._archive}: a header of {size:,} bytes; refused as unsafe")
        return self._file.read(size)


def _starts_with(path: Path, start: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(start)) == start


def _refuse_unsafe(archive: Path, name: str, link: bool) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in name.split("/")[0]:
        raise BenchError(f"{archive}: the member {name!r} would land outside its folder; refused as unsafe")
    if link:
        raise BenchError(f"{archive}: the member {name!r} is a link; refused as unsafe")


def _write_member(file: _Zip | _Tar, name: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with file.open(name) as source, open(path, "wb") as target:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > file.sizes[name]:  # the header lied about the size
                raise BenchError(f"{name}: larger than its archive declares; refused as unsafe")
            target.write(block)


def _fetch(url: str, part: Path, label: str) -> dict[str, str]:
    """Fetch what is missing, with further tries; what the server said of the file."""
    said: dict[str, str] = {}
    problem: Exception | None = None
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_S * 2**attempt)
        try:
            if _fetch_rest(url, part, label, said):
                return said
            problem = ConnectionError("the connection ended early")
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise BenchError(f"{url}: the server answers {error.code} {error.reason}{_WAY_OUT}") from error
            problem = error
        except urllib.error.URLError as error:
            problem = error
        except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
            problem = error
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise BenchError(f"disk full while downloading {url}; free space or set RECLLM_CACHE") from error
            raise BenchError(f"cannot write {part}: {error.strerror or error}") from error
    reason = getattr(problem, "reason", None) or problem
    raise BenchError(f"cannot download {url}: {reason}{_WAY_OUT}")


_WAY_OUT = "; check the network, or set RECLLM_DATA_MIRROR to a folder that has the file"


def _fetch_rest(url: str, part: Path, label: str, said: dict[str, str]) -> bool:
    """Append what is missing; tell whether the file is now as long as the server said. ``said`` gets the headers."""
    have = part.stat().st_size if part.exists() else 0
    # Identity: a compressed transfer would make byte ranges and the length mean something else.
    headers = {"User-Agent": "recllm-bench", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing beyond what we have: complete, or of another file (the checksum tells)
            return True
        raise
    with answer:
        continues = answer.status == 206
        length = answer.headers.get("Content-Length") or ""
        total = int(length) + (have if continues else 0) if length.isdigit() else None
        said.update(answer.headers.items())
        if total is not None:
            said["Content-Length"] = str(total)
        with open(part, "ab" if continues else "wb") as file, track(None, label, total, "B") as bar:
            bar.unit_scale = True
            bar.update(have if continues else 0)
            while block := answer.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
    return total is None or part.stat().st_size >= total
