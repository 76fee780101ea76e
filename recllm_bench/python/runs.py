"""One finished cell of the bench, and cells held against each other."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from recllm_bench.artifacts import MANIFEST, ArtifactStore
from recllm_bench.errors import BenchError
from recllm_bench.python.datasets import Dataset, dataset_name, load_dataset
from recllm_bench.python.run_tables import Table
from recllm_bench.reporting.users_file import DIALOGUE_METRICS

if TYPE_CHECKING:
    import pandas as pd

    from recllm_bench.evaluation.protocols import Protocol
    from recllm_bench.recipe import Recipe
    from recllm_bench.reporting.records import RunRecord

OUTSIDE = "outside"
"""``model`` in the recipe of a record whose scores the bench did not make."""
_OTHER_KEYS = ("compare", "about", "published")  # of a recipe, about other rows or for people


def run(
    model: str | type | None = None,
    dataset: str | Path | Dataset | None = None,
    *,
    protocol: str | Protocol = "",
    seed: SupportsIndex | None = None,
    options: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    conversation: Mapping[str, Any] | None = None,
    device: Any = "",
    modules: Sequence[str | Path] = (),
    recipe: str | Path | Mapping[str, Any] | None = None,
    label: str = "",
    again: bool = False,
) -> Run:
    """Train and evaluate a model on a dataset; what has been trained or measured before is not done again.

    Parameters
    ----------
    model : str or type
        A name (``latentcrs``, ``recbole:SASRec``, ``my_module:MyModel``), or a class that can be imported.
    dataset : str, Path or Dataset
        A name, a path to data of your own, or what :func:`load_dataset` gave. By default ``ml-100k``.
    protocol : str
        Evaluation protocol; by default the recipe's, else the model's own.
    seed : int, optional
        Of initialisation, data order, dropout and sampling; by default 42.
    options, training, conversation : mapping, optional
        Changes to the recipe that ships for the pair; ``recllm-bench options MODEL`` lists all that can be set.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    modules : sequence of str or Path
        Python files of your own that are loaded first, for the models, datasets, metrics and so on that they add.
    recipe : str, Path or mapping, optional
        A recipe (name, file or values) in place of the shipped one; what is given beside it wins.
    label : str
        Name of the row where the model's own does not serve.
    again : bool
        Evaluate again even when there is a record.

    Returns
    -------
    Run

    Raises
    ------
    BenchError
        In one line, for every mistake that can be mended.
    """
    from recllm_bench.api.modules import load_modules
    from recllm_bench.planning import comparison_recipes
    from recllm_bench.rows import run_cells

    load_modules(modules)  # they may define what is named here
    values, where = _values(model, dataset, _protocol_name(protocol), recipe)
    if modules:
        values["modules"] = [*(values.get("modules") or ()), *map(str, modules)]
    changes = {"options": options, "training": training, "conversation": conversation}
    for section, change in changes.items():
        if change is not None and not isinstance(change, Mapping):
            raise BenchError(f"{section} must be a mapping such as {{'name': value}}, got {change!r}")
        if change:
            values[section] = {**(values.get(section) or {}), **change}
    if seed is not None:
        values["seed"] = _whole(seed, "seed")
        values.pop("seeds", None)
    if str(device):
        values["device"] = str(device)
    ((_, chosen),) = comparison_recipes({**values, "compare": []}, where)
    (folder,) = run_cells([(label, chosen)], again=again).folders
    return Run.read(folder)


def compare(
    rows: Sequence[Run | RunRecord | str | Path],
    dataset: str | Path | Dataset | None = None,
    protocol: str | Protocol = "",
    *,
    seeds: Sequence[SupportsIndex] = (),
    baseline: str = "best",
    metrics: Sequence[str] | None = None,
) -> Table:
    """Test runs against each other: same users, paired differences, corrected for the number of tests.

    Parameters
    ----------
    rows : sequence of Run, RunRecord, folder or str
        Runs, records or their folders; the name of a model runs it by its own recipe. The last one is the subject,
        held against every other row.
    dataset : str, optional
        Where names are run; by default the dataset of the runs beside them.
    protocol : str, optional
        How; by default the protocol of the runs beside them, else that of the last model named.
    seeds : sequence of int
        Seeds that names are run under, each model once for each; by default 42 alone.
    baseline : str
        ``best``, or the name of a row that all others are held against.
    metrics : sequence of str, optional
        Columns such as ``"NDCG@10"``; by default a readable selection.

    Returns
    -------
    Table

    Raises
    ------
    BenchError
        When rows were measured on different datasets or under different protocols.
    """
    if isinstance(rows, (str, Run)) or not isinstance(rows, Sequence):
        raise BenchError("compare takes a list of runs or model names, such as compare([run, 'pop'])")
    found = [_existing(row) for row in rows]
    known = [record for record in found if record is not None]
    if dataset is None:
        if not known and rows:
            raise BenchError("compare: say on which data the models are run, such as dataset='ml-100k'")
        dataset = str(known[-1].recipe["dataset"]) if known else ""
    rules = _protocol_name(protocol)
    if not rules and known:
        rules = str(known[-1].recipe["protocol"])
    elif not rules and rows:
        from recllm_bench.api.registry import model_named

        rules = model_named(str(rows[-1])).default_protocol
    records = []
    for row, record in zip(rows, found, strict=True):
        if record is not None:
            records.append(record)
        else:
            records += [run(str(row), dataset, protocol=rules, seed=seed).record for seed in seeds or (None,)]
    places = {f"{record.dataset.get('name')} under {record.protocol.get('name')}" for record in records}
    if len({(record.dataset.get("name"), record.fingerprint) for record in records}) > 1:
        raise BenchError(f"compare: one table holds one dataset under one protocol, got {' and '.join(sorted(places))}")
    return Table(records, baseline, metrics)


@dataclass(frozen=True, eq=False)
class Run:
    """One finished cell of the bench: a model on a dataset under a protocol.

    Attributes
    ----------
    record : RunRecord
        Everything that was measured, and with what.
    """

    record: RunRecord

    @classmethod
    def read(cls, folder: str | Path) -> Run:
        """The run whose record lies in a folder.

        Raises
        ------
        BenchError
            When there is none.
        """
        from recllm_bench.reporting.records import read_record

        return cls(read_record(Path(folder)))

    @property
    def name(self) -> str:
        """Its row in tables."""
        return self.record.name

    @property
    def folder(self) -> Path:
        """Where the record lies."""
        if self.record.folder is None:
            raise BenchError(f"the record of {self.name} has no folder; read it with Run.read(folder)")
        return self.record.folder

    @property
    def metrics(self) -> dict[str, float]:
        """Mean of each metric over users, such as ``{"NDCG@10": 0.07}``; with dialogues S@3, S@5 and AT too."""
        return {name: float(facts["mean"]) for name, facts in self._measured.items()}

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % interval of each metric."""
        return {name: (float(facts["low"]), float(facts["high"])) for name, facts in self._measured.items()}

    @property
    def _measured(self) -> dict[str, Mapping[str, float]]:
        talked = {name: self.record.dialogue[name] for name in DIALOGUE_METRICS if name in self.record.dialogue}
        return {**self.record.metrics, **talked}

    @cached_property
    def cases(self) -> pd.DataFrame:
        """One row for each target.

        ``user, target, history_length``; ``higher`` candidates score above the target and ``tied`` have its score
        (itself included) among ``candidates``; ``rank`` is the mean rank over orders of the tied, NaN for a target
        that got no score.
        """
        import pandas as pd

        from recllm_bench.evaluation.places import UNRANKED
        from recllm_bench.reporting.users_file import read_ranks

        ranks = read_ranks(self.record)
        names = {"users": "user", "targets": "target", "lengths": "history_length"}
        columns = ("users", "targets", "lengths", "higher", "tied", "candidates")
        frame = pd.DataFrame({names.get(name, name): getattr(ranks, name) for name in columns})
        frame["rank"] = (frame.higher + (frame.tied + 1) / 2).where(frame.higher < UNRANKED)
        return frame

    @cached_property
    def users(self) -> pd.DataFrame:
        """One row for each user (index ``user``): every metric, ``rank`` (mean over the user's targets), ``targets``.

        Column means are :attr:`metrics`. With dialogues, ``turns``: the turn in which the target was found, 0 for none.
        """
        import pandas as pd

        from recllm_bench.reporting.users_file import dialogue_outcomes, user_values

        users, values = user_values(self.record)
        frame = pd.DataFrame(values, index=pd.Index(users, name="user"))
        grouped = self.cases.groupby("user")
        frame["rank"], frame["targets"] = grouped["rank"].mean(), grouped.size()
        if self.record.dialogue:
            talked, turns = dialogue_outcomes(self.record)
            frame = frame.join(pd.Series(turns, index=pd.Index(talked, name="user"), name="turns"), how="outer")
        return frame

    @cached_property
    def dataset(self) -> Dataset:
        """The data it was measured on, under the protocol's filter."""
        return load_dataset(self.record.recipe["dataset"], self.record.dataset["filter"])

    def load(self) -> Any:
        """The trained model in evaluation mode, from its finished stages; nothing is trained.

        Raises
        ------
        BenchError
            When a stage is no longer in the cache, or the scores came from outside.
        """
        from recllm_bench.data.cards import default_store
        from recllm_bench.recipe import recipe_from
        from recllm_bench.runner import BenchCell

        if self.record.recipe["model"] == OUTSIDE:
            raise BenchError(f"{self.name}: its scores came from outside, so there is no model to load")
        recipe: Recipe = recipe_from(self.record.recipe, f"the record of {self.name}")
        store = _FinishedOnly(default_store().root, self.name)
        return BenchCell(recipe, self.name, store).cell.load()

    def table(self) -> str:
        """The run alone, as the command line prints it."""
        return repr(Table([self.record]))

    def __repr__(self) -> str:
        record = self.record
        means = ", ".join(f"{name} {self.metrics[name]:.4f}" for name in list(self.metrics)[:4])
        return f"<Run {self.name} on {record.dataset.get('name')}, {record.protocol.get('name')}: {means}>"

    def _repr_html_(self) -> str:
        return Table([self.record])._repr_html_()


