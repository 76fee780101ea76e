"""Measure how training bears a machine that has other work: one busy process beside it, and none.

    python benchmarks/busy.py                               two epochs of RecBole's SASRec, ours, and LatentCRS' EM
    python benchmarks/busy.py --models sasrec --dataset ml-100k --repeat 5

Each row trains alone and beside one process that computes on one core, with threads that wait as the command settles it
(``recllm_bench.cli.waiting``) and as OpenMP has it. benchmarks/README.md says how to read it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import side_by_side
from side_by_side import Comparison, Runner, Side

from recllm_bench.cli.waiting import OWN, waiting

SLOWER = 2.2
"""Most times the quiet seconds beside one busy process."""
QUIET = 1.03
"""Most times the quiet seconds of threads that wait as OpenMP has it."""
COLUMNS = {"seconds": "s an epoch", "cpu_seconds": "CPU s", "process_seconds": "s in all"}
SETTLED, DEFAULT = "as the command settles", "as OpenMP waits"
BUSY = ", busy"


# what runs in processes of its own ---------------------------------------------------------------------------------


def sequence(model: str, dataset: str, users: int, epochs: int) -> dict[str, Any]:
    """An epoch of a sequence model, the fastest of some, without validation."""
    import training

    with tempfile.TemporaryDirectory(prefix="recllm_bench_") as place:
        training.data(dataset, users, place)
        settings = {"epochs": epochs, "batch_size": 64, "validate_every": epochs}
        found = training.ours(place, model, "cpu", 42, settings, {})
    return {name: found[name] for name in ("seconds", "before_gib")}


def em(dataset: str, users: int, intents: int) -> dict[str, Any]:
    """A joint epoch of LatentCRS' EM."""
    import em as latentcrs

    return latentcrs.ours(dataset=dataset, users=users, intents=intents, batch_size=480, device="cpu")


ACTIONS = {"sequence": sequence, "em": em}


# the measurement ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def busy_process(limit: int) -> Iterator[int]:
    """Keep one core busy with a process of our own.

    It ends with the block, with this process, and by itself after ``limit`` seconds of computing.
    """
    words = (
        "import os, resource\n"
        f"resource.setrlimit(resource.RLIMIT_CPU, ({limit}, {limit}))\n"
        f"while os.getppid() == {os.getpid()}:\n    sum(range(100000))"
    )
    process = subprocess.Popen([sys.executable, "-c", words])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def measure(given: argparse.Namespace, runner: Runner) -> list[Comparison]:
    """Each row, quiet and busy, under both ways of waiting."""
    bare = {name: value for name, value in runner.environment.items() if name not in OWN}
    environments = {SETTLED: {**bare, **waiting(bare)}, DEFAULT: bare}
    comparisons = []
    for model in given.models:
        arguments: dict[str, Any] = {"dataset": given.dataset, "users": given.users}
        arguments |= {"intents": given.intents} if model == "em" else {"model": model, "epochs": given.epochs}
        runs: dict[str, list[dict[str, Any]]] = {}
        for turn in range(given.repeat):
            for name, environment in environments.items():
                runner.environment = environment
                for busy in (False, True):
                    side = Side(name + BUSY * busy, "em" if model == "em" else "sequence", arguments)
                    label = f"{model} [{turn + 1}/{given.repeat}] "
                    with busy_process(given.limit) if busy else contextlib.nullcontext():
                        runs.setdefault(side.name, []).append(runner.once(side, label, given.limit))
        medians = {name: side_by_side.medians_of(each) for name, each in runs.items()}
        comparisons.append(judge(Comparison(f"{model} on {given.dataset}", list(runs), runs, medians)))
    return comparisons


def judge(found: Comparison) -> Comparison:
    """Hold busy seconds against quiet ones, and quiet ones against those of OpenMP's own waiting."""
    seconds = {name: values["seconds"] for name, values in found.medians.items()}
    for side, peer, most in ((SETTLED + BUSY, SETTLED, SLOWER), (SETTLED, DEFAULT, QUIET)):
        value = seconds[side] / seconds[peer]
        judged = {"measure": "seconds", "least": most, "kind": "limit", "peer": peer, "value": value}
        found.judged.append({**judged, "met": value <= most})
    found.notes.append(f"{DEFAULT}: {seconds[DEFAULT + BUSY] / seconds[DEFAULT]:.2f} times its quiet seconds when busy")
    return found


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = side_by_side.parser(__doc__)
    parser.add_argument("--models", nargs="+", default=["recbole:SASRec", "sasrec", "em"], help="models, or em")
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--users", type=int, default=0, help="only the first users (default: all)")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--intents", type=int, default=64)
    parser.add_argument("--limit", type=int, default=180, help="seconds after which a row is given up")
    return side_by_side.main(parser.parse_args(words), __file__, ACTIONS, measure, COLUMNS)


if __name__ == "__main__":
    sys.exit(main())
