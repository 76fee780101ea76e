"""What follows from a block of a table, in one sentence, from the tests that the table holds."""

from __future__ import annotations

from recllm_bench.reporting.comparison import Comparison
from recllm_bench.reporting.record_families import Pair, mean_of


def conclusion(comparison: Comparison, block: str) -> str:
    """One sentence on the row that the table is about; empty where nothing was tested.

    In the subject's own block it is held against the strongest control (a ceiling is none), else against the best
    other row. p-values are those of the planned contrasts, which hold together; for dialogues, of the block's family.

    Parameters
    ----------
    comparison : Comparison
        Rows and tests.
    block : str
        ``history``, ``text`` or ``dialogue``.
    """
    if block == "dialogue":
        return _of_dialogues(comparison)
    records, subject = comparison.records, comparison.records[comparison.subject]
    here = [planned for planned in comparison.planned if records[planned.row].block == block]
    controls = [planned for planned in here if planned.role == "control"]
    others = controls or [planned for planned in here if planned.role != "ceiling"]
    if not others:
        return ""
    best = max(others, key=lambda planned: mean_of(records[planned.row], comparison.primary))
    name, other = subject.name, records[best.row].name
    if controls:
        other += f", the strongest of {len(controls)} controls" if len(controls) > 1 else ", the control"
    elif len(others) > 1:
        other += ", the best of the other rows" if subject.block == block else ", the best of these rows"
    if subject.block != block and subject.block == "text":
        name += ", which also reads words,"
    return _sentence(name, other, comparison.primary, best.pair)


def _of_dialogues(comparison: Comparison) -> str:
    """From the family of the block's primary metric, whose pairs are rows minus the best one."""
    records, subject = comparison.records, comparison.subject
    for family in comparison.families.get("dialogue", [])[:1]:
        ((metric, best),) = family.references.items()
        if best != subject:
            pair = family.pairs.get((metric, subject))
            return _sentence(records[subject].name, records[best].name, metric, pair) if pair else ""
        rows = [row for name, row in family.pairs if name == metric]
        if rows:
            nearest = max(rows, key=lambda row: mean_of(records[row], metric))
            pair = family.pairs[metric, nearest]
            return _sentence(records[subject].name, records[nearest].name, metric, pair, sign=-1)
    return ""


def _sentence(name: str, other: str, metric: str, pair: Pair, sign: int = 1) -> str:
    if not pair.tested:
        return ""
    said = {True: "is better than", False: "is not better than"}[sign * pair.mean > 0]
    if not pair.significant:
        said = "is equal within 2 % to" if pair.equal else "cannot be told from"
    p = "p < .001" if pair.adjusted < 0.001 else f"p = {_short(pair.adjusted)}"
    return f"{name} {said} {other} ({metric} {_short(sign * pair.mean, '+')}, {p})."


def _short(value: float, sign: str = "") -> str:
    """Three digits behind the point and no zero before it: ``-.086``."""
    return f"{value:{sign}.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:{sign}.3f}"
