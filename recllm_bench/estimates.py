"""About how long the rows of a table will take, from runs that were recorded: said before the first one trains.

The rule: of the earlier records of the same model on the same kind of device, the one whose number of interactions is
nearest; its seconds for each stage times the ratio of interactions, and for a stage that has epochs times the ratio of
epochs too. Where no record says anything, the time is unknown.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from recllm_bench.errors import BenchError
from recllm_bench.locations import resource, results_folder
from recllm_bench.recipe import family
from recllm_bench.reporting.records import RunRecord, find_records, read_record

MOST_SECONDS = 0.6
"""Time that looking for earlier records may take; what was not read by then is not known."""


@dataclass(frozen=True)
class Estimate:
    """What one row is expected to take.

    Attributes
    ----------
    name : str
        Of the row.
    seconds : float or None
        0 for a row whose record exists; None when unknown.
    cached : bool
        Whether its record exists.
    """

    name: str
    seconds: float | None
    cached: bool = False

    def __str__(self) -> str:
        if self.cached:
            return f"{self.name}, cached"
        return f"{self.name}, time unknown" if self.seconds is None else f"{self.name}, about {duration(self.seconds)}"


def duration(seconds: float) -> str:
    """Seconds as people say them: ``40 s``, ``3 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def plan_line(rows: Sequence[Estimate]) -> str:
    """One line: how many rows, how many are cached, how long the others take, and of which that is unknown."""
    open_rows = [row for row in rows if not row.cached]
    known = [row.seconds for row in open_rows if row.seconds is not None]
    parts = [f"{len(rows)} row{'s' * (len(rows) != 1)}"]
    if len(open_rows) < len(rows):
        parts.append(f"{len(rows) - len(open_rows)} cached")
    if known:
        parts.append(f"about {duration(sum(known))}, scaled from earlier runs by interactions and epochs")
    unknown = [row.name for row in open_rows if row.seconds is None]
    if unknown:
        some = ", ".join(unknown[:4]) + (f" and {len(unknown) - 4} more" if len(unknown) > 4 else "")
        parts.append(f"time unknown (no earlier run to scale): {some}")
    return "; ".join(parts)


class Earlier:
    """Records of earlier runs: those of the results folder, newest first, then those that ship with the project.

    Parameters
    ----------
    models : collection of str
        Which models are asked about.
    """

    def __init__(self, models: Collection[str]) -> None:
        stop = time.monotonic() + MOST_SECONDS
        starts = tuple(f"{family(model)}-" for model in models)
        self._records: list[RunRecord] = []
        for folder in _folders():
            if time.monotonic() > stop:
                break
            if not folder.name.startswith(starts):
                continue
            try:
                self._records.append(read_record(folder))
            except BenchError:
                continue  # named where tables are made; here it is as if it were not there

    def seconds(
        self, model: str, device: str, interactions: int, epochs: int, stages: Collection[str], quick: int = 0
    ) -> float | None:
        """About how long some stages and the evaluation of a model take.

        Parameters
        ----------
        model, device : str
            Which model, and ``cpu`` or ``cuda``.
        interactions : int
            Of the dataset.
        epochs : int
            Most passes over the data.
        stages : collection of str
            Stages that are still to be made.
        quick : int
            The recipe's; records with a limit like it are preferred.

        Returns
        -------
        float or None
            Seconds; None when there is no record to scale.
        """
        best: tuple[tuple[bool, float], float] | None = None
        for record in self._records:
            then = record.dataset.get("interactions") or 0
            kind = str(record.hardware.get("device", "")).partition(":")[0]
            if record.recipe["model"] != model or kind != device or not then or not set(stages) <= set(record.stages):
                continue
            order = (bool(record.recipe.get("quick")) != bool(quick), abs(math.log(max(1, interactions) / then)))
            if best is None or order < best[0]:
                work = sum(record.stages[name] * _epoch_ratio(record, name, epochs) for name in stages)
                best = order, interactions / then * (work + record.evaluation_seconds + record.answer_seconds)
        return None if best is None else best[1]


def _epoch_ratio(record: RunRecord, stage: str, epochs: int) -> float:
    """How many times the earlier stage's epochs are expected: what stopped by itself then will again."""
    curve = record.curves.get(stage)
    if not curve:
        return 1.0
    made = max(1.0, *(point[0] for point in curve))
    planned = (record.recipe.get("training") or {}).get("epochs")
    limited = record.recipe.get("quick") or (planned is not None and made >= planned)
    return (epochs if limited else min(made, epochs)) / made


def _folders() -> Iterator[Path]:
    yield from reversed(find_records(results_folder() / "runs"))
    try:
        yield from find_records(resource("results", "reference"))
    except BenchError:  # an installed copy has none
        return
