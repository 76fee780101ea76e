"""The benchmark of dialogues at a small size: the users tell those who listen from those who do not."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import dialogues

from recllm_bench.evaluation.dialogue_outcomes import success_at


def test_users_tell_who_listens(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RECLLM_CACHE", str(tmp_path))
    found = dialogues.main("ml-100k", "rules", 40, ["opens=0.3"])
    reached = {name: success_at(outcomes.turns, 5).mean() for name, outcomes in found.items()}
    assert reached["oracle"] == 1 and (found["oracle"].turns == 1).all()
    assert reached["popularity, ignored"] < reached["popularity, fits"] < 1
    assert reached["ItemKNN, ignored"] < reached["ItemKNN, fits"]
    dialogues.main("ml-100k", "rules", 3, [], read=1)
    printed = capsys.readouterr().out
    assert "popularity, hit rate" in printed and "  user: " in printed and "shown: " in printed
