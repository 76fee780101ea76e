"""What a source says about its items: a few in a dictionary, or many in a table on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recllm_bench.data.columns import TextFile, TextRows

ITEM_COLUMNS = (
    ("token", pa.string()),
    ("title", pa.string()),
    ("year", pa.int32()),
    ("categories", pa.list_(pa.string())),
    ("description", pa.string()),
    ("brand", pa.string()),
    ("price", pa.float32()),
)


@dataclass(frozen=True)
class ItemText:
    """What a source says about one item; ``price`` is None when unknown."""

    title: str = ""
    year: int = 0
    categories: tuple[str, ...] = ()
    description: str = ""
    brand: str = ""
    price: float | None = None


class TextColumns(NamedTuple):
    """Text of some items, a list or array for each field; descriptions, the bulk of it, may stay on disk."""

    titles: list[str]
    years: np.ndarray
    categories: list[tuple[str, ...]]
    descriptions: Sequence[str]
    brands: list[str]
    prices: np.ndarray


class ItemTable(Mapping[str, ItemText]):
    """Item text in a file, looked up for many items at once.

    An item without an entry of its own takes that of the product of which it is a variant.

    Parameters
    ----------
    file : TextFile
        The columns of ``ITEM_COLUMNS``, each item once, and perhaps more.
    item_tokens : string array
        Item ids by code.
    parents : int32 [n_codes], optional
        Code of each item's product.
    """

    def __init__(self, file: TextFile, item_tokens: pa.ChunkedArray, parents: np.ndarray | None = None) -> None:
        self.file = file
        self._rows = _find(item_tokens, file.column("token"))
        self._own = self._rows >= 0
        if parents is not None:
            self._rows = np.where(self._own, self._rows, self._rows[parents])
        self._item_tokens = item_tokens

    def __len__(self) -> int:
        return len(self.file)

    def __iter__(self) -> Iterator[str]:
        return iter(self.file.column("token").to_pylist())

    def __getitem__(self, token: str) -> ItemText:
        code = self._item_tokens.index(token).as_py()
        if code < 0 or self._rows[code] < 0:
            raise KeyError(token)
        found = self.of_codes(np.array([code]))
        price = float(found.prices[0])
        return ItemText(
            found.titles[0],
            int(found.years[0]),
            found.categories[0],
            found.descriptions[0],
            found.brands[0],
            None if np.isnan(price) else price,
        )

    def listed(self) -> np.ndarray:
        """For each item code whether the source lists this very id: bool [n_codes]."""
        return self._own

    def of_codes(self, codes: np.ndarray) -> TextColumns:
        """Text of items by code; empty where the source says nothing."""
        rows = self._rows[codes]
        found = self.file.take(rows[rows >= 0], ["title", "year", "categories", "brand", "price"])
        places = pa.array(np.where(rows >= 0, np.cumsum(rows >= 0) - 1, 0), mask=rows < 0)
        title, year, categories, brand, price = (column.take(places) for column in found.columns)
        return TextColumns(
            title.fill_null("").to_pylist(),
            year.fill_null(0).to_numpy().astype(np.int32),
            [tuple(names or ()) for names in categories.to_pylist()],
            TextRows(self.file, rows, "description"),
            brand.fill_null("").to_pylist(),
            price.fill_null(np.nan).to_numpy().astype(np.float32),
        )


def texts_of(text: Mapping[str, ItemText], tokens: Sequence[str], codes: np.ndarray | None) -> TextColumns:
    """Text of items, whatever holds it; ``tokens[i]`` is the id of ``codes[i]``, by which a table is faster."""
    if isinstance(text, ItemTable) and codes is not None:
        return text.of_codes(codes)
    nothing = ItemText()
    known = [text.get(token, nothing) for token in tokens]
    return TextColumns(
        [item.title for item in known],
        np.array([item.year for item in known], dtype=np.int32),
        [item.categories for item in known],
        [item.description for item in known],
        [item.brand for item in known],
        np.array([np.nan if item.price is None else item.price for item in known], dtype=np.float32),
    )


def listed(text: Mapping[str, ItemText], item_tokens: Sequence[str]) -> np.ndarray:
    """For each item code whether the source's item list names it: bool [n_codes]."""
    if isinstance(text, ItemTable):
        return text.listed()
    return np.array([token in text for token in item_tokens], dtype=bool)


def _find(tokens: pa.ChunkedArray, among: pa.ChunkedArray) -> np.ndarray:
    """Row of each token, -1 where there is none: int64 [n]."""
    return pc.index_in(tokens, value_set=among.combine_chunks()).fill_null(-1).to_numpy().astype(np.int64)
