"""What RecBole's base class asks of a configuration and a dataset, for models around which there is no RecBole run."""

from __future__ import annotations

FIELDS = {
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "LIST_SUFFIX": "_list",
    "ITEM_LIST_LENGTH_FIELD": "item_length",
    "NEG_PREFIX": "neg_",
}


class Ids:
    """Stands for RecBole's dataset: it knows how many ids there are.

    Parameters
    ----------
    n_items : int
        Items, without padding.
    """

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items

    def num(self, field: str) -> int:
        """How many ids a field has, padding included."""
        return self.n_items + 1
