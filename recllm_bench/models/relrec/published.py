"""The tables of ReLRec and the run records that stand beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recllm_bench.api.published import PublishedTables


def row(recipe: Mapping[str, Any]) -> tuple[str, str] | None:
    """The printed row of a recipe."""
    model = str(recipe["model"])
    return model, "full" if model == "relrec" else ""


def users(cell: Any, stated: int | None) -> int | None:
    """The stated counts include the padding id."""
    return None if stated is None else stated - 1


TABLES = PublishedTables(
    paper="relrec",
    tables={"relrec.full": ("T2", "T8")},
    row=row,
    users=users,
    measures={
        "similarity_item": "label similarity, items",
        "similarity_user": "label similarity, users",
        "batches_per_s": "batches/s (16 users)",
    },
)
