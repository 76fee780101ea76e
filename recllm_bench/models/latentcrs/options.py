"""Every named option of LatentCRS, and the presets that set them all at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recllm_bench.errors import BenchError
from recllm_bench.options import option

_SAID = "(default: as the variant says)"
AUGMENTATION_SEEDS = (1755, 2097, 3068, 6868, 7702)
ABLATIONS = ("none", "no_inference", "direct_kl", "no_rec", "no_augmentation")


@dataclass(frozen=True)
class LatentCRSOptions:
    """Options of LatentCRS; ``None`` means "as the variant says", an explicit value always wins.

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
    hard_filter: str | None = option(
        None, f"F, V: what fits goes first, or the more features match the further in front {_SAID}",
        choices=("strict", "overlap_rerank"),
    )  # fmt: skip
    hard_filter_pool: int | None = option(
        None, f"F, V: how many of the best items are filtered; 0 for the whole catalogue {_SAID}", low=0
    )
    verifier: str = option("local:smollm2", "V: the chat model that orders: local:NAME or server:MODEL@URL")
    verifies: int = option(20, "V: items that it looks over", low=1)
    verified: str = option("all", "V: where: everywhere, or in dialogues alone", choices=("all", "dialogues"))

    # intents (3)
    intent_pool: str | None = option(
        None, f"pooling of encoder outputs before K-means {_SAID}", choices=("last", "mean_all", "mean_nonpad")
    )
    intent_normalise: bool | None = option(None, f"scale centroids to length 1 {_SAID}")
    intent_source: str = option(
        "recluster", "cluster the finished encoder's states, or take the backbone's own centroids (same K needed)",
        choices=("recluster", "backbone"),
    )  # fmt: skip

    # networks (5) to (7), (12), (15)
    use_wm: bool | None = option(None, f"a learned map W_m on the intents of the prior (5) {_SAID}")
    ffn_layernorm: bool | None = option(None, f"LayerNorm after each layer of F {_SAID}")
    ffn_final_relu: bool | None = option(None, f"ReLU after the last layer of F too {_SAID}")
    g_form: str | None = option(
        None, f"item score (6)(7): with or without the user factor {_SAID}", choices=("factored_user", "intent_only")
    )
    g_item_map: bool | None = option(None, f"a learned map W_v on the items of g {_SAID}")
    value_map_on: str | None = option(None, f"side of the map W_e in (16) {_SAID}", choices=("item", "intent"))
    tie_value_map: bool = option(False, "one map for V (inference) and A (generative), frozen in the M-step")
    text_hidden: int = option(1024, "hidden width of the text projector", low=1)
    text_dropout: float = option(0.5, "dropout of the text projector", low=0, high=1)
    text_width: int = option(384, "width of utterance vectors where no text encoder says it (plain RecBole)", low=1)

    # losses (8) to (17)
    nce_logits: str | None = option(None, f"logits of the contrastive term (8) {_SAID}", choices=("g", "f_times_g"))
    nce_intent_reduce: str | None = option(
        None, f"weighted sum over intents, or its mean {_SAID}", choices=("sum", "mean")
    )
    rec_form: str | None = option(None, f"auxiliary ranking loss (10): softmax_h or mixture {_SAID}")
    posterior_form: str | None = option(None, f"posterior (13) {_SAID}", choices=("exact_log", "softmax_product"))
    kl_epsilon: float | None = option(None, f"added to probabilities inside the logarithms of KL terms {_SAID}", low=0)
    w_nce: float = option(1.0, "weight of the contrastive term", low=0)
    w_rec: float = option(1.0, "alpha_M, weight of the M-step's ranking loss", low=0)
    w_e_rec: float = option(5.0, "alpha_E, weight of the E-step's ranking loss", low=0)
    lambda_kl: float = option(1.0, "lambda, weight of the M-step's KL term", low=0)
    temperature: float = option(1.0, "temperature of the E-step's ranking loss (15)", low=1e-6)

    # training data
    window: int = option(25, "items of a record, its target included", low=2)
    train_repeat: int | None = option(
        None, f"times a record occurs in an epoch, each with its own negatives {_SAID}", low=1
    )
    negatives: int = option(10, "n, sampled negatives of a record", low=1)
    neg_resample: str | None = option(None, f"draw negatives once, or each epoch {_SAID}", choices=("never", "epoch"))
    neg_exclude: str | None = option(
        None, f"what a negative may not be: an item of the record, or any of the user's {_SAID}",
        choices=("window", "all_interactions"),
    )  # fmt: skip

    # schedule
    lr_schedule: str = option("none", "the learning rate is constant, as in the released code", choices=("none",))
    stage3_intent_init: str | None = option(
        None, f"intents of the inference net when joint training starts {_SAID}", choices=("from_generative", "own")
    )
    warmup_epochs: int = option(0, "most epochs of each warm-up stage (0: training.epochs)", low=0, quick=True)

    # encoder
    train_encoder: bool = option(False, "train encoder and item table too (each network its own copy)")
    encoder_dropout_in_train: bool | None = option(None, f"dropout of the frozen encoder in training passes {_SAID}")
    encoder_states: str = option(
        "cached", "states with dropout: one draw for each repeat of a record, or a fresh one each time",
        choices=("cached", "live"),
    )  # fmt: skip
    pad_to: str | None = option(
        None, f"length that decides absolute positions {_SAID}", choices=("pretrain_len", "batch_max")
    )
    backbone: str = option("iclrec", "the sequence encoder that is pre-trained")
    backbone_options: dict | None = option(None, "changes to the backbone's own options")  # noqa: RUF009
    backbone_training: dict | None = option(None, "changes to the backbone's training options")  # noqa: RUF009

    # prediction
    exclude_pad: bool = option(True, "never rank the padding row (the released code does, with score 0)")
    train_text: str | None = option(
        None,
        "what training hears: first sentences, or whole simulated dialogues up to some turn (default: whole ones under "
        "a protocol with turns)",
        choices=("openings", "dialogues"),
    )
    x_text: str | None = option(
        None,
        "what is embedded in a dialogue: the last user sentence, all of them, or a summary of the wishes (default: as "
        "the variant says; where training hears dialogues, what validation dialogues choose)",
        choices=("last", "all", "summary"),
    )
    seen_policy: str = option("drop", "items shown before in the dialogue", choices=("drop", "keep"))


