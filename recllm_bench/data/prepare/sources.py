"""Finding a dataset's files: in an installed package, in a folder, on the mirror, or by download."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from recllm_bench.artifacts import MANIFEST, ArtifactStore, file_hash, write_json
from recllm_bench.data.cards import all_cards, find_card, user_card
from recllm_bench.data.download import download, unpack, wrong_checksum
from recllm_bench.data.prepare.id_lists import IdLists
from recllm_bench.data.prepare.own_cards import own_card
from recllm_bench.data.prepare.sequence_files import holds_pairs
from recllm_bench.data.prepare.table_files import TABLE_KINDS, exists, holds_parts, table_files
from recllm_bench.data.prepare.tables import atomic_files
from recllm_bench.data.prepare.textfiles import read_bytes
from recllm_bench.data.saved_folders import is_saved, saved_files
from recllm_bench.errors import BenchError, nearest
from recllm_bench.locations import data_mirror

_CARDS = (".yaml", ".yml")
_LARGE = 64 << 20  # a file that takes longer to hash than to look up
_SETTLED_NS = 3 * 10**9  # coarser than the clock of any file system
_KINDS = (*TABLE_KINDS, *_CARDS, ".zip", ".tar", ".tgz", ".gz", ".txt", ".inter")


class _WrongFileError(BenchError):
    """A file with another checksum than its card's."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path


@dataclass(frozen=True)
class Source:
    """The files of one variant of a dataset, present and checked.

    Attributes
    ----------
    card : dict
        Dataset card.
    variant : dict
        The card's entry for this variant: ``name``, ``reader``, ``times``, ``files`` ...
    files : dict of str to Path
        By role, such as ``ratings`` and ``items``.
    checksums : dict of str to str
        SHA-256 by role.
    """

    card: dict[str, Any]
    variant: dict[str, Any]
    files: dict[str, Path]
    checksums: dict[str, str] = field(default_factory=dict)

    @property
    def reader(self) -> str:
        """Name of the reader."""
        return self.variant.get("reader") or self.card["reader"]

    @property
    def options(self) -> dict[str, Any]:
        """Options of the reader: the card's, overlaid by the variant's."""
        return {**self.card.get("options", {}), **self.variant.get("options", {})}


def find_source(name_or_path: str, store: ArtifactStore) -> Source:
    """Find the files of a dataset by its name, or recognise what lies at a path.

    A name is looked for in installed packages that carry the data, on ``RECLLM_DATA_MIRROR`` (a folder or an
    address), and at the owner's address, in this order.

    Raises
    ------
    BenchError
        For an unknown name, a path that holds no known format, or files that cannot be had or have another checksum.
    """
    if not name_or_path:
        raise BenchError("no dataset given; write its name or the path of your data, such as DATASET=ml-100k")
    path = Path(name_or_path).expanduser()
    looks_like_path = path.is_absolute() or "/" in name_or_path or path.suffix in _KINDS
    if looks_like_path and not exists(path):
        raise BenchError(f"{path}: no such file or folder")
    if looks_like_path:
        return _at_path(path, store)
    try:
        card = find_card(name_or_path)
    except BenchError:
        if exists(path):
            return _at_path(path, store)
        raise
    return _by_name(card, store)


def _by_name(card: dict[str, Any], store: ArtifactStore) -> Source:
    for variant in card["variants"]:
        folder = _package_folder(variant)
        if folder and (source := _in_folder(card, variant, folder, store)):
            return source
    mirror = data_mirror()
    if mirror and not mirror.startswith(("http://", "https://")):
        folder = Path(mirror).expanduser()
        if not folder.is_dir():
            raise BenchError(
                f"RECLLM_DATA_MIRROR: {folder} is no folder; set it to one, or to an http address, or unset"
            )
        wrong: BenchError | None = None
        for variant in card["variants"]:
            try:
                if source := _in_folder(card, variant, folder, store) or _mirrored_archive(
                    card, variant, folder, store
                ):
                    return source
            except BenchError as error:  # another variant of it may be there and whole
                wrong = wrong or error
        if wrong:
            raise wrong
        mirror = None
    problem: BenchError | None = None
    from_owner = False
    for base in [mirror.rstrip("/") + "/", ""] if mirror else [""]:
        for variant in card["variants"]:
            try:
                if source := _downloaded(card, variant, base, store):
                    return source
            except BenchError as error:
                # The first failure at the owner's address says most: it is the variant the card prefers.
                if problem is None or (base == "" and not from_owner):
                    problem, from_owner = error, base == ""
    if problem:
        raise BenchError(f"{problem} ({', '.join(_wanted_paths(card))})") from problem
    raise BenchError(f"{card['name']}: {_how_to_get(card)}")


