"""What to run: one recipe decides a cell; a file or the command line writes it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from recllm_bench.artifacts import content_hash
from recllm_bench.errors import BenchError, nearest
from recllm_bench.locations import resource
from recllm_bench.options import LARGEST, option, plain_mapping, read_options, shown
from recllm_bench.yaml_files import parse_yaml, read_mapping

SEEDS = 2**32
"""Seeds that NumPy's legacy generator takes, which RecBole seeds too."""
ENCODER = ("encoder", "template", "pooling")
"""Options under ``conversation`` that are the text encoder's, which a model may use that reads no words."""
_MOST_SEEDS = 100
VARIANTS = ("own", "another", "none")
"""Whose words a case gets: its own user's, another user's (a control), nobody's (a control)."""


@dataclasses.dataclass(frozen=True)
class ConversationOptions:
    """How the user side is played."""

    simulator: str = option(
        "rules", "who speaks for the user: rules, taste, rules:1, rules:2, rules:all, local:NAME, server:MODEL@URL, ..."
    )
    leaves: float = option(
        0.05, "share of the catalogue that a first utterance of rules, taste or a chat model leaves", low=1e-4, high=1
    )
    opens: float = option(0.15, "the same share for the first words of a dialogue, which are vaguer", low=1e-4, high=1)
    keeps: float = option(0.02, "no words of a dialogue leave less than this share of the catalogue", low=0, high=1)
    persona: str = option(
        "plain", "what the users of dialogues are like; in mixed each is one of the others",
        choices=("plain", "talkative", "terse", "patient", "impatient", "mixed"),
    )  # fmt: skip
    patience: int | None = option(
        None, "turns in a row without anything that comes near after which a user leaves; 0: never (default: persona)",
        low=0,
    )  # fmt: skip
    silence: float | None = option(
        None, "share of a system's questions that get no answer (default: as the persona says)", low=0, high=1
    )
    mistakes: float = option(0.0, "share of further facts in a dialogue that are wrong", low=0, high=1)
    encoder: str = option("minilm", "text encoder: minilm, a folder, or a hub id")
    template: str = option("{text}", "what the encoder reads; {text} is the utterance")
    pooling: str = option("auto", "how the encoder pools", choices=("auto", "mean", "last"))
    users: int = option(0, "users of the multi-turn evaluation, drawn once (0: no dialogues)", low=0)
    target_visibility: str = option(
        "attributes_only", "what the user is told of the wanted item; its title is never uttered in either case",
        choices=("attributes_only", "title_and_attributes"),
    )  # fmt: skip
    known_items: str = option(
        "protocol", "items of a user's own history in dialogues: as the protocol ranks them, or never shown",
        choices=("protocol", "never"),
    )  # fmt: skip
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
        Words for the table when the published schedule was shortened; empty otherwise. ``{training.epochs}`` and
        ``{options.intents}`` stand for what the run has.
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
_MISSPELT = 0.8  # likeness to a section's name above which another name is that name with a mistake in it
_KEYS = (
    *(field.name for field in dataclasses.fields(Recipe)),
    "seeds",
    "compare",
    "rows",
    "about",
    "published",
    "verbose",
)


def recipe_from(values: Mapping[str, Any], where: str) -> Recipe:
    """Check a mapping and make it a recipe.

    Raises
    ------
    BenchError
        For unknown keys, wrong types, or a missing model or dataset.
    """
    for key in values:
        if key not in _KEYS:
            raise BenchError(f"{where}: unknown key '{key}'.{nearest(str(key), _KEYS)}")
    if values.get("seeds") is not None:
        raise BenchError(f"{where}: 'seeds' stands for several runs, and this is one; name it by seed")
    for key in ("model", "dataset"):
        value = values.get(key)
        if value is None or value == "":
            raise BenchError(f"{where}: '{key}' is missing; write {key}: NAME in the recipe, or --set {key}=NAME")
        if not isinstance(value, str):
            raise BenchError(f"{where}: '{key}' must be a name in quotes, got {shown(value)}")
    for key in ("protocol", "device", "budget"):
        if values.get(key) is not None and not isinstance(values[key], str):
            raise BenchError(f"{where}: '{key}' must be text, got {shown(values[key])}")
    for key in _SECTIONS:
        if values.get(key) is not None and not isinstance(values[key], Mapping):
            raise BenchError(f"{where}: '{key}' must be a mapping of option names to values, got {shown(values[key])}")
    options, training, talk = (plain_mapping(values.get(key) or {}, f"{where}: {key}") for key in _SECTIONS)
    conversation = read_options(ConversationOptions, talk, f"{where}: conversation")
    if conversation.template not in ("raw", "one_word") and "{text}" not in conversation.template:
        raise BenchError(
            f"{where}: conversation: template {shown(conversation.template)} lacks {{text}}, the utterance"
        )
    seed = values.get("seed", 42)
    if not _is_whole(seed) or not 0 <= seed < SEEDS:
        raise BenchError(f"{where}: seed must be a whole number from 0 to {SEEDS - 1}, got {shown(seed)}")
    quick = values.get("quick") or 0
    if not _is_whole(quick) or not 0 <= quick <= LARGEST:
        raise BenchError(f"{where}: quick must be a number of passes over the data (0: no limit), got {shown(quick)}")
    modules = values.get("modules") or ()
    if not isinstance(modules, (list, tuple)) or not all(isinstance(part, str) for part in modules):
        raise BenchError(f"{where}: modules must be a list of Python files such as [my.py], got {shown(modules)}")
    return Recipe(
        model=values["model"],
        dataset=values["dataset"],
        protocol=str(values.get("protocol") or ""),
        seed=seed,
        device=str(values.get("device") or "auto"),
        options=options,
        training=training,
        conversation=conversation,
        budget=str(values.get("budget") or ""),
        quick=int(quick),
        modules=tuple(modules),
    )


