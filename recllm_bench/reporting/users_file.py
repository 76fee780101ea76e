"""The per-user part of a run record: ``users.parquet``, one row a case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from recllm_bench.errors import BenchError

if TYPE_CHECKING:
    import numpy as np

    from recllm_bench.data.prepared import PreparedDataset
    from recllm_bench.data.splits import Split
    from recllm_bench.evaluation.places import Ranks
    from recllm_bench.reporting.record import RunRecord

_COLUMNS = {
    "users": "user",
    "targets": "target",
    "lengths": "history_length",
    "higher": "higher",
    "tied": "tied",
    "candidates": "candidates",
}
_NO_DIALOGUE = -2
DIALOGUE_METRICS = ("S@3", "S@5", "AT")


def write_users(path: Path, ranks: Ranks, outcomes: Any) -> None:
    """Write one row a case: ``user, target, history_length, higher, tied, candidates`` and, with dialogues, ``turns``.

    Dialogues of users without a case get rows of their own, with nulls. What still fits before each turn stands in
    ``fit_1``, ``fit_2``, ..., null where the turn was not held.

    Parameters
    ----------
    outcomes : object or None
        Dialogues: ``users`` and ``turns``, int [n] each.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    lengths = np.zeros(len(ranks.users)) if ranks.lengths is None else ranks.lengths
    places = {"lengths": lengths, **{name: getattr(ranks, name) for name in _COLUMNS if name != "lengths"}}
    columns = {name: np.asarray(places[name], dtype=np.int64) for name in _COLUMNS}
    missing = np.zeros(len(ranks.users), dtype=bool)
    turns = np.full(len(ranks.users), _NO_DIALOGUE)
    if outcomes is not None:
        users, held = np.asarray(outcomes.users, dtype=np.int64), np.asarray(outcomes.turns, dtype=np.int64)
        known, first = np.unique(columns["users"], return_index=True)
        at = np.minimum(np.searchsorted(known, users), len(known) - 1)
        inside = known[at] == users
        turns[first[at[inside]]] = held[inside]
        extra = np.zeros(int((~inside).sum()), dtype=np.int64)
        columns = {name: np.concatenate([column, extra]) for name, column in columns.items()}
        columns["users"][len(missing) :] = users[~inside]
        missing = np.concatenate([missing, np.ones(len(extra), dtype=bool)])
        turns = np.concatenate([turns, held[~inside]])
        fitting = getattr(outcomes, "left", np.zeros((len(users), 0)))
        left = np.full((len(turns), fitting.shape[1]), -1)
        left[first[at[inside]]], left[len(turns) - len(extra) :] = fitting[inside], fitting[~inside]
    table = {name: pa.array(columns[key], mask=None if key == "users" else missing) for key, name in _COLUMNS.items()}
    if outcomes is not None:
        table["turns"] = pa.array(turns, mask=turns == _NO_DIALOGUE)
        table |= {f"fit_{turn}": pa.array(column, mask=column < 0) for turn, column in enumerate(left.T, 1)}
    pq.write_table(pa.table(table), path, compression="zstd")


def drop_targets(source: Path, copy: Path) -> None:
    """Copy the file with every target id set to 0; metrics do not need them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(source)
    place = table.column_names.index(_COLUMNS["targets"])
    zeros = pa.array(np.zeros(len(table), dtype=np.int64))
    pq.write_table(table.set_column(place, _COLUMNS["targets"], zeros), copy, compression="zstd")


def users_hash(ranks: Ranks, outcomes: Any) -> str:
    """Hash of everything the file's statistics depend on; the order of dialogues is no part of it."""
    import numpy as np

    arrays = [ranks.users, ranks.targets, ranks.higher, ranks.tied]
    if ranks.lengths is not None:
        arrays.append(ranks.lengths)
    if outcomes is not None:
        order = np.argsort(outcomes.users, kind="stable")
        arrays += [np.asarray(column)[order] for column in (outcomes.users, outcomes.turns)]
    return _hash(arrays)


def check_users(record: RunRecord, columns: Mapping[str, np.ndarray]) -> None:
    """Compare a file's columns with the hash that the record keeps.

    A copy without target ids (:func:`drop_targets`) cannot be compared. Whether the ranks had lengths the file does not
    tell, so that both are tried.

    Raises
    ------
    BenchError
        When the file is of another run, cut or edited.
    """
    import numpy as np

    ranked, held = columns["tied"] > 0, columns["turns"] != _NO_DIALOGUE
    if not record.users_hash or not columns["targets"].any():
        return
    places = [columns[name][ranked] for name in ("users", "targets", "higher", "tied")]
    order = np.flatnonzero(held)[np.argsort(columns["users"][held], kind="stable")]
    dialogues = [columns["users"][order], columns["turns"][order]] if len(order) else []
    for lengths in ([columns["lengths"][ranked]], []):
        if _hash([*places, *lengths, *dialogues]) == record.users_hash:
            return
    raise BenchError(
        f"{_path(record)} holds other values than the record was made with (its hash is not {record.users_hash})"
    )


