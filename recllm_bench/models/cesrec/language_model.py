"""The language model of item vectors and constructor: named, or a miniature that knows the titles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.artifacts import content_hash
from recllm_bench.errors import BenchError

if TYPE_CHECKING:
    from recllm_bench.language.backbone import Backbone
    from recllm_bench.models.cesrec.options import CESRecOptions
    from recllm_bench.training.stages import Job

_SAID_OF_EACH = 6  # sentences about an item in a miniature's text
_LISTED = 12  # titles of a list
_FACTS = 2
_loaded: dict[tuple, Any] = {}


def llm_key(job: Job, options: CESRecOptions) -> dict[str, Any]:
    """What the language model is, for the keys of what is made with it; reads no weights."""
    from recllm_bench.language.backbone import backbone_key
    from recllm_bench.language.miniature import miniature_key

    name = _name(job, options)
    own = backbone_key(name, job.store) if name else miniature_key(_text_key(job), job.recipe.seed)
    return {**own, "precision": options.llm_precision}


def language_model(job: Job, options: CESRecOptions) -> Backbone:
    """The language model, frozen; the last one stays loaded between stages and cells."""
    from recllm_bench.language.backbone import load_backbone

    key = (content_hash(llm_key(job, options)), str(job.device))
    if key not in _loaded:
        forget()  # one at a time: a large one fills a device
        name = _name(job, options) or str(_miniature(job))
        _loaded[key] = load_backbone(
            name, precision=options.llm_precision, device=job.device, store=job.store, stands_for="Llama-3-8B"
        )
    return _loaded[key]


def tuned_model(job: Job, options: CESRecOptions, folder: Path) -> Backbone:
    """The language model with a constructor's adapter; the last one stays loaded beside the plain model."""
    from recllm_bench.language.adapters import with_adapter

    plain = language_model(job, options)
    key = ("tuned", content_hash(llm_key(job, options)), str(job.device), str(folder))
    if key not in _loaded:
        for known in [known for known in _loaded if known[0] == "tuned"]:
            del _loaded[known]
        _loaded[key] = with_adapter(plain, folder)
    return _loaded[key]


def _name(job: Job, options: CESRecOptions) -> str:
    """The language model's name; empty for a miniature."""
    from recllm_bench.language.backbone import default_llm

    return options.llm or default_llm(job.device)


def forget() -> None:
    """Drop the loaded models."""
    _loaded.clear()


def _miniature(job: Job) -> Path:
    from recllm_bench.language.miniature import miniature_llm

    return miniature_llm(lambda: _texts(job), job.store, _text_key(job), seed=job.recipe.seed)


def _texts(job: Job) -> Iterator[str]:
    """What a miniature learns from: item texts, lists of titles in training order, and sentences about an item followed
    by its title. No validation or test interaction is read.
    """
    if job.feedback is None:
        raise BenchError("cesrec: nobody speaks here; run it on the bench")
    catalogue, histories = job.dataset.catalogue, job.split.histories
    titles = catalogue.titles
    yield from (text for text in catalogue.texts() if text)
    ends = np.asarray(job.split.train_ends)
    for start, end in zip(histories.offsets[:-1].tolist(), ends.tolist(), strict=True):
        for first in range(start, end, _LISTED):
            listed = [titles[item] for item in histories.items[first : min(first + _LISTED, end)].tolist()]
            yield " ".join(f"{number}. {title}" for number, title in enumerate(listed, 1) if title)
    rng = np.random.default_rng([job.recipe.seed, 0x7E])
    wanted = np.repeat(np.flatnonzero([bool(title) for title in titles]), _SAID_OF_EACH)
    shown = rng.integers(1, histories.n_items + 1, len(wanted))
    turns = np.tile(np.arange(_SAID_OF_EACH), len(wanted) // _SAID_OF_EACH)
    said = job.feedback("rules", _FACTS).say(np.arange(len(wanted)), shown, wanted, turns)
    for text, item in zip(said, wanted.tolist(), strict=True):
        yield f"{text} {titles[item]}"


def _text_key(job: Job) -> dict[str, Any]:
    shape = {"said": _SAID_OF_EACH, "listed": _LISTED, "facts": _FACTS, "version": 1}
    return {"data": job.dataset.checksum, "split": job.split.checksum, "texts": "cesrec", **shape}
