"""Columns on disk: small ones mapped as they are, text compressed in groups of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

_GROUP_ROWS = 4096


class MappedStrings(Sequence[str]):
    """Strings of a mapped column, read when they are asked for."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index):
        return self._column[index].to_pylist() if isinstance(index, slice) else self._column[int(index)].as_py()

    def __iter__(self) -> Iterator[str]:
        for chunk in self._column.chunks:
            yield from chunk.to_pylist()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str) or len(self) != len(other):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # Python's own way to say that a class with __eq__ has no hash

    def __repr__(self) -> str:
        return f"MappedStrings({len(self)})"


def strings(values: Sequence[str | None]) -> pa.Array:
    """A column of strings; what UTF-8 cannot hold (half of a surrogate pair) becomes a question mark."""
    try:
        return pa.array(values, pa.large_string())
    except (UnicodeEncodeError, pa.ArrowInvalid):
        clean = (None if value is None else value.encode("utf-8", "replace").decode() for value in values)
        return pa.array(list(clean), pa.large_string())


def write_columns(file: IO[bytes] | pa.NativeFile, table: pa.Table) -> None:
    """Write columns as they lie in memory (Arrow file format)."""
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def map_columns(path: Path) -> pa.Table:
    """Map a file of :func:`write_columns`; nothing is read until it is used."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


class TextWriter:
    """Writes text as Parquet, compressed in groups of rows; the same rows give the same bytes.

    Parameters
    ----------
    path : Path
        Where to; the file exists from the first batch on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: parquet.ParquetWriter | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        if self._writer is None:
            self._writer = parquet.ParquetWriter(
                self._path, batch.schema, compression="zstd", use_dictionary=False, write_statistics=False
            )
        self._writer.write_batch(batch, row_group_size=_GROUP_ROWS)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()


class TextFile:
    """Reads rows of a file of :class:`TextWriter` without holding it in memory."""

    def __init__(self, path: Path) -> None:
        self._file = parquet.ParquetFile(path, memory_map=True)
        meta = self._file.metadata
        sizes = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return self._file.schema_arrow.names

    def column(self, name: str) -> pa.ChunkedArray:
        """One whole column."""
        return self._file.read([name])[name]

    def take(self, rows: np.ndarray, names: Sequence[str]) -> pa.Table:
        """Some rows in the order asked for; each group of rows is unpacked once."""
        wanted, places = np.unique(np.asarray(rows, dtype=np.int64), return_inverse=True)
        groups = np.searchsorted(self._starts, wanted, side="right") - 1
        parts = [self._file.schema_arrow.empty_table().select(list(names))]
        for group in np.unique(groups).tolist():
            local = wanted[groups == group] - self._starts[group]
            parts.append(self._file.read_row_group(group, columns=list(names)).take(pa.array(local)))
        return pa.concat_tables(parts).take(pa.array(places.reshape(-1)))

    def groups(self, names: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """All rows in order, a group at a time, with the number of the group's first row."""
        for group, start in enumerate(self._starts[:-1].tolist()):
            yield start, self._file.read_row_group(group, columns=list(names))


class TextRows(Sequence[str]):
    """One column of a :class:`TextFile`, row by row in an order of its own, read when it is asked for.

    Parameters
    ----------
    rows : int64 [n]
        Row of each entry; -1 for an empty one.
    """

    def __init__(self, file: TextFile, rows: np.ndarray, name: str) -> None:
        self.file, self.rows, self.name = file, rows, name

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index):
        return self.of(np.arange(len(self))[index]) if isinstance(index, slice) else self.of(np.array([index]))[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.of(np.arange(len(self))))

    def of(self, indices: np.ndarray) -> list[str]:
        """Several entries in one pass."""
        rows = self.rows[indices]
        known = rows >= 0
        texts = iter(self.file.take(rows[known], [self.name])[self.name].to_pylist())
        return [next(texts) or "" if one else "" for one in known.tolist()]

    def after_padding(self) -> TextRows:
        """The same with an empty entry 0."""
        return TextRows(self.file, np.concatenate([[-1], self.rows]), self.name)

    def copy_to(self, path: Path) -> np.ndarray:
        """Write the rows that are used to a file of their own, a group at a time.

        Returns
        -------
        int64 [n]
            The entries' rows in the new file.
        """
        place = np.full(len(self.file) + 1, -1, dtype=np.int64)  # the last stands for -1
        used = np.unique(self.rows[self.rows >= 0])
        place[used] = np.arange(len(used))
        writer = TextWriter(path)
        try:
            for start, group in self.file.groups([self.name]):
                inside = np.flatnonzero(place[start : start + group.num_rows] >= 0)
                for batch in group.take(pa.array(inside)).combine_chunks().to_batches():
                    writer.write(batch)
        finally:
            writer.close()
        return place[self.rows]
