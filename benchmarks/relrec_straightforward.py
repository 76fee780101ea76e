"""ReLRec the way one writes it first: what ``relrec.py`` compares with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from recllm_bench.language.backbone import Backbone
from recllm_bench.models.relrec.model import ReLRec
from recllm_bench.models.relrec.packing import ITEM_LABEL, SEQUENCE, USER_LABEL, Book, Plan


class Straightforward(nn.Module):
    """ReLRec as one writes it first: one table of all tokens, three padded passes, logits of everything everywhere.

    It shares the trainable rows and the language model's weights with the model it is compared with, so that both can
    be checked to compute the same.
    """

    def __init__(self, model: ReLRec, backbone: Backbone) -> None:
        super().__init__()
        self.model, self.backbone = model, backbone

    def table(self) -> torch.Tensor:
        """All rows ``[V + U + I, D]``."""
        tables = self.model.tables
        rows = [self.backbone.word_embedding()]
        for part in (tables.users, tables.items):
            if part is not None:
                rows.append(part.projection(part.weight))
        return torch.cat([row.to(rows[0].dtype) for row in rows])

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    def forward(self, table: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, L, V + U + I]`` of padded rows of extended ids."""
        base = self.backbone.model.base_model
        states = base(inputs_embeds=table[tokens], attention_mask=mask, use_cache=False).last_hidden_state
        return states @ table.T

    def loss(self, table: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean over rows of the mean over targets; ``labels`` is -100 where there is none."""
        logits = self(table, tokens, mask)[:, :-1].float()
        values = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="none", ignore_index=-100)
        scored = labels[:, 1:] >= 0
        return (values.view(scored.shape).sum(1) / scored.sum(1)).mean()

    def step_loss(self, book: Book, plan: Plan) -> torch.Tensor:
        """The weighted sum of the three losses, each in a pass of its own."""
        options, total, table = self.model.options, 0.0, self.table()
        for kind, weight in ((SEQUENCE, options.alpha), (USER_LABEL, options.gamma), (ITEM_LABEL, options.beta)):
            part = plan.only(kind)
            if len(part):
                total = total + weight * self.loss(table, *padded(book, part, self.device))
        return total

    @torch.no_grad()
    def rank(self, histories: Any, cases: Any, length: int) -> np.ndarray:
        """How many items beat the target, one user at a time."""
        vocabulary = self.model.vocabulary
        first = vocabulary.n_words + vocabulary.n_users
        table, higher = self.table(), []
        for user, end, target in zip(cases.users, cases.ends, cases.targets, strict=True):
            history = histories.items[max(histories.offsets[user - 1], end - length) : end].astype(np.int64)
            ids = [*vocabulary.start, *([vocabulary.user(int(user))] if vocabulary.n_users else [])]
            tokens = torch.tensor([ids + vocabulary.item(history).tolist()], device=self.device)
            scores = self(table, tokens, torch.ones_like(tokens))[0, -1, first:]
            higher.append(int((scores > scores[target - 1]).sum()))
        return np.array(higher)


def padded(book: Book, plan: Plan, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of a plan, right-padded to the longest: tokens, mask, labels (-100: none)."""
    rows = []
    for starts, lengths in zip(plan.starts, plan.lengths, strict=True):
        pieces = [book.flat[start : start + length] for start, length in zip(starts, lengths, strict=True)]
        rows.append(np.concatenate(pieces))
    width = max(map(len, rows))
    tokens, labels = np.zeros((len(rows), width), np.int64), np.full((len(rows), width), -100, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for number, row in enumerate(rows):
        tokens[number, : len(row)], mask[number, : len(row)] = row, 1
        labels[number, plan.contexts[number] : len(row)] = row[plan.contexts[number] :]
    return tuple(torch.from_numpy(values).to(device) for values in (tokens, mask, labels))
