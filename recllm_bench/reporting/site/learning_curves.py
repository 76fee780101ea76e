"""Learning curves of run records, a figure for each quantity: a loss never shares an axis with a metric."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from recllm_bench.recipe import flat
from recllm_bench.reporting.figures import Figure
from recllm_bench.reporting.records import RunRecord

_KEPT = re.compile(r"kept epoch (\d+) of (\d+), (\S+) (-?[\d.]+(?:e-?\d+)?),")
_LOSS = re.compile("loss|objective")
Line = tuple[int, int, str, float]


def learning_figures(records: Sequence[RunRecord], everywhere: Sequence[RunRecord]) -> list[Figure]:
    """Validation values by epoch, then training losses.

    A record keeps the values of each stage, and the log of the run that trained the stage names their quantity. A
    stage that came from the cache was logged by another run: its line is found by best epoch, length and value.

    Parameters
    ----------
    records : sequence of RunRecord
        Rows of a table; those that share a trained stage share a line.
    everywhere : sequence of RunRecord
        Records in whose logs names are looked for.
    """
    logged = [line for record in everywhere for line in _logged(record)]
    measured: dict[str, Figure] = {}
    trained: dict[str, Figure] = {}
    for row in records:
        record = row.members[0] if row.members else row
        for stage, points in record.curves.items():
            quantity = quantity_of(points, logged) or _unnamed(record, points)
            better = "minus a loss: higher is better" if quantity.startswith("-") else "higher is better"
            caption = f"{quantity} on validation cases after each epoch ({better})."
            name = f"{row.name}, {stage}" if len(record.curves) > 1 else row.name
            _draw(measured, quantity, caption, name, points)
        for stage, points in record.losses.items():
            quantity = _loss_of(record, stage)
            caption = f"{quantity}: mean of each epoch's steps (lower is better)."
            _draw(trained, quantity, caption, row.name, points)
    return [figures[name] for figures in (measured, trained) for name in sorted(figures)]


def _draw(
    figures: dict[str, Figure], quantity: str, caption: str, name: str, points: Sequence[Sequence[float]]
) -> None:
    """Add a line to the figure of its quantity, unless it is there: rows share trained stages."""
    if len(points) < 2:
        return
    figure = figures.setdefault(quantity, Figure(caption, "epoch", [], quantity=quantity))
    line = {int(epoch): (float(value),) * 3 for epoch, value in points}
    if line in figure.lines.values():
        return
    while name in figure.lines:
        name += " (another run)"
    figure.lines[name] = line


def _loss_of(record: RunRecord, stage: str) -> str:
    """What a training loss is: two models, stages or settings of the loss never share an axis."""
    options = flat({part: record.recipe.get(part) or {} for part in ("options", "training")})
    chosen = [f"{value}" for place, value in options.items() if _LOSS.search(place)]
    name = record.model_name or str(record.recipe.get("model"))
    return ", ".join([f"training loss of {name}", *([stage] if len(record.losses) > 1 else []), *chosen])


def quantity_of(points: Sequence[Sequence[float]], logged: Sequence[Line]) -> str:
    """What a curve's values are, by the log's line about the same training; empty where no line fits."""
    best = max(points, key=lambda point: point[1])
    for kept, epochs, name, value in logged:
        at = next((point for point in points if int(point[0]) == kept), None)
        if at and epochs == int(points[-1][0]) and abs(at[1] - value) < 6e-5 and abs(best[1] - value) < 6e-5:
            return name
    return ""


def _unnamed(record: RunRecord, points: Sequence[Sequence[float]]) -> str:
    """Apart from all that is named, and by model: two unnamed quantities may differ."""
    named = (record.recipe.get("training") or {}).get("validate_metric")
    if named and all(value >= 0 for _, value in points):
        return str(named)
    kind = "-loss" if any(value < 0 for _, value in points) else "metric"
    return f"{kind} of {record.recipe.get('model')} that its log does not name"


def _logged(row: RunRecord) -> Iterator[Line]:
    for record in row.members or [row]:
        path = None if record.folder is None else record.folder / "log.jsonl"
        if path is not None and path.exists():
            yield from _lines_of(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4096)
def _lines_of(path: Path, _written: int) -> tuple[Line, ...]:
    found = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            message = json.loads(text)["message"]
        except (ValueError, KeyError, TypeError):
            continue
        if match := _KEPT.search(str(message)):
            found.append((int(match[1]), int(match[2]), match[3], float(match[4])))
    return tuple(found)
