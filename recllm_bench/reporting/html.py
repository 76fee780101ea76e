"""One self-contained HTML page of run records: tables, intervals and training curves, no script, no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from recllm_bench.artifacts import write_atomic
from recllm_bench.errors import BenchError
from recllm_bench.reporting.comparison import DIALOGUE_METRICS, Comparison, compare
from recllm_bench.reporting.figures import drawn, figures_of
from recllm_bench.reporting.published_numbers import published_for, published_interval
from recllm_bench.reporting.records import RunRecord
from recllm_bench.reporting.table import (
    MARKS,
    block_lines,
    closing_lines,
    describe,
    duration,
    finding,
    legend,
    measures_grid,
    own_measures,
    planned_heading,
    row_notes,
    verdicts,
)

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;color:#1c2733;background:#fff}
table{border-collapse:collapse;margin:.6rem 0;width:100%}
th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid #dde3ea;font-variant-numeric:tabular-nums}
th:first-child,td:first-child{text-align:left}
.best{font-weight:700}.published td{color:#5b6b7c;font-size:.88em}small,.about{color:#5b6b7c}
svg{max-width:100%;height:auto}figure{margin:1rem 0}figcaption{font-size:.9em;color:#5b6b7c}
details{margin:.4rem 0}pre{background:#f4f6f8;padding:.6rem;overflow:auto;font-size:.82em}
@media(prefers-color-scheme:dark){body{background:#12181f;color:#e4e9ee}th,td{border-color:#2c3742}pre{background:#1b232c}
.published td,small,.about,figcaption{color:#93a3b3}}
"""
_COLOURS = {"history": "#3b6ea5", "text": "#c4661f"}


def write_report(records: Sequence[RunRecord], path: Path) -> Path:
    """Write the page, atomically.

    Parameters
    ----------
    records : sequence of RunRecord
        One section for each dataset and protocol.

    Raises
    ------
    BenchError
        Without records, or when the file cannot be written.
    """
    if not records:
        raise BenchError("there are no run records to report; make one with 'recllm-bench run'")
    groups: dict[tuple, list[RunRecord]] = {}
    for record in records:
        groups.setdefault((record.dataset.get("name"), record.fingerprint), []).append(record)
    body = "\n".join(_section(compare(group)) for group in groups.values())
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>recllm_bench report</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>recllm_bench report</h1>\n{body}\n</body></html>\n"
    )
    try:
        write_atomic(Path(path), lambda file: file.write(page.encode()))
    except OSError as error:
        raise BenchError(f"cannot write {path} ({error.strerror}); choose another --output") from error
    return Path(path)


def _section(comparison: Comparison) -> str:
    head, _, about = describe(comparison.records).partition("\n")
    parts = [f"<section><h2>{escape(head)}</h2>", f'<p class="about">{escape(about)}</p>' if about else ""]
    if comparison.planned:
        parts.append(_planned(comparison))
    for block, (title, reason) in comparison.blocks.items():
        rows = comparison.rows(block)
        if rows:
            parts += [f"<h3>{title}</h3><p class='about'>{escape(reason)}</p>"]
            parts.append(_table(comparison, block, rows, comparison.metrics))
            parts += [f"<p>{escape(line)}</p>" for line in block_lines(comparison, block)]
    for block in comparison.dialogue_blocks:
        if rows := comparison.rows(block):
            about = f"AT: lower is better; users: {comparison.records[rows[0]].users or 'not told'}"
            parts.append(f"<h3>Dialogues</h3><p class='about'>{escape(about)}</p>")
            parts.append(_table(comparison, block, rows, list(DIALOGUE_METRICS)))
            parts += [f"<p>{escape(line)}</p>" for line in block_lines(comparison, block)]
    parts.append(_measures(comparison.records))
    parts.append(_interval_plot(comparison))
    parts.append(_training_curves(comparison.records))
    parts += [drawn(figure) for figure in figures_of(comparison.records, comparison.primary)]
    parts += [f"<p>{escape(line)}</p>" for line in closing_lines(comparison)]
    parts.append(f"<p><small>{escape(legend(comparison))} Brackets: 95 % intervals.</small></p>")
    parts += [_details(record) for record in comparison.records]
    return "\n".join(part for part in parts if part) + "</section>"


