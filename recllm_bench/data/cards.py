"""Dataset cards: what is known of each dataset before any of it is read. Imports nothing heavy."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from recllm_bench.artifacts import MANIFEST, ArtifactStore
from recllm_bench.errors import BenchError, nearest
from recllm_bench.locations import cache_folder, resource

PLUGIN_GROUP = "recllm_bench.datasets"
_REQUIRED = ("name", "title", "domain", "licence", "reader", "variants", "filters")
# What the protocol families do to data that no card describes.
USER_FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "latentcrs": {"min_rating": 4, "users_min": 5},
    "cesrec": {},
    "relrec": {"min_rating": 3, "users_min": 5},
}


def read_card(path: Path) -> dict[str, Any]:
    """Read one card and check that it says what a card must say.

    Raises
    ------
    BenchError
        For broken YAML (with the line) or a missing field.
    """
    import yaml

    try:
        card = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise BenchError(f"{place}: not valid YAML ({getattr(error, 'problem', error)})") from error
    return _checked(card, str(path))


def all_cards() -> dict[str, dict[str, Any]]:
    """Cards by name: the project's own and those of plug-ins (entry points ``recllm_bench.datasets``)."""
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
    raise BenchError(f"unknown dataset '{name}'.{nearest(name, known)} A path to your own data works as well.")


def dataset_names() -> list[str]:
    """Names of all datasets that have a card."""
    return sorted(all_cards())


def dataset_rows(store: ArtifactStore | None = None) -> list[dict[str, str]]:
    """Rows for a listing: ``name, aliases, title, domain, licence, filters, prepared``.

    ``prepared`` names the filters under which the dataset lies ready in the store.
    """
    ready: dict[str, set[str]] = {}
    root = (store or default_store()).root / "dataset"
    for manifest in sorted(root.glob(f"*/{MANIFEST}")):
        try:
            key = json.loads(manifest.read_text(encoding="utf-8"))["key"]
        except (OSError, ValueError, KeyError):
            continue  # a listing must not fail on one odd folder; preparing will report it
        ready.setdefault(str(key.get("name")), set()).add(str(key.get("filter")))
    rows = []
    for name, card in sorted(all_cards().items()):
        rows.append(
            {
                "name": name,
                "aliases": ", ".join(card.get("aliases", ())),
                "title": card["title"],
                "domain": card["domain"],
                "licence": card["licence"]["name"],
                "filters": ", ".join(card["filters"]),
                "prepared": ", ".join(sorted(ready.get(name, ()))),
            }
        )
    return rows


def default_store() -> ArtifactStore:
    """The store of the current cache folder."""
    return ArtifactStore(cache_folder() / "artifacts")


def user_card(name: str, reader: str) -> dict[str, Any]:
    """Card of a user's own data: nothing is expected of it, so nothing can be refused."""
    return {
        "name": name,
        "title": name,
        "domain": "item",
        "licence": {"name": "yours", "notice": ""},
        "reader": reader,
        "variants": [],
        "filters": USER_FILTERS,
        "own": True,
    }


@lru_cache(maxsize=4)
def _own_cards(folder: Path) -> tuple[tuple[str, dict[str, Any]], ...]:
    return tuple((card["name"], card) for card in map(read_card, sorted(folder.glob("*.yaml"))))


def _plugin_cards() -> list[tuple[str, dict[str, Any]]]:
    from importlib.metadata import entry_points

    found = []
    for point in entry_points(group=PLUGIN_GROUP):
        value = point.load()
        value = value() if callable(value) else value
        card = read_card(Path(value)) if isinstance(value, (str, Path)) else _checked(value, f"plug-in {point.value}")
        found.append((card["name"], card))
    return found


def _checked(card: Any, where: str) -> dict[str, Any]:
    if not isinstance(card, dict):
        raise BenchError(f"{where}: a dataset card is a mapping such as 'name: mydata'")
    missing = [key for key in _REQUIRED if key not in card]
    if missing:
        raise BenchError(f"{where}: the dataset card lacks {', '.join(missing)}")
    if "all" not in card["filters"]:
        raise BenchError(f"{where}: the dataset card needs the filter 'all'")
    return card
