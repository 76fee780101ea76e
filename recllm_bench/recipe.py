"""What to run: one recipe decides a cell; a file or the command line writes it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recllm_bench.artifacts import content_hash
from recllm_bench.errors import BenchError, nearest
from recllm_bench.locations import resource
from recllm_bench.options import option, read_options

VARIANTS = ("own", "another", "none")
"""Whose words a case gets: its own user's, another user's (a control), nobody's (a control)."""


@dataclasses.dataclass(frozen=True)
class ConversationOptions:
    """How the user side is played."""

    simulator: str = option("rules", "who speaks for the user: rules, or a plug-in")
    encoder: str = option("minilm", "text encoder: minilm, a folder, or a hub id")
    template: str = option("{text}", "what the encoder reads; {text} is the utterance")
    pooling: str = option("auto", "how the encoder pools", choices=("auto", "mean", "last"))
    users: int = option(0, "users of the multi-turn evaluation, drawn once (0: no dialogues)", low=0)
    words: str = option("own", "whose words a user gets when tested; the others are controls", choices=VARIANTS)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A complete, hashable description of one bench cell.

    Attributes
    ----------
    model, dataset : str
        Names the registries know, ``module:Class``, or a path.
    protocol : str
        Name of the evaluation protocol; empty takes the model's default.
    seed : int
        Fixes initialisation, data order, dropout and sampling.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    options, training : dict
        The model's own options and those of the training loop.
    conversation : ConversationOptions
        The user side.
    budget : str
        Words for the table when the published schedule was shortened; empty otherwise.
    quick : int
        Most passes over data of any training, in every row; 0 for no such limit.
    modules : tuple of str
        Files of the user's own that are loaded first, for the models, metrics and so on that they add.
    """

    model: str
    dataset: str
    protocol: str = ""
    seed: int = 42
    device: str = "auto"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    conversation: ConversationOptions = ConversationOptions()
    budget: str = ""
    quick: int = 0
    modules: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for YAML or JSON."""
        return dataclasses.asdict(self)

    @property
    def family(self) -> str:
        """Name of the model's artifacts and records."""
        return family(self.model)

    def hash(self) -> str:
        """Hash of everything but device and files of the user's own: what these add is hashed where it is used."""
        return content_hash({key: value for key, value in self.as_dict().items() if key not in ("device", "modules")})


def family(model: str) -> str:
    """A model's name as it stands in names of folders and files."""
    return re.sub(r"[:./\\]", "-", model.lower())


_SECTIONS = ("options", "training", "conversation")
_KEYS = (*(field.name for field in dataclasses.fields(Recipe)), "compare", "rows", "about", "published")


def recipe_from(values: Mapping[str, Any], where: str) -> Recipe:
    """Check a mapping and make it a recipe.

    Raises
    ------
    BenchError
        For unknown keys, wrong types, or a missing model or dataset.
    """
    for key in values:
        if key not in _KEYS:
            raise BenchError(f"{where}: unknown key '{key}'.{nearest(key, _KEYS)}")
    for key in ("model", "dataset"):
        if not isinstance(values.get(key), str) or not values[key]:
            raise BenchError(f"{where}: '{key}' is missing; give it as {key.upper()}=name")
    for key in _SECTIONS:
        if not isinstance(values.get(key) or {}, Mapping):
            raise BenchError(f"{where}: '{key}' must be a mapping of option names to values")
    seed = values.get("seed", 42)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise BenchError(f"{where}: seed must be a whole number of at least 0, got {seed!r}")
    quick = values.get("quick") or 0
    if not isinstance(quick, int) or quick < 0:
        raise BenchError(f"{where}: quick must be a number of passes over the data (0: no limit), got {quick!r}")
    modules = values.get("modules") or ()
    if isinstance(modules, str) or not all(isinstance(part, str) for part in modules):
        raise BenchError(f"{where}: modules must be a list of Python files such as [my.py], got {modules!r}")
    return Recipe(
        model=values["model"],
        dataset=values["dataset"],
        protocol=str(values.get("protocol") or ""),
        seed=seed,
        device=str(values.get("device") or "auto"),
        options=dict(values.get("options") or {}),
        training=dict(values.get("training") or {}),
        conversation=read_options(ConversationOptions, values.get("conversation") or {}, f"{where}: conversation"),
        budget=str(values.get("budget") or ""),
        quick=int(quick),
        modules=tuple(modules),
    )


def read_recipe_file(name: str) -> dict[str, Any]:
    """Read a recipe by path or by its name under ``recipes/``.

    ``base`` names a recipe that the file changes: its mappings are merged key by key, everything else is replaced.

    Raises
    ------
    BenchError
        When there is no such file, it is no mapping (with file and line), or a recipe is its own base.
    """
    values, names = _file_values(name), [name]
    while base := values.pop("base", None):
        names.append(str(base))
        if names.count(names[-1]) > 1:
            raise BenchError(f"recipe '{name}' is its own base: {' on '.join(names)}")
        values = _on_top(_file_values(names[-1]), values)
    return values


def shipped_recipe(model: str, dataset: str) -> dict[str, Any]:
    """The recipe that ships for a model on a dataset (``recipes/<model>-<dataset>.yaml``); empty without one."""
    name = f"{family(model)}-{dataset}"
    return read_recipe_file(name) if (resource("recipes") / f"{name}.yaml").exists() else {}


def _on_top(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``changes``; where both have a mapping, it is changed key by key."""
    both = {key for key in changes if isinstance(changes[key], Mapping) and isinstance(values.get(key), Mapping)}
    return {**values, **changes, **{key: _on_top(values[key], changes[key]) for key in both}}


def _file_values(name: str) -> dict[str, Any]:
    import yaml

    path = Path(name)
    if not path.exists():
        folder = resource("recipes")
        path = folder / f"{name.removesuffix('.yaml')}.yaml"
        if not path.exists():
            raise BenchError(f"no recipe '{name}'.{nearest(name, recipe_names())}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        place = f"{path}:{line + 1}" if line is not None else str(path)
        raise BenchError(f"{place}: not valid YAML ({getattr(error, 'problem', error)})") from error
    if not isinstance(values, dict):
        raise BenchError(f"{path}:1: a recipe is a mapping such as 'model: sasrec'")
    return values


def recipe_names() -> list[str]:
    """Names of the recipes that ship with the project."""
    return sorted(path.stem for path in resource("recipes").glob("*.yaml"))


def _with(values: Any, path: list[str], value: Any) -> dict[str, Any]:
    """A copy of a mapping with one value set, however deep."""
    values = dict(values) if isinstance(values, Mapping) else {}
    name, *rest = path
    return {**values, name: _with(values.get(name), rest, value) if rest else value}


def override(values: Mapping[str, Any], settings: list[str]) -> dict[str, Any]:
    """Apply ``section.key=value`` settings to a recipe's mapping; a value that is a mapping itself takes further dots.

    A key without a section that the recipe does not know belongs to the model's ``options``.

    Raises
    ------
    BenchError
        For a setting without ``=``.
    """
    import yaml

    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise BenchError(f"--set {setting!r}: write it as key=value, such as training.epochs=20")
        value = yaml.safe_load(text) if text else None
        section, dot, name = key.strip().partition(".")
        if dot:
            if section not in _SECTIONS:
                raise BenchError(f"--set {setting!r}: unknown section '{section}'.{nearest(section, _SECTIONS)}")
            result[section] = _with(result.get(section), name.split("."), value)
        elif section in _KEYS and section not in _SECTIONS:
            result[section] = value
        else:
            result["options"] = {**(result.get("options") or {}), section: value}
    return result
