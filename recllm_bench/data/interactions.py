"""Interactions as a source gives them, before they have ids of ours; filters; and the way to histories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from recllm_bench.data.catalogue import Catalogue
from recllm_bench.data.histories import Histories
from recllm_bench.errors import BenchError
from recllm_bench.options import option, read_options


@dataclass(frozen=True)
class ItemText:
    """What a source says about one item."""

    title: str = ""
    year: int = 0
    categories: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True)
class Interactions:
    """Rows in file order, users and items as codes into their tokens.

    Attributes
    ----------
    users, items : int64 [n]
        Codes ``0..``, numbered by first appearance in the file.
    user_tokens, item_tokens : list of str
        The source's ids, by code.
    order : float64 or int64 [n] or None
        Sorts within a user, stable; None keeps file order.
    has_times : bool
        Whether ``order`` is Unix time in seconds, not only an order.
    ratings : float32 [n] or None
        Ratings.
    text : dict of str to ItemText
        What the source says about items, by token; may know more items than were consumed.
    source_ids : bool
        Keep the source's own integer item ids, so that tables made with them (a released checkpoint) line up.
    """

    users: np.ndarray
    items: np.ndarray
    user_tokens: list[str]
    item_tokens: list[str]
    order: np.ndarray | None = None
    has_times: bool = False
    ratings: np.ndarray | None = None
    text: dict[str, ItemText] = field(default_factory=dict)
    source_ids: bool = False

    def __len__(self) -> int:
        return len(self.users)

    def keep(self, mask: np.ndarray) -> Interactions:
        """Only the rows under ``mask``; codes and tokens stay."""
        cut = {name: getattr(self, name) for name in ("order", "ratings")}
        cut = {name: None if value is None else value[mask] for name, value in cut.items()}
        return replace(self, users=self.users[mask], items=self.items[mask], **cut)


@dataclass(frozen=True)
class FilterOptions:
    """Which interactions stay."""

    min_rating: float | None = option(None, "keep ratings of at least this")
    users_min: int = option(1, "interactions a user must have", low=1)
    items_min: int = option(1, "interactions an item must have", low=1)
    rounds: str = option("fixpoint", "how often users and items are cut: a number, or fixpoint")


def read_filter(values: Mapping[str, Any], where: str) -> FilterOptions:
    """Check a filter's settings.

    Raises
    ------
    BenchError
        For unknown settings, wrong types and ranges.
    """
    options = read_options(FilterOptions, values, where)
    if options.rounds != "fixpoint" and not (options.rounds.isdigit() and int(options.rounds) > 0):
        raise BenchError(f"{where}: rounds is a number above 0 or 'fixpoint', got '{options.rounds}'")
    return options


def apply_filter(rows: Interactions, options: FilterOptions) -> tuple[Interactions, list[tuple[int, int]]]:
    """Cut by rating, then by the number of interactions of users and items.

    One round counts users and items on the same rows and drops every row whose user or item has too few; then the
    next round counts again.

    Returns
    -------
    rows : Interactions
        What stays.
    rounds : list of (int, int)
        Users and items left after each round that was run.

    Raises
    ------
    BenchError
        When ratings are asked for but absent, or nothing stays.
    """
    if options.min_rating is not None:
        if rows.ratings is None:
            raise BenchError("the filter asks for min_rating but this dataset has no ratings; leave min_rating out")
        rows = rows.keep(rows.ratings >= options.min_rating)
    history: list[tuple[int, int]] = []
    most = None if options.rounds == "fixpoint" else int(options.rounds)
    while (options.users_min > 1 or options.items_min > 1) and (most is None or len(history) < most):
        per_user = np.bincount(rows.users, minlength=len(rows.user_tokens))
        per_item = np.bincount(rows.items, minlength=len(rows.item_tokens))
        stays = (per_user[rows.users] >= options.users_min) & (per_item[rows.items] >= options.items_min)
        if stays.all():
            break
        rows = rows.keep(stays)
        history.append((len(np.unique(rows.users)), len(np.unique(rows.items))))
    if not len(rows):
        raise BenchError("the filter leaves no interaction; lower min_rating, users_min or items_min")
    return rows, history


def build_histories(rows: Interactions, domain: str) -> tuple[Histories, Catalogue, list[str]]:
    """Number users and items, and sort.

    Users keep the order of their first row in the file. Within a user rows are sorted by time; equal times keep
    file order. Items are numbered by first appearance in the sorted rows, unless the source's own ids are kept.

    Returns
    -------
    histories : Histories
    catalogue : Catalogue
        The items in the id space.
    user_tokens : list of str
        Indexed by user id, entry 0 is padding.
    """
    order = rows.order if rows.order is not None else np.zeros(len(rows), dtype=np.int64)
    sorting = np.lexsort((order, rows.users))  # stable: equal users and times stay in file order
    users = rows.users[sorting]
    starts = np.flatnonzero(np.concatenate([[True], users[1:] != users[:-1]]))
    offsets = np.append(starts, len(users)).astype(np.int64)
    codes = rows.items[sorting]
    if rows.source_ids:
        numbers = np.array([int(token) for token in rows.item_tokens], dtype=np.int64)
        items, n_items = numbers[codes], int(numbers.max())
        tokens = ["", *map(str, range(1, n_items + 1))]
    else:
        seen, first = np.unique(codes, return_index=True)
        seen = seen[np.argsort(first)]
        ids = np.zeros(len(rows.item_tokens), dtype=np.int64)
        ids[seen] = np.arange(1, len(seen) + 1)
        items, n_items = ids[codes], len(seen)
        tokens = ["", *(rows.item_tokens[code] for code in seen)]
    times = np.floor(order[sorting]).astype(np.int64) if rows.has_times else None
    ratings = None if rows.ratings is None else rows.ratings[sorting].astype(np.float32)
    histories = Histories(items.astype(np.int32), offsets, n_items, times, ratings)
    user_tokens = ["", *(rows.user_tokens[code] for code in users[starts])]
    return histories, _catalogue(tokens, rows.text, domain), user_tokens


def _catalogue(tokens: list[str], text: dict[str, ItemText], domain: str) -> Catalogue:
    nothing = ItemText()
    known = [nothing] + [text.get(token, nothing) for token in tokens[1:]]
    return Catalogue(
        tokens=tokens,
        titles=[item.title for item in known],
        years=np.array([item.year for item in known], dtype=np.int32),
        categories=[item.categories for item in known],
        descriptions=[item.description for item in known],
        domain=domain,
    )
