"""Which row a table is about, and which rows it was to be held against from the start."""

from __future__ import annotations

from collections.abc import Sequence

from recllm_bench.api.registry import is_zoo_name
from recllm_bench.errors import BenchError, nearest
from recllm_bench.models import CEILINGS, COMPARED_OPTIONS, CONTROL_OPTIONS, HISTORY_ROWS, WORD_ROWS
from recllm_bench.reporting.record_families import mean_of
from recllm_bench.reporting.records import RunRecord


def subject_of(records: Sequence[RunRecord], name: str = "", metric: str = "", *, but: int | None = None) -> int:
    """The row that a table is about.

    Parameters
    ----------
    records : sequence of RunRecord
        Rows of one table.
    name : str
        As :func:`row_named` takes it, where it is known. Else the best row of these kinds, the first that there is:
        methods that read words, other methods, this bench's baselines, RecBole's models, what the words give without a
        method, controls. When a row was made plays no part.
    metric : str
        What is best.
    but : int, optional
        A row that it cannot be: the baseline.

    Raises
    ------
    BenchError
        When no row has the name.
    """
    if name:
        return row_named(records, name)
    rows = [row for row in range(len(records)) if row != but] or [0]
    order = {row: (_rank(records[row]), -mean_of(records[row], metric), records[row].name) for row in rows}
    found = compared_as(records, min(rows, key=lambda row: order[row]))
    return min(rows, key=lambda row: order[row]) if found == but else found


def row_named(records: Sequence[RunRecord], name: str) -> int:
    """The row of a name: the row's, its record's folder's, its beginning or its model's (these mean no control).

    Raises
    ------
    BenchError
        When there is none, or a model's name fits several.
    """
    for names in ([record.name for record in records], [row_key(record) for record in records]):
        if name in names:
            return names.index(name)
    folders = {member.folder.name: row for row, each in enumerate(records) for member in each.members if member.folder}
    if name in folders:
        return folders[name]
    named = [row for row, record in enumerate(records) if record.name.startswith(f"{name}, ")]
    named = named or [
        row for row, each in enumerate(records) if each.recipe.get("model", "").casefold() == name.casefold()
    ]
    own = [row for row in named if not is_control(records[row])] or named
    if len(own) == 1:
        return own[0]
    if own:
        raise BenchError(
            f"'{name}' is the model of several rows; name one: {'; '.join(records[row].name for row in own)}"
        )
    rows = [each.name for each in records]
    near = nearest(name, [*rows, *(str(each.recipe.get("model", "")) for each in records)])
    if not near.startswith(" Did"):  # names have commas of their own
        near = f" The rows: {'; '.join(rows[:8])}" + (f"; and {len(rows) - 8} more" if len(rows) > 8 else "")
    raise BenchError(f"no row is named '{name}'.{near}")


def has_row(records: Sequence[RunRecord], name: str) -> bool:
    """Whether :func:`row_named` finds a row."""
    try:
        return row_named(records, name) >= 0
    except BenchError:
        return False


def row_key(record: RunRecord) -> str:
    """What names a record and no other: its folder, where it has one."""
    return record.folder.name if record.folder else record.name


def compared_as(records: Sequence[RunRecord], row: int) -> int:
    """The row that stands for another one in claims: the same recipe as it is compared with rows that hear no words.

    Parameters
    ----------
    records : sequence of RunRecord
        Rows of a table.
    row : int
        One of them; it stands for itself where there is no such row.
    """
    asked = records[row].recipe
    changes = COMPARED_OPTIONS.get(str(asked.get("model")), {})
    wanted = {**asked, "options": {**(asked.get("options") or {}), **changes}}
    return next((at for at, record in enumerate(records) if record.recipe == wanted), row)


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
        return 6
    if record.block == "text" and model not in WORD_ROWS:
        return 0
    if model in WORD_ROWS:
        return 5 if model in CEILINGS else 4
    if _from_zoo(model):
        return 3
    return 2 if model in HISTORY_ROWS else 1


def _from_zoo(model: str) -> bool:
    try:
        return model.casefold().startswith("recbole:") or is_zoo_name(model)
    except BenchError:
        return False  # a plug-in that is not here
