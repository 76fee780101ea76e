"""Measure how fast SASRec trains, beside RecBole's own Trainer and RecTools' transformer.

    python benchmarks/training.py                                   ml-100k and ml1m, seconds of an epoch
    python benchmarks/training.py --to-quality --datasets ml-100k   until RecBole's NDCG@10 is reached
    python benchmarks/training.py --peer rectools --to-quality      beside RecTools (make venv-peers first)

benchmarks/README.md says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side
from side_by_side import OURS, Comparison, Curve, Runner, Side, Target

from recllm_bench.errors import BenchError

LEAST = {("recbole", "cpu"): 40.0, ("recbole", "cuda"): 30.0, ("rectools", "cpu"): 1.5, ("rectools", "cuda"): 2.0}
"""Ratios to a peer below which ``--assert`` fails."""
NAMES = {"recbole": "RecBole", "rectools": "RecTools"}
PEERS_PYTHON = side_by_side.ROOT / ".venv-peers" / "bin" / "python"
NOT_LOWER = -0.002
"""NDCG@10 may be lower by this much: less than what another seed makes of it."""
COLUMNS = {
    "seconds": "s an epoch",
    "to_quality": "s to quality",
    "quality": "best NDCG@10",
    "test": "test NDCG@10",
    "epochs": "epochs",
    "peak_gib": "peak GiB",
    "cuda_gib": "CUDA GiB",
}


# what runs in processes of its own ---------------------------------------------------------------------------------


def data(dataset: str, users: int, place: str) -> dict[str, Any]:
    """Histories of a dataset as one file for all sides, and as the table of interactions that RecBole reads."""
    from recllm_bench.data.prepare import prepare

    start = time.perf_counter()
    histories = prepare(dataset).histories
    n_users = min(users or histories.n_users, histories.n_users)
    offsets = np.asarray(histories.offsets[: n_users + 1])
    items = np.asarray(histories.items[: offsets[-1]])
    # Without gaps: RecBole numbers the items that occur.
    items = (np.unique(items, return_inverse=True)[1] + 1).astype(np.int32)
    folder = Path(place)
    np.savez(folder / "histories.npz", items=items, offsets=offsets)
    (folder / "atomic").mkdir()
    owners = np.repeat(np.arange(1, n_users + 1), np.diff(offsets))
    order = np.arange(len(items)) - np.repeat(offsets[:-1], np.diff(offsets))
    rows = np.stack([owners, items, order], 1)
    header = "user_id:token\titem_id:token\ttimestamp:float"
    np.savetxt(folder / "atomic" / "atomic.inter", rows, fmt="%d", delimiter="\t", header=header, comments="")
    facts = {"users": n_users, "items": int(items.max()), "interactions": len(items)}
    return {"seconds": time.perf_counter() - start, **facts}


def ours(
    place: str, model: str, device: str, seed: int, training: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    """Train with this project's loop; validate as RecBole does, with the history among the candidates."""
    import dataclasses

    from recllm_bench.api.registry import resolve
    from recllm_bench.data.splits import leave_one_out
    from recllm_bench.evaluation.metrics import per_user
    from recllm_bench.evaluation.protocols import protocol_named
    from recllm_bench.evaluation.ranks import rank_cases
    from recllm_bench.options import read_options
    from recllm_bench.recbole_bridge import build_model
    from recllm_bench.training.sequence import train_sequence_model, validator
    from recllm_bench.training.training_options import TrainingOptions

    split = leave_one_out(_histories(place))
    settings = read_options(TrainingOptions, {"max_length": 50, **training}, "training")
    name = model if model.startswith("recbole:") else resolve("models", model)
    built = build_model(
        name, split.histories, split.train_ends, options, seed=seed, device=device, max_length=settings.max_length
    )[0]
    protocol = dataclasses.replace(protocol_named("unified.full"), exclude_history=False)
    inner = validator(built, split, protocol, settings, device=device)
    inner()  # what is loaded or compiled at the first call is no part of training
    before, start = side_by_side.resident(), time.perf_counter()
    trace: list[tuple[float, float]] = []

    def validate() -> float:
        value = inner()
        trace.append((time.perf_counter() - start, value))
        return value

    with tempfile.TemporaryDirectory() as work:
        outcome = train_sequence_model(
            built, split, settings, validate=validate, work=Path(work), device=device, seed=seed, label="ours"
        )
    ranks = rank_cases(built, split, split.test, protocol, max_length=settings.max_length, device=device)
    test = next(iter(per_user(ranks, ("NDCG@10",), (), protocol.ties, warn=False).values()))
    seconds = [entry["seconds"] for entry in outcome.history]
    return {"before_gib": before, **_summary(seconds, trace), "test": float(np.mean(test))}


