"""Constrained writing of lists: every list holds titles of the catalogue only, all rows in lock-step."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from recllm_bench.errors import BenchError
from recllm_bench.language.backbone import Backbone
from recllm_bench.language.titles.counters import COUNTERS, Written, fresh_counters
from recllm_bench.language.titles.lists import MODES, ListLayout
from recllm_bench.language.titles.lockstep import Writer
from recllm_bench.language.titles.walking import Walk
from recllm_bench.progress import log, track

__all__ = ["COUNTERS", "Written", "write_lists"]

_LINE = 9  # tokens of a line, roughly
_NUMBERS_AT_ONCE, _LEAST_AT_ONCE = 1 << 21, 4096  # on a CPU: tokens times width, tokens


def write_lists(
    backbone: Backbone,
    layout: ListLayout,
    prompts: Sequence[Sequence[int]],
    before: Sequence[Sequence[int]],
    *,
    mode: str = "edits",
    speculate: bool = True,
    most_edits: int | None = None,
    forbid: Sequence[Iterable[int]] | None = None,
    popularity: np.ndarray | None = None,
    batch_size: int = 64,
    score: Callable[[torch.Tensor], torch.Tensor] | None = None,
    label: str = "",
) -> Written:
    """Rewrite lists of items, greedily, so that every line is a title of the catalogue.

    A title that is new to a list is none that the list had before, none that was written in it already and none that
    is forbidden; any item may stay at its own place. So no list has a title twice that did not have it twice before,
    and an end can always be reached.

    Parameters
    ----------
    layout : ListLayout
        Made with its tokenizer.
    prompts : sequence of sequence of int
        Token ids up to where the answer begins.
    before : sequence of sequence of int
        The lists as they are, item ids; 0 is a masked place, to be filled or left empty.
    mode : {"edits", "sequence"}
        What the model writes (see :data:`~recllm_bench.language.titles.lists.MODES`).
    speculate : bool
        In ``sequence``, verify the lines that stay in one pass instead of writing them; the lists are the same.
    most_edits : int, optional
        Most lines of a list that may change.
    forbid : sequence of iterable of int, optional
        For each list, items whose titles may not be written anew.
    popularity : array [n_items + 1], optional
        Of items that share a title, the one with the highest is meant, then the one with the smallest id; an item that
        stays at its place stays the one it is.
    batch_size : int
        Most lists at a time; halved when a device runs out of memory. A CPU is faster with fewer, and takes fewer.
    score : callable, optional
        states [D, width] -> scores [D, V], instead of the language model's own head.
    label : str
        What the progress bar says.

    Returns
    -------
    Written
        In the order of the prompts.

    Raises
    ------
    BenchError
        For a parameter out of its range, an id that is no item, a prompt that leaves no room for an answer, scores
        that are not numbers.
    """
    start = time.perf_counter()
    _check(layout, backbone, prompts, before, mode, most_edits, batch_size, forbid, popularity)
    lines = max((len(row) for row in before), default=0)
    walk = Walk(layout, max(lines, 1), mode, backbone.device, popularity)
    lists = [[int(item) for item in row] for row in before]
    counters = Counter(fresh_counters())
    tokens = Counter(dict.fromkeys(("prompt", "generated", "verified", "passes"), 0))
    lengths = [
        len(prompt) + (_LINE * len(items) if mode == "sequence" else 0)
        for prompt, items in zip(prompts, before, strict=True)
    ]
    waiting = sorted(range(len(prompts)), key=lambda row: -lengths[row])  # the largest batch first
    most_tokens = max(_LEAST_AT_ONCE, _NUMBERS_AT_ONCE // backbone.width) if backbone.device.type == "cpu" else 1 << 60

    def fitting(rows: list[int]) -> int:
        """Lists that are worth reading at once: states that leave a processor's cache are read slowly."""
        return max(1, most_tokens // max(1, lengths[rows[0]]))

    with torch.no_grad(), track(label=label or f"lists by {backbone.name}", total=len(prompts), unit="list") as bar:
        while waiting:
            rows = waiting[: min(batch_size, fitting(waiting))]
            writer = Writer(
                walk,
                backbone,
                [prompts[row] for row in rows],
                [before[row] for row in rows],
                [() if forbid is None else forbid[row] for row in rows],
                most_edits=lines if most_edits is None else most_edits,
                speculate=speculate and mode == "sequence",
                score=score or backbone.logits,
            )
            try:
                written = writer.run()
            except torch.cuda.OutOfMemoryError:
                if batch_size == 1:
                    raise BenchError(
                        f"{backbone.device} has no room for one list with {backbone.name}; shorten the prompts or try"
                        " llm_precision=4bit"
                    ) from None
                batch_size = max(1, len(rows) // 2)
                log.info(f"lists by {backbone.name}: out of memory; {batch_size} at a time from here on")
                del writer
                torch.cuda.empty_cache()
                continue
            for row, items in zip(rows, written, strict=True):
                lists[row] = items
            counters.update(writer.counters())
            tokens.update(writer.tokens())
            waiting = waiting[len(rows) :]
            bar.update(len(rows))
    return Written(lists, dict(counters), dict(tokens), time.perf_counter() - start)


def _check(layout, backbone, prompts, before, mode, most_edits, batch_size, forbid, popularity) -> None:
    if mode not in MODES:
        raise BenchError(f"lists cannot be written in mode '{mode}'; use {' or '.join(MODES)}")
    if batch_size < 1 or (most_edits is not None and most_edits < 0):
        raise BenchError(f"writing with batch_size={batch_size}, most_edits={most_edits}: at least 1, at least 0")
    if len(prompts) != len(before) or (forbid is not None and len(forbid) != len(before)):
        counts = f"{len(prompts)} prompts, {len(before)} lists" + (f", {len(forbid)} forbidden" if forbid else "")
        raise BenchError(f"writing takes as many prompts as lists: {counts}")
    for name, rows in (("list", before), ("forbidden row", forbid or ())):
        for number, row in enumerate(rows):
            wrong = [item for item in row if not 0 <= item <= layout.trie.n_items]
            if wrong:
                raise BenchError(f"{name} {number} holds item {wrong[0]}; there are 1 to {layout.trie.n_items}")
    if popularity is not None and len(popularity) != layout.trie.n_items + 1:
        raise BenchError(f"popularity of {len(popularity)} ids; the catalogue has {layout.trie.n_items} items and 0")
    if int(layout.trie.paths.path_token.max()) >= backbone.vocabulary:
        raise BenchError(f"the titles were tokenised with more tokens than {backbone.name} has; use its own tokenizer")
    room = backbone.context - layout.reserve
    for number, prompt in enumerate(prompts):
        if not 0 < len(prompt) <= room:
            raise BenchError(
                f"prompt {number} has {len(prompt)} tokens; {backbone.name} takes 1 to {room} and a line of the answer"
            )
