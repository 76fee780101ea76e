"""Labels without any language model: names, kinds and key phrases of the own text, put into sentences.

What a label speaks of, its terms, are for an item its title with the year and its categories, for a user up to three
categories and decades that the user turns to more than others do; then key phrases of the reviews (:mod:`.phrases`), of
who wrote none those of the titles of the own training items. The terms are set into templates of three forms in turn: a
list, one sentence, two sentences.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from recllm_bench.errors import BenchError
from recllm_bench.language.labels.anonymise import anonymise
from recllm_bench.language.labels.documents import Documents, label_documents, plain_title, positions_in_scope
from recllm_bench.language.labels.label_records import Labels, plural
from recllm_bench.language.labels.phrases import key_phrases

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue
    from recllm_bench.data.prepared import PreparedDataset
    from recllm_bench.data.splits import Split

_CATEGORIES = 3
_PHRASES = 6
WORDS = 1500
"""Words of a user's or item's text that are read: no language model's context bounds them."""
_SHRINK = 5.0  # so many category mentions of the average user are added to everybody's
_DECADE = re.compile(r"\d{3}0s")
_WIDESPREAD = 0.5  # a category of more items than this tells nothing of an item

# Forms in the order of versions; of each form one wording is drawn. {first} and {rest} are the two halves of {terms}.
_USER_FORMS = (
    ("{listed}", "Interests: {commas}.", "Looks for {commas}."),
    (
        "This person keeps coming back to {terms}.",
        "Someone drawn to {things} that have to do with {terms}.",
        "A person whose choice of {things} turns on {terms}.",
    ),
    (
        "What matters most to this person is {first}. {rest} {come} up as well.",
        "This person cares for {first} above all. {rest} {are} also of interest.",
        "Mostly chooses {things} for {first}. {rest} {play} a part too.",
    ),
)
_ITEM_FORMS = (
    ("{listed}", "{commas}.", "Features: {commas}."),
    (
        "{a_thing} that people connect with {terms}.",
        "This {thing} is all about {terms}.",
        "People who care for {terms} would pick this {thing}.",
    ),
    (
        "This {thing} stands for {first}. {rest} {come} up as well.",
        "{a_thing} for those who look for {first}. {rest} {are} part of it.",
        "Fans of {first} would like this {thing}. {rest} {play} a part too.",
    ),
)


def extractive_labels(
    dataset: PreparedDataset,
    split: Split,
    *,
    scope: str = "train_only",
    versions: int = 3,
    seed: int = 42,
    words: int = WORDS,
    anonymise_names: bool = True,
    documents: Documents | None = None,
) -> Labels:
    """Label every user and item of whom anything is known.

    Parameters
    ----------
    dataset, split, scope, words
        As for :func:`.label_documents`.
    versions : int
        Wordings of each label, 1 to 9: three forms, three templates each.
    seed : int
        Draws the order in which an id gets the templates of a form; equal seeds give equal labels.
    anonymise_names : bool
        Write ``iid_17`` for the titles of catalogue items; an item's own title stays in words in its own label, where a
        token would say nothing, and so do phrases of titles in the label of a user who wrote no review.
    documents : Documents, optional
        Made before, with the same scope.

    Raises
    ------
    BenchError
        For an unknown scope or a number of versions out of range.
    """
    if not 1 <= versions <= 9:
        raise BenchError(f"labels: 1 to 9 extractive versions can be made, got {versions}")
    documents = documents or label_documents(dataset, split, scope, words)
    catalogue, histories = dataset.catalogue, dataset.histories
    kinds = [_kinds_of(catalogue, item) for item in range(histories.n_items + 1)]
    allowed = np.flatnonzero(positions_in_scope(split, documents.scope))
    owners, chosen = histories.users_of_positions()[allowed], histories.items[allowed]
    titles = [plain_title(title) for title in catalogue.titles]
    parts = [list(texts) if own else [] for texts, own in zip(documents.user_parts, documents.wrote, strict=True)]
    for user, item in zip(owners.tolist(), chosen.tolist(), strict=True):
        if not documents.wrote[user] and titles[item]:
            parts[user].append(titles[item])
    user_terms = _terms(_leanings(kinds, owners, chosen, histories.n_users), key_phrases(parts, _PHRASES))
    names = [
        (f"{title} ({year})" if year else title,) if title else ()
        for title, year in zip(titles, catalogue.years.tolist(), strict=True)
    ]
    item_terms = _terms(names, _terms(_telling(kinds, names), key_phrases(documents.item_parts, _PHRASES)))
    labels = Labels(
        _worded(user_terms, _USER_FORMS, catalogue.domain, versions, (seed, 0)),
        _worded(item_terms, _ITEM_FORMS, catalogue.domain, versions, (seed, 1)),
        "extractive",
        documents.scope,
        {**documents.counts, "users without label": _empty(user_terms), "items without label": _empty(item_terms)},
    )
    # Of who wrote nothing the phrases are words of titles; a phrase that is a whole title is no mention of the item.
    return anonymise(labels, catalogue.titles, True, documents.wrote.tolist()) if anonymise_names else labels


