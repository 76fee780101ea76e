"""One self-contained HTML page of run records, to browse: no network, and what is hostile in names stays text."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from recllm_bench import __version__
from recllm_bench.artifacts import write_atomic
from recllm_bench.errors import BenchError
from recllm_bench.reporting.comparison import Comparison, compare
from recllm_bench.reporting.records import RunRecord
from recllm_bench.reporting.row_names import told_apart
from recllm_bench.reporting.seeds import over_seeds
from recllm_bench.reporting.site.charts import Charts, charts_of
from recllm_bench.reporting.site.leaderboards import (
    MARK_WORDS,
    Block,
    Printed,
    leaderboards,
    printed_numbers,
    run_id,
    table_id,
)
from recllm_bench.reporting.site.page_text import breakable, packed, packed_text, plain, script_json
from recllm_bench.reporting.site.people_and_talks import dialogues_of, users_of
from recllm_bench.reporting.site.run_parts import Run, run_of
from recllm_bench.reporting.site.standings import overview, sentences
from recllm_bench.reporting.subject import has_row, row_named
from recllm_bench.reporting.table import (
    MARKS,
    closing_lines,
    describe,
    finding,
    grouped,
    legend,
    measures_grid,
    own_measures,
    planned_heading,
)

_SITE = Path(__file__).parent / "site"


@dataclass
class Table:
    """A dataset under a protocol, as the page shows it."""

    key: str
    name: str
    head: str
    about: str
    comparison: Comparison
    blocks: list[Block]
    printed: list[Printed]
    charts: list[Charts]
    measures: list[list[str]]
    closing: list[str]
    runs: list[Run]
    dialogues: list[tuple[str, str, dict[str, Any]]]
    users: dict[str, Any] | None

    @property
    def planned(self) -> list[dict[str, Any]]:
        """The planned contrasts, a line each."""
        return [
            {
                "name": self.comparison.records[each.row].name,
                "run": run_id(self.comparison.records[each.row]),
                "role": each.role,
                "pair": each.pair,
                "finding": finding(each.pair),
            }
            for each in self.comparison.planned
        ]

    @property
    def heading(self) -> tuple[str, str]:
        """What the planned contrasts are of."""
        return planned_heading(self.comparison)

    @property
    def sentences(self) -> list[str]:
        """What follows from it."""
        return sentences(self.comparison)


def write_report(records: Sequence[RunRecord], path: Path, **choices: str) -> Path:
    """Write the page, atomically.

    Parameters
    ----------
    records : sequence of RunRecord
        One table for each dataset and protocol.
    **choices
        As :func:`report_page` takes them.

    Raises
    ------
    BenchError
        Without records, for a row that no table has, or when the file cannot be written.
    """
    page = report_page(records, **choices)
    try:
        write_atomic(Path(path), lambda file: file.write(page.encode()))
    except OSError as error:
        raise BenchError(f"cannot write {path} ({error.strerror}); choose another --output") from error
    return Path(path)


def report_page(records: Sequence[RunRecord], live: str = "", *, subject: str = "", baseline: str = "best") -> str:
    """The page's text.

    Parameters
    ----------
    live : str
        The state that a server made it of: the page asks that server whether there is a newer one. Empty for a file.
    subject, baseline : str
        As in :func:`.compare`, in the tables that have such a row; the others are shown as without.

    Raises
    ------
    BenchError
        Without records, or for a row that no table has.
    """
    if not records:
        raise BenchError("there are no run records to report; make one with 'recllm-bench run'")
    tables = [_table(comparison, records) for comparison in _comparisons(records, subject, baseline)]
    script = (_SITE / "page.js").read_text(encoding="utf-8")
    plotly, drawing = _plotly()
    return _template().render(
        tables=tables,
        groups=overview([table.comparison for table in tables]),
        rows=sum(len(table.comparison.records) for table in tables),
        runs=len(records),
        version=__version__,
        style=(_SITE / "page.css").read_text(encoding="utf-8"),
        script=script,
        plotly=plotly,
        hashes=[_csp_hash(script), drawing],
        live=live,
    )


def _comparisons(records: Sequence[RunRecord], subject: str, baseline: str) -> list[Comparison]:
    """Every table, about the named rows where it has them."""
    groups = grouped(records)
    rows = [told_apart(over_seeds(group)) for group in groups]
    for name in (subject, "" if baseline == "best" else baseline):
        if name and not any(has_row(each, name) for each in rows):
            row_named([row for each in rows for row in each], name)  # says which there are
    return [
        compare(group, _where_it_is(each, baseline, "best"), subject=_where_it_is(each, subject, ""))
        for group, each in zip(groups, rows, strict=True)
    ]


def _where_it_is(rows: Sequence[RunRecord], name: str, otherwise: str) -> str:
    return name if has_row(rows, name) else otherwise


def _table(comparison: Comparison, everywhere: Sequence[RunRecord]) -> Table:
    records = comparison.records
    head, _, about = describe(records).partition("\n")
    measured = [record for record in records if own_measures(record)]
    dialogues = [
        (run_id(run), f"{row.name}, seed {run.recipe.get('seed')}" if row.members else row.name, found)
        for row in records
        for run in row.members or [row]
        if (found := dialogues_of(run)) is not None
    ]
    return Table(
        key=table_id(records[0]),
        name=f"{records[0].dataset.get('name')}, {records[0].protocol.get('name')}",
        head=head,
        about=about,
        comparison=comparison,
        blocks=leaderboards(comparison),
        printed=printed_numbers(records),
        charts=charts_of(comparison, everywhere),
        measures=measures_grid(measured) if measured else [],
        closing=[*closing_lines(comparison), f"{legend(comparison)} Brackets: 95 % intervals."],
        runs=[run_of(record) for record in records],
        dialogues=dialogues,
        users=users_of(comparison, {key: found for key, _, found in dialogues}),
    )


def _template() -> Any:
    """The page's template; every value is escaped, and hidden signs in it are named."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_SITE),
        autoescape=True,
        finalize=plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(json=lambda value: Markup(script_json(value)), breaks=breakable, packed=packed)
    environment.globals.update(marks=MARKS, mark_words=MARK_WORDS)
    return environment.get_template("page.html")


@lru_cache(maxsize=1)
def _plotly() -> tuple[str, str]:
    """The script that draws, packed, and its hash."""
    from plotly.offline import get_plotlyjs

    script = str(get_plotlyjs())
    return packed_text(script), _csp_hash(script)


def _csp_hash(script: str) -> str:
    """What the page's policy lets run: this script and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
