"""SASRec: self-attentive sequential recommendation (Kang & McAuley 2018), with the settings that make it strong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from recllm_bench.models.sequence.causal import CausalTransformer
from recllm_bench.models.sequence.transformer import ACTIVATIONS, initialise
from recllm_bench.options import option


@dataclass(frozen=True)
class SASRecOptions:
    """Options of :class:`SASRec`; RecBole's names where RecBole has one."""

    hidden_size: int = option(64, "width of item vectors and states", low=1)
    n_layers: int = option(2, "Transformer blocks", low=1)
    n_heads: int = option(2, "attention heads", low=1)
    inner_size: int = option(256, "width inside the feed-forward part", low=1)
    dropout: float = option(0.2, "dropout of embeddings and residual branches", low=0, high=0.95)
    attention_dropout: float = option(0.0, "dropout of attention weights; above 0 is much slower", low=0, high=0.95)
    activation: str = option("gelu", "activation of the feed-forward part", choices=tuple(ACTIVATIONS))
    norm: str = option("pre", "layer normalisation before or after a branch", choices=("pre", "post"))
    layer_norm_eps: float = option(1e-8, "epsilon of layer normalisation", low=0)
    initializer_range: float = option(0.02, "standard deviation of initial weights", low=0)


class SASRec(CausalTransformer):
    """Causal Transformer over item and position vectors; an item's score is its dot product with the state."""

    Options = SASRecOptions
    display_name = "SASRec (ours)"
    default_protocol = "unified.full"
    training_defaults: ClassVar[dict[str, Any]] = {"objective": "ce"}

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        options: SASRecOptions = self.options
        width = options.hidden_size
        self.output_norm = nn.LayerNorm(width, eps=options.layer_norm_eps) if self.norm_first else nn.Identity()
        self.apply(lambda module: initialise(module, options.initializer_range))
        with torch.no_grad():
            self.item_embedding.weight[0].zero_()

    @property
    def norm_first(self) -> bool:
        """As the option ``norm`` says."""
        return self.options.norm == "pre"

    def sequence_states(self, item_seq: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """States ``float [B, L, d]``; padding is on the right, so that the causal mask hides it from real positions."""
        x = self.item_embedding(item_seq) + self.position_embedding.weight[: item_seq.shape[1]]
        x = self.dropout(self.input_norm(x))
        for block in self.blocks:
            x = block(x)
        return self.output_norm(x)

    def item_vectors(self) -> torch.Tensor:
        """The input table serves as output table."""
        return self.item_embedding.weight
