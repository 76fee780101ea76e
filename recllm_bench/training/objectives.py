"""Losses of causal encoders over all positions that have a target.

Every loss takes ``states [n, d]`` (only positions with a target), ``targets [n]`` (item ids, never 0) and the item
table ``items [n_items + 1, d]`` whose row 0 is padding, some also ``negatives`` ([n, k], a row for each target, or [k],
one set for all), and returns the mean over the targets. The score of an item is its dot product with the state. With
``masked`` targets may be 0 and then count for nothing: no size depends on how many there are.

The chunked softmax here makes the gradient of one table beside the loss, in the score's own buffer. That of
``models/relrec/losses.py`` joins several blocks (words, users, items) with shifts and biases under one normaliser, and
may make the gradient later: other products in another order, so that one function for both would change digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from recllm_bench.products import ROWS, product
from recllm_bench.training.training_options import TrainingOptions

CHUNK_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 26}
"""Scores that stand at once: 1 MiB in fp32, so that a chunk stays in the cache of a core; a GPU wants larger work."""
_CHUNK_ROWS = 64  # at least: every chunk passes once over the gradient of the whole item table


def cross_entropy(
    states: torch.Tensor,
    targets: torch.Tensor,
    items: torch.Tensor,
    *,
    first: int = 1,
    chunk_elements: int | None = None,
    masked: bool = False,
) -> torch.Tensor:
    """Softmax cross entropy over the whole catalogue.

    The table ``[n, n_items]`` of scores never stands whole: gradients are formed chunk by chunk in the forward pass.

    Parameters
    ----------
    first : int
        First row that takes part: 1 leaves padding out, 0 counts it as a class, as RecBole does.
    chunk_elements : int, optional
        Scores that may stand at once; by default ``CHUNK_ELEMENTS`` of the device, or 64 rows of them.
    """
    return _ChunkedCrossEntropy.apply(states, items, targets, first, chunk_elements, masked)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Gradient of ``-log softmax`` is ``softmax - onehot``: formed in place in the buffer of the scores."""

    @staticmethod
    def forward(ctx, states, items, targets, first, chunk_elements, masked):
        if torch.is_autocast_enabled(states.device.type):
            kind = torch.get_autocast_dtype(states.device.type)
            low_states, low_items = states.to(kind), items.to(kind)
        else:
            low_states, low_items = states, items
        n = len(states)
        catalogue = low_items[first:]
        if chunk_elements is None:
            rows = max(_CHUNK_ROWS, CHUNK_ELEMENTS.get(states.device.type, CHUNK_ELEMENTS["cuda"]) // len(catalogue))
            rows -= rows % ROWS
        else:
            rows = max(1, chunk_elements // len(catalogue))
        missing = -n % ROWS
        low_states = F.pad(low_states, (0, 0, 0, missing))
        columns = F.pad(targets - first, (0, missing)).unsqueeze(1)
        if masked:
            columns.clamp_(min=0)
            present = F.pad(targets > 0, (0, missing)).to(torch.float32).unsqueeze(1)
            weights = present / present.sum().clamp(min=1)
        kind_of_sums = torch.float64 if items.dtype == torch.float64 else torch.float32
        wants_gradient = states.requires_grad or items.requires_grad
        state_gradient = torch.empty_like(low_states) if wants_gradient else None
        item_gradient = torch.zeros_like(items, dtype=kind_of_sums) if wants_gradient else None
        total = torch.zeros((), dtype=torch.float64, device=states.device)
        for start in range(0, n, rows):
            part, real = low_states[start : start + rows], n - start
            scores = product(part, catalogue)
            column = columns[start : start + rows]
            scores = scores.float() if scores.dtype != torch.float64 else scores
            wanted = scores.gather(1, column)
            weight = weights[start : start + rows] if masked else None
            if not wants_gradient:
                surprise = torch.logsumexp(scores, 1, keepdim=True) - wanted
                total += (surprise * weight).sum() if masked else surprise[:real].sum()
                continue
            largest = scores.amax(1, keepdim=True)
            scores.sub_(largest).exp_()
            mass = scores.sum(1, keepdim=True)
            if masked:
                total += ((mass.log() + largest - wanted) * weight).sum()
                scores.mul_(weight / mass)
                scores.scatter_add_(1, column, -weight.to(scores.dtype))
            else:
                total += (mass.log() + largest - wanted)[:real].sum()
                scores.mul_(1.0 / (mass * n))
                scores.scatter_add_(1, column, torch.full_like(wanted, -1.0 / n))
                scores[real:] = 0
            share = scores.to(low_items.dtype)
            state_gradient[start : start + rows] = product(share, catalogue.T)
            item_gradient[first:] += product(part.T, share.T).T
        ctx.save_for_backward(state_gradient, item_gradient)
        ctx.n, ctx.kinds = n, (states.dtype, items.dtype)
        return (total if masked else total / n).to(kind_of_sums)

    @staticmethod
    def backward(ctx, gradient):
        state_gradient, item_gradient = ctx.saved_tensors
        of_states, of_items = (state_gradient[: ctx.n] * gradient).to(ctx.kinds[0]), item_gradient * gradient
        return of_states, of_items.to(ctx.kinds[1]), None, None, None, None


def _mean(values: torch.Tensor, targets: torch.Tensor, masked: bool) -> torch.Tensor:
    """Mean of a value for each target."""
    if not masked:
        return values.mean()
    present = targets > 0
    return torch.where(present, values, 0).sum() / present.sum().clamp(min=1)


def binary_cross_entropy(
    states: torch.Tensor, targets: torch.Tensor, items: torch.Tensor, negatives: torch.Tensor, masked: bool = False
) -> torch.Tensor:
    """Binary cross entropy with sampled negatives (SASRec, Kang & McAuley 2018, eq. 7).

    ``-log sigmoid(s+) - sum_k log(1 - sigmoid(s-_k))``.
    """
    positive, negative = _scores(states, targets, items, negatives)
    return _mean(F.softplus(-positive) + F.softplus(negative).sum(1), targets, masked)


def sampled_softmax(
    states: torch.Tensor,
    targets: torch.Tensor,
    items: torch.Tensor,
    negatives: torch.Tensor,
    log_expected: torch.Tensor | None = None,
    masked: bool = False,
) -> torch.Tensor:
    """Softmax cross entropy over the target and sampled negatives.

    With ``log_expected`` every score is lowered by the log of how often its item is expected among the negatives
    (logQ correction, Bengio & Senécal 2008), which makes the loss an estimate of the full softmax. A negative that is
    the target itself does not count.

    Parameters
    ----------
    log_expected : float [n_items + 1], optional
        Log of the expected number of times an item is drawn; without it the draw is taken to be uniform and scores
        stay as they are.
    """
    positive, negative = _scores(states, targets, items, negatives)
    if log_expected is not None:
        # The target is there for certain: its own score is not corrected.
        negative = negative - log_expected[negatives]
    negative = negative.masked_fill(negatives == targets.unsqueeze(1), -math.inf)
    return _mean(torch.logsumexp(torch.cat((positive.unsqueeze(1), negative), 1), 1) - positive, targets, masked)


def calibrated_binary_cross_entropy(
    states: torch.Tensor,
    targets: torch.Tensor,
    items: torch.Tensor,
    negatives: torch.Tensor,
    rate: float,
    t: float,
    masked: bool = False,
) -> torch.Tensor:
    """gBCE (Petrov & Macdonald 2023, eq. 18): the positive's sigmoid is raised to the power ``beta``.

    ``beta = rate * (t * (1 - 1 / rate) + 1 / rate)`` with ``rate`` the share of all negatives that is sampled.

    Parameters
    ----------
    rate : float
        ``k / (n_items - 1)``.
    t : float
        0 is plain BCE, 1 is fully calibrated.
    """
    positive, negative = _scores(states, targets, items, negatives)
    return _mean(calibration(rate, t) * F.softplus(-positive) + F.softplus(negative).sum(1), targets, masked)


def calibration(rate: float, t: float) -> float:
    """Exponent ``beta`` of gBCE."""
    return rate * (t * (1 - 1 / rate) + 1 / rate)


def _scores(
    states: torch.Tensor, targets: torch.Tensor, items: torch.Tensor, negatives: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of the targets [n] and of the negatives [n, k], in fp32."""
    positive = (states * F.embedding(targets, items)).sum(1)
    if negatives.dim() == 1:
        negative = states @ F.embedding(negatives, items).T
    elif negatives.shape[1] == 1:
        negative = (states * F.embedding(negatives[:, 0], items)).sum(1, keepdim=True)
    else:
        negative = torch.bmm(F.embedding(negatives, items), states.unsqueeze(2)).squeeze(2)
    if positive.dtype == torch.float64:
        return positive, negative
    return positive.float(), negative.float()


@dataclass(frozen=True)
class NegativeSampler:
    """Draws items with replacement, uniformly or by how often they occur in training.

    Attributes
    ----------
    n_items : int
        Catalogue size, padding not counted.
    cumulative : float64 [n_items] or None
        Cumulative popularity for ``popularity``; ``None`` draws uniformly.
    log_probability : float32 [n_items + 1] or None
        Log of an item's probability; entry 0 is padding.
    """

    n_items: int
    cumulative: torch.Tensor | None = None
    log_probability: torch.Tensor | None = None

    @classmethod
    def by_popularity(cls, counts: torch.Tensor) -> NegativeSampler:
        """Draw item ``i`` with probability proportional to ``counts[i] + 1`` (``counts`` has an entry for padding)."""
        weights = counts[1:].double() + 1
        probability = weights / weights.sum()
        log_probability = torch.cat((probability.new_zeros(1), probability.log())).float()
        return cls(len(weights), probability.cumsum(0), log_probability)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        """Item ids of the given shape, int64, never padding."""
        if self.cumulative is None:
            return torch.randint(1, self.n_items + 1, shape, generator=generator, device=generator.device)
        uniform = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
        return torch.searchsorted(self.cumulative, uniform).clamp_(max=self.n_items - 1) + 1


class Objective(Protocol):
    """An objective with its options: states [n, d], targets [n] and items [n_items + 1, d] to a scalar."""

    def __call__(
        self,
        states: torch.Tensor,
        targets: torch.Tensor,
        items: torch.Tensor,
        generator: torch.Generator,
        masked: bool = False,
    ) -> torch.Tensor: ...


def objective_named(
    options: TrainingOptions, n_items: int, counts: torch.Tensor | None = None, *, padding_is_class: bool = False
) -> Objective:
    """Bind an objective to its options.

    Parameters
    ----------
    options : TrainingOptions
        ``objective, negatives, negative_sampling, shared_negatives, gbce_t``.
    n_items : int
        Catalogue size, padding not counted.
    counts : int64 [n_items + 1], optional
        Occurrences in the training part; needed for ``negative_sampling: popularity``.
    padding_is_class : bool
        Whether full cross entropy counts the padding row among the items (RecBole's own classes).

    Returns
    -------
    Objective
    """
    if options.objective == "ce":
        first = 0 if padding_is_class else 1
        return lambda states, targets, items, generator, masked=False: cross_entropy(
            states, targets, items, first=first, masked=masked
        )
    sampler = NegativeSampler(n_items)
    if options.negative_sampling == "popularity":
        if counts is None:
            raise ValueError("popularity sampling needs the item counts")
        sampler = NegativeSampler.by_popularity(counts)
    k = options.negatives
    log_expected = None if sampler.log_probability is None else sampler.log_probability + math.log(k)
    rate = min(1.0, k / max(1, n_items - 1))

    def loss(
        states: torch.Tensor,
        targets: torch.Tensor,
        items: torch.Tensor,
        generator: torch.Generator,
        masked: bool = False,
    ) -> torch.Tensor:
        negatives = sampler.draw((k,) if options.shared_negatives else (len(targets), k), generator)
        if options.objective == "bce":
            return binary_cross_entropy(states, targets, items, negatives, masked)
        if options.objective == "gbce":
            return calibrated_binary_cross_entropy(states, targets, items, negatives, rate, options.gbce_t, masked)
        return sampled_softmax(states, targets, items, negatives, log_expected, masked)

    return loss
