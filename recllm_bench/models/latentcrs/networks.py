"""The two networks of LatentCRS: inference (history to intents) and generation (history and words to items)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from recllm_bench.dropout import Dropout
from recllm_bench.models.latentcrs.options import LatentCRSOptions
from recllm_bench.products import Linear, linear

if TYPE_CHECKING:
    from recllm_bench.api.model import Model


def _full(logits: Tensor) -> Tensor:
    """Logits in float32 at least: under autocast they come in half precision, in which distributions lose too much."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class TextProjector(nn.Module):
    """P: raw utterance vectors to the width of user states.

    Parameters
    ----------
    text_width, hidden, width : int
        Input, hidden and output width.
    dropout : float
        Between the first layer and its normalisation.
    """

    def __init__(self, text_width: int, hidden: int, width: int, dropout: float) -> None:
        super().__init__()
        self.enter = Linear(text_width, hidden, bias=False)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(hidden)
        self.leave = Linear(hidden, width)

    def forward(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """Project texts.

        Parameters
        ----------
        x : Tensor [m, text_width]
            Utterance vectors.
        rows : Tensor [B], optional
            Which text each case has: everything before the dropout then runs once for each text, not for each case.
        """
        hidden = self.enter(x)
        if rows is not None and self.training:
            hidden = hidden.index_select(0, rows)
        projected = self.leave(self.norm(self.dropout(hidden)).relu_())
        return projected if rows is None or self.training else projected.index_select(0, rows)


class FeedForward(nn.Module):
    """F: three layers from ``[s ; P(x)]`` (2 d) to d, with ReLU between and, as an option, after the last."""

    def __init__(self, width: int, layernorm: bool, final_relu: bool) -> None:
        super().__init__()
        sizes = (2 * width, 2 * width, width, width)
        layers: list[nn.Module] = []
        for number in range(3):
            layers.append(Linear(sizes[number], sizes[number + 1]))
            if layernorm:
                layers.append(nn.LayerNorm(sizes[number + 1]))
            if number < 2 or final_relu:
                layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)

    def forward(self, values: Tensor) -> Tensor:
        """``[B, 2 d]`` to ``[B, d]``."""
        return self.layers(values)


class InferenceNet(nn.Module):
    """q(m | S): attention of the user state over intents (12), and its ranking of items (15)(16).

    Parameters
    ----------
    intents : Tensor [K, d]
        Start values; the network keeps a copy of its own.
    options : LatentCRSOptions
        Resolved options.
    """

    def __init__(self, intents: Tensor, options: LatentCRSOptions) -> None:
        super().__init__()
        width = intents.shape[1]
        self.intents = nn.Parameter(intents.detach().clone())
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.on_items = options.value_map_on == "item"
        self.value_map = nn.Linear(width, width, bias=not self.on_items)
        self.encoder: Model | None = None  # a copy of its own when the encoder trains too

    def forward(self, states: Tensor) -> Tensor:
        """log q, ``[B, K]``, of user states ``[B, d]``."""
        return torch.log_softmax(self.logits(states), -1)

    def logits(self, states: Tensor) -> Tensor:
        """Logits of q, ``[B, K]``, of user states ``[B, d]``."""
        return _full(linear(self.query(states) / math.sqrt(self.intents.shape[1]), self.key(self.intents)))

    def item_query(self, log_q: Tensor) -> Tensor:
        """r, ``[B, d]``: its dot product with :meth:`item_vectors` is the score of an item."""
        mixed = log_q.exp() @ self.intents  # the map is affine and q sums to 1: mapping the mixture is mixing the maps
        return mixed if self.on_items else self.value_map(mixed)

    def plain_query(self, q: Tensor) -> Tensor:
        """Query ``[B, d]`` of distributions ``[B, K]``, to be multiplied with items that were *not* mapped.

        ``(W v) . r`` is ``v . (W' r)``: one map for a case instead of one for each of its candidates.
        """
        mixed = linear(q, self.intents.T)
        return linear(mixed, self.value_map.weight.T) if self.on_items else self.value_map(mixed)

    def item_vectors(self, items: Tensor) -> Tensor:
        """Item side of the score: ``[..., d]`` to ``[..., d]``."""
        return self.value_map(items) if self.on_items else items