def recbole(
    place: str, device: str, seed: int, max_length: int, epochs: int, patience: int, steps: int, budget: float
) -> dict[str, Any]:
    """Train with RecBole's own Trainer, on its own dataset and batches, validated by its own evaluator.

    With ``steps`` only that many batches of one epoch are timed, after a few to warm up, and ``seconds`` is what all
    would take.
    """
    from recllm_bench.recbole_bridge.configuration import model_config
    from recllm_bench.recbole_bridge.shims import quietly

    extra = {
        "data_path": place,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "metrics": ["NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "metric_decimal_place": 6,
        "epochs": epochs,
        "stopping_step": patience,
        "checkpoint_dir": place,
    }
    config = model_config("SASRec", {}, seed=seed, device=device, max_length=max_length, name="atomic", extra=extra)
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    with quietly():
        init_seed(seed, config["reproducibility"])
        loaders = data_preparation(config, create_dataset(config))
        init_seed(seed, config["reproducibility"])
        model = get_model("SASRec")(config, loaders[0].dataset).to(config["device"])
        trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
        before = side_by_side.resident()
        if steps:
            return {"before_gib": before, **_part_of_an_epoch(trainer, loaders[0], steps, device)}
        seconds, trace, best = _watch(trainer, budget, device)
        # Its checkpoints would pickle a configuration that lives in memory alone: the best weights are kept instead.
        trainer.fit(loaders[0], loaders[1], verbose=False, saved=False, show_progress=False)
        model.load_state_dict(best)
        test = trainer.evaluate(loaders[2], load_best_model=False, show_progress=False)
    return {"before_gib": before, **_summary(seconds, trace), "test": float(test["ndcg@10"])}


class _First:
    """The first batches of a loader, with everything else as it is."""

    def __init__(self, loader: Any, count: int) -> None:
        self.loader, self.count = loader, count

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self.loader), self.count)

    def __len__(self) -> int:
        return self.count

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


def _part_of_an_epoch(trainer: Any, loader: Any, steps: int, device: str) -> dict[str, Any]:
    steps = min(steps, len(loader))
    trainer._train_epoch(_First(loader, min(2, steps)), 0)
    side_by_side.wait_for(device)
    start = time.perf_counter()
    trainer._train_epoch(_First(loader, steps), 1)
    side_by_side.wait_for(device)
    seconds = (time.perf_counter() - start) * len(loader) / steps
    return {"seconds": seconds, "steps": len(loader), "timed_steps": steps}


def _watch(trainer: Any, budget: float, device: str) -> tuple[list[float], list[tuple[float, float]], dict[str, Any]]:
    """Note the seconds of RecBole's epochs, its validations, its best weights; end it when the budget is spent."""
    seconds: list[float] = []
    best: dict[str, Any] = {}
    trace: list[tuple[float, float]] = []
    train, valid, start = trainer._train_epoch, trainer._valid_epoch, time.perf_counter()

    def timed(*words: Any, **options: Any) -> Any:
        begun = time.perf_counter()
        result = train(*words, **options)
        side_by_side.wait_for(device)
        seconds.append(time.perf_counter() - begun)
        return result

    def noted(*words: Any, **options: Any) -> Any:
        score, result = valid(*words, **options)
        if not trace or score > max(value for _, value in trace):
            best.update({name: value.detach().clone() for name, value in trainer.model.state_dict().items()})
        trace.append((time.perf_counter() - start, float(score)))
        if budget and trace[-1][0] >= budget:
            trainer.epochs = len(trace)
            trainer.stopping_step = -1  # trainer.py Trainer.fit stops at the first validation without progress
        print(f"  RecBole: epoch {len(trace)}, NDCG@10 {score:.4f}, {trace[-1][0]:.0f} s", file=sys.stderr)
        return score, result

    trainer._train_epoch, trainer._valid_epoch = timed, noted
    return seconds, trace, best


