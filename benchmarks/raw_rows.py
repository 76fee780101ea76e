"""Who reviews what, and when: the rows behind generated files, without the files.

Every value is a hash of the row's number, so that rows can be made in any order and in pieces of any size, and a
second pass (another format of the same rows) needs no memory of the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

CHUNK = 8192
DAY = 86400
_RATINGS = np.array([0.05, 0.05, 0.1, 0.2, 0.6])  # shares of 1 to 5 stars: most reviews praise


@dataclass(frozen=True)
class Population:
    """How reviews spread over users and items in one kind of file.

    Attributes
    ----------
    per_user, per_item : float
        Mean reviews.
    least : int
        What every user and every item has at least (5 in the ``_5`` files).
    by_item : bool
        Whether the file lists one item after the other.
    first_day, last_day : int
        Days since 1970.
    spread : float
        Standard deviation of the logarithm of users' activity.
    moment : int
        Seconds to which times are exact: 86400 where the source has dates alone.
    """

    per_user: float
    per_item: float
    least: int
    by_item: bool
    first_day: int
    last_day: int
    spread: float = 1.1
    moment: int = DAY


@dataclass(frozen=True)
class Rows:
    """Some rows of a file.

    Attributes
    ----------
    positions : int64 [n]
        Row numbers, from 0.
    users, items : int64 [n]
        Codes, from 0.
    ratings : int64 [n]
        1 to 5.
    times : int64 [n]
        Unix seconds.
    """

    positions: np.ndarray
    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    times: np.ndarray


class Reviews:
    """Rows of a file of a given size.

    Parameters
    ----------
    population : Population
        How they spread.
    lines : int
        How many.
    seed : int
        Another seed, other rows.

    Attributes
    ----------
    user_counts, item_counts : int64 [users], int64 [items]
        Exact numbers of reviews; none is 0. Memory grows with users and items, not with lines.
    """

    def __init__(self, population: Population, lines: int, seed: int) -> None:
        self.population, self.lines, self.seed = population, lines, seed
        rng = np.random.default_rng((seed, 1))
        n_users = max(1, int(lines / max(population.per_user, population.least)))
        n_items = max(1, int(lines / max(population.per_item, population.least)))
        activity = rng.lognormal(0, population.spread, n_users)
        popularity = rng.permutation((np.arange(n_items) + 50.0) ** -0.9)  # Zipf-Mandelbrot
        self.user_counts = _shares(activity, lines, min(population.least, lines // n_users))
        self.item_counts = _shares(popularity, lines, min(population.least, lines // n_items))
        self._user_ends, self._item_ends = np.cumsum(self.user_counts), np.cumsum(self.item_counts)

    def __iter__(self) -> Iterator[Rows]:
        """Rows in file order, ``CHUNK`` at a time."""
        for start in range(0, self.lines, CHUNK):
            yield self.rows(np.arange(start, min(start + CHUNK, self.lines)))

    def rows(self, positions: np.ndarray) -> Rows:
        """The rows with these numbers."""
        spread = self.population
        places = positions if spread.by_item else shuffled(positions, self.lines, (self.seed, 2))
        items = np.searchsorted(self._item_ends, places, "right")
        users = np.searchsorted(self._user_ends, shuffled(positions, self.lines, (self.seed, 3)), "right")
        ratings = 1 + np.searchsorted(np.cumsum(_RATINGS)[:-1], uniform(positions, (self.seed, 4)), "right")
        # The square root makes reviews denser towards the end, as in every growing service.
        length = (spread.last_day - spread.first_day) * DAY // spread.moment
        moments = np.floor(np.sqrt(uniform(positions, (self.seed, 5))) * length).astype(np.int64)
        return Rows(positions, users, items, ratings, spread.first_day * DAY + moments * spread.moment)


def hashed(values: np.ndarray, salt: tuple[int, ...]) -> np.ndarray:
    """Numbers that look random, uint64, the same for the same input; no two inputs share one (splitmix64)."""
    with np.errstate(over="ignore"):
        mixed = np.asarray(values).astype(np.uint64)
        for part in salt:
            mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + np.uint64(part + 1)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed ^= mixed >> np.uint64(31)
    return mixed


def uniform(values: np.ndarray, salt: tuple[int, ...]) -> np.ndarray:
    """Float64 in [0, 1), from the hash of each value."""
    return (hashed(values, salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def shuffled(positions: np.ndarray, total: int, salt: tuple[int, ...]) -> np.ndarray:
    """Where a random order of ``0 .. total - 1`` puts these positions, without keeping that order anywhere.

    A Feistel network permutes the next power of four; results beyond ``total`` are permuted again until they fall
    inside (cycle walking), which keeps it one to one.
    """
    half = max(1, (int(total - 1).bit_length() + 1) // 2)
    low = np.uint64((1 << half) - 1)
    result = np.asarray(positions).astype(np.uint64)
    outside = np.ones(len(result), dtype=bool)
    while outside.any():
        left, right = result[outside] >> np.uint64(half), result[outside] & low
        for turn in range(4):
            left, right = right, left ^ (hashed(right, (*salt, turn)) & low)
        result[outside] = (left << np.uint64(half)) | right
        outside = result >= np.uint64(total)
    return result.astype(np.int64)


def tokens(codes: np.ndarray, alphabet: str, length: int, salt: tuple[int, ...], prefix: str = "") -> list[bytes]:
    """Ids in the style of the big services: a prefix and ``length`` letters that look random, one to one."""
    letters = np.frombuffer(alphabet.encode(), dtype=np.uint8)
    base = np.uint64(len(letters))
    per_number = next(n for n in range(1, 65) if len(letters) ** n >= 2**64)
    if length < per_number:
        raise ValueError(f"{length} letters cannot hold 64 bits")
    out = np.empty((len(codes), len(prefix) + length), dtype=np.uint8)
    out[:, : len(prefix)] = np.frombuffer(prefix.encode(), dtype=np.uint8)
    number = hashed(codes, salt)
    for place in range(length):
        if place and place % per_number == 0:
            number = hashed(codes, (*salt, place))
        number, digit = np.divmod(number, base)
        column = per_number - 1 - place if place < per_number else place
        out[:, len(prefix) + column] = letters[digit]
    return out.view(f"S{out.shape[1]}").ravel().tolist()


def _shares(weights: np.ndarray, total: int, least: int) -> np.ndarray:
    """Whole numbers in proportion to the weights, above ``least``, that add up to ``total``."""
    spare = total - least * len(weights)
    counts = np.floor(weights * (spare / weights.sum())).astype(np.int64) + least
    missing = total - int(counts.sum())
    counts[: missing % len(counts)] += 1  # weights stand in random order, so the first are no special ones
    return counts + missing // len(counts)
