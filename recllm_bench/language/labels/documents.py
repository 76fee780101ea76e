"""The text that labels are made of: for each user and item one document, from the training part alone by default.

A user's document is what the user wrote, an item's document its title, year, categories and description followed by
what was written about it. Reviews come newest first; a document ends after a number of words, within a review if need
be. Who wrote nothing (and everybody where a dataset has no reviews) gets the titles and categories of the own training
items instead, newest first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recllm_bench.errors import BenchError, nearest
from recllm_bench.language.labels.label_records import SCOPES

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue
    from recllm_bench.data.prepared import PreparedDataset
    from recllm_bench.data.reviews import Reviews
    from recllm_bench.data.splits import Split

WORDS = 384
"""Words of a document: with instructions and an answer of 200 words this fits a context of 2,048 tokens."""


@dataclass(frozen=True)
class Documents:
    """Source text by id, entry 0 empty; an id of which nothing is known has an empty document.

    Attributes
    ----------
    users, items : list of str
        Documents.
    about : list of str
        Of each item the beginning of its document: title, year, categories.
    scope : str
        ``"train_only"`` or ``"all"``: which interactions the text may come from.
    source : str
        ``"reviews"`` or ``"catalogue"``.
    wrote : bool [n_users + 1]
        Users whose document is their own writing, not titles.
    user_parts, item_parts : list of list of str
        The same documents in pieces, a review or a description each; an item's without its beginning.
    counts : dict of str to int
        Users and items without a document, users with titles in place of reviews, documents that were cut.
    """

    users: list[str]
    items: list[str]
    about: list[str]
    scope: str
    source: str
    wrote: np.ndarray
    user_parts: list[list[str]]
    item_parts: list[list[str]]
    counts: dict[str, int] = field(default_factory=dict)


def label_documents(dataset: PreparedDataset, split: Split, scope: str = "train_only", words: int = WORDS) -> Documents:
    """Collect the source text of every user and item.

    The reviews are streamed twice, in the source's order: once to count words, which tells how many of whose newest
    reviews fit, and once to take just those. What is held grows with the documents, not with the reviews.

    Parameters
    ----------
    scope : {"train_only", "all"}
        ``train_only`` reads no review, title or category of a validation or test interaction. An item's own title,
        year, categories and description are no interaction and always there.
    words : int
        Most words of a document.

    Raises
    ------
    BenchError
        For an unknown scope or a budget below 8 words.
    """
    if scope not in SCOPES:
        raise BenchError(f"label_scope: '{scope}' is not known.{nearest(scope, SCOPES)}")
    if words < 8:
        raise BenchError(f"label documents need at least 8 words each, got {words}")
    histories, catalogue = dataset.histories, dataset.catalogue
    allowed = positions_in_scope(split, scope)
    owners = histories.users_of_positions()
    about = [_described(catalogue, item) for item in range(histories.n_items + 1)]
    users: list[list[str]] = [[] for _ in range(histories.n_users + 1)]
    items = [[text for text in pair if text] for pair in zip(about, catalogue.descriptions, strict=True)]
    cut = 0
    reviews = dataset.reviews()
    if reviews is not None:
        lengths = _review_lengths(reviews, split, scope, len(owners))
        used = np.array([sum(len(text.split()) for text in parts) for parts in items])
        times = histories.times if dataset.has_times else None
        of_users = _newest_that_fit(owners, lengths, None, np.full(len(users), words))
        of_items = _newest_that_fit(histories.items, lengths, times, np.maximum(words - used, 0))
        texts = _take(reviews, split, scope, np.union1d(of_users[0], of_items[0]))
        for documents, ids, (positions, room) in ((users, owners, of_users), (items, histories.items, of_items)):
            for id, position, most in zip(ids[positions].tolist(), positions.tolist(), room.tolist(), strict=True):
                documents[id].append(_first_words(texts[position], most))
            cut += int((room < lengths[positions]).sum())
    wrote = np.array([bool(parts) for parts in users])
    silent = np.flatnonzero(allowed & ~wrote[owners])
    _append_titles(users, owners[silent], histories.items[silent], catalogue, words)
    joined_users = ["\n".join(parts) for parts in users]
    joined_items = [_first_words("\n".join(parts), words) for parts in items]
    item_parts = [parts[bool(text) :] for parts, text in zip(items, about, strict=True)]
    counts = {
        "users without text": sum(not text for text in joined_users[1:]),
        "items without text": sum(not text for text in joined_items[1:]),
        "users with titles in place of reviews": sum(
            bool(text) and not own for text, own in zip(joined_users, wrote, strict=True)
        ),
        "reviews cut": cut,
    }
    source = "catalogue" if reviews is None else "reviews"
    return Documents(joined_users, joined_items, about, scope, source, wrote, users, item_parts, counts)


def positions_in_scope(split: Split, scope: str) -> np.ndarray:
    """Interactions whose text a label may use: bool [total]."""
    histories = split.histories
    return np.ones(len(histories.items), bool) if scope == "all" else histories.before(split.train_ends)


def plain_title(title: str) -> str:
    """A title as people say it: ``"Matrix, The"`` becomes ``"The Matrix"``."""
    head, comma, article = title.rpartition(", ")
    return f"{article} {head}" if comma and article in _ARTICLES else title


_ARTICLES = frozenset(("The", "A", "An", "Les", "La", "Le", "Il", "El", "Das", "Der", "Die", "L'"))


def _described(catalogue: Catalogue, item: int) -> str:
    title = plain_title(catalogue.titles[item])
    if title and catalogue.years[item]:
        title = f"{title} ({catalogue.years[item]})"
    return "\n".join(line for line in (title, ", ".join(catalogue.categories[item])) if line)


def _batches(reviews: Reviews, split: Split, scope: str):
    return reviews.batches(split, parts=("train",)) if scope == "train_only" else reviews.batches(split)


def _review_lengths(reviews: Reviews, split: Split, scope: str, total: int) -> np.ndarray:
    """Words of each interaction's review, 0 outside the scope: int32 [total]."""
    lengths = np.zeros(total, dtype=np.int32)
    for table in _batches(reviews, split, scope):
        words = sum(
            pc.fill_null(pc.count_substring_regex(table[name], r"\S+"), 0).to_numpy()
            for name in ("title", "text")
            if name in table.column_names
        )
        lengths[table["position"].to_numpy()] = words
    return lengths


