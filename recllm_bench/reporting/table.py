"""The comparison as one table: for the terminal, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recllm_bench.errors import BenchError
from recllm_bench.reporting.comparison import DIALOGUE_METRICS, Comparison, Pair, Planned, compare
from recllm_bench.reporting.conclusion import conclusion
from recllm_bench.reporting.costs import ABOUT, COSTS, cost_texts
from recllm_bench.reporting.costs import duration as duration
from recllm_bench.reporting.measures import measures_grid, own_measures
from recllm_bench.reporting.page import LOOK, Cell, Look, Page
from recllm_bench.reporting.published_numbers import Verdict, flags_of, published_for, verdict
from recllm_bench.reporting.record_families import mean_of
from recllm_bench.reporting.records import RunRecord
from recllm_bench.reporting.row_names import told_apart
from recllm_bench.reporting.seeds import over_seeds
from recllm_bench.reporting.subject import has_row, row_named

MARKS = {"better": "▲", "worse": "▼", "equal": "=", "open": "≈"}
_VERDICTS = {"inside": "better", "close": "open", "off": "worse"}  # and their colours


def compared(
    records: Sequence[RunRecord],
    baseline: str = "best",
    metrics: Sequence[str] | None = None,
    *,
    subject: str = "",
    test: str = "max-t",
    failures: Sequence[tuple[str, str]] = (),
) -> list[Comparison]:
    """Hold records against each other: one comparison for each dataset and protocol.

    Parameters
    ----------
    records : sequence of RunRecord
        In any order.
    baseline, metrics, subject, test, failures
        As in :func:`.compare`; a name that only some of the tables have concerns those alone.
    """
    tables = grouped(records)
    for name in filter(None, (baseline if baseline != "best" else "", subject)):
        tables = [group for group in tables if has_row(told_apart(over_seeds(group)), name)] or tables
    found = []
    for number, group in enumerate(tables or [[]], 1):  # without records, compare says that there is nothing to show
        lost = failures if number == len(tables) else ()
        found.append(compare(group, baseline, metrics, subject=subject, test=test, failures=lost))
    return found


def grouped(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Records by dataset and protocol, in the order of their first ones."""
    groups: dict[tuple, list[RunRecord]] = {}
    for record in records:
        groups.setdefault((record.dataset.get("name"), record.fingerprint), []).append(record)
    return list(groups.values())


def tables_with(records: Sequence[RunRecord], names: Sequence[str]) -> list[RunRecord]:
    """The rows of these names (:func:`.row_named`), in the one table that has them all.

    Raises
    ------
    BenchError
        When no table has them, or several do.
    """
    tables = [told_apart(over_seeds(group)) for group in grouped(records)]
    found = [rows for rows in tables if all(has_row(rows, name) for name in names)]
    if len(found) == 1:
        return [found[0][row_named(found[0], name)] for name in names]
    if found:
        places = "; ".join(describe(rows).partition("\n")[0] for rows in found)
        raise BenchError(
            f"several tables have rows of these names ({places}); say --dataset, --protocol, or name folders"
        )
    for name in names:
        row_named([row for rows in tables for row in rows], name)  # a name that none has is told
    raise BenchError(f"no table has both {' and '.join(names)}: they are of other datasets or protocols")


def comparison_table(records: Sequence[RunRecord], *arguments: Any, look: Look = LOOK, **choices: Any) -> str:
    """Show records against each other and against the published numbers, without a final newline.

    Parameters
    ----------
    records : sequence of RunRecord
        In any order.
    *arguments, **choices
        As :func:`compared` takes them.
    look : Look
        Format (text, Markdown or LaTeX), width, colour, columns.
    """
    page = Page(look)
    return "\n\n".join(shown(comparison, page) for comparison in compared(records, *arguments, **choices))


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


def shown(comparison: Comparison, page: Page) -> str:
    """A comparison as text or Markdown."""
    records = comparison.records
    head, _, about = describe(records).partition("\n")
    parts = [page.title(head)] + ([page.text(about)] if about else [])
    if comparison.planned:
        lines = [planned_line(comparison, planned) for planned in comparison.planned]
        parts += [page.heading(*planned_heading(comparison)), page.lines(lines)]
    notes: list[str] = []
    for block, (title, reason) in comparison.blocks.items():
        rows = comparison.rows(block)
        if rows:
            grid = _grid(comparison, block, rows, comparison.metrics, notes, page)
            parts += [page.heading(title, reason), grid, page.lines(block_lines(comparison, block))]
    for block in comparison.dialogue_blocks:
        rows = comparison.rows(block)
        if not rows:
            continue
        turns = records[rows[0]].protocol.get("turns") or 5
        items = records[rows[0]].protocol.get("shown_per_turn") or 5
        counts = sorted({int(records[row].dialogue.get("n", 0)) for row in rows})
        reason = (
            f"at most {turns} turns, {items} items each; {' / '.join(map(str, counts))} dialogues; AT: lower is better"
            + (f"; users: {records[rows[0]].users}" if records[rows[0]].users else "")
        )
        grid = _grid(comparison, block, rows, list(DIALOGUE_METRICS), notes, page)
        parts += [page.heading("Dialogues", reason), grid, page.lines(block_lines(comparison, block))]
    parts += measured_parts(comparison, page)
    closing = ["± the longer side of a 95 % interval. " + legend(comparison), *closing_lines(comparison)]
    closing += [f"{ABOUT[name]}." for name in page.look.costs if name in ABOUT]
    closing += [f"[{number}] {note}" for number, note in enumerate(notes, 1)]
    closing += [f"Not run: {name}: {reason}" for name, reason in comparison.failures]
    parts.append(page.lines(closing))
    return "\n".join(part for part in parts if part)


