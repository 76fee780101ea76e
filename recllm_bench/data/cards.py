"""Dataset cards: what is known of each dataset before any of it is read. Imports nothing heavy."""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recllm_bench.api.modules import owner, registered
from recllm_bench.artifacts import ArtifactStore
from recllm_bench.errors import BenchError, nearest
from recllm_bench.locations import cache_folder, resource

PLUGIN_GROUP = "recllm_bench.datasets"
_REQUIRED = ("name", "title", "domain", "licence", "reader", "variants", "filters")


def read_card(path: Path) -> dict[str, Any]:
    """Read one card and check that it says what a card must say.

    Raises
    ------
    BenchError
        For broken YAML (with the line) or a missing field.
    """
    return _checked(read_yaml(path, path.read_bytes()), str(path))


def read_yaml(path: Path, data: bytes) -> Any:
    """The value of a YAML file; no tag in it makes anything but plain values.

    Raises
    ------
    BenchError
        For broken YAML (with the line), values that are none (``2001-13-45``), and text or references that no plain
        value can hold.
    """
    import yaml

    try:
        # libyaml's parser where PyYAML was built with it: many cards are read before anything starts.
        value = yaml.load(data.decode(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        json.dumps(value, ensure_ascii=False, default=str).encode()  # half a character, or a list that holds itself
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise BenchError(f"{place}: not valid YAML ({_one_line(getattr(error, 'problem', None) or error)})") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise BenchError(f"{path}: not valid YAML ({_one_line(error)})") from error
    return value


def all_cards() -> dict[str, dict[str, Any]]:
    """Cards by name: the project's own, those of plug-ins (entry points ``recllm_bench.datasets``) and of files under
    ``modules:`` (``DATASETS``).
    """
    cards = dict(_own_cards(resource("datasets")))
    for name, card in _plugin_cards():
        if name in cards:
            raise BenchError(f"two dataset cards are named '{name}'; rename the one of the plug-in")
        cards[name] = card
    return cards


def find_card(name: str) -> dict[str, Any]:
    """Return the card with this name or alias, upper and lower case alike.

    Raises
    ------
    BenchError
        With the nearest known name.
    """
    cards = all_cards()
    for card in cards.values():
        if name.casefold() in {known.casefold() for known in (card["name"], *card.get("aliases", ()))}:
            return card
    known = [alias for card in cards.values() for alias in (card["name"], *card.get("aliases", ()))]
    if "/" in name or "\\" in name or Path(name).suffix:
        raise BenchError(f"there is no file or folder '{name}' (seen from {Path.cwd()}), nor a dataset of this name")
    raise BenchError(f"unknown dataset '{name}'.{nearest(name, known)} A path to your own data works as well.")


def hide_card_folder() -> None:
    """Keep Python from taking the checkout's folder of cards, ``datasets/``, for Hugging Face's package ``datasets``.

    Where that package is absent and the checkout's root is on the path (``python -m``, ``PYTHONPATH``), Python makes
    an empty package of the folder, and libraries that look whether ``datasets`` is there find it. None in
    ``sys.modules`` is Python's own way to say that there is none.
    """
    if "datasets" in sys.modules:
        return
    spec = find_spec("datasets")
    cards = str(resource("datasets"))
    if spec is not None and spec.origin is None and cards in (spec.submodule_search_locations or ()):
        sys.modules["datasets"] = None  # type: ignore[assignment]  # documented, but not in the type of sys.modules


def default_store() -> ArtifactStore:
    """The store of the current cache folder."""
    return ArtifactStore(cache_folder() / "artifacts")


@lru_cache(maxsize=1)
def user_filters() -> dict[str, dict[str, Any]]:
    """What the filters that protocols name do to data that no card describes (``datasets/own/filters.yaml``)."""
    path = resource("datasets", "own", "filters.yaml")
    return dict(read_yaml(path, path.read_bytes()))


def user_card(name: str, reader: str) -> dict[str, Any]:
    """Card of a user's own data: nothing is expected of it, so nothing can be refused."""
    return {
        "name": name,
        "title": name,
        "domain": "item",
        "licence": {"name": "yours", "notice": ""},
        "reader": reader,
        "variants": [],
        "filters": user_filters(),
        "own": True,
    }


@lru_cache(maxsize=4)
def _own_cards(folder: Path) -> tuple[tuple[str, dict[str, Any]], ...]:
    cards = [card for path in sorted(folder.glob("*.yaml")) for card in expand(read_card(path))]
    return tuple((card["name"], card) for card in cards)


def expand(card: dict[str, Any]) -> list[dict[str, Any]]:
    """The cards of a template: one for each of its categories, or the card itself when it has none.

    A template's strings may hold ``{category}`` (``Video_Games``), ``{slug}`` (``video-games``) and ``{words}``
    (``Video Games``). A category's own settings are laid over the template's. Each card keeps its template's name
    under ``template``, and ``category``.
    """
    if "categories" not in card:
        return [card]
    template = {key: value for key, value in card.items() if key != "categories"}
    cards = []
    for category, settings in card["categories"].items():
        words = category.replace("_", " ")
        slug = words.lower().replace(" ", "-")
        made = _filled(template, {"category": category, "slug": slug, "words": words})
        made |= {"template": card["name"].replace("{slug}", "{category}"), "category": category}
        cards.append(_overlaid(made, settings or {}))
    return cards


def _filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, names) for part in value]
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace(f"{{{name}}}", text)
    return value


def _overlaid(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for key, value in above.items():
        deeper = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = _overlaid(both[key], value) if deeper else value
    return both


def _plugin_cards() -> list[tuple[str, dict[str, Any]]]:
    from importlib.metadata import entry_points

    found = []
    for point in entry_points(group=PLUGIN_GROUP):
        value = point.load()
        value = value() if callable(value) else value
        card = read_card(Path(value)) if isinstance(value, (str, Path)) else _checked(value, f"plug-in {point.value}")
        found += [(one["name"], one) for one in expand(card)]
    return found + [_registered_card(name) for name in registered("datasets")]


def _registered_card(name: str) -> tuple[str, dict[str, Any]]:
    """The card that a file under ``modules:`` gives: its fields, or its path, which starts at that file's folder."""
    from recllm_bench.api.registry import resolve

    value, where = resolve("datasets", name), f"DATASETS['{name}']"
    value = value() if callable(value) else value
    if isinstance(value, (str, Path)):
        path = Path(owner("datasets", name)).parent / Path(value).expanduser()
        if not path.is_file():
            raise BenchError(f"{where}: there is no card {path}; give the path of its YAML file")
        card = read_card(path)
    else:
        card = _checked({"name": name, **value} if isinstance(value, dict) else value, where)
    if card["name"] != name:
        raise BenchError(f"{where}: its card is named '{card['name']}'; give both one name")
    return name, card


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _checked(card: Any, where: str) -> dict[str, Any]:
    if not isinstance(card, dict):
        raise BenchError(f"{where}: a dataset card is a mapping such as 'name: mydata'")
    missing = [key for key in _REQUIRED if key not in card]
    if missing:
        raise BenchError(f"{where}: the dataset card lacks {', '.join(missing)}")
    if "all" not in card["filters"]:
        raise BenchError(f"{where}: the dataset card needs the filter 'all'")
    return card
