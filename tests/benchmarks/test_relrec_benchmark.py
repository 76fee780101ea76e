"""The benchmark of ReLRec at a small size: both sides compute the same, and numbers come with their machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "relrec.py"


def test_both_sides_agree_and_are_timed(models_folder, tmp_path):
    found = tmp_path / "found.json"
    arguments = [
        "--llm",
        "llama2-stories260k",
        "--dataset",
        "ml-100k",
        "--steps",
        "1",
        "--users",
        "20",
        "--repeat",
        "1",
    ]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments, "--json", str(found)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr  # it stops where losses, gradients or ranks differ
    facts = json.loads(found.read_text())
    assert facts["machine"]["versions"]["torch"]
    assert facts["training ratio"] > 0
    assert facts["ranking ratio"] > 0


def test_without_a_gpu_the_large_shape_says_so():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--shape", "7b", "--device", "cpu"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "no CUDA device" in done.stdout