def measured_parts(comparison: Comparison, page: Page) -> list[str]:
    """What methods measured beside the ranking; the workings only for a verbose page."""
    measured = [record for record in comparison.records if own_measures(record)]
    if not measured:
        return []
    grid, every = measures_grid(measured, page.look.verbose), measures_grid(measured)
    parts = [page.heading("Beside the ranking", "what the methods measure themselves")]
    if len(grid) > 1:
        parts.append(page.across([[Cell(text) for text in row] for row in grid]))
    if hidden := len(every) - len(grid):
        why = "counts of the workings, times, by length of history, 0 or the same in all rows"
        parts.append(page.lines([f"({hidden} more with --verbose: {why})"]))
    return parts


def legend(comparison: Comparison) -> str:
    """What intervals, marks and verdicts mean."""
    against, blocks = comparison.reference, [*comparison.blocks, *comparison.dialogue_blocks]
    if any(
        against not in [comparison.records[row].name for row in rows] for rows in map(comparison.rows, blocks) if rows
    ):
        against += "" if against.startswith("the best") else ", in a block without it the best row"
    primary, best = comparison.primary, comparison.reference.startswith("the best")
    several = ", and over seeds where a row has several" if any(record.members for record in comparison.records) else ""
    family = (
        "all rows of a block at once, whichever came out best,"
        if best
        else f"all rows against {comparison.reference} at once"
    )
    method = "max-T" if comparison.test == "max-t" else f"{comparison.test} with Holm's correction"
    of_at, of_talks = (" (Student's t for AT)", " (dialogues: S@5)") if comparison.dialogue_blocks else ("", "")
    found = (
        f"Intervals are Wilson's score interval over users{several}{of_at}. "
        f"Against {against}: ▲ better{' (the best: than every other row)' if best else ''}, ▼ worse, "
        f"= equal within 2 %, ≈ not told apart. Marks of {primary}{of_talks} hold at 5 % for {family} "
        f"({method}); other metrics are secondary: a family of their own, marked only where {primary} differs."
    )
    return f"{found} {_OF_PUBLISHED}" if any(map(published_for, comparison.records)) else found


_OF_PUBLISHED = (
    "Published: inside our interval, close (within 10 %), off, n.c. (not comparable); in brackets our distance."
)


def closing_lines(comparison: Comparison) -> list[str]:
    """What must be said below a table: seeds, candidates, ties, and rows that do not pair."""
    records, single = comparison.records, comparison.one_seed
    lines = []
    if single:
        which = "" if len(single) == len(records) else f" of {', '.join(single)}"
        lines.append(f"one seed: differences between seeds are not in these intervals{which}")
    found = [
        f"{records[row].name} {deviation:.4f} ({len(records[row].members)} seeds)"
        for row, deviation in comparison.deviations.items()
    ]
    if found:
        lines.append(f"Standard deviation between seeds, {comparison.primary}: {', '.join(found)}.")
    lines += protocol_warnings(records)
    if comparison.unpaired:
        lines.append(f"Not paired, measured on other data or candidates: {', '.join(comparison.unpaired)}.")
    return lines


def planned_heading(comparison: Comparison) -> tuple[str, str]:
    """Title of the planned contrasts, and what they hold for."""
    name = comparison.records[comparison.subject].name
    reason = "planned contrasts on the same users; the 95 % intervals and p-values hold for these lines together"
    return f"{name} minus the others, {comparison.primary}", reason


def planned_line(comparison: Comparison, planned: Planned) -> str:
    """A planned contrast in words."""
    other, pair = comparison.records[planned.row], planned.pair
    base = mean_of(other, comparison.primary)
    relative = f", {pair.mean / base:+.1%}" if base else ""
    said = [finding(pair), f"p {p_text(pair.adjusted)}"][: 1 + pair.tested]
    if planned.role:
        said.insert(0, planned.role)
    if other.block != comparison.records[comparison.subject].block:
        said.append("sees other information")
    said += _other_mark(comparison, planned)
    return f"{other.name}: {pair.mean:+.4f} [{pair.low:+.4f}, {pair.high:+.4f}]{relative} ({', '.join(said)})"


