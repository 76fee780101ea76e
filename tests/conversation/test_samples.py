"""Two hundred first utterances of each simulator, kept for people to read.

``python -m tests.conversation.test_samples`` writes them anew. The films are invented; ``benchmarks/utterances.py``
prints the same for any data set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recllm_bench.conversation.profile import build_profiles
from recllm_bench.conversation.redaction import Redactor
from recllm_bench.conversation.simulators import simulator_named
from recllm_bench.data.catalogue import Catalogue
from recllm_bench.data.histories import Histories

FOLDER = Path(__file__).parent / "samples"
SIMULATORS = ("rules", "taste", "rules:1", "rules:2", "rules:all")
FIRST = ("Amber", "Broken", "Crooked", "Distant", "Empty", "Frozen", "Gilded", "Hidden", "Iron", "Jagged", "Kindly")
LAST = ("Anchor", "Bridge", "Candle", "Door", "Engine", "Ferry", "Garden", "Harbour", "Island", "Journey", "Kettle")
KINDS = ("Drama", "Comedy", "Action", "Thriller", "Romance", "Horror", "Sci-Fi", "Adventure", "Children's", "Crime",
         "War", "Mystery", "Musical", "Western", "Animation", "Film-Noir")  # fmt: skip


def films() -> Catalogue:
    """Invented films with kinds and years like those of MovieLens."""
    rng, n = np.random.default_rng(0), len(FIRST) * len(LAST)
    share = 1 / np.arange(1, len(KINDS) + 1)
    kinds = [rng.choice(KINDS, rng.integers(1, 4), replace=False, p=share / share.sum()) for _ in range(n)]
    years = 2000 - np.minimum(rng.exponential(12, n).astype(int), 70)
    return Catalogue(
        tokens=["", *(f"m{item}" for item in range(1, n + 1))],
        titles=["", *(f"{a} {b}{', The' * (len(a + b) % 3 == 0)}" for a in FIRST for b in LAST)],
        years=np.concatenate([[0], years]).astype(np.int32),
        categories=[(), *(tuple(map(str, each)) for each in kinds)],
        descriptions=[""] * (n + 1),
        domain="movie",
    )


def utterances(simulator: str) -> tuple[list[str], list[int]]:
    """First utterances of a hundred training users and a hundred tested ones, and what they want."""
    shelf, rng = films(), np.random.default_rng(1)
    histories = Histories.from_rows([(rng.permutation(121)[:20] + 1).tolist() for _ in range(100)], n_items=121)
    users, ends = np.tile(np.arange(1, 101), 2), np.concatenate([histories.offsets[1:] - 5, histories.offsets[1:] - 1])
    guarded = simulator_named(simulator, shelf, seed=42)
    made = build_profiles(
        shelf, histories, users, ends, histories.items[ends],
        attributes=guarded.attributes, train_ends=histories.offsets[1:] - 2,
    )  # fmt: skip
    return guarded.open(made), [profile.target for profile in made]


def sample(simulator: str) -> Path:
    return FOLDER / f"{simulator.replace(':', '-')}.txt"


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_the_samples_are_what_is_said(simulator):
    texts, targets = utterances(simulator)
    assert sample(simulator).read_text(encoding="utf-8").splitlines() == texts
    assert len(texts) == 200
    if simulator != "taste":
        assert not Redactor(films()).redact(texts, targets).leaked.any()


if __name__ == "__main__":
    for name in SIMULATORS:
        sample(name).write_text("\n".join(utterances(name)[0]) + "\n", encoding="utf-8")
