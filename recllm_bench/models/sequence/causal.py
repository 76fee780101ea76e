"""What every causal sequence model of the bench has in common."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import nn

from recllm_bench.dropout import Dropout
from recllm_bench.errors import BenchError
from recllm_bench.models.sequence.transformer import Block
from recllm_bench.options import options_from_config


class CausalRecommender(SequentialRecommender):
    """A model whose state at a position depends only on the items up to there, and whose scores are dot products.

    A subclass gives ``sequence_states(item_seq [B, L], lengths [B]) -> float [B, L, d]`` (right-padded histories) and
    ``item_vectors() -> float [n_items + 1, d]``; all that RecBole asks for follows from them.
    """

    history_length: int

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.history_length = int(self.max_seq_length)

    def last_states(self, item_seq: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """State ``float [B, d]`` after the last item of each history."""
        return self.gather_indexes(self.sequence_states(item_seq, lengths), lengths - 1)

    def calculate_loss(self, interaction: Any) -> torch.Tensor:
        """Cross entropy of the next item over the whole catalogue (RecBole's one target for each history)."""
        from recllm_bench.training.objectives import cross_entropy

        states = self.last_states(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return cross_entropy(states, interaction[self.POS_ITEM_ID], self.item_vectors())

    def predict(self, interaction: Any) -> torch.Tensor:
        """Score ``float [B]`` of one given item for each history."""
        states = self.last_states(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return (states * self.item_vectors()[interaction[self.ITEM_ID]]).sum(1)

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """Scores ``float [B, n_items + 1]`` of all items; padding has minus infinity."""
        states = self.last_states(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        scores = states @ self.item_vectors().T
        scores[:, 0] = -torch.inf
        return scores


class CausalTransformer(CausalRecommender):
    """Vectors of items and positions below causal Transformer blocks, of the sizes that ``Options`` name.

    Raises
    ------
    BenchError
        When ``hidden_size`` is not a multiple of ``n_heads``.
    """

    Options: ClassVar[type]
    options: Any

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        options: Any = options_from_config(self.Options, config)
        self.options = options
        width = options.hidden_size
        if width % options.n_heads:
            name = type(self).__name__.lower()
            raise BenchError(f"{name}: hidden_size {width} must be a multiple of n_heads {options.n_heads}")
        self.item_embedding = nn.Embedding(self.n_items, width, padding_idx=0)
        self.position_embedding = nn.Embedding(self.max_seq_length, width)
        self.input_norm = nn.LayerNorm(width, eps=options.layer_norm_eps)
        self.dropout = Dropout(options.dropout)
        self.blocks = nn.ModuleList(
            Block(
                width,
                options.n_heads,
                options.inner_size,
                options.dropout,
                options.attention_dropout,
                options.activation,
                options.layer_norm_eps,
                norm_first=self.norm_first,
            )
            for _ in range(options.n_layers)
        )

    @property
    def norm_first(self) -> bool:
        """Whether what enters a branch is normalised, or the sum that leaves it."""
        return False
