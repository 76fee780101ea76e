"""What the training loop asks of ReLRec: packed steps, their loss, and the curves of its terms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recllm_bench.api.method import Job
from recllm_bench.artifacts import write_json
from recllm_bench.data.histories import Histories
from recllm_bench.data.windows import Windows, training_windows
from recllm_bench.errors import BenchError
from recllm_bench.language.block_attention import attend_by_blocks
from recllm_bench.models.relrec.inference import own_against_other
from recllm_bench.models.relrec.memory import choose_checkpointing
from recllm_bench.models.relrec.packing import ITEM_LABEL, USER_LABEL, Book, LabelTokens, Plan, join, pack
from recllm_bench.models.relrec.prompts import ITEM_PROMPTS, USER_PROMPTS
from recllm_bench.progress import log
from recllm_bench.training.sequence import training_counts

if TYPE_CHECKING:
    from recllm_bench.models.relrec.model import ReLRec


class Trainer:
    """What the training loop asks for: packed batches, their loss, the curves of its terms.

    Parameters
    ----------
    curves : Path
        File of the mean of each loss in each epoch.
    """

    def __init__(self, model: ReLRec, job: Job, labels: Any, curves: Path) -> None:
        self.model, self.job, self.options, self.curves = model, job, model.options, curves
        split, options = job.split, model.options
        self.windows = self._cut(epoch=1)
        mark_warm_users(model, self.windows)
        self.book = label_book(model, split.histories, labels)
        self._check_length()
        self._unseen = training_counts(split).numpy() == 0
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = json.loads(curves.read_text()) if curves.exists() else []
        self._epoch = self.tokens = self.unseen_drawn = 0
        if options.packed_attention == "blocks":
            attend_by_blocks(model.backbone)
        tokens = job.training.batch_size * (
            self.book.overhead + model.history_length + (2 * self.book.longest_label() if labels is not None else 0)
        )
        trainable = sum(parameter.numel() for parameter in model.tables.parameters())
        model.checkpointing = choose_checkpointing(
            options.checkpointing, model.backbone, trainable, tokens, model.at_once, model.display_name.lower()
        )

    def batches(self, epoch: int) -> Iterator[Any]:
        """The epoch's steps; everything drawn is a function of the seed and the epoch."""
        self._begin(epoch)
        self.windows = self._cut(epoch)
        generator = np.random.default_rng([self.job.recipe.seed, epoch])
        if epoch == 1:
            yield from map(self._packed, self.visits())
        order = generator.permutation(len(self.windows))
        size = self.job.training.batch_size
        for start in range(0, len(order), size):
            plan = self.plan(order[start : start + size], generator)
            if len(plan):
                yield self._packed(plan)

    def visits(self) -> Iterator[Plan]:
        """Plans of labels alone: ``label_visits`` times every user and item that has one, in an order of its own.

        They come before the first sequence, so that whatever epoch validates best has seen them all.
        """
        generator = np.random.default_rng([self.job.recipe.seed, 0x715175])
        known = {kind: np.flatnonzero(held.count) for kind, held in self.book.labels.items()}
        n_steps = -(-max(map(len, known.values()), default=0) // self.job.training.batch_size)
        for _ in range(self.options.label_visits):
            parts = {kind: np.array_split(generator.permutation(ids), n_steps) for kind, ids in known.items()}
            for step in range(n_steps):
                yield join([self.book.label_plan(kind, rows[step], generator) for kind, rows in parts.items()])

    def _packed(self, plan: Plan) -> Any:
        batch = pack(self.book, plan, self.job.device, capacity=self.options.pack_length)
        self.tokens += batch.n_tokens
        return batch

    def plan(self, rows: np.ndarray, generator: np.random.Generator) -> Plan:
        """Sequences of some windows, the labels of their users, and of as many items drawn uniformly."""
        plans = [self.book.sequences(self.windows, rows)] if self.options.alpha else []
        if USER_LABEL in self.book.labels:
            plans.append(self.book.label_plan(USER_LABEL, self.windows.users[rows], generator))
        if ITEM_LABEL in self.book.labels:
            items = generator.integers(1, self.job.split.histories.n_items + 1, len(rows))
            self.unseen_drawn += int(self._unseen[items].sum())
            plans.append(self.book.label_plan(ITEM_LABEL, items, generator))
        return join(plans)

    def loss(self, batch: Any, generator: torch.Generator) -> torch.Tensor:
        """The weighted sum (4)."""
        loss, terms = self.model.step_loss(batch)
        for name, value in terms.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1
        return loss

    def validated(self, validate: Any) -> Any:
        """The validation metric, noting the epoch's losses beside it."""
        if validate is None:
            return None

        def measured() -> float:
            probed: dict[str, float] = {}
            value = validate()
            for kind in ("user", "item") if self.options.label_probe else ():
                pair = own_against_other(
                    self.model, self.book, kind, sample=self.options.label_probe, seed=self.job.recipe.seed
                )
                for name, losses in zip(("own", "other"), pair, strict=True):
                    if len(losses):
                        probed[f"{kind}, {name} token"] = float(losses.mean())
            means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
            self._rows.append({"epoch": self._epoch, **means, **probed, "validation": value, "tokens": self.tokens})
            write_json(self.curves, self._rows)
            return value

        return measured

    def facts(self) -> dict[str, Any]:
        """Counts that belong beside the result."""
        names = {USER_LABEL: "user", ITEM_LABEL: "item"}
        return {
            "cold_users": int((~self.model.warm_users).sum()),
            "windows": len(self.windows),
            "labels_cut": {names[kind]: held.cut for kind, held in self.book.labels.items()},
            "items_without_training": int(self._unseen[1:].sum()),
            "labels_of_such_items_drawn": self.unseen_drawn,
            "tokens_by_epoch": [row["tokens"] for row in self._rows] or [self.tokens],
            "checkpointing": self.model.checkpointing,
        }

    def _cut(self, epoch: int) -> Windows:
        split, training, draw = self.job.split, self.job.training, (self.job.recipe.seed, epoch)
        return training_windows(split.histories, split.train_ends, self.model.history_length, training.coverage, draw)

    def _begin(self, epoch: int) -> None:
        self._epoch, self._sums, self._counts, self.tokens = epoch, {}, {}, 0
        self._rows = [row for row in self._rows if row["epoch"] < epoch]

    def _check_length(self) -> None:
        longest, context = self.book.longest_label(), self.model.backbone.context
        if longest <= context:
            return
        longest_label = max(int(held.lengths.max()) for held in self.book.labels.values())
        spare = context - (longest - longest_label)
        if self.options.long_sequences == "cut" and spare > 1:
            for labels in self.book.labels.values():
                labels.cut_to(spare)
            return
        raise BenchError(
            f"{self.model.display_name.lower()}: a label with its prompt has {longest} tokens, but "
            f"{self.model.backbone.name} has {context} positions; set label_tokens={max(1, spare)} or "
            "long_sequences=cut"
        )


def label_book(model: ReLRec, histories: Histories, labels: Any) -> Book:
    """Sequences and labels as a model's tokens; kinds of label with no weight, or none at all, are left out."""
    options = model.options
    kinds: dict[str, LabelTokens | None] = {"user": None, "item": None}
    for kind, weight in (("user", options.gamma), ("item", options.beta)):
        if labels is not None and weight:
            found = LabelTokens(labels.of(kind), model.vocabulary, options.label_tokens)
            kinds[kind] = found if len(found.flat) else None
    return Book(
        model.vocabulary,
        histories,
        template=options.seq_template,
        user_token=options.user_token,
        user_labels=kinds["user"],
        item_labels=kinds["item"],
        user_prompts=USER_PROMPTS,
        item_prompts=ITEM_PROMPTS,
    )


def mark_warm_users(model: ReLRec, windows: Windows) -> None:
    """Tell the model whose token was trained; log how many users are cold."""
    warm = torch.zeros_like(model.warm_users)
    if len(warm):
        warm[torch.from_numpy(np.unique(windows.users) - 1).to(warm.device)] = True
        cold = int((~warm).sum())
        if cold:
            log.debug(f"{model.display_name}: {cold} users have no training step and get the mean row")
    model.warm_users.copy_(warm)
