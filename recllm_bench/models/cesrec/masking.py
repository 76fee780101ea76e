"""Masking outliers of a history by the geometry of its items' vectors (CESRec, equations 3 to 5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from recllm_bench.errors import BenchError

SIMILARITIES, MODES = ("cosine", "l2"), ("drop", "mark", "tail")
_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 26}  # numbers gathered at a time; on a CPU they stay in its cache


@dataclass(frozen=True)
class Masked:
    """Histories without their outliers.

    Attributes
    ----------
    items : int64 [B, L]
        Right-padded with 0. ``drop``: what was kept, in order; ``mark``: the input; ``tail``: what was kept, then what
        was masked, both in order.
    lengths : int64 [B]
    masked : bool [B, L]
        Positions of the *input* that were masked.
    reduced : int
        Rows with fewer than ``k`` masked items, because at least ``min_keep`` must stay.
    """

    items: torch.Tensor
    lengths: torch.Tensor
    masked: torch.Tensor
    reduced: int


@torch.no_grad()
def mask_outliers(
    vectors: torch.Tensor,
    item_seq: torch.Tensor,
    lengths: torch.Tensor,
    *,
    k: int,
    min_keep: int = 3,
    similarity: str = "cosine",
    mode: str = "drop",
) -> Masked:
    """Mask the ``k`` items of each history that are least like its mean, all histories at once.

    Parameters
    ----------
    vectors : float [n_items + 1, d]
        Item vectors (the hybrid ones of equation 2); row 0 is padding and is not read.
    item_seq : int64 [B, L]
        Histories, oldest first, right-padded with 0.
    lengths : int64 [B]
    k : int
        Items to mask; a history of ``n`` items loses ``min(k, n - min_keep)`` at most.
    min_keep : int
        Items that stay at least.
    similarity : {"cosine", "l2"}
        To the mean of the history's vectors (the item included): lowest cosine, or largest distance. A vector of zero
        length has the cosine 0. Among equals the older item is masked first.
    mode : {"drop", "mark", "tail"}
        What becomes of a masked item, see :class:`Masked`.

    Raises
    ------
    BenchError
        For values out of range, and for vectors that are not numbers.
    """
    if similarity not in SIMILARITIES or mode not in MODES:
        raise BenchError(
            f"masking: similarity '{similarity}' must be one of {', '.join(SIMILARITIES)} and mode '{mode}' one of "
            f"{', '.join(MODES)}"
        )
    if k < 0 or min_keep < 0:
        raise BenchError(f"masking: k={k} and min_keep={min_keep} must not be negative")
    vectors = vectors.detach().float().clone()
    vectors[0] = 0  # padding adds nothing to a mean
    if not torch.isfinite(vectors).all():
        raise BenchError("masking: item vectors hold values that are not numbers; train the adapter again")
    item_seq, lengths = item_seq.to(vectors.device), lengths.to(vectors.device)
    wanted = torch.minimum((lengths - min_keep).clamp(min=0), torch.full_like(lengths, k))
    masked = torch.zeros_like(item_seq, dtype=torch.bool)
    if k and item_seq.numel():
        norms = vectors.norm(dim=1)
        norms = torch.where(norms > 0, norms, torch.ones_like(norms))
        for rows, longest in _rows_of_like_length(lengths, vectors.shape[1]):
            items = item_seq[rows, :longest]
            likeness = _likeness(vectors, norms, items, lengths[rows], similarity)
            masked[rows, :longest] = _lowest(likeness, wanted[rows], k)
    return Masked(*kept(item_seq, lengths, masked, mode), masked, int((wanted < k).sum()))


def _rows_of_like_length(lengths: torch.Tensor, width: int) -> Iterator[tuple[torch.Tensor, int]]:
    """Rows with a history, by length, and the longest of each part: little of what is gathered is padding."""
    order = lengths.argsort(stable=True)
    sizes = lengths[order].cpu()
    at_once = _AT_ONCE["cpu" if lengths.device.type == "cpu" else "cuda"] // width
    start = int((sizes == 0).sum())
    while start < len(order):
        end = start + max(1, at_once // int(sizes[start]))
        while end - start > 1 and (min(end, len(order)) - start) * int(sizes[min(end, len(order)) - 1]) > 2 * at_once:
            end = start + (end - start + 1) // 2
        end = min(end, len(order))
        yield order[start:end], int(sizes[end - 1])
        start = end


def _likeness(
    vectors: torch.Tensor, norms: torch.Tensor, items: torch.Tensor, lengths: torch.Tensor, similarity: str
) -> torch.Tensor:
    """Similarity of each item to its history's mean [b, L], up to a factor of the row; infinite at padding."""
    own = vectors.index_select(0, items.flatten()).view(*items.shape, -1)
    mean = own.sum(1, keepdim=True) / lengths[:, None, None]
    # Products are summed item by item: equal items get equal sums wherever they stand, so that ties are exact.
    # The length of the mean does not change the order of the cosines.
    found = own.mul_(mean).sum(2) / norms[items] if similarity == "cosine" else -own.sub_(mean).square_().sum(2)
    return found.masked_fill_(torch.arange(items.shape[1], device=items.device) >= lengths[:, None], torch.inf)


def _lowest(values: torch.Tensor, counts: torch.Tensor, k: int) -> torch.Tensor:
    """Which ``counts`` entries of each row are lowest, the first among equals; ``counts <= k``."""
    if k <= 4:
        chosen = torch.zeros_like(values, dtype=torch.bool)
        values = values.clone()
        for number in range(min(k, values.shape[1])):
            at = values.argmin(1, keepdim=True)
            chosen.scatter_(1, at, chosen.gather(1, at) | (counts > number)[:, None])
            values.scatter_(1, at, torch.inf)
        return chosen
    order = values.argsort(dim=1, stable=True)
    among = torch.arange(values.shape[1], device=values.device) < counts[:, None]
    return torch.zeros_like(among).scatter_(1, order, among)


def kept(
    items: torch.Tensor, lengths: torch.Tensor, masked: torch.Tensor, mode: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Items and lengths without what is masked, as ``mode`` says."""
    if mode == "mark":
        return items, lengths
    inside = torch.arange(items.shape[1], device=items.device) < lengths[:, None]
    stays = inside & ~masked
    n_kept = stays.sum(1, keepdim=True)
    after = torch.where(stays, stays.cumsum(1) - 1, n_kept + masked.cumsum(1) - 1)
    moved = inside if mode == "tail" else stays
    result = torch.zeros_like(items)
    rows = moved.nonzero()[:, 0]
    result[rows, after[moved]] = items[moved]
    return result, lengths if mode == "tail" else n_kept[:, 0]
