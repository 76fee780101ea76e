"""A plan as text: what a table will be able to tell."""

from __future__ import annotations

from recllm_bench.evaluation.power import RATES, Plan
from recllm_bench.reporting.page import Cell, Page


def plan_table(title: str, plan: Plan) -> str:
    """The smallest differences that a plan's table will mark, for usual hit rates."""
    grid = [[Cell("hit rate"), Cell("smallest difference"), Cell("relative")]]
    for rate in RATES:
        difference = plan.difference(rate)
        grid.append([Cell(f"{rate:.2f}"), Cell(f"{difference:.4f}"), Cell(f"{difference / rate:.0%}")])
    seeds = (
        f"{plan.seeds} seeds each, whose standard deviation is taken as {plan.deviation:.0%} of the mean"
        if plan.seeds > 1
        else "one seed each: differences between seeds are not in these numbers; --seeds 3 counts them"
    )
    reason = (
        f"{plan.users:,} users, {plan.rows} rows, {seeds}. Differences that are marked at 5 % among all pairs of rows "
        f"four times out of five, where hits of two models correlate by {plan.agreement} over users."
    )
    page = Page(markdown=False, colour=False)
    return "\n".join([page.heading(title, reason).lstrip("\n"), page.grid(grid)])
