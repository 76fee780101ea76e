"""Measure on a CUDA device what a CPU cannot tell, in pieces with a JSON file each, in under six minutes.

    python benchmarks/gpu.py --folder results/reference/benchmarks/gpu
    python benchmarks/gpu.py --pieces sasrec em --folder gpu

A piece is a fresh process with seconds of its own. What fails, or has no time left, says so in its file, and the others
go on; at the end a table holds each figure against its goal. The figures of peers that goals refer to were measured
once on an H200. docs/engine.md says what stands behind each piece.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import side_by_side
from side_by_side import Runner, Side

from recllm_bench.errors import BenchError

LIMITS = {
    "sasrec": 60, "em": 45, "ranking": 30, "ranking-1m": 40, "sasrec-long": 35, "sasrec-quality": 45, "relrec": 60,
    "cesrec": 60,
}  # fmt: skip
"""Most seconds of each piece, in the order in which they are measured."""


# what runs in processes of its own ---------------------------------------------------------------------------------


def sasrec(device: str, dataset: str, users: int, variants: dict[str, dict[str, Any]], mark: float) -> dict[str, Any]:
    """RecBole's SASRec by our loop: seconds of an epoch of each variant, and until validation reaches a mark.

    Parameters
    ----------
    variants : dict
        Name to training options.
    mark : float
        NDCG@10; 0 trains five epochs instead.
    """
    import training

    found: dict[str, Any] = {"seconds": 0.0}
    with tempfile.TemporaryDirectory(prefix="recllm_bench_") as place:
        found |= training.data(dataset, users, place)
        for name, changes in variants.items():
            settings = {"coverage": "moving", "learning_rate": 0.004, "warmup_steps": 120, "patience": 0, **changes}
            settings |= {"validate_every": 1 if mark else settings["epochs"]}
            run = training.ours(place, "recbole:SASRec", device, 42, settings, {})
            found[f"{name}: s an epoch"], found[f"{name}: best NDCG@10"] = run["seconds"], run["quality"]
            if mark:
                found[f"{name}: s to {mark}"] = training.seconds_to(run["trace"], mark)
    return found


def em(
    device: str, dataset: str, users: int, intents: int, batches: list[int], together: int, steps: int
) -> dict[str, Any]:
    """LatentCRS' EM: seconds of an epoch by size of batch, and of plain PyTorch at the first size.

    Parameters
    ----------
    together : int
        Steps of a graph, beside one.
    """
    import em as latentcrs

    words = {"dataset": dataset, "users": users, "intents": intents, "device": device}
    found: dict[str, Any] = {"seconds": 0.0}
    for size in batches:
        run = latentcrs.ours(**words, batch_size=size)
        found |= {f"batch {size}: s an epoch": run["seconds"], f"batch {size}: s of products": run["products"]}
    several = latentcrs.ours(**words, batch_size=batches[0], together=together)["seconds"]
    found[f"batch {batches[0]}, {together} steps a graph: s an epoch"] = several
    found["plain: s an epoch"] = latentcrs.plain(steps, **words, batch_size=batches[0])["seconds"]
    found["times plain"] = found["plain: s an epoch"] / found[f"batch {batches[0]}: s an epoch"]
    return found


def ranking(device: str, users: int, items: int, ways: list[str]) -> dict[str, Any]:
    """Full ranking, in each way; all must find the same NDCG@10.

    ``fused`` counts in one kernel, ``halves`` in tiles of the same product, ``float32`` in tiles of that; ``plain`` is
    the way of a CPU.
    """
    import evaluation

    from recllm_bench.evaluation import filtering, ranks

    count, halves, fused = ranks.count_filtered, filtering._multiplies_halves, filtering._fused_counting
    found, values = {"seconds": 0.0}, []
    for way in ways:
        ranks.count_filtered = (lambda *given, **named: False) if way == "plain" else count
        filtering._multiplies_halves = (lambda place: False) if way == "float32" else halves
        filtering._fused_counting = fused if way == "fused" else (lambda queries: None)
        run = evaluation.ours(users, items, users, device, 1)
        found[f"{way}: s"] = run["seconds"]
        values.append(run["ndcg"])
    if "fused" in ways:
        import torch

        found["fused: 1 by the kernel, 0 by tiles"] = float(fused(torch.empty(1, 64, device=device)) is not None)
    if max(values) - min(values) > 1e-6:
        raise BenchError(f"ways of ranking differ: NDCG@10 {values}")
    return found


def relrec(**given: Any) -> dict[str, Any]:
    """ReLRec on a language model of random weights: shares of the matrix ceiling."""
    import relrec as script

    return _by_its_own(script, given)


def cesrec(**given: Any) -> dict[str, Any]:
    """CESRec's writing on a language model of random weights: seconds a user."""
    import cesrec as script

    return _by_its_own(script, given)


