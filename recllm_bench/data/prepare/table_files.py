"""Which files make a table of a user's own: one, or the parts in a folder, and the table of items beside it."""

from __future__ import annotations

from pathlib import Path

from recllm_bench.errors import BenchError

PARQUET = (".parquet", ".pq")
JSON_LINES = (".jsonl", ".ndjson", ".json")
TABLE_KINDS = (".csv", ".tsv", *PARQUET, *JSON_LINES)
PART = "part "  # roles of the further files of a table in parts


def table_files(path: Path) -> dict[str, Path]:
    """A table by role: itself or its parts, and ``<name>.items.csv`` (or another kind of table) beside it as ``items``.

    A folder is a table in parts: all its Parquet files, or else its ``part-*`` files of another kind. ``items.csv``
    inside (or another kind) is the table of items.

    Raises
    ------
    BenchError
        For a folder without parts, or with parts of several kinds.
    """
    beside = path.with_name(f"{_stem(path)}.items") if not path.is_dir() else path.with_name(f"{path.name}.items")
    inside = [path / "items"] if path.is_dir() else []
    candidates = (
        place.with_name(f"{place.name}{kind}{gz}")
        for place in (beside, *inside)
        for kind in TABLE_KINDS
        for gz in ("", ".gz")
    )
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    parts = table_parts(path) if path.is_dir() else [path]
    files = {"table": parts[0]} | {f"{PART}{number}": part for number, part in enumerate(parts[1:], 2)}
    return {**files, "items": found} if found else files


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; a name that no file can have is none."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def holds_parts(folder: Path) -> bool:
    """Whether a folder is a table in parts."""
    return bool(_parts(folder))


def table_parts(folder: Path) -> list[Path]:
    """Files of a table in parts, by name; files of other programs' own (``_SUCCESS``, ``.crc``) are no parts.

    Raises
    ------
    BenchError
        When there are none, or of several kinds.
    """
    parts = _parts(folder)
    if not parts:
        raise BenchError(f"{folder}: has no Parquet files and no part-* files of a table")
    kinds = sorted({table_kind(path) for path in parts})
    if len(kinds) > 1:
        raise BenchError(f"{folder}: parts of several kinds ({', '.join(kinds)}); keep one kind in the folder")
    return parts


def _parts(folder: Path) -> list[Path]:
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part[0] in "._" for part in path.relative_to(folder).parts)
        and not f".{_stem(path)}".endswith(".items")
    ]
    parts = [path for path in files if table_kind(path) in PARQUET]
    return parts or [path for path in files if path.name.startswith("part-") and table_kind(path) in TABLE_KINDS]


def table_kind(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]
