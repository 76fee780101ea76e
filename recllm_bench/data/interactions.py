"""Interactions as a source gives them, before they have ids of ours; filters; and the way to histories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from recllm_bench.data.catalogue import TEXT_FIELDS, Catalogue
from recllm_bench.data.columns import TextRows
from recllm_bench.data.histories import Histories
from recllm_bench.data.item_texts import ItemText, listed, texts_of
from recllm_bench.errors import BenchError, NotEnough
from recllm_bench.options import option, read_options

__all__ = ["FilterOptions", "Interactions", "ItemText", "NothingLeft", "apply_filter", "build_histories", "read_filter"]


class NothingLeft(NotEnough):
    """A filter that no interaction passes."""


@dataclass(frozen=True)
class Interactions:
    """Rows in file order, users and items as codes into their tokens.

    Attributes
    ----------
    users, items : int64 or int32 [n]
        Codes ``0..``, numbered by first appearance in the file.
    user_tokens, item_tokens : sequence of str, or Arrow column of strings
        The source's ids, by code.
    order : float64 or int64 [n] or None
        Sorts within a user, stable; None keeps file order.
    has_times : bool
        Whether ``order`` is Unix time in seconds, not only an order.
    ratings : float32 [n] or None
        Ratings.
    text : mapping of str to ItemText
        What the source says about items, by token; may know more items than were consumed.
    source_ids : bool
        Keep the source's own integer item ids, so that tables made with them (a released checkpoint) line up.
    parents : int32 [n_item_codes] or None
        Code of the product of which an item is a variant (itself when it is none).
    rows : int64 [n] or None
        Where the source keeps an interaction's review.
    noticed : mapping of str to int
        What the reader counted on its way: lines, lines skipped, scraps.
    notes : tuple of str
        What else the reader noticed, for people.
    skipped : tuple of (str, int, int)
        Of each file with bad lines: the first of them, how many, and of how many lines.
    """

    users: np.ndarray
    items: np.ndarray
    user_tokens: Sequence[str] | pa.ChunkedArray
    item_tokens: Sequence[str] | pa.ChunkedArray
    order: np.ndarray | None = None
    has_times: bool = False
    ratings: np.ndarray | None = None
    text: Mapping[str, ItemText] = field(default_factory=dict)
    source_ids: bool = False
    parents: np.ndarray | None = None
    rows: np.ndarray | None = None
    noticed: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.users)

    def keep(self, mask: np.ndarray) -> Interactions:
        """Only the rows under ``mask``; codes and tokens stay."""
        cut = {name: getattr(self, name) for name in ("order", "ratings", "rows")}
        cut = {name: None if value is None else value[mask] for name, value in cut.items()}
        return replace(self, users=self.users[mask], items=self.items[mask], **cut)


@dataclass(frozen=True)
class FilterOptions:
    """Which interactions stay."""

    min_rating: float | None = option(None, "keep ratings of at least this")
    users_min: int = option(1, "interactions a user must have", low=1)
    items_min: int = option(1, "interactions an item must have", low=1)
    rounds: str = option("fixpoint", "how often users and items are cut: a number, or fixpoint")
    cut: str = option(
        "together",
        "in a round: users and items counted together, or items first and users on what that leaves",
        choices=("together", "items_first"),
    )
    repeats: str = option("keep", "a user's later interactions with the same item", choices=("keep", "drop"))
    listed: str = option(
        "all",
        "items the source's item list does not name: keep all, cut them inside the rounds, or after them",
        choices=("all", "rounds", "after"),
    )
    ids: str = option("", "keep only users and items on one of the card's id lists, by its name")
    merge_variants: bool = option(False, "count the variants of a product (Amazon 2023: parent_asin) as one item")


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
    """Cut by rating, then repeats, then by the number of interactions of users and items.

    One round counts users and items on the same rows and drops every row whose user or item has too few, or whose
    item is not listed; then the next round counts again. Under ``items_first`` users are counted on the rows that the
    round's items leave, which goes further in as many rounds. Of repeated (user, item) pairs the earliest stays.

    Returns
    -------
    rows : Interactions
        What stays.
    rounds : list of (int, int)
        Users and items left after each round that was run.

    Raises
    ------
    BenchError
        When ratings or an item list are asked for but absent.
    NothingLeft
        When no interaction stays.
    """
    if options.min_rating is not None:
        if rows.ratings is None:
            raise BenchError("the filter asks for min_rating but this dataset has no ratings; leave min_rating out")
        rows = rows.keep(rows.ratings >= options.min_rating)
    if options.merge_variants:
        if rows.parents is None:
            raise BenchError("the filter asks for merge_variants but this dataset knows no variants; leave it out")
        rows = replace(rows, items=rows.parents[rows.items])
    if options.repeats == "drop":
        rows = rows.keep(_earliest_of_pairs(rows))
    known = None
    if options.listed != "all":
        if not rows.text:
            raise BenchError("the filter asks for listed items but this dataset has no item list; leave listed out")
        known = listed(rows.text, rows.item_tokens)
    rows, history = _cut(rows, options, known if options.listed == "rounds" else None)
    if options.listed == "after" and known is not None:
        rows = rows.keep(known[rows.items])
    if not len(rows):
        cuts = {"min_rating": None, "users_min": 1, "items_min": 1}
        lower = [name for name, none in cuts.items() if getattr(options, name) != none]
        raise NothingLeft(f"leaves no interaction; lower {' or '.join(lower)}" if lower else "leaves no interaction")
    return rows, history


def _cut(rows: Interactions, options: FilterOptions, known: np.ndarray | None) -> tuple[Interactions, list]:
    history: list[tuple[int, int]] = []
    most = None if options.rounds == "fixpoint" else int(options.rounds)
    n_users, n_items = len(rows.user_tokens), len(rows.item_tokens)
    # Only the two codes are cut in every round; all other columns once, at the end.
    users, items, left = rows.users, rows.items, None
    while most is None or len(history) < most:
        per_user, per_item = np.bincount(users, minlength=n_users), np.bincount(items, minlength=n_items)
        if history:
            history[-1] = (int(np.count_nonzero(per_user)), int(np.count_nonzero(per_item)))
        enough_items = per_item >= options.items_min
        if known is not None:
            enough_items &= known
        stays = enough_items[items]
        if options.cut == "items_first":
            per_user = np.bincount(users[stays], minlength=n_users)
        stays &= (per_user >= options.users_min)[users]
        if stays.all():
            break
        left = np.flatnonzero(stays) if left is None else left[stays]
        users, items = users[stays], items[stays]
        history.append((0, 0))
    if history:
        history[-1] = (len(np.unique(users)), len(np.unique(items)))
    return (rows if left is None else rows.keep(left)), history


def _earliest_of_pairs(rows: Interactions) -> np.ndarray:
    """Mask of each user's earliest interaction with each item; of equal times the first in the file."""
    pairs = rows.users.astype(np.int64) * len(rows.item_tokens) + rows.items
    keys = (pairs,) if rows.order is None else (rows.order, pairs)
    sorting = np.lexsort(keys)  # stable
    pairs = pairs[sorting]
    first = np.concatenate([[True], pairs[1:] != pairs[:-1]]) if len(pairs) else np.zeros(0, dtype=bool)
    mask = np.zeros(len(pairs), dtype=bool)
    mask[sorting[first]] = True
    return mask


