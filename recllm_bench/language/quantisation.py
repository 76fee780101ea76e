"""Precision of a language model's weights: what it needs, whether it fits, and bitsandbytes' settings."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from recllm_bench.errors import BenchError
from recllm_bench.products import has_bfloat16

PRECISIONS = ("auto", "float32", "bfloat16", "float16", "8bit", "4bit")
_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "8bit": 1.0, "4bit": 0.5}
_WORKING = 0.75 * 2**30  # bytes beside the weights: the CUDA libraries, and room for a small batch
_GIB = 2**30
_PACKS = "support_avx512bf16_for_cpu"  # of bitsandbytes' Linear4bit


OPTION = "llm_precision"
"""What sets the precision of a method's language model; a chat model's has another name, or none."""


def to_set(option: str, value: str, otherwise: str = "a smaller model") -> str:
    """What to try, for messages: a value of the option that sets the precision, where whoever loads has one."""
    return f"{option}={value}" if option else otherwise


def settle_precision(precision: str, device: torch.device, name: str, stored: str = "", option: str = OPTION) -> str:
    """Turn ``auto`` into a precision, and refuse what this machine cannot do.

    Parameters
    ----------
    precision : str
        One of ``auto``, ``float32``, ``bfloat16``, ``float16``, ``8bit``, ``4bit``.
    device : torch.device
        Where the model will live.
    name : str
        What the user called the model, for messages.
    stored : str
        Quantisation method of the stored weights, or nothing.
    option : str
        What sets the precision, for messages; empty where nothing does.

    Returns
    -------
    str
        A precision other than ``auto``, or ``"stored"`` for weights that bitsandbytes quantised beforehand.
    """
    if precision not in PRECISIONS:
        raise BenchError(f"language model '{name}': precision '{precision}' is not one of {', '.join(PRECISIONS)}")
    if stored and stored != "bitsandbytes":
        again = f", with {option}=8bit or 4bit" if option else ""
        raise BenchError(
            f"language model '{name}' is stored quantised by {stored}, which is not read here; name its unquantised"
            f" version{again}"
        )
    if stored and precision in ("float32", "bfloat16", "float16"):
        raise BenchError(
            f"language model '{name}' is stored quantised by bitsandbytes; leave {option or 'precision'}=auto"
        )
    if stored or precision in ("8bit", "4bit"):
        what = f"{option or 'precision'}={precision}" if not stored else "its stored quantisation"
        option = "" if stored else option  # such weights are read in no other precision
        if device.type != "cuda" and (stored or device.type != "cpu"):
            raise BenchError(
                f"language model '{name}': {what} needs a CUDA device, not {device.type}; use "
                + to_set(option, "float32, or bfloat16 to halve the memory", "its unquantised version")
            )
        if importlib.util.find_spec("bitsandbytes") is None or importlib.util.find_spec("accelerate") is None:
            raise BenchError(
                f"language model '{name}': {what} needs bitsandbytes and accelerate; run 'pip install bitsandbytes"
                f" accelerate', or use {to_set(option, 'bfloat16', 'its unquantised version')}"
            )
        return "stored" if stored else precision
    if precision == "auto":
        return half_of(device) if device.type == "cuda" else "float32"
    return precision


def half_of(device: torch.device) -> str:
    """The 16 bits in which a CUDA device computes: ``bfloat16``, or ``float16`` on cards that lack it."""
    return "bfloat16" if has_bfloat16(device) else "float16"


def weight_bytes(tensors: Mapping[str, tuple[tuple[int, ...], int]], precision: str, tied: bool = False) -> int:
    """Bytes that the weights take once loaded.

    Parameters
    ----------
    tensors : mapping
        Name -> (shape, bytes in the file).
    precision : str
        ``float32``, ``bfloat16``, ``8bit``, ``4bit`` or ``stored``.
    tied : bool
        Whether the output head is the input embedding, so that a stored copy of it is not loaded.

    Notes
    -----
    bitsandbytes quantises linear layers only: embeddings, the head and norms stay in bfloat16. 4-bit blocks of 64
    carry a doubly quantised scale, 8-bit rows one float32.
    """
    total = 0.0
    for tensor, (shape, size) in tensors.items():
        if _is_head(tensor) and tied:
            continue
        if precision == "stored":
            total += size
            continue
        elements = math.prod(shape)
        if precision in ("8bit", "4bit") and is_matrix(tensor, shape):
            total += elements * (_BYTES[precision] + (1 / 64 if precision == "4bit" else 4 / shape[1]))
        else:
            total += elements * _BYTES.get(precision if precision not in ("8bit", "4bit") else "bfloat16", 4.0)
    return round(total)


def is_matrix(tensor: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is the matrix of a linear layer below the head."""
    return len(shape) == 2 and not _is_head(tensor) and not any(part in tensor for part in ("embed", "wte", "wpe"))


