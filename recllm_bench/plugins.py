"""Names to classes: explicit ``module:Class``, built in, entry points, RecBole's zoo.

Nothing heavy is imported before a class is asked for; listing names reads package metadata and file names only.
"""

from __future__ import annotations

import importlib
import re
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recllm_bench.errors import BenchError, nearest

MODELS = {
    "sasrec": "recllm_bench.models.sequence.sasrec:SASRec",
    "iclrec": "recllm_bench.models.sequence.iclrec:ICLRec",
    "latentcrs": "recllm_bench.models.latentcrs.model:LatentCRS",
    "relrec": "recllm_bench.models.relrec.model:ReLRec",
    "llama2-seq": "recllm_bench.models.relrec.model:LlamaSeq",
    "cesrec": "recllm_bench.models.cesrec.model:CESRec",
    "text-retrieval": "recllm_bench.models.text_retrieval:TextRetrieval",
}
DATASETS: dict[str, str] = {}
SIMULATORS = {
    "rules": "recllm_bench.conversation.rules:RuleSimulator",
    "replay": "recllm_bench.conversation.simulators:ReplaySimulator",
}
METRICS: dict[str, str] = {}
ZOO = "recbole:"
"""Prefix that asks for RecBole's class where a built-in model has the same name (``recbole:SASRec``)."""

_BUILT_IN = {"models": MODELS, "datasets": DATASETS, "simulators": SIMULATORS, "metrics": METRICS}
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def names(kind: str) -> list[str]:
    """Every valid name of a kind, sorted.

    Parameters
    ----------
    kind : {"models", "datasets", "simulators", "metrics"}
        Which registry. Models include RecBole's zoo; a zoo name that a built-in shadows is listed with ``recbole:``.
    """
    own = {*_registry(kind), *(entry.name for entry in _entries(kind))}
    if kind != "models":
        return sorted(own)
    taken = {name.casefold() for name in own}
    return sorted(own | {f"{ZOO}{name}" if name.casefold() in taken else name for name in zoo_names()})


def resolve(kind: str, name: str) -> Any:
    """Return the class (or function) that a name stands for.

    Parameters
    ----------
    kind : {"models", "datasets", "simulators", "metrics"}
        Which registry.
    name : str
        ``module:Class``, a built-in name, an entry point's name, or for models a class of RecBole's zoo; case does
        not matter except in ``module:Class``.

    Raises
    ------
    BenchError
        For an unknown name, a plug-in that cannot be imported, or a model that is no RecBole recommender.
    """
    source, target = _find(kind, name)
    if source == "zoo":
        from recllm_bench.recbole_bridge import zoo_class

        return zoo_class(target)
    loaded = _load(target, name)
    if kind == "models":
        _check_model(loaded, name)
    return loaded


def model_kind(name: str) -> str:
    """``"own"`` for built-in models, plug-ins and ``module:Class``; ``"zoo"`` for RecBole's classes."""
    return "zoo" if _find("models", name)[0] == "zoo" else "own"


def canonical_name(name: str) -> str:
    """One spelling for a model, whatever the case it was asked for in: recipes and results are found by it."""
    source, target = _find("models", name)
    own = {known.casefold(): known for known in (*MODELS, *(entry.name for entry in _entries("models")))}
    if source == "zoo":
        return f"{ZOO}{target}" if target.casefold() in own else target
    return own.get(name.casefold(), name)


def display_name(name: str) -> str:
    """What tables call a model: its ``display_name``, or its class's name; RecBole's carry ``(RecBole)``."""
    source, target = _find("models", name)
    if source == "zoo":
        return f"{target} (RecBole)"
    model = resolve("models", name)
    return getattr(model, "display_name", "") or model.__name__


def zoo_names() -> list[str]:
    """Names of RecBole's sequential and general models, read from the installed files without importing them."""
    spec = find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        return []
    found = []
    for family in ("sequential_recommender", "general_recommender"):
        for path in Path(spec.submodule_search_locations[0], "model", family).glob("*.py"):
            classes = re.findall(r"^class (\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
            found += [name for name in classes if name.lower() == path.stem]
    return sorted(found, key=str.lower)


def _find(kind: str, name: str) -> tuple[str, str]:
    """Where a name leads: ("zoo", class name) or ("own", "module:Class")."""
    zoo = {candidate.casefold(): candidate for candidate in zoo_names()} if kind == "models" else {}
    if kind == "models" and name.casefold().startswith(ZOO):
        wanted = name[len(ZOO) :]
        if wanted.casefold() in zoo:
            return "zoo", zoo[wanted.casefold()]
        raise BenchError(f"RecBole has no sequential or general model '{wanted}'.{nearest(wanted, zoo.values())}")
    if ":" in name:
        if not _TARGET.fullmatch(name):
            raise BenchError(f"'{name}' is not of the form package.module:Class")
        return "own", name
    for known, target in _registry(kind).items():
        if known.casefold() == name.casefold():
            return "own", target
    for entry in _entries(kind):
        if entry.name.casefold() == name.casefold():
            return "own", entry.value
    if name.casefold() in zoo:
        return "zoo", zoo[name.casefold()]
    raise BenchError(f"unknown {kind.removesuffix('s')} '{name}'.{nearest(name, names(kind))}")


def _registry(kind: str) -> dict[str, str]:
    if kind not in _BUILT_IN:
        raise ValueError(f"no such kind of plug-in: {kind}")
    return _BUILT_IN[kind]


def _entries(kind: str) -> list:
    return sorted(entry_points(group=f"recllm_bench.{kind}"), key=lambda entry: entry.name)


def _load(target: str, name: str) -> Any:
    module_name, _, attribute = target.partition(":")
    try:
        value = importlib.import_module(module_name)
    except ImportError as error:
        reason = f"cannot import {module_name} ({error})"
        raise BenchError(f"'{name}': {reason}; install it or put its folder on PYTHONPATH") from error
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise BenchError(f"'{name}': {module_name} has no '{part}'.{nearest(part, vars(value))}")
        value = getattr(value, part)
    return value


def _check_model(model: Any, name: str) -> None:
    from recbole.model.abstract_recommender import AbstractRecommender

    if not (isinstance(model, type) and issubclass(model, AbstractRecommender)):
        raise BenchError(
            f"'{name}' is not a model: a model subclasses a RecBole recommender such as "
            "recbole.model.abstract_recommender.SequentialRecommender"
        )
