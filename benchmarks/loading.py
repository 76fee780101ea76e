"""Measure how long a prepared dataset takes from disk to its first training batch, beside RecBole's loading.

    python benchmarks/loading.py                                    20 million interactions, RecBole at a million
    python benchmarks/loading.py --interactions 200000 --peer-interactions 200000

benchmarks/README.md says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side
from side_by_side import OURS, Comparison, Curve, Runner, Side, Target

from recllm_bench.errors import BenchError

FASTER, SMALLER = 50.0, 5.0
"""Ratios of time and of added memory below which ``--assert`` fails."""
COLUMNS = {
    "seconds": "seconds",
    "epoch": "s for all batches",
    "added_gib": "added GiB",
    "peak_gib": "peak GiB",
    "users": "users",
    "items": "items",
}
_MAX_LENGTH = 50


def generate(place: str, interactions: int, seed: int) -> dict[str, Any]:
    """One table of interactions as RecBole and we read it; about 100 for each user, items by Zipf's law."""
    import pyarrow as pa
    from pyarrow import csv

    start = time.perf_counter()
    rng = np.random.default_rng(seed)
    n_users, n_items = max(10, interactions // 100), max(20, min(100_000, interactions // 100))
    lengths = 3 + rng.multinomial(interactions - 3 * n_users, np.full(n_users, 1 / n_users))
    weights = 1.0 / (np.arange(1, n_items + 1) + 30)
    items = np.searchsorted(np.cumsum(weights / weights.sum())[:-1], rng.random(interactions)).astype(np.int32) + 1
    users = np.repeat(np.arange(1, n_users + 1, dtype=np.int32), lengths)
    columns = {"user": users, "item": items, "time": np.arange(interactions, dtype=np.int64) + 1_000_000_000}
    folder = Path(place) / "atomic"
    folder.mkdir()
    options = csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    with open(folder / "atomic.inter", "wb") as file:
        file.write(b"user_id:token\titem_id:token\ttimestamp:float\n")
        csv.write_csv(pa.table(columns), file, options)
    return {"seconds": time.perf_counter() - start, "users": n_users, "items": len(np.unique(items))}


def prepare_once(place: str) -> dict[str, Any]:
    """What is done once for a dataset and is no part of opening it."""
    from recllm_bench.data.prepare import prepare

    start = time.perf_counter()
    prepare(str(Path(place) / "atomic"))
    return {"seconds": time.perf_counter() - start}


def ours(place: str, batches: bool, batch_size: int) -> dict[str, Any]:
    """Open the prepared dataset, split it, cut windows, make the first batch; then, apart, all batches of an epoch."""
    import torch  # noqa: F401  RecBole's import counts neither

    from recllm_bench.data.prepare import prepare
    from recllm_bench.data.splits import leave_one_out
    from recllm_bench.data.windows import DeviceHistories
    from recllm_bench.training.sequence import WindowBatches
    from recllm_bench.training.training_options import TrainingOptions

    before, start = side_by_side.resident(), time.perf_counter()
    histories = prepare(str(Path(place) / "atomic")).histories
    split = leave_one_out(histories)
    on_device = DeviceHistories(histories, "cpu")
    options = TrainingOptions(max_length=_MAX_LENGTH, batch_size=batch_size)
    stream = iter(WindowBatches(on_device, split.train_ends, options, 1, 1))
    targets = int((next(stream).targets > 0).sum())
    seconds = time.perf_counter() - start
    found = {"before_gib": before, "seconds": seconds, "users": histories.n_users, "items": histories.n_items}
    if batches:
        start = time.perf_counter()
        targets += sum(int((batch.targets > 0).sum()) for batch in stream)
        found |= {"epoch": time.perf_counter() - start, "targets": targets}
    return found


def recbole(place: str, batches: bool, batch_size: int) -> dict[str, Any]:
    """RecBole's create_dataset and data_preparation for a sequential model, to the first training batch."""
    from recllm_bench.recbole_bridge.configuration import model_config
    from recllm_bench.recbole_bridge.shims import quietly

    extra = {
        "data_path": place,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "train_batch_size": batch_size,
    }
    config = model_config("SASRec", {}, seed=1, device="cpu", max_length=_MAX_LENGTH, name="atomic", extra=extra)
    from recbole.data import create_dataset, data_preparation

    with quietly():
        before, start = side_by_side.resident(), time.perf_counter()
        dataset = create_dataset(config)
        train = data_preparation(config, dataset)[0]
        stream = iter(train)
        targets = len(next(stream))
        seconds = time.perf_counter() - start
        # RecBole counts its padding entry as a user and as an item.
        counts = {"users": dataset.user_num - 1, "items": dataset.item_num - 1}
        found = {"before_gib": before, "seconds": seconds, **counts, "scaled": ["seconds", "added_gib"]}
        if batches:
            start = time.perf_counter()
            targets += sum(len(batch) for batch in stream)
            found |= {"epoch": time.perf_counter() - start, "targets": targets}
    return found


ACTIONS = {"generate": generate, "prepare_once": prepare_once, "ours": ours, "recbole": recbole}


def measure(given: argparse.Namespace, runner: Runner) -> list[Comparison]:
    """Ours at the full size; RecBole at the full size, or at its own, beside ours at that size too."""
    peer_size = min(given.peer_interactions or given.interactions, given.interactions)
    with tempfile.TemporaryDirectory(prefix="recllm_bench_") as top:
        places = _places(Path(top), {given.interactions, peer_size}, given.seed, runner)
        comparison = _compare(given, places[peer_size], peer_size, runner)
        if peer_size == given.interactions:
            return [comparison.judge(Target("seconds", FASTER), Target("added_gib", SMALLER))]
        scale = given.interactions / peer_size
        sides = [
            Side(OURS, "ours", _arguments(places[given.interactions], False, given.our_batch)),
            Side("RecBole", "recbole", _arguments(places[peer_size], False, given.peer_batch), scale=scale),
        ]
        large = runner.compare(f"{given.interactions:,} interactions to the first batch", sides)
        large.notes.append("RecBole's added memory is scaled too: its item lists alone grow with the interactions")
        large.notes.append("its users and items are those of the smaller table")
        return [comparison, large.judge(Target("seconds", FASTER), Target("added_gib", SMALLER))]


def grow(given: argparse.Namespace, runner: Runner) -> list[Curve]:
    """Seconds to the first batch over interactions."""
    sizes = np.geomspace(given.interactions / 27, given.interactions, 4).round().astype(int).tolist()
    with tempfile.TemporaryDirectory(prefix="recllm_bench_") as top:
        places = _places(Path(top), set(sizes), given.seed, runner)
        sides = {size: Side(OURS, "ours", _arguments(places[size], False, given.our_batch)) for size in sizes}
        return [runner.curve("to the first batch", "interactions", sides)]


def _places(top: Path, sizes: set[int], seed: int, runner: Runner) -> dict[int, str]:
    runner.environment["RECLLM_CACHE"] = str(top / "cache")
    return {size: _place(top, size, seed, runner) for size in sizes}


def _compare(given: argparse.Namespace, place: str, size: int, runner: Runner) -> Comparison:
    sides = [
        Side(OURS, "ours", _arguments(place, True, given.our_batch)),
        Side("RecBole", "recbole", _arguments(place, True, given.peer_batch)),
    ]
    comparison = runner.compare(f"{size:,} interactions to the first batch, and an epoch of batches", sides)
    mine, theirs = (comparison.medians[side] for side in comparison.sides)
    for name in ("users", "items", "targets"):
        if mine[name] != theirs[name]:
            raise BenchError(f"the two sides differ: {name} {mine[name]:g} and {theirs[name]:g}")
    comparison.notes.append("a batch of ours holds windows, of RecBole's prefixes: both epochs have the same targets")
    return comparison


def _place(top: Path, size: int, seed: int, runner: Runner) -> str:
    place = top / str(size)
    place.mkdir()
    arguments = {"place": str(place), "interactions": size, "seed": seed}
    runner.once(Side(f"{size:,} interactions", "generate", arguments), "make ")
    runner.once(Side("prepare once", "prepare_once", {"place": str(place)}), f"{size:,}: ")
    return str(place)


def _arguments(place: str, batches: bool, batch_size: int) -> dict[str, Any]:
    return {"place": place, "batches": batches, "batch_size": batch_size}


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = side_by_side.parser(__doc__)
    parser.add_argument("--interactions", type=int, default=20_000_000)
    parser.add_argument(
        "--peer-interactions",
        type=int,
        default=1_000_000,
        help="RecBole loads only so many and its cost is scaled (0: all; it needs about 1 GiB for a million)",
    )
    parser.add_argument("--our-batch", type=int, default=128, help="windows of a batch")
    parser.add_argument("--peer-batch", type=int, default=2048, help="prefixes of a batch; RecBole's own default")
    parser.add_argument("--seed", type=int, default=1)
    return side_by_side.main(parser.parse_args(words), __file__, ACTIONS, measure, COLUMNS, grow)


if __name__ == "__main__":
    sys.exit(main())