def _by_its_own(script: Any, given: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="recllm_bench_") as place:
        path = Path(place) / "found.json"
        words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        script.main([*words, "--json", str(path)])
        return {"seconds": 0.0, **json.loads(path.read_text())} if path.exists() else {"seconds": 0.0}


ACTIONS = {"sasrec": sasrec, "em": em, "ranking": ranking, "relrec": relrec, "cesrec": cesrec}


# the measurement ---------------------------------------------------------------------------------------------------


def pieces(device: str, tiny: bool) -> dict[str, tuple[Side, dict[str, tuple[str, float]]]]:
    """Each piece with what is asked of it: a measure, ``at most`` or ``at least``, a number."""
    data: dict[str, Any] = {"device": device, "dataset": "ml-100k" if tiny else "ml1m", "users": 30 if tiny else 0}
    epochs = 2 if tiny else 6
    short = {"max_length": 10 if tiny else 50, "batch_size": 128, "epochs": epochs}
    long = {"max_length": 12 if tiny else 200, "batch_size": 64, "epochs": epochs}
    wide, wider = {"cuda_batch_size": 512}, {"cuda_batch_size": 2048}
    mark = 0.001 if tiny else 0.175
    patient = {**short, "epochs": 2 if tiny else 60, "budget_seconds": 12}
    together = 2 if tiny else 8

    def epoch(**variants: dict[str, Any]) -> dict[str, Any]:
        return {**data, "variants": variants, "mark": 0}

    sizes = (40, 50) if tiny else (100_000, 50_000), (60, 50) if tiny else (1_000_000, 1_000_000)
    (users, items), (more, most) = sizes
    shape, peer = {"device": device, "llm": "llama2-stories260k" if tiny else "domain-llama-4m"}, 1 if tiny else 20
    of_relrec = {**shape, "shape": "tiny" if tiny else "7b", "steps": 1 if tiny else 6, "repeat": 1}
    of_relrec |= {"users": 6 if tiny else 4000, "corpus": 120 if tiny else 6000}
    of_cesrec = {"device": device, "shape": "tiny" if tiny else "8b", "repeat": 1}
    of_cesrec |= {"users": 4, "items": 4, "batch-size": 4} if tiny else {}
    intents, batches = (8, [32]) if tiny else (512, [480, 1920])
    quality = {**data, "variants": {"batch 128": patient, "batch 512": {**patient, **wide}}, "mark": mark}
    several = {**short, "steps_a_graph": together}
    named = epoch(graphs=short, several=several, wide={**short, **wide}, wider={**short, **wider})
    named["variants"]["python"] = {**short, "epochs": 2, "steps": "python"}
    of_em = {**data, "intents": intents, "batches": batches, "together": together, "steps": peer}
    ways = ["fused", "halves", "float32", "plain"]
    found: dict[str, tuple[str, dict[str, Any], dict[str, tuple[str, float]]]] = {
        "sasrec": ("sasrec", named, {"graphs: s an epoch": ("at most", 0.33)}),
        "sasrec-long": (
            "sasrec",
            epoch(graphs=long, wide={**long, **wide}),
            {"graphs: s an epoch": ("at most", 0.15)},
        ),
        "sasrec-quality": ("sasrec", quality, {f"batch 128: s to {mark}": ("at most", 6.0)}),
        "em": ("em", of_em, {"times plain": ("at least", 20.0)}),
        "ranking": (
            "ranking",
            {"device": device, "users": users, "items": items, "ways": ways},
            {"fused: s": ("at most", 0.079)},
        ),
        "ranking-1m": (
            "ranking",
            {"device": device, "users": more, "items": most, "ways": ["fused"]},
            {"fused: s": ("at most", 6.0)},
        ),
        "relrec": (
            "relrec",
            of_relrec,
            {"training share": ("at least", 0.55), "ranking share": ("at least", 0.60)},
        ),
        "cesrec": ("cesrec", of_cesrec, {"edits: s a user": ("at most", 0.010)}),
    }
    return {name: (Side(name, *found[name][:2]), found[name][2]) for name in LIMITS}


