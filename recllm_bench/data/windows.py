"""Training windows over flat histories, and padded batches made on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from recllm_bench.data.histories import Histories
from recllm_bench.errors import BenchError, nearest

COVERAGES = ("all", "moving", "last")
_MOVING = 1  # keeps this stream of random numbers apart from the order of the windows


@dataclass(frozen=True)
class Windows:
    """Pieces of histories to train on; all positions are absolute, in ``Histories.items``.

    Attributes
    ----------
    starts, ends : int64 [n]
        A window reads the inputs ``items[start:end - 1]`` and predicts ``items[start + 1:end]``.
    loss_from : int64 [n]
        Position of the first target with a loss; the targets before it only give context.
    users : int64 [n]
        User id of each window.
    """

    starts: np.ndarray
    ends: np.ndarray
    loss_from: np.ndarray
    users: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True)
class WindowBatch:
    """Right-padded windows on the device.

    Attributes
    ----------
    users : int64 [B]
        User ids.
    inputs : int64 [B, L]
        Item ids, 0 is padding.
    targets : int64 [B, L]
        Next item of each position; 0 where there is no loss.
    lengths : int64 [B]
        Inputs that are no padding.
    masked : bool
        Whether a loss must take all positions and give no weight to those without a target, so that no size depends
        on what a batch holds.
    """

    users: torch.Tensor
    inputs: torch.Tensor
    targets: torch.Tensor
    lengths: torch.Tensor
    masked: bool = False


@dataclass(frozen=True)
class FixedRows:
    """Windows of a batch before they are cut, on the device.

    Attributes
    ----------
    columns : int64 [B, 4]
        Start, inputs, first position with a loss, user.
    width : int
        Positions of the padded batch; few values, whatever the windows are.
    """

    columns: torch.Tensor
    width: int


def training_windows(
    histories: Histories,
    train_ends: np.ndarray,
    max_length: int,
    coverage: str = "all",
    draw: tuple[int, int] = (0, 1),
) -> Windows:
    """Cut the training prefixes into windows of at most ``max_length`` inputs.

    A history that fits is one window. A longer one is cut from its newest end into full windows that overlap, each
    with a loss on its last ``max_length // 2 + 1`` targets, and one first window that takes what remains with all the
    context there is. So every target but the very first item has its loss once, with at least ``max_length / 2``
    inputs before it or all that exist.

    Parameters
    ----------
    train_ends : int64 [n_users]
        Absolute exclusive end of each training prefix; nothing from there on is read.
    max_length : int
        Most inputs in a window, at least 1.
    coverage : {"all", "moving", "last"}
        ``moving`` cuts as ``all`` does, but the newest window of a longer history has its loss on a number of targets
        that is drawn, 1 to ``max_length // 2 + 1``, and the others follow: over the epochs a target is seen at every
        position of that range. ``last`` keeps the newest ``max_length`` targets of each user, as most published code
        does.
    draw : tuple of int
        Seed and epoch, which fix what ``moving`` draws.

    Returns
    -------
    Windows
        Ordered by user, then by time. Prefixes shorter than 2 have none.

    Raises
    ------
    BenchError
        For an unknown coverage or a length below 1.
    """
    if coverage not in COVERAGES:
        raise BenchError(f"unknown window coverage '{coverage}'.{nearest(coverage, COVERAGES)}")
    if max_length < 1:
        raise BenchError(f"the window length must be at least 1, got {max_length}")
    firsts, train_ends = histories.offsets[:-1], np.asarray(train_ends, dtype=np.int64)
    rows = np.flatnonzero(train_ends - firsts >= 2)
    firsts, train_ends = firsts[rows], train_ends[rows]
    if coverage == "last":
        starts = np.maximum(firsts, train_ends - max_length - 1)
        return Windows(starts, train_ends, starts + 1, rows + 1)
    step = max_length // 2 + 1
    newest = np.full(len(rows), step)  # targets with a loss in each user's newest window
    if coverage == "moving":
        newest = np.random.default_rng([*draw, _MOVING]).integers(1, step + 1, len(histories.offsets) - 1)[rows]
    surplus = train_ends - firsts - 1 - max_length
    # Windows beside the first: the newest, and as many full steps as reach what the first can hold.
    extra = np.where(surplus > 0, 1 + -(-np.maximum(surplus - newest, 0) // step), 0)
    owners = np.repeat(np.arange(len(rows)), extra + 1)
    number = np.arange(len(owners)) - np.repeat(np.cumsum(extra + 1) - (extra + 1), extra + 1)
    from_newest = extra[owners] - number
    after = np.where(from_newest > 0, newest[owners] + (from_newest - 1) * step, 0)  # targets of later windows
    ends = train_ends[owners] - after
    starts = np.maximum(firsts[owners], ends - max_length - 1)
    own = np.where(from_newest > 0, step, newest[owners])
    loss_from = np.where(number == 0, starts + 1, ends - own)
    return Windows(starts, ends, loss_from, rows[owners] + 1)


class DeviceHistories:
    """All items on the device once; every batch is one gather."""

    def __init__(self, histories: Histories, device: torch.device | str) -> None:
        self.histories = histories
        self.device = torch.device(device)
        self.offsets = np.asarray(histories.offsets)
        # One 0 at the end lets an index past the last item read padding.
        self.items = torch.from_numpy(np.append(histories.items, np.int32(0))).to(self.device)

    def window_batch(self, windows: Windows, rows: np.ndarray | torch.Tensor, max_length: int) -> WindowBatch:
        """Make the padded batch of the windows at ``rows``, as wide as the longest of them.

        Raises
        ------
        ValueError
            When a window has more than ``max_length`` inputs: it was cut for another length.
        """
        rows = _on_host(rows)
        starts, ends = windows.starts[rows], windows.ends[rows]
        lengths = ends - starts - 1
        width = int(lengths.max(initial=0))
        if width > max_length:
            raise ValueError(f"a window has {width} inputs, more than max_length={max_length}")
        columns = self._put(starts, lengths, windows.loss_from[rows], windows.users[rows])
        return self._padded(columns, width)

    def fixed_rows(self, windows: Windows, rows: list[np.ndarray], max_length: int) -> Iterator[FixedRows]:
        """Batches of windows with one transfer for all; the width is a quarter, half, three quarters or the whole."""
        if not rows:
            return
        lengths, order = windows.ends - windows.starts - 1, np.concatenate(rows)
        parts = (windows.starts, lengths, windows.loss_from, windows.users)
        columns = torch.stack(self._put(*(part[order] for part in parts)), 1)
        for part, own in zip(columns.split([len(each) for each in rows]), rows, strict=True):
            quarters = -(-4 * int(lengths[own].max()) // max_length)
            yield FixedRows(part, -(-quarters * max_length // 4))

    def fixed_batch(self, rows: FixedRows) -> WindowBatch:
        """Make the padded batch; nothing is read back from the device."""
        return self._padded(rows.columns.unbind(1), rows.width, masked=True)

    def _padded(self, columns: tuple[torch.Tensor, ...], width: int, masked: bool = False) -> WindowBatch:
        starts, lengths, loss_from, users = columns
        column = torch.arange(width, device=self.device)
        positions = starts[:, None] + column
        real = column < lengths[:, None]
        last = len(self.items) - 1
        inputs = self.items[positions.clamp(max=last)].long() * real
        targets = self.items[(positions + 1).clamp(max=last)].long() * (real & (positions + 1 >= loss_from[:, None]))
        return WindowBatch(users, inputs, targets, lengths, masked)

    def history_batch(
        self,
        users: np.ndarray | torch.Tensor,
        ends: np.ndarray | torch.Tensor,
        max_length: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Make the newest ``max_length`` items of histories, right-padded, as wide as the longest of them.

        Parameters
        ----------
        users : int [B]
            User ids.
        ends : int [B]
            Absolute exclusive ends, as in ``Cases``.

        Returns
        -------
        item_seq : int64 [B, L]
        lengths : int64 [B]

        Raises
        ------
        BenchError
            When a history is empty.
        """
        users, ends = _on_host(users), _on_host(ends)
        starts = np.maximum(self.offsets[users - 1], ends - max_length)
        lengths = ends - starts
        if (lengths < 1).any():
            user = int(users[np.argmax(lengths < 1)])
            raise BenchError(f"user {user} has an empty history: nothing to rank from; drop the case or the user")
        starts_, lengths_ = self._put(starts, lengths)
        column = torch.arange(int(lengths.max(initial=0)), device=self.device)
        positions = (starts_[:, None] + column).clamp(max=len(self.items) - 1)
        return self.items[positions].long() * (column < lengths_[:, None]), lengths_

    def _put(self, *arrays: np.ndarray) -> tuple[torch.Tensor, ...]:
        # One transfer for all columns: small copies cost more than their bytes on an accelerator.
        return torch.from_numpy(np.stack([array.astype(np.int64) for array in arrays])).to(self.device).unbind(0)


def _on_host(values: np.ndarray | torch.Tensor) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
