"""Cross entropy over words, users and items, in pieces: no step holds the logits of the whole vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recllm_bench.products import product_of_halves

_COLUMNS = 4096
_LEAST_ROWS = (
    32  # predictions in a piece that holds all classes; with fewer, products would read more than they compute
)


@dataclass(frozen=True)
class Block:
    """Neighbouring classes of one softmax; their logits are ``query @ table.T + bias + shift``.

    Attributes
    ----------
    query : Tensor [N, d]
        One row for each prediction.
    table : Tensor [n, d]
        One row for each class.
    shift : Tensor [N], optional
        Added to all logits of a prediction.
    bias : Tensor [n], optional
        Added to all logits of a class; gets no gradient.
    """

    query: Tensor
    table: Tensor
    shift: Tensor | None = None
    bias: Tensor | None = None


def scores_at_once(wanted: int, device: torch.device | str) -> int:
    """Logits held at once: what is wanted, else what suits the device's caches and memory."""
    return wanted or (1 << 26 if torch.device(device).type == "cuda" else 1 << 20)


def negative_log_likelihood(blocks: Sequence[Block], targets: Tensor, at_once: int = 1 << 20) -> Tensor:
    """``-log softmax`` of each prediction's target over all blocks side by side.

    Logits and their gradients are made in pieces of at most ``at_once`` numbers, forward and again backward; besides
    there is one number for each prediction, so that the catalogue's size costs no memory.

    Parameters
    ----------
    blocks : sequence of Block
        In the order of the class ids.
    targets : int64 [N]
        Class ids over all blocks.
    at_once : int
        Most logits in memory.

    Returns
    -------
    Tensor [N]
        In float32, or float64 where the states are; differentiable to every query, table and shift.
    """
    flat = [part for block in blocks for part in (block.query, block.table, block.shift)]
    return _Likelihood.apply(targets, at_once, tuple(block.bias for block in blocks), *flat)


def weighted_likelihood(
    blocks: Sequence[Block], targets: Tensor, weights: Tensor, at_once: int = 1 << 20
) -> tuple[Tensor, Tensor]:
    """``sum_n weights[n] * nll[n]``, and every ``nll[n]`` without gradient.

    With the weights known, gradients are made in the forward pass while the logits are at hand, a few predictions and
    all their classes at a time: nothing is computed twice. Where so many classes do not fit into a piece, this is the
    sum over :func:`negative_log_likelihood`.

    Parameters
    ----------
    blocks, targets, at_once
        As for :func:`negative_log_likelihood`.
    weights : float [N]

    Returns
    -------
    loss : scalar Tensor
    values : Tensor [N]
    """
    classes = sum(len(block.table) for block in blocks)
    if classes * _LEAST_ROWS > at_once or not torch.is_grad_enabled():
        values = negative_log_likelihood(blocks, targets, at_once)
        return (values * weights).sum(), values.detach()
    flat = [part for block in blocks for part in (block.query, block.table, block.shift)]
    return _WeightedLikelihood.apply(targets, weights, at_once, tuple(block.bias for block in blocks), *flat)


class _Likelihood(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, targets: Tensor, at_once: int, biases: tuple, *flat: Tensor | None) -> Tensor:
        blocks = _blocks(flat, biases)
        with _full_precision(targets.device):
            kind = torch.promote_types(blocks[0].query.dtype, blocks[0].table.dtype)
            kind = torch.promote_types(kind, torch.float32)
            largest = torch.full((len(targets),), -torch.inf, dtype=kind, device=targets.device)
            wanted, total, first = torch.zeros_like(largest), torch.zeros_like(largest), 0
            for block in blocks:
                for rows, columns in _pieces(block, at_once):
                    logits = _logits(block, rows, columns)
                    peak = torch.maximum(largest[rows], logits.amax(1))
                    total[rows] = total[rows] * (largest[rows] - peak).exp_()
                    largest[rows] = peak
                    local = targets[rows] - (first + columns.start)
                    inside = (local >= 0) & (local < columns.stop - columns.start)
                    picked = logits.gather(1, local.clamp(0, columns.stop - columns.start - 1)[:, None])[:, 0]
                    wanted[rows] = torch.where(inside, picked, wanted[rows])
                    total[rows] += logits.sub_(peak[:, None]).exp_().sum(1)
                first += len(block.table)
            normaliser = largest + total.log()
        context.save_for_backward(targets, normaliser, *flat)
        context.at_once, context.biases = at_once, biases
        return normaliser - wanted

    @staticmethod
    def backward(context: Any, upstream: Tensor) -> tuple:
        targets, normaliser, *flat = context.saved_tensors
        blocks, wants = _blocks(flat, context.biases), context.needs_input_grad[3:]
        gradients: list[Tensor | None] = []
        first = 0
        with _full_precision(targets.device):
            for number, block in enumerate(blocks):
                to_query, to_table, to_shift = wants[3 * number : 3 * number + 3]
                kind = upstream.dtype
                query = torch.zeros_like(block.query, dtype=kind) if to_query else None
                table = torch.zeros_like(block.table, dtype=kind) if to_table else None
                shift = torch.zeros_like(block.shift, dtype=kind) if to_shift and block.shift is not None else None
                for rows, columns in _pieces(block, context.at_once):
                    share = _logits(block, rows, columns).sub_(normaliser[rows, None]).exp_()
                    share.mul_(upstream[rows, None])
                    local = targets[rows] - (first + columns.start)
                    inside = (local >= 0) & (local < columns.stop - columns.start)
                    place = local.clamp(0, columns.stop - columns.start - 1)[:, None]
                    share.scatter_add_(1, place, -(upstream[rows] * inside)[:, None])
                    if query is not None:
                        query[rows] += _product(share, block.table[columns].T, rough=True)
                    if table is not None:
                        table[columns] += _product(share.T, block.query[rows].T, rough=True)
                    if shift is not None:
                        shift[rows] += share.sum(1)
                for gradient, of in ((query, block.query), (table, block.table), (shift, block.shift)):
                    gradients.append(None if gradient is None or of is None else gradient.to(of.dtype))
                first += len(block.table)
        return None, None, None, *gradients


