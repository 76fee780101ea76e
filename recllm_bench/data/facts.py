"""Counts of a prepared dataset, and whether they are the expected ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recllm_bench.data.histories import Histories
from recllm_bench.data.prepared import PreparedDataset
from recllm_bench.errors import BenchError

_LABELS = {
    "users": "users",
    "items": "items",
    "interactions": "interactions",
    "catalogue_items": "items in the source's catalogue",
    "mean_length": "mean history length",
    "min_length": "shortest history",
    "max_length": "longest history",
    "sparsity": "sparsity (%)",
    "items_with_text": "items with text",
    "time_ties": "interactions tied in time (%)",
}
_DECIMALS = {"mean_length": 2, "sparsity": 2, "time_ties": 2}


class Check(NamedTuple):
    """One line of found against expected; ``ok`` is None when nothing is expected."""

    what: str
    found: float
    expected: float | None
    ok: bool | None


def count(histories: Histories, titles: list[str], catalogue_items: int) -> dict[str, float]:
    """Count a dataset.

    Returns
    -------
    dict
        ``users, items`` (consumed ones), ``interactions, catalogue_items`` (known to the source), ``mean_length,
        min_length, max_length, sparsity`` (percent of user-item cells without interaction, from the number of
        interactions), ``items_with_text``, and with times ``time_ties``: percent of interactions that share their
        second with another one of the same user.
    """
    lengths = histories.lengths
    items = np.unique(histories.items)
    total = len(histories.items)
    facts: dict[str, float] = {
        "users": histories.n_users,
        "items": len(items),
        "interactions": total,
        "catalogue_items": catalogue_items,
        "mean_length": round(total / histories.n_users, 4),
        "min_length": int(lengths.min()),
        "max_length": int(lengths.max()),
        "sparsity": round(100 * (1 - total / (histories.n_users * len(items))), 4),
        "items_with_text": sum(bool(titles[item]) for item in items.tolist()),
    }
    if histories.times is not None:
        owners = histories.users_of_positions()
        tied_to_next = (np.diff(histories.times) == 0) & (np.diff(owners) == 0)
        tied = np.concatenate([[False], tied_to_next]) | np.concatenate([tied_to_next, [False]])
        facts["time_ties"] = round(100 * float(tied.mean()), 4)
    return facts


def check(prepared: PreparedDataset) -> list[Check]:
    """Set what was found beside what the card expects under this filter."""
    expected = (prepared.card.get("expected") or {}).get(prepared.filter) or {}
    rows = []
    for name in _LABELS:
        if name not in prepared.facts:
            continue
        found, wanted = prepared.facts[name], expected.get(name)
        if name in _DECIMALS:
            found = round(found, _DECIMALS[name])
        rows.append(Check(_LABELS[name], found, wanted, None if wanted is None else found == wanted))
    return rows


def refuse_unexpected(prepared: PreparedDataset) -> None:
    """Raise when a count differs from the card: such data would give numbers that mean something else.

    Raises
    ------
    BenchError
        With every count that differs.
    """
    wrong = [row for row in check(prepared) if row.ok is False]
    if wrong:
        said = ", ".join(f"{row.what} {_written(row.found)} instead of {_written(row.expected)}" for row in wrong)
        raise BenchError(
            f"{prepared.name} under the filter '{prepared.filter}' is not the expected data: {said}; get its files "
            "again, or give your own data by its path"
        )


def format_check(prepared: PreparedDataset) -> str:
    """Table of found against expected, for people."""
    head = f"{prepared.card['title']} ({prepared.name}), filter {prepared.filter}, variant {prepared.variant}"
    lines = [("", "found", "expected", "")]
    for row in check(prepared):
        verdict = {True: "ok", False: "WRONG", None: ""}[row.ok]
        lines.append((row.what, _written(row.found), "" if row.expected is None else _written(row.expected), verdict))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    body = [
        f"  {what:<{widths[0]}}  {found:>{widths[1]}}  {expected:>{widths[2]}}  {verdict}".rstrip()
        for what, found, expected, verdict in lines
    ]
    notes = [] if prepared.has_times else ["  no times in this variant: no global time split (unified.time)"]
    notes += [f"  {note}" for note in prepared.facts.get("notes", ())]
    return "\n".join([head, *body, *notes, f"  data checksum {prepared.checksum}"])


def _written(value: float) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
