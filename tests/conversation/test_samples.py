"""Two hundred first utterances of each simulator, kept for people to read.

``python -m tests.conversation.test_samples`` writes them anew (``local:smollm2`` in minutes). The films are invented;
``benchmarks/utterances.py`` prints the same for any data set.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from recllm_bench.conversation.people import People
from recllm_bench.conversation.profile import Profile, build_profiles
from recllm_bench.conversation.redaction import Redactor
from recllm_bench.conversation.simulators import GuardedSimulator, simulator_named
from recllm_bench.conversation.understanding import Understanding
from recllm_bench.data.catalogue import Catalogue
from recllm_bench.data.histories import Histories

FOLDER = Path(__file__).parent / "samples"
SIMULATORS = ("rules", "taste", "rules:1", "rules:2", "rules:all")
CHAT = "local:smollm2"
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


def speakers(simulator: str) -> tuple[GuardedSimulator, list[Profile]]:
    """A hundred training users and a hundred tested ones, and who speaks for them."""
    shelf, rng = films(), np.random.default_rng(1)
    histories = Histories.from_rows([(rng.permutation(121)[:20] + 1).tolist() for _ in range(100)], n_items=121)
    users, ends = np.tile(np.arange(1, 101), 2), np.concatenate([histories.offsets[1:] - 5, histories.offsets[1:] - 1])
    guarded = simulator_named(simulator, shelf, seed=42)
    made = build_profiles(
        shelf, histories, users, ends, histories.items[ends],
        attributes=guarded.attributes, train_ends=histories.offsets[1:] - 2,
    )  # fmt: skip
    return guarded, made


def utterances(simulator: str) -> tuple[list[str], list[int]]:
    """First utterances, and what they want."""
    guarded, made = speakers(simulator)
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


def test_a_chat_models_samples_keep_the_facts_add_none_and_name_no_target():
    texts = sample(CHAT).read_text(encoding="utf-8").splitlines()
    guarded, made = speakers("rules")  # whose wishes the chat model says
    plain, people = guarded.open(made), guarded.simulator
    assert isinstance(people, People)
    assert len(texts) == 200
    meant = list(zip(people.facts_said(made), people.facts_refused(made), strict=True))
    reader = Understanding(films(), people.attributes)
    assert reader.read(texts) == reader.told(meant)
    for text, sides in zip(texts, meant, strict=True):
        stated = " ".join(fact.value for side in sides for fact in side)
        assert set(re.findall(r"\d+", text)) <= set(re.findall(r"\d+", stated)), text
    assert not Redactor(films()).redact(texts, [profile.target for profile in made]).leaked.any()
    assert any(text != rules for text, rules in zip(texts, plain, strict=True)), "some are its own words"


@pytest.mark.slow
def test_a_chat_models_samples_are_what_is_said():
    assert sample(CHAT).read_text(encoding="utf-8").splitlines() == utterances(CHAT)[0]


if __name__ == "__main__":
    for name in (*SIMULATORS, CHAT):
        sample(name).write_text("\n".join(utterances(name)[0]) + "\n", encoding="utf-8")