def p_text(p: float) -> str:
    """A p-value behind the letter."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def finding(pair: Pair) -> str:
    """What a pair's tests say."""
    if not pair.tested:
        return "not tested"
    if pair.significant:
        return "significant"
    return "equal within 2 %" if pair.equal else f"smaller than can be told: {needs(pair)}"


def needs(pair: Pair) -> str:
    """What it would take to show that both rows are equal within the margin."""
    ways = [f"{pair.users:,} users"] if pair.users else []
    ways += [f"{pair.seeds:,} seeds"] if pair.seeds else []
    return f"needs {' or '.join(ways)}" if ways else "needs more users and more seeds"


def block_lines(comparison: Comparison, block: str) -> list[str]:
    """What stands under a block: what follows from it, and what it cannot tell."""
    said = conclusion(comparison, block)
    return [said] * bool(said) + open_lines(comparison, block)


def open_lines(comparison: Comparison, block: str) -> list[str]:
    """Rows that the primary metric does not tell from the reference, and what telling would take."""
    families = comparison.families.get(block, [])
    if not families:
        return []
    (metric, reference), *_ = families[0].references.items()
    lines = [
        f"{comparison.records[row].name} ({needs(pair)})"
        for (name, row), pair in families[0].pairs.items()
        if comparison.marks.get((block, row, name)) == "open"
    ]
    name = comparison.records[reference].name
    return [f"Too close to {name} to be told by {metric}: {', '.join(lines)}."] if lines else []


def _other_mark(comparison: Comparison, planned: Planned) -> list[str]:
    """Says where the table, which corrects for all rows of a block, marks the same pair otherwise."""
    block = comparison.records[comparison.subject].block
    for family in comparison.families.get(block, [])[:1]:
        reference = family.references.get(comparison.primary)
        for row, other in ((comparison.subject, planned.row), (planned.row, comparison.subject)):
            pair = family.pairs.get((comparison.primary, row))
            if reference == other and pair and pair.significant != planned.pair.significant:
                word = "significant" if pair.significant else "not significant"
                return [f"among all rows of the table {word}, p = {pair.adjusted:.3f}"]
    return []


def _grid(comparison: Comparison, block: str, rows: list[int], metrics: list[str], notes: list[str], page: Page) -> str:
    costs = [head for name in page.look.costs for head in COSTS[name]]
    grid = [[Cell(name) for name in ("model", *metrics, *costs)]]
    for row in rows:
        record = comparison.records[row]
        numbers = []
        for note in row_notes(record):
            if note not in notes:
                notes.append(note)
            numbers.append(notes.index(note) + 1)
        name = record.name + "".join(f" [{number}]" for number in sorted(set(numbers)))
        cells = [Cell(name, link=record.folder.resolve().as_uri() if record.folder else "")]
        for metric in metrics:
            facts = record.metrics.get(metric) or record.dialogue.get(metric)
            if not facts:
                cells.append(Cell("-"))
                continue
            said = comparison.marks.get((block, row, metric), "")
            reach = max(facts["high"] - facts["mean"], facts["mean"] - facts["low"])
            best = comparison.best.get((block, metric)) == row
            cells.append(Cell(f"{facts['mean']:.4f}", best, f"±{reach:.4f}", MARKS.get(said, ""), said))
        texts = cost_texts(record, page.look.costs, page.look.prices)
        grid.append([*cells, *(Cell(texts[head]) for head in costs)])
        grid += _published_line(record, metrics, len(costs))
    return page.grid(grid, least_important(comparison, metrics, len(costs), page.look.costs != LOOK.costs))


def least_important(comparison: Comparison, metrics: Sequence[str], costs: int, asked: bool) -> list[int]:
    """Columns that a narrow terminal may lack, the least important one first; never the model and the primary metric.

    Costs go first, unless they were asked for.
    """
    primary = comparison.primary if comparison.primary in metrics else "S@5"
    secondary = [1 + place for place, metric in enumerate(metrics) if metric != primary][::-1]
    prices = [1 + len(metrics) + place for place in range(costs)][::-1]
    return secondary[: None if len(secondary) < len(metrics) else -1] + prices if asked else prices + secondary


def _published_line(record: RunRecord, metrics: list[str], costs: int) -> list[list[Cell]]:
    found = {name: entry for name, entry in verdicts(record).items() if name in metrics}
    if not found:
        return []
    places = sorted({place for _, place, _ in found.values()})
    cells = [Cell(f"  published, {', '.join(places)}", tone="quiet")]
    for metric in metrics:
        if metric not in found:
            cells.append(Cell(""))
            continue
        value, _, outcome = found[metric]
        word = "n.c." if outcome.word == "not comparable" else outcome.word
        cells.append(Cell(f"{value:.4f}", below=f"{word} ({outcome.gap:+.0%})", tone=_VERDICTS.get(word, "quiet")))
    return [[*cells, *[Cell("")] * costs]]
