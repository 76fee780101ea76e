"""How long masking and construction take for one user alone (CESRec, Table 7; specification, section 7.5)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from recllm_bench.models.cesrec.round_store import RoundStore
    from recllm_bench.models.cesrec.rounds import Round

_WARM_UP = 2


def measure_latency(store: RoundStore, first: Round) -> dict[str, float]:
    """Time users one at a time: masking with kept vectors and with vectors made anew, and construction.

    The first two warm up; the mean is over those that follow.
    """
    loop, method = store.loop(), store.method
    mask, construct, say = loop.mask, loop.construct, loop.say
    n = min(len(store.cases), store.options.latency_users + _WARM_UP)
    rows = np.random.default_rng(store.job.recipe.seed).choice(len(store.cases), n, replace=False)
    anew = _vectors_anew(store) if method.masks else None
    spent: dict[str, list[float]] = {}

    def timed(name: str, call: Any) -> Any:
        _wait()
        start = time.perf_counter()
        result = call()
        _wait()
        spent.setdefault(name, []).append(time.perf_counter() - start)
        return result

    for row in rows.tolist():
        one = np.array([row])
        lists, flags = first.pseudo.lists(one), None
        shown, target = loop.best(first.pseudo, one), store.cases.targets[one]
        if mask is not None:
            tensors = first.pseudo.tensors(one, loop.backend.device)
            if anew is not None:
                timed("masking, vectors made anew", lambda t=tensors: (anew(t[0]), mask(*t)))
            found = timed("masking", lambda t=tensors: mask(*t))
            size = int(found.lengths[0])
            lists = [found.items[0, :size].tolist()]
            flags = [found.masked[0, :size].tolist()] if loop.keeps_masked else None
        if construct is not None and say is not None:
            said = say(store.cases.users[one], shown, target, 0)
            wanted = target.tolist()
            timed(
                "construction",
                lambda lists=lists, flags=flags, said=said, wanted=wanted: construct(lists, flags, said, wanted),
            )
    return {name: float(np.mean(values[_WARM_UP:] or values)) for name, values in spent.items()}


def _vectors_anew(store: RoundStore) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that makes hybrid vectors of a history's items from their texts, as if nothing were kept."""
    from recllm_bench.models.cesrec.adapter import load_adapter
    from recllm_bench.models.cesrec.item_vectors import StateEncoder, item_texts
    from recllm_bench.models.cesrec.language_model import language_model

    job, options = store.job, store.options
    encoder = StateEncoder(language_model(job, options), options.text_pool)
    width = store.method.hybrid_vectors(store.folders).shape[1]
    adapter = load_adapter(store.folders["adapter"], encoder.width, width, options.adapter_hidden).to(job.device)
    texts = item_texts(job.dataset.catalogue, options.item_text)

    def made(items: torch.Tensor) -> torch.Tensor:
        vectors = encoder.encode([texts[item] for item in items[0].tolist()])
        return adapter(torch.from_numpy(vectors).to(job.device))

    return made


def _wait() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
