"""Every benchmark runs at a tiny size on its own defaults, in this process: children are for memory, not for truth.

What measures beside a peer stops where its sides differ, so that a run that ends is also a comparison.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from recllm_bench import products
from recllm_bench.evaluation import filtering, ranks

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import side_by_side  # noqa: E402

TINY = {
    "training": ["--datasets", "ml-100k", "--users", "20", "--peer-steps", "1", "--max-length", "10"],
    "em": ["--dataset", "ml-100k", "--users", "20", "--intents", "8", "--batch-size", "64", "--peer-steps", "1"],
    "embedding": ["--texts", "12", "--longest", "20"],
    "generation": ["--model", "llama2-stories260k", "--prompts", "4", "--tokens", "4", "--batch", "2"],
    "loading": ["--interactions", "4000", "--peer-interactions", "2000"],
    "relrec": ["--corpus", "150", "--steps", "1", "--users", "5", "--llm", "llama2-stories260k"],
    "busy": ["--users", "20", "--models", "sasrec", "em", "--epochs", "1", "--intents", "8"],
    "masking": ["--users", "300", "--items", "200", "--peer-users", "100"],
    "marks": ["--tables", "4", "--processes", "1"],
}
ELSEWHERE = {
    "against_earlier", "cesrec", "chat", "dialogue_figure", "dialogues", "encoder_losses", "evaluation", "gpu",
    "labels", "own_labels", "prepare", "raw_reviews", "startup", "threads", "utterances",
}  # fmt: skip
"""Scripts that tests of their own run."""
NOT_HERE = {"training_rectools"}
"""What needs an environment of its own."""


class Here(side_by_side.Runner):
    """Runs actions in this process."""

    def once(self, side: side_by_side.Side, label: str = "", limit: float = 0.0) -> dict[str, Any]:
        """As in a child, without memory of its own."""
        actions = importlib.import_module(Path(side.script or self.script).stem).ACTIONS
        start = time.perf_counter()
        found = actions[side.action](**side.arguments)
        for name in found.get("scaled", ()):
            if name in found:
                found[name] *= side.scale
        seconds = time.perf_counter() - start
        memory = {"before_gib": 0.0, "peak_gib": 0.1, "added_gib": 0.1}
        return {**memory, "process_seconds": seconds, "cpu_seconds": seconds, **found}


def test_every_script_has_its_run():
    scripts = {path.stem for path in BENCHMARKS.glob("*.py") if '__name__ == "__main__"' in path.read_text()}
    assert scripts == set(TINY) | ELSEWHERE | NOT_HERE
    named = {path.stem: path.read_text() for path in Path(__file__).parent.glob("test_*.py") if path.stem != __name__}
    for script in ELSEWHERE:
        assert any(script in text for name, text in named.items() if name != Path(__file__).stem), script


def test_every_piece_of_the_gpu_script_runs_and_is_judged(data_mirror, models_folder, tmp_path, monkeypatch, capsys):
    import gpu

    monkeypatch.setattr(side_by_side, "Runner", Here)
    monkeypatch.setattr(products, "_operator", products._operator)
    monkeypatch.setattr(ranks, "count_filtered", ranks.count_filtered)
    monkeypatch.setattr(filtering, "_multiplies_halves", filtering._multiplies_halves)
    monkeypatch.setattr(filtering, "_fused_counting", filtering._fused_counting)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    threads = torch.get_num_threads()
    try:
        assert gpu.main(["--tiny", "--device", "cpu", "--folder", str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(threads)
    names = set(gpu.pieces("cuda", False))
    records = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert set(records) == names
    for record in records.values():
        assert record["judged"] and "not measured" not in record, record
        assert record["machine"]["versions"]["torch"]
    printed = capsys.readouterr().out
    for goal in ("at most 0.33", "at most 0.15", "at least 20", "at most 0.079", "at least 0.55", "at most 0.01"):
        assert goal in printed
    assert sum(gpu.LIMITS.values()) < 400 and list(gpu.LIMITS) == list(gpu.pieces("cuda", False))
    # without a device each piece says so, and one that fails leaves the others their turn
    assert gpu.main(["--device", "cpu", "--folder", str(tmp_path / "none"), "--pieces", "em", "ranking"]) == 0
    assert "em: needs a CUDA device" in capsys.readouterr().out
    monkeypatch.setitem(gpu.ACTIONS, "em", lambda **given: 1 / 0)
    gpu.main(["--tiny", "--device", "cpu", "--folder", str(tmp_path), "--pieces", "em", "ranking"])
    assert json.loads((tmp_path / "em.json").read_text())["not measured"] == "division by zero"
    assert "found" in json.loads((tmp_path / "ranking.json").read_text())
    gpu.main(["--tiny", "--device", "cpu", "--folder", str(tmp_path), "--pieces", "em", "ranking", "--seconds", "5"])
    assert "no time was left" in json.loads((tmp_path / "ranking.json").read_text())["not measured"]


@pytest.mark.parametrize("script", sorted(TINY))
def test_it_runs_on_its_defaults(script, data_mirror, models_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(side_by_side, "Runner", Here)
    monkeypatch.setattr(products, "_operator", products._operator)  # a plain side puts PyTorch's own in its place
    monkeypatch.setattr(sys, "argv", [script])
    threads, found = torch.get_num_threads(), tmp_path / "found.json"
    words = [*TINY[script], "--json", str(found)]
    words += [] if script == "marks" else ["--repeat", "1"]
    try:
        assert not importlib.import_module(script).main(words)
    finally:
        torch.set_num_threads(threads)
    assert json.loads(found.read_text())["machine"]
