"""Charts of the page, as data for the script that draws them; one quantity an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recllm_bench.reporting.comparison import Comparison
from recllm_bench.reporting.figures import Figure, figures_of
from recllm_bench.reporting.record_families import Pair, has
from recllm_bench.reporting.records import RunRecord
from recllm_bench.reporting.site.leaderboards import COSTS, kind_of
from recllm_bench.reporting.site.learning_curves import learning_figures
from recllm_bench.reporting.site.page_text import chart_text
from recllm_bench.reporting.site.user_parts import sliced_figures, turn_figures
from recllm_bench.reporting.table import planned_heading

_COLOURS = {"history": "#3f83d6", "text": "#d8752a", "control": "#8b8f98"}
_NAMES = {"history": "history only", "text": "with words", "control": "controls and ceilings"}
_LOG = 20  # a cost that spans more than this goes on a logarithmic axis
_VISIBLE = 5
_ABOVE = ("top center", "bottom center")  # neighbours of a front stand close
_LINES = ("#3f83d6", "#d8752a", "#3a9d6e", "#9a5fb5", "#c9a227", "#c8527e", "#4bb3c4", "#8b8f98")
_DASHES = ("solid", "dash", "dot")


@dataclass(frozen=True)
class Chart:
    """One drawing: ``title`` among its group, what it shows, and Plotly's traces and layout."""

    title: str
    caption: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]


@dataclass(frozen=True)
class Charts:
    """Drawings of one kind, of which one is looked at at a time."""

    title: str
    charts: list[Chart]


def charts_of(comparison: Comparison, everywhere: Sequence[RunRecord]) -> list[Charts]:
    """Every group of charts that a table has values for.

    Parameters
    ----------
    comparison : Comparison
        The table.
    everywhere : sequence of RunRecord
        All records of the page: their logs name the quantities of learning curves.
    """
    records, metric = comparison.records, comparison.primary
    lengths, popularity = sliced_figures(comparison)
    by_option = figures_of(records, metric)
    groups = [
        Charts("All rows", _intervals(comparison)),
        Charts("Differences", _forests(comparison)),
        Charts("Accuracy against cost", _costs(comparison)),
        Charts("By turn", [_lines(comparison, each) for each in turn_figures(comparison)]),
        Charts("By length of history", [_lines(comparison, each) for each in lengths]),
        Charts("By popularity of the target", [_lines(comparison, each) for each in popularity]),
        Charts("By round, length and option", [_lines(comparison, each) for each in by_option]),
        Charts("While training", [_lines(comparison, each) for each in learning_figures(records, everywhere)]),
    ]
    return [group for group in groups if group.charts]


def _colour_of(record: RunRecord) -> str:
    return record.block if kind_of(record) == "method" else "control"


def _intervals(comparison: Comparison) -> list[Chart]:
    """Means with intervals, best first within a block; seeds as dots."""
    found = []
    names = [comparison.primary, *(name for name in comparison.metrics if name != comparison.primary)]
    for metric in names:
        rows = [row for block in comparison.blocks for row in comparison.rows(block)]
        rows = [row for row in rows if metric in comparison.records[row].metrics]
        if not rows:
            continue
        places = {row: place for place, row in enumerate(rows)}
        records = {row: comparison.records[row] for row in rows}
        traces = []
        for kind in _COLOURS:
            some = [row for row in rows if _colour_of(records[row]) == kind]
            if some:
                facts = [records[row].metrics[metric] for row in some]
                trace = _points([each["mean"] for each in facts], [places[row] for row in some], facts)
                traces.append(
                    {
                        **trace,
                        "name": _NAMES[kind],
                        "marker": {"color": _COLOURS[kind], "size": 8},
                        "text": [chart_text(records[row].name, 60) for row in some],
                    }
                )
        seeds = [(seed, places[row]) for row in rows for seed in records[row].members if metric in seed.metrics]
        if seeds:
            traces.append(
                {
                    "x": [seed.metrics[metric]["mean"] for seed, _ in seeds],
                    "y": [place + 0.25 for _, place in seeds],
                    "text": [f"seed {seed.recipe.get('seed')}" for seed, _ in seeds],
                    "mode": "markers",
                    "name": "a seed",
                    "hovertemplate": "%{text}: %{x:.4f}<extra></extra>",
                    "marker": {"symbol": "circle-open", "size": 6, "color": "#9a5fb5"},
                }
            )
        layout = {"xaxis": {"title": {"text": metric}}, **_rows_axis([records[row].name for row in rows])}
        caption = f"{metric} with 95 % intervals" + ("; small rings are seeds." if seeds else ".")
        found.append(Chart(metric, caption, traces, layout))
    return found


