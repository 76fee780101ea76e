"""Data in which there is something to find, made in a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recllm_bench.data.histories import Histories

GENRES = ("Action", "Comedy", "Drama", "Horror", "Romance", "Western")


def planted_histories(n_users: int = 120, n_items: int = 40, length: int = 15, seed: int = 0) -> Histories:
    """Histories in which an item is followed by its one successor four times out of five."""
    rng = np.random.default_rng(seed)
    successor = np.concatenate([[0], rng.permutation(n_items) + 1])
    rows = np.empty((n_users, length), np.int64)
    rows[:, 0] = rng.integers(1, n_items + 1, n_users)
    for place in range(1, length):
        random = rng.integers(1, n_items + 1, n_users)
        rows[:, place] = np.where(rng.random(n_users) < 0.8, successor[rows[:, place - 1]], random)
    return Histories.from_rows(list(rows), n_items=n_items)


def planted_files(folder: Path, n_users: int = 40, n_items: int = 40, length: int = 10, seed: int = 0) -> Path:
    """Write such histories, without repeated items, as somebody's own data with titles, years and genres.

    Returns
    -------
    Path
        The CSV file that ``DATASET=`` takes; the items' file lies beside it.
    """
    rng = np.random.default_rng(seed)
    successor = rng.permutation(n_items) + 1
    rows = []
    for user in range(1, n_users + 1):
        seen = [int(rng.integers(1, n_items + 1))]
        while len(seen) < length:
            free = np.setdiff1d(np.arange(1, n_items + 1), seen)
            likely = int(successor[seen[-1] - 1])
            seen.append(likely if likely in free and rng.random() < 0.8 else int(rng.choice(free)))
        rows += [f"u{user},i{item},5,{1_500_000_000 + time}" for time, item in enumerate(seen)]
    genres = ["|".join(sorted(rng.choice(GENRES, 2, replace=False))) for _ in range(n_items)]
    years = rng.integers(1950, 2000, n_items).tolist()
    items = [f"i{item},The Story of {item},{years[item - 1]},{genres[item - 1]}" for item in range(1, n_items + 1)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "planted.csv").write_text("user_id,item_id,rating,timestamp\n" + "\n".join(rows) + "\n")
    (folder / "planted.items.csv").write_text("item_id,title,year,categories\n" + "\n".join(items) + "\n")
    return folder / "planted.csv"
