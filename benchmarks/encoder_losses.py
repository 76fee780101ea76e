"""Why ICLRec's published loss of next items stays behind SASRec on MovieLens-1M: one part changed at a time.

Validation metrics of users drawn once, on windows of 50 items. An hour on two cores with the defaults:

    python benchmarks/encoder_losses.py
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recllm_bench import recbole_bridge
from recllm_bench.data.histories import Histories
from recllm_bench.data.prepare import prepare
from recllm_bench.data.splits import leave_one_out
from recllm_bench.evaluation.metrics import per_user
from recllm_bench.evaluation.protocols import protocol_named
from recllm_bench.evaluation.ranks import rank_cases
from recllm_bench.models.sequence.iclrec import ICLRec
from recllm_bench.models.sequence.sasrec import SASRec
from recllm_bench.training.sequence import train_sequence_model, validator
from recllm_bench.training.training_options import TrainingOptions

LENGTH = 50
LOW = {"dropout": 0.2, "attention_dropout": 0.0}
ROWS: dict[str, tuple[type, dict[str, Any], dict[str, Any]]] = {
    "SASRec": (SASRec, {}, {"objective": "ce", "learning_rate": 0.002, "decay": "cosine"}),
    "ICLRec, one negative": (ICLRec, {"contrast": "none"}, {}),
    "ICLRec, one negative, low dropout": (ICLRec, {"contrast": "none", **LOW}, {}),
    "ICLRec, cross entropy": (ICLRec, {"contrast": "none", "item_loss": "ce"}, {}),
}


def sample(users: int) -> Histories:
    """Histories of users drawn once, on the whole catalogue."""
    whole = prepare("ml1m", filter="latentcrs").histories
    drawn = np.sort(np.random.default_rng(7).choice(whole.n_users, users, replace=False)) + 1
    return Histories.from_rows([whole.of(int(user)).tolist() for user in drawn], n_items=whole.n_items)


def measured(name: str, histories: Histories, epochs: int) -> dict[str, float]:
    """Validation metrics of the best epoch of a row."""
    kind, options, training = ROWS[name]
    split, protocol, device = leave_one_out(histories), protocol_named("latentcrs.one_turn"), torch.device("cpu")
    same = {"epochs": epochs, "patience": 6, "validate_metric": "NDCG@20", "max_length": LENGTH, "batch_size": 64}
    loop = TrainingOptions(**{**same, **training})
    of_data = (histories, split.train_ends, options)
    model, _, _ = recbole_bridge.build_model(kind, *of_data, seed=42, device=device, max_length=LENGTH, name="sample")
    validate = validator(model, split, protocol, loop)
    with tempfile.TemporaryDirectory() as work:
        train_sequence_model(model, split, loop, validate=validate, work=Path(work), seed=42)
    rules = dataclasses.replace(protocol, candidates="all")
    ranks = rank_cases(model.eval(), split, split.valid, rules, max_length=LENGTH, device=device)
    values = per_user(ranks, ("Recall", "NDCG"), (5, 20), rules.ties, warn=False)
    return {metric: float(column.mean()) for metric, column in values.items()}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1500)
    parser.add_argument("--epochs", type=int, default=30, help="most epochs of a row")
    chosen = parser.parse_args(words)
    histories = sample(chosen.users)
    for name in ROWS:
        found = measured(name, histories, chosen.epochs)
        print(f"{name:<36}" + "  ".join(f"{metric} {value:.4f}" for metric, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
