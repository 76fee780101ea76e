"""Run records: everything a number in a table can be traced to.

A record is a folder: ``run.json`` (:class:`RunRecord`), ``users.parquet`` (one row a case), ``log.jsonl`` and
``recipe.yaml`` (repeats the run). It is written under a temporary name and renamed. Reading ``run.json`` needs
neither torch nor pyarrow.
"""

from __future__ import annotations

import dataclasses
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

SCHEMA = 2
_FILES = ("run.json", "users.parquet", "recipe.yaml", "log.jsonl")


@dataclasses.dataclass
class RunRecord:
    """The content of ``run.json``; this class is the schema's documentation.

    Attributes
    ----------
    name : str
        Name of the row, such as ``"LatentCRS"``.
    block : str
        ``history`` (sees interactions only) or ``text`` (sees words made from the target).
    recipe : dict
        Everything that decided the run (:meth:`Recipe.as_dict`).
    recipe_hash : str
        Its hash.
    dataset : dict
        ``name, filter, variant, checksum`` and the counts of ``PreparedDataset.facts``.
    protocol : dict
        :meth:`Protocol.as_dict`.
    fingerprint : str
        The protocol's fingerprint.
    split : dict
        ``name, checksum, dropped``.
    pairing : str
        Hash of protocol, split and candidate file: only records with the same one are compared in pairs.
    metrics : dict of str to {mean, low, high, n}
        Means over users with 95 % bootstrap intervals.
    dialogue : dict
        ``S@3``, ``S@5``, ``AT`` as in ``metrics``, the counts ``n, invalid, leaks``, ``facts`` of the loop, and
        ``without_leaks``: the means over dialogues in which nothing leaked. Empty without dialogues.
    beyond : dict of str to float
        Catalogue coverage, popularity percentile and novelty of the lists.
    cases : dict
        Counts: ``users, cases, repeats`` (target already in the history) and ``tied_share``.
    stages : dict of str to float
        Seconds each stage took when it was made.
    curves : dict of str to list of [epoch, value]
        Validation metric of each trained stage.
    evaluation_seconds : float
        Seconds of ranking.
    measures : list of Measure
        What a method measures beside the ranking, such as the similarity of reconstructed labels.
    tokens : dict
        Language-model tokens by kind; empty when none were used.
    substitutes : dict of str to str
        What stood in for the paper's language model or simulator.
    notes : list of str
        Budgets and other things that must be said beside the numbers.
    versions, hardware : dict
        Software and machine.
    revision : str
        Commit of the project.
    created : str
        UTC time of writing.
    users_hash : str
        Hash of the per-user values.
    depends : dict
        What the numbers depend on, in groups (:mod:`recllm_bench.reporting.dependence`).
    schema : int
        Version of this layout.
    folder : Path or None
        Where the record lies; no part of the file.
    members : list of RunRecord
        Records of single seeds that a row stands for (``reporting.seeds``); no part of the file.
    """

    name: str
    block: str
    recipe: dict[str, Any]
    dataset: dict[str, Any]
    protocol: dict[str, Any]
    recipe_hash: str = ""
    fingerprint: str = ""
    split: dict[str, Any] = dataclasses.field(default_factory=dict)
    pairing: str = ""
    metrics: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    dialogue: dict[str, Any] = dataclasses.field(default_factory=dict)
    beyond: dict[str, float] = dataclasses.field(default_factory=dict)
    cases: dict[str, float] = dataclasses.field(default_factory=dict)
    stages: dict[str, float] = dataclasses.field(default_factory=dict)
    curves: dict[str, list[list[float]]] = dataclasses.field(default_factory=dict)
    evaluation_seconds: float = 0.0
    measures: list[Measure] = dataclasses.field(default_factory=list)
    tokens: dict[str, float] = dataclasses.field(default_factory=dict)
    substitutes: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    hardware: dict[str, Any] = dataclasses.field(default_factory=dict)
    revision: str = ""
    created: str = ""
    users_hash: str = ""
    depends: dict[str, Any] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA
    folder: Path | None = dataclasses.field(default=None, compare=False, repr=False)
    members: list[RunRecord] = dataclasses.field(default_factory=list, compare=False, repr=False)

    @property
    def training_seconds(self) -> float:
        """Seconds of all stages together."""
        return float(sum(self.stages.values()))

    def as_dict(self) -> dict[str, Any]:
        """Plain values of ``run.json``; where the record lies is no part of it."""
        values = {name: getattr(self, name) for name in _stored()}
        return {**values, "measures": [measure.as_dict() for measure in self.measures]}


