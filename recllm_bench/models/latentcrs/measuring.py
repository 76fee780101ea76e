"""Validation of finished query vectors, the curves of training, and checks of text vectors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from recllm_bench.api.method import Job
from recllm_bench.artifacts import write_json
from recllm_bench.data.splits import Cases
from recllm_bench.errors import BenchError


class Curves:
    """Loss terms and validation of every epoch; survives a kill, and an epoch done twice is kept once."""

    def __init__(self, path: Path) -> None:
        self.path, self.epoch = path, 0
        self.rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []

    def add(self, values: dict[str, float]) -> None:
        """Note the values of the present epoch."""
        self.rows = [row for row in self.rows if row["epoch"] < self.epoch] + [{"epoch": self.epoch, **values}]
        write_json(self.path, self.rows)


class _Queries:
    """Query vectors made beforehand, as a model that the evaluator can rank by matrix products."""

    def __init__(self, query: Tensor, items: Tensor) -> None:
        self.query, self.items = query, items

    def item_vectors(self) -> Tensor:
        return self.items

    def query_vectors(self, batch: dict[str, Tensor]) -> Tensor:
        return self.query[batch["row"]]


def measure(
    job: Job,
    query: Tensor,
    items: Tensor,
    cases: Cases,
    metrics: tuple[str, ...],
    cutoffs: tuple[int, ...],
    **changes: Any,
) -> dict[str, float]:
    """Mean metrics of query vectors ``[n, d]`` on cases, by the job's protocol with the given ``changes``."""
    from recllm_bench.evaluation.metrics import aggregate, per_user
    from recllm_bench.evaluation.ranks import rank_cases

    protocol = dataclasses.replace(job.protocol, users=0, **changes)
    columns = {"row": np.arange(len(cases))}
    model = _Queries(query.float(), items.float())
    ranks = rank_cases(model, job.split, cases, protocol, columns=columns, max_length=1, device=job.device)
    return aggregate(per_user(ranks, metrics, cutoffs, protocol.ties, warn=False))


def check_vectors(vectors: np.ndarray) -> None:
    """Refuse text vectors that say nothing.

    Raises
    ------
    BenchError
        For a vector that is not finite or has length zero.
    """
    norms = np.linalg.norm(np.asarray(vectors, dtype=np.float64), axis=1)
    if not np.isfinite(norms).all() or (norms == 0).any():
        row = int(np.flatnonzero(~np.isfinite(norms) | (norms == 0))[0])
        raise BenchError(
            f"the text encoder gave a vector that is zero or not a number (text {row}); use another encoder"
        )
