"""Benchmarks of words run on small data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import planted_catalogue, planted_histories

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


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
