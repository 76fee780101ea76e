"""Training records of LatentCRS: which windows it learns from, the fixed negatives of each, what is read of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from recllm_bench.api.method import Job
from recllm_bench.data.histories import Histories
from recllm_bench.data.splits import Cases
from recllm_bench.errors import BenchError, NotEnough
from recllm_bench.models.latentcrs.em import Examples
from recllm_bench.models.latentcrs.options import AUGMENTATION_SEEDS, LatentCRSOptions

if TYPE_CHECKING:
    from recllm_bench.api.model import Model

_ROUNDS = 200  # redraws before the catalogue is called exhausted; each round fails for ever fewer rows
_PAIRS_AT_ONCE = 1 << 24


def training_records(histories: Histories, train_ends: np.ndarray, window: int, augment: bool = True) -> Cases:
    """Records of all users: the end of the training part, and one random cut for each augmentation seed.

    A record is the last ``window`` items before a cut; its last item is the target, the rest the history. Cut points
    are uniform in ``[4, n - 4]`` for users whose ``n`` training items are at least a third of the window.

    Parameters
    ----------
    histories : Histories
        All interactions.
    train_ends : int64 [n_users]
        Absolute end of each user's training part.
    window : int
        Items of a record, its target included.
    augment : bool
        Whether to add the random cuts.

    Returns
    -------
    Cases
        ``ends`` is the place of the target. Users with fewer than two training items have no record.

    Raises
    ------
    BenchError
        When no user has a record.
    """
    starts = histories.offsets[:-1]
    lengths = np.asarray(train_ends) - starts
    users = np.flatnonzero(lengths >= 2) + 1
    if not len(users):
        raise NotEnough("latentcrs: no user has two training items, so there is no record to learn from")
    parts = [(users, lengths[users - 1])]
    eligible = np.flatnonzero((lengths >= window / 3) & (lengths >= 8)) + 1
    for seed in AUGMENTATION_SEEDS if augment and len(eligible) else ():
        cuts = np.random.default_rng(seed).integers(4, lengths[eligible - 1] - 4, endpoint=True)
        parts.append((eligible, cuts))
    users = np.concatenate([part[0] for part in parts]).astype(np.int64)
    places = starts[users - 1] + np.concatenate([part[1] for part in parts]) - 1
    return Cases(users, places.astype(np.int64), histories.items[places].astype(np.int32))


def draw_negatives(
    histories: Histories, records: Cases, count: int, repeats: int, *, exclude: str, window: int, seed: int
) -> np.ndarray:
    """Uniform negatives of each repeat of each record.

    Parameters
    ----------
    histories : Histories
        All interactions.
    records : Cases
        From :func:`training_records`.
    count : int
        Negatives of a record.
    repeats : int
        Repeats of each record, every one with negatives of its own.
    exclude : str
        ``window``: a negative is no item of the record; ``all_interactions``: none of the user's items at all.
    window : int
        Items of a record, its target included.
    seed : int
        Fixes the draw.

    Returns
    -------
    int32 [repeats, n, count]

    Raises
    ------
    BenchError
        When a record leaves nothing to draw from.
    """
    rng = np.random.default_rng([seed, 0x4E])
    size = (repeats, len(records), count)
    drawn = rng.integers(1, histories.n_items + 1, size=size, dtype=np.int32).reshape(-1)
    rows = np.tile(np.repeat(np.arange(len(records)), count), repeats).astype(np.int32)
    is_excluded = _window_test(histories, records, window) if exclude == "window" else _user_test(histories, records)
    open_places = np.arange(len(drawn))
    for _ in range(_ROUNDS):
        open_places = open_places[is_excluded(rows[open_places], drawn[open_places])]
        if not len(open_places):
            return drawn.reshape(size)
        drawn[open_places] = rng.integers(1, histories.n_items + 1, size=len(open_places), dtype=np.int32)
    user = int(records.users[rows[open_places[0]]])
    raise BenchError(
        f"latentcrs: no negative found for user {user}, whose items are nearly the whole catalogue "
        f"({histories.n_items} items); set neg_exclude=window or a smaller window"
    )


def _window_test(histories: Histories, records: Cases, window: int):
    """Membership in the record: its items side by side, 0 where it is shorter."""
    starts = histories.offsets[records.users - 1]
    places = records.ends[:, None] - np.arange(window)
    items = np.where(places >= starts[:, None], histories.items[np.maximum(places, 0)], 0).astype(np.int32)

    def is_excluded(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
        step = max(1, _PAIRS_AT_ONCE // window)
        parts = [
            (items[rows[first : first + step]] == values[first : first + step, None]).any(1)
            for first in range(0, len(rows), step)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, bool)

    return is_excluded


def _user_test(histories: Histories, records: Cases):
    """Membership in everything the user ever consumed."""
    width = histories.n_items + 1
    known = np.unique((histories.users_of_positions() * width) + histories.items)

    def is_excluded(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
        keys = records.users[rows] * width + values
        places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return known[places] == keys

    return is_excluded


def read_examples(
    job: Job,
    options: LatentCRSOptions,
    records: Cases,
    done: Mapping[str, Path],
    live: Callable[[Cases], Callable[[Model | None, Tensor], Tensor]] | None = None,
) -> Examples:
    """What training reads, on the job's device: records with words, from finished stages.

    Parameters
    ----------
    done : mapping
        Folders of ``states`` and, where texts are read, ``utterances``.
    live : callable, optional
        ``live(records)`` gives what encodes records at each step.
    """
    device, histories = job.device, job.split.histories
    rows, vectors = np.zeros(len(records), np.int64), np.zeros((1, 1), np.float32)
    if "utterances" in done:
        rows = np.load(done["utterances"] / "records_rows.npy")
        vectors = np.load(done["utterances"] / "records_vectors.npy")
    kept = np.flatnonzero(rows >= 0)
    records = records.take(kept)

    def negatives(epoch: int) -> Tensor:
        drawn = draw_negatives(
            histories,
            records,
            options.negatives,
            options.train_repeat,
            exclude=options.neg_exclude,
            window=options.window,
            seed=job.recipe.seed + 7919 * epoch,
        )
        return torch.from_numpy(drawn).to(device)

    clean, noisy = np.load(done["states"] / "clean.npy"), done["states"] / "noisy.npy"
    examples = Examples(
        targets=torch.from_numpy(records.targets).long().to(device),
        negatives=negatives(0),
        text_rows=torch.from_numpy(rows[kept]).to(device),
        text_vectors=torch.from_numpy(vectors).to(device),
        items=torch.from_numpy(np.load(done["states"] / "items.npy")).to(device),
        clean=torch.from_numpy(clean[kept]).to(device),
        noisy=torch.from_numpy(np.load(noisy)[:, kept]).to(device) if noisy.exists() else None,
        redraw=negatives if options.neg_resample == "epoch" else None,
    )
    if live is not None:
        examples.encode = live(records)
    return examples
