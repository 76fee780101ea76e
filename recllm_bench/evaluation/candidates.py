"""Which users are measured, and among which items: drawn once, the same for every model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recllm_bench.errors import NotEnough
from recllm_bench.provenance import package_code_hash

if TYPE_CHECKING:
    from recllm_bench.artifacts import ArtifactStore
    from recllm_bench.data.histories import Histories
    from recllm_bench.data.splits import Cases, Split
    from recllm_bench.evaluation.protocols import Protocol


@dataclass(frozen=True)
class Candidates:
    """A candidate list for each case.

    Attributes
    ----------
    items : int32 [n, 1 + negatives]
        The target in column 0, then distinct items the user never interacted with.
    """

    items: np.ndarray

    def hash(self) -> str:
        """Hash of the content: equal for every model of one comparison."""
        return hashlib.sha256(np.ascontiguousarray(self.items, dtype=np.int32).tobytes()).hexdigest()[:16]


def evaluated_cases(cases: Cases, protocol: Protocol) -> Cases:
    """The cases a protocol evaluates: all of them, or those of its sample of users.

    The sample depends on the set of users and on the protocol's seed only, so that all models and all protocols
    with the same seed measure the same people.

    Raises
    ------
    BenchError
        When the sample is larger than the number of users.
    """
    if not protocol.users:
        return cases
    users = np.unique(cases.users)
    if protocol.users > len(users):
        raise NotEnough(
            f"protocol {protocol.name} samples {protocol.users} users, but there are {len(users)}; "
            "use the protocol without a sample, or a larger dataset"
        )
    chosen = np.random.default_rng(protocol.user_seed).choice(users, protocol.users, replace=False)
    return cases.take(np.flatnonzero(np.isin(cases.users, chosen)))


def sample_candidates(histories: Histories, cases: Cases, negatives: int, seed: int) -> Candidates:
    """Draw, for every case, distinct items that the user never interacted with, uniformly.

    Parameters
    ----------
    histories : Histories
        Whole histories: training, validation and test items are all avoided.
    cases : Cases
        The targets.
    negatives : int
        Items beside the target.
    seed : int
        Fixes the draw.

    Raises
    ------
    BenchError
        When a user has touched so many items that too few are left.
    """
    n_items = histories.n_items
    base = n_items + 1
    touched = np.unique(histories.users_of_positions() * base + histories.items)  # sorted keys user * base + item
    per_user = np.bincount(touched // base, minlength=histories.n_users + 1)
    users = np.asarray(cases.users, dtype=np.int64)
    # A target that is not in the user's own history is no negative either.
    foreign = ~_contains(touched, users * base + cases.targets)
    free = n_items - per_user[users] - foreign
    if (free < negatives).any():
        row = int(np.argmin(free))
        raise NotEnough(
            f"user {users[row]} leaves {free[row]} untouched items, fewer than the {negatives} candidates wanted; "
            "use full ranking, such as --protocol unified.full"
        )
    rng = np.random.default_rng(seed)
    drawn = np.zeros((len(cases), negatives), dtype=np.int64)
    dense = free < 4 * negatives
    sparse_rows = np.flatnonzero(~dense)
    for rows in _blocks(sparse_rows, 1 << 16):
        drawn[rows] = _draw_by_rejection(rng, users[rows], cases.targets[rows], touched, n_items, negatives)
    for rows in _blocks(np.flatnonzero(dense), max(1, (1 << 22) // base)):
        drawn[rows] = _draw_by_order(rng, users[rows], cases.targets[rows], touched, n_items, negatives)
    return Candidates(np.column_stack([cases.targets, drawn]).astype(np.int32))


def protocol_candidates(protocol: Protocol, split: Split, cases: Cases, store: ArtifactStore) -> Candidates | None:
    """The candidate file of a sampled protocol, made once and kept; None for full ranking."""
    if not protocol.samples_candidates:
        return None
    key = {
        "split": split.checksum,
        "negatives": protocol.negatives,
        "seed": protocol.user_seed,
        "code": package_code_hash(["evaluation/candidates.py"]),
        "cases": hashlib.sha256(np.column_stack([cases.users, cases.targets]).astype(np.int64).tobytes()).hexdigest(),
    }

    def make(work) -> None:
        found = sample_candidates(split.histories, cases, protocol.negatives, protocol.user_seed)
        np.save(work / "candidates.npy", found.items)

    return Candidates(np.load(store.build("candidates", key, make) / "candidates.npy"))


def _contains(sorted_keys: np.ndarray, keys: np.ndarray) -> np.ndarray:
    places = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return sorted_keys[places] == keys


def _blocks(rows: np.ndarray, size: int):
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _draw_by_rejection(rng, users, targets, touched, n_items: int, negatives: int) -> np.ndarray:
    """Redraw what was touched or drawn before, until nothing is left to redraw."""
    drawn = rng.integers(1, n_items + 1, (len(users), negatives))
    while True:
        refused = _contains(touched, users[:, None] * (n_items + 1) + drawn) | (drawn == targets[:, None])
        # Of equal items in a row the first stays; a stable sort finds the later ones.
        order = np.argsort(drawn, axis=1, kind="stable")
        ordered = np.take_along_axis(drawn, order, 1)
        later = np.zeros_like(refused)
        later[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
        again = np.zeros_like(refused)
        np.put_along_axis(again, order, later, 1)
        refused |= again
        if not refused.any():
            return drawn
        drawn[refused] = rng.integers(1, n_items + 1, int(refused.sum()))


def _draw_by_order(rng, users, targets, touched, n_items: int, negatives: int) -> np.ndarray:
    """Shuffle all items of the few users who left few untouched."""
    keys = rng.random((len(users), n_items + 1))
    items = np.arange(n_items + 1)
    seen = _contains(touched, users[:, None] * (n_items + 1) + items) | (items == targets[:, None])
    keys[seen] = 2.0
    keys[:, 0] = 2.0
    return np.argsort(keys, axis=1, kind="stable")[:, :negatives]
