"""The comparison of the encoder's losses at a small size: every row is trained and measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "encoder_losses.py"


def test_every_row_is_measured(data_mirror: Path):
    command = [sys.executable, str(SCRIPT), "--users", "150", "--epochs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line[:36].strip() for line in lines] == [
        "SASRec",
        "ICLRec, one negative",
        "ICLRec, one negative, low dropout",
        "ICLRec, cross entropy",
    ]
    values = [[float(part.split()[1]) for part in line[36:].split("  ")] for line in lines]
    assert all(len(row) == 4 and all(0 <= value <= 1 for value in row) for row in values)