class GenerativeNet(nn.Module):
    """f(m | S, x) and g(v, m): the prior over intents (5) and the score of an item under each (6)(7).

    ``h(v) = sum_j f_j g(v, m_j)`` is a dot product with the item in both forms of ``g``: intents are mixed first.

    Parameters
    ----------
    intents : Tensor [K, d]
        Start values; the network keeps a copy of its own.
    text_width : int
        Width of utterance vectors.
    options : LatentCRSOptions
        Resolved options.
    """

    def __init__(self, intents: Tensor, text_width: int, options: LatentCRSOptions) -> None:
        super().__init__()
        width = intents.shape[1]
        self.intents = nn.Parameter(intents.detach().clone())
        self.projector = TextProjector(text_width, options.text_hidden, width, options.text_dropout)
        self.feed_forward = FeedForward(width, options.ffn_layernorm, options.ffn_final_relu)
        self.prior_map = nn.Linear(width, width, bias=False) if options.use_wm else None
        self.with_user = options.g_form == "factored_user"
        self.intent_map = nn.Linear(width, width, bias=not self.with_user)
        self.item_map = nn.Linear(width, width, bias=False) if options.g_item_map else None
        self.encoder: Model | None = None  # a copy of its own when the encoder trains too

    def forward(self, states: Tensor, x: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Affinity and log prior.

        Parameters
        ----------
        states : Tensor [B, d]
            User states.
        x : Tensor [B, text_width] or [m, text_width]
            Utterance vectors; with ``rows`` the distinct ones.
        rows : Tensor [B], optional
            Which vector each case has.

        Returns
        -------
        affinity : Tensor [B, K]
            ``F([s ; P(x)]) . W_m m_j``, the logits of the prior and the user factor of (7).
        log_f : Tensor [B, K]
            Log prior.
        """
        affinity = self.affinity(states, self.projector(x, rows))
        return affinity, torch.log_softmax(affinity, -1)

    def affinity(self, states: Tensor, projected: Tensor) -> Tensor:
        """Affinity ``[B, K]`` of user states and projected texts, both ``[B, d]``."""
        user = self.feed_forward(torch.cat([states, projected], -1))
        return _full(linear(user, self.intents if self.prior_map is None else self.prior_map(self.intents)))

    def item_query(self, affinity: Tensor, log_f: Tensor) -> Tensor:
        """Query ``[B, d]`` whose dot product with :meth:`item_vectors` is h."""
        return self.mixture_query(affinity, log_f.exp())

    def mixture_query(self, affinity: Tensor, f: Tensor) -> Tensor:
        """:meth:`item_query` of a prior ``[B, K]`` that is no logarithm."""
        return linear(f * affinity if self.with_user else f, self.intent_map(self.intents).T)

    def item_vectors(self, items: Tensor) -> Tensor:
        """Item side of g: ``[..., d]`` to ``[..., d]``."""
        return items if self.item_map is None else self.item_map(items)

    def intent_scores(self, affinity: Tensor, mapped_items: Tensor) -> Tensor:
        """g of candidates.

        Parameters
        ----------
        affinity : Tensor [B, K]
            From :meth:`forward`.
        mapped_items : Tensor [B, c, d]
            Candidates after :meth:`item_vectors`.

        Returns
        -------
        Tensor [B, K, c]
        """
        g = self.intent_map(self.intents) @ mapped_items.transpose(-1, -2)
        return affinity.unsqueeze(-1) * g if self.with_user else g

    def target_scores(self, affinity: Tensor, mapped_items: Tensor) -> Tensor:
        """g of one item for each case: ``[B, d]`` to ``[B, K]``."""
        g = linear(mapped_items, self.intent_map(self.intents))
        return affinity * g if self.with_user else g


def tie_value_map(inference: InferenceNet, generative: GenerativeNet) -> None:
    """Make A of the generative net the same parameters as V of the inference net."""
    generative.intent_map = inference.value_map
