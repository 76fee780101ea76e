"""LoRA adapters on a frozen backbone: put in for a while, saved as peft saves them, merged into a twin."""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from recllm_bench.artifacts import ArtifactStore, content_hash, file_hash
from recllm_bench.errors import BenchError
from recllm_bench.language.backbone import Backbone, quiet_transformers
from recllm_bench.language.backbone_files import find_backbone
from recllm_bench.language.miniature import LAYERS
from recllm_bench.language.quantisation import is_matrix

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ALL_LINEAR = "all-linear"
"""Stands for every linear layer but the output layer."""


@contextmanager
def adapted(backbone: Backbone, config: Mapping[str, Any], seed: int = 0) -> Iterator[PeftModel]:
    """Low-rank updates in a backbone's layers while the block runs.

    Inside the block the backbone's own methods compute with the updates; afterwards its layers are the ones it had.

    Parameters
    ----------
    backbone : Backbone
        Frozen; its weights get no gradient inside the block either.
    config : mapping
        Arguments of ``peft.LoraConfig``: ``r, lora_alpha, lora_dropout, target_modules``.
    seed : int
        Of the updates' first factors (the second ones start at zero, so that nothing changes at first).

    Yields
    ------
    PeftModel
        The wrapped model, whose ``save_pretrained`` writes the adapter.

    Raises
    ------
    BenchError
        Without peft, or when the model has no such layers.
    """
    peft = _peft()
    targets = config["target_modules"]
    targets = targets if isinstance(targets, str) else list(targets)
    settings = peft.LoraConfig(**{**config, "target_modules": targets}, task_type="CAUSAL_LM")
    try:
        with quiet_transformers(), torch.random.fork_rng(devices=_cuda(backbone)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            model = peft.get_peft_model(backbone.model, settings)
    except ValueError as error:
        known = ", ".join(linear_layers(backbone.model))
        raise BenchError(
            f"language model '{backbone.name}' has no layers {targets} to adapt; it has {known} (or {ALL_LINEAR})"
        ) from error
    # The folder a model was loaded from is this machine's; where it came from is told instead.
    settings.base_model_name_or_path = backbone.source
    try:
        yield model
    finally:
        model.unload()
        backbone.model.eval().requires_grad_(False)


class AdapterWeights(nn.Module):
    """The layers' updates alone, so that saving and switching modes leaves the frozen model out.

    Parameters
    ----------
    model : PeftModel
        A model with LoRA updates.
    """

    def __init__(self, model: PeftModel) -> None:
        super().__init__()
        from peft.tuners.lora import LoraLayer

        for name, layer in model.named_modules():
            if isinstance(layer, LoraLayer):
                parts = {part: getattr(layer, part) for part in ("lora_A", "lora_B", "lora_dropout")}
                self.add_module(name.replace(".", "/"), nn.ModuleDict(parts))

    def size(self) -> int:
        """Trainable numbers."""
        return sum(value.numel() for value in self.parameters())


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write an adapter as ``peft.PeftModel.from_pretrained`` reads it."""
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a form to be filled in


def with_adapter(backbone: Backbone, folder: Path) -> Backbone:
    """A backbone with an adapter; the given one stays as it was.

    The adapter is merged into copies of the layers it changes, all other weights are shared. Where weights are
    quantised or in half precision it is attached instead, since merging would round small updates away.

    Parameters
    ----------
    backbone : Backbone
        The model that was tuned.
    folder : Path
        What :func:`save_adapter` wrote, or any LoRA adapter of peft.

    Raises
    ------
    BenchError
        Without peft, or when the folder holds no adapter of this model.
    """
    peft, folder = _peft(), Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).exists():
            raise BenchError(f"{folder} holds no adapter: it has no {name}")
    changed = _changed_layers(folder)
    missing = sorted(changed - {name for name, _ in backbone.model.named_modules()})
    if missing or not changed:
        raise BenchError(
            f"{folder}: this adapter is for another model: '{backbone.name}' has no layer "
            f"{missing[0] if missing else '(it changes none)'}"
        )
    quantised = bool(getattr(backbone.model, "is_quantized", False))
    attached = quantised or backbone.dtype.itemsize < 4
    twin = _twin(backbone.model, set() if attached else changed)
    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = peft.PeftModel.from_pretrained(twin, str(folder), is_trainable=False)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise BenchError(f"{folder}: this adapter does not fit '{backbone.name}' ({reason})") from error
    tuned = model.base_model.model if attached else model.merge_and_unload(safe_merge=True)
    tuned.eval().requires_grad_(False)
    return replace(backbone, source=f"{backbone.source}+{adapter_revision(folder)}", model=tuned)


def adapter_revision(folder: Path) -> str:
    """Hash of an adapter's weights and settings, 16 hexadecimal digits."""
    settings = json.loads((folder / CONFIG).read_text())
    settings.pop("base_model_name_or_path", None)
    return content_hash([file_hash(folder / WEIGHTS), settings])


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Last names of a model's matrix layers, without its output layer."""
    head = model.get_output_embeddings()
    kinds = {"Linear", "Conv1D", "Linear4bit", "Linear8bitLt"}
    return sorted(
        {
            name.rpartition(".")[2]
            for name, layer in model.named_modules()
            if type(layer).__name__ in kinds and layer is not head
        }
    )


def check_layers(name: str, wanted: Sequence[str], option: str, store: ArtifactStore | None = None) -> None:
    """Refuse names of layers that a model lacks, by its files' headers: no weights are read.

    Parameters
    ----------
    name : str
        As for :func:`~recllm_bench.language.backbone_files.find_backbone`; empty for a miniature yet to be made.
    wanted : sequence of str
        Last names of layers, or :data:`ALL_LINEAR`.
    option : str
        Where they were given, for the message.

    Raises
    ------
    BenchError
        With the names that there are.
    """
    if tuple(wanted) in ((ALL_LINEAR,), ("all",)):
        return
    paths = [f"layers.{layer}" for layer in LAYERS]
    if name:
        tensors = find_backbone(name, store).tensors
        paths = [tensor.removesuffix(".weight") for tensor, (shape, _) in tensors.items() if is_matrix(tensor, shape)]
    unknown = [each for each in wanted if not any(f".{path}".endswith(f".{each}") for path in paths)]
    if unknown:
        known = ", ".join(sorted({path.rpartition(".")[2] for path in paths}))
        raise BenchError(
            f"{option}: language model '{name or 'miniature'}' has no layers {', '.join(unknown)}; it has {known} (or"
            f" {ALL_LINEAR})"
        )


def _changed_layers(folder: Path) -> set[str]:
    from safetensors import safe_open

    with safe_open(str(folder / WEIGHTS), "pt") as file:
        names = [re.fullmatch(r"base_model\.model\.(.+)\.lora_[AB](\.\w+)?\.weight", key) for key in file.keys()]  # noqa: SIM118
    return {found[1] for found in names if found}


def _twin(model: PreTrainedModel, own: set[str]) -> PreTrainedModel:
    """A copy of a model that shares all weights but those of the layers named."""
    shared: dict[int, Any] = {}
    for name, module in model.named_modules():
        if name in own:
            continue
        for value in module._parameters.values():
            if value is not None:
                shared[id(value)] = value
        state = getattr(module, "state", None)  # the quantised matrix of bitsandbytes' 8-bit layer
        if type(state).__name__ == "MatmulLtState":
            shared[id(state)] = state
    return copy.deepcopy(model, shared)


def _cuda(backbone: Backbone) -> list[int]:
    return [backbone.device.index or 0] if backbone.device.type == "cuda" else []


def _peft() -> Any:
    try:
        with quiet_transformers():
            import peft
    except ImportError as error:
        raise BenchError("tuning a language model needs peft; install it: pip install 'peft>=0.12'") from error
    return peft
