"""AdamW that moves only the rows that were looked up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class RowAdamW(torch.optim.Optimizer):
    """AdamW with row-wise laziness: a row without gradient keeps its value, its moments and its own step count.

    A parameter whose gradient is row-sparse is updated on the rows of that gradient alone: their moments are gathered,
    moved and put back, each row's bias correction counts the row's own updates, and decay acts on these rows only. A
    parameter with a dense gradient is updated as by ``torch.optim.AdamW``. So both agree where every row is touched at
    every step.

    Parameters
    ----------
    lr, betas, eps, weight_decay
        As in ``torch.optim.AdamW``.
    clip_norm : float
        Largest norm of all gradients together (0: no limit); sparse ones count by their rows.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip_norm: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.clip_norm = clip_norm

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; returns nothing."""
        gradients = self._gradients()
        if self.clip_norm and gradients:
            norms = torch.stack([_values(gradient).norm() for gradient in gradients.values()])
            factor = (self.clip_norm / (norms.norm() + 1e-6)).clamp(max=1.0)
            for gradient in gradients.values():
                _values(gradient).mul_(factor)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter in gradients:
                    self._update(parameter, gradients[parameter], group)

    def _gradients(self) -> dict[nn.Parameter, Tensor]:
        found = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    found[parameter] = parameter.grad.coalesce() if parameter.grad.is_sparse else parameter.grad
        return found

    def _update(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
            if gradient.is_sparse:
                state["row_steps"] = torch.zeros(len(parameter), dtype=torch.float32, device=parameter.device)
        state["step"] += 1
        if not gradient.is_sparse:
            moments = state["exp_avg"], state["exp_avg_sq"]
            _adamw(parameter, gradient, *moments, state["step"].to(parameter.device), group)
            return
        rows, values = gradient.indices()[0], gradient.values()
        state["row_steps"][rows] += 1
        steps = state["row_steps"][rows][:, None]
        gathered = [tensor[rows] for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"])]
        _adamw(gathered[0], values, gathered[1], gathered[2], steps, group)
        for tensor, moved in zip((parameter, state["exp_avg"], state["exp_avg_sq"]), gathered, strict=True):
            tensor[rows] = moved


def _values(gradient: Tensor) -> Tensor:
    return gradient.values() if gradient.is_sparse else gradient


def _adamw(value: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, steps: Tensor, group: dict[str, Any]) -> None:
    """Decoupled weight decay and Adam's move, in place (Loshchilov & Hutter 2019, algorithm 2)."""
    first, second = group["betas"]
    steps = steps.to(value.dtype)
    value.mul_(1 - group["lr"] * group["weight_decay"])
    mean.lerp_(gradient, 1 - first)
    square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
    scale = (square / (1 - second**steps)).sqrt_().add_(group["eps"])
    value.sub_(group["lr"] * (mean / (1 - first**steps)) / scale)
