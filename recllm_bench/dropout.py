"""Dropout that is cheap on a CPU.

A CPU draws random numbers one after the other, so that plain dropout costs more than the layers around it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """``nn.Dropout`` that on a CPU draws one random byte for an element, eight at once.

    An element is dropped when its byte is below ``round(256 p)``. The probability is therefore a multiple of 1/256 (at
    least one unless it is 0), and the kept elements are scaled by exactly its complement.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``; ``x`` itself in evaluation mode."""
        if not self.training or not self.p:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        threshold = min(255, max(1, round(256 * self.p)))
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        drawn = words.view(torch.uint8)[: x.numel()].view(x.shape)
        # compared as numbers of the values' type, which has vector instructions on a CPU; bytes have none
        return x * drawn.to(x.dtype).ge_(threshold).mul_(256 / (256 - threshold))


def draw_bytes(model: nn.Module) -> nn.Module:
    """Let every ``nn.Dropout`` of a model be a :class:`Dropout`; returns the model."""
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = Dropout  # adds no state, so that hooks and names stay as they are
    return model
