"""Views of a sequence for contrastive learning, made for a whole batch at once (CL4SRec, Xie et al. 2022)."""

from __future__ import annotations

import torch

OPERATORS = ("crop", "mask", "reorder")


def crop(item_seq: torch.Tensor, lengths: torch.Tensor, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """Keep a random run of ``max(1, floor(ratio * length))`` items.

    Parameters
    ----------
    item_seq : int64 [B, L]
        Right-padded with 0.
    lengths : int64 [B]
    ratio : float
        Share kept.

    Returns
    -------
    int64 [B, L]
        Right-padded.
    """
    kept = _kept(lengths, ratio)
    start = _start(lengths, kept, generator)
    column = _columns(item_seq)
    moved = item_seq.gather(1, (column + start[:, None]).clamp(max=item_seq.shape[1] - 1))
    return moved * (column < kept[:, None])


def mask(
    item_seq: torch.Tensor, lengths: torch.Tensor, ratio: float, generator: torch.Generator, token: int = 0
) -> torch.Tensor:
    """Replace ``floor(ratio * length)`` random items by ``token``; shapes as in :func:`crop`."""
    order = _noise(item_seq, generator).masked_fill_(_columns(item_seq) >= lengths[:, None], 2.0).argsort(1)
    hidden = _columns(item_seq) < (lengths * ratio).long()[:, None]
    return torch.where(torch.zeros_like(hidden).scatter_(1, order, hidden), token, item_seq)


def reorder(item_seq: torch.Tensor, lengths: torch.Tensor, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """Shuffle a random run of ``floor(ratio * length)`` items; shapes as in :func:`crop`."""
    size = (lengths * ratio).long()
    start = _start(lengths, size, generator)[:, None]
    column = _columns(item_seq)
    inside = (column >= start) & (column < start + size[:, None])
    # Keys of the run lie in [start, start + size) in random order; all others keep their own place.
    keys = torch.where(inside, start + size[:, None] * _noise(item_seq, generator), column.to(torch.float32))
    return item_seq.gather(1, keys.argsort(dim=1, stable=True))


def random_view(
    item_seq: torch.Tensor,
    lengths: torch.Tensor,
    ratios: tuple[float, float, float],
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply one operator, drawn for each sequence, out of crop, mask and reorder.

    Parameters
    ----------
    item_seq : int64 [B, L]
        Right-padded.
    lengths : int64 [B]
    ratios : tuple of float
        Of crop, mask and reorder.

    Returns
    -------
    views : int64 [B, L]
        Right-padded; mask leaves zeros inside.
    lengths : int64 [B]
        Shorter than before where a sequence was cropped; masked places count.
    """
    chosen = torch.randint(len(OPERATORS), (len(item_seq), 1), generator=generator, device=item_seq.device)
    views = [
        operator(item_seq, lengths, ratio, generator)
        for operator, ratio in zip((crop, mask, reorder), ratios, strict=True)
    ]
    view = torch.where(chosen == 0, views[0], torch.where(chosen == 1, views[1], views[2]))
    return view, torch.where(chosen[:, 0] == 0, _kept(lengths, ratios[0]), lengths)


def _kept(lengths: torch.Tensor, ratio: float) -> torch.Tensor:
    return (lengths * ratio).long().clamp(min=1)


def _columns(item_seq: torch.Tensor) -> torch.Tensor:
    return torch.arange(item_seq.shape[1], device=item_seq.device).expand_as(item_seq)


def _noise(item_seq: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(item_seq.shape, generator=generator, device=item_seq.device)


def _start(lengths: torch.Tensor, size: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """First place of a run of ``size`` items, uniform over all places where it fits."""
    places = lengths - size + 1
    uniform = torch.rand(lengths.shape, generator=generator, device=lengths.device, dtype=torch.float64)
    return (uniform * places).long().clamp_(max=places - 1)
