"""How much memory a training step takes, and whether its layers must be computed again in the backward pass."""

from __future__ import annotations

from typing import Any

import torch

from recllm_bench.errors import BenchError

GIB = 2**30


def step_memory(backbone: Any, trainable: int, tokens: int, scores: int, checkpointed: bool) -> float:
    """GiB of a training step, estimated.

    Counted are the frozen weights, four numbers for each trainable one (value, gradient, two moments), what each layer
    keeps of each token for the backward pass, and the logits in flight.

    Parameters
    ----------
    trainable : int
        Trainable numbers.
    tokens : int
        Tokens of a step.
    scores : int
        Logits held at once.
    checkpointed : bool
        Whether layers are computed again in the backward pass.
    """
    config, size = backbone.model.config, torch.finfo(torch.promote_types(backbone.dtype, torch.bfloat16)).bits // 8
    width = backbone.width
    inner = int(getattr(config, "intermediate_size", 0) or 4 * width)
    layers = int(getattr(config, "num_hidden_layers", 1))
    weights = sum(parameter.numel() * parameter.element_size() for parameter in backbone.model.parameters())
    layer = tokens * (10 * width + 4 * inner) * size
    kept = layers * tokens * width * size + layer if checkpointed else layers * layer
    return (weights + 16 * trainable + kept + 12 * scores) / GIB


def choose_checkpointing(wanted: str, backbone: Any, trainable: int, tokens: int, scores: int, name: str) -> bool:
    """Whether to compute layers again: as wanted, or when the step would not fit otherwise.

    Raises
    ------
    BenchError
        When the step does not fit on the GPU either way.
    """
    if backbone.device.type != "cuda":
        return wanted == "on"
    needs = {again: step_memory(backbone, trainable, tokens, scores, again) for again in (False, True)}
    weights = sum(parameter.numel() * parameter.element_size() for parameter in backbone.model.parameters()) / GIB
    # The weights are there already: what counts is the room beside them.
    room = torch.cuda.mem_get_info(backbone.device)[0] / GIB + weights
    chosen = wanted == "on" or (wanted == "auto" and needs[False] > 0.85 * room)
    if needs[chosen] > room:
        fitting = "training.batch_size at half, or llm_precision=8bit"
        if not chosen and needs[True] <= room:
            fitting = "checkpointing=on"
        raise BenchError(
            f"{name}: a training step takes about {needs[chosen]:.0f} GiB and the GPU has {room:.0f}; set {fitting}"
        )
    return chosen
