"""A plan as text: what a table will be able to tell, with what the records of its dataset say of models' hits."""

from __future__ import annotations

from collections.abc import Sequence

from recllm_bench.evaluation.power import RATES, Plan
from recllm_bench.reporting.page import LOOK, Cell, Look, Page
from recllm_bench.reporting.records import RunRecord
from recllm_bench.reporting.seeds import UserValues, on_disk


def measured_agreement(records: Sequence[RunRecord]) -> tuple[float, int]:
    """Correlation over users of two models' hits, the median over pairs of models.

    Parameters
    ----------
    records : sequence of RunRecord
        One dataset, one protocol. Of records of one name the last counts, and of those only what can be paired with
        the last of all.

    Returns
    -------
    agreement : float
        Of the last Recall or HR that all have, from 0 to 0.99; a constant row tells nothing. 0 without a pair.
    pairs : int
        Pairs of models that it was measured on.
    """
    import numpy as np

    rows = {record.name: record for record in records if on_disk(record) and record.pairing == records[-1].pairing}
    shared = [m for m in records[-1].metrics if all(m in row.metrics for row in rows.values())] if rows else []
    hits = [metric for metric in shared if metric.partition("@")[0] in ("Recall", "HR")]
    if not hits:
        return 0.0, 0
    values = UserValues()
    columns = [values.of(row, hits[-1])[1][0] for row in rows.values()]
    moving = [column for column in columns if np.ptp(column) > 0]
    if len(moving) < 2:
        return 0.0, 0
    found = np.corrcoef(moving)[np.triu_indices(len(moving), 1)]
    return float(np.clip(np.median(found), 0, 0.99)), len(found)


def plan_table(title: str, plan: Plan, pairs: int = 0, look: Look = LOOK) -> str:
    """The smallest differences that a plan's table will mark, for usual hit rates.

    Parameters
    ----------
    title : str
        Heading.
    plan : Plan
        Users, rows, seeds.
    pairs : int
        Pairs of models that the plan's agreement was measured on; 0 where it is assumed.
    look : Look
        Width and colour.
    """
    grid = [[Cell("hit rate"), Cell("smallest difference"), Cell("relative")]]
    for rate in RATES:
        difference = plan.difference(rate)
        grid.append([Cell(f"{rate:.2f}"), Cell(f"{difference:.4f}"), Cell(f"{difference / rate:.0%}")])
    seeds = (
        f"{plan.seeds} seeds each, whose standard deviation is taken as {plan.deviation:.0%} of the mean"
        if plan.seeds > 1
        else "one seed each: differences between seeds are not in these numbers; --seeds 3 counts them"
    )
    source = (
        f"the median of {pairs} pairs of models in the records of this dataset"
        if pairs
        else "assumed: there are no records of two models on this dataset under this protocol"
    )
    reason = (
        f"{plan.users:,} users, {plan.rows} rows, {seeds}. Differences that are marked at 5 %, whichever row comes out "
        f"best, at least four times out of five, where hits of two models correlate by {plan.agreement:.2g} over users "
        f"({source})."
    )
    page = Page(look)
    return "\n".join([page.heading(title, reason).lstrip("\n"), page.grid(grid)])