def build_histories(
    rows: Interactions, domain: str, text_fields: Sequence[str] = TEXT_FIELDS
) -> tuple[Histories, Catalogue, Sequence[str], np.ndarray | None]:
    """Number users and items, and sort.

    Users keep the order of their first row in the file. Within a user rows are sorted by time; equal times keep
    file order. Items are numbered by first appearance in the sorted rows, unless the source's own ids are kept.

    Returns
    -------
    histories : Histories
    catalogue : Catalogue
        The items in the id space.
    user_tokens : sequence of str
        Indexed by user id, entry 0 is padding.
    rows : int64 [total] or None
        Where the source keeps the review of each interaction.
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
        seen = None
    else:
        seen, first = np.unique(codes, return_index=True)
        seen = seen[np.argsort(first)]
        ids = np.zeros(len(rows.item_tokens), dtype=np.int32)
        ids[seen] = np.arange(1, len(seen) + 1)
        items, n_items = ids[codes], len(seen)
        tokens = ["", *tokens_at(rows.item_tokens, seen)]
    times = np.floor(order[sorting]).astype(np.int64) if rows.has_times else None
    ratings = None if rows.ratings is None else rows.ratings[sorting].astype(np.float32)
    histories = Histories(items.astype(np.int32), offsets, n_items, times, ratings)
    known = texts_of(rows.text, tokens[1:], seen)
    catalogue = Catalogue(
        tokens=tokens,
        titles=["", *known.titles],
        years=np.concatenate([np.zeros(1, np.int32), known.years]),
        categories=[(), *known.categories],
        descriptions=known.descriptions.after_padding()
        if isinstance(known.descriptions, TextRows)
        else ["", *known.descriptions],
        domain=domain,
        text_fields=tuple(text_fields),
        brands=["", *known.brands] if any(known.brands) else (),
        prices=None if np.isnan(known.prices).all() else np.concatenate([[np.float32(np.nan)], known.prices]),
    )
    user_tokens = ["", *tokens_at(rows.user_tokens, users[starts])]
    return histories, catalogue, user_tokens, None if rows.rows is None else rows.rows[sorting]


def tokens_at(tokens: Sequence[str] | pa.ChunkedArray, codes: np.ndarray) -> list[str]:
    """The ids of some codes."""
    if isinstance(tokens, (pa.ChunkedArray, pa.Array)):
        return tokens.take(pa.array(codes)).to_pylist()
    return [tokens[code] for code in codes.tolist()]
