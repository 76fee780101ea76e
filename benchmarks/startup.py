"""Measure how long the command line takes to answer.

    python benchmarks/startup.py

benchmarks/README.md says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import Any

import side_by_side
from side_by_side import OURS, Comparison, Runner, Side

MOST_SECONDS = 0.4
"""Seconds above which ``--assert`` fails."""
HEAVY = ("torch", "numpy", "pandas", "scipy", "transformers", "recbole", "faiss", "pyarrow", "peft")
"""Libraries that none of these commands may load."""
COLUMNS = {"seconds": "seconds", "peak_gib": "peak GiB"}
_PROGRAM = "import sys; from recllm_bench.cli import main; sys.exit(main(sys.argv[1:]))"


def command(words: list[str]) -> dict[str, Any]:
    """Run a command in an interpreter of its own, from start to exit; the middle of five after one to warm up."""
    program = [sys.executable, "-c", _PROGRAM if words else "pass", *words]
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    return {"seconds": sorted(seconds[1:])[2]}


def loaded(words: list[str]) -> dict[str, Any]:
    """Which heavy libraries a command loads."""
    program = (
        "import contextlib, io, json, sys\nfrom recllm_bench.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n    main(sys.argv[2:])\n"
        "print(json.dumps(sorted(set(sys.modules) & set(sys.argv[1].split(',')))))"
    )
    import json

    done = subprocess.run(
        [sys.executable, "-c", program, ",".join(HEAVY), *words], check=True, capture_output=True, text=True
    )
    return {"seconds": 0.0, "loaded": json.loads(done.stdout)}


ACTIONS = {"command": command, "loaded": loaded}


def measure(given: argparse.Namespace, runner: Runner) -> list[Comparison]:
    """Each command, beside an interpreter that does nothing."""
    found = []
    for words in (["--help"], ["list"], ["list", "models"]):
        sides = [Side(OURS, "command", {"words": words}), Side("Python alone", "command", {"words": []})]
        comparison = runner.compare(f"recllm-bench {' '.join(words)}", sides)
        seconds = comparison.medians[OURS]["seconds"]
        comparison.judged.append(
            {"measure": "seconds", "least": MOST_SECONDS, "kind": "limit", "peer": "the clock"}
            | {"value": seconds, "met": seconds < MOST_SECONDS}
        )
        heavy = runner.once(Side("imports", "loaded", {"words": words}))["loaded"]
        comparison.notes.append(f"heavy libraries loaded: {', '.join(heavy) or 'none'}")
        found.append(comparison)
    return found


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = side_by_side.parser(__doc__)
    return side_by_side.main(parser.parse_args(words), __file__, ACTIONS, measure, COLUMNS)


if __name__ == "__main__":
    sys.exit(main())
