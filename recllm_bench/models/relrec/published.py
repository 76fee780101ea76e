"""The tables of ReLRec and the run records that stand beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recllm_bench.api.published import PublishedTables

_MAIN: dict[str, Any] = {
    "user_token": True, "recon": True, "proj": "1layer", "share_projection": False, "init": "avg", "item_head": "tied",
    "seq_softmax": "full", "p": 512, "alpha": 0.75, "beta": 0.3, "gamma": 0.9, "two_stage": True,
    "switched_labels": "none",
}  # fmt: skip
"""What Tables 2 and 8 were made with, of the options that make another method."""
_SINGLE = {
    ("recon", False): "recon0_avg1",
    ("two_stage", False): "recon1_avg1_2stage0",
    ("switched_labels", "items"): "recon1_itemlabel_switched",
    ("switched_labels", "users"): "recon1_userlabel_switched",
}


def row(recipe: Mapping[str, Any]) -> tuple[str, str] | None:
    """The printed row of a recipe: a variant has the row of its own switch or none, never that of the whole method."""
    model = str(recipe["model"])
    if model != "relrec":
        return model, ""
    own = {name: (recipe.get("options") or {}).get(name, value) for name, value in _MAIN.items()}
    apart = {name: value for name, value in own.items() if value != _MAIN[name]}
    variant = _variant(own, apart, str(recipe.get("dataset") or ""))
    return None if variant is None else (model, variant)


def _variant(own: Mapping[str, Any], apart: Mapping[str, Any], dataset: str) -> str | None:
    if not apart:
        return "full"
    if "init" in apart and apart.keys() <= {"init", "user_token", "proj", "recon"} and own["proj"] != "2layer":
        name = f"randinit_user{own['user_token']:d}_pl{own['proj'] == '1layer':d}"  # Tables 3 and 9
        return f"{name}_recon{own['recon']:d}" if own["user_token"] or dataset.startswith("steam") else name
    if len(apart) > 1:
        return None
    name, value = next(iter(apart.items()))
    if name == "alpha":
        return f"alpha={value:.2f}"
    if name in ("p", "proj"):
        return f"{'proj_dim' if name == 'p' else 'proj'}={value}"
    return _SINGLE.get((name, value))


def users(cell: Any, stated: int | None) -> int | None:
    """The stated counts include the padding id."""
    return None if stated is None else stated - 1


TABLES = PublishedTables(
    paper="relrec",
    tables={"relrec.full": ("T2", "T8", "T3", "T9", "T5", "T4", "T6", "T11", "T10")},
    row=row,
    users=users,
    measures={
        "similarity_item": "label similarity, items",
        "similarity_user": "label similarity, users",
        "batches_per_s": "batches/s (16 users)",
    },
)
