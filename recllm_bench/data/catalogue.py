"""What is known of the items: one entry for each id, entry 0 is padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
    descriptions : list of str
        Free text; empty when there is none.
    domain : str
        What an item is called in a sentence, such as ``"movie"``.
    """

    tokens: list[str]
    titles: list[str]
    years: np.ndarray
    categories: list[tuple[str, ...]]
    descriptions: list[str]
    domain: str = "item"

    def __len__(self) -> int:
        return len(self.tokens)

    def text(self, item: int) -> str:
        """Text of an item for an encoder: title, year and categories (LatentCRS, section 5); "" when unknown."""
        year = str(self.years[item]) if self.years[item] else ""
        parts = (self.titles[item], year, ", ".join(self.categories[item]))
        return ", ".join(part for part in parts if part)

    def texts(self) -> list[str]:
        """Text of every id, entry 0 empty."""
        return [self.text(item) for item in range(len(self))]