def _histories(place: str) -> Any:
    from recllm_bench.data.histories import Histories

    with np.load(Path(place) / "histories.npz") as arrays:
        return Histories(arrays["items"], arrays["offsets"], int(arrays["items"].max()))


def _summary(seconds: list[float], trace: list[tuple[float, float]]) -> dict[str, Any]:
    # The first epoch warms up: caches, allocators, kernels.
    epoch = float(np.median(seconds[1:] or seconds))
    return {
        "seconds": epoch,
        "quality": max(value for _, value in trace),
        "epochs": len(seconds),
        "trace": [list(point) for point in trace],
    }


ACTIONS = {"data": data, "ours": ours, "recbole": recbole}


# the measurement ---------------------------------------------------------------------------------------------------


def to_quality(comparison: Comparison) -> Comparison:
    """Add the seconds until each side has the best NDCG@10 that the peer reached.

    The peer's own best is the mark, so that ours is not charged for becoming better.
    """
    mine, theirs = comparison.sides
    for left, right in zip(comparison.runs[mine], comparison.runs[theirs], strict=True):
        for run in (left, right):
            run["to_quality"] = seconds_to(run["trace"], right["quality"])
    comparison.medians = {name: side_by_side.medians_of(runs) for name, runs in comparison.runs.items()}
    if any(math.isinf(run["to_quality"]) for run in comparison.runs[mine]):
        comparison.notes.append(f"ours did not reach the NDCG@10 of {theirs} in every turn")
    return comparison


def seconds_to(trace: list[list[float]], mark: float) -> float:
    """Seconds at the first validation that is at least ``mark``; infinite when none is."""
    return next((second for second, value in trace if value >= mark), math.inf)


def measure(given: argparse.Namespace, runner: Runner) -> list[Comparison]:
    """All datasets in turn."""
    if given.peer == "rectools" and not PEERS_PYTHON.exists():
        raise BenchError("RecTools has an environment of its own, which is not there: make venv-peers")
    comparisons = []
    kind = "cuda" if given.device.startswith("cuda") else "cpu"
    for dataset in given.datasets:
        with tempfile.TemporaryDirectory(prefix="recllm_bench_") as place:
            facts = runner.once(Side("data", "data", {"dataset": dataset, "users": given.users, "place": place}))
            title = f"SASRec on {dataset}: {facts['users']:,} users, {facts['interactions']:,} interactions"
            sides = [our_side(given, dataset, place), peer_side(given, place)]
            found = runner.compare(title, sides, given.to_quality and given.quality_repeat)
            least = LEAST[given.peer, kind]
            if given.to_quality:
                to_quality(found).judge(Target("to_quality", least), Target("test", NOT_LOWER, "quality"))
            if given.peer == "recbole":
                found.judge(Target("seconds", least))
            if any("timed_steps" in run for runs in found.runs.values() for run in runs):
                run = found.runs[NAMES[given.peer]][0]
                found.notes.append(
                    f"{NAMES[given.peer]}: {run['timed_steps']} of the {run['steps']} steps of an epoch were timed, "
                    "after two to warm up; the epoch is as many times longer"
                )
            if given.budget and given.to_quality:
                found.notes.append(f"{NAMES[given.peer]} was stopped after {given.budget:g} s of training")
            comparisons.append(found)
    return comparisons


