"""A dataset in numbers, each against a plain reading."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections import Counter

import numpy as np
import pytest

from recllm_bench.data import dataset_description as description
from recllm_bench.data.catalogue import Catalogue
from recllm_bench.data.dataset_description import (
    describe,
    length_histogram,
    popularity,
    rating_histogram,
    repeats,
    text_coverage,
    tied_share,
    time_span,
)
from recllm_bench.data.histories import Histories
from recllm_bench.data.prepare import prepare
from recllm_bench.data.prepared import PreparedDataset
from recllm_bench.errors import BenchError
from tests.data.planted_prepared import prepared_from


def random_rows(seed: int) -> tuple[list[list[int]], list[list[int]]]:
    """Histories with repeats and equal times; equal times across the borders of users too."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, 8, length).tolist() for length in rng.integers(1, 7, 25)]
    return rows, [np.sort(rng.integers(100, 104, len(row))).tolist() for row in rows]


@pytest.mark.parametrize("seed", range(8))
def test_ties_and_repeats_equal_a_count_user_by_user(seed):
    rows, times = random_rows(seed)
    histories = Histories.from_rows(rows, times=times)
    tied = sum(count for row in times for count in Counter(row).values() if count > 1)
    assert tied_share(histories) == pytest.approx(tied / len(histories.items))
    counts = [count for row in rows for count in Counter(row).values()]
    found = repeats(histories)
    assert found.interactions == sum(count - 1 for count in counts)
    assert found.pairs == sum(count > 1 for count in counts)
    assert found.share == pytest.approx(found.interactions / len(histories.items))


def test_ties_without_times_and_users_without_interactions():
    assert tied_share(Histories.from_rows([[1, 2]])) is None
    empty_between = Histories.from_rows([[], [1, 2], [], [3], []], times=[[], [5, 5], [], [5], []])
    assert tied_share(empty_between) == pytest.approx(2 / 3)
    assert repeats(Histories.from_rows([[1]])).pairs == 0


def test_lengths_fall_into_growing_bins():
    found = length_histogram(np.array([3, 4, 5, 9, 10, 49, 50, 99, 120]))
    assert found.labels == ["2-4", "5-9", "10-19", "20-49", "50-99", "100-199"]
    assert found.counts == [2, 2, 1, 1, 2, 1]
    assert length_histogram(np.array([1, 1])).labels == ["1"]
    million = length_histogram(np.array([1, 1_000_000]))
    assert million.labels[-1] == "1,000,000-1,999,999"
    assert sum(million.counts) == 2


@pytest.mark.parametrize("seed", range(5))
def test_gini_is_half_the_relative_mean_difference(seed):
    counts = np.random.default_rng(seed).geometric(0.1, 70)
    pairs = np.abs(counts[:, None] - counts[None, :]).mean()
    assert popularity(counts).gini == pytest.approx(pairs / (2 * counts.mean()))


def test_popularity_of_known_counts():
    found = popularity(np.array([1, 80, 4, 5, 10]))
    assert found.top_shares == {1: 0.8, 5: 0.8, 10: 0.8, 20: 0.8, 50: 0.95}
    assert found.rare_items == 2
    assert popularity(np.full(200, 3)).gini == pytest.approx(0, abs=1e-12)
    assert popularity(np.full(200, 3)).top_shares[1] == pytest.approx(0.01)


def test_ratings_and_their_bins():
    found = rating_histogram(np.array([5, 0.5, 5, 3], dtype=np.float32))
    assert (found.labels, found.counts) == (["0.5", "3", "5"], [1, 1, 2])
    binned = rating_histogram(np.arange(100, dtype=np.float32))
    assert len(binned.labels) == 10
    assert binned.counts == [10] * 10


def test_days_and_years_are_those_of_the_calendar():
    moments = [(1969, 12, 31, 23), (1997, 9, 20, 3), (1998, 1, 1, 0), (1998, 12, 31, 23)]
    seconds = [int(datetime.datetime(*moment, tzinfo=datetime.timezone.utc).timestamp()) for moment in moments]
    found = time_span(np.array(seconds))
    assert (found.first, found.last) == ("1969-12-31", "1998-12-31")
    assert found.by_year == {1969: 1, 1997: 1, 1998: 2}


