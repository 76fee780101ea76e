"""What the writers of all forms share: ids, stocks of text, and fast assembly of lines."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from raw_rows import DAY, Population, Rows, hashed, tokens, uniform
from raw_text import json_ascii, lengths, names, phrases, prose

CAPITALS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ISBN_SHARE = 0.04  # items with ten digits as their id, a third of them with a leading zero
SCRAP_SHARE, UNTITLED_SHARE, UNLISTED_SHARE, UNREVIEWED_SHARE = 0.02, 0.01, 0.01, 0.10
"""Shares of item entries with a scrap of a page as title, without a title; of reviewed items without an entry; and
of further entries for items that nobody reviewed."""


class Writer(ABC):
    """Lines of one form.

    Parameters
    ----------
    n_items : int
        Items that are reviewed.
    words : float
        Mean words of a review.
    lines : int
        Reviews there will be: a larger file gets a longer stock of prose.
    seed : int
    """

    population: Population
    variants = 1
    escape: Callable[[str], bytes] = staticmethod(json_ascii)

    def __init__(self, n_items: int, words: float, lines: int, seed: int) -> None:
        self.n_items, self.seed = n_items, seed
        self.prose = prose(self.escape, int(np.clip(lines * 50, 200_000, 16_000_000)), seed)
        self.lengths = lengths(words, seed)
        self.summaries = phrases(self.escape, 8000, 1, 8, seed, False)
        self.titles = phrases(self.escape, 8000, 2, 9, seed + 1, True)
        self.brands = phrases(self.escape, 2000, 1, 2, seed + 2, True)
        self.categories = phrases(self.escape, 300, 1, 3, seed + 3, True)
        self.names = names(self.escape, 4000, seed)

    # ids -----------------------------------------------------------------

    def user_tokens(self, codes: np.ndarray) -> list[bytes]:
        """Ids of users."""
        return tokens(codes, CAPITALS, 13, (self.seed, 21), "A")

    def item_tokens(self, codes: np.ndarray) -> list[bytes]:
        """Ids of items, ascending with the code: a few of digits alone, as books have, the others ``B0...``."""
        first = int(self.total_items * _ISBN_SHARE)
        books = np.flatnonzero(codes < first)
        ids = spaced(codes - first, max(1, self.total_items - first), 36, 8, (self.seed, 22), b"B0")
        for index, isbn in zip(books.tolist(), spaced(codes[books], 3 * first, 10, 10, (self.seed, 22)), strict=True):
            ids[index] = isbn
        return ids

    @property
    def total_items(self) -> int:
        """Items with an id: the reviewed ones and those that only the item file knows."""
        return self.n_items + int(np.ceil(self.n_items * UNREVIEWED_SHARE))

    # stocks --------------------------------------------------------------

    def texts(self, positions: np.ndarray, salt: int = 31) -> list[bytes]:
        """Review texts."""
        wanted = self.lengths[(hashed(positions, (self.seed, salt)) & np.uint64(0xFFFF)).astype(np.int64)]
        return self.prose.cut(uniform(positions, (self.seed, salt + 1)), wanted)

    def pick(self, stock: Sequence[bytes] | np.ndarray, keys: np.ndarray, salt: int, skew: float = 1.0) -> list[bytes]:
        """One entry of a stock for each key; a ``skew`` above 1 favours the first entries."""
        stock = np.asarray(stock, dtype=object)
        return stock[(uniform(keys, (self.seed, salt)) ** skew * len(stock)).astype(np.int64)].tolist()

    def share(self, keys: np.ndarray, salt: int, share: float) -> np.ndarray:
        """A mask that holds for this share of the keys."""
        return uniform(keys, (self.seed, salt)) < share

    def variant(self, rows: Rows) -> np.ndarray:
        """Which variant of its product each review is about: 0 .. ``variants - 1``."""
        return np.zeros(len(rows.items), dtype=np.int64)

    def review_items(self, rows: Rows) -> list[bytes]:
        """Ids of what the reviews are about: of the variant, where products have any."""
        return self.item_tokens(rows.items)

    # lines ---------------------------------------------------------------

    @abstractmethod
    def reviews(self, rows: Rows) -> bytes:
        """Lines of these rows."""

    def items(self, codes: np.ndarray, counts: np.ndarray) -> bytes:
        """Lines of these items, which have so many reviews; none where a form has no file of items."""
        return b""

    def item_title(self, codes: np.ndarray) -> list[bytes]:
        """Titles, escaped; those of :meth:`untitled` items are empty."""
        brands, heads = self.pick(self.brands, codes, 41, 2.0), self.pick(self.titles, codes, 42)
        titles = [brand + b" " + head for brand, head in zip(brands, heads, strict=True)]
        for index in np.flatnonzero(self.untitled(codes)).tolist():
            titles[index] = b""
        return titles

    def untitled(self, codes: np.ndarray) -> np.ndarray:
        """Mask of the items whose entry has no title."""
        return self.share(codes, 43, UNTITLED_SHARE)

    def scraps(self, codes: np.ndarray) -> np.ndarray:
        """Mask of the items whose title is a scrap of a page."""
        return np.zeros(len(codes), dtype=bool)

    def lists(self, codes: np.ndarray, stock: np.ndarray, most: int, salt: int, quote: str = '"') -> list[bytes]:
        """Lists of 0 to ``most`` strings of a stock, as JSON writes them (or Python 2, with ``u'`` as quote)."""
        opening, closing = quote.encode(), quote[-1:].encode()
        size = (uniform(codes, (self.seed, salt)) * (most + 1)).astype(np.int64)
        start = (uniform(codes, (self.seed, salt + 1)) * (len(stock) - most)).astype(np.int64)
        joint = closing + b", " + opening
        return [
            b"[" + opening + joint.join(stock[a : a + n].tolist()) + closing + b"]" if n else b"[]"
            for a, n in zip(start.tolist(), size.tolist(), strict=True)
        ]


def filled(template: str, *columns: list[bytes]) -> bytes:
    """Lines from a template, in which each ``§`` stands for the next column."""
    fixed = [part.encode() for part in template.split("§")]
    if len(fixed) != len(columns) + 1:
        raise ValueError(f"{len(columns)} columns for {len(fixed) - 1} places")
    n, step = len(columns[0]), 2 * len(columns) + 1
    flat: list[bytes] = [b""] * (n * step)
    for place, part in enumerate(fixed):
        flat[2 * place :: step] = [part] * n
    for place, column in enumerate(columns):
        flat[2 * place + 1 :: step] = column
    return b"".join(flat)


def spaced(
    codes: np.ndarray, total: int, base: int, width: int, salt: tuple[int, ...], prefix: bytes = b""
) -> list[bytes]:
    """Ids that ascend with the code (0 .. ``total - 1``) with gaps that look random; no two are equal."""
    room = base**width // max(1, total)
    rest = np.maximum(codes, 0) * room + (hashed(codes, salt) % np.uint64(room)).astype(np.int64)
    out = np.empty((len(codes), len(prefix) + width), dtype=np.uint8)
    out[:, : len(prefix)] = np.frombuffer(prefix, dtype=np.uint8)
    letters = np.frombuffer(CAPITALS.encode(), dtype=np.uint8)
    for place in range(out.shape[1] - 1, len(prefix) - 1, -1):
        rest, digit = np.divmod(rest, base)
        out[:, place] = letters[digit]
    return out.view(f"S{out.shape[1]}").ravel().tolist()


def calendar(population: Population, form: Callable[[int, Any], str]) -> tuple[int, np.ndarray]:
    """Something written for every day of the period from its Unix time and its date; and the first day."""
    period = range(population.first_day, population.last_day + 1)
    written = [form(day * DAY, time.gmtime(day * DAY)).encode() for day in period]
    return population.first_day, np.array(written, dtype=object)


def days(times: np.ndarray, written: tuple[int, np.ndarray]) -> list[bytes]:
    """The entry of a calendar for each Unix time."""
    first, entries = written
    return entries[times // DAY - first].tolist()


def stars(ratings: np.ndarray) -> list[bytes]:
    """Ratings as the sources write them: ``5.0``."""
    return np.array([b"%d.0" % n for n in range(6)], dtype=object)[ratings].tolist()


def numbers(values: np.ndarray) -> list[bytes]:
    """Whole numbers in decimal."""
    return [b"%d" % value for value in values.tolist()]
