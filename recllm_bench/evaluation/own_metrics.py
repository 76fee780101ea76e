"""Somebody's own metric: tried before it is trusted, and handed the facts that it declared."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.api.metric import FACTS
from recllm_bench.api.modules import place_of, source_hash
from recllm_bench.errors import BenchError, nearest
from recllm_bench.evaluation.places import UNRANKED
from recllm_bench.evaluation.targets import Targets

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue
    from recllm_bench.data.splits import Split
    from recllm_bench.evaluation.places import Ranks

Facts = Mapping[str, Callable[[], Any]]
"""Facts by name, each made when it is asked for."""

_tried: dict[Any, tuple[bool, bool, tuple[str, ...]]] = {}  # function: what it declared when it was tried


@dataclass(frozen=True)
class Metric:
    """A metric and what it declares.

    Attributes
    ----------
    name : str
        As asked for.
    compute : callable
        ``compute(targets, k) -> float64 [n_rankings]``.
    uncut, cutoffs : bool
        Whether it exists for the whole ranking (``k=None``), and cut at a K.
    needs : tuple of str
        Names of :data:`recllm_bench.api.metric.FACTS`.
    """

    name: str
    compute: Callable[[Any, Any], np.ndarray]
    uncut: bool = False
    cutoffs: bool = True
    needs: tuple[str, ...] = ()


def own_metric(name: str, compute: Any) -> Metric:
    """Read what a function declares and try it on four invented targets.

    Raises
    ------
    BenchError
        When it is no function of targets and a cut-off, declares what is unknown, fails, or returns anything but one
        finite number for each ranking.
    """
    if not callable(compute) or isinstance(compute, type):
        raise BenchError(f"metric '{name}': a function metric(targets, k) is needed, got {type(compute).__name__}")
    try:
        inspect.signature(compute).bind(None, None)
    except (TypeError, ValueError) as error:
        raise BenchError(f"metric '{name}': it is called as metric(targets, k), but {error}") from error
    needs = getattr(compute, "needs", ())
    if isinstance(needs, str) or not isinstance(needs, (tuple, list, set, frozenset)):
        raise BenchError(f"metric '{name}': needs must be a tuple of names such as ('popularity',), got {needs!r}")
    for fact in needs:
        if fact not in FACTS:
            raise BenchError(f"metric '{name}': it needs '{fact}', which is no fact.{nearest(str(fact), FACTS)}")
    cutoffs = bool(getattr(compute, "cutoffs", True))
    metric = Metric(name, compute, bool(getattr(compute, "uncut", False)) or not cutoffs, cutoffs, tuple(needs))
    declared = (metric.uncut, metric.cutoffs, metric.needs)
    if _tried.get(compute) != declared:
        for k in (*((1, 5) if metric.cutoffs else ()), *((None,) if metric.uncut else ())):
            computed(metric, _invented_targets(), k, _INVENTED)
        _tried[compute] = declared
    return metric


def computed(metric: Metric, targets: Targets, k: int | None, facts: Facts) -> np.ndarray:
    """Values of every ranking, float64 [n_rankings].

    Raises
    ------
    BenchError
        When a fact is not at hand, the function fails (with file and line), or its values have another shape or are
        not finite.
    """
    if metric.needs:
        missing = [fact for fact in metric.needs if fact not in facts]
        if missing:
            raise BenchError(f"metric '{metric.name}' needs {', '.join(missing)}, which is not at hand here")
        targets = changed(targets, facts={fact: facts[fact]() for fact in metric.needs})
    try:
        found = np.asarray(metric.compute(targets, k))
    except BenchError:
        raise
    except Exception as error:
        source = inspect.getsourcefile(metric.compute) if inspect.isfunction(metric.compute) else None
        place = place_of(error, Path(source) if source else None)
        raise BenchError(f"metric '{metric.name}' fails at k={k}: {place}") from error
    if found.shape != (targets.n_rankings,):
        wanted = f"one value for each of {targets.n_rankings} rankings"
        raise BenchError(f"metric '{metric.name}' at k={k}: expected {wanted}, got shape {found.shape}")
    if found.dtype.kind not in "biuf" or not np.isfinite(found).all():
        bad = f"values of type {found.dtype}" if found.dtype.kind not in "biuf" else "a value that is not finite"
        raise BenchError(f"metric '{metric.name}' at k={k}: expected finite numbers, got {bad}")
    return found.astype(np.float64, copy=False)


def code_hash(compute: Callable) -> str:
    """Hash of the source file that a function comes from; empty where it has none."""
    module = sys.modules.get(getattr(inspect.unwrap(compute), "__module__", None) or "")
    return source_hash(module) if module is not None else ""


def case_facts(ranks: Ranks) -> dict[str, Callable[[], Any]]:
    """Facts that ranks hold themselves; a shared record has no target ids (all 0), so it has no ``items``."""
    facts: dict[str, Callable[[], Any]] = {"candidates": lambda: np.asarray(ranks.candidates, dtype=np.int64)}
    if (np.asarray(ranks.targets) > 0).any():
        facts["items"] = lambda: np.asarray(ranks.targets, dtype=np.int64)
    return facts


def data_facts(split: Split, catalogue: Catalogue | None = None) -> dict[str, Callable[[], Any]]:
    """Facts of the data that was split: ``popularity`` and, with a catalogue, ``titles``."""
    facts: dict[str, Callable[[], Any]] = {"popularity": lambda: training_popularity(split)}
    if catalogue is not None:
        facts["titles"] = lambda: list(catalogue.titles)
    return facts


def training_popularity(split: Split) -> np.ndarray:
    """Training interactions of each item, int64 [n_items + 1]."""
    histories = split.histories
    # +1 at each start and -1 at each end of a training prefix: the running sum marks what is inside one.
    steps = np.zeros(len(histories.items) + 1, dtype=np.int64)
    np.add.at(steps, histories.offsets[:-1], 1)
    np.add.at(steps, np.asarray(split.train_ends), -1)
    inside = np.cumsum(steps[:-1]) > 0
    return np.bincount(histories.items[inside], minlength=histories.n_items + 1)


def _invented_targets() -> Targets:
    """Three rankings of ten candidates: a hit, a hit and a tie, a target without a score."""
    return Targets(
        higher=np.array([0, 2, 6, UNRANKED]),
        tied=np.array([1, 1, 2, 1]),
        owner=np.array([0, 1, 1, 2]),
        relevant=np.array([1, 2, 1]),
        ranked=np.array([True, True, True, False]),
    )


_INVENTED: Facts = {
    "items": lambda: np.array([1, 2, 3, 4]),
    "candidates": lambda: np.full(4, 10),
    "popularity": lambda: np.arange(11),
    "titles": lambda: ["", *(f"Title {item}" for item in range(1, 11))],
}
