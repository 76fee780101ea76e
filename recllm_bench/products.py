"""Matrix products with all the vector units of a processor.

PyTorch hands float32 products to MKL, which uses half the vector width on processors that are not Intel's. oneDNN,
which PyTorch brings along, uses the full width everywhere: the same product in half the time, up to the order of sums.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

ROWS = 32
"""oneDNN compiles code for every shape, which takes milliseconds: only multiples of this number of rows go to it."""
_SMALLEST = 1 << 22  # multiplications; below, what a call costs outweighs what it saves


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``, differentiable once.

    Parameters
    ----------
    x : Tensor [n, k] or [..., k]
        Only a matrix on the CPU, in float32, with a multiple of :data:`ROWS` rows takes the fast way.
    weight : Tensor [m, k]
        May be a transposed view.
    bias : Tensor [m], optional

    Returns
    -------
    Tensor [n, m] or [..., m]
    """
    if (
        x.dim() != 2
        or len(x) % ROWS
        or x.numel() * len(weight) < _SMALLEST
        or not (x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32)
        or torch.is_autocast_enabled("cpu")
        or _operator() is None
    ):
        return nn.functional.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


class Linear(nn.Linear):
    """``nn.Linear`` by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in_features]`` to ``[..., out_features]``."""
        return linear(x, self.weight, self.bias)


@functools.cache
def _operator() -> Callable[..., Tensor] | None:
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return _operator()(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        given = given.contiguous()
        return (
            _product(given, weight.T) if for_x else None,
            _product(given.T, x.T) if for_weight else None,
            given.sum(0) if for_bias else None,
        )
