"""Hold the seconds of this checkout against an earlier one's: training, EM and evaluation, each by its own benchmark.

    git worktree add ../earlier v0.1.0
    python benchmarks/against_earlier.py ../earlier --json against-earlier.json

Both sides take turns in fresh processes; each runs its own code and its own benchmark's ``ours``, on equal data.
benchmarks/README.md says how to read it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import side_by_side
from side_by_side import OURS, ROOT, Comparison, Runner, Side

SLOWER = 1.03
"""Most times the earlier seconds; less than that a machine's own changes hide."""
COLUMNS = {"seconds": "seconds", "cpu_seconds": "CPU s", "peak_gib": "peak GiB"}
PIECES = ("training", "em", "evaluation")


def works(given: argparse.Namespace, place: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Each piece's title, and what its benchmark's ``ours`` is asked for."""
    settings = {"max_length": 50, "batch_size": 128, "byte_dropout": True, "learning_rate": 0.004, "warmup_steps": 120}
    settings |= {"coverage": "moving", "epochs": given.epochs, "patience": 10, "validate_every": given.epochs}
    training = {"place": place, "model": "recbole:SASRec", "device": "cpu", "seed": 42}
    em = {"dataset": given.dataset, "users": given.users, "intents": given.intents, "batch_size": 480, "device": "cpu"}
    ranking = {"users": given.rankings, "items": given.rankings // 2, "counted": 1000, "device": "cpu", "seed": 1}
    return {
        "training": (f"an epoch of SASRec on {given.dataset}", {**training, "training": settings, "options": {}}),
        "em": (f"an EM epoch on {given.dataset}, {given.intents} intents", em),
        "evaluation": (f"full ranking of {ranking['users']:,} x {ranking['items']:,}", ranking),
    }


def measure(given: argparse.Namespace, runner: Runner) -> list[Comparison]:
    """Each piece, in turns."""
    bare, earlier = runner.environment, f"at {_revision(given.earlier)}"
    trees = {OURS: ROOT, earlier: given.earlier.resolve()}
    found = []
    with tempfile.TemporaryDirectory(prefix="recllm_bench_") as place:
        data = {"dataset": given.dataset, "users": given.users, "place": place}
        runner.once(Side("data", "data", data, script=str(ROOT / "benchmarks" / "training.py")))
        for name, (title, arguments) in works(given, place).items():
            if name not in given.pieces:
                continue
            runs: dict[str, list[dict[str, Any]]] = {side: [] for side in trees}
            for turn in range(given.repeat):
                for side, tree in trees.items() if turn % 2 == 0 else reversed(trees.items()):
                    runner.environment = bare | {"PYTHONPATH": os.pathsep.join([str(tree), str(tree / "benchmarks")])}
                    work = Side(side, "ours", arguments, script=str(tree / "benchmarks" / f"{name}.py"))
                    runs[side].append(runner.once(work, f"{title} [{turn + 1}/{given.repeat}] "))
            medians = {side: side_by_side.medians_of(each) for side, each in runs.items()}
            found.append(judge(Comparison(title, list(trees), runs, medians)))
    return found


def judge(found: Comparison) -> Comparison:
    """Hold our median against the earlier one's; say how far one turn lies from another."""
    (mine, theirs), seconds = found.sides, {}
    for side, runs in found.runs.items():
        seconds[side] = [run["seconds"] for run in runs]
    value = statistics.median(seconds[mine]) / statistics.median(seconds[theirs])
    judged = {"measure": "seconds", "least": SLOWER, "kind": "limit", "peer": theirs}
    found.judged.append({**judged, "value": value, "met": value <= SLOWER})
    for side, each in seconds.items():
        found.notes.append(f"{side}: {min(each):.4g} to {max(each):.4g} s in {len(each)} turns")
    return found


def _revision(tree: Path) -> str:
    words = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    asked = subprocess.run(words, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or tree.name


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = side_by_side.parser(__doc__)
    parser.add_argument("earlier", type=Path, help="folder of the earlier checkout")
    parser.add_argument("--pieces", nargs="+", choices=PIECES, default=list(PIECES))
    parser.add_argument("--dataset", default="ml1m")
    parser.add_argument("--users", type=int, default=0, help="only the first users (default: all)")
    parser.add_argument("--intents", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rankings", type=int, default=100_000, help="users to rank, half as many items")
    return side_by_side.main(parser.parse_args(words), __file__, {}, measure, COLUMNS)


if __name__ == "__main__":
    sys.exit(main())
