"""Folders of the ``datasets`` package: tables in Arrow files, written and read on this machine without a hub."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from recllm_bench.errors import BenchError

ROWS = 8192  # rows held at once
_SPLITS = "dataset_dict.json"  # of a folder with splits, each a folder of its own
_TABLE = ("state.json", "dataset_info.json")


def is_saved(folder: Path) -> bool:
    """Whether ``datasets`` saved a table, or splits of one, in a folder."""
    return (folder / _SPLITS).is_file() or all((folder / name).is_file() for name in _TABLE)


def saved_files(folder: Path) -> dict[str, Path]:
    """The files of a saved folder by role: ``table`` describes it, the others bear their place in it."""
    first = folder / (_SPLITS if (folder / _SPLITS).is_file() else _TABLE[0])
    others = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in (".arrow", ".json")]
    return {"table": first, **{path.relative_to(folder).as_posix(): path for path in others if path != first}}


class SavedTable:
    """The table in a saved folder; splits are joined in their order.

    Parameters
    ----------
    folder : Path
        Where ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote.

    Raises
    ------
    BenchError
        When ``datasets`` is not installed, or the folder cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        package = _package()
        try:
            found = package.load_from_disk(str(folder))
            table = found if isinstance(found, package.Dataset) else package.concatenate_datasets(list(found.values()))
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise BenchError(
                f"{folder}: not a readable folder of the datasets package ({_first_line(error)})"
            ) from error
        self.folder, self.about = folder, str(table.info.description)
        self.columns: list[str] = list(table.column_names)
        self._table = table.with_format("arrow")

    def __len__(self) -> int:
        return len(self._table)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Some columns of all rows in order, ``ROWS`` at a time."""
        chosen = self._table.select_columns(list(columns))
        for start in range(0, len(chosen), ROWS):
            yield chosen[start : start + ROWS]


def save_tables(folder: Path, tables: Iterable[pa.Table], about: str = "") -> None:
    """Write the rows of tables of one schema as a folder that ``datasets.load_from_disk`` opens.

    Parameters
    ----------
    folder : Path
        A new folder; it is there whole or not at all.
    tables : iterable of pa.Table
        One after the other is held in memory.
    about : str
        Its description.

    Raises
    ------
    BenchError
        When the folder is there already or cannot be written, or ``datasets`` is not installed.
    """
    package = _package()
    from datasets.arrow_writer import ArrowWriter

    if folder.exists():
        raise BenchError(f"{folder}: is there already; name a new folder, or remove this one")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise BenchError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        with ArrowWriter(path=str(work / "rows.arrow")) as writer:
            for table in tables:
                writer.write_table(table)
            writer.finalize()
        rows = package.Dataset.from_file(str(work / "rows.arrow"))
        rows.info.description = about
        with _without_bars(package):
            rows.save_to_disk(str(work / "whole"))
        (work / "whole").rename(folder)
    except OSError as error:
        raise BenchError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _without_bars(package: Any) -> Iterator[None]:
    was_silent = package.utils.are_progress_bars_disabled()
    package.disable_progress_bars()
    try:
        yield
    finally:
        if not was_silent:
            package.enable_progress_bars()


def _package() -> Any:
    try:
        import datasets
        from datasets import load_from_disk  # noqa: F401 - a folder of this name is a package too, without it
    except ImportError as error:
        raise BenchError("a folder of the datasets package needs that package: pip install 'datasets>=2.20'") from error
    return datasets


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
