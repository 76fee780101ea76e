"""The tables of ReLRec and the run records that stand beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recllm_bench.api.published import PublishedTables, apart

_MAIN: dict[str, Any] = {
    "user_token": True, "recon": True, "proj": "1layer", "share_projection": False, "init": "avg", "item_head": "tied",
    "seq_softmax": "full", "seq_template": "{user}{items}", "p": 512, "alpha": 0.75, "beta": 0.3, "gamma": 0.9,
    "two_stage": True, "switched_labels": "none", "label_versions": 3, "label_visits": 0, "anonymise_names": True,
    "label_scope": ("all", "train_only"),
}  # fmt: skip
"""What Tables 2 and 8 were made with, of the options that make another method.

The paper's labels were probably made of all reviews; the default, which leaks nothing, stands for them. Who wrote the
labels is no other method: a row says what stands in for the paper's writer.
"""
_SEQ: dict[str, Any] = {name: _MAIN[name] for name in ("init", "item_head", "seq_softmax", "seq_template")}
_SEQ |= {"user_token": False, "proj": "none", "recon": False}
"""Llama2-seq: item embeddings alone, so that labels, their weights and the width ``p`` have no part in it."""
_SINGLE = {
    ("recon", False): "recon0_avg1",
    ("two_stage", False): "recon1_avg1_2stage0",
    ("switched_labels", "items"): "recon1_itemlabel_switched",
    ("switched_labels", "users"): "recon1_userlabel_switched",
}


def row(recipe: Mapping[str, Any]) -> tuple[str, str] | None:
    """The printed row of a recipe: a variant has the row of its own switch or none, never that of the whole method."""
    model, options = str(recipe["model"]), recipe.get("options") or {}
    if model == "llama2-seq":
        return None if apart(options, _SEQ) else (model, "")
    if model != "relrec":
        return model, ""
    changed = apart(options, _MAIN)
    variant = _variant({**_MAIN, **changed}, changed, str(recipe.get("dataset") or ""))
    return None if variant is None else (model, variant)


def _variant(own: Mapping[str, Any], changed: Mapping[str, Any], dataset: str) -> str | None:
    if not changed:
        return "full"
    if "init" in changed and changed.keys() <= {"init", "user_token", "proj", "recon"} and own["proj"] != "2layer":
        name = f"randinit_user{own['user_token']:d}_pl{own['proj'] == '1layer':d}"  # Tables 3 and 9
        return f"{name}_recon{own['recon']:d}" if own["user_token"] or dataset.startswith("steam") else name
    if len(changed) > 1:
        return None
    name, value = next(iter(changed.items()))
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
