"""Seconds held against an earlier checkout's: here the same checkout twice, in this process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.benchmarks.test_tiny_benchmarks import Here

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import against_earlier  # noqa: E402
import side_by_side  # noqa: E402
from side_by_side import Comparison  # noqa: E402


def test_every_piece_runs_on_both_sides(data_mirror, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(side_by_side, "Runner", Here)
    threads, found = torch.get_num_threads(), tmp_path / "found.json"
    sizes = ["--dataset", "ml-100k", "--users", "20", "--intents", "8", "--rankings", "60", "--repeat", "1"]
    try:
        assert not against_earlier.main([str(BENCHMARKS.parent), *sizes, "--json", str(found)])
    finally:
        torch.set_num_threads(threads)
    record = json.loads(found.read_text())
    assert len(record["comparisons"]) == len(against_earlier.PIECES)
    for comparison in record["comparisons"]:
        assert [len(runs) for runs in comparison["runs"].values()] == [1, 1] and comparison["judged"]


@pytest.mark.parametrize(("now", "met"), [([1.0, 9.0, 1.02], True), ([1.0, 1.04, 1.05], False)])
def test_medians_are_judged(now, met):
    runs = {"ours": [{"seconds": s} for s in now], "at x": [{"seconds": 1.0}] * 3}
    (judged,) = against_earlier.judge(Comparison("title", list(runs), runs, {})).judged
    assert judged["met"] is met
