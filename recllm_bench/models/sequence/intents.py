"""Latent intents: K-means over sequence vectors, and contrast against its centroids (ICLRec, Chen et al. 2022)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from recllm_bench.errors import BenchError


def kmeans(
    points: np.ndarray,
    clusters: int,
    *,
    iterations: int = 20,
    restarts: int = 5,
    seed: int = 1,
    points_per_centroid: int = 4096,
) -> np.ndarray:
    """Centroids of the best of several K-means runs (faiss).

    Parameters
    ----------
    points : float32 [n, d]
    clusters : int
        K, at most n.
    iterations, restarts : int
        Of each run; number of runs.
    seed : int
        Fixes the starting points.
    points_per_centroid : int
        When there are more points for each centroid, a sample is used.

    Returns
    -------
    float32 [K, d]

    Raises
    ------
    BenchError
        When there are fewer points than clusters.
    """
    import faiss

    if clusters > len(points):
        raise BenchError(f"{clusters} intents need at least as many users, found {len(points)}; set intents lower")
    engine = faiss.Kmeans(
        points.shape[1],
        clusters,
        niter=iterations,
        nredo=restarts,
        seed=seed,
        max_points_per_centroid=points_per_centroid,
        min_points_per_centroid=1,
        verbose=False,
    )
    engine.train(np.ascontiguousarray(points, dtype=np.float32))
    return np.array(engine.centroids).reshape(clusters, -1)


def nearest_centroids(points: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Index of the nearest centroid in Euclidean distance, int64 [n], for points [n, d] and centroids [K, d]."""
    # |p|^2 is the same for all centroids.
    return (points @ centroids.T - centroids.square().sum(1) / 2).argmax(1)


def contrast(
    one: torch.Tensor, two: torch.Tensor, temperature: float = 1.0, same: torch.Tensor | None = None
) -> torch.Tensor:
    """NT-Xent with dot products: row ``i`` of one side belongs to row ``i`` of the other, all others are negatives.

    Parameters
    ----------
    one, two : float [B, d]
    temperature : float
        Divides the products.
    same : int64 [B], optional
        Rows of equal value are no negatives of each other.

    Returns
    -------
    scalar
        Mean over the 2B rows.
    """
    size = len(one)
    across = (one @ two.T).float() / temperature
    own = torch.eye(size, dtype=torch.bool, device=one.device)
    alike = own if same is None else same[:, None] == same[None, :]
    inside_one = ((one @ one.T).float() / temperature).masked_fill(alike, -torch.inf)
    inside_two = ((two @ two.T).float() / temperature).masked_fill(alike, -torch.inf)
    across = across.masked_fill(alike & ~own, -torch.inf)
    scores = torch.cat((torch.cat((across, inside_one), 1), torch.cat((across.T, inside_two), 1)))
    return F.cross_entropy(scores, torch.arange(size, device=one.device).repeat(2))