def _table(comparison: Comparison, block: str, rows: list[int], metrics: list[str]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in ("model", *metrics, "training"))
    lines = [f"<table><thead><tr>{head}</tr></thead><tbody>"]
    for row in rows:
        record = comparison.records[row]
        cells = [f"<td>{escape(record.name)}</td>"]
        for metric in metrics:
            facts = record.metrics.get(metric) or record.dialogue.get(metric)
            if not facts:
                cells.append("<td>-</td>")
                continue
            mark = MARKS.get(comparison.marks.get((block, row, metric), ""), "")
            kind = ' class="best"' if comparison.best.get((block, metric)) == row else ""
            span = f"<small>[{facts['low']:.4f}, {facts['high']:.4f}]</small>"
            cells.append(f"<td{kind}>{facts['mean']:.4f} {mark}<br>{span}</td>")
        lines.append(f"<tr>{''.join(cells)}<td>{duration(record.training_seconds)}</td></tr>")
        lines.append(_published_row(record, metrics))
    return "\n".join(lines) + "</tbody></table>"


def _published_row(record: RunRecord, metrics: list[str]) -> str:
    found = {name: entry for name, entry in verdicts(record).items() if name in metrics}
    if not found:
        return ""
    printed = published_for(record)
    places = ", ".join(sorted({place for _, place, _ in found.values()}))
    cells = [f"<td>published, {escape(places)}</td>"]
    for metric in metrics:
        if metric not in found:
            cells.append("<td></td>")
            continue
        value, _, outcome = found[metric]
        interval = published_interval(printed[metric])
        span = f"<br><small>Wilson [{interval[0]:.4f}, {interval[1]:.4f}]</small>" if interval else ""
        title = escape(str(outcome), quote=True)
        cells.append(f'<td title="{title}">{value:.4f} {escape(outcome.word)} ({outcome.gap:+.0%}){span}</td>')
    return f'<tr class="published">{"".join(cells)}<td></td></tr>'


