"""Options of CESRec."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recllm_bench.errors import BenchError
from recllm_bench.options import option

SMALL, LARGE = 10**8, 10**9
"""Parameters from which a language model takes the settings of ``small``, and of ``8b``."""


def _by_size(default: Any, miniature: Any, small: Any, help: str, **limits: Any) -> Any:
    """An option whose default depends on the size of the language model; ``default`` is the paper's, for 8b."""
    return option(default, help, presets={"miniature": miniature, "small": small}, **limits)


@dataclass(frozen=True)
class CESRecOptions:
    """Options of CESRec (Findings of EMNLP 2025); numbers in brackets are the paper's equations."""

    # the recommender whose history is rewritten
    backend: str = option("sasrec", "recommender that scores histories: any model of the bench or of RecBole's zoo")
    backend_options: dict | None = option(None, "changes to the options of the backend's own recipe")  # noqa: RUF009
    backend_training: dict | None = option(None, "changes to its training options")  # noqa: RUF009

    # the language model
    llm: str = option(
        "", "causal language model of vectors and constructor: smollm2, a folder, a name under RECLLM_MODELS, "
        "a hub id; empty: a miniature"
    )  # fmt: skip
    preset: str = option(
        "auto", "settings of prompts, pairs and tuning that the others do not name; auto: by the size of llm",
        choices=("auto", "miniature", "small", "8b"),
    )  # fmt: skip
    llm_precision: str = option(
        "auto", "how its weights are held", choices=("auto", "float32", "bfloat16", "8bit", "4bit")
    )

    miniature_steps: int = option(3200, "most steps of a miniature's pre-training", low=1, quick=600)

    # the switches of Table 3
    use_masking: bool = option(True, "mask outliers of the history (5); off: the row 'w/o d.a.'")
    use_constructor: bool = option(True, "rewrite the history (7); off: the row 'w/o c.'")

    # item vectors and their alignment (1), (2), (10), (11)
    text_pool: str = option(
        "last_token", "which state of an item's text is its vector (1)", choices=("last_token", "mean")
    )
    item_text: str = option("title", "what is read of an item", choices=("title", "title+category"))
    standardise: bool = option(True, "scale each number of the text vectors before the adapter")
    adapter_hidden: int = option(512, "hidden width of the adapter (2)", low=1)
    adapter_epochs: int = option(200, "most passes of the adapter over the items", low=1, quick=20)
    adapter_patience: int = option(10, "passes without progress on held-out items before it stops", low=1)
    adapter_learning_rate: float = option(1e-3, "learning rate of Adam", low=0)
    adapter_batch: int = option(512, "items in a step", low=1)
    collab_source: str = option(
        "item_table", "what the adapter is aligned with (11): the backend's item table, or its states behind an item",
        choices=("item_table", "contextual"),
    )  # fmt: skip

    # outlier masking (3) to (5)
    k: int = option(1, "items masked in each round", low=0)
    min_keep: int = option(3, "items that stay whatever k says", low=1)
    similarity: str = option("cosine", "nearness to the mean vector of the history (4)", choices=("cosine", "l2"))
    mask_mode: str = option(
        "drop", "masked items leave the history, are marked in the prompt, or move to the end",
        choices=("drop", "mark", "tail"),
    )  # fmt: skip

    # the loop
    rounds: int = option(1, "rounds of feedback; 0 is the backend alone", low=0)
    early_accept: bool = option(True, "a user whose target is shown says yes and stops")
    refine_from: str = option(
        "last", "what a later round rewrites: the last pseudo-history, or the original", choices=("last", "original")
    )
    pool: str = option(
        "candidates", "what is shown to the user is chosen among the candidates, or in the catalogue",
        choices=("candidates", "catalogue"),
    )  # fmt: skip
    forbid_target: bool = option(False, "the constructor may not write the target's title")

    # controls: the trained method with another edit
    edit: str = option(
        "constructor", "who edits: the constructor; controls: a random item is masked, a random title or one that fits "
        "the words is written where the constructor writes; or the words rank, alone or before the backend",
        choices=("constructor", "random_mask", "random_title", "fitting_title", "words", "words_backend"),
    )  # fmt: skip
    draw: int = option(0, "which draw of a random edit", low=0)

    # the constructor (7), (8)
    output: str = option(
        "edits", "what the constructor writes: the changed lines, or the whole list", choices=("edits", "sequence")
    )
    speculate: bool = option(True, "verify unchanged lines of output=sequence at once instead of writing them")
    decoding: str = option(
        "trie", "titles of the catalogue alone, or free text that is matched with them", choices=("trie", "free")
    )
    chat: str = option("", "chat model that writes with decoding=free: local:NAME or server:MODEL@URL")
    most_edits: int = option(0, "most items of a history that one round may change (0: any number)", low=0)
    wording: str = option(
        "auto", "the prompt explains in words, or only labels its parts; auto: short for a miniature",
        choices=("auto", "full", "short"),
    )  # fmt: skip
    prompt_items: int = _by_size(
        20, 5, 10, "newest items that the constructor sees; older ones stay as they are", low=1
    )
    title_tokens: int = option(64, "most tokens of a title", low=1)
    construct_batch: int = option(64, "histories rewritten at once", low=1)

    # its training pairs
    replace_with: str = option(
        "target", "what stands for a sampled outlier in the answer", choices=("target", "neighbour")
    )
    pair_targets: str = _by_size(
        "last", "any", "any", "target of a user's further pairs: the last training item too, or any with a history",
        choices=("last", "any"),
    )  # fmt: skip
    outliers: int = option(1, "sampled outliers of a training pair", low=1)
    train_on_masked: bool = option(True, "training prompts hold masked histories (7), not whole ones (8)")
    train_k: int = option(-1, "items masked in training prompts (-1: k)", low=-1)
    examples: int = _by_size(
        10000, 12000, 2000, "most training pairs; users give further ones while there are too few", low=1, quick=500
    )

    # its training
    lora_rank: int = _by_size(16, 32, 16, "rank of the adapter matrices", low=1)
    lora_alpha: float = _by_size(32.0, 64.0, 32.0, "their scale", low=0)
    lora_dropout: float = option(0.05, "dropout before them", low=0, high=1)
    lora_modules: tuple[str, ...] = _by_size(
        ("q_proj", "k_proj", "v_proj", "o_proj"), ("all-linear",), ("all-linear",),
        "projections that get them; all-linear takes every one",
    )  # fmt: skip
    tune_learning_rate: float = _by_size(1e-4, 3e-3, 5e-4, "highest learning rate, cosine with a warm-up of 3 %", low=0)
    tune_epochs: int = option(3, "passes over the training pairs", low=1, quick=True)
    tune_batch: int = _by_size(64, 32, 32, "pairs in a step", low=1)
    tune_tokens: int = option(1024, "most tokens of a pair", low=16)
    tune_tokens_at_once: int = _by_size(
        0, 0, 384, "tokens of one pass of a step, which bounds the memory of tuning (0: by device and width)", low=0
    )
    tune_checkpointing: bool = option(False, "recompute layers in the backward pass of tuning to save memory")

    # the user
    feedback: str = option(
        "rules", "who answers: rules, exact (rules as they spoke at first), local:NAME or server:MODEL@URL"
    )
    feedback_facts: int = option(2, "most attributes of the target in one wish (rules, exact)", low=1)

    # what is measured beside the ranking
    latency_users: int = option(10, "users timed one at a time after two for warming up (0: none)", low=0)
    every_cutoff: bool = option(False, "metrics by round and by length of history at every cut-off, not at the widest")

    @classmethod
    def preset_of(cls, given: Mapping[str, Any]) -> str:
        """Which settings hold: as set, else by the size of the language model."""
        preset = given.get("preset", "auto")
        return preset_for(str(given.get("llm", ""))) if preset == "auto" else preset

    @property
    def writes(self) -> bool:
        """Whether titles are written when histories are ranked."""
        return self.use_constructor and self.edit in ("constructor", "random_title", "fitting_title")

    @property
    def ranks_by_words(self) -> bool:
        """Whether what was said ranks the items itself."""
        return self.edit in ("words", "words_backend")


