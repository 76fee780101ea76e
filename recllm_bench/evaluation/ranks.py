"""Where the target stands among the candidates: two whole numbers for each case, and nothing else is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recllm_bench.errors import BenchError
from recllm_bench.evaluation.candidates import Candidates, sample_candidates
from recllm_bench.evaluation.counting import Counter
from recllm_bench.evaluation.filtering import count_filtered
from recllm_bench.evaluation.places import UNRANKED, Ranks

__all__ = ["UNRANKED", "Ranks", "rank_cases"]

if TYPE_CHECKING:
    from recllm_bench.data.histories import Histories
    from recllm_bench.data.splits import Cases, Split
    from recllm_bench.evaluation.protocols import Protocol

_SCORES_AT_ONCE = 1 << 20  # floats of one block of scores: 4 MiB stay in or near a processor's cache
_ITEMS_AT_ONCE = 1 << 10  # a product is fastest where its block is near a square
_LARGE_MODEL = 1 << 26  # numbers
_DUPLICATES_AMONG = 1 << 20  # above so many items, duplicates are not looked for: their blocks would be too narrow


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
    batch_size: int = 0,
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
        Cases encoded at once (0: 512, or more on CUDA where the model is no language model).
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
    columns = {name: np.asarray(column)[order] for name, column in (columns or {}).items()}
    batch_size = batch_size or _cases_at_once(model, device)
    batches = _batches(histories, cases.take(order), columns, max_length, device, batch_size)

    def counter_of(order: np.ndarray) -> Counter:
        ids = None if candidates is None else candidates.items[order]
        return Counter(histories, cases.take(order), protocol, device, top, ids)

    was_training = getattr(model, "training", False)
    if hasattr(model, "eval"):
        model.eval()
    try:
        with torch.inference_mode():
            query = query_function(model)
            if query is None:
                counter = counter_of(order)
                _rank_by_prediction(model, batches, counter)
            else:
                items = _item_table(model, histories.n_items + 1)
                # By target, so that the targets of a block lie in few blocks of items.
                by_target = np.argsort(cases.targets[order], kind="stable")
                queries = _queries(query, batches, by_target, device)
                order = order[by_target]
                counter = counter_of(order)
                plain = device.type != "cuda" or counter.ids is not None or counter.top is not None
                if plain or not count_filtered(queries, items, counter):
                    _rank_by_product(queries, items, counter)
    finally:
        if was_training:
            model.train()
    repeats = counter.repeats() if device.type == "cuda" else None
    return counter.ranks(order, cases, lengths, _count_repeats(histories, cases) if repeats is None else repeats)


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


def _cases_at_once(model: Any, device: torch.device) -> int:
    """A GPU waits for Python between small batches; a large language model fills it with few cases, and its memory."""
    size = sum(part.numel() for part in model.parameters()) if hasattr(model, "parameters") else 0
    return 2048 if device.type == "cuda" and size < _LARGE_MODEL else 512


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


def query_function(model: Any) -> Callable[[dict[str, torch.Tensor]], torch.Tensor] | None:
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


def _queries(
    query: Callable[[dict[str, torch.Tensor]], torch.Tensor],
    batches: Iterator[tuple[slice, dict[str, torch.Tensor]]],
    order: np.ndarray,
    device: torch.device,
) -> torch.Tensor:
    """The vectors of all cases; row ``i`` is the one of case ``order[i]`` of the batches."""
    places = torch.as_tensor(np.argsort(order), device=device)
    found = torch.empty(0)
    for rows, batch in batches:
        vectors = query(batch).float()
        if rows.start == 0:
            found = torch.empty((len(order), vectors.shape[1]), device=device)
        found[places[rows]] = vectors
    return found


def _rank_by_prediction(model: Any, batches: Iterator[tuple[slice, dict[str, torch.Tensor]]], counter: Counter) -> None:
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
            counter.count(block, counter.block(stop - start, counter.n_columns).copy_(scores[start:stop]))


def _rank_by_product(queries: torch.Tensor, items: torch.Tensor, counter: Counter) -> None:
    if counter.ids is not None:
        step = max(1, _SCORES_AT_ONCE // (counter.ids.shape[1] * items.shape[1]))
        for start in range(0, len(queries), step):
            rows = slice(start, min(start + step, len(queries)))
            # One product and one sum for each pair, in one order: equal vectors have equal scores.
            scores = (queries[rows, None, :] * items[counter.ids[rows]]).sum(-1)
            counter.count_listed(rows, scores)
        return
    scale = 4 if items.device.type == "cuda" else 1  # work that outweighs a launch
    copies = _duplicates(items) if len(items) <= _DUPLICATES_AMONG else None
    chunks = 1 if copies is not None else math.ceil(len(items) / (scale * _ITEMS_AT_ONCE))
    width = math.ceil(len(items) / chunks)
    step = max(16, scale * scale * _SCORES_AT_ONCE // width)
    for start in range(0, len(queries), step):
        rows = slice(start, min(start + step, len(queries)))

        def product(first: int, last: int, rows: slice = rows) -> torch.Tensor:
            block = counter.block(rows.stop - rows.start, last - first)
            torch.mm(queries[rows], items[first:last].T, out=block)
            if copies is not None:
                block[:, copies[0]] = block[:, copies[1]]
            return block

        counter.count_in_chunks(rows, product, width)


def _duplicates(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The rows that repeat an earlier row bit by bit, and the first of each; None when all differ.

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
    repeated = torch.nonzero((same_as != places) & (vectors[same_as] == vectors).all(1)).squeeze(1)
    return repeated, same_as[repeated]


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
