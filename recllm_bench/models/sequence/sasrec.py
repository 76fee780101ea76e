"""SASRec: self-attentive sequential recommendation (Kang & McAuley 2018), with the settings that make it strong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from recllm_bench.dropout import Dropout
from recllm_bench.models.sequence.causal import CausalRecommender, check_heads
from recllm_bench.models.sequence.transformer import ACTIVATIONS, Block, initialise
from recllm_bench.options import option, options_from_config


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


class SASRec(CausalRecommender):
    """Causal Transformer over item and position vectors; an item's score is its dot product with the state."""

    Options = SASRecOptions
    display_name = "SASRec (ours)"
    default_protocol = "unified.full"
    training_defaults: ClassVar[dict[str, Any]] = {"objective": "ce"}

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.options = options = options_from_config(SASRecOptions, config)
        check_heads("sasrec", options.hidden_size, options.n_heads)
        self.item_embedding = nn.Embedding(self.n_items, options.hidden_size, padding_idx=0)
        self.position_embedding = nn.Embedding(self.max_seq_length, options.hidden_size)
        self.input_norm = nn.LayerNorm(options.hidden_size, eps=options.layer_norm_eps)
        self.dropout = Dropout(options.dropout)
        self.blocks = nn.ModuleList(
            Block(
                options.hidden_size,
                options.n_heads,
                options.inner_size,
                options.dropout,
                options.attention_dropout,
                options.activation,
                options.layer_norm_eps,
                norm_first=options.norm == "pre",
            )
            for _ in range(options.n_layers)
        )
        pre = options.norm == "pre"
        self.output_norm = nn.LayerNorm(options.hidden_size, eps=options.layer_norm_eps) if pre else nn.Identity()
        self.apply(lambda module: initialise(module, options.initializer_range))
        with torch.no_grad():
            self.item_embedding.weight[0].zero_()

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
