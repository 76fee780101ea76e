"""Fixtures that every test may use: shared real data, and small planted data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from recllm_bench.data.catalogue import Catalogue
from recllm_bench.data.histories import Histories


def _shared(variable: str) -> Path:
    value = os.environ.get(variable)
    if value and Path(value).is_dir():
        return Path(value)
    message = f"{variable} is not set to a folder: the real files it would hold may not be redistributed"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def data_mirror() -> Path:
    """Folder with the real data files."""
    return _shared("RECLLM_DATA_MIRROR")


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """Folder with the small real language models."""
    return _shared("RECLLM_MODELS")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has caches and results of its own."""
    monkeypatch.setenv("RECLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RECLLM_RESULTS", str(tmp_path / "results"))


def planted_histories(n_users: int = 200, n_items: int = 100, length: int = 20, seed: int = 0) -> Histories:
    """Histories of a first-order Markov chain: each item has a likely successor (probability 0.8)."""
    rng = np.random.default_rng(seed)
    successor = rng.permutation(n_items) + 1
    rows = []
    for _ in range(n_users):
        row = [int(rng.integers(1, n_items + 1))]
        for _ in range(length - 1):
            row.append(int(successor[row[-1] - 1]) if rng.random() < 0.8 else int(rng.integers(1, n_items + 1)))
        rows.append(row)
    return Histories.from_rows(rows, n_items=n_items)


def planted_catalogue(n_items: int = 100, seed: int = 0) -> Catalogue:
    """Invented films with genres and years."""
    rng = np.random.default_rng(seed)
    genres = ("Action", "Comedy", "Drama", "Horror", "Romance", "Western")
    return Catalogue(
        tokens=[""] + [f"m{item}" for item in range(1, n_items + 1)],
        titles=[""] + [f"Invented Story {item}" for item in range(1, n_items + 1)],
        years=np.concatenate([[0], rng.integers(1950, 2000, n_items)]).astype(np.int32),
        categories=[()] + [tuple(sorted(rng.choice(genres, 2, replace=False))) for _ in range(n_items)],
        descriptions=[""] * (n_items + 1),
        domain="movie",
    )


@pytest.fixture(scope="session")
def markov() -> Histories:
    """Planted first-order Markov histories."""
    return planted_histories()


@pytest.fixture
def own_data(tmp_path: Path) -> Path:
    """A user's CSV of planted histories, with its catalogue beside it."""
    histories, catalogue = planted_histories(120, 40, 12), planted_catalogue(40)
    lines = ["user,item,timestamp"]
    for user in range(1, histories.n_users + 1):
        lines += [f"u{user},m{item},{1_000_000_000 + place}" for place, item in enumerate(histories.of(user))]
    (tmp_path / "shop.csv").write_text("\n".join(lines) + "\n")
    rows = ["item,title,year,categories"]
    for item in range(1, 41):
        rows.append(f"m{item},{catalogue.titles[item]},{catalogue.years[item]},{'|'.join(catalogue.categories[item])}")
    (tmp_path / "shop.items.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "shop.csv"
