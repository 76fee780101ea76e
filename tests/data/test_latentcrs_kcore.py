"""The k-core of LatentCRS' Amazon corpora, from raw files, against a plain implementation of the same rule."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from recllm_bench.data.cards import find_card
from recllm_bench.data.prepare import format_check, prepare


def raw_reviews(seed: int, core: int = 60, chain: int = 12) -> tuple[list[dict], list[dict]]:
    """Reviews in the form of 2023: a dense core, sparse users around it, and a chain that loses one link a round."""
    rng = np.random.default_rng(seed)
    pairs = {
        (f"U{user:03d}", f"B{item:03d}") for user, item in zip(*np.nonzero(rng.random((core, core)) < 0.3), strict=True)
    }
    for user in range(200):
        items = rng.choice(core, rng.integers(1, 9), replace=False)
        pairs |= {(f"S{user:03d}", f"B{item:03d}") for item in items.tolist()}
    # Each link has three safe interactions and two with its neighbours: the first item lacks one, and so all fall.
    for link in range(chain):
        pairs |= {(f"C{link:03d}", f"B{item:03d}") for item in rng.choice(8, 3, replace=False).tolist()}
        pairs |= {(f"U{user:03d}", f"L{link:03d}") for user in rng.choice(8, 3, replace=False).tolist()}
        pairs |= {(f"C{link:03d}", f"L{link:03d}"), (f"C{link:03d}", f"L{link + 1:03d}")}
    pairs |= {(f"U{user:03d}", f"L{chain:03d}") for user in range(4)}
    rows = sorted(pairs)
    rng.shuffle(rows)
    reviews = [
        {
            "rating": float(rng.choice([4, 5]) if item[0] == "L" or user[0] == "C" else rng.choice([3, 4, 5])),
            "title": "Fine",
            "text": "It works.",
            "asin": item,
            # Every ninth item of the core is a variant of the one before it: metadata know the product alone.
            "parent_asin": f"B{int(item[1:]) - 1:03d}" if item[0] == "B" and int(item[1:]) % 9 == 8 else item,
            "user_id": user,
            "timestamp": int(rng.integers(1_400_000_000_000, 1_600_000_000_000)),
        }
        for user, item in rows
    ]
    listed = sorted({review["parent_asin"] for review in reviews})
    meta = [{"parent_asin": token, "title": f"Item {token}"} for token in listed if token not in ("B010", "B020")]
    return reviews, meta


def by_hand(
    reviews: list[dict], meta: list[dict], listed_when: str, rounds: int = 10, items_first: bool = True
) -> tuple[list, list]:
    """Keep ratings from 4 on; then, ``rounds`` times, drop items with fewer than 5 (or unlisted), and such users.

    The released notebooks count items, keep what has five, and count users on what that leaves.
    """
    known = {entry["parent_asin"] for entry in meta} | {entry.get("asin") for entry in meta}
    kept = [review for review in reviews if review["rating"] >= 4]
    history = []
    for _ in range(rounds):
        items = Counter(review["asin"] for review in kept)
        left = [
            review
            for review in kept
            if items[review["asin"]] >= 5 and (listed_when != "rounds" or review["asin"] in known)
        ]
        users = Counter(review["user_id"] for review in (left if items_first else kept))
        after = [review for review in left if users[review["user_id"]] >= 5]
        if len(after) == len(kept):
            break
        kept = after
        history.append([len({review["user_id"] for review in kept}), len({review["asin"] for review in kept})])
    if listed_when == "after":
        kept = [review for review in kept if review["asin"] in known]
    return kept, history


def write_mirror(folder: Path, category: str, reviews: list[dict], meta: list[dict]) -> None:
    (folder / "amazon" / "2023").mkdir(parents=True)
    for name, rows in ((f"{category}.jsonl", reviews), (f"meta_{category}.jsonl", meta)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "amazon" / "2023" / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("category", "name", "listed_when"),
    [
        ("Video_Games", "amazon-2023-video-games", "rounds"),
        ("CDs_and_Vinyl", "amazon-2023-cds-and-vinyl", "after"),
    ],
)
def test_rounds_equal_the_plain_rule(tmp_path, monkeypatch, category, name, listed_when):
    reviews, meta = raw_reviews(seed=4)
    write_mirror(tmp_path, category, reviews, meta)
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(tmp_path))
    prepared = prepare(name, "latentcrs")
    kept, history = by_hand(reviews, meta, listed_when)
    assert len(history) == 10  # the core is not at its fixed point after ten rounds, as in the paper's corpus
    assert by_hand(reviews, meta, listed_when, rounds=1000)[0] != kept
    assert len(by_hand(reviews, meta, listed_when, items_first=False)[0]) > len(kept)  # so the order matters here
    assert prepared.facts["rounds"] == history
    assert prepared.facts["interactions"] == len(kept)
    assert prepared.facts["users"] == len({review["user_id"] for review in kept})
    of_user: dict[str, list] = {}
    for review in kept:
        of_user.setdefault(review["user_id"], []).append((review["timestamp"], review["asin"]))
    for user in range(1, prepared.histories.n_users + 1):
        ours = [prepared.catalogue.tokens[item] for item in prepared.histories.of(user)]
        assert ours == [asin for _, asin in sorted(of_user[prepared.user_tokens[user]])]
    assert (by_hand(reviews, meta, "all")[0] == kept) is False  # the item list does matter in this corpus


def test_the_card_carries_the_published_counts(tmp_path, monkeypatch):
    card = find_card("amazon-2023-video-games")
    published = card["published"]["latentcrs"]
    assert published["rounds"][0] == [19978, 12872]
    assert published["rounds"][-1] == [published["users"], published["items"]] == [15582, 7233]
    assert len(published["rounds"]) == card["filters"]["latentcrs"]["rounds"] == 10
    reviews, meta = raw_reviews(seed=4)
    write_mirror(tmp_path, "Video_Games", reviews, meta)
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(tmp_path))
    table = format_check(prepare("amazon-2023-video-games", "latentcrs"))
    assert "122,179" in table
    assert "19,978/12,872" in table
