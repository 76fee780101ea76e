"""Intents: K-means over user states gives the start vectors (3)."""

from __future__ import annotations

import numpy as np

from recllm_bench.errors import BenchError
from recllm_bench.models.sequence.intents import kmeans
from recllm_bench.progress import log

ITERATIONS, RESTARTS, SEED, POINTS_PER_CENTROID = 20, 5, 1, 4096


def cluster_states(states: np.ndarray, count: int, normalise: bool, seed: int = SEED) -> np.ndarray:
    """Centroids of user states: K-means with 20 iterations, 5 restarts, at most 4096 points for each centroid.

    Parameters
    ----------
    states : float32 [n, d]
        One state for each user.
    count : int
        K, the number of intents.
    normalise : bool
        Scale centroids to length 1.
    seed : int
        Of the K-means.

    Returns
    -------
    float32 [count, d]

    Raises
    ------
    BenchError
        When there are more intents than users, or a state is not finite.
    """
    states = np.ascontiguousarray(states, dtype=np.float32)
    if count > len(states):
        raise BenchError(
            f"latentcrs: intents={count} is more than the {len(states)} users; set intents={len(states)} or less"
        )
    if not np.isfinite(states).all():
        raise BenchError("latentcrs: the encoder gives states that are not numbers; train the backbone again")
    settings = {"iterations": ITERATIONS, "restarts": RESTARTS, "points_per_centroid": POINTS_PER_CENTROID}
    centroids = reseed_empty(kmeans(states, count, seed=seed, **settings), states, seed)
    if normalise:
        centroids /= np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
    return centroids


def reseed_empty(centroids: np.ndarray, states: np.ndarray, seed: int) -> np.ndarray:
    """Replace centroids that own no user by the states of random users.

    Parameters
    ----------
    centroids : float32 [K, d]
    states : float32 [n, d]
    seed : int
        Fixes which users.
    """
    import faiss

    index = faiss.IndexFlatL2(states.shape[1])
    index.add(centroids)
    owners = index.search(states, 1)[1][:, 0]
    empty = np.flatnonzero(np.bincount(owners, minlength=len(centroids))[: len(centroids)] == 0)
    if len(empty):
        log.warning(
            f"latentcrs: {len(empty)} of {len(centroids)} intents had no user and start at a random user's state"
        )
        chosen = np.random.default_rng(seed).choice(len(states), len(empty), replace=False)
        centroids[empty] = states[chosen]
    return centroids
