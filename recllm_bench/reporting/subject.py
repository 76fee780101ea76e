"""Which row a table is about, and which rows it was to be held against from the start."""

from __future__ import annotations

from collections.abc import Sequence

from recllm_bench.api.registry import is_zoo_name
from recllm_bench.errors import BenchError, nearest
from recllm_bench.models import CEILINGS, COMPARED_OPTIONS, CONTROL_OPTIONS, HISTORY_ROWS, WORD_ROWS
from recllm_bench.reporting.records import RunRecord


def subject_of(records: Sequence[RunRecord], name: str = "") -> int:
    """The row that a table is about.

    Parameters
    ----------
    records : sequence of RunRecord
        Rows of one table.
    name : str
        The row's name, where it is known; else the newest row that reads words, then the newest that is no usual
        baseline, then the newest that is not RecBole's. Rows with words other than the user's own come last.

    Raises
    ------
    BenchError
        When no row has the name.
    """
    rows = sorted(range(len(records)), key=lambda row: (records[row].created, records[row].name), reverse=True)
    if name:
        named = [row for row in rows if records[row].name == name]
        if not named:
            raise BenchError(f"no row is named '{name}'.{nearest(name, [record.name for record in records])}")
        return named[0]
    found = records[min(rows, key=lambda row: _rank(records[row]))].name
    name = compared_as(records, found)
    return next(row for row in rows if records[row].name == name)


def compared_as(records: Sequence[RunRecord], name: str) -> str:
    """The row that stands for another one in claims: the same recipe as it is compared with rows that hear no words.

    Parameters
    ----------
    records : sequence of RunRecord
        Rows of a table.
    name : str
        One of them; it stands for itself where there is no such row.
    """
    asked = next((record.recipe for record in records if record.name == name), {})
    changes = COMPARED_OPTIONS.get(str(asked.get("model")), {})
    wanted = {**asked, "options": {**(asked.get("options") or {}), **changes}}
    return next((record.name for record in records if record.recipe == wanted), name)


def is_control(record: RunRecord) -> bool:
    """Whether a model was tested with words that are not the user's own, with none, or with a part that stands in."""
    talk = record.recipe.get("conversation") or {}
    option = CONTROL_OPTIONS.get(str(record.recipe.get("model")), "")
    if option and option in (record.recipe.get("options") or {}):
        return True
    return talk.get("words", "own") != "own" or bool(talk.get("shuffle_utterances"))


def is_ceiling(record: RunRecord) -> bool:
    """Whether a row is handed the facts behind the words, as no system is."""
    return record.recipe.get("model") in CEILINGS


def planned_rows(records: Sequence[RunRecord], subject: int) -> tuple[list[int], list[int]]:
    """Rows that the subject can be paired with.

    Returns
    -------
    controls : list of int
        Its own model with other words, and what the words give without it.
    baselines : list of int
        Other models with their users' own words; where there are none, the other rows of its own model.
    """
    chosen = records[subject]
    others = [row for row, each in enumerate(records) if row != subject and each.pairs_with(chosen)]
    model = chosen.recipe.get("model")
    controls = [row for row in others if is_control(records[row]) and records[row].recipe.get("model") == model]
    if chosen.block == "text":
        controls += [row for row in others if records[row].recipe.get("model") in WORD_ROWS and row not in controls]
    own = [row for row in others if not is_control(records[row]) and row not in controls]
    baselines = [row for row in own if records[row].recipe.get("model") != model] or own
    return controls, baselines


def _rank(record: RunRecord) -> int:
    """Smaller is likelier to be what a table is about."""
    model = str(record.recipe.get("model", ""))
    if is_control(record):
        return 4
    if record.block == "text" and model not in WORD_ROWS:
        return 0
    if model in (*HISTORY_ROWS, *WORD_ROWS):
        return 3 if _from_zoo(model) else 2
    return 3 if _from_zoo(model) else 1


def _from_zoo(model: str) -> bool:
    try:
        return model.casefold().startswith("recbole:") or is_zoo_name(model)
    except BenchError:
        return False  # a plug-in that is not here