def _how_to_get(card: dict[str, Any]) -> str:
    """What a person has to fetch where, and where to put it."""
    wanted = " and ".join(_wanted_paths(card))
    archives = [entry["archive"]["file"] for entry in card["variants"] if "file" in entry.get("archive", {})]
    files = f"{wanted} (plain or .gz)" + (f", or {archives[0]} as it comes," if archives else "")
    if "form" in card:
        return (
            f"its owner hands it out after a form at {card['form']}; fill it in, then put {files} under a folder and "
            "set RECLLM_DATA_MIRROR to that folder"
        )
    return (
        "its files are not on this machine and its owner gives no address for them; "
        f"set RECLLM_DATA_MIRROR to a folder that has {files}"
    )


def _package_folder(variant: dict[str, Any]) -> Path | None:
    spec = importlib.util.find_spec(variant["package"]) if "package" in variant else None  # finds without importing
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def _at_path(path: Path, store: ArtifactStore) -> Source:
    if is_saved(path):
        card = user_card(path.resolve().name, "saved-reviews")
        return _checked(card, {"name": "folder of datasets"}, saved_files(path), store)
    if path.is_dir():
        problem: BenchError | None = None
        for card, variant in _variants():
            try:
                if source := _in_folder(card, variant, path, store, flat=True):
                    return source
            except BenchError as error:
                problem = problem or error
        atomic = any(path.glob("*.inter*"))
        # Files with a known dataset's names but other content: somebody's own data if they are atomic files.
        if problem and not atomic:
            raise problem
        if not atomic and holds_parts(path):
            return _checked(user_card(path.resolve().name, "table"), {"name": "table"}, table_files(path), store)
        return _checked(user_card(path.resolve().name, "atomic"), {"name": "atomic files"}, atomic_files(path), store)
    if path.suffix in (".zip", ".tar", ".tgz") or path.name.endswith(".tar.gz"):
        for card, variant in _variants():
            archive = variant.get("archive", {})
            known = "checksums" in archive and not wrong_checksum(path, archive["checksums"])
            if known or ("file" in archive and _bare_tar(archive["file"]) == _bare_tar(path.name)):
                return _from_archive(card, variant, path, store)
        raise BenchError(f"{path}: an archive of no known dataset, or a damaged one; unpack it and give the folder")
    if path.suffix in _CARDS:
        card, files = own_card(path)
        return _checked(card, {"name": "own card"}, files, store)
    stem = path.name.removesuffix(".gz")
    name, kind = Path(stem).stem, Path(stem).suffix.lower()
    if kind in TABLE_KINDS:
        return _checked(user_card(name, "table"), {"name": "table"}, table_files(path), store)
    if kind == ".inter":
        files = {"inter": path}
        if (items := path.with_name(path.name.replace(".inter", ".item"))).exists():
            files["item"] = items
        return _checked(user_card(name, "atomic"), {"name": "atomic files"}, files, store)
    if kind == ".txt":
        digest = file_hash(path)
        for card, variant in _variants():
            for role, entry in variant.get("files", {}).items():
                if not entry.get("optional") and digest in entry.get("sha256", ()):
                    found = _in_folder(card, variant, path.parent, store, flat=True)
                    return found or _checked(card, variant, {role: path}, store)
        reader = "pairs" if holds_pairs(path) else "sequences"
        return _checked(user_card(name, reader), {"name": reader}, {"sequences": path}, store)
    raise BenchError(
        f"{path}: not a known kind of data; give a folder of RecBole atomic files, of Parquet parts or of the "
        "datasets package, a .csv, .tsv, .parquet or .jsonl file with named columns, a .txt file of sequences, or a "
        ".yaml card of your own"
    )