class _WeightedLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, targets: Tensor, weights: Tensor, at_once: int, biases: tuple, *flat: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        blocks = _blocks(flat, biases)
        kind = torch.promote_types(blocks[0].query.dtype, torch.float32)
        weights = weights.to(kind)
        gradients: list[Tensor | None] = [
            torch.zeros_like(part, dtype=kind) if part is not None and wanted else None
            for part, wanted in zip(flat, context.needs_input_grad[4:], strict=True)
        ]
        values = torch.empty_like(weights)
        height = max(1, at_once // sum(len(block.table) for block in blocks))
        with _full_precision(targets.device):
            for start in range(0, len(targets), height):
                rows = slice(start, min(start + height, len(targets)))
                _one_piece(blocks, rows, targets[rows], weights[rows], values, gradients)
        context.save_for_backward(*(gradient for gradient in gradients if gradient is not None))
        context.kinds = [None if part is None or made is None else part.dtype for part, made in zip(flat, gradients)]  # noqa: B905
        context.mark_non_differentiable(values)
        return (values * weights).sum(), values

    @staticmethod
    def backward(context: Any, upstream: Tensor, _: Tensor) -> tuple:
        made = iter(context.saved_tensors)
        gradients = [None if kind is None else (next(made) * upstream).to(kind) for kind in context.kinds]
        return None, None, None, None, *gradients


def _one_piece(
    blocks: Sequence[Block],
    rows: slice,
    targets: Tensor,
    weights: Tensor,
    values: Tensor,
    gradients: Sequence[Tensor | None],
) -> None:
    """Likelihoods of some predictions over all classes, and what they add to the gradients."""
    pieces = [_logits(block, rows, slice(0, len(block.table))) for block in blocks]
    peak = torch.stack([piece.amax(1) for piece in pieces]).amax(0)
    wanted, first, places = torch.zeros_like(peak), 0, []
    for piece in pieces:
        local = targets - first
        inside = (local >= 0) & (local < piece.shape[1])
        places.append((local.clamp(0, piece.shape[1] - 1)[:, None], inside))
        wanted = torch.where(inside, piece.gather(1, places[-1][0])[:, 0], wanted)
        first += piece.shape[1]
    total = torch.stack([piece.sub_(peak[:, None]).exp_().sum(1) for piece in pieces]).sum(0)
    values[rows] = peak + total.log() - wanted
    scale = (weights / total)[:, None]
    for number, (block, piece, (place, inside)) in enumerate(zip(blocks, pieces, places, strict=True)):
        query, table, shift = gradients[3 * number : 3 * number + 3]
        share = piece.mul_(scale).scatter_add_(1, place, -(weights * inside)[:, None])
        if query is not None:
            query[rows] = _product(share, block.table.T, rough=True)
        if table is not None:
            table += _product(share.T, block.query[rows].T, rough=True)
        if shift is not None:
            shift[rows] = share.sum(1)


def _blocks(flat: Sequence[Tensor | None], biases: Sequence[Tensor | None]) -> list[Block]:
    found = []
    for number, bias in enumerate(biases):
        query, table, shift = flat[3 * number : 3 * number + 3]
        assert query is not None and table is not None  # only a shift may be absent
        found.append(Block(query, table, shift, bias))
    return found


def _full_precision(device: torch.device) -> Any:
    """No autocast inside: logits in half precision lose the small differences that ranking lives on."""
    return torch.autocast(device.type, enabled=False)


def _pieces(block: Block, at_once: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of pieces that hold at most ``at_once`` logits."""
    n_rows, n_columns = len(block.query), len(block.table)
    # Square-ish pieces do most arithmetic for each number they read.
    width = max(1, min(n_columns, max(_COLUMNS, at_once // max(1, n_rows)), at_once))
    height = max(1, at_once // width)
    for first in range(0, n_columns, width):
        columns = slice(first, min(first + width, n_columns))
        for start in range(0, n_rows, height):
            yield slice(start, min(start + height, n_rows)), columns


def _logits(block: Block, rows: slice, columns: slice) -> Tensor:
    logits = _product(block.query[rows], block.table[columns])
    if block.shift is not None:
        logits += block.shift[rows, None]
    if block.bias is not None:
        logits += block.bias[columns]
    return logits


def _product(left: Tensor, right: Tensor, rough: bool = False) -> Tensor:
    """``left @ right.T`` in at least float32.

    Factors in half precision are multiplied as such where their sums stay float32: on a GPU always, on a CPU only when
    the result may be ``rough``, as gradients may.
    """
    low = (torch.bfloat16, torch.float16)
    kind = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
    half = next((part.dtype for part in (right, left) if part.dtype in low), None)
    if half is None or not (left.is_cuda or rough):
        return left.to(kind) @ right.to(kind).T
    if left.is_cuda:
        return product_of_halves(left.to(half), right.to(half))
    return (left.to(half) @ right.to(half).T).to(kind)
