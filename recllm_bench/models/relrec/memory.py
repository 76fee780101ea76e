"""How much memory a training step takes, and whether its layers must be computed again in the backward pass."""

from __future__ import annotations

from typing import Any

import torch

from recllm_bench.errors import BenchError
from recllm_bench.progress import log

GIB = 2**30


def memory_plan(backbone: Any, trainable: int, tokens: int, scores: int, checkpointed: bool) -> dict[str, float]:
    """GiB of a training step by what takes them, estimated.

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
    found = {"frozen weights": weights, "trainable rows": 16 * trainable, "layers": kept, "logits": 12 * scores}
    return {name: value / GIB for name, value in found.items()}


def step_memory(backbone: Any, trainable: int, tokens: int, scores: int, checkpointed: bool) -> float:
    """GiB of a training step: the sum of :func:`memory_plan`."""
    return sum(memory_plan(backbone, trainable, tokens, scores, checkpointed).values())


def choose_checkpointing(wanted: str, backbone: Any, trainable: int, tokens: int, scores: int, name: str) -> bool:
    """Whether to compute layers again: as wanted, or when the step would not fit otherwise.

    Raises
    ------
    BenchError
        When the step does not fit on the GPU either way.
    """
    if backbone.device.type != "cuda":
        _tell(name, memory_plan(backbone, trainable, tokens, scores, wanted == "on"))
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
    _tell(name, memory_plan(backbone, trainable, tokens, scores, chosen))
    return chosen


def _tell(name: str, plan: dict[str, float]) -> None:
    parts = ", ".join(f"{what} {value:.3f}" for what, value in plan.items())
    log.info(f"{name}: a training step takes about {sum(plan.values()):.2f} GiB: {parts}")