def _hash(arrays: Iterable[np.ndarray]) -> str:
    import hashlib

    import numpy as np

    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
    return digest.hexdigest()[:16]


def read_ranks(record: RunRecord) -> Any:
    """Per-user places of a record: ``users, targets, lengths, higher, tied, candidates`` as in ``Ranks``.

    Raises
    ------
    BenchError
        When ``users.parquet`` is missing, damaged or of another run (so for all that reads values).
    """
    columns = _read_users(record)
    ranked = columns["tied"] > 0
    return SimpleNamespace(**{name: columns[name][ranked] for name in _COLUMNS})


def user_values(record: RunRecord) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Per-user metric values of a record.

    Returns
    -------
    users : int64 [n]
    values : dict of str to float64 [n]
    """
    from recllm_bench.evaluation.metrics import per_user, user_ids

    ranks = read_ranks(record)
    ties, facts = record.protocol.get("ties", "expected"), record_facts(record)
    values = per_user(ranks, record.metrics, (), ties, warn=False, facts=facts)
    return user_ids(ranks), values


def record_facts(record: RunRecord) -> dict[str, Callable[[], Any]]:
    """What a metric may need of a record's data (see ``api.metric.FACTS``), prepared again when it is asked for."""

    @cache
    def data() -> dict[str, Callable[[], Any]]:
        from recllm_bench.evaluation.own_metrics import data_facts

        dataset, split = record_data(record)
        return data_facts(split, dataset.catalogue)

    return {"popularity": lambda: data()["popularity"](), "titles": lambda: data()["titles"]()}


class RecordData(NamedTuple):
    """The data that a record was run on."""

    dataset: PreparedDataset
    split: Split


def record_data(record: RunRecord) -> RecordData:
    """The data that a record was run on, prepared again.

    Raises
    ------
    BenchError
        When they have changed since.
    """
    from recllm_bench.conversation.real_users import evaluated_data
    from recllm_bench.data.cards import default_store
    from recllm_bench.evaluation.protocols import Protocol

    stored = {name: record.protocol[name] for name in ("split", "dialogues") if name in record.protocol}
    params = tuple((name, value) for name, value in record.protocol.get("split_params") or ())
    rules = Protocol("recorded", filter=record.dataset["filter"], split_params=params, **stored)
    dataset, split = evaluated_data(record.recipe["dataset"], rules, default_store())
    if split.checksum != record.split["checksum"]:
        raise BenchError(f"{dataset.name} is no longer the data that {record.name} was run on; run it again")
    return RecordData(dataset, split)


def dialogue_outcomes(record: RunRecord) -> tuple[np.ndarray, np.ndarray]:
    """Users and turns of a record's dialogues, int64 [n] each."""
    columns = _read_users(record)
    held = columns["turns"] != _NO_DIALOGUE
    return columns["users"][held], columns["turns"][held]


def dialogue_values_of(record: RunRecord, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Users (int64 [n]) and values (float64 [n]) of a dialogue metric; NaN for dialogues that could not be held."""
    import numpy as np

    from recllm_bench.evaluation.dialogue_outcomes import INVALID, success_at, turn_counts

    users, turns = dialogue_outcomes(record)
    values = np.full(len(turns), np.nan)
    held = turns != INVALID
    if metric != "AT":
        values[held] = success_at(turns[held], int(metric.partition("@")[2]))
    elif record.protocol.get("at_failure") != "exclude":  # else successes only: other dialogues for every model
        most = int(record.protocol.get("turns") or 5)
        values[held] = turn_counts(turns[held], most, record.protocol.get("at_failure", "max_turns"))
    return users, values


def _path(record: RunRecord) -> Path:
    if record.folder is None:
        raise BenchError(f"the record of {record.name} has no folder; read it with read_record")
    return record.folder / "users.parquet"


def _read_users(record: RunRecord) -> dict[str, np.ndarray]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = _path(record)
    try:
        table = pq.read_table(path)
        columns = {key: _whole_numbers(table[name], 0) for key, name in _COLUMNS.items()}
        columns["turns"] = np.full(len(table), _NO_DIALOGUE)
        if "turns" in table.column_names:
            columns["turns"] = _whole_numbers(table["turns"], _NO_DIALOGUE)
    except FileNotFoundError as error:
        raise BenchError(f"{path} is missing; run the cell again") from error
    except KeyError as error:
        raise BenchError(f"{path} lacks the column {error}; run the cell again") from error
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
        raise BenchError(f"{path} cannot be read ({line}); run the cell again") from error
    if not len(table):
        raise BenchError(f"{path} has no rows; run the cell again")
    check_users(record, columns)
    return columns


def _whole_numbers(column: Any, missing: int) -> np.ndarray:
    import pyarrow as pa

    return column.cast(pa.int64()).fill_null(missing).to_numpy()
