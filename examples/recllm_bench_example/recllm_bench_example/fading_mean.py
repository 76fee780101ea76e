"""FadingMean: the mean of the consumed items' vectors, in which the past fades."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import nn

from recllm_bench.options import option, options_from_config


@dataclass(frozen=True)
class FadingMeanOptions:
    """Options of :class:`FadingMean`."""

    hidden_size: int = option(64, "width of item vectors", low=1)
    half_life: float = option(2.0, "items after which a vector weighs half, before training", low=0.1)


class FadingMean(SequentialRecommender):
    """State after position t: the sum over s <= t of r^(t - s) W v_s, divided by the sum of the weights.

    Parameters
    ----------
    config : recbole.config.Config
        Carries the fields of :class:`FadingMeanOptions`.
    dataset : recbole.data.dataset.Dataset
        For the number of items.
    """

    Options = FadingMeanOptions
    display_name = "FadingMean"
    default_protocol = "unified.full"
    training_defaults: ClassVar[dict[str, Any]] = {"objective": "ce", "learning_rate": 0.005}

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        options = options_from_config(FadingMeanOptions, config)
        width = options.hidden_size
        self.items = nn.Embedding(self.n_items, width, padding_idx=0)
        self.transition = nn.Linear(width, width, bias=False)
        # The sigmoid of this is r, how much of a vector's weight is left one item later.
        self.keep = nn.Parameter(torch.logit(torch.tensor(0.5 ** (1 / options.half_life))))
        nn.init.normal_(self.items.weight, std=width**-0.5)
        nn.init.eye_(self.transition.weight)
        with torch.no_grad():
            self.items.weight[0].zero_()

    def sequence_states(self, item_seq: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """States ``float [B, L, d]`` of right-padded histories ``int64 [B, L]``."""
        place = torch.arange(item_seq.shape[1], device=item_seq.device)
        age = place[:, None] - place
        weights = torch.sigmoid(self.keep) ** age.clamp(min=0) * (age >= 0)
        weights = weights / weights.sum(1, keepdim=True)
        return weights @ self.transition(self.items(item_seq))

    def item_vectors(self) -> torch.Tensor:
        """Item table ``float [n_items + 1, d]``."""
        return self.items.weight

    def _last(self, interaction: Any) -> torch.Tensor:
        lengths = interaction[self.ITEM_SEQ_LEN]
        return self.gather_indexes(self.sequence_states(interaction[self.ITEM_SEQ], lengths), lengths - 1)

    def calculate_loss(self, interaction: Any) -> torch.Tensor:
        """Cross entropy of the next item (RecBole's own trainer)."""
        scores = self._last(interaction) @ self.item_vectors().T
        return nn.functional.cross_entropy(scores, interaction[self.POS_ITEM_ID])

    def predict(self, interaction: Any) -> torch.Tensor:
        """Score ``float [B]`` of one given item for each history."""
        return (self._last(interaction) * self.item_vectors()[interaction[self.ITEM_ID]]).sum(1)

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """Scores ``float [B, n_items + 1]``."""
        return self._last(interaction) @ self.item_vectors().T
