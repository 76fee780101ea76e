"""What every causal sequence model of the bench has in common."""

from __future__ import annotations

from typing import Any

import torch
from recbole.model.abstract_recommender import SequentialRecommender

from recllm_bench.errors import BenchError


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


def check_heads(where: str, hidden_size: int, n_heads: int) -> None:
    """Refuse a width that the heads cannot share.

    Raises
    ------
    BenchError
        When ``hidden_size`` is not a multiple of ``n_heads``.
    """
    if hidden_size % n_heads:
        raise BenchError(f"{where}: hidden_size {hidden_size} must be a multiple of n_heads {n_heads}")