def _bare_tar(name: str) -> str:
    """Name of a tar archive whatever its packing."""
    return re.sub(r"\.(tar\.gz|tgz)$", ".tar", name)


def _variants() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for card in all_cards().values():
        for variant in card["variants"]:
            yield card, variant


def _in_folder(
    card: dict[str, Any], variant: dict[str, Any], folder: Path, store: ArtifactStore, flat: bool = False
) -> Source | None:
    """The variant's files under a folder; ``flat`` looks for bare names, as in a dataset's own folder."""
    # Names such as ratings.csv belong to several datasets: without checksums only the folder's name tells which.
    if flat and variant.get("folder", folder.resolve().name) != folder.resolve().name:
        return None
    files = {}
    for role, entry in variant.get("files", {}).items():
        relative = PurePosixPath(entry["path"]).name if flat else entry["path"]
        bare = relative.removesuffix(".gz")
        found = next((path for path in (folder / bare, folder / f"{bare}.gz") if path.is_file()), None)
        if found:
            files[role] = found
        elif not entry.get("optional"):
            return None
    return _checked(card, variant, files, store) if files else None


def _mirrored_archive(
    card: dict[str, Any], variant: dict[str, Any], folder: Path, store: ArtifactStore
) -> Source | None:
    archive = variant.get("archive", {})
    name = archive.get("file") or PurePosixPath(archive.get("url", "")).name
    for path in (folder / name, folder / Path(name).stem / name):
        if name and path.is_file():
            if wrong := wrong_checksum(path, archive.get("checksums", {})):
                raise BenchError(f"{path}: wrong checksum, {wrong}; the archive is truncated or changed, copy it again")
            return _from_archive(card, variant, path, store)
    return None


def _from_archive(card: dict[str, Any], variant: dict[str, Any], archive: Path, store: ArtifactStore) -> Source:
    entries = variant["files"]
    members = [entry["path"] for entry in entries.values()]
    key = {"sha256": _hash(archive, store), "members": members}
    folder = store.build("unpacked", key, lambda work: unpack(archive, work, members))
    return _checked(card, variant, {role: folder / entry["path"] for role, entry in entries.items()}, store)


def _downloaded(card: dict[str, Any], variant: dict[str, Any], base: str, store: ArtifactStore) -> Source | None:
    """Fetch from ``base`` (the mirror's address), or from the owner's when ``base`` is empty."""
    notice = card["licence"].get("notice", "")
    if "archive" in variant:
        archive = variant["archive"]
        if not base and "url" not in archive:
            return None
        name = PurePosixPath(archive.get("file") or archive["url"]).name
        url = base + name if base else archive["url"]
        checksums = archive.get("checksums", {})
        key = download_key(url, checksums)
        folder = store.build("download", key, lambda work: download(url, work / name, checksums, notice, card["title"]))
        try:
            return _from_archive(card, variant, folder / name, store)
        except BenchError as error:
            if checksums or getattr(error.__cause__, "errno", None):
                raise
            shutil.rmtree(folder, ignore_errors=True)  # it must not stand in the way of the next try
            reason = str(error).removeprefix(f"{folder / name}: ").partition("; delete")[0]
            raise BenchError(f"{url}: {reason}; it was removed, and the same command fetches it again") from error
    files = {}
    for role, entry in variant.get("files", {}).items():
        url = base + entry["path"] if base else entry.get("url")
        if not url or (base and "package" in variant):
            if entry.get("optional"):
                continue
            return None
        name = PurePosixPath(url).name

        def fetch(work: Path, url: str = url, name: str = name) -> None:
            download(url, work / name, None, notice, card["title"])

        key = download_key(url, {"sha256": entry["sha256"]} if "sha256" in entry else {})
        try:
            folder = store.build("download", key, fetch)
        except BenchError:
            if entry.get("optional"):
                continue
            raise
        files[role] = folder / name
    try:
        return _checked(card, variant, files, store) if files else None
    except _WrongFileError as error:  # it must not stand in the way of the next try
        shutil.rmtree(error.path.parent, ignore_errors=True)
        raise


