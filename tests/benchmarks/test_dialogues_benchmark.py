"""The benchmark of dialogues at a small size: the users tell those who listen from those who do not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import dialogue_figure
import dialogues

from recllm_bench.evaluation.dialogue_outcomes import success_at

RECORDS = Path(__file__).resolve().parents[2] / "results" / "reference" / "benchmarks"


def test_users_tell_who_listens(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RECLLM_CACHE", str(tmp_path))
    found = dialogues.main("ml-100k", "rules", 40, ["opens=0.3"], file=tmp_path / "found.json")
    reached = {name: success_at(outcomes.turns, 5).mean() for name, outcomes in found.items()}
    assert reached["oracle"] == 1 and (found["oracle"].turns == 1).all()
    assert reached["popularity, ignored"] < reached["popularity, fits"] < 1
    assert reached["ItemKNN, ignored"] < reached["ItemKNN, fits"]
    record = json.loads((tmp_path / "found.json").read_text())
    assert {name: row["success"][-1] for name, row in record["rows"].items()} == reached
    assert "popularity, hit rate" in capsys.readouterr().out


def test_the_picture_is_drawn_from_the_record_and_the_same_each_time(tmp_path):
    record = RECORDS / "dialogues-ml1m-rules.json"
    for name in ("one.svg", "two.svg"):
        dialogue_figure.main(record, tmp_path / name)
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "two.svg").read_text()
    for name in json.loads(record.read_text())["rows"]:
        assert name in drawn


@pytest.mark.parametrize("name", ["dialogues-ml1m-rules.json", "dialogues-ml-100k-rules.json"])
def test_the_recorded_users_separate_systems(name):
    record = json.loads((RECORDS / name).read_text())
    reached = {row: found["success"] for row, found in record["rows"].items()}
    assert reached["oracle"][0] == 1
    for ignored, rate in zip(reached["popularity, ignored"], record["hit rate"], strict=True):
        assert abs(ignored - rate) <= 0.01
    ladder = ["popularity, ignored", "popularity, opening fits", "popularity, fits", "ItemKNN, fits", "oracle"]
    assert [reached[row][-1] for row in ladder] == sorted(reached[row][-1] for row in ladder)
    if "ml1m" in name:
        assert reached["popularity, fits"][-1] <= 0.5


def test_dialogues_are_printed_for_people_to_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RECLLM_CACHE", str(tmp_path))
    dialogues.read("ml-100k", "rules", 3, [])
    printed = capsys.readouterr().out
    assert printed.count("lists: ") == printed.count("asks: ") == 3
    assert "  user: " in printed and "shown: " in printed and "What kind of movie" in printed
