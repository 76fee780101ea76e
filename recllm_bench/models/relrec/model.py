"""ReLRec as a recommender: user and item tokens before a frozen language model."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor

from recllm_bench.errors import BenchError
from recllm_bench.models.relrec.losses import Block, negative_log_likelihood, scores_at_once, weighted_likelihood
from recllm_bench.models.relrec.options import LlamaSeqOptions, ReLRecOptions, check_options
from recllm_bench.models.relrec.packing import ITEM_LABEL, SEQUENCE, USER_LABEL, PackedBatch
from recllm_bench.models.relrec.tokens import SideTables, Vocabulary
from recllm_bench.options import options_from_config

if TYPE_CHECKING:
    from recllm_bench.data.windows import WindowBatch

_TOKENS_AT_ONCE = {"cpu": 8192, "cuda": 32768}
"""Tokens of a ranking pass."""


class ReLRec(SequentialRecommender):
    """Next-item prediction by a frozen language model whose only new parts are user and item rows.

    On the bench :class:`~recllm_bench.models.relrec.method.ReLRecMethod` trains it: labels, training with label
    reconstruction, and the measure of what was reconstructed. In plain RecBole there are no labels, and the sequence
    loss (1) trains alone.

    Parameters
    ----------
    config : recbole.config.Config
        Carries the fields of :class:`ReLRecOptions`.
    dataset : recbole.data.dataset.Dataset
        For the numbers of users and items.
    backbone : Backbone, optional
        The language model; loaded by the name ``llm`` when it is not given.
    """

    Options: ClassVar[type[ReLRecOptions]] = ReLRecOptions
    display_name = "ReLRec"
    default_protocol = "relrec.full"
    training_defaults: ClassVar[dict[str, Any]] = {
        "batch_size": 16,
        "epochs": 50,
        "patience": 5,
        "learning_rate": 1e-3,
        "clip_norm": 1.0,
        "max_length": 50,
        "coverage": "last",
        "validate_metric": "NDCG@10",
    }

    def __init__(self, config: Any, dataset: Any, backbone: Any = None) -> None:
        super().__init__(config, dataset)
        name = self.display_name.lower()
        self.options = options = check_options(options_from_config(self.Options, config), name)
        if backbone is None:
            if not options.llm:
                raise BenchError(f"{name}: without the bench a language model must be named; set llm to a folder or id")
            from recllm_bench.language.backbone import load_backbone

            backbone = load_backbone(options.llm, precision=options.llm_precision, device=config["device"])
        self.backbone = backbone
        n_users = dataset.num(self.USER_ID) - 1 if options.user_token else 0
        self.vocabulary = Vocabulary(backbone.tokenizer, backbone.vocabulary, n_users, self.n_items - 1)
        self._words = backbone.word_embedding().detach()
        self._word_head, self._word_bias = _head_weights(backbone)
        centre = self._words.float().mean(0)
        self.tables = SideTables(n_users, self.n_items - 1, backbone.width, options, centre.cpu())
        self.tables.to(backbone.device)
        self.register_buffer("warm_users", torch.ones(n_users, dtype=torch.bool, device=backbone.device))
        before, after = options.seq_template.removesuffix("{items}").split("{user}")
        self._opening = self.vocabulary.start + self.vocabulary.encode([before])[0]
        self._joint = self.vocabulary.encode([after], inside=True)[0]
        self.history_length = self._fitting(int(self.max_seq_length), name)
        self.checkpointing = options.checkpointing == "on"
        self.at_once = scores_at_once(options.scores_at_once, backbone.device)

    # losses

    def losses(self, batch: PackedBatch) -> dict[str, Tensor]:
        """L_seq, L_user and L_item (1)-(3) of a packed step, each a mean over its sequences; absent ones are left out.

        Parameters
        ----------
        batch : PackedBatch
            From ``packing.pack``.

        Returns
        -------
        dict of str to Tensor
            Scalars ``sequence``, ``user``, ``item``.
        """
        states = self.states(batch)
        values = [
            negative_log_likelihood(self.blocks(states[part], items_only), self._targets(batch, part, items_only), at)
            for part, items_only, at in self._softmaxes(batch)
        ]
        return self._terms(batch, torch.cat(values))

    def step_loss(self, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """``alpha L_seq + beta L_item + gamma L_user`` (4), and its terms without gradient.

        The same as ``weighted(losses(batch))`` with less work: the weights are known before the softmax.
        """
        states = self.states(batch)
        options = self.options
        shares = torch.tensor([options.alpha, options.gamma, options.beta]).to(batch.weights)
        weights = shares[batch.kinds] * batch.weights
        sums, values = [], []
        for part, items_only, at in self._softmaxes(batch):
            targets = self._targets(batch, part, items_only)
            found = weighted_likelihood(self.blocks(states[part], items_only), targets, weights[part], at)
            sums.append(found[0])
            values.append(found[1])
        return reduce(operator.add, sums), self._terms(batch, torch.cat(values))

    def weighted(self, losses: Mapping[str, Tensor]) -> Tensor:
        """``alpha L_seq + beta L_item + gamma L_user`` (4)."""
        options = self.options
        weights = {"sequence": options.alpha, "item": options.beta, "user": options.gamma}
        return reduce(operator.add, (weights[name] * value for name, value in losses.items()))

    def training_loss(self, batch: WindowBatch, generator: torch.Generator) -> Tensor:
        """The sequence loss (1) over padded windows: training without labels, outside this method's own stages."""
        states = self._sequence_states(batch.users, batch.inputs)
        scored = batch.targets > 0
        targets = batch.targets[scored]
        counts = scored.sum(1)
        weights = (scored / counts.clamp(min=1)[:, None])[scored] / (counts > 0).sum()
        return (self._next_item(states[scored], targets) * weights).sum()

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Plain RecBole: next item (1) for the one target of each history."""
        states = self._last_states(interaction)
        return self._next_item(states, interaction[self.POS_ITEM_ID]).mean()

    # scores

    def query_vectors(self, batch: Any) -> Tensor:
        """Queries ``[B, d]`` whose dot products with :meth:`item_vectors` order the items.

        Where p is at most D, the logit of an item is ``h . X_i = (P^T h) . a_i + h . b``; the last term is the same for
        all items and is left out. Else the query is the hidden state itself.

        Parameters
        ----------
        batch : mapping
            ``user_id [B]``, ``item_id_list [B, L]`` (right-padded), ``item_length [B]``.
        """
        states = self._last_states(batch)
        return self.tables.head.projection.query(states)[0] if self.tables.head.is_narrow else states

    def item_vectors(self) -> Tensor:
        """Item side of the scores, ``[n_items + 1, d]``; the padding row is zero."""
        table = self.tables.head
        rows = table.projection.hidden(table.weight) if table.is_narrow else table.projection(table.weight)
        return torch.cat([rows.new_zeros(1, rows.shape[1]), rows])

    def predict(self, interaction: Any) -> Tensor:
        """Score ``[B]`` of one given item for each history."""
        return (self.query_vectors(interaction) * self.item_vectors()[interaction[self.ITEM_ID]]).sum(1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Scores ``[B, n_items + 1]``: items alone, never words or users; padding has minus infinity."""
        scores = self.query_vectors(interaction) @ self.item_vectors().T
        scores[:, 0] = -torch.inf
        return scores

    # parts

    def blocks(self, states: Tensor, items_only: bool = False) -> list[Block]:
        """The classes that states ``[N, D]`` are scored against: words, users and items, or items alone."""
        items = Block(*self._scoring(self.tables.head, states))
        if items_only:
            return [items]
        words = Block(states, self._word_head, bias=self._word_bias)
        if self.tables.users is None:
            return [words, items]
        return [words, Block(*self._scoring(self.tables.users, states)), items]

    def word_vectors(self, ids: Tensor) -> Tensor:
        """Input vectors ``[..., D]`` of word ids."""
        return self._words[ids]

    def user_rows(self, users: Tensor) -> Tensor:
        """Rows ``[B, D]`` of user ids; a user who trained nothing gets the mean of those who did."""
        table = self.tables.users
        assert table is not None  # a model without user tokens asks for no rows of them
        warm = self.warm_users
        known = (users >= 1) & (users <= len(warm))
        places = (users - 1).clamp(0, len(warm) - 1)
        rows = table.weight[places]
        cold = ~(known & warm[places])
        if not self.training and bool(cold.any()):
            share = warm.to(rows.dtype) / warm.sum().clamp(min=1)
            rows = torch.where(cold[:, None], share @ table.weight, rows)
        return table.projection(rows)

    def states(self, batch: PackedBatch) -> Tensor:
        """States ``[N, D]`` before the targets of a packed step: one pass for all its sequences."""
        flat = self._words[batch.words.flatten()]
        flat = self._with_rows(flat, batch.user_places, batch.user_rows, self.tables.users)
        flat = self._with_rows(flat, batch.item_places, batch.item_rows, self.tables.items)
        again = {"checkpointing": True} if self.checkpointing else {}
        inputs = flat.view(*batch.words.shape, -1)
        states = self.backbone.hidden_states(inputs, batch.documents(), batch.positions, **again)
        return states.reshape(-1, states.shape[-1])[batch.scored]

    def _softmaxes(self, batch: PackedBatch) -> list[tuple[slice, bool, int]]:
        """Which targets share a softmax: ``(targets, over items alone, logits at once)``; sequences come first."""
        n, cut = len(batch.targets), batch.counts[SEQUENCE]
        if self.options.seq_softmax == "full":
            return [(slice(0, n), False, self.at_once)]
        parts = [(slice(0, cut), True, self.at_once), (slice(cut, n), False, self.at_once)]
        return [part for part in parts if part[0].start < part[0].stop]

    def _targets(self, batch: PackedBatch, part: slice, items_only: bool) -> Tensor:
        first = self.vocabulary.n_words + self.vocabulary.n_users if items_only else 0
        return batch.targets[part] - first

    @staticmethod
    def _terms(batch: PackedBatch, values: Tensor) -> dict[str, Tensor]:
        # No boolean indices: each would make the host wait for the device.
        sums = values.new_zeros(3).index_add(0, batch.kinds, values * batch.weights)
        names = {SEQUENCE: "sequence", USER_LABEL: "user", ITEM_LABEL: "item"}
        return {name: sums[kind] for kind, name in names.items() if batch.counts[kind]}

    @staticmethod
    def _scoring(table: Any, states: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        with torch.autocast(states.device.type, enabled=False):
            return table.scoring(states)

    def _likelihood(self, states: Tensor, targets: Tensor, items_only: bool = False) -> Tensor:
        """Negative log-likelihood ``[N]`` of extended ids."""
        if items_only:
            targets = targets - (self.vocabulary.n_words + self.vocabulary.n_users)
        return negative_log_likelihood(self.blocks(states, items_only), targets, self.at_once)

    def _next_item(self, states: Tensor, items: Tensor) -> Tensor:
        """Negative log-likelihood ``[N]`` of item ids under the softmax of sequences."""
        targets = items + (self.vocabulary.n_words + self.vocabulary.n_users - 1)
        return self._likelihood(states, targets, self.options.seq_softmax == "items_only")

    def _with_rows(self, flat: Tensor, places: Tensor, rows: Tensor, table: Any) -> Tensor:
        return flat if table is None or not len(places) else flat.index_put((places,), table(rows).to(flat.dtype))

    def _sequence_states(self, users: Tensor | None, item_seq: Tensor) -> Tensor:
        """States ``[B, L, D]`` at the items of right-padded histories; what is padded cannot be seen from before it."""
        size, length = item_seq.shape
        parts = [self._constant(self._opening, size)]
        if self.tables.users is not None and users is not None:
            parts.append(self.user_rows(users)[:, None])
        parts.append(self._constant(self._joint, size))
        parts.append(self.tables.items((item_seq - 1).clamp(min=0).flatten()).view(size, length, -1))
        inputs = torch.cat([part.to(self._words.dtype) for part in parts], 1)
        return self.backbone.hidden_states(inputs)[:, -length:]

    def _last_states(self, batch: Any) -> Tensor:
        """States ``[B, D]`` at the newest items, in passes of a bounded number of tokens."""
        item_seq, lengths = batch[self.ITEM_SEQ], batch[self.ITEM_SEQ_LEN]
        users = None if self.tables.users is None else batch[self.USER_ID]
        order, parts = lengths.argsort(descending=True, stable=True), []
        sizes, start = lengths[order].tolist(), 0
        most = _TOKENS_AT_ONCE.get(item_seq.device.type, _TOKENS_AT_ONCE["cpu"])
        while start < len(sizes):
            # Of one length or nearly: a row shorter than most of the longest waits for the next pass.
            stop = start + max(1, most // (sizes[start] + len(self._opening) + len(self._joint) + 1))
            stop = start + sum(size >= 0.75 * sizes[start] - 1 for size in sizes[start:stop])
            rows = order[start:stop]
            states = self._sequence_states(None if users is None else users[rows], item_seq[rows, : sizes[start]])
            parts.append(states[torch.arange(len(rows), device=states.device), lengths[rows] - 1])
            start = stop
        return torch.cat(parts)[order.argsort()]

    def _constant(self, ids: list[int], size: int) -> Tensor:
        words = self._words[torch.tensor(ids, dtype=torch.long, device=self._words.device)]
        return words.expand(size, *words.shape)

    def _fitting(self, wanted: int, name: str) -> int:
        """Items of a history that fit into the context beside what stands before them."""
        before = len(self._opening) + len(self._joint) + int(self.tables.users is not None)
        room = self.backbone.context - before
        if wanted <= room:
            return wanted
        if self.options.long_sequences == "cut" and room >= 1:
            return room
        raise BenchError(
            f"{name}: {wanted} items and {before} tokens before them are {wanted + before} positions, but "
            f"{self.backbone.name} has {self.backbone.context}; set training.max_length={max(1, room)} or "
            "long_sequences=cut"
        )


class LlamaSeq(ReLRec):
    """Llama2-seq: item tokens before a frozen language model, without user tokens and without labels."""

    Options: ClassVar[type[ReLRecOptions]] = LlamaSeqOptions
    display_name = "Llama2-seq"


def _head_weights(backbone: Any) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the frozen output head.

    Raises
    ------
    BenchError
        When logits are no plain linear function of the last state.
    """
    head, config = backbone.head(), backbone.model.config
    scale = getattr(config, "logit_scale", None)
    softcap = getattr(config, "final_logit_softcapping", None)
    weight = getattr(head, "weight", None)
    if weight is None or weight.dim() != 2 or not weight.is_floating_point() or softcap or scale not in (None, 1.0):
        raise BenchError(
            f"{backbone.name}: its output head is no plain linear layer, which ReLRec's softmax needs; use another "
            "model, or llm_precision=bfloat16 where the head was quantised"
        )
    bias = getattr(head, "bias", None)
    words = slice(backbone.vocabulary)
    return weight.detach()[words].to(backbone.device), None if bias is None else bias.detach()[words].to(
        backbone.device
    )
