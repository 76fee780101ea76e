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


_SYSTEMS = {"zero-shot": "Llama-3.1-8B", "chat-rec": "Chat-Rec", "interecagent": "InteRecAgent"}
_HOSTED = {"gemini-1.5": "Gemini-1.5-pro", "gpt-4": "GPT-4"}


def row(recipe: Mapping[str, Any]) -> tuple[str, str] | None:
    """The printed row of a recipe: LatentCRS_B, _F and _V, the ablations of B, or a baseline by its name."""
    model, options = str(recipe["model"]), recipe.get("options") or {}
    if model == "zero-shot":
        chat = str(options.get("chat") or "").casefold()
        return next((name for part, name in _HOSTED.items() if part in chat), _SYSTEMS[model]), ""
    if model != "latentcrs":
        return _SYSTEMS.get(model, model), ""
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
        "latentcrs.multi_turn.n24": ("T3",),
    },
    row=row,
    dialogues=("T4",),
    repeats=(("T2", "T5"),),
    measures={"tokens_in": "tokens read a turn, one turn", "tokens_out": "tokens written a turn, one turn"},
)
