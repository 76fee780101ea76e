"""Review text of a prepared dataset, joined to its interactions by position."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recllm_bench.data.columns import TextFile
from recllm_bench.data.histories import Histories
from recllm_bench.data.splits import Split

PARTS = ("train", "valid", "test")


class Reviews:
    """What users wrote, one review (possibly empty) for each interaction; read from disk when asked for.

    Parameters
    ----------
    path : Path
        The source's reviews: columns ``title`` and ``text``, or ``text`` alone.
    rows : int64 [total]
        Row of each interaction's review in that file.

    Examples
    --------
    Text that a model may train on is one filter::

        reviews = dataset.reviews()
        for batch in reviews.batches(split, parts=("train",)):
            ...
    """

    def __init__(self, path: Path, rows: np.ndarray, histories: Histories) -> None:
        self._file = TextFile(path)
        self._rows = rows
        self._histories = histories
        self._names = [name for name in ("title", "text") if name in self._file.names]

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, positions: np.ndarray) -> list[str]:
        """Reviews of some interactions: title and text, each on lines of their own.

        Parameters
        ----------
        positions : int64 [n]
            Places in ``histories.items``.
        """
        columns = [column.to_pylist() for column in self.columns(positions).values()]
        return ["\n".join(part for part in parts if part) for parts in zip(*columns, strict=True)]

    def columns(self, positions: np.ndarray) -> dict[str, pa.Array]:
        """Reviews of some interactions by column, ``title`` (where the source has titles) and ``text``."""
        found = self._file.take(self._rows[positions], self._names)
        return {name: found[name] for name in self._names}

    def parts(self, split: Split) -> np.ndarray:
        """For each interaction the index in ``("train", "valid", "test")`` of its part in a split: int8 [total].

        A later interaction that is no case of the split (``global_time`` with ``targets="last"``) belongs to the
        part of the next case of its user, or to the test part: it is never training.
        """
        owners = self._histories.users_of_positions()
        positions = np.arange(len(owners))
        part = np.where(self._histories.before(split.train_ends), 0, 2).astype(np.int8)
        last_valid = np.zeros(self._histories.n_users + 1, dtype=np.int64)
        np.maximum.at(last_valid, split.valid.users, split.valid.ends + 1)
        return np.where((part == 2) & (positions < last_valid[owners]), 1, part).astype(np.int8)

    def batches(self, split: Split, parts: tuple[str, ...] = PARTS) -> Iterator[pa.Table]:
        """All reviews of some parts of a split, in the source's order, a few thousand at a time.

        Yields
        ------
        pa.Table
            ``user`` and ``item`` (ids of ours), ``position`` (place in ``histories.items``), ``part`` (name), and
            the columns of text.

        Raises
        ------
        ValueError
            For an unknown part.
        """
        part_of = self.parts(split)
        allowed = np.isin(part_of, [PARTS.index(part) for part in parts])
        owners = self._histories.users_of_positions()
        place = np.full(len(self._file), -1, dtype=np.int64)
        kept = np.flatnonzero(allowed)
        place[self._rows[kept]] = kept
        for start, group in self._file.groups(self._names):
            positions = place[start : start + group.num_rows]
            inside = np.flatnonzero(positions >= 0)
            if not len(inside):
                continue
            positions = positions[inside]
            text = group.take(pa.array(inside))
            ids: dict[str, Any] = {
                "user": owners[positions].astype(np.int32),
                "item": self._histories.items[positions],
                "position": positions,
                "part": np.array(PARTS)[part_of[positions]],
            }
            yield pa.table(ids | {name: text[name] for name in self._names})
