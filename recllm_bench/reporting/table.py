"""The comparison as one table, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from recllm_bench.reporting.comparison import BLOCKS, DIALOGUE_METRICS, Comparison, Pair, compare
from recllm_bench.reporting.page import Cell, Page
from recllm_bench.reporting.published import Verdict, flags_of, published_for, verdict
from recllm_bench.reporting.records import RunRecord

_SIDE_BY_SIDE = 6  # records in one grid of measures
MARKS = {"better": "▲", "worse": "▼", "equal": "≈"}


def comparison_table(
    records: Sequence[RunRecord],
    baseline: str = "best",
    metrics: Sequence[str] | None = None,
    *,
    markdown: bool = False,
    colour: bool = False,
) -> str:
    """Show records against each other and against the published numbers.

    Parameters
    ----------
    records : sequence of RunRecord
        The last one of each dataset and protocol is the subject, held against every other row.
    baseline : str
        ``best``, or the row that significance is relative to.
    metrics : sequence of str, optional
        Columns; by default a readable selection.
    markdown : bool
        Write Markdown instead of aligned text.
    colour : bool
        Mark the best values by an escape sequence (a terminal).

    Returns
    -------
    str
        One table for each dataset and protocol, without a final newline.
    """
    groups: dict[tuple, list[RunRecord]] = {}
    for record in records:
        groups.setdefault((record.dataset.get("name"), record.fingerprint), []).append(record)
    if len(groups) > 1 and baseline != "best":
        groups = {
            key: group for key, group in groups.items() if baseline in [record.name for record in group]
        } or groups
    page = Page(markdown, colour)
    texts = [_one_table(compare(group, baseline, metrics), page) for group in groups.values()]
    if not texts:
        compare([], baseline)  # says that there is nothing to show
    return "\n\n".join(texts)


def describe(records: Sequence[RunRecord]) -> str:
    """One line: dataset, protocol, users, and what the intervals are."""
    record = records[0]
    counts = sorted({int(r.cases["users"]) for r in records if "users" in r.cases})
    users = " / ".join(f"{count:,}" for count in counts)
    about = record.protocol.get("about", "")
    return f"{record.dataset.get('name')} · {record.protocol.get('name')} · {users} users\n{about}".rstrip()


def protocol_warnings(records: Sequence[RunRecord]) -> list[str]:
    """What must be said about all numbers of a table."""
    lines = []
    if str(records[0].protocol.get("candidates", "all")) != "all":
        lines.append("Sampled candidates: not comparable with full ranking, and they can reverse the order of models.")
    tied = [record.name for record in records if record.cases.get("tied_share", 0) > 0.01]
    if tied:
        lines.append(f"More than 1 % of the targets tie with another item: {', '.join(tied)}.")
    repeats = max((int(record.cases.get("repeats", 0)) for record in records), default=0)
    if repeats:
        lines.append(f"{repeats:,} targets were in the user's history already; they stay candidates.")
    return lines


def verdicts(record: RunRecord) -> dict[str, tuple[float, str, Verdict]]:
    """Published value, its place and the verdict, for each metric of a record that the papers print."""
    result = {}
    for name, cell in published_for(record).items():
        ours = record.metrics.get(name) or record.dialogue.get(name)
        if ours:
            result[name] = (cell.value, cell.place, verdict(cell, ours, record.substitutes))
    return result


def row_notes(record: RunRecord) -> list[str]:
    """Footnotes of a row: budgets, substitutes, invalid dialogues, and why published numbers do not compare."""
    notes = list(record.notes)
    if record.substitutes:
        notes.append("stand-ins for the paper's: " + ", ".join(f"{k} {v}" for k, v in record.substitutes.items()))
    if record.dialogue.get("leaks"):
        clean = record.dialogue.get("without_leaks", {})
        without = ", ".join(f"{name} {facts['mean']:.4f}" for name, facts in clean.items())
        ending = f"; without them: {without}" if without else ""
        notes.append(f"{record.dialogue['leaks']} dialogues had a leak of the target's title taken out{ending}")
    if record.dialogue.get("invalid"):
        notes.append(f"{record.dialogue['invalid']} dialogues could not be held and are left out")
    doubts = sorted({flag.issue for cell in published_for(record).values() for flag in flags_of(cell)})
    if doubts:
        more = f" (and {len(doubts) - 1} more, see results/published/consistency_flags.csv)" if doubts[1:] else ""
        notes.append(f"doubtful as printed: {doubts[0]}{more}")
    return notes


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def measure_text(value: float) -> str:
    """A count in full, another number with four digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def measures_grid(records: Sequence[RunRecord]) -> list[list[str]]:
    """What methods measured: a row for each measure, in the order they give, and a column for each record."""
    found = [{measure.label: measure.value for measure in record.measures} for record in records]
    names = list(dict.fromkeys(name for values in found for name in values))
    rows = [[name, *(measure_text(values[name]) if name in values else "" for values in found)] for name in names]
    return [["measure", *(record.name for record in records)], *rows]


