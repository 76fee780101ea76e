"""The tables of LatentCRS (arXiv 2503.10703v1) and the run records that stand beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from recllm_bench.api.published import PublishedTables, apart
from recllm_bench.models.latentcrs.options import LatentCRSOptions

_ABLATIONS = {
    "none": "B",
    "no_inference": "B_wo_inference_model",
    "direct_kl": "B_direct_kl",
    "no_rec": "B_wo_recloss",
    "no_augmentation": "B_wo_augmentation",
}


_SYSTEMS = {"zero-shot": "Llama-3.1-8B", "chat-rec": "Chat-Rec", "interecagent": "InteRecAgent"}
_HOSTED = {r"gemini-1\.5-pro(-\d+)?": "Gemini-1.5-pro", r"gpt-4(-turbo)?(-\d[\d-]*)?": "GPT-4"}


_MAIN: dict[str, Any] = {
    "variant": ("official", "code"), "intent_pool": "mean_all", "intent_normalise": True, "intent_source": "recluster",
    "use_wm": False, "ffn_layernorm": False, "ffn_final_relu": True, "g_form": "intent_only", "g_item_map": False,
    "value_map_on": "intent", "tie_value_map": False, "nce_logits": "f_times_g", "nce_intent_reduce": "mean",
    "rec_form": "softmax_h", "posterior_form": "softmax_product", "w_e_rec": 5.0, "lambda_kl": 1.0, "temperature": 1.0,
    "train_repeat": 6, "neg_resample": "never", "neg_exclude": "window", "stage3_intent_init": "from_generative",
    "train_encoder": False, "encoder_dropout_in_train": True, "backbone": "iclrec", "item_loss": "bce",
}  # fmt: skip
"""What the printed rows were made with, of the options that make another method: the released code's values."""
_FILTER = {"hard_filter": "overlap_rerank", "hard_filter_pool": 50}  # of F and V
_OWN = {
    "ml1m": {"intents": 512, "w_nce": 0.0, "w_rec": 5.0},
    "amazon-2023-video-games": {"intents": 256, "w_nce": 1.0, "w_rec": 1.0},
    "amazon-2023-cds-and-vinyl": {"intents": 128, "w_nce": 1.0, "w_rec": 1.0},
}
"""What the released script of each data set sets; what a recipe leaves out is the method's default, not this."""


def row(recipe: Mapping[str, Any]) -> tuple[str, str] | None:
    """The printed row of a recipe: LatentCRS_B, _F and _V, the ablations of B, or a baseline by its name.

    None for LatentCRS with other options than a printed row had.
    """
    model, options = str(recipe["model"]), recipe.get("options") or {}
    if model == "zero-shot":
        kind, _, served = str(options.get("chat") or "").casefold().partition(":")
        called = served.partition("@")[0].rpartition("/")[2] if kind == "server" else ""
        return next((name for names, name in _HOSTED.items() if re.fullmatch(names, called)), _SYSTEMS[model]), ""
    if model != "latentcrs":
        return _SYSTEMS.get(model, model), ""
    ablation, output = options.get("ablation") or "none", options.get("variant_output") or "B"
    main = {**_MAIN, **(_FILTER if output != "B" else {})}
    given = {"item_loss": (options.get("backbone_options") or {}).get("item_loss", "bce"), **options}
    if script := _OWN.get(str(recipe.get("dataset"))):
        # Without ranking losses only the contrastive term trains item scores.
        main |= {**script, **({"w_nce": 1.0} if ablation == "no_rec" else {})}
        given = {**{name: getattr(LatentCRSOptions, name) for name in script}, **given}
    if apart(given, main):
        return None
    if output == "B":
        return None if ablation not in _ABLATIONS else (model, _ABLATIONS[ablation])
    return None if ablation != "none" else (model, output)


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
