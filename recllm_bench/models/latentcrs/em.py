"""Variational EM: what one pass over the records is, for either network.

Everything frozen is computed once. While one network trains, the other is fixed and in evaluation mode, where its
encoder has no dropout either: what it says of a record does not change during the pass, nor between a record's repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from recllm_bench.models.latentcrs import losses
from recllm_bench.models.latentcrs.networks import GenerativeNet, InferenceNet
from recllm_bench.models.latentcrs.options import LatentCRSOptions
from recllm_bench.training.graphs import runs

if TYPE_CHECKING:
    from recllm_bench.api.model import Model

_ENTRIES_KEPT = 1 << 28  # one GiB of float32; a larger table of frozen distributions is computed batch by batch
_ROWS_AT_ONCE = {"cpu": 1 << 10, "cuda": 1 << 14}


def _kept_alone(encoder: Model | None, rows: Tensor) -> Tensor:
    raise ValueError("these examples hold kept states, and nothing that encodes records")


@dataclass
class Examples:
    """What training reads, on the device.

    Attributes
    ----------
    targets : int64 [R]
        Item of each record.
    negatives : int32 [repeats, R, n]
        Sampled negatives.
    text_rows : int64 [R]
        Row of each record in ``text_vectors``.
    text_vectors : float32 [m, text_width]
        Distinct utterances.
    items : float32 [N, d]
        Frozen item table.
    clean : float32 [R, d]
        User states without dropout.
    noisy : float32 [repeats, R, d] or None
        User states with dropout, one draw for each repeat.
    encode : callable
        ``encode(encoder or None, rows) -> [B, d]`` encodes records now, in the encoder's present mode; needed where
        states with dropout are not kept, or an encoder trains too.
    redraw : callable or None
        ``redraw(epoch)`` gives new negatives.
    """

    targets: Tensor
    negatives: Tensor
    text_rows: Tensor
    text_vectors: Tensor
    items: Tensor
    clean: Tensor
    noisy: Tensor | None = None
    encode: Callable[[Model | None, Tensor], Tensor] = _kept_alone
    redraw: Callable[[int], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Batch:
    """Records of one step: which pass, which record, which of its repeats."""

    phase: str
    rows: Tensor
    repeats: Tensor


class ExpectationMaximisation:
    """The passes and their losses.

    Parameters
    ----------
    inference, generative : Module or None
        The two networks; those that the passes name must be there.
    examples : Examples
        Records.
    options : LatentCRSOptions
        Resolved options.
    batch_size : int
        Records in a step.
    seed : int
        Fixes the order of records.
    w_rec, w_e_rec : float, optional
        Weights that replace the options' (the ablation without ranking losses).
    together : int
        Steps of a pass that may be one launch.
    """

    def __init__(
        self,
        inference: InferenceNet | None,
        generative: GenerativeNet | None,
        examples: Examples,
        options: LatentCRSOptions,
        batch_size: int,
        seed: int,
        w_rec: float | None = None,
        w_e_rec: float | None = None,
        together: int = 1,
    ) -> None:
        self.together = together
        self._inference, self._generative, self.examples, self.options = inference, generative, examples, options
        self.batch_size, self.seed = batch_size, seed
        self.w_rec = options.w_rec if w_rec is None else w_rec
        self.w_e_rec = options.w_e_rec if w_e_rec is None else w_e_rec
        self.frozen: Callable[[Tensor], Tensor] | None = None  # logarithms, as the fixed side stands
        self._fixed: Callable[[Tensor], tuple[Tensor, ...]]  # what the loss of the pass takes of them
        self._projections: Tensor | None = None
        self._tables: list[Tensor] = []  # of the present pass, at the same places in all epochs
        self.curves: dict[str, tuple[Tensor, Tensor]] = {}  # sum and count of each term

    @property
    def inference(self) -> InferenceNet:
        """q, in passes that have it."""
        assert self._inference is not None
        return self._inference

    @property
    def generative(self) -> GenerativeNet:
        """f and g, in passes that have them."""
        assert self._generative is not None
        return self._generative

    @property
    def _at_once(self) -> int:
        return _ROWS_AT_ONCE.get(self.examples.targets.device.type, _ROWS_AT_ONCE["cpu"])

    # passes

    def warm_up_inference(self, epoch: int) -> Iterator[Batch]:
        """Stage 1: the inference net alone, ranking loss only."""
        self._redraw(epoch)
        yield from self._shuffled("inference", epoch)

    def warm_up_generative(self, epoch: int) -> Iterator[Batch]:
        """Stage 2: the generative net with the inference net frozen."""
        self._redraw(epoch)
        yield from self.m_pass(epoch)

    def joint(self, epoch: int) -> Iterator[Batch]:
        """Stage 3: a full E-pass, then a full M-pass."""
        self._redraw(epoch)
        yield from self.e_pass(epoch)
        yield from self.m_pass(epoch)

    def e_pass(self, epoch: int) -> Iterator[Batch]:
        """Train q towards the posterior, the generative net frozen."""
        self._freeze(self.generative, self.inference)
        self.frozen = torch.no_grad()(self.log_posteriors)
        projected = self._projected()
        self._fixed = self._table(
            lambda rows: (self._smoothed(self._posteriors(rows, projected.index_select(0, rows))),)
        )
        yield from self._shuffled("e", epoch)

    def m_pass(self, epoch: int) -> Iterator[Batch]:
        """Train f and g, the inference net frozen."""
        self._freeze(self.inference, self.generative)
        self.frozen = torch.no_grad()(self.log_q)
        self._fixed = self._table(lambda rows: self._with_entropy(self.log_q(rows)))
        yield from self._shuffled("m", epoch)

    def direct(self, epoch: int) -> Iterator[Batch]:
        """Ablation ``direct_kl``: both networks at once; the generative net stays in evaluation mode."""
        self._redraw(epoch)
        for network in (self.inference, self.generative):
            network.requires_grad_(True)
        self.inference.train()
        self.generative.eval()
        yield from self._shuffled("direct", epoch)

    # losses

    def loss(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The loss of a step; which one is decided by the batch's pass."""
        rows, epsilon = batch.rows, self.options.kl_epsilon
        if batch.phase == "inference":
            return self._recorded("e_rec", self.e_ranking_loss(self._logits(batch).softmax(-1), batch))
        if batch.phase == "e":
            (wanted,) = self._fixed(rows)
            return self._e_loss(*losses.distribution(self._logits(batch), epsilon), wanted, batch)
        affinity = self._affinity(batch)
        if batch.phase == "m":
            q, negentropy = self._fixed(rows)
            return self._m_loss(q, negentropy, affinity, batch)
        log_f = torch.log_softmax(affinity, -1)
        if batch.phase == "ranking":  # ablation no_inference
            loss = self.m_ranking_loss(affinity, log_f.exp(), self._candidates(batch), None)
            return self._recorded("m_rec", loss)
        logits = self._logits(batch)
        g = self.generative.target_scores(affinity, self._targets(rows))
        wanted = self._smoothed(losses.log_posterior(log_f, g, self.options.posterior_form))
        e_loss = self._e_loss(*losses.distribution(logits, epsilon), wanted, batch)
        return e_loss + self._m_loss(*self._with_entropy(logits), affinity, batch)

    def ranking_only(self, epoch: int) -> Iterator[Batch]:
        """Ablation ``no_inference``: the ranking loss of the generative net, nothing else."""
        self._redraw(epoch)
        yield from self._shuffled("ranking", epoch)

    def _e_loss(self, q: Tensor, log_q: Tensor, wanted: Tensor, batch: Batch) -> Tensor:
        """KL(q || posterior) and L_rec^E; ``wanted [B, K]`` is the logarithm of the posterior."""
        loss = self._recorded("e_kl", losses.expected(q, log_q - wanted))
        if self.w_e_rec:
            loss = loss + self.w_e_rec * self._recorded("e_rec", self.e_ranking_loss(q, batch))
        return loss

    def _m_loss(self, q: Tensor, negentropy: Tensor, affinity: Tensor, batch: Batch) -> Tensor:
        """KL(q || f), the contrastive term and L_rec; ``negentropy [B]`` is the part of KL that has no f."""
        options = self.options
        f, log_f = losses.distribution(affinity, options.kl_epsilon)
        loss = options.lambda_kl * self._recorded("m_kl", negentropy.mean() - losses.expected(q, log_f))
        if not (options.w_nce or self.w_rec):
            return loss
        vectors, g = self._candidates(batch), None
        if options.w_nce:
            g = self.generative.intent_scores(affinity, vectors)
            log_f = torch.log_softmax(affinity, -1)
            nce = losses.contrastive_loss(q, log_f, g, options.nce_logits, options.nce_intent_reduce)
            loss = loss + options.w_nce * self._recorded("m_nce", nce)
        if self.w_rec:
            loss = loss + self.w_rec * self._recorded("m_rec", self.m_ranking_loss(affinity, f, vectors, g))
        return loss

    def e_ranking_loss(self, q: Tensor, batch: Batch) -> Tensor:
        """L_rec^E (15)(16)."""
        items = self._items(self.inference, self._candidate_ids(batch))
        scores = (items * self.inference.plain_query(q).unsqueeze(1)).sum(-1)
        return losses.ranking_loss(scores, self.options.temperature)

    def m_ranking_loss(self, affinity: Tensor, f: Tensor, vectors: Tensor, g: Tensor | None) -> Tensor:
        """L_rec (10); ``vectors [B, c, d]`` are mapped candidates, ``g [B, K, c]`` their scores when known."""
        if self.options.rec_form == "mixture":
            log_f = torch.log_softmax(affinity, -1)
            return losses.mixture_loss(log_f, self.generative.intent_scores(affinity, vectors) if g is None else g)
        query = self.generative.mixture_query(affinity, f)
        return losses.ranking_loss((vectors * query.unsqueeze(1)).sum(-1))

    # what the frozen side says of records

    def log_posteriors(self, rows: Tensor) -> Tensor:
        """Log posterior ``[B, K]`` of records, generative net as it stands."""
        return self._posteriors(rows, self.generative.projector(self._texts(rows)))

    def log_q(self, rows: Tensor) -> Tensor:
        """log q ``[B, K]`` of records, inference net as it stands."""
        return self.inference(self._states(self.inference, rows, None))

    def _posteriors(self, rows: Tensor, projected: Tensor) -> Tensor:
        affinity = self.generative.affinity(self._states(self.generative, rows, None), projected)
        g = self.generative.target_scores(affinity, self._targets(rows))
        return losses.log_posterior(torch.log_softmax(affinity, -1), g, self.options.posterior_form)

    @torch.no_grad()
    def _projected(self) -> Tensor:
        """Texts of all records, projected by the generative net as it stands, ``[R, d]``: each text once."""
        parts = [self.generative.projector(part) for part in self.examples.text_vectors.split(self._at_once)]
        found = torch.cat(parts).index_select(0, self.examples.text_rows)
        if self._projections is None:  # in all epochs at one place, where captured steps may read it
            self._projections = torch.empty_like(found)
        return self._projections.copy_(found)

    def _smoothed(self, log_p: Tensor) -> Tensor:
        """Logarithms as KL terms take them."""
        return torch.log(log_p.exp() + self.options.kl_epsilon) if self.options.kl_epsilon else log_p

    def _with_entropy(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities ``[B, K]``, and their part ``[B]`` of the divergence from them."""
        p, log_p = losses.distribution(logits, self.options.kl_epsilon)
        return p, (p * log_p).sum(-1)

    # parts

    def _logits(self, batch: Batch) -> Tensor:
        return self.inference.logits(self._states(self.inference, batch.rows, batch.repeats))

    def _affinity(self, batch: Batch) -> Tensor:
        repeats = batch.repeats if self.generative.training else None
        states = self._states(self.generative, batch.rows, repeats)
        return self.generative.affinity(states, self.generative.projector(self._texts(batch.rows)))

    def _texts(self, rows: Tensor) -> Tensor:
        # Projecting each text of a batch once would save little: most records of a batch have texts of their own.
        return self.examples.text_vectors.index_select(0, self.examples.text_rows.index_select(0, rows))

    def _states(self, network: InferenceNet | GenerativeNet, rows: Tensor, repeats: Tensor | None) -> Tensor:
        """User states: without dropout when ``repeats`` is None, else as training sees them."""
        examples, options = self.examples, self.options
        if network.encoder is not None:
            network.encoder.train(repeats is not None and options.encoder_dropout_in_train)
            return examples.encode(network.encoder, rows)
        if repeats is None or not options.encoder_dropout_in_train:
            return examples.clean.index_select(0, rows)
        if examples.noisy is not None:
            return examples.noisy.flatten(0, 1).index_select(0, repeats * len(examples) + rows)
        with torch.no_grad():
            return examples.encode(None, rows)

    def _items(self, network: InferenceNet | GenerativeNet, ids: Tensor) -> Tensor:
        """Vectors ``[..., d]`` of items, not mapped."""
        table = self.examples.items if network.encoder is None else network.encoder.item_vectors()
        return nn.functional.embedding(ids, table)

    def _candidate_ids(self, batch: Batch) -> Tensor:
        negatives = self.examples.negatives[batch.repeats, batch.rows].long()
        return torch.cat([self.examples.targets[batch.rows].unsqueeze(1), negatives], 1)

    def _candidates(self, batch: Batch) -> Tensor:
        return self.generative.item_vectors(self._items(self.generative, self._candidate_ids(batch)))

    def _targets(self, rows: Tensor) -> Tensor:
        return self.generative.item_vectors(self._items(self.generative, self.examples.targets[rows]))

    def _freeze(self, fixed: nn.Module, trained: nn.Module) -> None:
        trained.requires_grad_(True).train()
        fixed.requires_grad_(False).eval()  # last, so that a map tied between the two is frozen in the M-step
        if self.options.tie_value_map and trained is self.inference:
            self.inference.value_map.requires_grad_(True)
        for parameter in fixed.parameters():
            parameter.grad = None if not parameter.requires_grad else parameter.grad

    def _redraw(self, epoch: int) -> None:
        if self.examples.redraw is not None:
            self.examples.negatives.copy_(self.examples.redraw(epoch))

    @torch.no_grad()
    def _table(self, function: Callable[[Tensor], tuple[Tensor, ...]]) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """``function`` of all records, evaluated once; of a batch when the whole would be too large."""
        count = len(self.examples)
        if count * self.options.intents > _ENTRIES_KEPT:
            return torch.no_grad()(function)
        tables = self._tables
        for rows in torch.arange(count, device=self.examples.targets.device).split(self._at_once):
            found = function(rows)
            for value in found[len(tables) :]:  # both passes begin with a table of the same shape
                tables.append(value.new_empty(count, *value.shape[1:]))
            for table, value in zip(tables, found, strict=False):
                table.index_copy_(0, rows, value)
        parts = tables[: len(found)]
        return lambda rows: tuple(table.index_select(0, rows) for table in parts)

    def _shuffled(self, phase: str, epoch: int) -> Iterator[Batch]:
        number = ("inference", "e", "m", "direct", "ranking").index(phase)
        repeats, count = len(self.examples.negatives), len(self.examples)
        order = np.random.default_rng([self.seed, epoch, number]).permutation(repeats * count)
        places = torch.from_numpy(order).to(self.examples.targets.device)
        batches = (
            Batch(phase, part % count, torch.div(part, count, rounding_mode="floor"))
            for part in places.split(self.batch_size)
        )
        yield from runs(batches, self.together)

    def _recorded(self, name: str, value: Tensor) -> Tensor:
        if name not in self.curves:
            self.curves[name] = value.new_zeros(()), value.new_zeros(())
        total, count = self.curves[name]
        total.add_(value.detach())
        count.add_(1)
        return value

    def take_curves(self) -> dict[str, float]:
        """Mean of every loss term since the last call."""
        found = {name: (float(total), float(count)) for name, (total, count) in self.curves.items()}
        for part in self.curves.values():
            torch._foreach_zero_(part)
        return {name: total / count for name, (total, count) in found.items() if count}