def _forests(comparison: Comparison) -> list[Chart]:
    """The planned contrasts, then each block's rows against its reference."""
    records, found = comparison.records, []
    if comparison.planned:
        title, _ = planned_heading(comparison)
        lines = [(records[each.row].name, each.pair) for each in comparison.planned]
        caption = f"{title}: 95 % intervals that hold together. Filled: significant; right of 0: it is better."
        found.append(_forest("planned contrasts", caption, lines))
    titles = {block: title for block, (title, _) in comparison.blocks.items()}
    titles |= {block: "Dialogues" for block in comparison.dialogue_blocks}
    for block, title in titles.items():
        for family in comparison.families.get(block, [])[:1]:
            ((metric, reference),) = family.references.items()
            lines = [(records[row].name, pair) for (name, row), pair in family.pairs.items() if name == metric]
            if lines:
                caption = (
                    f"{title}, {metric}: each row minus {records[reference].name}. Bars: 95 % intervals of each "
                    "difference alone; filled: significant after correction for the block."
                )
                who = f", {block.partition(':')[2]}" if ":" in block else ""
                found.append(_forest(f"{title}{who}, {metric}", caption, lines))
    return found


def _forest(title: str, caption: str, lines: Sequence[tuple[str, Pair]]) -> Chart:
    facts = [{"mean": pair.mean, "low": pair.low, "high": pair.high} for _, pair in lines]
    trace = _points([pair.mean for _, pair in lines], list(range(len(lines))), facts)
    trace["marker"] = {
        "symbol": ["circle" if pair.significant else "circle-open" for _, pair in lines],
        "size": 9,
        "color": _COLOURS["history"],
    }
    trace["text"] = [chart_text(name, 60) for name, _ in lines]
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "line": {"dash": "dot", "width": 1}}
    layout = {"xaxis": {"title": {"text": "difference"}}, **_rows_axis([name for name, _ in lines]), "shapes": [zero]}
    return Chart(title, caption, [trace], layout | {"showlegend": False})


def _points(x: list[float], y: list[int], facts: Sequence[Any]) -> dict[str, Any]:
    """Markers with intervals lying down."""
    return {
        "x": x,
        "y": y,
        "mode": "markers",
        "customdata": [[each["low"], each["high"]] for each in facts],
        "hovertemplate": "%{text}: %{x:.4f} [%{customdata[0]:.4f}, %{customdata[1]:.4f}]<extra></extra>",
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [each["high"] - each["mean"] for each in facts],
            "arrayminus": [each["mean"] - each["low"] for each in facts],
            "thickness": 1.4,
            "width": 3,
        },
    }


def _rows_axis(names: Sequence[str]) -> dict[str, Any]:
    """A vertical axis with a name a row, first at the top."""
    labels = [chart_text(name, 30) for name in names]
    axis = {
        "tickvals": list(range(len(names))),
        "ticktext": labels,
        "range": [len(names) - 0.4, -0.6],
        "automargin": True,
        "zeroline": False,
    }
    return {"yaxis": axis, "height": 120 + (10 + 16 * max(label.count("<br>") + 1 for label in labels)) * len(names)}


