"""A RecBole recommender that learns nothing by gradient: what RecBole's trainer asks of it all the same."""

from __future__ import annotations

from typing import Any

import torch
from recbole.model.abstract_recommender import SequentialRecommender


class Untrained(SequentialRecommender):
    """Base of rankings that are computed, not trained; a subclass gives ``full_sort_predict``."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.nothing = torch.nn.Parameter(torch.zeros(1))  # RecBole's trainer needs a parameter and a loss

    def calculate_loss(self, interaction: Any) -> torch.Tensor:
        """Zero: there is nothing to learn by gradient."""
        return self.nothing.sum() * 0

    def predict(self, interaction: Any) -> torch.Tensor:
        """Score ``float [B]`` of one given item for each history."""
        return self.full_sort_predict(interaction).gather(1, interaction[self.ITEM_ID][:, None])[:, 0]
