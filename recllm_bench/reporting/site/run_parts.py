"""A run's own part of the page: what it measured, what it was made with, and the command that repeats it."""

from __future__ import annotations

import json
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recllm_bench.reporting.costs import duration
from recllm_bench.reporting.record import RunRecord
from recllm_bench.reporting.site.leaderboards import COSTS, kind_of, run_id, table_id
from recllm_bench.reporting.table import measures_grid, row_notes

_ELSEWHERE = (
    "name",
    "metrics",
    "curves",
    "losses",
    "notes",
    "measures",
    "recipe",
    "dialogue",
)  # or too long


@dataclass(frozen=True)
class Run:
    """A row as its own part of the page.

    Attributes
    ----------
    key, table : str
        Links.
    record : RunRecord
        The row; with several seeds, what holds for all.
    kind : str
        ``method``, ``control`` or ``ceiling``.
    metrics : list of (str, dict)
        Name and mean with interval, of ranking and dialogues.
    facts : list of (str, str)
        Costs, what lies beyond accuracy, and the method's own measures.
    notes : list of str
        What must be said beside the numbers.
    commands : list of (str, str)
        For each seed its name and the command that repeats it.
    recipe, manifest : str
        As text.
    """

    key: str
    table: str
    record: RunRecord
    kind: str
    metrics: list[tuple[str, dict[str, Any]]]
    facts: list[tuple[str, str]]
    notes: list[str]
    commands: list[tuple[str, str]]
    recipe: str
    manifest: str


def run_of(record: RunRecord) -> Run:
    """Gather what the page says of a row."""
    measured = {**record.metrics, **{name: facts for name, facts in record.dialogue.items() if _is_interval(facts)}}
    facts = [(name, written(value)) for name, (amount, written) in COSTS.items() if (value := amount(record))]
    facts += [(f"stage {name}", duration(seconds)) for name, seconds in record.stages.items()]
    facts += [(name, f"{value:.4f}") for name, value in record.beyond.items()]
    facts += [(label, text) for label, text in measures_grid([record])[1:]]
    facts += [(f"tokens {name}", f"{count:,.0f}") for name, count in record.tokens.items()]
    runs = record.members or [record]
    return Run(
        key=run_id(record),
        table=table_id(record),
        record=record,
        kind=kind_of(record),
        metrics=list(measured.items()),
        facts=facts,
        notes=row_notes(record),
        commands=[(f"seed {run.recipe.get('seed')}", repeating(run)) for run in runs],
        recipe=_recipe_text(record),
        manifest="\n".join(_manifest(run) for run in runs),
    )


def repeating(record: RunRecord) -> str:
    """The command that repeats a run: its own recipe, and no rows beside it."""
    folder = Path("RECORD") if record.folder is None else record.folder
    with suppress(ValueError, OSError):  # outside the current folder: whole
        folder = folder.resolve().relative_to(Path.cwd())
    return f"recllm-bench run --alone --recipe {shlex.quote(str(folder / 'recipe.yaml'))}"


def _recipe_text(record: RunRecord) -> str:
    import yaml

    recipe = dict(record.recipe)
    if record.members:
        recipe = {"seeds" if name == "seed" else name: value for name, value in recipe.items()}
    plain = json.loads(json.dumps(recipe, default=str))
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


def _manifest(record: RunRecord) -> str:
    values = {name: value for name, value in record.as_dict().items() if name not in _ELSEWHERE and value}
    return json.dumps(values, indent=1, ensure_ascii=False, default=str)


def _is_interval(facts: Any) -> bool:
    return isinstance(facts, dict) and "mean" in facts and "low" in facts
