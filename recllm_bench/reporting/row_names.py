"""Names of the rows of a table: the model, and what differs from its default recipe."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from recllm_bench.recipe import flat
from recllm_bench.reporting.records import RunRecord

_MOST = 2  # changes in a name; the row's note has all of them
_NAMED = ("options", "training", "quick")  # who speaks stands over the block
_SECTIONS = (*_NAMED, "conversation")


def told_apart(rows: Sequence[RunRecord]) -> list[RunRecord]:
    """The rows with names that no two of them share.

    Rows of one name get the fewest changes that tell them apart, such as ``LatentCRS, intents=64``; where their recipes
    are alike (other code or data made them), when they were made. A row alone, unless a recipe gave it a label, gets up
    to two changes and a note with all.

    Parameters
    ----------
    rows : sequence of RunRecord
        Rows of one table, runs of several seeds as one.
    """
    groups: dict[str, list[int]] = {}
    for row, record in enumerate(rows):
        groups.setdefault(record.name, []).append(row)
    named = list(rows)
    for group in groups.values():
        records = [rows[row] for row in group]
        endings = _telling(records) if len(group) > 1 else [_changes_of(records[0])]
        for row, record, ending in zip(group, records, endings, strict=True):
            named[row] = dataclasses.replace(record, name=record.name + ending, notes=_notes(record, ending))
    return named


def _changes_of(record: RunRecord) -> str:
    """Up to two changes of a row alone; none where its label says them, or in a record that does not know them."""
    changes = _named_changes(record)
    more = f" and {len(changes) - _MOST} more" if len(changes) > _MOST else ""
    return _ending(dict(list(changes.items())[:_MOST])) + more


def _named_changes(record: RunRecord) -> dict[str, Any]:
    if record.name != record.model_name:
        return {}
    return {key: value for key, value in (record.changed or {}).items() if key.partition(".")[0] in _NAMED}


def _notes(record: RunRecord, ending: str) -> list[str]:
    changes = _named_changes(record)
    hidden = [key for key, value in changes.items() if _text(key, value) not in ending]
    all_of_them = ", ".join(_text(key, value) for key, value in changes.items())
    return [*record.notes, f"changed from its default recipe: {all_of_them}"] if hidden else record.notes


def _telling(records: Sequence[RunRecord]) -> list[str]:
    """For records of one name the endings that tell them apart: as few changes as that takes."""
    values = [_values(record) for record in records]
    every = list(dict.fromkeys(key for each in values for key in each))
    differ = [key for key in every if len({repr(each.get(key, ())) for each in values}) > 1]
    # What a record lacks is no change: recipes of earlier versions have other options.
    differ.sort(
        key=lambda key: not (all(key in each for each in values) or any(key in (r.changed or {}) for r in records))
    )
    keys = _fewest(values, differ)
    endings = []
    for record, each in zip(records, values, strict=True):
        known = keys if record.changed is None else [key for key in keys if key in record.changed]
        endings.append(_ending({key: each[key] for key in known if key in each}))
    if len(set(endings)) < len(endings):
        endings = [_ending({key: each[key] for key in keys if key in each}) for each in values]
    twice = {ending for ending, count in Counter(endings).items() if count > 1}
    made = Counter((ending, record.created) for ending, record in zip(endings, records, strict=True))
    for row, (record, ending) in enumerate(zip(records, endings, strict=True)):
        if ending in twice:
            place = record.folder.name.rpartition("-")[2] if record.folder else record.users_hash
            once = record.created and made[ending, record.created] == 1
            endings[row] = f"{ending}, " + (f"made {record.created}" if once else f"record {place}")
    return endings


def _values(record: RunRecord) -> dict[str, Any]:
    """What a run was set to, by place; what is changed from a default with its value."""
    recipe = {key: record.recipe[key] for key in _SECTIONS if record.recipe.get(key)}
    known = {**flat(recipe), **(record.changed or {})}
    order = {section: place for place, section in enumerate(_SECTIONS)}
    return {key: known[key] for key in sorted(known, key=lambda key: order.get(key.partition(".")[0], len(order)))}


def _fewest(values: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """The fewest keys whose values differ between any two rows, or as many rows as can be; the first ones in order."""

    def told(chosen: Sequence[str]) -> int:
        return len({repr([each.get(key, ()) for key in chosen]) for each in values})

    most = told(keys)
    for size in (1, 2):
        for chosen in combinations(keys[:40], size):
            if told(chosen) == most:
                return list(chosen)
    found: list[str] = []
    while told(found) < most:
        found.append(max((key for key in keys if key not in found), key=lambda key: told([*found, key])))
    return found


def _ending(changes: Mapping[str, Any]) -> str:
    return "".join(f", {_text(key, value)}" for key, value in changes.items())


def _text(key: str, value: Any) -> str:
    """A change as ``--set`` takes it."""
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{key.removeprefix('options.')}={shown if len(shown) <= 40 else shown[:37] + '...'}"