def _stored() -> list[str]:
    """Names of what ``run.json`` holds."""
    return [field.name for field in dataclasses.fields(RunRecord) if field.name not in ("folder", "members")]


def make_record(
    *,
    name: str,
    recipe: Recipe,
    block: str,
    dataset: PreparedDataset,
    protocol: Protocol,
    split: Split,
    ranks: Ranks,
    outcomes: Any = None,
    stages: Mapping[str, float] | None = None,
    evaluation_seconds: float = 0.0,
    measures: Sequence[Measure] = (),
    tokens: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
    substitutes: Mapping[str, str] | None = None,
    device: str = "",
    candidates: Candidates | None = None,
    curves: Mapping[str, Sequence[Sequence[float]]] | None = None,
    depends: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Compute a run's metrics with their intervals and gather what it was made with.

    Parameters
    ----------
    name, recipe, block, dataset, protocol, split, stages, evaluation_seconds, measures, tokens, notes, substitutes
        See :class:`RunRecord`; so are ``curves`` and ``depends``.
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
    from recllm_bench.evaluation.statistics import bootstrap
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
        recipe=_plain(recipe.as_dict()),
        recipe_hash=recipe.hash(),
        dataset={
            **dataset.facts,
            "name": dataset.name,
            "filter": dataset.filter,
            "variant": dataset.variant,
            "checksum": dataset.checksum,
        },
        protocol=_plain(protocol.as_dict()),
        fingerprint=protocol.fingerprint(),
        split={"name": split.name, "checksum": split.checksum, "dropped": dict(split.dropped)},
        pairing=content_hash(
            [protocol.fingerprint(), split.checksum, candidates.hash() if candidates is not None else ""]
        ),
        metrics={metric: bootstrap(column).as_dict() for metric, column in values.items()},
        dialogue=dialogue,
        beyond=beyond,
        cases={
            "users": len(user_ids(ranks)),
            "cases": len(ranks),
            "repeats": ranks.repeats,
            "tied_share": share_with_ties(ranks),
        },
        stages={stage: float(seconds) for stage, seconds in (stages or {}).items()},
        curves={stage: [list(point) for point in points] for stage, points in (curves or {}).items()},
        evaluation_seconds=round(evaluation_seconds, 3),
        measures=list(measures),
        tokens=dict(tokens or {}),
        substitutes=dict(substitutes or {}),
        notes=list(notes),
        versions=machine["versions"],
        hardware=machine["hardware"],
        revision=machine["revision"],
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        users_hash=users_hash(ranks, outcomes),
        depends=_plain(depends or {}),
    )


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
    folder : Path
        Final folder.
    record : RunRecord
        What ``run.json`` holds.
    ranks : Ranks
        Per-user places.
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


def share_record(folder: Path, root: Path) -> Path:
    """Copy a record without what belongs to the dataset's owner, so that it may be published.

    Metrics, manifest, recipe, log and per-user ranks stay; target ids and dialogues (which hold titles) do not.

    Parameters
    ----------
    folder : Path
        A finished record.
    root : Path
        Folder of the copies.

    Returns
    -------
    Path
        The copy, from which tables and paired tests can be made again.

    Raises
    ------
    BenchError
        When the record is not as it was written.
    """
    from recllm_bench.reporting.users_file import drop_targets
    from recllm_bench.reporting.verification import verify_record

    verify_record(folder)
    copy = Path(root) / Path(folder).name
    copy.mkdir(parents=True, exist_ok=True)
    for name in ("run.json", "recipe.yaml", "log.jsonl"):
        if (Path(folder) / name).exists():
            shutil.copy2(Path(folder) / name, copy / name)  # the time orders the rows
    drop_targets(Path(folder) / "users.parquet", copy / "users.parquet")
    return copy


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
        record = RunRecord(**{key: value for key, value in values.items() if key in _stored()})
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


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON keeps it (tuples become lists), so that a record equals itself when read again."""
    return json.loads(json.dumps(values, default=str))


def _dialogue_facts(outcomes: Any, protocol: Protocol) -> dict[str, Any]:
    import numpy as np

    from recllm_bench.evaluation.dialogue import INVALID, dialogue_values
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
    return head + yaml.safe_dump(_plain(record.recipe), sort_keys=False, allow_unicode=True)
