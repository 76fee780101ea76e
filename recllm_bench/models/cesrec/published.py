"""The tables of CESRec (arXiv 2509.09342) and the run records that stand beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recllm_bench.api.published import PublishedTables, apart

_SAMPLED = ("cesrec.sampled100", "cesrec.sampled100.n1000", "cesrec.sampled100.n100", "cesrec.sampled100.n300")
_USERS = {"SASRec": 1000, "LLaRA": 100, "Recformer": 80}
_SASREC = ("sasrec", "recbole:sasrec")
_MAIN: dict[str, Any] = {
    "edit": "constructor", "rounds": 1, "k": 1, "train_k": (-1, 1), "min_keep": 3, "mask_mode": "drop",
    "replace_with": "target", "outliers": 1, "train_on_masked": True, "text_pool": "last_token", "item_text": "title",
    "standardise": True, "collab_source": "item_table", "refine_from": "last", "pool": "candidates",
    "forbid_target": False, "decoding": "trie", "most_edits": 0,
}  # fmt: skip
"""What the printed rows were made with, of the options that make another method: the specification's where the paper
says nothing. Whether users accept is not said; ``output`` and ``pair_targets`` follow the size of the language model.
"""
_CONSTRUCTORS = {
    "llama-2-7b-hf": ("llama2", "Llama-2-7b"),
    "llama-2-7b-chat-hf": ("llama2-7b-instruct", "Llama-2-7b-chat"),
    "meta-llama-3-8b": ("llama3", "Llama-3-8B"),
    "meta-llama-3-8b-instruct": ("llama3-8b-instruct", "Llama-3-8B-Instruct"),
    "mistral-7b-instruct-v0.3": ("mistral-7b-instruct-v0.3", "Mistral-7B-Instruct-v0.3"),
    "qwen2.5-3b-instruct": ("qwen2.5-3b-instruct", "Qwen2.5-3B-Instruct"),
    "qwen2.5-7b-instruct": ("qwen2.5-7b-instruct", "Qwen2.5-7B-Instruct"),
}
"""The printed row of a constructor, and the language model that the row was made with."""
_SWITCHES = {
    (False, False, "cosine"): "base",
    (False, True, "cosine"): "cesrec_llama3_wo_dual_alignment",
    (True, False, "cosine"): "cesrec_llama3_wo_constructor",
    (True, True, "l2"): "cesrec_llama3_l2",
}


def constructor(llm: str) -> tuple[str, str]:
    """The printed row that a language model's run stands beside, and which model was used there.

    What the paper does not have stands beside its Llama-3-8B.
    """
    called = llm.rpartition("/")[2].partition("@")[0].casefold()
    return _CONSTRUCTORS.get(called, _CONSTRUCTORS["meta-llama-3-8b"])


def row(recipe: Mapping[str, Any]) -> tuple[str, str] | None:
    """The printed row of a recipe: a recommender alone, or CESRec over SASRec."""
    model, options = str(recipe["model"]), recipe.get("options") or {}
    if model != "cesrec":
        return model, "base" if model.casefold() in _SASREC else ""
    if str(options.get("backend", "sasrec")).casefold() not in _SASREC:
        return None
    switches = tuple(options.get(name, True) for name in ("use_masking", "use_constructor"))
    if any(switches) and apart(options, _MAIN):
        return None
    llm, _ = constructor(str(options.get("llm", "")))
    variant = _SWITCHES.get((*switches, str(options.get("similarity", "cosine"))), "")
    if variant not in ("", "base") and llm != "llama3":
        return None  # the switches are printed of Llama-3-8B alone
    return "SASRec", variant or f"cesrec_{llm}"


def users(cell: Any, stated: int | None) -> int | None:
    """Not stated; inferred from the printed decimals (consistency_flags.csv)."""
    return _USERS.get(cell.model)


TABLES = PublishedTables(
    paper="cesrec",
    tables=dict.fromkeys(_SAMPLED, ("T2", "T3", "T4", "T6")),
    row=row,
    users=users,
    not_comparable="the paper does not state which users it evaluated",
    measures={
        "latency_masking_s": "masking, seconds a user",
        "latency_construct_s": "construction, seconds a user",
        "latency_total_s": "masking and construction, seconds a user",
    },
)
