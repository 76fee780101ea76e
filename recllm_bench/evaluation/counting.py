"""Counting in blocks of scores: what beats the target, what equals it, what is a candidate at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from recllm_bench.errors import BenchError
from recllm_bench.evaluation.places import UNRANKED, Ranks

if TYPE_CHECKING:
    from recllm_bench.data.histories import Histories
    from recllm_bench.data.splits import Cases
    from recllm_bench.evaluation.protocols import Protocol

_MOST_COLUMNS = 1 << 23  # a sum of ones is exact up to 2^24 in float32


class Excluded:
    """The history items of a block of cases, as index pairs."""

    def __init__(self, histories: Histories, cases: Cases, protocol: Protocol, device: torch.device) -> None:
        self.active = protocol.exclude_history
        self.value = 0.0 if protocol.seen_score == "zero" else float("-inf")
        self.items = torch.as_tensor(histories.items, device=device)
        self.starts = torch.as_tensor(histories.offsets[cases.users - 1], dtype=torch.long, device=device)
        self.lengths = torch.as_tensor(cases.ends, dtype=torch.long, device=device) - self.starts

    def pairs(self, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        lengths, starts = self.lengths[rows], self.starts[rows]
        owners = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        first = torch.cumsum(lengths, 0) - lengths
        places = torch.arange(len(owners), device=lengths.device) - first[owners] + starts[owners]
        return owners, self.items[places].long()


class Counter:
    """Counts, block by block, how many candidates beat or equal the target."""

    def __init__(
        self,
        histories: Histories,
        cases: Cases,
        protocol: Protocol,
        device: torch.device,
        top: int,
        ids: np.ndarray | None,
    ) -> None:
        self.n_columns = histories.n_items + 1
        self.protocol = protocol
        self.excluded = Excluded(histories, cases, protocol, device) if ids is None else None
        self.ids = None if ids is None else torch.as_tensor(ids, dtype=torch.long, device=device)
        self.users = cases.users
        self.targets = torch.as_tensor(cases.targets, dtype=torch.long, device=device)
        n = len(cases)
        self.higher = torch.zeros(n, dtype=torch.long, device=device)
        self.tied = torch.zeros(n, dtype=torch.long, device=device)
        self.candidates = torch.zeros(n, dtype=torch.long, device=device)
        self.top = torch.zeros((n, top), dtype=torch.int32, device=device) if top else None
        self.rooms = [torch.empty(0), torch.empty(0)]

    def block(self, rows: int, columns: int) -> torch.Tensor:
        """Memory for scores [rows, columns]; the same for every block, as fresh pages cost more than a count."""
        return self._room(0, rows, columns)

    def _room(self, which: int, rows: int, columns: int) -> torch.Tensor:
        if self.rooms[which].numel() < rows * columns:
            self.rooms[which] = torch.empty(rows * columns, device=self.targets.device)
        return self.rooms[which][: rows * columns].view(rows, columns)

    def count(self, rows: slice, scores: torch.Tensor) -> None:
        """Count in a block that holds every item; ``scores`` [B, n_items + 1] is overwritten."""
        if self.ids is not None:
            self.count_listed(rows, scores.gather(1, self.ids[rows]))
        else:
            self.count_in_chunks(rows, lambda first, last: scores[:, first:last], min(self.n_columns, _MOST_COLUMNS))

    def count_listed(self, rows: slice, scores: torch.Tensor) -> None:
        """Count among listed candidates, ``scores`` [B, C] with the target in column 0."""
        finite = self._check_numbers(scores, rows)
        wanted = scores[:, :1].clone()
        if self.top is not None:
            values, places = scores.topk(min(self.top.shape[1], scores.shape[1]), dim=1)
            assert self.ids is not None  # only listed candidates come here
            self._keep_top(rows, values, self.ids[rows].gather(1, places))
        self._add(rows, scores, wanted, scores.shape[1] if finite else None)
        self._close(rows, wanted)

    def count_in_chunks(self, rows: slice, product: Callable[[int, int], torch.Tensor], width: int) -> None:
        """Count over chunks of items: one pass finds the targets' scores, a second with equal products counts.

        ``product(first, last)`` gives the scores [B, last - first], to be overwritten.
        """
        targets = self.targets[rows]
        chunks = [(first, min(first + width, self.n_columns)) for first in range(0, self.n_columns, width)]
        holding = [chunks[place] for place in torch.unique(targets // width).tolist()]
        wanted = torch.empty((len(targets), 1), device=targets.device)
        for first, last in holding:
            scores = product(first, last)
            inside = (targets >= first) & (targets < last)
            wanted[inside, 0] = scores[inside, targets[inside] - first]
        seen = self.excluded.pairs(rows) if self.excluded is not None and self.excluded.active else None
        best: list[tuple[torch.Tensor, torch.Tensor]] = []
        # The last one found is still there: it is the first to be counted.
        for first, last in [*holding[::-1], *(chunk for chunk in chunks if chunk not in holding)]:
            if (first, last) != holding[-1]:
                scores = product(first, last)
            finite = self._check_numbers(scores, rows)
            left = self._mask(scores, first, seen)
            inside = (targets >= first) & (targets < last)
            scores[inside, targets[inside] - first] = wanted[inside, 0]
            if self.top is not None:
                values, places = scores.topk(min(self.top.shape[1], scores.shape[1]), dim=1)
                best.append((values, places + first))
            self._add(rows, scores, wanted, left if finite else None)
        if self.top is not None:
            values, items = (torch.cat(parts, 1) for parts in zip(*best, strict=True))
            values, places = values.topk(min(self.top.shape[1], values.shape[1]), dim=1)
            self._keep_top(rows, values, items.gather(1, places))
        self._close(rows, wanted)

    def ranks(self, order: np.ndarray, cases: Cases, lengths: np.ndarray, repeats: int) -> Ranks:
        """Everything counted, back in the order of the cases."""

        def restored(values: torch.Tensor) -> np.ndarray:
            result = np.empty(tuple(values.shape), dtype=values.cpu().numpy().dtype)
            result[order] = values.cpu().numpy()
            return result

        top = None if self.top is None else restored(self.top)
        higher, tied, candidates = (restored(values) for values in (self.higher, self.tied, self.candidates))
        users, targets = np.asarray(cases.users), np.asarray(cases.targets)
        return Ranks(users, targets, higher, tied, candidates, top, lengths, repeats)

    def repeats(self) -> int | None:
        """Cases whose target occurs in their history; None where no histories are at hand."""
        if self.excluded is None:
            return None
        count = torch.zeros((), dtype=torch.long, device=self.targets.device)
        for start in range(0, len(self.targets), 1 << 16):
            owners, items = self.excluded.pairs(slice(start, start + (1 << 16)))
            targets = self.targets[start : start + (1 << 16)]
            hit = torch.zeros(len(targets), dtype=torch.long, device=targets.device)
            count += hit.index_add_(0, owners, (items == targets[owners]).long()).gt_(0).sum()
        return int(count)

    def _mask(self, scores: torch.Tensor, first: int, seen: tuple[torch.Tensor, torch.Tensor] | None) -> int | None:
        """Take padding and history out of a block whose columns are the items from ``first`` on.

        Returns how many columns are left in every row, or None when rows differ.
        """
        left = scores.shape[1]
        if self.protocol.exclude_pad and first == 0:
            scores[:, 0] = float("-inf")
            left -= 1
        if seen is None:
            return left
        owners, items = seen[0], seen[1] - first
        if scores.shape[1] < self.n_columns:
            inside = torch.nonzero((items >= 0) & (items < scores.shape[1])).squeeze(1)
            owners, items = owners[inside], items[inside]
        assert self.excluded is not None  # what is seen was found by it
        scores[owners, items] = self.excluded.value
        return None if self.excluded.value else left

    def _add(self, rows: slice, scores: torch.Tensor, wanted: torch.Tensor, candidates: int | None) -> None:
        """Count in a block and overwrite it; ``candidates`` of each row where that is known.

        Comparisons into floats and their sums are several times faster than ``count_nonzero``, and as exact.
        """
        marks = self._room(1, *scores.shape)
        if candidates is None:
            self.candidates[rows] += torch.gt(scores, float("-inf"), out=marks).sum(1).long()
        else:
            self.candidates[rows] += candidates
        self.higher[rows] += torch.gt(scores, wanted, out=marks).sum(1).long()
        self.tied[rows] += scores.eq_(wanted).sum(1).long()

    def _close(self, rows: slice, wanted: torch.Tensor) -> None:
        without = wanted[:, 0] == float("-inf")
        if without.any():
            self.higher[rows][without] = UNRANKED
            self.tied[rows][without] = 1

    def _keep_top(self, rows: slice, values: torch.Tensor, items: torch.Tensor) -> None:
        items = torch.where(values > float("-inf"), items, torch.zeros_like(items))
        assert self.top is not None
        self.top[rows, : items.shape[1]] = items.to(torch.int32)

    def _check_numbers(self, scores: torch.Tensor, rows: slice) -> bool:
        """Refuse NaN; whether all scores are known to be finite."""
        # One sum finds nearly always that all is well; infinities need the exact look.
        if torch.isfinite(scores.sum()):
            return True
        bad = torch.isnan(scores).any(1)
        if bad.any():
            user = int(self.users[rows][int(bad.nonzero()[0])])
            raise BenchError(
                f"the model's scores for user {user} are not numbers (NaN); lower the learning rate or clip gradients"
            )
        return False
