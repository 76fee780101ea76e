"""Small records made the way the bench makes them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from planted_records import N, planted_ranks, planted_split

from recllm_bench.evaluation.protocols import PROTOCOLS
from recllm_bench.recipe import ConversationOptions, Recipe, shipped_recipe
from recllm_bench.reporting.records import RunRecord, make_record, write_record


@pytest.fixture
def make(tmp_path: Path):
    """``make(name, quality, **changes)`` writes a record and returns it as read back."""

    def build(
        name: str,
        quality: float = 1.0,
        *,
        model: str = "sasrec",
        block: str = "history",
        protocol: str = "latentcrs.one_turn",
        dataset: str = "ml1m",
        seed: int = 0,
        turns: np.ndarray | None = None,
        users: int = N,
        **changes,
    ) -> RunRecord:
        own = shipped_recipe(model, dataset)["options"] if (model, dataset) == ("latentcrs", "ml1m") else {}
        ranks = planted_ranks(quality, seed, users)
        outcomes = None
        if turns is not None:
            outcomes = SimpleNamespace(users=np.arange(1, len(turns) + 1), turns=turns, leaks=(turns == 2).astype(int))
        facts = SimpleNamespace(
            name=dataset, filter="all", variant="v", checksum="data-1", facts={"users": users, "items": 60}
        )
        record = make_record(
            name=name,
            recipe=Recipe(
                model=model,
                dataset=dataset,
                protocol=protocol,
                options={**own, **changes.pop("options", {})},  # others have no printed row
                seed=changes.pop("training_seed", 42),
                conversation=changes.pop("conversation", ConversationOptions()),
            ),
            block=block,
            dataset=facts,
            protocol=PROTOCOLS[protocol],
            split=planted_split(users),
            ranks=ranks,
            outcomes=outcomes,
            stages={"train": 12.5, "embed": 2.5},
            evaluation_seconds=0.4,
            **changes,
        )
        write_record(tmp_path / "runs" / f"{name.replace('/', '-')[:40]}-{seed}", record, ranks, outcomes)
        return record

    return build