def _is_head(tensor: str) -> bool:
    return "lm_head" in tensor or tensor.endswith("embed_out.weight")


def placement(
    name: str,
    tensors: Mapping[str, tuple[tuple[int, ...], int]],
    precision: str,
    device: torch.device,
    free: Sequence[int],
    *,
    tied: bool = False,
    may_spread: bool = False,
    option: str = OPTION,
) -> str:
    """Whether a model fits: on the device, over several, or not at all.

    Parameters
    ----------
    name : str
        What the user called the model.
    tensors : mapping
        Name -> (shape, bytes in the file).
    precision : str
        The settled precision.
    device : torch.device
        A CUDA device.
    free : sequence of int
        Free bytes of each visible device, the chosen one at ``device.index``.
    tied : bool
        Whether head and input embedding are one tensor.
    may_spread : bool
        Whether the model may lie on several devices.
    option : str
        As for :func:`settle_precision`.

    Returns
    -------
    str
        ``"one"`` or ``"spread"``.

    Raises
    ------
    BenchError
        With the estimate and the option that would fit.
    """

    def need(kind: str) -> float:
        return weight_bytes(tensors, kind, tied) + _WORKING

    here = free[device.index or 0]
    if need(precision) <= here:
        return "one"
    # Layers do not fill a device to the last byte, hence nine tenths.
    if may_spread and len(free) > 1 and need(precision) + _WORKING * (len(free) - 1) <= 0.9 * sum(free):
        return "spread"
    order = ["float32", "bfloat16", "8bit", "4bit"]
    alike = "bfloat16" if precision == "float16" else precision
    smaller = order[order.index(alike) + 1 :] if alike in order else []
    fits = next((kind for kind in smaller if need(kind) <= here), None)
    advice = f"try {option}={fits}" if fits and option else "choose a smaller model or a larger device"
    raise BenchError(
        f"language model '{name}' needs about {need(precision) / _GIB:.1f} GiB in {precision}, {device} has"
        f" {here / _GIB:.1f} GiB free; {advice}"
    )


def dtype_option(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The argument of ``from_pretrained`` that names the weights' type; transformers 4.56 renamed it."""
    import transformers

    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    return {"dtype" if version >= (4, 56) else "torch_dtype": dtype}


def keep_quantised(model: Any) -> None:
    """Let 4-bit layers compute from the weights that were hashed.

    On CPUs with AVX512-BF16, bitsandbytes packs the weights of a layer anew in its first pass without gradient, and
    then computes by another kernel: an epoch's validation would change the passes that follow it.
    """
    for module in model.modules():
        if hasattr(module, _PACKS):
            setattr(module, _PACKS, False)


def quantisation_config(precision: str, half: str = "bfloat16") -> Any:
    """bitsandbytes' settings for ``8bit`` (LLM.int8) or ``4bit`` (NF4 with double quantisation, as in QLoRA)."""
    from transformers import BitsAndBytesConfig

    if precision == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, half),
    )
