"""Measure full-ranking evaluation, beside RecBole's own evaluator and the device's matrix product.

    python benchmarks/evaluation.py                                        100,000 users x 50,000 items
    python benchmarks/evaluation.py --device cuda --users 1000000 --items 1000000 --no-peer

Both sides get the same vectors of users and items, so that nothing but ranking is timed; both must find the same
NDCG@10.
benchmarks/README.md says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
import side_by_side
from side_by_side import OURS, Comparison, Curve, Runner, Side, Target

from recllm_bench.errors import BenchError

FASTER, SMALLER, SHARE = 10.0, 10.0, 0.5
"""Ratios of time and of added memory to RecBole, and share of the matrix product's ceiling, that ``--assert`` wants."""
COLUMNS = {
    "seconds": "seconds",
    "users_per_second": "users/s",
    "share": "share of ceiling",
    "ndcg": "NDCG@10",
    "added_gib": "added GiB",
    "peak_gib": "peak GiB",
    "cuda_gib": "CUDA GiB",
}
_WIDTH, _LENGTH = 64, 20


def planted(users: int, items: int, seed: int) -> tuple[Any, Any, Any, Any]:
    """Histories, test cases and vectors: a user's vector is the target's with noise, so that ranks are not by chance.

    Returns
    -------
    histories : Histories
    split : Split
    queries : float32 [users + 1, d]
    table : float32 [items + 1, d]
    """
    import torch

    from recllm_bench.data.histories import Histories
    from recllm_bench.data.splits import leave_one_out

    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 2 * _LENGTH - 4, users)
    drawn = rng.integers(1, items + 1, int(lengths.sum()), dtype=np.int32)
    histories = Histories(drawn, np.concatenate([[0], np.cumsum(lengths)]), items)
    split = leave_one_out(histories)
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(items + 1, _WIDTH, generator=generator)
    queries = torch.randn(users + 1, _WIDTH, generator=generator).mul_(2.5)
    queries[1:] += table[torch.from_numpy(split.test.targets).long()]
    return histories, split, queries, table