def download_key(url: str, checksums: dict[str, Any]) -> dict[str, Any]:
    """What a downloaded file depends on: its checksums where they are known, else its whole address.

    Different files share a name: ``meta_Books.json.gz`` is one of 2014 and one of 2018.
    """
    return {"name": PurePosixPath(url).name, "checksums": checksums, "url": "" if checksums else url}


def _checked(card: dict[str, Any], variant: dict[str, Any], files: dict[str, Path], store: ArtifactStore) -> Source:
    checksums = {}
    for role, path in files.items():
        checksums[role] = _hash(path, store)
        expected = variant.get("files", {}).get(role, {}).get("sha256")
        if expected and checksums[role] not in expected and path.suffix == ".gz":
            # Packed by someone else: what counts is the content.
            checksums[role] = hashlib.sha256(read_bytes(path)).hexdigest()
        if expected and checksums[role] not in expected:
            raise _WrongFileError(
                path,
                f"wrong checksum, sha256 {checksums[role]} instead of {expected[0]} ({card['name']}, variant "
                f"{variant['name']}); the file is truncated or changed, get it again",
            )
    return Source(card, variant, files, checksums)


def _hash(path: Path, store: ArtifactStore) -> str:
    """SHA-256 of a file; that of a large one is remembered for as long as nothing touches the file.

    Reading 5 GB to say that nothing has changed takes 7 seconds at each call. So the checksum is kept by what the
    system says of the file: place, size, inode and both times. A change that keeps size and time of modification
    (``cp -p``, ``rsync -t``, ``touch -r``) still moves the time of the inode, which nobody can set. A change within
    the clock's step of an earlier one does not: what is younger than some seconds is not remembered.
    """
    try:
        state = _state(path)
        if state["bytes"] < _LARGE:
            return file_hash(path)
        folder = store.path("checksum", state)
        if not (folder / MANIFEST).exists():
            digest = file_hash(path)
            settled = time.time_ns() - max(state["changed"], state["inode changed"]) > _SETTLED_NS
            if not settled or _state(path) != state:
                return digest
            store.build("checksum", state, lambda work: write_json(work / "sha256.json", digest))
        return json.loads((folder / "sha256.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror or error}") from error


def _state(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {
        "path": str(path.resolve()),
        "bytes": stat.st_size,
        "changed": stat.st_mtime_ns,
        "inode": [stat.st_dev, stat.st_ino],
        "inode changed": stat.st_ctime_ns,
    }


def find_id_lists(card: dict[str, Any], name: str, store: ArtifactStore) -> IdLists:
    """Find the published lists of ids to which a filter of a card restricts its corpus.

    Raises
    ------
    BenchError
        For lists the card does not name, or files that cannot be had or have another checksum.
    """
    known = card.get("id_lists", {})
    if name not in known:
        raise BenchError(f"{card['name']} has no id lists '{name}'.{nearest(name, known)}")
    lists = {
        "name": f"{card['name']}-{name}",
        "title": f"id lists {name} of {card['title']}",
        "licence": card["licence"],
        "variants": [{"name": name, "files": known[name]}],
    }
    source = _by_name(lists, store)
    return IdLists(name, source.files.get("users"), source.files.get("items"), source.checksums)


def _wanted_paths(card: dict[str, Any]) -> list[str]:
    wanted: dict[str, None] = {}
    for variant in card["variants"]:
        if "package" not in variant and "file" not in variant.get("archive", {}):
            wanted.update({entry["path"]: None for entry in variant["files"].values() if not entry.get("optional")})
    return list(wanted)
