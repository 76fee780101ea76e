"""What is known of the items: one entry for each id, entry 0 is padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from recllm_bench.data.columns import TextRows

TEXT_FIELDS = ("title", "year", "categories")


@dataclass(frozen=True)
class Catalogue:
    """Item text, indexed by item id.

    Attributes
    ----------
    tokens : list of str
        The source's own ids.
    titles : list of str
        Titles without the year; empty when unknown.
    years : int32 [n_items + 1]
        Year of publication, 0 when unknown.
    categories : list of tuple of str
        Genres or category path.
    descriptions : sequence of str
        Free text, a paragraph a line; empty when there is none.
    domain : str
        What an item is called in a sentence, such as ``"movie"``.
    text_fields : tuple of str
        What makes an item's text, in this order: of ``title, year, categories, description`` (its first paragraph).
    brands : sequence of str
        Who makes each item, "" when unknown; empty where the source names nobody.
    prices : float32 [n_items + 1], optional
        In the source's currency, NaN when unknown; None where the source has no prices.
    """

    tokens: list[str]
    titles: list[str]
    years: np.ndarray
    categories: list[tuple[str, ...]]
    descriptions: Sequence[str]
    domain: str = "item"
    text_fields: tuple[str, ...] = TEXT_FIELDS
    brands: Sequence[str] = ()
    prices: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def descriptions_of(self, items: Sequence[int]) -> list[str]:
        """Descriptions of some items; in one pass where they lie on disk."""
        if isinstance(self.descriptions, TextRows):
            return self.descriptions.of(np.asarray(items, dtype=np.int64))
        return [self.descriptions[item] for item in items]

    @property
    def has_text(self) -> bool:
        """Whether any item has a title, a category or a description."""
        return any(self.titles) or any(self.categories) or any(self.descriptions)

    def text(self, item: int) -> str:
        """Text of an item for an encoder, of the fields in ``text_fields`` (LatentCRS, section 5); "" when unknown."""
        parts = (self._field(name, item) for name in self.text_fields)
        return ", ".join(part for part in parts if part)

    def _field(self, name: str, item: int) -> str:
        if name == "title":
            return self.titles[item]
        if name == "year":
            return str(self.years[item]) if self.years[item] else ""
        return ", ".join(self.categories[item]) if name == "categories" else self.descriptions[item].split("\n", 1)[0]

    def texts(self) -> list[str]:
        """Text of every id, entry 0 empty."""
        # Descriptions may lie on disk: reading all at once is one pass, reading each is many.
        whole = replace(self, descriptions=list(self.descriptions)) if "description" in self.text_fields else self
        return [whole.text(item) for item in range(len(self))]
