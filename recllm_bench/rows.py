"""The rows of a table: checked before the first one trains, estimated, and run, the model that was asked for first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recllm_bench.api.registry import model_named
from recllm_bench.data.cards import default_store
from recllm_bench.errors import BenchError, NotEnough
from recllm_bench.estimates import Earlier, Estimate, plan_line
from recllm_bench.progress import log
from recllm_bench.recipe import Recipe, recipe_from
from recllm_bench.runner import BenchCell


@dataclasses.dataclass(frozen=True)
class Finished:
    """What became of the cells of a comparison.

    Attributes
    ----------
    folders : list of Path
        Records, in the order of the rows.
    failures : list of (str, str)
        Rows that could not be run, and why.
    refused : str
        Why the model that was asked for could not be run; empty when it was.
    """

    folders: list[Path]
    failures: list[tuple[str, str]]
    refused: str = ""


def run_cells(recipes: Sequence[tuple[str, Recipe]], *, again: bool = False, keep_going: bool = False) -> Finished:
    """Run the cells of a comparison, the last row (the model that was asked for) first.

    Parameters
    ----------
    recipes : sequence of (label, Recipe)
        The rows.
    again : bool
        Evaluate again even where a record exists.
    keep_going : bool
        No row is more than another (a sweep): one that fails, for whatever reason, stops no other.

    Every row is checked before the first one trains. A companion that cannot run is left out with its reason, and so is
    the model itself where the data do not suffice for it.

    Raises
    ------
    BenchError
        When the model that was asked for cannot run for another reason, or no row can.
    """
    store = default_store()
    cells: dict[int, BenchCell] = {}
    finished: dict[int, bool] = {}
    failures: dict[int, tuple[str, BenchError]] = {}
    reasons: dict[str, list[str]] = {}
    order = [*range(len(recipes))] if keep_going else [len(recipes) - 1, *range(len(recipes) - 1)]

    def leave_out(row: int, name: str, error: BenchError) -> None:
        is_asked = row == order[0] and not keep_going
        if is_asked and (len(recipes) == 1 or not isinstance(error, NotEnough)):
            raise error
        failures[row] = name, error
        reasons.setdefault(str(error), []).append(name)
        if len(reasons[str(error)]) == 1:
            log.warning(f"{name} is left out: {error}")

    for row in order:
        label, recipe = recipes[row]
        try:
            cell = BenchCell(recipe, label, store)
            cell.check(again=again)
            finished[row] = not again and (cell.folder / "run.json").exists()
            cells[row] = cell
        except BenchError as error:
            leave_out(row, label or model_named(recipe.model).display_name, error)
    folders: dict[int, Path] = {}
    todo = [row for row in order if row in cells]
    expected = estimates([cells[row] for row in todo], [finished[row] for row in todo])
    if any(not estimate.cached for estimate in expected):
        log.info(plan_line(expected))
    for number, (row, estimate) in enumerate(zip(todo, expected, strict=True), 1):
        cell = cells.pop(row)  # a finished cell holds a model; only its record is needed
        if len(todo) > 1:
            log.info(f"row {number} of {len(todo)}: {estimate}")
        try:
            folders[row] = cell.run(again=again)
        except BenchError as error:
            leave_out(row, cell.name, error)
        except Exception as error:
            if not keep_going:
                raise
            leave_out(row, cell.name, BenchError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"))
    if not folders:
        raise failures[order[0]][1]
    refused = None if keep_going else failures.get(order[0])
    return Finished(
        [folders[row] for row in sorted(folders)],
        [("; ".join(names), reason) for reason, names in reasons.items()],
        f"{refused[0]}: {refused[1]}" if refused else "",
    )


def estimates(cells: Sequence[BenchCell], finished: Sequence[bool]) -> list[Estimate]:
    """What each row is expected to take.

    Parameters
    ----------
    cells : sequence of BenchCell
        In the order in which they run: a stage that an earlier one makes costs the later ones nothing.
    finished : sequence of bool
        Of each, whether its record exists and serves.
    """
    asked = {cell.recipe.model for cell, done in zip(cells, finished, strict=True) if not done}
    earlier = Earlier(asked) if asked else None
    made: set[Path] = set()
    found = []
    for cell, done in zip(cells, finished, strict=True):
        if done or earlier is None:
            found.append(Estimate(cell.name, 0.0, cached=True))
            continue
        stages = {name: path for name, path in cell.products().items() if not (path.exists() or path in made)}
        made |= set(stages.values())
        recipe, interactions = cell.recipe, len(cell.dataset.histories.items)
        seconds = earlier.seconds(
            recipe.model, cell.device.type, interactions, cell.job.training.epochs, stages, recipe.quick
        )
        found.append(Estimate(cell.name, seconds))
    return found


def present_dependencies(record: Any) -> Mapping[str, Any]:
    """What a record would rest on if it were made now."""
    known = {field.name for field in dataclasses.fields(Recipe)}
    values = {key: value for key, value in record.recipe.items() if key in known}
    return BenchCell(recipe_from(values, record.name)).depends()
