"""Tables of per-user values as rankings give them: sparse, skewed, correlated over models through the users."""

from __future__ import annotations

import numpy as np


def planted_table(
    rng: np.random.Generator,
    rows: int,
    users: int,
    *,
    seeds: int = 1,
    deviation: float = 0.0,
    gains: tuple[float, ...] = (),
    metrics: int = 1,
) -> list[list[np.ndarray]]:
    """Values ``[seeds, users]`` of each row, for each metric: NDCG and hits at 10, 5, 20, ...

    Parameters
    ----------
    deviation : float
        Standard deviation of a seed's mean in the first metric.
    gains : tuple of float
        How many times better the first rows rank; the others are alike.
    """
    difficulty = rng.exponential(30, users)
    table: list[list[np.ndarray]] = [[] for _ in range(metrics)]
    for row in range(rows):
        own = difficulty * rng.exponential(1, users) ** 0.5
        places = own * rng.exponential(1, (seeds, users)) ** 0.5 / (gains[row] if row < len(gains) else 1.0)
        shift = rng.normal(0, deviation, (seeds, 1)) if deviation else 0.0
        for metric in range(metrics):
            cut = (10, 10, 5, 5, 20)[metric % 5]
            worth = 1 / np.log2(np.floor(places) + 2) if metric % 2 == 0 else np.ones_like(places)
            table[metric].append(np.where(places < cut, worth, 0.0) + shift)
    return table
