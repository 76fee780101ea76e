"""Evaluate a checkpoint that somebody released."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recllm_bench.api.registry import model_named
from recllm_bench.data.cards import default_store
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.protocols import protocol_named
from recllm_bench.runner import device_named


def evaluate_checkpoint(
    model: str, checkpoint: Path, dataset: str, protocol_name: str, device: str, metrics: Sequence[str] = ()
) -> str:
    """Evaluate a released checkpoint and return its metrics as text.

    Raises
    ------
    BenchError
        When the file is missing, is no checkpoint of that model, or its item table does not fit the dataset.
    """
    from recllm_bench.conversation.real_users import evaluated_data
    from recllm_bench.evaluation.metrics import per_user
    from recllm_bench.evaluation.own_metrics import data_facts
    from recllm_bench.evaluation.ranks import rank_cases

    protocol = protocol_named(protocol_name)
    prepared, split = evaluated_data(dataset, protocol, default_store())
    model_class: Any = model_named(model).model
    if not hasattr(model_class, "load_released"):
        raise BenchError(f"{model} cannot read released checkpoints; a model that can has 'load_released'")
    place = device_named(device)
    network = model_class.load_released(checkpoint, n_items=prepared.histories.n_items).to(place).eval()
    ranks = rank_cases(network, split, split.test, protocol, max_length=network.history_length, device=place)
    facts = data_facts(split, prepared.catalogue)
    values = per_user(ranks, metrics or protocol.metrics, protocol.cutoffs, protocol.ties, facts=facts)
    lines = [f"{checkpoint.name} on {prepared.name}: {protocol.name}, {len(split.test):,} users"]
    lines += [f"  {name:<9} {column.mean():.4f}" for name, column in values.items()]
    return "\n".join(lines)