def under_seeds(values: Mapping[str, Any], where: str, given: Sequence[int] = ()) -> list[dict[str, Any]]:
    """A recipe's values once for each of its seeds: those given, or ``seeds``, or its one ``seed``.

    Parameters
    ----------
    values : mapping
        ``seeds`` is a number of seeds, counted up from ``seed``, or a list of them.
    where : str
        Named in messages.
    given : sequence of int
        In place of the recipe's own.

    Raises
    ------
    BenchError
        For seeds that are no such number or list, or a seed twice.
    """
    own = {key: value for key, value in values.items() if key != "seeds"}
    seeds: list[int] = list(given)
    several: Any = values.get("seeds")
    if not seeds and several is None:
        return [own]
    if not seeds and _is_whole(several) and _is_whole(own.get("seed", 42)):
        if not 0 < several <= _MOST_SEEDS:
            raise BenchError(f"{where}: seeds must be a number from 1 to {_MOST_SEEDS}, got {several}")
        seeds = [int(own.get("seed", 42)) + place for place in range(several)]
    elif not seeds:
        if not isinstance(several, (list, tuple)) or not several or not all(map(_is_whole, several)):
            raise BenchError(f"{where}: seeds is a number such as 5, or a list such as [1, 2, 3], got {shown(several)}")
        seeds = list(several)
    if len(set(seeds)) < len(seeds):
        raise BenchError(f"{where}: seeds {' '.join(map(str, seeds))}: name each seed once")
    return [{**own, "seed": seed} for seed in seeds]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


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
        if not isinstance(base, str):
            raise BenchError(f"recipe '{names[-1]}': 'base' is the name or path of one recipe, got {shown(base)}")
        names.append(base)
        if names.count(names[-1]) > 1:
            raise BenchError(f"recipe '{name}' is its own base: {' on '.join(names)}")
        values = laid_over(_file_values(names[-1]), values)
    return values


def shipped_recipe(model: str, dataset: str) -> dict[str, Any]:
    """The recipe that ships for a model on a dataset (``recipes/<model>-<dataset>.yaml``); empty without one."""
    name = f"{family(model)}-{dataset}"
    return read_recipe_file(name) if _is_there(resource("recipes") / f"{name}.yaml", name) else {}


def laid_over(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``changes``; where both have a mapping, it is changed key by key."""
    both = {key for key in changes if isinstance(changes[key], Mapping) and isinstance(values.get(key), Mapping)}
    return {**values, **changes, **{key: laid_over(values[key], changes[key]) for key in both}}


def flat(values: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Values by their place: ``{"options": {"a": {"b": 1}}}`` is ``{"options.a.b": 1}``; ``{}`` is a value."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        at = f"{place}.{name}" if place else str(name)
        found |= flat(value, at) if isinstance(value, Mapping) and value else {at: value}
    return found


def _file_values(name: str) -> dict[str, Any]:
    path = Path(name)
    if not _is_there(path, name):
        path = resource("recipes") / f"{name.removesuffix('.yaml')}.yaml"
        if not _is_there(path, name):
            raise BenchError(f"no recipe {shown(name)}.{nearest(name, recipe_names())}")
    if path.is_dir():
        raise BenchError(f"{path}: a recipe is a file, and this is a folder; name a .yaml file in it")
    return read_mapping(path, "a recipe is a mapping such as 'model: sasrec'")[0]


def _is_there(path: Path, name: str) -> bool:
    """Whether a name leads to a file or folder; an empty one leads nowhere."""
    try:
        return bool(name) and path.exists()
    except (OSError, ValueError):  # too long for a file system, or with a zero byte
        return False


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

    A key without a section that the recipe does not know belongs to the model's ``options``, with dots or without:
    ``backbone_training.epochs=15`` is ``options.backbone_training.epochs=15``.

    Raises
    ------
    BenchError
        For a setting without ``=``.
    """
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise BenchError(f"--set {shown(setting)}: write it as key=value, such as training.epochs=20")
        value = parse_yaml(text, f"--set {shown(setting)}")[0] if text else None
        section, dot, name = key.strip().partition(".")
        if dot:
            if not all(name.split(".")):
                raise BenchError(f"--set {shown(setting)}: a name is missing beside the dot of '{key.strip()}'")
            path = name.split(".")
            is_wrong = section in ("", *_KEYS) or get_close_matches(section, _SECTIONS, cutoff=_MISSPELT)
            if section not in _SECTIONS and is_wrong:
                raise BenchError(f"--set {shown(setting)}: unknown section '{section}'.{nearest(section, _SECTIONS)}")
            section, path = (section, path) if section in _SECTIONS else ("options", [section, *path])
            result[section] = _with(result.get(section), path, value)
        elif section in _KEYS:
            result[section] = value
        else:
            result["options"] = _with(result.get("options"), [section], value)
    return result