def _one_table(comparison: Comparison, page: Page) -> str:
    records = comparison.records
    head, _, about = describe(records).partition("\n")
    parts = [page.title(head)] + ([page.text(about)] if about else [])
    notes: list[str] = []
    for block, (title, reason) in BLOCKS.items():
        rows = comparison.rows(block)
        if rows:
            grid = _grid(comparison, block, rows, comparison.metrics, notes)
            parts += [page.heading(title, reason), page.grid(grid)]
    rows = comparison.rows("dialogue")
    if rows:
        turns = records[rows[0]].protocol.get("turns") or 5
        shown = records[rows[0]].protocol.get("shown_per_turn") or 5
        counts = sorted({int(records[row].dialogue.get("n", 0)) for row in rows})
        reason = (
            f"at most {turns} turns, {shown} items each; {' / '.join(map(str, counts))} dialogues; AT: lower is better"
        )
        grid = _grid(comparison, "dialogue", rows, list(DIALOGUE_METRICS), notes)
        parts += [page.heading("Dialogues", reason), page.grid(grid)]
    measured = [record for record in records if record.measures]
    if measured:
        parts.append(page.heading("Beside the ranking", "what the methods measure themselves"))
        some = (measured[start : start + _SIDE_BY_SIDE] for start in range(0, len(measured), _SIDE_BY_SIDE))
        grids = ([[Cell(text) for text in row] for row in measures_grid(records)] for records in some)
        parts.append("\n\n".join(page.grid(grid) for grid in grids))
    if comparison.differences:
        subject = records[-1].name
        lines = [_difference_line(comparison, row, pair) for row, pair in comparison.differences]
        heading = page.heading(f"{subject} minus the others, {comparison.primary}", "same users, 95 % interval")
        parts += [heading, page.lines(lines)]
    legend = (
        f"± half a 95 % bootstrap interval over users. Against {comparison.reference} (the best against the "
        "runner-up): ▲ better, ≈ no significant difference, ▼ worse (paired bootstrap, 5 %, Holm over the block). "
        "Published: inside our interval, close (within 10 %), off, n.c. (not comparable); in brackets our distance."
    )
    closing = [legend, *protocol_warnings(records)]
    if comparison.unpaired:
        closing.append(f"Not paired, measured on other data or candidates: {', '.join(comparison.unpaired)}.")
    closing += [f"[{number}] {note}" for number, note in enumerate(notes, 1)]
    parts.append(page.lines(closing))
    return "\n".join(part for part in parts if part)


def _grid(
    comparison: Comparison, block: str, rows: list[int], metrics: list[str], notes: list[str]
) -> list[list[Cell]]:
    grid = [[Cell("model"), *(Cell(metric) for metric in metrics), Cell("training")]]
    for row in rows:
        record = comparison.records[row]
        numbers = []
        for note in row_notes(record):
            if note not in notes:
                notes.append(note)
            numbers.append(notes.index(note) + 1)
        name = record.name + "".join(f" [{number}]" for number in sorted(set(numbers)))
        cells = [Cell(name)]
        for metric in metrics:
            facts = record.metrics.get(metric) or record.dialogue.get(metric)
            if not facts:
                cells.append(Cell("-"))
                continue
            mark = MARKS.get(comparison.marks.get((block, row, metric), ""), " ")
            text = f"{facts['mean']:.4f} ±{(facts['high'] - facts['low']) / 2:.4f} {mark}"
            cells.append(Cell(text.rstrip(), comparison.best.get((block, metric)) == row))
        grid.append([*cells, Cell(duration(record.training_seconds))])
        line = _published_line(record, metrics)
        if line:
            grid.append(line)
    return grid


def _published_line(record: RunRecord, metrics: list[str]) -> list[Cell]:
    found = {name: entry for name, entry in verdicts(record).items() if name in metrics}
    if not found:
        return []
    places = sorted({place for _, place, _ in found.values()})
    cells = [Cell(f"  published, {', '.join(places)}")]
    for metric in metrics:
        if metric not in found:
            cells.append(Cell(""))
            continue
        value, _, outcome = found[metric]
        word = "n.c." if outcome.word == "not comparable" else outcome.word
        cells.append(Cell(f"{value:.4f} {word} ({outcome.gap:+.0%})"))
    return [*cells, Cell("")]


def _difference_line(comparison: Comparison, row: int, pair: Pair) -> str:
    other = comparison.records[row]
    relative = ""
    base = other.metrics.get(comparison.primary, {}).get("mean", 0.0)
    if base:
        relative = f", {pair.mean / base:+.1%}"
    block = "" if other.block == comparison.records[-1].block else ", sees other information"
    word = "significant" if pair.significant else "not significant"
    p = "p < 0.001" if pair.adjusted < 0.001 else f"p = {pair.adjusted:.3f}"
    return f"{other.name}: {pair.mean:+.4f} [{pair.low:+.4f}, {pair.high:+.4f}]{relative} ({word}, {p}{block})"