def measure(given: argparse.Namespace, runner: Runner) -> Iterable[dict[str, Any]]:
    """Each piece that was asked for, as it is found."""
    start, every = time.monotonic(), pieces(given.device, given.tiny)
    for name in given.pieces or every:
        side, asked = every[name]
        left = min(LIMITS[name], given.seconds - (time.monotonic() - start))
        record: dict[str, Any] = {"piece": name, "arguments": dict(side.arguments), "judged": []}
        if given.device == "cpu" and not given.tiny:
            record["not measured"] = "needs a CUDA device"
        elif left < 20:
            record["not measured"] = f"no time was left of {given.seconds} s"
        else:
            try:
                found = record["found"] = runner.once(side, "", left)
                if math.isinf(found["seconds"]):
                    record["not measured"] = f"not done after {left:.0f} s"
            except Exception as error:  # of one piece: the others have their turn
                record["not measured"] = (str(error).strip() or type(error).__name__).splitlines()[0]
        values = {} if "not measured" in record else record["found"]
        for measured, (bound, wanted) in asked.items():
            value = values.get(measured)
            met = value is not None and (value <= wanted if bound == "at most" else value >= wanted)
            record["judged"].append({"measure": measured, bound: wanted, "value": value, "met": met})
        yield record


def table(records: Sequence[dict[str, Any]]) -> str:
    """Every goal with what was measured."""
    lines = [f"{'piece':<16}{'measure':<28}{'goal':>18}{'measured':>12}"]
    for record in records:
        for judged in record["judged"]:
            bound = "at most" if "at most" in judged else "at least"
            value = "-" if judged["value"] is None else f"{judged['value']:.4g}"
            verdict = "met" if judged["met"] else record.get("not measured", "MISSED")
            goal = f"{bound} {judged[bound]:g}"
            lines.append(f"{record['piece']:<16}{judged['measure']:<28}{goal:>18}{value:>12}  {verdict}")
    return "\n".join(lines)


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = side_by_side.parser(__doc__)
    parser.add_argument("--pieces", nargs="+", choices=sorted(pieces("cpu", True)), help="only these (default: all)")
    parser.add_argument("--folder", type=Path, default=Path("gpu"), help="where the JSON files go (default: gpu)")
    parser.add_argument("--seconds", type=int, default=350, help="for all pieces together (default: 350)")
    parser.add_argument("--tiny", action="store_true", help="small data, to try the script")
    parser.set_defaults(device="cuda")
    given = parser.parse_args(words)
    if given.action:
        return side_by_side.main(given, __file__, ACTIONS, lambda *_: [], {})
    if given.device != "cpu" and not side_by_side.has_cuda():
        print("no CUDA device here: nothing was measured; run this on a machine that has one")
        return 0
    from recllm_bench.reporting.machine import machine_facts

    given.folder.mkdir(parents=True, exist_ok=True)
    runner, records = side_by_side.Runner(__file__, 1, given.threads or 2), []
    for record in measure(given, runner):
        records.append(record)
        record["machine"] = machine_facts(given.device)
        found = side_by_side._finite(record)
        (given.folder / f"{record['piece']}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{record['piece']}: {record.get('not measured', '')}", flush=True)
        for name, value in record.get("found", {}).items():
            if isinstance(value, float) and name not in ("seconds", "before_gib", "added_gib"):
                print(f"  {name:<44} {value:.4g}")
    print(table(records))
    missed = [judged for record in records for judged in record["judged"] if not judged["met"]]
    return int(given.demand and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
