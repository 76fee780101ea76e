"""Everything worth knowing of a prepared dataset before a model is trained on it, as numbers."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from recllm_bench.data.catalogue import Catalogue
from recllm_bench.data.facts import Repeats, repeats, tied_share
from recllm_bench.data.histories import Histories
from recllm_bench.data.prepared import PreparedDataset
from recllm_bench.data.sequential_structure import SequentialStructure, sequential_structure
from recllm_bench.errors import BenchError

QUANTILES = (5, 25, 50, 75, 95, 99)
TOP_PERCENTS = (1, 5, 10, 20, 50)
RARE = 5
# More different ratings than this are shown in bins.
_MOST_RATINGS = 11
_MOST_REVIEWS, _SAMPLED_REVIEWS, _REVIEWS_AT_ONCE = 1_000_000, 1000, 100_000


@dataclass(frozen=True)
class Histogram:
    """Counted classes, in order; ``labels`` and ``counts`` have one entry for each."""

    labels: list[str]
    counts: list[int]


@dataclass(frozen=True)
class Popularity:
    """How interactions spread over the consumed items.

    Attributes
    ----------
    top_shares : dict of int to float
        Share of the interactions that the most popular 1, 5, 10, 20, 50 % of the items have (rounded up to whole
        items).
    gini : float
        0: all items equally popular; towards 1: one item has everything.
    rare_items : int
        Items with fewer than 5 interactions.
    """

    top_shares: dict[int, float]
    gini: float
    rare_items: int


@dataclass(frozen=True)
class TimeSpan:
    """First and last day (UTC, ISO) and interactions by year."""

    first: str
    last: str
    by_year: dict[int, int]


@dataclass(frozen=True)
class TextCoverage:
    """What is known of the consumed items.

    Attributes
    ----------
    title, year, categories, description : float
        Share of the items that have one.
    shared_titles : int
        Titles that more than one item has (case and spaces aside).
    items_sharing : int
        Items that have such a title.
    description_words : float or None
        Mean number of words of the descriptions there are.
    reviews, review_words : float or None
        Share of the interactions with review text, and the mean number of words of these; None when the source has
        none. Of a sample when there are more than a million interactions.
    """

    title: float
    year: float
    categories: float
    description: float
    shared_titles: int
    items_sharing: int
    description_words: float | None
    reviews: float | None = None
    review_words: float | None = None


@dataclass(frozen=True)
class Description:
    """A dataset in numbers; shares are between 0 and 1.

    Attributes
    ----------
    counts : dict
        ``users, items`` (consumed), ``interactions, catalogue_items, mean_length, median_length, min_length,
        max_length, density, sparsity``.
    lengths, length_quantiles : Histogram, dict of int to float
        Interactions per user, in bins that grow by factors 1, 2, 5, 10 ...; percentiles.
    ratings, times, tied_share : optional
        None when the source has no ratings or no times. ``tied_share``: interactions that share their second with
        another one of the same user.
    structure, no_structure : SequentialStructure or None, str
        The sequential-structure check, or why there is none.
    """

    name: str
    title: str
    filter: str
    variant: str
    licence: str
    checksum: str
    has_times: bool
    has_ratings: bool
    counts: dict[str, Any]
    lengths: Histogram
    length_quantiles: dict[int, float]
    popularity: Popularity
    ratings: Histogram | None
    mean_rating: float | None
    times: TimeSpan | None
    tied_share: float | None
    text: TextCoverage
    repeats: Repeats
    structure: SequentialStructure | None
    no_structure: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return dataclasses.asdict(self)


def describe(prepared: PreparedDataset, shuffles: int = 5, seed: int = 42) -> Description:
    """Count, measure and check a prepared dataset.

    Parameters
    ----------
    prepared : PreparedDataset
        The dataset under one filter.
    shuffles, seed : int
        Of the sequential-structure check, see :func:`sequential_structure`.

    Raises
    ------
    BenchError
        For a dataset without interactions.
    """
    histories = prepared.histories
    if not len(histories.items):
        raise BenchError(f"{prepared.name} under the filter '{prepared.filter}' has no interactions to describe")
    consumed = np.bincount(histories.items, minlength=histories.n_items + 1)
    consumed[0] = 0
    structure, no_structure = None, ""
    try:
        structure = sequential_structure(histories, shuffles=shuffles, seed=seed)
    except BenchError as error:
        no_structure = str(error)
    card = prepared.card
    return Description(
        name=prepared.name,
        title=card["title"],
        filter=prepared.filter,
        variant=prepared.variant,
        licence=card["licence"]["name"],
        checksum=prepared.checksum,
        has_times=prepared.has_times,
        has_ratings=histories.ratings is not None,
        counts=_counts(histories, consumed, prepared.facts.get("catalogue_items")),
        lengths=length_histogram(histories.lengths),
        length_quantiles={q: float(np.percentile(histories.lengths, q)) for q in QUANTILES},
        popularity=popularity(consumed[consumed > 0]),
        ratings=None if histories.ratings is None else rating_histogram(histories.ratings),
        mean_rating=None if histories.ratings is None else float(np.mean(histories.ratings, dtype=np.float64)),
        times=None if histories.times is None else time_span(histories.times),
        tied_share=tied_share(histories),
        text=text_coverage(prepared.catalogue, consumed, *_review_coverage(prepared, seed)),
        repeats=repeats(histories),
        structure=structure,
        no_structure=no_structure,
    )


def _counts(histories: Histories, consumed: np.ndarray, catalogue_items: int | None) -> dict[str, Any]:
    lengths, items, total = histories.lengths, int((consumed > 0).sum()), len(histories.items)
    density = total / (histories.n_users * items)
    return {
        "users": histories.n_users,
        "items": items,
        "interactions": total,
        "catalogue_items": catalogue_items,
        "mean_length": total / histories.n_users,
        "median_length": float(np.median(lengths)),
        "min_length": int(lengths.min()),
        "max_length": int(lengths.max()),
        "density": density,
        "sparsity": 1 - density,
    }


def length_histogram(lengths: np.ndarray) -> Histogram:
    """Histories by length, in bins that start at 1, 2, 5, 10, 20, 50 ...; empty bins at both ends are left out."""
    starts = [0]
    for power in itertools.count():
        starts += [step * 10**power for step in (1, 2, 5)]
        if starts[-1] > lengths.max():
            break
    counts = np.bincount(np.searchsorted(starts, lengths, "right") - 1, minlength=len(starts))
    used = np.flatnonzero(counts)
    labels = [
        f"{low:,}" if following == low + 1 else f"{low:,}-{following - 1:,}"
        for low, following in itertools.pairwise(starts)
    ]
    span = range(used[0], used[-1] + 1)
    return Histogram([labels[place] for place in span], [int(counts[place]) for place in span])


def popularity(counts: np.ndarray) -> Popularity:
    """Concentration of interactions; ``counts`` int [items], each above 0.

    Gini coefficient of n ascending counts c: ``2 sum(i c_i) / (n sum(c)) - (n + 1) / n``, i from 1, which is half the
    relative mean absolute difference of all pairs.
    """
    rising = np.sort(counts.astype(np.int64))
    n, total = len(rising), int(rising.sum())
    until = np.cumsum(rising[::-1])
    tops = {percent: float(until[max(1, -(-n * percent // 100)) - 1] / total) for percent in TOP_PERCENTS}
    weighted = float(np.dot(np.arange(1, n + 1, dtype=np.float64), rising))
    return Popularity(tops, 2 * weighted / (n * total) - (n + 1) / n, int((counts < RARE).sum()))


def rating_histogram(ratings: np.ndarray) -> Histogram:
    """Interactions by rating; more than 11 different ratings go into ten bins of equal width."""
    values, counts = np.unique(ratings, return_counts=True)
    if len(values) <= _MOST_RATINGS:
        return Histogram([f"{value:g}" for value in values.tolist()], counts.tolist())
    counts, edges = np.histogram(ratings, bins=10)
    labels = [f"{low:.3g}-{high:.3g}" for low, high in itertools.pairwise(edges.tolist())]
    return Histogram(labels, counts.tolist())


def time_span(times: np.ndarray) -> TimeSpan:
    """Days and years of Unix seconds, in UTC."""
    years, counts = np.unique(_moments(times).astype("datetime64[Y]"), return_counts=True)
    first, last = (str(_moments(moment).astype("datetime64[D]")) for moment in (times.min(), times.max()))
    return TimeSpan(first, last, dict(zip((years.astype(np.int64) + 1970).tolist(), counts.tolist(), strict=True)))


def _moments(times: np.ndarray) -> np.ndarray:
    return np.asarray(times, dtype=np.int64).astype("datetime64[s]")


def text_coverage(
    catalogue: Catalogue, consumed: np.ndarray, reviews: float | None = None, review_words: float | None = None
) -> TextCoverage:
    """What the catalogue says of the items with at least one interaction; ``consumed`` counts them by id."""
    mask = consumed > 0
    total = int(mask.sum())
    titles = Counter(folded for title in _of(catalogue.titles, mask) if (folded := " ".join(title.casefold().split())))
    words = [len(text.split()) for text in _of(catalogue.descriptions, mask)]
    described = [count for count in words if count]
    shared = [count for count in titles.values() if count > 1]
    return TextCoverage(
        title=sum(titles.values()) / total,
        year=float((np.asarray(catalogue.years)[mask] != 0).sum()) / total,
        categories=sum(bool(names) for names in _of(catalogue.categories, mask)) / total,
        description=len(described) / total,
        shared_titles=len(shared),
        items_sharing=sum(shared),
        description_words=sum(described) / len(described) if described else None,
        reviews=reviews,
        review_words=review_words,
    )


def _of(values: Iterable, mask: np.ndarray) -> Iterable:
    return itertools.compress(values, mask.tolist())


def _review_coverage(prepared: PreparedDataset, seed: int) -> tuple[float | None, float | None]:
    total = len(prepared.histories.items)
    # A description does not unpack gigabytes: of a large corpus only text that lies ready is looked at.
    reviews = prepared.reviews(read=total <= _MOST_REVIEWS)
    if reviews is None:
        return None, None
    positions = np.arange(total)
    if total > _MOST_REVIEWS:
        # Text is stored in compressed groups: a few interactions of a large corpus touch most of it.
        positions = np.sort(np.random.default_rng(seed).choice(total, _SAMPLED_REVIEWS, replace=False))
    words = [
        len(text.split())
        for start in range(0, len(positions), _REVIEWS_AT_ONCE)
        for text in reviews.of(positions[start : start + _REVIEWS_AT_ONCE])
    ]
    written = [count for count in words if count]
    return len(written) / len(words), sum(written) / len(written) if written else None