def preset_for(llm: str) -> str:
    """``miniature``, ``small`` or ``8b``, by the parameters of a language model.

    Files on this machine say it, without their weights being read; of a hub id the name does (``Llama-3-8B``), since
    settings are read before anything is fetched. What says nothing is taken for a large one.
    """
    from recllm_bench.language.backbone_files import find_backbone, parameter_count

    if not llm:
        return "miniature"
    if "/" in llm and not Path(llm).expanduser().exists():
        named = re.search(r"(\d+(?:\.\d+)?)\s*([mb])\b", llm.rpartition("/")[2], re.IGNORECASE)
        size = float(named[1]) * (10**6 if named[2].lower() == "m" else 10**9) if named else LARGE
    else:
        try:
            size = parameter_count(find_backbone(llm))
        except BenchError:  # whoever loads it says what is missing
            size = LARGE
    return "miniature" if size < SMALL else "small" if size < LARGE else "8b"


def check_options(options: CESRecOptions) -> CESRecOptions:
    """Refuse what has no meaning, in one line each; returns the options.

    Raises
    ------
    BenchError
        For combinations that define no method.
    """
    if options.backend.casefold() == "cesrec":
        raise BenchError("cesrec: backend=cesrec would rewrite its own rewriting; name the recommender below it")
    if options.decoding == "free" and options.use_constructor and not options.chat:
        raise BenchError("cesrec: decoding=free needs chat=local:NAME or chat=server:MODEL@URL")
    if options.decoding == "trie" and options.chat:
        raise BenchError("cesrec: a chat model gives no logits to decode titles from; set decoding=free, or leave chat")
    if options.ranks_by_words and options.early_accept:
        raise BenchError(
            f"cesrec: edit={options.edit} needs words of all, and who accepts says none; set early_accept=false"
        )
    if options.edit.endswith("title") and not options.use_constructor:
        raise BenchError(f"cesrec: edit={options.edit} writes where the constructor does; set use_constructor=true")
    return options
