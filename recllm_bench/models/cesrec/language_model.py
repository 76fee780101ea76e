"""The language model of item vectors and constructor: named, or a miniature that knows the titles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.models.cesrec.prompts import ANSWER, REMARK
from recllm_bench.models.cesrec.published import constructor

if TYPE_CHECKING:
    from recllm_bench.api.method import Job
    from recllm_bench.language.backbone import Backbone
    from recllm_bench.models.cesrec.options import CESRecOptions

_SAID_OF_EACH = 2  # remarks that wish for an item, in a miniature's text
_NAMED_OF_EACH = 10  # wishes for it without a remark around them
_LISTED = 12  # titles of a list
_LISTS = 1000  # lists, drawn at random
_FACTS = 2


def llm_key(job: Job, options: CESRecOptions) -> dict[str, Any]:
    """What the language model is, for the keys of what is made with it; reads no weights."""
    from recllm_bench.language.backbone import backbone_key
    from recllm_bench.language.miniature import miniature_key, require_text

    if options.llm:
        own = backbone_key(options.llm, job.store)
    else:
        require_text(job.dataset)
        own = miniature_key(_text_key(job, options), job.recipe.seed, _miniature_options(options))
    return {**own, "precision": options.llm_precision}


def language_model(job: Job, options: CESRecOptions) -> Backbone:
    """The language model, frozen; it stays loaded between stages and cells."""
    from recllm_bench.language.pool import pooled_backbone

    name = options.llm or str(miniature(job, options))
    _, stands_for = constructor(options.llm)
    return pooled_backbone(
        name, precision=options.llm_precision, device=job.device, store=job.store, stands_for=stands_for
    )


def tuned_model(job: Job, options: CESRecOptions, folder: Path) -> Backbone:
    """The language model with a constructor's adapter; it stays loaded beside the plain model."""
    from recllm_bench.language.pool import tuned_backbone

    return tuned_backbone(language_model(job, options), folder)


def miniature(job: Job, options: CESRecOptions) -> Path:
    """Folder of the stand-in for a language model; pre-trained when it is not there."""
    from recllm_bench.language.miniature import miniature_llm

    return miniature_llm(
        lambda: _texts(job, options),
        job.store,
        _text_key(job, options),
        seed=job.recipe.seed,
        options=_miniature_options(options),
    )


def _miniature_options(options: CESRecOptions) -> Any:
    """Shape and training: narrow and long-trained, with most words of titles as one token.

    On two cores a wider model sees too little text to connect what is wished for with a title: it then writes one
    and the same title for everybody.
    """
    from recllm_bench.language.miniature import MiniatureOptions

    shape = {"vocabulary": 4096, "width": 96, "inner": 256, "layers": 2, "heads": 3}
    return MiniatureOptions(**shape, steps=options.miniature_steps, lines=True)


def _speaker(job: Job, options: CESRecOptions) -> Any:
    """Who speaks in a miniature's text: as the users do, but no chat model."""
    return job.words.feedback(options.feedback if options.feedback == "exact" else "rules", _FACTS)


def _texts(job: Job, options: CESRecOptions) -> Iterator[str]:
    """What a miniature learns from: item texts, lists of titles in training order, and wishes and remarks followed by
    the title of an item that has what is wished for, all in the layout of short prompts. No validation or test
    interaction is read.
    """
    catalogue, titles = job.dataset.catalogue, job.dataset.catalogue.titles
    rng = np.random.default_rng([job.recipe.seed, 0x7E])
    yield from (text for text in catalogue.texts() if text)
    yield from _lists(job, rng)
    speaker = _speaker(job, options)
    titled = np.flatnonzero([bool(title) for title in titles])
    for item in titled.tolist():
        yield from (f"{wish}: {titles[item]}" for wish in speaker.wishes(item, _NAMED_OF_EACH, rng))
    wanted = np.repeat(titled, _SAID_OF_EACH)
    shown = rng.integers(1, len(titles), len(wanted))
    turns = np.tile(np.arange(_SAID_OF_EACH), len(titled))
    said = speaker.say(np.arange(len(wanted)), shown, wanted, turns)
    places = rng.integers(1, _LISTED + 1, len(wanted))
    for text, item, place in zip(said, wanted.tolist(), places.tolist(), strict=True):
        yield f"{REMARK['short']} {text}{ANSWER['edits']}{place} -> {titles[item]}\n"


def _lists(job: Job, rng: np.random.Generator) -> Iterator[str]:
    """Numbered titles of consecutive training items."""
    titles, histories = job.dataset.catalogue.titles, job.split.histories
    starts, ends = histories.offsets[:-1], np.asarray(job.split.train_ends)
    counts = -(-(ends - starts) // _LISTED)
    chosen = np.sort(rng.permutation(int(counts.sum()))[:_LISTS])
    users = np.searchsorted(counts.cumsum(), chosen, side="right")
    first = starts[users] + (chosen - (counts.cumsum() - counts)[users]) * _LISTED
    for start, end in zip(first.tolist(), ends[users].tolist(), strict=True):
        listed = [titles[item] for item in histories.items[start : min(start + _LISTED, end)].tolist()]
        yield "\n".join(f"{number}. {title}" for number, title in enumerate(listed, 1) if title)


def _text_key(job: Job, options: CESRecOptions) -> dict[str, Any]:
    shape = {"said": _SAID_OF_EACH, "named": _NAMED_OF_EACH, "listed": _LISTED, "lists": _LISTS, "facts": _FACTS}
    said = {} if options.feedback == "exact" else {"speaker": _speaker(job, options).key()}
    return {"data": job.dataset.checksum, "split": job.split.checksum, "texts": "cesrec", **shape, **said, "version": 4}
