"""Names to what they stand for: explicit ``module:Class``, built in, entry points, RecBole's zoo.

Nothing heavy is imported before a class is asked for; listing names reads package metadata and file names only.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recllm_bench.api.contract import check
from recllm_bench.api.method import Method
from recllm_bench.api.modules import place_of, registered
from recllm_bench.errors import BenchError, nearest
from recllm_bench.recipe import family

BUILT_IN: dict[str, str] = {
    "models": "recllm_bench.models:MODELS",
    "simulators": "recllm_bench.conversation:SIMULATORS",
    "datasets": "",
    "metrics": "",
    "protocols": "",
    "published": "recllm_bench.models:PUBLISHED",
}
"""Where the names of each kind are listed as ``name: "module:attribute"``; empty where only plug-ins have some."""
ZOO = "recbole:"
"""Prefix that asks for RecBole's class where a built-in model has the same name (``recbole:SASRec``)."""

_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_SINGLE_STAGE = "recllm_bench.training.single:SingleStage"
_ZOO_CLASS = "recllm_bench.recbole_bridge:zoo_class"


@dataclass(frozen=True)
class ModelEntry:
    """A model by name: its class, what trains it, and what its class declares.

    Attributes
    ----------
    name : str
        One spelling, whatever the case it was asked for in: recipes and results are found by it.
    model : type
        The RecBole recommender.
    method : type
        The :class:`~recllm_bench.api.method.Method` that trains and loads it.
    is_zoo : bool
        Whether it is RecBole's own.
    """

    name: str
    model: type
    method: type[Method]
    is_zoo: bool

    @property
    def display_name(self) -> str:
        """What tables call it; RecBole's carry ``(RecBole)``."""
        if self.is_zoo:
            return f"{self.model.__name__} (RecBole)"
        return str(getattr(self.model, "display_name", "") or self.model.__name__)

    @property
    def family(self) -> str:
        """Name of its artifacts and records, fit for a folder."""
        return family(self.name)

    @property
    def options(self) -> type | None:
        """The dataclass of its options; None for RecBole's, whose options are in RecBole's files."""
        return None if self.is_zoo else getattr(self.model, "Options", None)

    @property
    def reads_words(self) -> bool:
        """Whether it declares that it reads what simulated users say."""
        return bool(getattr(self.model, "reads_words", False))

    @property
    def reads_facts(self) -> bool:
        """Whether it declares that it is handed the facts behind the words."""
        return self.reads_words and bool(getattr(self.model, "reads_facts", False))

    @property
    def converses(self) -> bool:
        """Whether it recommends in dialogues."""
        return hasattr(self.model, "respond")

    @property
    def default_protocol(self) -> str:
        """Protocol where none is asked for."""
        return str(getattr(self.model, "default_protocol", "unified.full"))

    @property
    def training_defaults(self) -> Mapping[str, Any]:
        """Values of the training loop's options that it wants."""
        return dict(getattr(self.model, "training_defaults", {}))


def names(kind: str) -> list[str]:
    """Every valid name of a kind, sorted.

    Parameters
    ----------
    kind : {"models", "datasets", "simulators", "metrics", "protocols", "published"}
        Which registry. Models include RecBole's zoo; a zoo name that a built-in shadows is listed with ``recbole:``.
    """
    own = {*_built_in(kind), *(entry.name for entry in _entries(kind))}
    if kind != "models":
        return sorted(own)
    taken = {name.casefold() for name in own}
    return sorted(own | {f"{ZOO}{name}" if name.casefold() in taken else name for name in zoo_names()})


def resolve(kind: str, name: str) -> Any:
    """Return the class (or function) that a name stands for.

    Parameters
    ----------
    kind : {"models", "datasets", "simulators", "metrics", "protocols", "published"}
        Which registry.
    name : str
        ``module:Class``, a built-in name, an entry point's name, or for models a class of RecBole's zoo; case does
        not matter except in ``module:Class``.

    Raises
    ------
    BenchError
        For an unknown name, a plug-in that cannot be imported, or a class that breaks the contract.
    """
    source, target = _find(kind, name)
    if source == "zoo":
        return _load(_ZOO_CLASS, name)(target)
    loaded = _load(target, name)
    if kind == "models":
        check(loaded, name)
    return loaded


