"""Which operations of a training step give other bits under two threads than under one, and what it would cost to mend.

    python benchmarks/threads.py

Shapes are those of SASRec on ml-100k. Nothing is recorded: the answer belongs to a processor and its libraries.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from recllm_bench import products

ROWS, WIDTH, ITEMS = 128 * 50, 64, 1682


class _SummedNorm(torch.autograd.Function):
    """Layer normalisation whose weights' gradients are sums over rows, which no number of threads reorders."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        found, mean, scale = torch.native_layer_norm(x, [x.shape[-1]], weight, bias, 1e-12)
        ctx.save_for_backward(x, weight, bias, mean, scale)
        return found

    @staticmethod
    def backward(ctx, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, bias, mean, scale = ctx.saved_tensors
        shape, mask = [x.shape[-1]], [True, False, False]
        for_x, _, _ = torch.ops.aten.native_layer_norm_backward(given, x, shape, mean, scale, weight, bias, mask)
        return for_x, (given * (x - mean) * scale).sum(0), given.sum(0)


def _leaf(*shape: int) -> Tensor:
    return torch.randn(*shape).requires_grad_()


def _through(module: Callable[..., Tensor], inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> list[Tensor]:
    """Output and all gradients."""
    found = module(*inputs)
    return [found, *torch.autograd.grad(found, [*inputs, *weights], torch.randn(found.shape))]


def _module(module: nn.Module, width: int) -> list[Tensor]:
    return _through(module, [_leaf(ROWS, width)], list(module.parameters()))


def _embedding() -> list[Tensor]:
    weight, items = _leaf(ITEMS, WIDTH), torch.randint(0, ITEMS, (ROWS,))
    return _through(lambda table: nn.functional.embedding(items, table), [weight])


def _attention() -> list[Tensor]:
    return _through(
        lambda q, k, v: nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
        [_leaf(128, 2, 50, WIDTH // 2) for _ in range(3)],
    )


def _cross_entropy() -> list[Tensor]:
    targets = torch.randint(0, ITEMS, (ROWS,))
    return _through(lambda scores: nn.functional.cross_entropy(scores, targets), [_leaf(ROWS, ITEMS)])


OPERATIONS: dict[str, Callable[[], list[Tensor]]] = {
    "products.Linear 64 -> 256": lambda: _module(products.Linear(WIDTH, 4 * WIDTH), WIDTH),
    "products.Linear 64 -> items": lambda: _module(products.Linear(WIDTH, ITEMS), WIDTH),
    "nn.Linear 64 -> 64": lambda: _module(nn.Linear(WIDTH, WIDTH), WIDTH),
    "nn.LayerNorm": lambda: _module(nn.LayerNorm(WIDTH), WIDTH),
    "layer norm with summed gradients": lambda: _through(
        _SummedNorm.apply, [_leaf(ROWS, WIDTH), _leaf(WIDTH), _leaf(WIDTH)]
    ),
    "embedding": _embedding,
    "attention": _attention,
    "cross entropy": _cross_entropy,
}


def differing(operation: Callable[[], list[Tensor]]) -> list[int]:
    """Which of output and gradients differ in any bit between one and two threads."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            found.append(operation())
    finally:
        torch.set_num_threads(before)
    return [place for place, (one, two) in enumerate(zip(*found, strict=True)) if not torch.equal(one, two)]


def milliseconds(operation: Callable[[], list[Tensor]], times: int = 10) -> float:
    """Least processor time of one call."""
    least = float("inf")
    for _ in range(times):
        start = time.process_time()
        operation()
        least = min(least, time.process_time() - start)
    return 1000 * least


def main() -> None:
    """Print both for every operation."""
    for name, operation in OPERATIONS.items():
        places = differing(operation)
        said = f"differs in {', '.join('output' if not p else f'gradient {p}' for p in places)}" if places else "same"
        print(f"{name:<34} {milliseconds(operation):7.2f} ms   {said}", flush=True)


if __name__ == "__main__":
    main()
