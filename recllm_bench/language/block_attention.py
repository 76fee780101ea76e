"""Attention among packed rows by blocks: blocks of places that see nothing of each other cost nothing.

A dense mask makes a packed pass pay for every pair of places. ``flex_attention`` is given which blocks of 128 x 128
hold a pair that counts, skips the others and asks for single places only inside those it keeps. Compiled on CUDA; on a
CPU the same function runs uncompiled and without gradient, which is how tests hold it against the dense mask.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recllm_bench.progress import log

NAME = "recllm_blocks"
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_COARSE = 0.05  # of half precision


@dataclass(frozen=True)
class Documents:
    """Which places of packed rows see each other: the earlier ones of the same document.

    Attributes
    ----------
    units : int [R, C]
        Document of each place; 0: padding, which sees padding.
    branches : int [R, C], optional
        Continuation within the document; all see its beginning (0), none another continuation.
    """

    units: Tensor
    branches: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the dense mask."""
        return (len(self.units), 1, self.units.shape[1], self.units.shape[1])

    def dim(self) -> int:
        """Of the dense mask."""
        return 4

    def to(self, device: torch.device | str) -> Documents:
        """The same on a device."""
        return Documents(self.units.to(device), None if self.branches is None else self.branches.to(device))

    def dense(self) -> Tensor:
        """Which places each place sees, bool ``[R, 1, C, C]``."""
        units, branches = self.units, self.branches
        seen = units[:, :, None] == units[:, None, :]
        if branches is not None:
            seen = seen & ((branches[:, None, :] == 0) | (branches[:, :, None] == branches[:, None, :]))
        return seen.tril()[:, None]

    def blocks(self) -> Any:
        """The same as a block mask."""
        from torch.nn.attention.flex_attention import create_block_mask

        units, branches = self.units, self.branches

        def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            found = (units[row, query] == units[row, key]) & (key <= query)
            if branches is None:
                return found
            return found & ((branches[row, key] == 0) | (branches[row, query] == branches[row, key]))

        rows, _, length, _ = self.shape
        return create_block_mask(seen, rows, None, length, length, device=str(units.device))


def attend_by_blocks(backbone: Any, *, gradient: bool = True) -> bool:
    """Let a language model attend by blocks wherever it is given :class:`Documents`, if that is the same here.

    It is tried on a small packed row; where it fails or differs the model stays as it is and the log says why.

    Parameters
    ----------
    backbone : Backbone
        Loaded and frozen.
    gradient : bool
        Whether gradients pass through it, which on a CPU they cannot.

    Returns
    -------
    bool
        Whether it does.
    """
    config = backbone.model.base_model.config
    before = config._attn_implementation
    if before == NAME:
        return True
    try:
        if before != "sdpa":
            raise ValueError(f"its attention is {before}")
        _register()
        units = torch.repeat_interleave(torch.arange(1, 4), torch.tensor([9, 5, 7]))[None].to(backbone.device)
        ids = (torch.arange(21) * 7919 + 3)[None] % backbone.vocabulary
        expected = _states_and_gradient(backbone, ids, Documents(units), gradient)
        config._attn_implementation = NAME
        found = _states_and_gradient(backbone, ids, Documents(units), gradient)
        allowed = _TOLERANCE.get(backbone.dtype, _COARSE)
        for one, two in zip(found, expected, strict=True):
            if not (one - two).norm() <= allowed * two.norm():
                raise ValueError("its states are others")
    except Exception as error:  # of a compiler, of a library's version: many kinds, and each has the dense way
        config._attn_implementation = before
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        log.info(f"language model '{backbone.name}': packed rows have dense masks ({reason})")
        return False
    return True


def attends_by_blocks(model: Any) -> bool:
    """Whether :func:`attend_by_blocks` has been successful."""
    return getattr(model.base_model.config, "_attn_implementation", "") == NAME


def _states_and_gradient(backbone: Any, ids: Tensor, documents: Documents, gradient: bool) -> list[Tensor]:
    inputs = backbone.embed(ids).detach().requires_grad_(gradient)
    place = torch.arange(ids.shape[1], device=backbone.device)
    first = torch.searchsorted(documents.units[0], documents.units[0])
    with torch.set_grad_enabled(gradient):
        states = backbone.states(inputs, documents, (place - first)[None])
    if not gradient:
        return [states.double()]
    return [states.detach().double(), torch.autograd.grad(states.float().square().sum(), inputs)[0].double()]


@functools.cache
def _register() -> None:
    """Tell transformers of an attention that takes block masks, and does all else as SDPA does."""
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **named: Any
    ) -> tuple[Tensor, None]:
        if not isinstance(attention_mask, BlockMask):
            return sdpa_attention_forward(module, query, key, value, attention_mask, **named)
        if named.get("dropout"):
            raise ValueError("attention by blocks has no dropout")
        shared = query.shape[1] != key.shape[1]
        mixed = _flex(query.device.type)(
            query, key, value, block_mask=attention_mask, scale=named.get("scaling"), enable_gqa=shared
        )
        return mixed.transpose(1, 2).contiguous(), None

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


@functools.cache
def _flex(kind: str) -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    attend: Callable[..., Any] = flex_attention
    return torch.compile(attend) if kind == "cuda" else attend