def _measures(records: Sequence[RunRecord]) -> str:
    """What methods measured beside the ranking."""
    measured = [record for record in records if own_measures(record)]
    if not measured:
        return ""
    head, *rows = measures_grid(measured)
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = ["<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows]
    return f"<h3>Beside the ranking</h3><table><thead><tr>{names}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _planned(comparison: Comparison) -> str:
    title, reason = planned_heading(comparison)
    head = "".join(f"<th>{name}</th>" for name in ("other row", "difference", "95 % interval", "p", "finding"))
    lines = [
        f"<h3>{escape(title)}</h3><p class='about'>{escape(reason)}</p><table><thead><tr>{head}</tr></thead><tbody>"
    ]
    for planned in comparison.planned:
        pair, role = planned.pair, f" <small>{planned.role}</small>" if planned.role else ""
        lines.append(
            f"<tr><td>{escape(comparison.records[planned.row].name)}{role}</td><td>{pair.mean:+.4f}</td>"
            f"<td>[{pair.low:+.4f}, {pair.high:+.4f}]</td><td>{pair.adjusted:.4f}</td><td>{finding(pair)}</td></tr>"
        )
    return "\n".join(lines) + "</tbody></table>"


def _interval_plot(comparison: Comparison) -> str:
    """Bars of the primary metric with their intervals."""
    metric = comparison.primary
    rows = [
        row
        for block in comparison.blocks
        for row in comparison.rows(block)
        if metric in comparison.records[row].metrics
    ]
    highest = max((comparison.records[row].metrics[metric]["high"] for row in rows), default=0.0)
    if highest <= 0:
        return ""
    left, width, step = 260, 560, 26
    scale = width / highest
    parts = [
        f'<figure><svg viewBox="0 0 {left + width + 90} {step * len(rows) + 8}" role="img" '
        f'aria-label="{escape(metric, quote=True)} with 95 % intervals" font-size="13" fill="currentColor">'
    ]
    for place, row in enumerate(rows):
        record = comparison.records[row]
        facts = record.metrics[metric]
        y = place * step + 6
        name = record.name if len(record.name) <= 36 else record.name[:35] + "…"
        low, mean, high = (left + scale * facts[key] for key in ("low", "mean", "high"))
        middle = y + 8
        parts += [
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{left}" y="{y}" width="{mean - left:.1f}" height="16" fill="{_COLOURS[record.block]}"/>',
            f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {y + 4}v8M{high:.1f} {y + 4}v8" '
            'stroke="currentColor" stroke-width="1.5"/>',
            f'<text x="{high + 6:.1f}" y="{y + 13}">{facts["mean"]:.4f}</text>',
        ]
    caption = f"{metric} with 95 % intervals; blue rows see history only, orange rows see words too."
    return "".join(parts) + f"</svg><figcaption>{escape(caption)}</figcaption></figure>"


def _training_curves(records: Sequence[RunRecord]) -> str:
    """Validation metric of each epoch, from the logs."""
    curves = [(record, _curve(record)) for record in records]
    curves = [(record, points) for record, points in curves if len(points) > 1]
    if not curves:
        return ""
    epochs = max(epoch for _, points in curves for epoch, _ in points)
    top = max(value for _, points in curves for _, value in points)
    if epochs <= 0 or top <= 0:
        return ""
    left, width, height = 50, 560, 220
    parts = [
        f'<figure><svg viewBox="0 0 {left + width + 220} {height + 40}" role="img" font-size="12" fill="currentColor">'
    ]
    parts.append(f'<path d="M{left} 10V{height}H{left + width}" fill="none" stroke="currentColor"/>')
    parts.append(f'<text x="{left - 4}" y="16" text-anchor="end">{top:.3f}</text>')
    parts.append(f'<text x="{left + width}" y="{height + 16}" text-anchor="end">epoch {epochs}</text>')
    for number, (record, points) in enumerate(curves):
        colour = f"hsl({number * 360 // len(curves)} 60% 45%)"
        line = " ".join(
            f"{left + width * epoch / epochs:.1f},{height - (height - 10) * max(value, 0) / top:.1f}"
            for epoch, value in points
        )
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        y = 20 + 18 * number
        parts.append(f'<text x="{left + width + 10}" y="{y}" fill="{colour}">{escape(record.name[:34])}</text>')
    return "".join(parts) + "</svg><figcaption>Validation metric while training.</figcaption></figure>"


def _curve(record: RunRecord) -> list[tuple[int, float]]:
    """(epoch, validation value) pairs of a record's last trained stage, else of the last training in its log."""
    if record.curves:
        return [(int(epoch), float(value)) for epoch, value in list(record.curves.values())[-1]]
    if record.folder is None or not (record.folder / "log.jsonl").exists():
        return []
    points: list[tuple[int, float]] = []
    for line in (record.folder / "log.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        value = entry.get("validation") if isinstance(entry, dict) else None
        if isinstance(value, (int, float)) and isinstance(entry.get("epoch"), int):
            if points and entry["epoch"] <= points[-1][0]:
                points = []
            points.append((entry["epoch"], float(value)))
    return points


def _details(record: RunRecord) -> str:
    facts = {
        "recipe": record.recipe,
        "dataset": record.dataset,
        "split": record.split,
        "protocol": record.protocol,
        "seconds": {**record.stages, "evaluation": record.evaluation_seconds},
        "beyond accuracy": record.beyond,
        "measures": {measure.label: measure.value for measure in record.measures},
        "tokens": record.tokens,
        "hardware": record.hardware,
        "versions": record.versions,
        "revision": record.revision,
        "created": record.created,
    }
    notes = "".join(f"<li>{escape(note)}</li>" for note in row_notes(record))
    text = json.dumps(facts, indent=1, ensure_ascii=False, default=str)
    return (
        f"<details><summary>{escape(record.name)}</summary>{f'<ul>{notes}</ul>' if notes else ''}"
        f"<pre>{escape(text)}</pre></details>"
    )
