"""Options of ReLRec and of its item-only relative Llama2-seq."""

from __future__ import annotations

from dataclasses import dataclass

from recllm_bench.errors import BenchError
from recllm_bench.options import option


@dataclass(frozen=True)
class ReLRecOptions:
    """Options of ReLRec (Findings of EMNLP 2024, 423); numbers in brackets are the paper's equations."""

    llm: str = option(
        "",
        "frozen causal language model: smollm2, a folder, a name under RECLLM_MODELS, a hub id; "
        "empty: see docs/relrec.md",
    )
    llm_precision: str = option(
        "auto", "how its weights are held", choices=("auto", "float32", "bfloat16", "8bit", "4bit")
    )

    # tokens
    user_token: bool = option(True, "a sequence starts with the user's own token")
    p: int = option(512, "width of the user and item tables before the projection", low=1)
    proj: str = option(
        "1layer",
        "projection into the language model: none, linear, or two layers",
        choices=("none", "1layer", "2layer"),
    )
    share_projection: bool = option(False, "one projection for users and items, instead of one each")
    init: str = option("avg", "rows start at the mean word vector, or at random", choices=("avg", "random"))
    init_noise: float = option(1e-3, "standard deviation of rows around the mean word vector", low=0)
    item_head: str = option(
        "tied", "item logits from the input rows, or from a table of their own", choices=("tied", "separate")
    )
    seq_softmax: str = option(
        "full", "training softmax of sequences: words, users and items, or items alone", choices=("full", "items_only")
    )
    seq_template: str = option("{user}{items}", "words around a sequence; it ends with {items}")

    # losses (1) to (4)
    recon: bool = option(True, "reconstruct the labels of users and items")
    alpha: float = option(0.75, "weight of next-item prediction (1)", low=0)
    beta: float = option(0.3, "weight of item labels (2)", low=0)
    gamma: float = option(0.9, "weight of user labels (3)", low=0)

    # labels
    labels: str = option(
        "extractive", "extractive, generated (by 'chat'), or labels or profiles: a .jsonl file, a folder of datasets"
    )
    chat: str = option("", "who writes generated labels: local:NAME or server:MODEL@URL")
    token_budget: int = option(
        0,
        "most tokens of the writer's prompts and answers together; a server on another machine writes nothing without "
        "it or RECLLM_TOKEN_BUDGET, -1: no limit",
        low=-1,
    )
    document_words: int = option(384, "words of a user's or item's text that the writer is given", low=8)
    chat_temperature: float = option(0.0, "temperature of the writer", low=0)
    chat_batch: int = option(64, "questions the writer is given at once, and answers that a kill may cost", low=1)
    chat_precision: str = option(
        "auto", "weights of a local writer", choices=("auto", "float32", "bfloat16", "8bit", "4bit")
    )
    chat_device: str = option("auto", "where a local writer runs: auto, cpu, cuda, cuda:N")
    label_scope: str = option(
        "train_only", "reviews that labels are made of; all holds those to be predicted", choices=("train_only", "all")
    )
    two_stage: bool = option(True, "labels are profiles cleaned in a second stage, or the first draft")
    label_versions: int = option(3, "versions of a label; one is drawn at each step", low=1)
    label_tokens: int = option(
        384, "most tokens of a label, its end token among them; 200 words fit into the default", low=2
    )
    label_visits: int = option(
        0, "passes over all labels, by their loss alone, before the first sequence (0: the paper's schedule)", low=0
    )
    label_probe: int = option(
        64, "users and items whose label's loss is taken at each validation, own token against another's", low=0
    )
    anonymise_names: bool = option(True, "titles of catalogue items in labels are written as their tokens")
    switched_labels: str = option(
        "none", "labels taken from another dataset", choices=("none", "users", "items", "both")
    )
    switched_from: str = option("", "the dataset that switched labels come from")
    switched_file: str = option("", "file of that dataset's labels, where 'labels' is a file too")

    # limits and speed
    long_sequences: str = option(
        "refuse", "histories or labels that exceed the model's context", choices=("refuse", "cut")
    )
    pack_length: int = option(0, "tokens of a packed row (0: what leaves the fewest gaps)", low=0)
    scores_at_once: int = option(0, "logits held at once (0: 1 million on a CPU, 64 million on a GPU)", low=0)
    checkpointing: str = option(
        "auto", "recompute layers in the backward pass to save memory", choices=("auto", "on", "off")
    )
    packed_attention: str = option(
        "dense",
        "how packed rows attend: under a dense mask, or by blocks, on CUDA where the model gives the same",
        choices=("dense", "blocks"),
    )
    warmup_share: float = option(0.03, "share of all steps over which the learning rate rises", low=0, high=1)

    # what is measured beside the ranking
    recon_users: int = option(0, "users whose label is reconstructed after training (0: all, -1: none)", low=-1)
    recon_items: int = option(0, "items whose label is reconstructed after training (0: all, -1: none)", low=-1)
    recon_prompt: str = option(
        "random",
        "opening behind which a label is written: drawn for each, as in training, or the first",
        choices=("random", "fixed"),
    )
    recon_similarity: str = option("mean", "over the versions of a label", choices=("mean", "max"))
    timed_batches: int = option(0, "batches of 16 users whose ranking is timed, as in Table 12 (0: none)", low=0)


@dataclass(frozen=True)
class LlamaSeqOptions(ReLRecOptions):
    """Options of Llama2-seq: item embeddings alone, as wide as the language model's own."""

    user_token: bool = option(False, "a sequence starts with the user's own token")
    proj: str = option(
        "none",
        "projection into the language model: none, linear, or two layers",
        choices=("none", "1layer", "2layer"),
    )
    recon: bool = option(False, "reconstruct the labels of users and items")


def check_options(options: ReLRecOptions, name: str = "relrec") -> ReLRecOptions:
    """Refuse what has no meaning, in one line each; returns the options.

    Raises
    ------
    BenchError
        For combinations that define no method.
    """
    if options.recon and not options.user_token:
        raise BenchError(f"{name}: user_token=false leaves user labels without a token; set recon=false too")
    if not options.seq_template.endswith("{items}") or options.seq_template.count("{items}") != 1:
        raise BenchError(f"{name}: seq_template {options.seq_template!r} must hold {{items}} once, at its end")
    if options.seq_template.count("{user}") != 1:
        raise BenchError(f"{name}: seq_template {options.seq_template!r} must hold {{user}} once")
    if options.alpha == 0 and (not options.recon or options.beta == options.gamma == 0):
        raise BenchError(f"{name}: alpha=0 without reconstruction leaves nothing to train")
    if options.labels == "generated" and not options.chat:
        raise BenchError(f"{name}: labels=generated needs chat=local:NAME or chat=server:MODEL@URL")
    if not options.two_stage and options.labels == "extractive":
        raise BenchError(f"{name}: two_stage=false concerns written labels; set labels=generated and a chat model")
    if options.switched_labels != "none" and not options.switched_from:
        raise BenchError(f"{name}: switched_labels={options.switched_labels} needs switched_from=DATASET")
    is_file = options.labels not in ("extractive", "generated")
    if options.switched_labels != "none" and is_file != bool(options.switched_file):
        raise BenchError(f"{name}: switched labels are made as 'labels' are; give switched_file where labels is a file")
    return options
