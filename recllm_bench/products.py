"""Matrix products with all the vector units of a processor.

PyTorch hands float32 products to MKL, which may leave vector units of processors that are not Intel's unused. oneDNN,
which PyTorch brings along, uses the full width everywhere: the same product, up to the order of sums.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

ROWS = 32
"""oneDNN compiles code for every shape, which takes milliseconds: numbers of rows are rounded up to multiples of it."""
_SMALLEST = 1 << 22  # multiplications; below, what a call costs outweighs what it saves


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``, differentiable once.

    Parameters
    ----------
    x : Tensor [..., k]
        Large products on the CPU in float32, outside autocast, take the fast way; all others PyTorch's own.
    weight : Tensor [m, k]
        May be a transposed view.
    bias : Tensor [m], optional

    Returns
    -------
    Tensor [..., m]
    """
    if not _is_large(x, weight):
        return nn.functional.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    missing = -len(rows) % ROWS
    if not missing:
        return _Linear.apply(rows, weight, bias).view(*x.shape[:-1], len(weight))
    found = _Linear.apply(nn.functional.pad(rows, (0, 0, 0, missing)), weight, bias)
    return found[: len(rows)].view(*x.shape[:-1], len(weight))


def product(x: Tensor, weight: Tensor) -> Tensor:
    """``x [n, k] @ weight.T [k, m]`` without gradient, by the fast way where :func:`linear` takes it.

    Either may be a transposed view. Callers round ``n`` and ``k`` to multiples of :data:`ROWS` where they vary.
    """
    return _product(x, weight) if _is_large(x, weight) else x @ weight.T


def product_of_halves(x: Tensor, weight: Tensor) -> Tensor:
    """``x [n, k] @ weight.T [k, m]`` of factors of 16 bits, added up and returned in float32."""
    if x.is_cuda and sums_wide():
        return torch.mm(x, weight.T, out_dtype=torch.float32)
    return x.float() @ weight.float().T


@functools.cache
def sums_wide() -> bool:
    """Whether this torch multiplies halves into float32 on CUDA (from 2.8)."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 8)


def has_bfloat16(device: torch.device) -> bool:
    """Whether a CUDA device computes in bfloat16: cards before Ampere do not."""
    return not torch.cuda.is_available() or torch.cuda.get_device_capability(device) >= (8, 0)


class Linear(nn.Linear):
    """``nn.Linear`` by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in_features]`` to ``[..., out_features]``."""
        return linear(x, self.weight, self.bias)


def accelerate(model: nn.Module) -> nn.Module:
    """Let every ``nn.Linear`` of a model multiply by :func:`linear`; returns the model, with the same parameters."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear  # adds no state, so that parameters, hooks and names stay as they are
    return model


@functools.cache
def _operator() -> Callable[..., Tensor] | None:
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def _is_large(x: Tensor, weight: Tensor) -> bool:
    return (
        x.numel() * len(weight) >= max(_SMALLEST, 1)
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and _operator() is not None
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    operator = _operator()
    assert operator is not None  # _is_large has looked
    return operator(x, weight, bias, "none", [], "")


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
            _gradient_of_weight(given, x) if for_weight else None,
            given.sum(0) if for_bias else None,
        )


def _gradient_of_weight(given: Tensor, x: Tensor) -> Tensor:
    # What has far fewer rows comes first: oneDNN gains more by it than turning the result round costs.
    if given.shape[1] < 3 * x.shape[1]:
        return _product(given.T, x.T)
    return _product(x.T, given.T).T
