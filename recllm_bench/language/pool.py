"""The loaded language models: one plain model and its tuned copy at a time, whoever asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from recllm_bench.artifacts import ArtifactStore

if TYPE_CHECKING:
    from recllm_bench.language.backbone import Backbone

_plain: dict[tuple[str, str, str], tuple[Backbone, str, str]] = {}  # with name and what it was loaded to stand for
_tuned: dict[tuple[int, str], Backbone] = {}


def pooled(
    name: str | Callable[[], Path],
    content: str,
    *,
    precision: str,
    device: torch.device,
    store: ArtifactStore | None = None,
    stands_for: str = "Llama-2-7b",
) -> Backbone:
    """A frozen language model, loaded once; the last one stays loaded between stages, cells and methods.

    Parameters
    ----------
    name : str or callable
        For :func:`~recllm_bench.language.backbone.load_backbone`, or a function that gives the folder of a miniature,
        called only when nothing is loaded.
    content : str
        Hash of what the model is made of; equal contents, precisions and devices are one model.
    precision, device, store, stands_for
        As for ``load_backbone``. Who asks for a loaded model shares its weights and has its own substitute.

    Returns
    -------
    Backbone
        With ``substitute`` as this caller's published method has it.
    """
    from recllm_bench.language.backbone import load_backbone, substitute_of

    key = (content, precision, str(device))
    if key not in _plain:
        clear()  # before the next is loaded: a large one fills a device
        called = name if isinstance(name, str) else str(name())
        model = load_backbone(called, precision=precision, device=device, store=store, stands_for=stands_for)
        _plain[key] = (model, called, stands_for)
    model, called, meant = _plain[key]
    return model if meant == stands_for else replace(model, substitute=substitute_of(called, stands_for, store))


def pooled_tuned(plain: Backbone, folder: Path) -> Backbone:
    """A model of the pool with the adapter in ``folder``; the last one stays loaded beside the plain model."""
    from recllm_bench.language.adapters import adapter_revision, with_adapter

    key = (id(plain.model), f"{folder}@{adapter_revision(folder)}")
    if key not in _tuned:
        _tuned.clear()
        _tuned[key] = with_adapter(plain, folder)
    return _tuned[key]


def clear() -> None:
    """Drop the loaded models, so that a measure of memory begins at none."""
    _plain.clear()
    _tuned.clear()