def _kinds_of(catalogue: Catalogue, item: int) -> tuple[str, ...]:
    """Categories of an item, and its decade."""
    decade = (f"{catalogue.years[item] // 10 * 10}s",) if catalogue.years[item] else ()
    return tuple(dict.fromkeys(name.lower() for name in catalogue.categories[item])) + decade


def _leanings(
    kinds: Sequence[tuple[str, ...]], owners: np.ndarray, items: np.ndarray, n_users: int
) -> list[tuple[str, ...]]:
    """Categories that each user's items have more often than everybody's: by ``p ln(p / q)``, with ``p`` the user's
    share (shrunk to ``q``) and ``q`` everybody's.
    """
    names = sorted({name for row in kinds for name in row})
    found: list[tuple[str, ...]] = [()] * (n_users + 1)
    if not names or not len(items):
        return found
    number = {name: place for place, name in enumerate(names)}
    sizes = np.array([len(row) for row in kinds])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    flat = np.array([number[name] for row in kinds for name in row], dtype=np.int64)
    repeats = sizes[items]
    within = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    kind = flat[np.repeat(starts[items], repeats) + within]
    user = np.repeat(owners, repeats)
    overall = np.bincount(kind, minlength=len(names)) / max(len(kind), 1)
    pairs, times = np.unique(user * len(names) + kind, return_counts=True)
    user, kind = pairs // len(names), pairs % len(names)
    totals = np.bincount(user, weights=times, minlength=n_users + 1)
    share = (times + _SHRINK * overall[kind]) / (totals[user] + _SHRINK)
    weight = share * np.log(share / overall[kind])
    order = np.lexsort((kind, -weight, user))
    order = order[weight[order] > 0]
    first = np.flatnonzero(np.diff(user[order], prepend=-1))
    place = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order))))
    for row in order[place < _CATEGORIES].tolist():
        found[user[row]] += (names[kind[row]],)
    return found


def _telling(kinds: Sequence[tuple[str, ...]], names: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The rarest categories of each item, in the catalogue's order; of an item without name none that half of the items
    have, of one with a name all that are among its rarest but for the decade, which stands in the year.
    """
    shares: dict[str, int] = {}
    for row in kinds:
        for name in row:
            shares[name] = shares.get(name, 0) + 1
    widespread = _WIDESPREAD * max(sum(1 for row in kinds if row), 1)
    found = []
    for row, own in zip(kinds, names, strict=True):
        told = [name for name in row if (not _DECADE.fullmatch(name) if own else shares[name] <= widespread)]
        rare = sorted(told, key=lambda name: (shares[name], name))[:_CATEGORIES]
        found.append(tuple(name for name in row if name in rare))
    return found


def _terms(categories: Sequence[tuple[str, ...]], phrases: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [tuple(dict.fromkeys((*some, *more))) for some, more in zip(categories, phrases, strict=True)]


def _worded(
    terms: Sequence[tuple[str, ...]],
    forms: tuple[tuple[str, ...], ...],
    domain: str,
    versions: int,
    seed: tuple[int, int],
) -> list[tuple[str, ...]]:
    """Set the terms of each id into templates."""
    rng = np.random.default_rng(seed)
    orders = rng.permuted(np.tile(np.arange(3), (len(terms), len(forms), 1)), axis=2)  # [n, form, wording]
    of_domain = {"thing": domain, "things": plural(domain), "a_thing": f"{_article(domain)} {domain}"}
    rows: list[tuple[str, ...]] = []
    for id, parts in enumerate(terms):
        if not parts:
            rows.append(())
            continue
        half = (len(parts) + 1) // 2 if len(parts) < 5 else 3
        rest = parts[half:]
        many = len(rest) != 1
        words = {
            **of_domain,
            "listed": "; ".join(parts),
            "commas": ", ".join(parts),
            "terms": _spoken(parts),
            "first": _spoken(parts[:half]),
            "rest": _spoken(rest) if rest else "other things",
            "come": "come" if many else "comes",
            "are": "are" if many else "is",
            "play": "play" if many else "plays",
        }
        made: list[str] = []
        for version in range(versions):
            form, turn = version % len(forms), version // len(forms)
            text = forms[form][orders[id, form, turn]].format_map(words)
            made.append(_capitalised(text) if form else text)
        rows.append(tuple(made))
    return rows


def _spoken(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


def _capitalised(text: str) -> str:
    """Capital letters at the beginning of sentences; tokens such as ``iid_3`` stay."""
    sentences = text.split(". ")
    starts = (s if s.startswith("iid_") else s[:1].upper() + s[1:] for s in sentences)
    return ". ".join(starts)


def _article(noun: str) -> str:
    return "an" if noun[:1] in "aeiou" else "a"


def _empty(terms: Sequence[tuple[str, ...]]) -> int:
    return sum(1 for parts in terms[1:] if not parts)
