"""Leaderboards of the page: the blocks of a comparison as rows of cells that a browser can sort and hide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from recllm_bench.artifacts import content_hash
from recllm_bench.models import WORD_ROWS
from recllm_bench.reporting.comparison import DIALOGUE_METRICS, Comparison
from recllm_bench.reporting.costs import COSTS as COST_GROUPS
from recllm_bench.reporting.published_numbers import flags_of, published_for, published_interval, verdict
from recllm_bench.reporting.record_families import direction, mean_of
from recllm_bench.reporting.records import RunRecord
from recllm_bench.reporting.subject import is_ceiling, is_control
from recllm_bench.reporting.table import MARKS, block_lines, row_notes

MARK_WORDS = {
    "better": "better than the reference",
    "worse": "worse than the reference",
    "equal": "equal within 2 %",
    "open": "not told apart",
}
Amount = Callable[[RunRecord], "float | None"]


def _priceless(value: Callable[..., float | None]) -> Amount:
    return lambda record: value(record, {})  # a page is given no table of prices


COSTS: dict[str, tuple[Amount, Callable[[Any], str]]] = {
    head: (_priceless(value), written) for columns in COST_GROUPS.values() for head, (value, written) in columns.items()
}
"""What a row cost: a number of its record (None: not known) and how it is written."""


@dataclass(frozen=True)
class Column:
    """A column; ``shown`` from the start, or only when somebody asks for it. ``lower`` values are better."""

    label: str
    shown: bool = True
    lower: bool = False


@dataclass(frozen=True)
class Value:
    """A cell: ``sort`` orders it (None last), ``detail`` stands under it."""

    text: str = ""
    sort: float | None = None
    detail: str = ""
    mark: str = ""
    said: str = ""
    best: bool = False


@dataclass
class Row:
    """A row and, where a paper printed it, the printed numbers beneath."""

    name: str
    run: str
    kind: str
    cells: list[Value]
    notes: list[str]
    printed: list[Value] = field(default_factory=list)
    place: str = ""


@dataclass
class Block:
    """Rows that may be compared with each other; ``order`` is the column that they are sorted by."""

    key: str
    order: str
    title: str
    reason: str
    columns: list[Column]
    rows: list[Row]
    lines: list[str]


@dataclass(frozen=True)
class Printed:
    """A printed number beside ours.

    Attributes
    ----------
    row, run, metric, place : str
        Which.
    value, ours : str
        Both numbers, with their intervals.
    gap, word, reason : str
        Relative distance of ours, the verdict, and why it is none.
    flags : list of str
        Doubts about the printed number.
    """

    row: str
    run: str
    metric: str
    place: str
    value: str
    ours: str
    gap: str
    word: str
    reason: str
    flags: list[str]


def run_id(record: RunRecord) -> str:
    """Name of a run in links: a hash, so that no name can break one."""
    place = record.folder.name if record.folder is not None else ""
    return "run-" + content_hash([record.name, record.recipe, record.users_hash, record.pairing, place])[:10]


def table_id(record: RunRecord) -> str:
    """Name of a record's table in links."""
    return "table-" + content_hash([record.dataset.get("name"), record.fingerprint])[:8]


def kind_of(record: RunRecord) -> str:
    """``ceiling``, ``control`` (other words, none, or what words are worth without a method) or ``method``."""
    if is_ceiling(record):
        return "ceiling"
    return "control" if is_control(record) or record.recipe.get("model") in WORD_ROWS else "method"


def leaderboards(comparison: Comparison) -> list[Block]:
    """Every block that has rows, dialogues last."""
    blocks = []
    for key, (title, reason) in comparison.blocks.items():
        if rows := comparison.rows(key):
            names = list(dict.fromkeys(name for row in rows for name in comparison.records[row].metrics))
            names = [*comparison.metrics, *(name for name in names if name not in comparison.metrics)]
            blocks.append(_block(comparison, key, title, reason, rows, names, comparison.metrics))
    for key in comparison.dialogue_blocks:
        if rows := comparison.rows(key):
            first = comparison.records[rows[0]]
            turns, items = first.protocol.get("turns") or 5, first.protocol.get("shown_per_turn") or 5
            reason = f"at most {turns} turns, {items} items each; AT: lower is better"
            reason += f"; users: {first.users}" if first.users else ""
            names = [name for name in DIALOGUE_METRICS if any(name in comparison.records[row].dialogue for row in rows)]
            blocks.append(_block(comparison, key, "Dialogues", reason, rows, names, names))
    return blocks


