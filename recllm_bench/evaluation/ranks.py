"""Where the target stands among the candidates: two whole numbers for each case, and nothing else is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recllm_bench.errors import BenchError
from recllm_bench.evaluation.candidates import Candidates, sample_candidates
from recllm_bench.evaluation.places import UNRANKED, Ranks

__all__ = ["UNRANKED", "Ranks", "rank_cases"]

if TYPE_CHECKING:
    from recllm_bench.data.histories import Histories
    from recllm_bench.data.splits import Cases, Split
    from recllm_bench.evaluation.protocols import Protocol

_SCORES_AT_ONCE = 1 << 21  # floats of one block of scores: 8 MiB stay in or near a processor's cache
_ITEMS_AT_ONCE = 1 << 20


def rank_cases(
    model: Any,
    split: Split,
    cases: Cases,
    protocol: Protocol,
    *,
    columns: Mapping[str, np.ndarray] | None = None,
    candidates: Candidates | None = None,
    max_length: int | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 512,
    top: int = 0,
) -> Ranks:
    """Rank every case's target.

    A model with ``item_vectors`` and ``query_vectors`` or ``sequence_states`` is scored by matrix products in
    blocks; any other by ``full_sort_predict`` in batches. Users x items never stands in memory.

    Parameters
    ----------
    model : torch.nn.Module
        The recommender; it is put into evaluation mode for the time.
    split : Split
        Holds the histories.
    cases : Cases
        What to rank.
    protocol : Protocol
        Candidates, history and padding policy.
    columns : mapping of str to array [n, ...], optional
        Further columns of the cases for ``query_vectors`` and ``full_sort_predict``.
    candidates : Candidates, optional
        The candidate file of a sampled protocol; drawn with the protocol's seed when it is not given.
    max_length : int, optional
        Longest history the model sees; by default ``model.max_seq_length``, else 50.
    device : torch.device or str
        Where to compute.
    batch_size : int
        Cases encoded at once.
    top : int
        How many best items to return for each case.

    Raises
    ------
    BenchError
        For a target out of range, an empty history, a score that is not a number, or a mismatching model.
    """
    device = torch.device(device)
    histories = split.histories
    _check(cases, histories, columns)
    if protocol.samples_candidates and candidates is None:
        candidates = sample_candidates(histories, cases, protocol.negatives, protocol.user_seed)
    if candidates is not None and not np.array_equal(candidates.items[:, 0], cases.targets):
        raise BenchError("the candidate file belongs to other cases: its first column must be the targets")
    max_length = max_length or int(getattr(model, "max_seq_length", 0) or 50)
    lengths = cases.ends - histories.offsets[cases.users - 1]
    order = np.argsort(-np.minimum(lengths, max_length), kind="stable")  # the largest batch comes first
    ordered = cases.take(order)
    columns = {name: np.asarray(column)[order] for name, column in (columns or {}).items()}
    ids = None if candidates is None else candidates.items[order]
    excluded = _Excluded(histories, ordered, protocol, device) if ids is None else None
    counter = _Counter(ordered, protocol, histories.n_items, device, top, ids, excluded)

    was_training = getattr(model, "training", False)
    if hasattr(model, "eval"):
        model.eval()
    try:
        with torch.inference_mode():
            batches = _batches(histories, ordered, columns, max_length, device, batch_size)
            query = _query_function(model)
            if query is None:
                _rank_by_prediction(model, batches, counter)
            else:
                items = _item_table(model, counter.n_columns)
                queries = torch.cat([query(batch).float() for _, batch in batches])
                _rank_by_product(queries, items, counter)
    finally:
        if was_training:
            model.train()
    return counter.ranks(order, cases, lengths, _count_repeats(histories, cases))


def _check(cases: Cases, histories: Histories, columns: Mapping[str, np.ndarray] | None) -> None:
    if len(cases) == 0:
        raise BenchError("there is nothing to evaluate: the split has no cases; use a larger dataset or another split")
    users, targets = np.asarray(cases.users), np.asarray(cases.targets)
    if users.min() < 1 or users.max() > histories.n_users:
        raise BenchError(f"a case has a user id out of range: users are 1 to {histories.n_users}")
    bad = (targets < 1) | (targets > histories.n_items)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise BenchError(
            f"the case of user {users[row]} has the target {targets[row]}, which is no item: 1 to {histories.n_items}"
        )
    starts = histories.offsets[users - 1]
    if (cases.ends <= starts).any():
        user = int(users[np.flatnonzero(cases.ends <= starts)[0]])
        raise BenchError(f"user {user} has an empty history and cannot be ranked; drop such users in the split")
    if (cases.ends > histories.offsets[users]).any():
        raise BenchError(
            "a case's history reaches into the next user's; the split and the histories do not belong together"
        )
    for name, column in (columns or {}).items():
        if len(column) != len(cases):
            raise BenchError(f"column '{name}' has {len(column)} rows for {len(cases)} cases")


def _batches(
    histories: Histories,
    cases: Cases,
    columns: Mapping[str, np.ndarray],
    max_length: int,
    device: torch.device,
    batch_size: int,
) -> Iterator[tuple[slice, dict[str, torch.Tensor]]]:
    from recllm_bench.data.windows import DeviceHistories

    on_device = DeviceHistories(histories, device)
    users = torch.as_tensor(cases.users, dtype=torch.long, device=device)
    for start in range(0, len(cases), batch_size):
        rows = slice(start, min(start + batch_size, len(cases)))
        item_seq, lengths = on_device.history_batch(cases.users[rows], cases.ends[rows], max_length)
        batch = {"user_id": users[rows], "item_id_list": item_seq.long(), "item_length": lengths.long()}
        batch.update({name: torch.as_tensor(column[rows]).to(device) for name, column in columns.items()})
        yield rows, batch


def _query_function(model: Any) -> Callable[[dict[str, torch.Tensor]], torch.Tensor] | None:
    """How a batch becomes query vectors, or None when scores are no dot products."""
    if not hasattr(model, "item_vectors"):
        return None
    if hasattr(model, "query_vectors"):
        return model.query_vectors
    if not hasattr(model, "sequence_states"):
        return None

    def last_state(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        states = model.sequence_states(batch["item_id_list"], batch["item_length"])
        rows = torch.arange(len(states), device=states.device)
        return states[rows, batch["item_length"] - 1]

    return last_state


def _item_table(model: Any, n_columns: int) -> torch.Tensor:
    items = model.item_vectors().float()
    if len(items) < n_columns:
        raise BenchError(
            f"{type(model).__name__}.item_vectors() has {len(items)} rows for {n_columns} ids (row 0 is padding)"
        )
    return items[:n_columns].contiguous()  # later rows are special tokens, such as a mask


def _rank_by_prediction(
    model: Any, batches: Iterator[tuple[slice, dict[str, torch.Tensor]]], counter: _Counter
) -> None:
    from recllm_bench.recbole_bridge import interaction

    for rows, batch in batches:
        size = rows.stop - rows.start
        scores = model.full_sort_predict(interaction(batch)).float().reshape(size, -1)
        if scores.shape[1] < counter.n_columns:
            raise BenchError(
                f"{type(model).__name__}.full_sort_predict gives {scores.shape[1]} scores for {counter.n_columns} ids"
            )
        scores = scores[:, : counter.n_columns]
        # Blocks of users keep the masks' temporaries small where the catalogue is large.
        step = max(1, _SCORES_AT_ONCE // counter.n_columns)
        for start in range(0, size, step):
            stop = min(start + step, size)
            block = slice(rows.start + start, rows.start + stop)
            counter.count(block, scores[start:stop].clone())


def _rank_by_product(queries: torch.Tensor, items: torch.Tensor, counter: _Counter) -> None:
    if counter.ids is not None:
        step = max(1, _SCORES_AT_ONCE // (counter.ids.shape[1] * items.shape[1]))
        for start in range(0, len(queries), step):
            rows = slice(start, min(start + step, len(queries)))
            # One product and one sum for each pair, in one order: equal vectors have equal scores.
            scores = (queries[rows, None, :] * items[counter.ids[rows]]).sum(-1)
            counter.count_listed(rows, scores)
        return
    same_as = _duplicates(items)
    width = min(len(items), _ITEMS_AT_ONCE)
    step = max(16, _SCORES_AT_ONCE // width)
    for start in range(0, len(queries), step):
        rows = slice(start, min(start + step, len(queries)))
        if width == len(items):
            scores = queries[rows] @ items.T
            if same_as is not None:
                scores = scores[:, same_as]
            counter.count(rows, scores)
        else:
            counter.count_in_chunks(rows, lambda first, last, rows=rows: queries[rows] @ items[first:last].T, width)


def _duplicates(vectors: torch.Tensor) -> torch.Tensor | None:
    """For each row the first row with the same bits, or None when all differ.

    A matrix product may round a column differently at the edge of a tile, so equal items could differ in the
    last bit and a tie would be missed; scores of duplicates are therefore copied from the first of them.
    """
    bits = vectors.view(torch.int32).long()
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(-(2**62), 2**62, (vectors.shape[1],), generator=generator).to(vectors.device)
    keys = (bits * weights).sum(1)  # wraps around: a 64-bit hash, exact and independent of the position
    _, inverse, counts = torch.unique(keys, return_inverse=True, return_counts=True)
    if len(counts) == len(keys):
        return None
    places = torch.arange(len(keys), device=keys.device)
    first = torch.full_like(counts, len(keys)).scatter_reduce(0, inverse, places, "amin")
    same_as = first[inverse]
    return torch.where((vectors[same_as] == vectors).all(1), same_as, places)


class _Excluded:
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


class _Counter:
    """Counts, block by block, how many candidates beat or equal the target."""

    def __init__(
        self,
        cases: Cases,
        protocol: Protocol,
        n_items: int,
        device: torch.device,
        top: int,
        ids: np.ndarray | None,
        excluded: _Excluded | None,
    ) -> None:
        self.n_columns = n_items + 1
        self.protocol = protocol
        self.excluded = excluded
        self.ids = None if ids is None else torch.as_tensor(ids, dtype=torch.long, device=device)
        self.users = cases.users
        self.targets = torch.as_tensor(cases.targets, dtype=torch.long, device=device)
        n = len(cases)
        self.higher = torch.zeros(n, dtype=torch.long, device=device)
        self.tied = torch.zeros(n, dtype=torch.long, device=device)
        self.candidates = torch.zeros(n, dtype=torch.long, device=device)
        self.top = torch.zeros((n, top), dtype=torch.int32, device=device) if top else None

    def count(self, rows: slice, scores: torch.Tensor) -> None:
        """Count in a block that holds every item; ``scores`` [B, n_items + 1] is overwritten."""
        if self.ids is not None:
            self.count_listed(rows, scores.gather(1, self.ids[rows]))
            return
        self._check_numbers(scores, rows)
        targets = self.targets[rows, None]
        wanted = scores.gather(1, targets)
        self._mask(rows, scores, 0)
        scores.scatter_(1, targets, wanted)
        self._add(rows, scores, wanted)
        if self.top is not None:
            self._keep_top(rows, *scores.topk(min(self.top.shape[1], scores.shape[1]), dim=1))
        self._close(rows, wanted)

    def count_listed(self, rows: slice, scores: torch.Tensor) -> None:
        """Count among listed candidates, ``scores`` [B, C] with the target in column 0."""
        self._check_numbers(scores, rows)
        wanted = scores[:, :1]
        self._add(rows, scores, wanted)
        if self.top is not None:
            values, places = scores.topk(min(self.top.shape[1], scores.shape[1]), dim=1)
            self._keep_top(rows, values, self.ids[rows].gather(1, places))
        self._close(rows, wanted)

    def count_in_chunks(self, rows: slice, product: Callable[[int, int], torch.Tensor], width: int) -> None:
        """Count over chunks of items: one pass finds the targets' scores, a second with equal products counts."""
        targets = self.targets[rows]
        chunks = [(first, min(first + width, self.n_columns)) for first in range(0, self.n_columns, width)]
        wanted = torch.empty((len(targets), 1), device=targets.device)
        for first, last in chunks:
            inside = (targets >= first) & (targets < last)
            if inside.any():
                scores = product(first, last)
                wanted[inside, 0] = scores[inside, targets[inside] - first]
        best: list[tuple[torch.Tensor, torch.Tensor]] = []
        for first, last in chunks:
            scores = product(first, last)
            self._check_numbers(scores, rows)
            self._mask(rows, scores, first)
            inside = (targets >= first) & (targets < last)
            scores[inside, targets[inside] - first] = wanted[inside, 0]
            self._add(rows, scores, wanted)
            if self.top is not None:
                values, places = scores.topk(min(self.top.shape[1], scores.shape[1]), dim=1)
                best.append((values, places + first))
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
        counts = (restored(values) for values in (self.higher, self.tied, self.candidates))
        return Ranks(np.asarray(cases.users), np.asarray(cases.targets), *counts, top, lengths, repeats)

    def _mask(self, rows: slice, scores: torch.Tensor, first: int) -> None:
        """Take padding and history out of a block whose columns are the items from ``first`` on."""
        if self.protocol.exclude_pad and first == 0:
            scores[:, 0] = float("-inf")
        if self.excluded is not None and self.excluded.active:
            owners, items = self.excluded.pairs(rows)
            items = items - first
            if first or scores.shape[1] < self.n_columns:
                inside = (items >= 0) & (items < scores.shape[1])
                owners, items = owners[inside], items[inside]
            scores[owners, items] = self.excluded.value

    def _add(self, rows: slice, scores: torch.Tensor, wanted: torch.Tensor) -> None:
        self.higher[rows] += torch.count_nonzero(scores > wanted, dim=1)
        self.tied[rows] += torch.count_nonzero(scores == wanted, dim=1)
        self.candidates[rows] += torch.count_nonzero(scores > float("-inf"), dim=1)

    def _close(self, rows: slice, wanted: torch.Tensor) -> None:
        without = wanted[:, 0] == float("-inf")
        if without.any():
            self.higher[rows][without] = UNRANKED
            self.tied[rows][without] = 1

    def _keep_top(self, rows: slice, values: torch.Tensor, items: torch.Tensor) -> None:
        items = torch.where(values > float("-inf"), items, torch.zeros_like(items))
        self.top[rows, : items.shape[1]] = items.to(torch.int32)

    def _check_numbers(self, scores: torch.Tensor, rows: slice) -> None:
        # One sum finds nearly always that all is well; infinities of both signs need the exact look.
        if not torch.isnan(scores.sum()):
            return
        bad = torch.isnan(scores).any(1)
        if bad.any():
            user = int(self.users[rows][int(bad.nonzero()[0])])
            raise BenchError(
                f"the model's scores for user {user} are not numbers (NaN); lower the learning rate or clip gradients"
            )


def _count_repeats(histories: Histories, cases: Cases) -> int:
    """Cases whose target occurs in their history."""
    starts = histories.offsets[cases.users - 1]
    found = np.zeros(len(cases), dtype=bool)
    lengths = cases.ends - starts
    for begin in range(0, len(cases), 65536):
        block = slice(begin, begin + 65536)
        owners = np.repeat(np.arange(len(lengths[block])), lengths[block])
        first = np.cumsum(lengths[block]) - lengths[block]
        places = np.arange(len(owners)) - first[owners] + starts[block][owners]
        hit = histories.items[places] == cases.targets[block][owners]
        found[block] |= np.bincount(owners[hit], minlength=len(lengths[block])) > 0
    return int(found.sum())
