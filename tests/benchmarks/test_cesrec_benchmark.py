"""The benchmark of CESRec's decoding at a small size: both sides write the same lists."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "cesrec.py"


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=400)


def test_both_sides_write_the_same_and_are_timed(data_mirror, models_folder, tmp_path):
    found = tmp_path / "found.json"
    sizes = ["--users", "6", "--peer-users", "2", "--items", "4", "--repeat", "1", "--batch-size", "6"]
    done = run("--llm", "llama2-stories260k", *sizes, "--own-choice", "--json", str(found))
    assert done.returncode == 0, done.stderr  # it stops where lists differ
    facts = json.loads(found.read_text())
    assert facts["machine"]["versions"]["torch"]
    assert facts["own choice: lists that differ"] == 0
    for way in ("edits", "sequence", "sequence, no speculation"):
        assert facts[f"{way}: ratio"] > 0
    assert facts["edits: tokens read a user"] < facts["sequence: tokens read a user"]


def test_without_a_gpu_the_large_shape_says_so():
    done = run("--shape", "8b", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "no CUDA device" in done.stdout