def our_side(given: argparse.Namespace, dataset: str, place: str, **changes: Any) -> Side:
    """Ours: RecBole's class beside RecBole, our own beside RecTools."""
    small = dataset == "ml-100k"
    training = {"max_length": given.max_length, "batch_size": 64 if small else 128, "byte_dropout": True}
    training |= {"learning_rate": 0.004, "warmup_steps": 120}
    training |= {"coverage": given.coverage, "epochs": given.epochs if given.to_quality else 2}
    training |= {"patience": given.patience, "precision": given.precision}
    options: dict[str, Any] = {}
    model = "recbole:SASRec"
    if given.peer == "rectools":
        model, options = "sasrec", {"hidden_size": 64, "n_layers": 2, "n_heads": 2, "dropout": 0.2}
        training |= {"learning_rate": 0.001, "warmup_steps": 0}
    arguments = {"place": place, "model": model, "device": given.device, "seed": given.seed, "options": options}
    return Side(OURS, "ours", {**arguments, "training": {**training, **changes}})


def peer_side(given: argparse.Namespace, place: str) -> Side:
    """The peer, as its own defaults train it."""
    arguments = {"place": place, "device": given.device, "seed": given.seed, "max_length": given.max_length}
    arguments |= {"epochs": given.epochs, "patience": given.patience, "budget": given.budget}
    if given.peer == "recbole":
        return Side("RecBole", "recbole", {**arguments, "steps": 0 if given.to_quality else given.peer_steps})
    if not given.to_quality:
        arguments["epochs"] = 3
    script = Path(__file__).with_name("training_rectools.py")
    return Side("RecTools", "rectools", arguments, script=str(script), python=str(PEERS_PYTHON))


def grow(given: argparse.Namespace, runner: Runner) -> list[Curve]:
    """Seconds of an epoch over the length of a window, on both sides, over the size of our batch, and over users."""
    given = argparse.Namespace(**{**vars(given), "to_quality": False, "peer_steps": min(given.peer_steps, 4)})
    curves = []
    for dataset in given.datasets:
        with tempfile.TemporaryDirectory(prefix="recllm_bench_") as top:
            users = np.geomspace(100, 900 if dataset == "ml-100k" else 6000, 4).round().astype(int).tolist()
            places = {size: str(Path(top) / str(size)) for size in (given.users, *users)}
            for size, place in places.items():
                Path(place).mkdir()
                runner.once(Side("data", "data", {"dataset": dataset, "users": size, "place": place}))
            whole, title = places[given.users], f"SASRec epoch on {dataset}"
            for name, sizes in (("max_length", (25, 50, 100, 200)), ("batch_size", (32, 64, 128, 256))):
                sides = {size: our_side(given, dataset, whole, **{name: size}) for size in sizes}
                curves.append(runner.curve(f"our {title}", name, sides))
            sides = {size: our_side(given, dataset, places[size]) for size in users}
            curves.append(runner.curve(f"our {title}", "users", sides))
            if given.peer == "recbole":
                peer = peer_side(given, whole)
                sides = {
                    size: Side(peer.name, peer.action, {**peer.arguments, "max_length": size}) for size in (12, 25, 50)
                }
                curves.append(runner.curve(f"RecBole's {title}", "max_length", sides))
    return curves


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = side_by_side.parser(__doc__)
    parser.add_argument("--datasets", nargs="+", default=["ml-100k", "ml1m"])
    parser.add_argument("--users", type=int, default=0, help="only the first users of each (default: all)")
    parser.add_argument("--peer", choices=sorted(NAMES), default="recbole")
    parser.add_argument("--peer-steps", type=int, default=8, help="steps of RecBole's epoch to time; 0: the epoch")
    parser.add_argument("--to-quality", action="store_true", help="train on until the peer's best NDCG@10 is reached")
    parser.add_argument("--quality-repeat", type=int, default=1, help="turns of a whole training (default: 1)")
    parser.add_argument("--budget", type=float, default=0.0, help="seconds after which the peer is stopped (0: never)")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--patience", type=int, default=10)
    parser.add_argument("--max-length", type=int, default=50)
    parser.add_argument("--coverage", choices=("all", "moving", "last"), default="moving", help="windows of ours")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seed", type=int, default=42)
    return side_by_side.main(parser.parse_args(words), __file__, ACTIONS, measure, COLUMNS, grow)


if __name__ == "__main__":
    sys.exit(main())
