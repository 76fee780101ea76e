"""Loading a causal language model by folder or hub id, in a precision that fits, and freezing it."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from recllm_bench.artifacts import ArtifactStore
from recllm_bench.errors import BenchError
from recllm_bench.language.backbone_files import BackboneFiles, find_backbone, miniature_facts, parameter_count
from recllm_bench.language.frozen import Backbone, packed_mask, packed_positions
from recllm_bench.language.known_models import difference
from recllm_bench.language.quantisation import (
    OPTION,
    dtype_option,
    half_of,
    keep_quantised,
    placement,
    quantisation_config,
    settle_precision,
    to_set,
)
from recllm_bench.products import accelerate
from recllm_bench.progress import log

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "Backbone",
    "backbone_key",
    "chat_key",
    "default_llm",
    "load_backbone",
    "packed_mask",
    "packed_positions",
    "quiet_transformers",
]

HUB_DEFAULT = "HuggingFaceTB/SmolLM2-135M"
"""A small public model, taken on a GPU where none is named and the hub is in reach."""
_TRIED = 256  # tokens beyond the embedding of which it is tried whether a text yields them
_QUIET = 2**31  # bytes of weights under which loading shows no bar


def load_backbone(
    name: str,
    *,
    precision: str = "auto",
    device: str | torch.device = "auto",
    store: ArtifactStore | None = None,
    stands_for: str = "Llama-2-7b",
    precision_option: str = OPTION,
) -> Backbone:
    """Load a causal language model and freeze it.

    Parameters
    ----------
    name : str
        ``smollm2``, a folder, a name under ``RECLLM_MODELS``, a hub id (``owner/model`` or ``owner/model@revision``),
        or the hash of a miniature in ``store``.
    precision : str
        ``auto`` (bfloat16 on CUDA, or float16 where the card has none; float32 elsewhere), ``float32``, ``bfloat16``,
        ``float16``, ``8bit`` or ``4bit``.
    device : str or torch.device
        ``auto`` takes CUDA where there is one, and spreads over several devices a model that fits on none alone.
    store : ArtifactStore, optional
        Where miniatures are looked up by hash.
    stands_for : str
        The model a published method used; another one is named as its substitute.
    precision_option : str
        What a user sets for ``precision``, named in messages; empty where nothing is.

    Raises
    ------
    BenchError
        One line that says what is wrong with name, files, precision or device, and how to mend it.
    """
    files = find_backbone(name, store)
    unplaced = str(device) in ("auto", "cuda")
    place = _device(device, name)
    precision = settle_precision(precision, place, name, files.stored_quantised, precision_option)
    tied = bool(files.config.get("tie_word_embeddings", False))
    spread = False
    if place.type == "cuda":
        free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
        options: dict[str, Any] = {"tied": tied, "may_spread": unplaced and _has_accelerate()}
        options["option"] = precision_option
        spread = placement(name, files.tensors, precision, place, free, **options) == "spread"
    tokenizer = _tokenizer(files)
    model = _model(files, precision, place, spread, precision_option)
    model.eval().requires_grad_(False)
    if model.get_output_embeddings() is None:
        raise BenchError(f"language model '{name}' has no language-model head; choose another")
    table: Any = model.get_input_embeddings()
    tokenizer = _within_rows(tokenizer, int(table.weight.shape[0]), name)
    start = table.weight.device
    dtype = _kind(precision, place)
    if precision == "stored":
        dtype = table.weight.dtype
    if place.type == "cpu":
        keep_quantised(accelerate(model))
    substitute = substitute_for(files, stands_for)
    backbone = Backbone(files.name, files.source, substitute, model, tokenizer, start, dtype, precision_option)
    if not backbone.layout.packs:
        log.warning(f"language model '{name}': packed sequences get other states than each alone; packing is refused")
    return backbone


def backbone_key(name: str, store: ArtifactStore | None = None) -> dict[str, Any]:
    """What an artifact that depends on a backbone carries in its key; reads no weights into memory.

    Equal files give equal keys, wherever they lie and whatever they are called.
    """
    return {"backbone": find_backbone(name, store).revision}


def default_llm(device: torch.device) -> str:
    """The language model where none is named: a small public one, or ``""`` for a miniature pre-trained on the spot.

    The public one needs a GPU (on two CPU cores an epoch would take hours) and the hub, or a copy in its cache.
    """
    if device.type != "cuda":
        return ""
    try:
        find_backbone(HUB_DEFAULT)
    except BenchError:
        return ""
    return HUB_DEFAULT


def _device(device: str | torch.device, name: str) -> torch.device:
    if str(device) == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise BenchError(f"language model '{name}': '{device}' is no device; use auto, cpu, cuda or cuda:1") from error
    if place.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (place.index or 0) >= count:
            raise BenchError(f"language model '{name}': {place} is asked for, and there are {count} CUDA devices")
        place = torch.device("cuda", place.index or 0)
    return place


def _has_accelerate() -> bool:
    return importlib.util.find_spec("accelerate") is not None


def _tokenizer(files: BackboneFiles) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(files.folder, local_files_only=True)
    except Exception as error:
        raise BenchError(f"language model '{files.name}': its tokenizer cannot be read: {_line(error)}") from error
    if not tokenizer.is_fast:
        raise BenchError(f"language model '{files.name}' has no fast tokenizer; add its tokenizer.json")
    return tokenizer


def _within_rows(tokenizer: PreTrainedTokenizerBase, rows: int, name: str) -> PreTrainedTokenizerBase:
    """A tokenizer that refuses a text with a token beyond the model's rows, where it knows such tokens.

    Published models have some that no text yields, such as the picture tokens of text-only Gemma 3.
    """
    beyond = sorted(set(tokenizer.get_vocab().values()) - set(range(rows)))
    if not beyond:
        return tokenizer
    added = set(tokenizer.added_tokens_decoder)
    ordinary = [token for token in beyond if token not in added]
    for token in ordinary[:: max(1, len(ordinary) // _TRIED)]:
        if token in tokenizer(tokenizer.decode([token]), add_special_tokens=False, verbose=False)["input_ids"]:
            raise BenchError(
                f"language model '{name}': its tokenizer has {len(tokenizer)} tokens and its embedding {rows} rows;"
                " they do not belong together"
            )
    own = type(tokenizer)

    def encode(self: Any, *inputs: Any, **named: Any) -> Any:
        encoded = own.__call__(self, *inputs, **named)
        ids = encoded["input_ids"]
        listed = ids.tolist() if hasattr(ids, "tolist") else ids
        flat = chain.from_iterable(row if isinstance(row, list) else [row] for row in listed)
        if (foreign := next((token for token in flat if token >= rows), None)) is not None:
            spelt = self.convert_ids_to_tokens(foreign)
            raise BenchError(
                f"language model '{name}' has no row for the token '{spelt}' in one of the texts; take it out"
                " of the text, or name another model"
            )
        return encoded

    tokenizer.__class__ = type(own.__name__, (own,), {"__call__": encode, "__module__": own.__module__})
    return tokenizer


def _kind(precision: str, device: torch.device) -> torch.dtype:
    """Type of states, and of the weights that are not quantised."""
    if precision in ("float32", "bfloat16", "float16"):
        return getattr(torch, precision)
    return getattr(torch, half_of(device) if device.type == "cuda" else "bfloat16")


def _model(files: BackboneFiles, precision: str, device: torch.device, spread: bool, option: str) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    if precision != "stored":
        options.update(dtype_option(_kind(precision, device)))
    if precision in ("8bit", "4bit"):
        options["quantization_config"] = quantisation_config(precision, str(_kind(precision, device))[6:])
        # It tells at every call that 8-bit products are taken in float16, which is how they are.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if spread:
        options["device_map"] = "auto"
    elif (device.type == "cuda" or "quantization_config" in options or files.stored_quantised) and _has_accelerate():
        options["device_map"] = {"": str(device)}  # straight to the device, not through a copy in host memory
    # SDPA has no soft cap on attention scores, which Gemma 2 needs.
    options["attn_implementation"] = "eager" if files.config.get("attn_logit_softcapping") else "sdpa"
    large = sum(size for _, size in files.tensors.values()) > _QUIET
    try:
        with quiet_transformers(bars=large):
            load: Any = AutoModelForCausalLM.from_pretrained  # with its loading info it gives a pair
            try:
                model, info = load(files.folder, **options)
            except ValueError as error:
                if "scaled_dot_product_attention" not in str(error):
                    raise
                log.info(f"language model '{files.name}' has no SDPA attention; its own is used")
                options["attn_implementation"] = "eager"
                model, info = load(files.folder, **options)
            if "device_map" not in options:
                model = model.to(device)
    except torch.cuda.OutOfMemoryError as error:
        raise BenchError(
            f"language model '{files.name}' does not fit on {device}; try"
            f" {to_set(option, '8bit, 4bit, or a smaller model')}"
        ) from error
    except Exception as error:
        raise BenchError(f"language model '{files.name}' cannot be loaded: {_line(error)}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise BenchError(
            f"language model '{files.name}': {len(missing)} of its tensors are not in its files, such as {missing[0]};"
            " they would be random: fetch the complete model"
        )
    return model


def substitute_for(files: BackboneFiles, stands_for: str) -> str:
    """What a table says of a model that stands for another one; empty when it is the model meant, whatever its name."""
    called = files.source.partition("@")[0].rpartition("/")[2] or files.name
    if not stands_for or (apart := difference(files, stands_for)) is None:
        return ""
    count = parameter_count(files)
    size = next(f"{count / unit:.1f}{letter}" for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")) if count >= unit)
    if not files.is_miniature:
        # Of one shape it might pass for the model meant: what sets it apart is said.
        size += "" if apart == "another shape" else f", {apart}"
        return f"{called} ({size}) for {stands_for}"
    facts = miniature_facts(files)
    own, unigram = (facts.get(name) for name in ("held_out_perplexity", "unigram_perplexity"))
    if own and unigram:
        size += f", {facts['steps']} of {facts['planned_steps']} steps"
        size += f", perplexity {_rounded(own)} against {_rounded(unigram)} of a unigram model"
    return f"miniature Llama ({size}) for {stands_for}"


def _rounded(perplexity: float) -> str:
    return f"{perplexity:.0f}" if perplexity >= 10 else f"{perplexity:.1f}"


def chat_key(spec: str) -> dict[str, Any]:
    """What an artifact that depends on a chat model's answers carries in its key, beside the name ``spec``.

    A local model counts by its files, so that other weights in its folder are another writer.
    """
    name = spec.removeprefix("local:")
    return backbone_key(name) if name and name != spec else {}


@contextmanager
def quiet_transformers(bars: bool = False) -> Iterator[None]:
    """Without transformers' advice; with its bars only for what takes long."""
    from transformers.utils import logging as own

    level, shown = own.get_verbosity(), own.is_progress_bar_enabled()
    own.set_verbosity_error()
    if not bars:
        own.disable_progress_bar()
    try:
        yield
    finally:
        own.set_verbosity(level)
        if shown:
            own.enable_progress_bar()


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
