"""Product, comparison and count in one Triton kernel: no score of a pair is ever written to memory.

A program holds the halves of some queries and walks over tiles of items. Of each score it asks what
:mod:`~recllm_bench.evaluation.filtering` asks: is it surely above the target's, or too near to tell? The former are
counted in registers, places of the latter are written to a list, to be told apart exactly. Needs ``triton``, which
comes with torch for CUDA; with ``TRITON_INTERPRET=1`` the same kernel runs on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.errors import OutOfResources

WIDEST = 256
"""Longest vectors a program can hold; longer ones are counted in tiles."""
_FORMS = ((128, 128, 8, 3), (128, 64, 8, 2), (64, 64, 4, 2), (32, 32, 4, 1))
"""Queries and items of a tile, warps, stages: the first that fits into the device's shared memory."""
_PROGRAMS = 1 << 10  # at least, where there are tiles for so many: several for each multiprocessor
_ROOM = 1 << 24
"""Near pairs of one launch: 128 MiB."""


@dataclass
class Fused:
    """Queries and items laid out for the kernel.

    Attributes
    ----------
    left, right : tuple of Tensor
        High and low halves of queries ``[n, W]`` and items ``[m, W]``, W a power of two.
    wanted, bounds, widths : float32 [n]
        The target's exact score; what the norm of an item is multiplied with to give its error; norm of the query.
    lengths : float32 [m]
        Norms of items.
    smallest : float
        Part of every error that no norm scales.
    first : int
        First item that is counted.
    """

    left: tuple[Tensor, Tensor]
    right: tuple[Tensor, Tensor]
    wanted: Tensor
    bounds: Tensor
    widths: Tensor
    lengths: Tensor
    smallest: float
    first: int

    def __post_init__(self) -> None:
        width = max(16, triton.next_power_of_2(self.left[0].shape[1]))
        self.left, self.right = ((_padded(high, width), _padded(low, width)) for high, low in (self.left, self.right))
        self.pairs = torch.empty(_ROOM, dtype=torch.int64, device=self.wanted.device)
        self.forms = list(_FORMS)

    def count(self, rows: slice) -> tuple[Tensor, Tensor | None, int]:
        """Count some queries.

        Returns
        -------
        surely : int32 [B]
            Items whose score is above the target's.
        near : int64 [p] or None
            Too near to tell: ``row * m + item``, rows from the slice's start; None where the list was too short.
        found : int
            How many those are.
        """
        wanted = self.wanted[rows]
        surely = torch.zeros(len(wanted), dtype=torch.int32, device=wanted.device)
        filled = torch.zeros(1, dtype=torch.int64, device=wanted.device)
        given = [part[rows] for part in (*self.left, self.wanted, self.bounds, self.widths)]
        while True:
            try:
                self._launch(given, surely, filled)
                break
            except OutOfResources:
                if len(self.forms) == 1:
                    raise
                del self.forms[0]  # nothing ran
        found = int(filled)
        return surely, self.pairs[:found] if found <= len(self.pairs) else None, found

    def _launch(self, given: list[Tensor], surely: Tensor, filled: Tensor) -> None:
        high, low, wanted, bounds, widths = given
        height, breadth, warps, stages = self.forms[0]
        items, count = len(self.lengths), len(wanted)
        blocks, tiles = triton.cdiv(count, height), triton.cdiv(items - self.first, breadth)
        parts = min(tiles, max(1, _PROGRAMS // blocks))
        each = triton.cdiv(tiles, parts)
        _kernel[(blocks, triton.cdiv(tiles, each))](
            high, low, *self.right, wanted, bounds, widths, self.lengths, surely, self.pairs, filled,
            count, self.first, items, len(self.pairs), each, self.smallest,
            WIDTH=high.shape[1], HEIGHT=height, BREADTH=breadth, num_warps=warps, num_stages=stages,
        )  # fmt: skip


@triton.jit(do_not_specialize=["count", "first", "items", "room", "tiles"])  # sizes vary: one kernel for all
def _kernel(
    left_high, left_low, right_high, right_low, wanted, bounds, widths, lengths, surely, pairs, filled,
    count, first, items, room, tiles, smallest,
    WIDTH: tl.constexpr, HEIGHT: tl.constexpr, BREADTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT)
    there, depth = row < count, tl.arange(0, WIDTH)
    place = row.to(tl.int64)[:, None] * WIDTH + depth[None, :]
    high = tl.load(left_high + place, mask=there[:, None], other=0.0)
    low = tl.load(left_low + place, mask=there[:, None], other=0.0)
    own = tl.load(wanted + row, mask=there, other=float("inf"))
    bound = tl.load(bounds + row, mask=there, other=0.0)
    size = tl.load(widths + row, mask=there, other=0.0)
    above = tl.zeros([HEIGHT], dtype=tl.int32)
    begin = first + tl.program_id(1) * tiles * BREADTH
    for tile in range(tiles):
        column = begin + tile * BREADTH + tl.arange(0, BREADTH)
        inside = column < items
        spot = column.to(tl.int64)[:, None] * WIDTH + depth[None, :]
        item_high = tl.trans(tl.load(right_high + spot, mask=inside[:, None], other=0.0))
        item_low = tl.trans(tl.load(right_low + spot, mask=inside[:, None], other=0.0))
        longest = tl.max(tl.load(lengths + column, mask=inside, other=0.0), 0)
        # "ieee" says nothing of halves, whose products are exact; where the halves come as float32 it must be said
        scores = tl.dot(high, item_high, input_precision="ieee")
        scores = tl.dot(high, item_low, scores, input_precision="ieee")
        scores = tl.dot(low, item_high, scores, input_precision="ieee")
        margin = bound * longest + smallest * (size + longest + 1)
        higher = (scores > (own + margin)[:, None]) & inside[None, :]
        near = (scores >= (own - margin)[:, None]) & inside[None, :] & there[:, None]
        near = near & (higher == 0)
        above += tl.sum(higher.to(tl.int32), 1)
        each = tl.sum(near.to(tl.int32), 1)
        found = tl.sum(each, 0)
        if found > 0:
            at = tl.atomic_add(filled, found.to(tl.int64))
            if at + found <= room:
                before = tl.cumsum(each, 0) - each
                slot = at + (before[:, None] + tl.cumsum(near.to(tl.int32), 1) - 1).to(tl.int64)
                code = row.to(tl.int64)[:, None] * items + column.to(tl.int64)[None, :]
                tl.store(pairs + slot, code, mask=near)
    tl.atomic_add(surely + row, above, mask=there)


def _padded(values: Tensor, width: int) -> Tensor:
    return F.pad(values, (0, width - values.shape[1])).contiguous()
