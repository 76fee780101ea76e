"""Retrieval of items by their labels: closed forms, a plain sort, and what a reader may know."""

from __future__ import annotations

import numpy as np
import pytest

from recllm_bench.language.labels.retrieval import known_texts, retrieval
from tests.language.planted_reviews import POISON, films, planted


def one_hot(texts) -> np.ndarray:
    """Text ``"a b"`` is the sum of the unit vectors of ``a`` and ``b``."""
    words = "abcdefghij"
    return np.array([[text.split().count(word) for word in words] for text in texts], np.float32)


def test_closed_forms():
    known = [(), *((word,) for word in "abcdefghij")]
    own = retrieval([(), *((word, "j") for word in "abcdefghij")], known, one_hot, k=1)
    assert own == {
        "hit@1": 1.0, "chance": 0.1, "items": 10, "candidates": 10, "without label": 0, "distinct labels": 1.0
    }  # fmt: skip
    alike = retrieval([(), *[("a b c d e f g h i j",)] * 10], known, one_hot, k=3)
    assert alike["hit@3"] == pytest.approx(0.3)  # all equal: what any order gives
    assert alike["distinct labels"] == 0.1
    wrong = retrieval([(), *((word,) for word in "bcdefghija")], known, one_hot, k=1)
    assert wrong["hit@1"] == 0.0
    nothing = retrieval([()] * 11, known, one_hot)
    assert (nothing["hit@10"], nothing["items"], nothing["without label"]) == (0.0, 0, 10)


def test_against_a_plain_sort():
    rng = np.random.default_rng(3)
    vectors: dict[str, np.ndarray] = {}

    def encode(texts):
        return np.stack([vectors.setdefault(text, rng.standard_normal(6)) for text in texts])

    known = [(), *(tuple(f"text {item}, {n}" for n in range(item % 3)) for item in range(1, 40))]
    labels = [(), *((f"label {item}",) if item % 5 else () for item in range(1, 40))]
    found = retrieval(labels, known, encode, k=4)
    unit = {text: vector / np.linalg.norm(vector) for text, vector in vectors.items()}
    means = {item: np.mean([unit[text] for text in known[item]], axis=0) for item in range(1, 40) if known[item]}
    hits = []
    for item in means:
        if labels[item]:
            label = unit[labels[item][0]]
            order = sorted(means, key=lambda other: -float(label @ means[other] / np.linalg.norm(means[other])))
            hits.append(item in order[:4])
    assert found["hit@4"] == pytest.approx(np.mean(hits))
    assert (found["items"], found["candidates"]) == (len(hits), len(means))


def test_a_reader_knows_the_catalogue_or_else_held_out_reviews(tmp_path, monkeypatch):
    dataset, split = films()
    texts, what = known_texts(dataset, split)
    assert what == "catalogue text" and texts[3] == (dataset.catalogue.text(3),) and texts[0] == ()
    dataset, split = planted(tmp_path / "mirror", monkeypatch, meta=False)
    assert not any(dataset.catalogue.titles)
    texts, what = known_texts(dataset, split, ["test"])
    assert what == "held-out reviews (test)"
    assert sum(map(len, texts)) == len(split.test)
    assert all(POISON in text for row in texts for text in row)  # every held-out review has the word, no other one