def _newest_that_fit(
    ids: np.ndarray, lengths: np.ndarray, times: np.ndarray | None, budget: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which reviews make each id's document, newest first.

    Parameters
    ----------
    ids : int [total]
        Whose each review is.
    lengths : int [total]
        Words; 0 leaves a review out.
    times : int64 [total] or None
        When it was written; equal or unknown times count as later the further back they stand in the histories.
    budget : int [n + 1]
        Words for each id.

    Returns
    -------
    positions : int64 [k]
        Grouped by id, newest first.
    room : int64 [k]
        How many words of each are still within the budget (at least 1).
    """
    there = np.flatnonzero(lengths)
    order = np.lexsort((-there, np.zeros(len(there)) if times is None else -times[there], ids[there]))
    positions = there[order]
    owner, words = ids[positions], lengths[positions].astype(np.int64)
    before = np.cumsum(words) - words
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    before -= np.repeat(before[first], np.diff(np.append(first, len(owner))))
    room = budget[owner] - before
    fits = room > 0
    return positions[fits], room[fits]


def _take(reviews: Reviews, split: Split, scope: str, wanted: np.ndarray) -> dict[int, str]:
    """Text of the wanted positions."""
    is_wanted = np.zeros(len(reviews), dtype=bool)
    is_wanted[wanted] = True
    texts: dict[int, str] = {}
    for table in _batches(reviews, split, scope):
        table = table.filter(pa.array(is_wanted[table["position"].to_numpy()]))
        columns = [table[name].to_pylist() for name in ("title", "text") if name in table.column_names]
        for position, *parts in zip(table["position"].to_pylist(), *columns, strict=True):
            texts[position] = "\n".join(part.strip() for part in parts if part and part.strip())
    return texts


def _first_words(text: str, most: int) -> str:
    """The first words of a text, its line breaks kept."""
    pieces = text.split(None, most)
    if len(pieces) <= most:
        return text
    return text[: len(text) - len(pieces[-1])].rstrip()


def _append_titles(
    users: list[list[str]], owners: np.ndarray, items: np.ndarray, catalogue: Catalogue, words: int
) -> None:
    """Titles and categories of the items of users who wrote nothing, newest first, within the budget."""
    lines = {}
    for item in np.unique(items).tolist():
        title, names = plain_title(catalogue.titles[item]), ", ".join(catalogue.categories[item])
        lines[item] = f"{title}: {names}" if title and names else title or names
    lengths = np.zeros(int(items.max()) + 1 if len(items) else 1, dtype=np.int64)
    for item, line in lines.items():
        lengths[item] = len(line.split())
    chosen, room = _newest_that_fit(owners, lengths[items], None, np.full(len(users), words))
    for user, item, most in zip(owners[chosen].tolist(), items[chosen].tolist(), room.tolist(), strict=True):
        users[user].append(_first_words(lines[item], most))
