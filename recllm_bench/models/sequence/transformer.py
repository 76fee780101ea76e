"""Causal Transformer blocks shared by the SASRec family."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from recllm_bench.dropout import Dropout

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


class CausalAttention(nn.Module):
    """Multi-head self-attention over the positions up to one's own.

    Parameters
    ----------
    width, heads : int
        ``width`` must be a multiple of ``heads``.
    dropout : float
        Of the attention weights. Above 0 the weights are formed whole; at 0 they never are.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.dense = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Attend.

        Parameters
        ----------
        x : float [B, L, width]
        bias : float [B, 1, L, L], optional
            Added to the scores instead of the causal mask.

        Returns
        -------
        float [B, L, width]
        """
        batch, length, width = x.shape
        parts = self.project(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        if not (self.training and self.dropout.p):
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, is_causal=bias is None)
        else:
            scores = query @ key.transpose(2, 3) * (width // self.heads) ** -0.5
            if bias is None:
                future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu_(1)
                scores = scores.masked_fill(future, -torch.inf)
            else:
                scores = scores + bias
            mixed = self.dropout(scores.softmax(-1)) @ value
        return self.dense(mixed.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Attention and a two-layer network, each with a residual connection.

    Parameters
    ----------
    width, heads, inner : int
        Model width, attention heads, width between the two layers.
    dropout, attention_dropout : float
        Of the residual branches, and of the attention weights.
    activation : str
        A name in ``ACTIVATIONS``.
    eps : float
        Of the layer normalisations.
    norm_first : bool
        Normalise what enters a branch (steadier), or the sum that leaves it (the published S3Rec and BERT layout).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int,
        dropout: float,
        attention_dropout: float,
        activation: str,
        eps: float,
        norm_first: bool,
    ) -> None:
        super().__init__()
        self.attention = CausalAttention(width, heads, attention_dropout)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.widen = nn.Linear(width, inner)
        self.narrow = nn.Linear(inner, width)
        self.network_norm = nn.LayerNorm(width, eps=eps)
        self.dropout = Dropout(dropout)
        self.activation = ACTIVATIONS[activation]
        self.norm_first = norm_first

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Map ``x [B, L, width]`` to the same shape; ``bias`` as in :class:`CausalAttention`."""
        if self.norm_first:
            x = x + self.dropout(self.attention(self.attention_norm(x), bias))
            return x + self.dropout(self._network(self.network_norm(x)))
        x = self.attention_norm(x + self.dropout(self.attention(x, bias)))
        return self.network_norm(x + self.dropout(self._network(x)))

    def _network(self, x: torch.Tensor) -> torch.Tensor:
        return self.narrow(self.activation(self.widen(x)))


def initialise(module: nn.Module, std: float) -> None:
    """Normal weights of the given standard deviation, zero biases, neutral normalisations; for ``Module.apply``."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=std)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
    if isinstance(module, (nn.Linear, nn.LayerNorm)) and module.bias is not None:
        nn.init.zeros_(module.bias)
