"""The tables of LatentCRS (arXiv 2503.10703v1) and the run records that stand beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recllm_bench.api.published import PublishedTables

_ABLATIONS = {
    "none": "B",
    "no_inference": "B_wo_inference_model",
    "direct_kl": "B_direct_kl",
    "no_rec": "B_wo_recloss",
    "no_augmentation": "B_wo_augmentation",
}


def row(recipe: Mapping[str, Any]) -> tuple[str, str] | None:
    """The printed row of a recipe: LatentCRS_B, _F and _V, the ablations of B, or a baseline by its name."""
    model, options = str(recipe["model"]), recipe.get("options") or {}
    if model != "latentcrs":
        return model, ""
    variant = _ABLATIONS.get(options.get("ablation") or "none")
    if (output := options.get("variant_output") or "B") != "B":
        variant = output if variant == "B" else None
    return None if variant is None else (model, variant)


TABLES = PublishedTables(
    paper="latentcrs",
    tables={
        "latentcrs.one_turn": ("T2", "T5"),
        "latentcrs.one_turn.sample500": ("T3",),
        "latentcrs.multi_turn": ("T3",),
    },
    row=row,
    dialogues=("T4",),
    repeats=(("T2", "T5"),),
)
