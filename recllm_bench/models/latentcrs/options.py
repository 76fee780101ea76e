"""Every named option of LatentCRS, with its value in the released code and in the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recllm_bench.errors import BenchError
from recllm_bench.options import option

AUGMENTATION_SEEDS = (1755, 2097, 3068, 6868, 7702)
ABLATIONS = ("none", "no_inference", "direct_kl", "no_rec", "no_augmentation")


def _variant(official: Any, paper: Any, help: str, **limits: Any) -> Any:
    """An option whose default depends on the variant, unless it is given."""
    return option(official, help, presets={"paper": paper}, **limits)


@dataclass(frozen=True)
class LatentCRSOptions:
    """Options of LatentCRS.

    Numbers in brackets are equations of the paper (arXiv 2503.10703v1).
    """

    variant: str = option(
        "official", "preset: the released code, or the formulas with their errors repaired",
        choices=("official", "code", "paper"),
    )  # fmt: skip
    intents: int = option(256, "K, the number of intents", low=1, at_most="users")
    ablation: str = option("none", "part left out", choices=ABLATIONS)
    variant_output: str = option(
        "B", "B: the generative ranking as it is; F: hard wishes filter it; V: a chat model looks over the best of F",
        choices=("B", "F", "V"),
    )  # fmt: skip
    extractor: str = option(
        "rules", "F, V: who reads a dialogue: rules, or a chat model (local:NAME, server:MODEL@URL)"
    )
    hard_filter: str = _variant(
        "overlap_rerank", "strict",
        "F, V: what fits goes first, or the more features match the further in front",
        choices=("strict", "overlap_rerank"),
    )  # fmt: skip
    hard_filter_pool: int = _variant(
        50, 0, "F, V: how many of the best items are filtered; 0 for the whole catalogue", low=0
    )
    verifier: str = option("local:smollm2", "V: the chat model that orders: local:NAME or server:MODEL@URL")
    verifies: int = option(20, "V: items that it looks over", low=1)
    verified: str = option("all", "V: where: everywhere, or in dialogues alone", choices=("all", "dialogues"))

    # intents (3)
    intent_pool: str = _variant(
        "mean_all", "last", "pooling of encoder outputs before K-means", choices=("last", "mean_all", "mean_nonpad")
    )
    intent_normalise: bool = _variant(True, False, "scale centroids to length 1")
    intent_source: str = option(
        "recluster", "cluster the finished encoder's states, or take the backbone's own centroids (same K needed)",
        choices=("recluster", "backbone"),
    )  # fmt: skip

    # networks (5) to (7), (12), (15)
    use_wm: bool = _variant(False, True, "a learned map W_m on the intents of the prior (5)")
    ffn_layernorm: bool = option(False, "LayerNorm after each layer of F")
    ffn_final_relu: bool = _variant(True, False, "ReLU after the last layer of F too")
    g_form: str = _variant(
        "intent_only",
        "factored_user",
        "item score (6)(7): with or without the user factor",
        choices=("factored_user", "intent_only"),
    )
    g_item_map: bool = _variant(False, True, "a learned map W_v on the items of g")
    value_map_on: str = _variant("intent", "item", "side of the map W_e in (16)", choices=("item", "intent"))
    tie_value_map: bool = option(False, "one map for V (inference) and A (generative), frozen in the M-step")
    text_hidden: int = option(1024, "hidden width of the text projector", low=1)
    text_dropout: float = option(0.5, "dropout of the text projector", low=0, high=1)
    text_width: int = option(384, "width of utterance vectors where no text encoder says it (plain RecBole)", low=1)

    # losses (8) to (17)
    nce_logits: str = _variant("f_times_g", "g", "logits of the contrastive term (8)", choices=("g", "f_times_g"))
    nce_intent_reduce: str = _variant("mean", "sum", "weighted sum over intents, or its mean", choices=("sum", "mean"))
    rec_form: str = _variant("softmax_h", "mixture", "auxiliary ranking loss (10)", choices=("softmax_h", "mixture"))
    posterior_form: str = _variant(
        "softmax_product", "exact_log", "posterior (13)", choices=("exact_log", "softmax_product")
    )
    kl_epsilon: float = _variant(1e-5, 0.0, "added to probabilities inside the logarithms of KL terms", low=0)
    w_nce: float = option(1.0, "weight of the contrastive term", low=0)
    w_rec: float = option(1.0, "alpha_M, weight of the M-step's ranking loss", low=0)
    w_e_rec: float = option(5.0, "alpha_E, weight of the E-step's ranking loss", low=0)
    lambda_kl: float = option(1.0, "lambda, weight of the M-step's KL term", low=0)
    temperature: float = option(1.0, "temperature of the E-step's ranking loss (15)", low=1e-6)

    # training data
    window: int = option(25, "items of a record, its target included", low=2)
    train_repeat: int = option(
        6, "times a record occurs in an epoch, each with its own negatives",
        presets={"paper": 1, "no_augmentation": 1}, low=1,
    )  # fmt: skip
    negatives: int = option(10, "n, sampled negatives of a record", low=1)
    neg_resample: str = _variant("never", "epoch", "draw negatives once, or each epoch", choices=("never", "epoch"))
    neg_exclude: str = _variant(
        "window", "all_interactions", "what a negative may not be: an item of the record, or any of the user's",
        choices=("window", "all_interactions"),
    )  # fmt: skip

    # schedule
    stage3_intent_init: str = _variant(
        "from_generative",
        "own",
        "intents of the inference net when joint training starts",
        choices=("from_generative", "own"),
    )
    warmup_epochs: int = option(0, "most epochs of each warm-up stage (0: training.epochs)", low=0, quick=True)

    # encoder
    train_encoder: bool = option(False, "train encoder and item table too (each network its own copy)")
    encoder_dropout_in_train: bool = _variant(True, False, "dropout of the frozen encoder in training passes")
    encoder_states: str = option(
        "cached", "states with dropout: one draw for each repeat of a record, or a fresh one each time",
        choices=("cached", "live"),
    )  # fmt: skip
    pad_to: str = option(
        "pretrain_len", "length that decides absolute positions", choices=("pretrain_len", "batch_max")
    )
    backbone: str = option("iclrec", "the sequence encoder that is pre-trained")
    backbone_options: dict | None = option(None, "changes to the backbone's own options")  # noqa: RUF009
    backbone_training: dict | None = option(None, "changes to the backbone's training options")  # noqa: RUF009

    # prediction
    exclude_pad: bool = option(True, "never rank the padding row (the released code does, with score 0)")
    train_text: str | None = option(
        None,
        "what training reads: first sentences, or whole simulated dialogues up to some turn (default: whole ones under "
        "a protocol with turns)",
        choices=("openings", "dialogues"),
    )
    x_text: str | None = option(
        None,
        "what is embedded in a dialogue: the last user sentence, all of them, or a summary of the wishes (default: as "
        "the variant says; where training reads dialogues, what validation dialogues choose)",
        choices=("last", "all", "summary"),
    )
    seen_policy: str = option("drop", "items shown before in the dialogue", choices=("drop", "keep"))

    @classmethod
    def preset_of(cls, given: Mapping[str, Any]) -> str:
        """The variant; the released code repeats a record once for each way to cut a history."""
        paper = given.get("variant") == "paper"
        return "paper" if paper else str(given.get("ablation", "none"))

    @property
    def embedded(self) -> str:
        """What is embedded of a dialogue where validation chose nothing."""
        return self.x_text or ("all" if self.variant == "paper" else "last")


def check_options(options: LatentCRSOptions) -> LatentCRSOptions:
    """Refuse what has no meaning, in one line each; returns the options.

    Raises
    ------
    BenchError
        For combinations that define no method.
    """
    if options.tie_value_map and (options.value_map_on == "item" or options.g_form == "factored_user"):
        raise BenchError("latentcrs: tie_value_map needs value_map_on=intent and g_form=intent_only")
    if options.ablation == "no_rec" and options.w_nce == 0:
        raise BenchError("latentcrs: ablation=no_rec with w_nce=0 leaves nothing to train item scores; set w_nce=1")
    if options.ablation == "no_inference" and options.w_rec == 0:
        raise BenchError("latentcrs: ablation=no_inference trains the ranking loss alone; set w_rec above 0")
    if options.w_e_rec == 0 and options.ablation != "no_inference":
        raise BenchError(
            "latentcrs: w_e_rec=0 leaves the inference warm-up without a loss; ablation=no_rec drops it later"
        )
    if options.train_encoder and options.encoder_states == "cached":
        raise BenchError("latentcrs: train_encoder=true changes the states each step; set encoder_states=live too")
    return options