def _costs(comparison: Comparison) -> list[Chart]:
    """The primary metric against each cost; the dashed line joins what no other row of the block beats on both."""
    metric, found = comparison.primary, []
    rows = [record for record in comparison.records if has(record, metric)]
    for name, (amount, written) in COSTS.items():
        priced = [(record, value) for record in rows if (value := amount(record))]
        if len({value for _, value in priced}) < 2:
            continue
        traces: list[dict[str, Any]] = []
        for kind, colour in _COLOURS.items():
            some = [(record, value) for record, value in priced if _colour_of(record) == kind]
            front = _front([(value, record.metrics[metric]["mean"]) for record, value in some])
            front = [] if kind == "control" else front
            if not some:
                continue
            facts = [record.metrics[metric] for record, _ in some]
            names = [chart_text(record.name, 99) for record, _ in some]
            traces.append(
                {
                    "x": [value for _, value in some],
                    "y": [each["mean"] for each in facts],
                    "name": _NAMES[kind],
                    "mode": "markers+text",
                    "text": [_short(record.name) if at in front else "" for at, (record, _) in enumerate(some)],
                    "cliponaxis": False,
                    "textposition": [
                        _ABOVE[front.index(at) % 2] if at in front else _ABOVE[0] for at in range(len(some))
                    ],
                    "textfont": {"size": 11},
                    "hovertext": [f"{label}, {written(value)}" for label, (_, value) in zip(names, some, strict=True)],
                    "hovertemplate": "%{hovertext}: %{y:.4f}<extra></extra>",
                    "marker": {"color": colour, "size": 9},
                    "error_y": {
                        "type": "data",
                        "symmetric": False,
                        "array": [each["high"] - each["mean"] for each in facts],
                        "arrayminus": [each["mean"] - each["low"] for each in facts],
                        "thickness": 1,
                        "width": 2,
                    },
                }
            )
            if len(front) > 1:
                points = [(some[place][1], facts[place]["mean"]) for place in front]
                traces.append(
                    {
                        "x": [x for x, _ in points],
                        "y": [y for _, y in points],
                        "mode": "lines",
                        "line": {"dash": "dash", "width": 1, "color": colour, "shape": "hv"},
                        "hoverinfo": "skip",
                        "showlegend": False,
                    }
                )
        least, most = min(value for _, value in priced), max(value for _, value in priced)
        log = most > _LOG * least
        ends = (math.log10(least), math.log10(most)) if log else (least, most)
        room = 0.1 * (ends[1] - ends[0])  # for the names at the ends
        axis: dict[str, Any] = {"title": {"text": f"{name}{_UNITS.get(name, '')}"}, "type": "log" if log else "linear"}
        axis |= {"range": [ends[0] - room, ends[1] + room]} | ({"dtick": 1} if log else {})
        layout = {"xaxis": axis, "yaxis": {"title": {"text": metric}}, "height": 430}
        caption = f"{metric} against {name}. Dashed: the rows of a block that none beats in both."
        found.append(Chart(name, caption, traces, layout))
    return found


def _short(name: str) -> str:
    return chart_text(name if len(name) <= 24 else f"{name[:23]}…", 99)


_UNITS = {name: ", seconds" for name in ("training", "evaluation", "latency")} | {"peak memory": ", bytes"}


def _front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that none beats: cheapest first, each better than all cheaper ones."""
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        if not front or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return front


def _lines(comparison: Comparison, figure: Figure) -> Chart:
    """A line a row; those the table is about are there from the start, the others come by a click on their name."""
    first = [comparison.records[comparison.subject].name]
    first += [comparison.records[each.row].name for each in comparison.planned if each.role]
    names = list(figure.lines)
    shown = [name for name in first if name in names] + [name for name in names if name not in first]
    shown = shown[:_VISIBLE] if len(names) > _VISIBLE + 1 else shown
    traces = []
    order = {name: place for place, name in enumerate([*shown, *(name for name in names if name not in shown)])}
    for name in names:
        points = sorted(figure.lines[name].items())
        trace: dict[str, Any] = {
            "x": [place for place, _ in points],
            "y": [mean for _, (_, mean, _) in points],
            "name": chart_text(name, 40),
            "mode": "lines+markers" if len(points) < 30 else "lines",
            "line": {"color": _LINES[order[name] % len(_LINES)], "dash": _DASHES[order[name] // len(_LINES) % 3]},
            "visible": True if name in shown else "legendonly",
            "hovertemplate": "%{y:.4f}",
        }
        if any(high > low for _, (low, _, high) in points):
            trace["error_y"] = {
                "type": "data",
                "symmetric": False,
                "array": [high - mean for _, (_, mean, high) in points],
                "arrayminus": [mean - low for _, (low, mean, _) in points],
                "thickness": 1,
                "width": 2,
            }
        traces.append(trace)
    axis: dict[str, Any] = {"title": {"text": figure.axis}}
    if max(place for line in figure.lines.values() for place in line) <= 12:
        axis["dtick"] = 1
    if figure.ticks:
        axis |= {
            "tickvals": list(range(len(figure.ticks))),
            "ticktext": [chart_text(tick, 12) for tick in figure.ticks],
        }
    more = " Others: click their names." if len(shown) < len(names) else ""
    layout = {"xaxis": axis, "yaxis": {"title": {"text": figure.quantity}}, "hovermode": "x", "height": 360}
    return Chart(figure.title or figure.quantity, figure.caption + more, traces, layout)
