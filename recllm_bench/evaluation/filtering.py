"""Ranks by a quick product with a proved error, and exact scores for the few that it cannot tell from the target's.

The score of an item is ``q . t`` in float64, rounded to float32: what beats or equals the target's is counted by these
numbers alone, so that ranks do not depend on kernels, tiles or devices. A quick product ``a`` of halves says nearly
always which side of the target a score lies on:

Write ``x = hi + lo + rest`` with ``hi = bf16(x)``, ``lo = bf16(x - hi)``. Rounding to bfloat16 errs by at most
``2^-8 |x|`` (8 significant bits, rounded to nearest), so that ``|lo| <= 2^-8 (1 + 2^-8) |x|``, ``|rest| <= 2^-16 |x|``.
The product of halves ``hi.hi + hi.lo + lo.hi`` leaves out ``lo.lo`` and what has a ``rest``: at most
``(3 * 2^-16 + 2^-20) sum |q_i t_i|``. Adding ``3 d`` products in float32, in any order and even truncating, errs by at
most ``3 d 2^-22 sum |q_i t_i|`` for ``d`` up to 2^16. By Cauchy and Schwarz ``sum |q_i t_i| <= |q| |t|``. For the
product of float32 itself only the second term stands. Rounding exact scores and thresholds to float32 adds
``2^-21 |q| |t|``: where the target's score is more than twice ``|q| |t|``, no score of ``t`` is near it. A twentieth
more pays for the norms' own roundings and for halves that are larger than what they stand for.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch

from recllm_bench.evaluation.counting import Counter
from recllm_bench.products import has_bfloat16, product_of_halves, sums_wide
from recllm_bench.progress import log

_AT_ONCE = 1 << 26
"""Quick scores that stand at once: 256 MiB."""
_COLUMNS = 1 << 15
_ROWS = 1 << 16
"""Queries of one launch of the kernel."""
_PAIRS = 1 << 19
_MOST_NEAR = 1 / 16
"""Share of a tile above which telling apart one by one costs more than it saves."""
_LARGEST = 1e15
"""Of a norm: products of larger ones could overflow a float32."""
_SMALLEST = 2.0**-100
"""Added to every bound for what is lost below the least normal numbers, whose product with a norm it exceeds."""


def count_filtered(
    queries: torch.Tensor,
    items: torch.Tensor,
    counter: Counter,
    *,
    halves: bool | None = None,
    fused: Any = None,
) -> bool:
    """Count all cases of a counter that wants no best items.

    Parameters
    ----------
    queries : float32 [n, d]
        One row for each case.
    items : float32 [n_items + 1, d]
        Row 0 is padding.
    counter : Counter
        Over all items, not over listed candidates.
    halves : bool, optional
        Whether the quick product is of bfloat16 halves; by default where the device multiplies them into float32.
    fused : module, optional
        :mod:`~recllm_bench.evaluation.fused_counting`; by default where the device and an installed Triton run it.

    Returns
    -------
    bool
        False, with nothing counted, where vectors are not finite or too large, products of float32 may be rounded to
        less (TF32), or nearly everything is near the target: the plain way must count.
    """
    halves = _multiplies_halves(queries.device) if halves is None else halves
    if not halves and torch.get_float32_matmul_precision() != "highest":
        return False
    # in float64: the squares of small numbers are no float32
    widths, lengths = (torch.linalg.vector_norm(x, dim=1, dtype=torch.float64).float() for x in (queries, items))
    if not (float(widths.max()) < _LARGEST and float(lengths.max()) < _LARGEST):  # a NaN is not below either
        return False
    wanted = exact_scores(queries, items, counter.targets)
    first = 1 if counter.protocol.exclude_pad else 0
    # What is seen is counted like the rest and taken out again: equal scores are equal wherever they are computed.
    higher, tied = torch.zeros_like(counter.higher), torch.zeros_like(counter.tied)
    bounds = widths * error_bound(queries.shape[1], halves)
    work = _Work(queries, items, wanted, bounds, widths, lengths, first, higher, tied)
    fused = fused or (_fused_counting(queries) if halves else None)
    counted = _count_fused(work, fused) if fused else None
    if counted is None:
        counted = _count_in_tiles(work, halves)
    if not counted:
        return False
    counter.candidates += len(items) - first
    if counter.excluded is not None and counter.excluded.active:
        _take_out_seen(queries, items, wanted, counter, higher, tied)
    counter.higher += higher
    counter.tied += tied
    return True


@dataclass(frozen=True)
class _Work:
    """What both ways of counting read, and the counts that they add to."""

    queries: torch.Tensor
    items: torch.Tensor
    wanted: torch.Tensor
    bounds: torch.Tensor
    widths: torch.Tensor
    lengths: torch.Tensor
    first: int
    higher: torch.Tensor
    tied: torch.Tensor

    def tell_apart(self, rows: torch.Tensor, places: torch.Tensor) -> None:
        """Count pairs by their exact scores."""
        _tell_apart(self.queries, self.items, self.wanted, rows, places, self.higher, self.tied)


def _count_in_tiles(work: _Work, halves: bool) -> bool:
    """Count by products that stand in memory tile by tile; False where nearly all of a tile is near."""
    left, right = work.queries, work.items
    if halves:
        left, right = _halves(left, "left"), _halves(right, "right")
    columns = min(len(right), _COLUMNS)
    step = max(1, _AT_ONCE // columns)
    for start in range(0, len(left), step):
        rows = slice(start, start + step)
        wanted, widths = work.wanted[rows], work.widths[rows]
        for column in range(work.first, len(right), columns):
            part = slice(column, min(column + columns, len(right)))
            scores, longest = _quick(left[rows], right[part]), work.lengths[part].max()
            margin = work.bounds[rows] * longest + _SMALLEST * (widths + longest + 1)
            near = scores >= (wanted - margin)[:, None]
            surely = scores > (wanted + margin)[:, None]
            work.higher[rows] += surely.sum(1)
            row, place = near.logical_xor_(surely).nonzero().unbind(1)
            if len(row) > max(1 << 16, _MOST_NEAR * scores.numel()):
                return False
            work.tell_apart(row + start, place + column)
    return True


def _count_fused(work: _Work, fused: Any) -> bool | None:
    """Count inside the product; False as for tiles, None with nothing counted where the kernel cannot run here."""
    halves = [_high_and_low(vectors) for vectors in (work.queries, work.items)]
    kernel = fused.Fused(*halves, work.wanted, work.bounds, work.widths, work.lengths, _SMALLEST, work.first)
    left = [slice(start, min(start + _ROWS, len(work.queries))) for start in range(0, len(work.queries), _ROWS)]
    while left:
        rows = left.pop()
        height = rows.stop - rows.start
        try:
            surely, near, found = kernel.count(rows)
        except Exception as error:  # of the compiler or the driver: many kinds, and each has another way
            log.info(f"ranking counts in tiles, not in one kernel ({str(error).strip().splitlines()[0]})")
            work.higher.zero_(), work.tied.zero_()
            return None
        if found > max(1 << 16, _MOST_NEAR * height * len(work.items)):
            return False
        if near is None:  # the list was too short: again in two halves
            middle = rows.start + -(-height // 2)
            left += [slice(rows.start, middle), slice(middle, rows.stop)]
            continue
        work.higher[rows] += surely
        row = torch.div(near, len(work.items), rounding_mode="floor")
        work.tell_apart(row + rows.start, near - row * len(work.items))
    return True


def _fused_counting(queries: torch.Tensor) -> Any:
    """The module of the kernel, where there is a Triton and a device for it."""
    if queries.device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return None
    from recllm_bench.evaluation import fused_counting

    return fused_counting if queries.shape[1] <= fused_counting.WIDEST else None


def error_bound(width: int, halves: bool) -> float:
    """By what part of ``|q| |t|`` a quick score may differ from the exact one, roundings of both included."""
    products = 3 * width if halves else width
    return 1.05 * ((3 * 2.0**-16 + 2.0**-20 if halves else 0.0) + products * 2.0**-22 + 2.0**-21)


def exact_scores(queries: torch.Tensor, items: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """``q_i . t_places[i]`` in float64, rounded to float32, ``[n]``."""
    found = torch.empty(len(queries), device=queries.device)
    for start in range(0, len(queries), _PAIRS):
        rows = slice(start, start + _PAIRS)
        found[rows] = (queries[rows].double() * items[places[rows]].double()).sum(1).float()
    return found


def _tell_apart(
    queries: torch.Tensor,
    items: torch.Tensor,
    wanted: torch.Tensor,
    rows: torch.Tensor,
    places: torch.Tensor,
    higher: torch.Tensor,
    tied: torch.Tensor,
    sign: int = 1,
) -> None:
    """Add pairs of case and item to the counts by their exact scores; with a negative sign take them out."""
    for row, place in zip(rows.split(_PAIRS), places.split(_PAIRS), strict=True):
        scores, own = exact_scores(queries[row], items, place), wanted[row]
        higher.index_add_(0, row, sign * (scores > own).long())
        tied.index_add_(0, row, sign * (scores == own).long())


def _take_out_seen(
    queries: torch.Tensor,
    items: torch.Tensor,
    wanted: torch.Tensor,
    counter: Counter,
    higher: torch.Tensor,
    tied: torch.Tensor,
) -> None:
    """Give items of the history, but not the target, no place, or the score 0 where the protocol says so."""
    assert counter.excluded is not None  # the caller has looked
    for start in range(0, len(queries), 1 << 16):
        owners, seen = counter.excluded.pairs(slice(start, start + (1 << 16)))
        pairs = torch.unique(owners * len(items) + seen)  # an item that occurs twice is one candidate
        owners, seen = torch.div(pairs, len(items), rounding_mode="floor") + start, pairs % len(items)
        kept = (seen != counter.targets[owners]) & (seen > 0)
        owners, seen = owners[kept], seen[kept]
        _tell_apart(queries, items, wanted, owners, seen, higher, tied, sign=-1)
        if counter.excluded.value == 0.0:
            higher.index_add_(0, owners, (wanted[owners] < 0).long())
            tied.index_add_(0, owners, (wanted[owners] == 0).long())
        else:
            counter.candidates.index_add_(0, owners, torch.full_like(owners, -1))


def _high_and_low(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    high = vectors.bfloat16()
    return high, (vectors - high.float()).bfloat16()


def _halves(vectors: torch.Tensor, side: str) -> torch.Tensor:
    """``[hi hi lo]`` of queries, ``[hi lo hi]`` of items: one product of both is the three that count."""
    high, low = _high_and_low(vectors)
    return torch.cat([high, high, low] if side == "left" else [high, low, high], 1)


def _quick(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Scores ``float32 [n, m]``."""
    return left @ right.T if left.dtype == torch.float32 else product_of_halves(left, right)


def _multiplies_halves(device: torch.device) -> bool:
    return device.type == "cuda" and sums_wide() and has_bfloat16(device)