def model_named(name: str) -> ModelEntry:
    """A model by name, with what trains it.

    Raises
    ------
    BenchError
        As :func:`resolve`.
    """
    loaded = resolve("models", name)
    is_zoo = _find("models", name)[0] == "zoo"
    if issubclass(loaded, Method):
        return ModelEntry(canonical_name(name), loaded.model, loaded, is_zoo)
    return ModelEntry(canonical_name(name), loaded, _load(_SINGLE_STAGE, name).of(loaded), is_zoo)


def is_zoo_name(name: str) -> bool:
    """Whether a model's name leads to RecBole's zoo; imports nothing."""
    return _find("models", name)[0] == "zoo"


def place(kind: str, name: str) -> str:
    """Where a name leads, ``module:attribute``; empty for what was registered as an object. Imports nothing."""
    found: Any = _find(kind, name)[1]
    return found if isinstance(found, str) else ""


def canonical_name(name: str) -> str:
    """One spelling for a model, whatever the case it was asked for in."""
    source, target = _find("models", name)
    own = {known.casefold(): known for known in (*_built_in("models"), *(each.name for each in _entries("models")))}
    if source == "zoo":
        return f"{ZOO}{target}" if target.casefold() in own else target
    return own.get(name.casefold(), name)


@cache
def zoo_names() -> tuple[str, ...]:
    """Names of RecBole's sequential and general models, read from the installed files without importing them."""
    spec = find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        return ()
    found = []
    for kind in ("sequential_recommender", "general_recommender"):
        for path in Path(spec.submodule_search_locations[0], "model", kind).glob("*.py"):
            classes = re.findall(r"^class (\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
            found += [name for name in classes if name.lower() == path.stem]
    return tuple(sorted(found, key=str.lower))


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
    for known, target in _built_in(kind).items():
        if known.casefold() == name.casefold():
            return "own", target
    for entry in _entries(kind):
        if entry.name.casefold() == name.casefold():
            return "own", entry.value
    if name.casefold() in zoo:
        return "zoo", zoo[name.casefold()]
    raise BenchError(f"unknown {kind.removesuffix('s')} '{name}'.{nearest(name, names(kind))}")


def _built_in(kind: str) -> dict[str, str]:
    if kind not in BUILT_IN:
        raise ValueError(f"no such kind of plug-in: {kind}")
    built_in, own = _load(BUILT_IN[kind], kind) if BUILT_IN[kind] else {}, registered(kind)
    if clash := sorted(own.keys() & built_in.keys()):
        raise BenchError(f"'{clash[0]}' is a built-in name of {kind}; register yours under another")
    return {**built_in, **own}


def _entries(kind: str) -> list:
    return sorted(entry_points(group=f"recllm_bench.{kind}"), key=lambda entry: entry.name)


def _load(target: str, name: str) -> Any:
    """The attribute behind ``module:attribute``.

    Raises
    ------
    BenchError
        When the module cannot be imported (with file and line of a mistake inside it), or lacks the name.
    """
    module_name, _, attribute = target.partition(":")
    try:
        value = importlib.import_module(module_name)
    except ImportError as error:
        reason = f"cannot import {module_name} ({error})"
        raise BenchError(f"'{name}': {reason}; install it or put its folder on PYTHONPATH") from error
    except (Exception, SystemExit) as error:
        raise BenchError(f"'{name}': importing {module_name} fails at {place_of(error)}; mend it there") from error
    for part in attribute.split("."):
        if not hasattr(value, part):
            known = [known for known in vars(value) if not known.startswith("_")]
            raise BenchError(f"'{name}': {module_name} has no '{part}'.{nearest(part, known)}")
        value = getattr(value, part)
    return value
