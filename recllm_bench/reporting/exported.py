"""Comparisons as values for other programs: JSON with everything, CSV with a line for each row of each block."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from recllm_bench.errors import BenchError
from recllm_bench.reporting.comparison import DIALOGUE_METRICS, Comparison
from recllm_bench.reporting.conclusion import conclusion
from recllm_bench.reporting.costs import COSTS, cost_values
from recllm_bench.reporting.page import Look, Page
from recllm_bench.reporting.table import shown, verdicts
from recllm_bench.reporting.two_runs import Section


def written(comparisons: Sequence[Comparison], look: Look) -> str:
    """Comparisons in the format of a look, without a final newline."""
    if look.format in ("csv", "json"):
        return (as_csv if look.format == "csv" else as_json)(comparisons, look)
    page = Page(look)
    return "\n\n".join(shown(comparison, page) for comparison in comparisons)


def written_sections(sections: Sequence[Section], look: Look) -> str:
    """Sections about two runs in the format of a look."""
    if look.format == "csv":
        raise BenchError("two runs in depth are no one table; take --format text, markdown, latex or json")
    if look.format == "json":
        parts = [
            {"title": part.title, "about": part.about, "rows": [[cell.line for cell in row] for row in part.grid]}
            | {"lines": part.lines}
            for part in sections
        ]
        return json.dumps(parts, indent=1, ensure_ascii=False)
    page = Page(look)
    first, *others = sections
    texts = [page.title(first.title), page.text(first.about)]
    for part in others:
        texts.append(page.heading(part.title, part.about))
        texts += [page.grid(part.grid, [len(part.grid[0]) - 1])] if part.grid else []
        texts += [page.lines(part.lines)] if part.lines else []
    return "\n".join(texts)


def as_json(comparisons: Sequence[Comparison], look: Look) -> str:
    """A list of tables; what is unknown is null."""
    return json.dumps([_plain(_table(each, look)) for each in comparisons], indent=1, ensure_ascii=False)


def as_csv(comparisons: Sequence[Comparison], look: Look) -> str:
    """One line for each row of each block; each metric has the columns ``M``, ``M low``, ``M high``, ``M mark``."""
    lines: list[dict[str, Any]] = []
    for comparison in comparisons:
        table = _table(comparison, look)
        place = {key: table[key] for key in ("dataset", "protocol")}
        for row in table["rows"]:
            line = {**place, **{key: row[key] for key in ("block", "speaker", "row", "model", "seeds", "is_subject")}}
            for metric, facts in row["metrics"].items():
                line[metric] = facts["mean"]
                line |= {f"{metric} {key}": facts[key] for key in ("low", "high", "mark")}
            lines.append({**line, **row["costs"]})
    file = io.StringIO()
    heads = list(dict.fromkeys(head for line in lines for head in line))
    costs = [head for name in look.costs for head in COSTS[name]]
    heads = [head for head in heads if head not in costs] + costs
    writer = csv.DictWriter(file, heads, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({head: "" if value is None else value for head, value in line.items()} for line in lines)
    return file.getvalue().rstrip("\n")


def _table(comparison: Comparison, look: Look) -> dict[str, Any]:
    records, first = comparison.records, comparison.records[0]
    blocks = [*comparison.blocks, *comparison.dialogue_blocks]
    return {
        "dataset": first.dataset.get("name"),
        "protocol": first.protocol.get("name"),
        "subject": records[comparison.subject].name,
        "reference": comparison.reference,
        "primary": comparison.primary,
        "test": comparison.test,
        "planned": [
            {"other": records[each.row].name, "role": each.role, **dataclasses.asdict(each.pair)}
            for each in comparison.planned
        ],
        "conclusions": {block: said for block in blocks if (said := conclusion(comparison, block))},
        "rows": [_row(comparison, block, row, look) for block in blocks for row in comparison.rows(block)],
        "not_run": [{"row": name, "reason": reason} for name, reason in comparison.failures],
    }


def _row(comparison: Comparison, block: str, row: int, look: Look) -> dict[str, Any]:
    record = comparison.records[row]
    talked = block.startswith("dialogue")
    facts = record.dialogue if talked else record.metrics
    metrics = [name for name in (DIALOGUE_METRICS if talked else comparison.metrics) if name in facts]
    return {
        "block": block.partition(":")[0],
        "speaker": record.users,
        "row": record.name,
        "model": record.recipe.get("model"),
        "seeds": len(record.members) or 1,
        "is_subject": row == comparison.subject,
        "metrics": {
            name: {
                **{key: facts[name][key] for key in ("mean", "low", "high", "n")},
                "mark": comparison.marks.get((block, row, name), ""),
                "best": comparison.best.get((block, name)) == row,
            }
            for name in metrics
        },
        "published": {
            name: {"value": value, "place": place, "verdict": said.word, "reason": said.reason, "gap": said.gap}
            for name, (value, place, said) in verdicts(record).items()
            if name in metrics
        },
        "costs": cost_values(record, look.costs, look.prices),
        "measures": [measure.as_dict() for measure in record.measures],
        "notes": record.notes,
        "substitutes": record.substitutes,
        "records": [str(run.folder) for run in record.members or [record] if run.folder],
    }


def _plain(value: Any) -> Any:
    """JSON has no NaN: what could not be tested is null."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
