"""The tables of CESRec (arXiv 2509.09342) and the run records that stand beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recllm_bench.api.published import PublishedTables

_SAMPLED = ("cesrec.sampled100", "cesrec.sampled100.n1000", "cesrec.sampled100.n100")
_USERS = {"SASRec": 1000, "LLaRA": 100, "Recformer": 80}


def row(recipe: Mapping[str, Any]) -> tuple[str, str] | None:
    """The printed row of a recipe: backends alone."""
    model = str(recipe["model"])
    return model, "base" if model.casefold() in ("sasrec", "recbole:sasrec") else ""


def users(cell: Any, stated: int | None) -> int | None:
    """Not stated; inferred from the printed decimals (consistency_flags.csv)."""
    return _USERS.get(cell.model)


TABLES = PublishedTables(
    paper="cesrec",
    tables=dict.fromkeys(_SAMPLED, ("T2",)),
    row=row,
    users=users,
    not_comparable="the paper does not state which users it evaluated",
)
