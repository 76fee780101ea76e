"""Benchmarks of words run on small data."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import planted_catalogue, planted_histories

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import own_labels  # noqa: E402
import utterances  # noqa: E402

from recllm_bench.conversation.likeness import likeness  # noqa: E402


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of one's own: fewer items than any number a script might have in mind."""
    folder = tmp_path_factory.mktemp("shop")
    histories, catalogue = planted_histories(60, 30, 10), planted_catalogue(30)
    rows = [f"u{user},m{item},{place}" for user in range(1, 61) for place, item in enumerate(histories.of(user))]
    (folder / "shop.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    items = [f"m{item},{catalogue.titles[item]},{'|'.join(catalogue.categories[item])}" for item in range(1, 31)]
    (folder / "shop.items.csv").write_text("\n".join(["item_id,title,categories", *items]) + "\n")
    return folder / "shop.csv"


def run(script: str, *words: str, cache: Path) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *words]
    done = subprocess.run(command, cwd=cache, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_labels_find_their_items(shop: Path, tmp_path: Path) -> None:
    said = run("labels.py", "--datasets", str(shop), "--json", "found.json", cache=tmp_path)
    (facts,) = json.loads((tmp_path / "found.json").read_text())["datasets"].values()
    assert 0 < facts["after"]["hit@10"] <= 1
    assert len(facts["after"]["such as"]) == 5 and "hit@10" in said


@pytest.mark.parametrize("simulator", ["rules", "rules:2", "taste"])
def test_utterances_are_printed_with_what_they_give_away(simulator: str, shop: Path, tmp_path: Path) -> None:
    said = run("utterances.py", str(shop), simulator, "--count", "3", cache=tmp_path)
    assert "the words leave a median of" in said


def test_the_record_of_likeness_is_the_table_to_the_last_digit() -> None:
    people, said = ["Hi, a comedy please.", "I liked Heat.", "Something scary?"], ["I want a comedy.", "A drama?"]
    given = argparse.Namespace(dataset="shop", users=2, filter="all", beside="all")
    record = json.loads(json.dumps(utterances.recorded({"rules": said}, people, given), allow_nan=False))
    assert record["rows"]["rules"]["divergence"] == likeness(said, people).divergence
    assert set(record["rows"]) == {"people, half against half", "rules"} and record["people"] == 3


def test_own_labels_are_told_from_others_only_where_they_differ() -> None:
    rng = np.random.default_rng(0)
    of_labels = rng.normal(4, 0.5, 200)  # what a label costs behind any token
    planted = [
        np.stack([of_labels + rng.normal(0, 0.1, 200) - 0.05, of_labels + rng.normal(0, 0.1, 200)]) for _ in range(3)
    ]
    found = own_labels.tested(planted)
    assert found["labels"] == 200 and found["difference"] == pytest.approx(0.05, abs=0.02)
    assert found["p over labels"] < 0.01 and found["p over seeds"] < 0.1
    assert all(share > 0.5 for share in found["nearer to the own"])
    flipped = own_labels.tested([pair[::-1] for pair in planted])
    assert flipped["difference"] == pytest.approx(-found["difference"])
    none = own_labels.tested([np.stack([of_labels, rng.permutation(of_labels)]) for _ in range(3)])
    assert none["p over labels"] > 0.05 and none["p over seeds"] > 0.05
    assert "p over seeds" not in own_labels.tested(planted[:1])


@pytest.mark.shared
def test_own_labels_of_several_seeds_are_measured_and_kept(shop: Path, tmp_path: Path, models_folder: Path) -> None:
    words = ["--dataset", str(shop), "--seeds", "1", "2", "--json", "found.json", "--set", "llm=llama2-stories260k"]
    words += ["training.epochs=1", "label_tokens=8", "p=4", "recon_users=-1", "recon_items=-1"]
    said = run("own_labels.py", *words, cache=tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())["label_visits"]["0"]
    assert len(found["records"]) == 2 and found["epochs"] == [1, 1]
    for kind, count in (("user", 60), ("item", 30)):
        assert found[kind]["labels"] == count and f"{count} {kind}s" in said
        assert all(0 < value < 20 for name in ("own", "other") for value in found[kind][name])
        assert found[kind]["own"] != found[kind]["other"]