PRESETS: dict[str, dict[str, Any]] = {
    "official": {
        "intent_pool": "mean_all",
        "intent_normalise": True,
        "use_wm": False,
        "ffn_layernorm": False,
        "ffn_final_relu": True,
        "g_form": "intent_only",
        "g_item_map": False,
        "value_map_on": "intent",
        "nce_logits": "f_times_g",
        "nce_intent_reduce": "mean",
        "rec_form": "softmax_h",
        "posterior_form": "softmax_product",
        "kl_epsilon": 1e-5,
        "train_repeat": 6,
        "neg_resample": "never",
        "neg_exclude": "window",
        "stage3_intent_init": "from_generative",
        "encoder_dropout_in_train": True,
        # The released code pads to the longest history of the batch, which lets batch mates change a score.
        "pad_to": "pretrain_len",
        "x_text": "last",
        "hard_filter": "overlap_rerank",
        "hard_filter_pool": 50,
    },
    "paper": {
        "intent_pool": "last",
        "intent_normalise": False,
        "use_wm": True,
        "ffn_layernorm": False,
        "ffn_final_relu": False,
        "g_form": "factored_user",
        "g_item_map": True,
        "value_map_on": "item",
        "nce_logits": "g",
        "nce_intent_reduce": "sum",
        "rec_form": "mixture",
        "posterior_form": "exact_log",
        "kl_epsilon": 0.0,
        "train_repeat": 1,
        "neg_resample": "epoch",
        "neg_exclude": "all_interactions",
        "stage3_intent_init": "own",
        "encoder_dropout_in_train": False,
        "pad_to": "pretrain_len",
        "x_text": "all",
        "hard_filter": "strict",
        "hard_filter_pool": 0,
    },
}
PRESETS["code"] = PRESETS["official"]


def resolve_options(options: LatentCRSOptions) -> LatentCRSOptions:
    """Replace every ``None`` by the variant's value and apply the ablation.

    Raises
    ------
    BenchError
        For combinations that define no method.
    """
    preset: Mapping[str, Any] = PRESETS[options.variant]
    values = {name: value for name, value in preset.items() if getattr(options, name) is None}
    if options.ablation == "no_augmentation" and options.train_repeat is None:
        values["train_repeat"] = 1  # the released code repeats a record once for each way to cut a history
    if options.variant == "code":
        values["variant"] = "official"
    result = dataclasses.replace(options, **values)
    check_options(result)
    return result


def check_options(options: LatentCRSOptions) -> None:
    """Refuse what has no meaning, in one line each."""
    if options.rec_form not in ("softmax_h", "mixture"):
        raise BenchError(
            f"latentcrs: rec_form={options.rec_form} is not offered: a ratio of raw scores, which may be negative, has "
            "no logarithm; use softmax_h or mixture"
        )
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
