"""What RecBole's base class asks of a configuration and a dataset, for models around which there is no RecBole run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

FIELDS = {
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "LIST_SUFFIX": "_list",
    "ITEM_LIST_LENGTH_FIELD": "item_length",
    "NEG_PREFIX": "neg_",
}


def bare_config(options: Any, max_length: int, device: Any, **more: Any) -> dict[str, Any]:
    """A configuration: RecBole's field names, a model's options, and what else its class asks for.

    Parameters
    ----------
    max_length : int
        Items of a history.
    **more
        Further values; they win.
    """
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    return {**FIELDS, **values, "MAX_ITEM_LIST_LENGTH": max_length, "device": device, **more}


class Overlay:
    """A configuration with some values on top."""

    def __init__(self, config: Any, values: Mapping[str, Any]) -> None:
        self._config, self._values = config, values

    def __getitem__(self, key: str) -> Any:
        return self._values[key] if key in self._values else self._config[key]

    def __contains__(self, key: str) -> bool:
        return key in self._values or key in self._config


class Ids:
    """Stands for RecBole's dataset: it knows how many ids there are.

    Parameters
    ----------
    n_items, n_users : int
        Without padding.
    """

    def __init__(self, n_items: int, n_users: int = 0) -> None:
        self._counts = {"user_id": n_users + 1, "item_id": n_items + 1}

    def num(self, field: str) -> int:
        """How many ids a field has, padding included."""
        return self._counts[field]
