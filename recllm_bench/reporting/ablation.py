"""An ablation or sweep beside the published table of the same switches.

The papers' corpora and language models are seldom those of the run. What then compares is the effect of a switch: each
number stands beside its change against the first row of its own column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recllm_bench.errors import BenchError, nearest
from recllm_bench.reporting.page import LOOK, Cell, Look, Page
from recllm_bench.reporting.published_numbers import PublishedCell, is_dataset, load_published, papers
from recllm_bench.reporting.records import RunRecord

_BRACKETS = "brackets hold the change against the first row of the column"


def ablation_table(records: Sequence[RunRecord], variants: Sequence[str], where: str, look: Look = LOOK) -> str:
    """Rows of a sweep beside the rows of a published table.

    Parameters
    ----------
    records : sequence of RunRecord
        One for each row of the sweep; the first is the reference of all changes.
    variants : sequence of str
        The published row of each: its ``variant`` in ``results/published``, or its ``model`` where it has no variant,
        or both where several models of the table have the variant; empty where there is none.
    where : str
        Paper and table, such as ``"relrec T3"``.
    look : Look
        As in :func:`.comparison_table`.

    Returns
    -------
    str
        A grid without a final newline.

    Raises
    ------
    BenchError
        For an unknown table or row.
    """
    printed = _table_of(where)
    rows = {cell: name for cell, name in zip(printed, _rows_of(printed), strict=True)}
    names = list(dict.fromkeys(rows.values()))
    for variant in filter(None, variants):
        if variant not in names:
            raise BenchError(f"{where} has no row '{variant}'.{nearest(variant, names)}")
    ours: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        ours.setdefault(str(record.dataset.get("name")), []).append(place)
    page = Page(look)
    reason = "; ".join(filter(None, [f"ours on {', '.join(ours)}", _apart(records, printed), _BRACKETS]))
    grids = []
    for dataset, places in ours.items():
        shown = rows
        if len(ours) > 1:  # rows of several data sets: each beside its own printed numbers, where there are any
            own = [cell for cell in rows if is_dataset(cell, dataset)]
            shown = {cell: rows[cell] for cell in own} or rows
        grids.append(
            page.grid(_grid([records[place] for place in places], [variants[place] for place in places], shown))
        )
    return "\n".join([page.heading(f"Beside {where}", reason), "\n\n".join(grids)])


def _apart(records: Sequence[RunRecord], printed: Sequence[PublishedCell]) -> str:
    """What in these runs is not the paper's; empty where nothing is."""
    own = {str(record.dataset.get("name")) for record in records}
    known = {name for name in own if any(is_dataset(cell, name) for cell in printed)}
    parts = [] if known == own else ["data"]
    parts += dict.fromkeys(part for record in records for part in record.substitutes)
    return f"other {', '.join(parts)} than published, so compare effects" if parts else ""


def _grid(
    records: Sequence[RunRecord], variants: Sequence[str], printed: Mapping[PublishedCell, str]
) -> list[list[Cell]]:
    """Rows of one or several data sets; ``printed`` names the row of each published cell."""
    paper = next(iter(printed)).paper
    metrics = list(dict.fromkeys(cell.name for cell, row in printed.items() if row in variants))
    metrics = [metric for metric in metrics if any(_ours(record, metric, paper) is not None for record in records)]
    datasets = list(dict.fromkeys(cell.dataset for cell in printed))
    values = {(cell.name, cell.dataset, row): cell.value for cell, row in printed.items()}
    columns: list[list[float | None]] = []
    head = []
    for metric in metrics:
        head.append(f"{metric}, ours")
        columns.append([_ours(record, metric, paper) for record in records])
        for dataset in datasets:
            head.append(f"published{f' {dataset}' if dataset else ''}")
            columns.append([values.get((metric, dataset, variant)) for variant in variants])
    grid = [[Cell("row"), *map(Cell, head)]]
    for row, record in enumerate(records):
        grid.append([Cell(record.name), *(Cell(_shown(column, row)) for column in columns)])
    return grid


def check_table(where: str) -> None:
    """Refuse a table that is not among the published ones, before anything is run.

    Raises
    ------
    BenchError
        For an unknown table.
    """
    _table_of(where)


def _table_of(where: str) -> list[PublishedCell]:
    cells = [cell for cell in load_published() if "improvement" not in cell.variant]
    found = [cell for cell in cells if cell.place == where]
    if not found:
        raise BenchError(f"no published table '{where}'.{nearest(where, sorted({cell.place for cell in cells}))}")
    return found


def _rows_of(cells: Sequence[PublishedCell]) -> list[str]:
    """What the row of each cell of a table is called."""
    models: dict[str, set[str]] = {}
    for cell in cells:
        models.setdefault(cell.variant, set()).add(cell.model)
    return [
        cell.model
        if not cell.variant
        else cell.variant
        if len(models[cell.variant]) == 1
        else f"{cell.model} {cell.variant}"
        for cell in cells
    ]


def _ours(record: RunRecord, metric: str, paper: str) -> float | None:
    facts = record.metrics.get(metric) or record.dialogue.get(metric)
    if facts:
        return facts["mean"]
    label = papers()[paper].measures.get(metric, metric)
    return next((measure.value for measure in record.measures if measure.label == label), None)


def _shown(column: Sequence[float | None], row: int) -> str:
    value, first = column[row], next((value for value in column if value is not None), None)
    if value is None:
        return "-"
    if row == 0 or not first or column[0] is None:
        return f"{value:.4f}"
    return f"{value:.4f} ({value / first - 1:+.1%})"
