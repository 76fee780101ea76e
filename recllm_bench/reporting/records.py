"""Run records: everything a number in a table can be traced to.

A record is a folder: ``run.json`` (:class:`RunRecord`), ``users.parquet`` (one row a case), ``log.jsonl`` and
``recipe.yaml`` (repeats the run). It is written under a temporary name and renamed. Reading ``run.json`` needs
neither torch nor pyarrow.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recllm_bench.api.measure import Measure
from recllm_bench.artifacts import content_hash, write_json
from recllm_bench.errors import BenchError
from recllm_bench.reporting.record import SCHEMA, RunRecord, stored_fields
from recllm_bench.reporting.record_values import check_types, read_values, sealed
from recllm_bench.reporting.users_file import users_hash, write_users

if TYPE_CHECKING:
    import numpy as np

    from recllm_bench.data.prepared import PreparedDataset
    from recllm_bench.data.splits import Split
    from recllm_bench.evaluation.candidates import Candidates
    from recllm_bench.evaluation.places import Ranks
    from recllm_bench.evaluation.protocols import Protocol
    from recllm_bench.recipe import Recipe

_FILES = ("run.json", "users.parquet", "recipe.yaml", "log.jsonl")


def make_record(
    *,
    name: str,
    recipe: Recipe,
    block: str,
    speaker: Mapping[str, Any] | None = None,
    dataset: PreparedDataset,
    protocol: Protocol,
    split: Split,
    ranks: Ranks,
    outcomes: Any = None,
    stages: Mapping[str, float] | None = None,
    evaluation_seconds: float = 0.0,
    answer_seconds: float = 0.0,
    measures: Sequence[Measure] = (),
    tokens: Mapping[str, float] | None = None,
    costs: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
    substitutes: Mapping[str, str] | None = None,
    device: str = "",
    candidates: Candidates | None = None,
    curves: Mapping[str, Sequence[Sequence[float]]] | None = None,
    losses: Mapping[str, Sequence[Sequence[float]]] | None = None,
    depends: Mapping[str, Any] | None = None,
    model_name: str = "",
    changed: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Compute a run's metrics with their intervals and gather what it was made with.

    Parameters
    ----------
    name, recipe, block, speaker, dataset, protocol, split, stages, evaluation_seconds, answer_seconds, measures, tokens
        See :class:`RunRecord`; so are ``notes``, ``substitutes``, ``curves``, ``losses``, ``depends`` and all below.
    ranks : Ranks
        From ``rank_cases``.
    outcomes : object, optional
        Dialogues: ``turns`` (int [n], see ``evaluation.dialogue``), ``users`` (int [n]) and, where counted,
        ``leaks`` (int [n], 1 for a dialogue with a leak), ``tokens`` (mapping) and ``facts()`` (mapping).
    device : str
        Torch device of the run.
    candidates : Candidates, optional
        The candidate file of a sampled protocol.
    """
    from recllm_bench.evaluation.metrics import beyond_accuracy, per_user, share_with_ties, user_ids
    from recllm_bench.evaluation.own_metrics import data_facts, training_popularity
    from recllm_bench.reporting.machine import machine_facts

    facts = data_facts(split, getattr(dataset, "catalogue", None))
    values = per_user(ranks, protocol.metrics, protocol.cutoffs, protocol.ties, facts=facts)
    dialogue = {} if outcomes is None else _dialogue_facts(outcomes, protocol)
    if outcomes is not None:
        tokens = tokens or getattr(outcomes, "tokens", None)
    beyond: dict[str, float] = {}
    if ranks.top is not None:
        beyond = beyond_accuracy(ranks.top, training_popularity(split), min(10, ranks.top.shape[1]))
    machine = machine_facts(device)
    return RunRecord(
        name=name,
        block=block,
        speaker=_as_stored(speaker or {}),
        recipe=_as_stored(recipe.as_dict()),
        recipe_hash=recipe.hash(),
        dataset={
            **dataset.facts,
            "name": dataset.name,
            "filter": dataset.filter,
            "variant": dataset.variant,
            "checksum": dataset.checksum,
        },
        protocol=_as_stored(protocol.as_dict()),
        fingerprint=protocol.fingerprint(),
        split={"name": split.name, "checksum": split.checksum, "dropped": dict(split.dropped)},
        pairing=content_hash(
            [protocol.fingerprint(), split.checksum, candidates.hash() if candidates is not None else ""]
        ),
        metrics=measured(values),
        dialogue=dialogue,
        beyond=beyond,
        cases={
            "users": len(user_ids(ranks)),
            "cases": len(ranks),
            "repeats": ranks.repeats,
            "tied_share": share_with_ties(ranks),
        },
        stages={stage: float(seconds) for stage, seconds in (stages or {}).items()},
        curves=_as_stored(curves or {}),
        losses=_as_stored(losses or {}),
        evaluation_seconds=round(evaluation_seconds, 3),
        answer_seconds=round(answer_seconds, 3),
        measures=list(measures),
        tokens=dict(tokens or {}),
        costs={name: float(value) for name, value in (costs or {}).items()},
        substitutes=dict(substitutes or {}),
        notes=list(notes),
        versions=machine["versions"],
        hardware=machine["hardware"],
        revision=machine["revision"],
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        users_hash=users_hash(ranks, outcomes),
        depends=_as_stored(depends or {}),
        model_name=model_name,
        changed=None if changed is None else _as_stored(changed),
    )


