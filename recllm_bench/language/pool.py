"""Loaded language models, shared by whoever needs the same one: a large one fills a device."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path

import torch

from recllm_bench.artifacts import ArtifactStore
from recllm_bench.language.adapters import with_adapter
from recllm_bench.language.backbone import load_backbone, substitute_for
from recllm_bench.language.backbone_files import find_backbone
from recllm_bench.language.frozen import Backbone

_plain: dict[tuple[str, str, str], Backbone] = {}
_tuned: dict[tuple[int, str], Backbone] = {}


def pooled_backbone(
    name: str,
    *,
    precision: str = "auto",
    device: torch.device | str = "auto",
    store: ArtifactStore | None = None,
    stands_for: str = "Llama-2-7b",
) -> Backbone:
    """A frozen language model; the last one stays loaded, whoever asked for it and by whatever name.

    Parameters and errors are those of :func:`~recllm_bench.language.backbone.load_backbone`.
    """
    files = find_backbone(name, store)
    key = (files.revision, precision, str(device))
    if key not in _plain:
        empty_pool()
        _plain[key] = load_backbone(name, precision=precision, device=device, store=store, stands_for="")
    return dataclasses.replace(_plain[key], name=files.name, substitute=substitute_for(files, stands_for))


def tuned_backbone(plain: Backbone, folder: Path) -> Backbone:
    """A pooled model with an adapter merged into a copy; the last one stays loaded beside the plain one."""
    key = (id(plain.model), str(folder))
    if key not in _tuned:
        _tuned.clear()
        _tuned[key] = with_adapter(plain, folder)
    return _tuned[key]


def empty_pool() -> None:
    """Drop the loaded models, before memory is counted or another one is loaded."""
    _plain.clear()
    _tuned.clear()
    if torch.cuda.is_initialized():
        gc.collect()  # models are circles of references
        torch.cuda.empty_cache()  # what torch keeps for itself counts as taken