def printed_numbers(records: Sequence[RunRecord]) -> list[Printed]:
    """Every printed number that some row can be held against."""
    found = []
    for record in records:
        for metric, cell in published_for(record).items():
            facts = record.metrics.get(metric) or record.dialogue.get(metric)
            if not facts:
                continue
            outcome, span = verdict(cell, facts, record.substitutes), published_interval(cell)
            wilson = f" [{span[0]:.4f}, {span[1]:.4f}]" if span else ""
            found.append(
                Printed(
                    row=record.name,
                    run=run_id(record),
                    metric=metric,
                    place=cell.place,
                    value=f"{cell.value:.4f}{wilson}",
                    ours=f"{facts['mean']:.4f} [{facts['low']:.4f}, {facts['high']:.4f}]",
                    gap="" if outcome.gap != outcome.gap else f"{outcome.gap:+.0%}",
                    word=outcome.word,
                    reason=outcome.reason,
                    flags=[flag.issue for flag in flags_of(cell)],
                )
            )
    return found


def _block(
    comparison: Comparison,
    key: str,
    title: str,
    reason: str,
    rows: list[int],
    metrics: Sequence[str],
    shown: Sequence[str],
) -> Block:
    records = [comparison.records[row] for row in rows]
    costs = [name for name, (amount, _) in COSTS.items() if any(amount(record) is not None for record in records)]
    columns = [Column(name, name in shown, direction(name) < 0) for name in metrics]
    columns += [Column(name, name == "training", True) for name in costs]
    made = []
    for row, record in zip(rows, records, strict=True):
        cells = [_metric(comparison, key, row, name) for name in metrics]
        cells += [_cost(record, name) for name in costs]
        entry = Row(record.name, run_id(record), kind_of(record), cells, row_notes(record))
        printed = {name: cell for name, cell in published_for(record).items() if name in metrics}
        if printed:
            entry.place = ", ".join(sorted({cell.place for cell in printed.values()}))
            entry.printed = [_printed(record, name, printed) for name in metrics] + [Value() for _ in costs]
        made.append(entry)
    order = "S@5" if key.startswith("dialogue") else comparison.primary
    return Block(key, order, title, reason, columns, made, block_lines(comparison, key))


def _metric(comparison: Comparison, key: str, row: int, name: str) -> Value:
    record = comparison.records[row]
    facts = record.metrics.get(name) or record.dialogue.get(name)
    if not facts:
        return Value("-")
    word = comparison.marks.get((key, row, name), "")
    return Value(
        f"{facts['mean']:.4f}",
        mean_of(record, name),
        f"[{facts['low']:.4f}, {facts['high']:.4f}]",
        MARKS.get(word, ""),
        MARK_WORDS.get(word, ""),
        comparison.best.get((key, name)) == row,
    )


def _cost(record: RunRecord, name: str) -> Value:
    amount, written = COSTS[name]
    value = amount(record)
    return Value() if value is None else Value(written(value), value)


def _printed(record: RunRecord, name: str, printed: dict) -> Value:
    facts = record.metrics.get(name) or record.dialogue.get(name)
    if name not in printed or not facts:
        return Value()
    outcome = verdict(printed[name], facts, record.substitutes)
    gap = "" if outcome.gap != outcome.gap else f" ({outcome.gap:+.0%})"
    word = "n.c." if outcome.word == "not comparable" else outcome.word
    return Value(f"{printed[name].value:.4f}", None, f"{word}{gap}", said=str(outcome))
