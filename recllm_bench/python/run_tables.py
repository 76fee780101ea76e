"""Runs held against each other, to be looked at: text, HTML, data frames. Everything shown was computed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from recllm_bench.reporting.users_file import DIALOGUE_METRICS

if TYPE_CHECKING:
    import pandas as pd

    from recllm_bench.reporting.comparison import Comparison
    from recllm_bench.reporting.records import RunRecord


class Table:
    """Runs held against each other.

    Parameters
    ----------
    records : sequence of RunRecord
        One dataset, one protocol; the last one is the subject.
    baseline, metrics
        See :func:`compare`.

    Attributes
    ----------
    comparison : Comparison
        Rows, marks and paired differences.
    """

    def __init__(
        self, records: Sequence[RunRecord], baseline: str = "best", metrics: Sequence[str] | None = None
    ) -> None:
        from recllm_bench.reporting import comparison
        from recllm_bench.reporting.subject import compared_as, row_key

        self._asked = (list(records), baseline, metrics)
        self._subject = row_key(records[compared_as(records, len(records) - 1)]) if records else ""
        self.comparison: Comparison = comparison.compare(list(records), baseline, metrics, subject=self._subject)

    @property
    def records(self) -> list[RunRecord]:
        """The rows; runs that differ in the seed alone are one."""
        return self.comparison.records

    def to_frame(self) -> pd.DataFrame:
        """One row for each model and metric: ``model, block, metric, mean, low, high, mark``.

        ``mark`` is ``better``, ``equal`` (within 2 %), ``worse`` than the reference, or ``open``; empty without a test.
        ``to_frame().pivot(index="model", columns="metric", values="mean")`` is the wide form.
        """
        import pandas as pd

        columns = ["model", "block", "metric", "mean", "low", "high", "mark"]
        rows = [
            [
                record.name,
                block,
                metric,
                *(facts[key] for key in ("mean", "low", "high")),
                self._mark(block, row, metric),
            ]
            for block, row, metric, record, facts in self._cells()
        ]
        return pd.DataFrame(rows, columns=columns)

    def differences(self) -> pd.DataFrame:
        """The last row minus each other one in the main metric: ``other, role, mean, low, high, p, adjusted``.

        The planned contrasts of docs/statistics.md: ``role`` is ``best baseline``, ``control`` or empty.
        """
        import pandas as pd

        columns = ["other", "role", "mean", "low", "high", "p", "adjusted"]
        rows = [
            [self.comparison.records[each.row].name, each.role, *(getattr(each.pair, key) for key in columns[2:])]
            for each in self.comparison.planned
        ]
        return pd.DataFrame(rows, columns=columns)

    def __repr__(self) -> str:
        from recllm_bench.reporting.table import comparison_table

        return comparison_table(*self._asked, subject=self._subject)

    def _repr_html_(self) -> str:
        from recllm_bench.reporting.table import MARKS, describe

        found = self.comparison
        head = "".join(f"<th>{escape(name)}</th>" for name in ("", *found.metrics))
        lines = [f"<p>{escape(describe(found.records)).replace(chr(10), '<br>')}</p>", f"<table><tr>{head}</tr>"]
        for block, (title, reason) in found.blocks.items():
            rows = found.rows(block)
            if rows:
                lines.append(f"<tr><th colspan={1 + len(found.metrics)}>{escape(f'{title}: {reason}')}</th></tr>")
            for row in rows:
                cells = [f"<td>{escape(found.records[row].name)}</td>"]
                for metric in found.metrics:
                    facts = found.records[row].metrics.get(metric)
                    cells.append(f"<td>{self._cell(facts, block, row, metric) if facts else '-'}</td>")
                lines.append(f"<tr>{''.join(cells)}</tr>")
        signs = ", ".join(f"{sign} {word}" for word, sign in MARKS.items())
        return "\n".join([*lines, f"</table><small>Against {escape(found.reference)}: {signs}.</small>"])

    def _cells(self) -> list[tuple[str, int, str, RunRecord, Mapping[str, float]]]:
        found, cells = self.comparison, []
        for block in (*found.blocks, *found.dialogue_blocks):
            for row in found.rows(block):
                record = found.records[row]
                facts = record.dialogue if block.startswith("dialogue") else record.metrics
                names = DIALOGUE_METRICS if block.startswith("dialogue") else tuple(record.metrics)
                cells += [(block, row, metric, record, facts[metric]) for metric in names if metric in facts]
        return cells

    def _cell(self, facts: Mapping[str, float], block: str, row: int, metric: str) -> str:
        from recllm_bench.reporting.table import MARKS

        mark = MARKS.get(self._mark(block, row, metric), "")
        return f"{facts['mean']:.4f} {mark}<br><small>[{facts['low']:.4f}, {facts['high']:.4f}]</small>"

    def _mark(self, block: str, row: int, metric: str) -> str:
        return self.comparison.marks.get((block, row, metric), "")