def ours(users: int, items: int, counted: int, device: str, seed: int, top: int = 0) -> dict[str, Any]:
    """Rank with this project's evaluator; NDCG@10 is of the first ``counted`` users, as the peer's."""
    import dataclasses

    import torch

    from recllm_bench.evaluation.metrics import per_user
    from recllm_bench.evaluation.protocols import protocol_named
    from recllm_bench.evaluation.ranks import rank_cases

    _, split, queries, table = planted(users, items, seed)
    queries, table = queries.to(device), table.to(device)

    class Given:
        """The vectors, as a model gives them."""

        def item_vectors(self) -> torch.Tensor:
            return table

        def query_vectors(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return queries[batch["user_id"]]

    # RecBole leaves the history of a sequential case among the candidates, so we do.
    protocol = dataclasses.replace(protocol_named("unified.full"), exclude_history=False)
    some = split.test.take(np.arange(min(len(split.test), 256)))
    rank_cases(Given(), split, some, protocol, max_length=50, device=device)
    side_by_side.wait_for(device)
    before, start = side_by_side.resident(), time.perf_counter()
    ranks = rank_cases(Given(), split, split.test, protocol, max_length=50, device=device, top=top)
    values = next(iter(per_user(ranks, ("NDCG@10",), (), protocol.ties, warn=False).values()))
    seconds = time.perf_counter() - start
    return {"before_gib": before, "seconds": seconds, "ndcg": float(values[:counted].mean()), "cases": len(values)}


def recbole(users: int, items: int, counted: int, device: str, seed: int) -> dict[str, Any]:
    """Rank the first ``counted`` users with RecBole's Trainer.evaluate: its loader, Collector and Evaluator."""
    import torch

    from recllm_bench.recbole_bridge import training_dataset
    from recllm_bench.recbole_bridge.configuration import model_config
    from recllm_bench.recbole_bridge.shims import quietly

    histories, split, queries, table = planted(users, items, seed)
    extra = {
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "metrics": ["NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "metric_decimal_place": 6,
    }
    config = model_config("SASRec", {}, seed=seed, device=device, max_length=50, name="planted", extra=extra)
    from recbole.data.dataloader import FullSortEvalDataLoader
    from recbole.model.abstract_recommender import SequentialRecommender
    from recbole.utils import get_trainer

    class Given(SequentialRecommender):
        """The vectors, as a model of RecBole's gives scores."""

        def __init__(self, config: Any, dataset: Any) -> None:
            super().__init__(config, dataset)
            self.users = torch.nn.Embedding.from_pretrained(queries)
            self.items = torch.nn.Parameter(table)

        def full_sort_predict(self, interaction: Any) -> torch.Tensor:
            return self.users(interaction[self.USER_ID]) @ self.items.T

    with quietly():
        dataset = training_dataset("planted", histories, histories.offsets[1:], config)
        dataset._targets = split.test.ends[:counted]  # its rows are made when they are asked for: the peer saves memory
        loader = FullSortEvalDataLoader(config, dataset, None)
        model = Given(config, dataset).to(config["device"])
        trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
        before = side_by_side.resident()
        side_by_side.wait_for(device)
        start = time.perf_counter()
        found = trainer.evaluate(loader, load_best_model=False, show_progress=False)
        side_by_side.wait_for(device)
        seconds = time.perf_counter() - start
    return {
        "before_gib": before,
        "seconds": seconds,
        "ndcg": float(found["ndcg@10"]),
        "cases": len(dataset),
        "scaled": ["seconds"],
    }


def ceiling(device: str) -> dict[str, Any]:
    """Operations per second of a large square matrix product in float32."""
    import torch

    size = 8192 if device.startswith("cuda") else 2048
    left, right = (torch.randn(size, size, device=device) for _ in range(2))
    times = 10 if device.startswith("cuda") else 3
    best = 0.0
    for _ in range(3):
        side_by_side.wait_for(device)
        start = time.perf_counter()
        for _ in range(times):
            left @ right
        side_by_side.wait_for(device)
        best = max(best, times * 2 * size**3 / (time.perf_counter() - start))
    return {"seconds": 2 * size**3 / best, "operations": best}


ACTIONS = {"ours": ours, "recbole": recbole, "ceiling": ceiling}


def _arguments(given: argparse.Namespace) -> dict[str, Any]:
    counted = min(given.peer_users or given.users, given.users)
    sizes = {"users": given.users, "items": given.items, "counted": counted}
    return {**sizes, "device": given.device, "seed": given.seed}


def measure(given: argparse.Namespace, runner: Runner) -> list[Comparison]:
    """The comparison, with the share of the matrix product's ceiling."""
    arguments = _arguments(given)
    sides = [Side(OURS, "ours", arguments)]
    if not given.no_peer:
        sides.append(Side("RecBole", "recbole", arguments, scale=given.users / arguments["counted"]))
    found = runner.compare(f"full ranking: {given.users:,} users x {given.items:,} items, d = {_WIDTH}", sides)
    top = runner.once(Side("ceiling", "ceiling", {"device": given.device}))["operations"]
    work = 2.0 * given.users * (given.items + 1) * _WIDTH
    for side in found.sides:
        values = found.medians[side]
        values |= {"users_per_second": given.users / values["seconds"], "share": work / values["seconds"] / top}
    found.notes.append(f"ceiling: {top / 1e12:.3g} TFLOP/s, a square float32 product on the same device, same threads")
    found.notes.append("added GiB is the peak above what the process held when its imports and vectors were there")
    if given.no_peer:
        share = found.medians[OURS]["share"]
        if given.device.startswith("cuda"):
            found.judged.append(
                {"measure": "share", "least": SHARE, "kind": "share", "peer": "the ceiling"}
                | {"value": share, "met": share >= SHARE}
            )
    else:
        gap = abs(found.medians[OURS]["ndcg"] - found.medians["RecBole"]["ndcg"])
        if gap > 1e-5:
            raise BenchError(f"the two sides differ: NDCG@10 by {gap:.2e} on the same scores")
        found.judge(Target("seconds", FASTER), Target("added_gib", SMALLER))
        if given.device.startswith("cuda"):
            found.judged.pop()
    return [found]


def grow(given: argparse.Namespace, runner: Runner) -> list[Curve]:
    """Seconds over users and over items."""
    curves = []
    for name in ("users", "items"):
        sizes = np.geomspace(getattr(given, name) / 8, getattr(given, name), 4).round().astype(int).tolist()
        sides = {size: Side(OURS, "ours", {**_arguments(given), name: size}) for size in sizes}
        curves.append(runner.curve("full ranking", name, sides))
    return curves


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = side_by_side.parser(__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument(
        "--peer-users", type=int, default=10_000, help="rank only so many with RecBole and scale its time (0: all)"
    )
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    parser.add_argument("--seed", type=int, default=1)
    return side_by_side.main(parser.parse_args(words), __file__, ACTIONS, measure, COLUMNS, grow)


if __name__ == "__main__":
    sys.exit(main())