def measured(values: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Mean and interval of each metric's values; somebody's own metric has the hash of its source as ``code``."""
    from recllm_bench.evaluation.metrics import metric_code
    from recllm_bench.evaluation.statistics import bootstrap

    facts: dict[str, dict[str, Any]] = {name: dict(bootstrap(column).as_dict()) for name, column in values.items()}
    for name in facts:
        if code := metric_code(name):
            facts[name]["code"] = code
    return facts


def write_record(
    folder: Path,
    record: RunRecord,
    ranks: Ranks,
    outcomes: Any = None,
    log: Path | None = None,
    attachments: Mapping[str, Callable[[Path], None]] | None = None,
) -> Path:
    """Write a record whole or not at all; an older record of the same name is replaced.

    Parameters
    ----------
    outcomes : object, optional
        Dialogue outcomes, see :func:`make_record`.
    log : Path, optional
        Log file to move into the record as ``log.jsonl``.
    attachments : mapping, optional
        Further files by name, and what writes each.

    Raises
    ------
    BenchError
        When the disk is full or the folder may not be written.
    """
    folder = Path(folder)
    check_writable(folder.parent)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write_users(work / "users.parquet", ranks, outcomes)
        if log is not None and Path(log).exists():
            shutil.copyfile(log, work / "log.jsonl")
        for name, write in (attachments or {}).items():
            write(work / name)
        (work / "recipe.yaml").write_text(_recipe_text(record), encoding="utf-8")
        write_json(work / "run.json", sealed(record.as_dict()))
        os.chmod(work, 0o755)
        _swap(work, folder)
        if log is not None:
            Path(log).unlink(missing_ok=True)
    except OSError as error:
        raise BenchError(
            f"cannot write the run record {folder.name} ({error.strerror}); free space, or set RECLLM_RESULTS to a "
            "folder you may write; the trained model is kept and the next run goes on from it"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    record.folder = folder
    return folder


def read_record(folder: Path) -> RunRecord:
    """Read ``run.json``.

    Raises
    ------
    BenchError
        When the folder is no record, is damaged or edited, or was written by a newer version.
    """
    path = Path(folder) / "run.json"
    values = read_values(path, SCHEMA)
    if isinstance(values.get("measures"), dict):  # the first schema had a value by name
        values["measures"] = [{"name": name, "value": value} for name, value in values["measures"].items()]
    hints = typing.get_type_hints(RunRecord)
    check_types(values, hints, path)
    try:
        record = RunRecord(**{key: value for key, value in values.items() if key in stored_fields()})
        record.measures = [Measure.of(facts) for facts in values.get("measures", [])]
    except (TypeError, ValueError, KeyError) as error:
        raise BenchError(f"{path} is damaged ({error})") from error
    record.folder = Path(folder)
    return record


def find_records(root: Path) -> list[Path]:
    """Folders of finished records below ``root``, oldest first."""
    found = []
    for path in Path(root).rglob("run.json"):
        try:
            if not path.parent.name.startswith("."):
                found.append((path.stat().st_mtime, str(path), path.parent))
        except OSError:
            continue  # removed meanwhile, or a link to nowhere
    return [folder for _, _, folder in sorted(found)]


def check_writable(folder: Path) -> None:
    """Refuse early what would fail after hours of training.

    Raises
    ------
    BenchError
        When no file can be made in the folder.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".write-test-"):
            pass
    except OSError as error:
        raise BenchError(
            f"{folder} cannot be written ({error.strerror}); set RECLLM_RESULTS to a folder you may write"
        ) from error


def _as_stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON keeps it (tuples become lists), so that a record equals itself when read again."""
    return json.loads(json.dumps(values, default=str))


def _dialogue_facts(outcomes: Any, protocol: Protocol) -> dict[str, Any]:
    import numpy as np

    from recllm_bench.evaluation.dialogue_outcomes import INVALID, dialogue_values
    from recllm_bench.evaluation.statistics import bootstrap

    turns = np.asarray(outcomes.turns)

    def means(turns: np.ndarray) -> dict[str, Any]:
        held = dialogue_values(turns, protocol.turns or 5, protocol.at_failure)
        return {metric: bootstrap(column).as_dict() for metric, column in held.items() if len(column)}

    facts: dict[str, Any] = means(turns)
    facts["n"] = int((turns != INVALID).sum())
    facts["invalid"] = int((turns == INVALID).sum())
    leaks = np.broadcast_to(np.asarray(getattr(outcomes, "leaks", 0)), turns.shape) > 0
    facts["leaks"] = int(leaks.sum())
    if leaks.any() and not leaks.all():
        facts["without_leaks"] = means(turns[~leaks])
    if hasattr(outcomes, "facts"):
        facts["facts"] = outcomes.facts()
    return facts


def _swap(work: Path, folder: Path) -> None:
    """Put the finished folder in place; the old one, if any, goes only then."""
    if not folder.exists():
        os.replace(work, folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    os.replace(folder, old)  # an empty folder may be replaced
    os.replace(work, folder)
    shutil.rmtree(old, ignore_errors=True)


def _recipe_text(record: RunRecord) -> str:
    import yaml

    head = (
        f"# Repeats this run: {record.name} on {record.dataset.get('name', '')}, {record.protocol.get('name', '')}.\n"
    )
    return head + yaml.safe_dump(_as_stored(record.recipe), sort_keys=False, allow_unicode=True)