class _FinishedOnly(ArtifactStore):
    """A store that hands out finished stages and makes none; data and vectors are still made where they lack."""

    def __init__(self, root: Path, name: str) -> None:
        super().__init__(root)
        self._name = name

    def build(self, kind: str, key: Mapping[str, Any], make: Callable[[Path], Any]) -> Path:
        if "stage" in key and not (self.path(kind, key) / MANIFEST).exists():
            raise BenchError(
                f"{self._name}: its stage '{key['stage']}' is no longer in {self.root}; train it again with "
                "run(..., again=True) and the same arguments"
            )
        return super().build(kind, key, make)


def model_name(model: str | type) -> str:
    """The name under which the registry finds a model.

    Raises
    ------
    BenchError
        For what is neither a name nor a class that can be imported again.
    """
    if isinstance(model, str) and model:
        return model
    if not isinstance(model, type):
        raise BenchError(f"a model is a name or a class, got {model!r}; scores of your own go to evaluate(...)")
    if model.__module__ == "__main__" or "<locals>" in model.__qualname__:
        raise BenchError(
            f"{model.__name__} lives in this session only, and a record must find its class again; write it into a "
            f"file and give 'file:{model.__name__}'"
        )
    return f"{model.__module__}:{model.__qualname__}"


def _values(
    model: str | type | None,
    dataset: str | Path | Dataset | None,
    protocol: str,
    recipe: str | Path | Mapping[str, Any] | None,
) -> tuple[dict[str, Any], str]:
    """A recipe's values, and what messages call them."""
    from recllm_bench.planning import recipe_values
    from recllm_bench.recipe import read_recipe_file

    if recipe is None:
        if model is None:
            raise BenchError("run: name a model, such as run('sasrec', 'ml-100k'), or give a recipe")
        name, data = model_name(model), dataset_name("ml-100k" if dataset is None else dataset)
        return recipe_values(name, data, protocol), f"{name} on {data}"
    where = "recipe" if isinstance(recipe, Mapping) else str(recipe)
    values = dict(recipe) if isinstance(recipe, Mapping) else read_recipe_file(where)
    if values.get("rows"):
        raise BenchError(f"{where} is a sweep of several rows; run it with 'recllm-bench sweep {where}'")
    given: dict[str, Any] = {}
    if model is not None:
        given["model"] = model_name(model)
    if dataset is not None:
        given["dataset"] = dataset_name(dataset)
    if protocol:
        given["protocol"] = protocol
    return {key: value for key, value in {**values, **given}.items() if key not in _OTHER_KEYS}, where


def _existing(row: Any) -> RunRecord | None:
    """The record of a row that has one; None for the name of a model."""
    from recllm_bench.reporting.records import RunRecord

    if isinstance(row, Run):
        return row.record
    if isinstance(row, RunRecord):
        return row
    if isinstance(row, Path) or (isinstance(row, str) and (Path(row) / "run.json").is_file()):
        return Run.read(row).record
    if isinstance(row, str):
        return None
    raise BenchError(f"compare: a row is a run, a record's folder or the name of a model, got {row!r}")


def _protocol_name(protocol: str | Protocol) -> str:
    """A protocol's name; one of your own must be known by name, for a record must find it again."""
    if isinstance(protocol, str):
        return protocol
    from recllm_bench.evaluation.protocols import protocol_named

    name = str(getattr(protocol, "name", protocol))
    if protocol_named(name) != protocol:
        raise BenchError(f"protocol '{name}' has other settings than the one known by this name; give it its own name")
    return name


def _whole(value: Any, what: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise BenchError(f"{what} must be a whole number of at least 0, got {value!r}") from None