def test_text_counts_consumed_items_only():
    catalogue = Catalogue(
        tokens=["", *"abcdef"],
        titles=["", "The  Film", "the film", "Other", "", "Other", "OTHER "],
        years=np.array([0, 1990, 0, 2000, 0, 2001, 1], dtype=np.int32),
        categories=[(), ("x",), (), ("x", "y"), (), ("z",), ("z",)],
        descriptions=["", "two words", "", "one two three four", "", "", "never counted"],
    )
    found = text_coverage(catalogue, np.array([0, 3, 1, 1, 9, 1, 0]))
    assert (found.title, found.year, found.categories, found.description) == (0.8, 0.6, 0.6, 0.4)
    assert (found.shared_titles, found.items_sharing) == (2, 4)
    assert found.description_words == 3.0
    assert found.reviews is None


def test_a_whole_description_and_its_json():
    rows, times = random_rows(3)
    rows = [[*row, 1, 2, 3] for row in rows]
    times = [[*row, 200, 201, 202] for row in times]
    histories = Histories.from_rows(rows, n_items=9, times=times)
    histories = dataclasses.replace(histories, ratings=np.ones(len(histories.items), np.float32))
    found = describe(prepared_from(histories))
    lengths = [len(row) for row in rows]
    items = len({item for row in rows for item in row})
    assert items < 9
    assert found.counts["items"] == items
    assert found.counts["catalogue_items"] == 40
    assert (found.counts["users"], found.counts["interactions"]) == (25, sum(lengths))
    assert found.counts["median_length"] == np.median(lengths)
    assert found.counts["density"] == pytest.approx(sum(lengths) / (25 * items))
    assert found.counts["density"] + found.counts["sparsity"] == pytest.approx(1)
    assert found.length_quantiles[95] == np.percentile(lengths, 95)
    assert found.structure.cases == 25
    assert found.mean_rating == 1.0
    plain = json.loads(json.dumps(found.as_dict()))
    assert plain["structure"]["verdict"] == found.structure.verdict
    assert plain["popularity"]["top_shares"]["50"] == found.popularity.top_shares[50]


def test_one_user_alone_has_no_interval_and_valid_json():
    found = describe(prepared_from(Histories.from_rows([[1, 2, 3, 1]])))
    assert (found.structure.fall_low, found.structure.verdict) == (None, "cannot tell")
    json.dumps(found.as_dict(), allow_nan=False)


def test_short_histories_have_no_structure_and_say_why():
    found = describe(prepared_from(Histories.from_rows([[1, 2], [2]])))
    assert found.structure is None
    assert "no user has enough interactions" in found.no_structure
    with pytest.raises(BenchError, match="no interactions to describe"):
        describe(prepared_from(Histories.from_rows([], n_items=3)))


class WrittenReviews:
    """Reviews by position, as a prepared dataset gives them."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def of(self, positions: np.ndarray) -> list[str]:
        return [self.texts[position] for position in positions.tolist()]


def test_review_text_is_counted_when_the_source_has_some(monkeypatch):
    prepared = prepared_from(Histories.from_rows([[1, 2], [2, 1]]))
    assert describe(prepared).text.reviews is None
    reviews = WrittenReviews(["a b c", "", "d", " \n"])
    monkeypatch.setattr(PreparedDataset, "reviews", lambda self, read: reviews, raising=False)
    text = describe(prepared).text
    assert (text.reviews, text.review_words) == (0.5, 2.0)
    monkeypatch.setattr(description, "_MOST_REVIEWS", 3)
    monkeypatch.setattr(description, "_SAMPLED_REVIEWS", 2)
    seen = {describe(prepared, seed=seed).text.reviews for seed in range(20)}
    assert seen == {0.0, 0.5, 1.0}, "of a sample of two"
    reviews.texts = [""] * 4
    assert describe(prepared).text.review_words is None


@pytest.mark.shared
def test_amazon_gift_cards_have_reviews(data_mirror, monkeypatch):
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(data_mirror))
    found = describe(prepare("amazon-gift-cards"))
    assert (found.counts["users"], found.counts["items"], found.counts["interactions"]) == (458, 148, 2972)
    assert found.text.title == 1.0
    assert 0.9 < found.text.reviews <= 1.0
    assert 5 < found.text.review_words < 200
    assert (found.has_times, found.has_ratings) == (True, True)
