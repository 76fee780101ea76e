"""Counts of a prepared dataset, and whether they are the expected ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    "repeats": "repeated (user, item) pairs",
    "time_ties": "interactions tied in time (%)",
}
_DECIMALS = {"mean_length": 2, "sparsity": 2, "time_ties": 2}


class Check(NamedTuple):
    """One line of found against expected and published; ``ok`` is None when nothing is expected."""

    what: str
    found: float
    expected: float | None
    ok: bool | None
    published: float | None = None


@dataclass(frozen=True)
class Repeats:
    """Interactions beyond the first of a user with an item; pairs that have such; their share of all interactions."""

    interactions: int
    pairs: int
    share: float


def count(histories: Histories, titles: list[str], catalogue_items: int) -> dict[str, float]:
    """Count a dataset.

    Returns
    -------
    dict
        ``users, items`` (consumed ones), ``interactions, catalogue_items`` (known to the source), ``mean_length,
        min_length, max_length, sparsity`` (percent of user-item cells without interaction, from the number of
        interactions), ``items_with_text``, ``repeats`` (interactions beyond the first with the same item), and with
        times ``time_ties``: percent of interactions that share their second with another one of the same user.
    """
    lengths = histories.lengths
    items = np.flatnonzero(np.bincount(histories.items))
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
    facts["repeats"] = repeats(histories).interactions
    if (tied := tied_share(histories)) is not None:
        facts["time_ties"] = round(100 * tied, 4)
    return facts


def tied_share(histories: Histories) -> float | None:
    """Share of interactions that share their second with another one of the same user; None without times."""
    if histories.times is None:
        return None
    same = np.diff(histories.times) == 0
    begins = histories.offsets[1:-1]
    begins = begins[(begins > 0) & (begins < len(histories.items))]
    same[begins - 1] = False  # a neighbour of another user
    tied = np.zeros(len(histories.items), dtype=bool)
    tied[1:] |= same
    tied[:-1] |= same
    return float(tied.mean())


def repeats(histories: Histories) -> Repeats:
    """Count what users did more than once with the same item."""
    keys = (histories.users_of_positions() - 1) * np.int64(histories.n_items + 1)
    keys += histories.items
    keys.sort()
    again = keys[1:] == keys[:-1]
    pairs = int(np.count_nonzero(again[1:] & ~again[:-1])) + int(len(again) > 0 and again[0])
    interactions = int(np.count_nonzero(again))
    return Repeats(interactions, pairs, interactions / len(keys))


def check(prepared: PreparedDataset) -> list[Check]:
    """Set what was found beside what the card expects under this filter."""
    return _checks(prepared.facts, prepared.card, prepared.filter)


def _checks(facts: Mapping[str, Any], card: Mapping[str, Any], filter: str) -> list[Check]:
    of_variant: dict[str, Any] = next((one for one in card["variants"] if one["name"] == facts["variant"]), {})
    settings = {**card, **of_variant}
    expected, published = ((settings.get(kind) or {}).get(filter) or {} for kind in ("expected", "published"))
    rows = []
    for name in _LABELS:
        if name not in facts:
            continue
        found, wanted = facts[name], expected.get(name)
        if name in _DECIMALS:
            found = round(found, _DECIMALS[name])
        ok = None if wanted is None else found == wanted
        rows.append(Check(_LABELS[name], found, wanted, ok, published.get(name)))
    return rows


def refuse_unexpected(facts: Mapping[str, Any], card: Mapping[str, Any], filter: str) -> None:
    """Raise when a count differs from the card: such data would give numbers that mean something else.

    Raises
    ------
    BenchError
        With every count that differs.
    """
    wrong = [row for row in _checks(facts, card, filter) if row.ok is False]
    if wrong:
        said = ", ".join(f"{row.what} {_written(row.found)} instead of {_written(row.expected)}" for row in wrong)
        raise BenchError(
            f"{card['name']} under the filter '{filter}' is not the expected data: {said}; get its files "
            "again, or give your own data by its path"
        )


def format_check(prepared: PreparedDataset) -> str:
    """Table of found against expected, for people."""
    head = f"{prepared.card['title']} ({prepared.name}), filter {prepared.filter}, variant {prepared.variant}"
    rows = check(prepared)
    printed = any(row.published is not None for row in rows)
    lines = [("", "found", "expected", "", "published" if printed else "")]
    for row in rows:
        verdict = {True: "ok", False: "WRONG", None: ""}[row.ok]
        cells = [_written(value) for value in (row.found, row.expected, row.published)]
        lines.append((row.what, cells[0], cells[1], verdict, cells[2]))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    body = [
        f"  {what:<{widths[0]}}  {found:>{widths[1]}}  {expected:>{widths[2]}}  {verdict:<{widths[3]}}  "
        f"{said:>{widths[4]}}".rstrip()
        for what, found, expected, verdict, said in lines
    ]
    return "\n".join([head, *body, *_remarks(prepared), f"  data checksum {prepared.checksum}"])


def _remarks(prepared: PreparedDataset) -> list[str]:
    facts = prepared.facts
    notes = [] if prepared.has_times else ["no times in this variant: no global time split (unified.time)"]
    noticed = facts.get("noticed") or {}
    if noticed:
        notes.append("; ".join(f"{what}: {count:,}" for what, count in noticed.items()))
    if "id_lists" in facts:
        lists = facts["id_lists"]
        said = ", ".join(
            f"{lists[what]['in the corpus']:,} of {lists[what]['listed']:,} {what}"
            for what in ("users", "items")
            if what in lists
        )
        notes.append(f"restricted to the ids of {lists['name']}: {said} occur in the corpus")
    printed = ((prepared.card.get("published") or {}).get(prepared.filter) or {}).get("rounds")
    if facts.get("rounds"):
        notes.append("users/items after each round: " + _rounds(facts["rounds"]))
    if printed:
        notes.append("published after each round:   " + _rounds(printed))
    return [f"  {note}" for note in (*notes, *facts.get("notes", ()))]


def _rounds(rounds: list) -> str:
    return ", ".join(f"{users:,}/{items:,}" for users, items in rounds)


def _written(value: float | None) -> str:
    """A count for people; "" where there is none."""
    if value is None:
        return ""
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
