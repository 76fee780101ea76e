"""Source documents: what is in them, what never is, and how they are cut."""

from __future__ import annotations

import numpy as np
import pytest

from recllm_bench.errors import BenchError
from recllm_bench.language.labels import label_documents
from recllm_bench.language.labels.documents import _first_words, _newest_that_fit, plain_title
from tests.language.planted_reviews import POISON, films, planted


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    return planted(tmp_path / "mirror", monkeypatch)


def test_no_held_out_word_reaches_a_document(corpus):
    dataset, split = corpus
    documents = label_documents(dataset, split)
    assert not any(POISON in text for text in documents.users + documents.items)
    everything = label_documents(dataset, split, "all")
    assert all(POISON in text for text in everything.users[1:])  # everybody's held-out reviews are poisoned
    assert sum(POISON in text for text in everything.items) > 5
    assert documents.scope == "train_only"
    assert everything.scope == "all"


def test_a_document_is_the_training_reviews_newest_first(corpus):
    dataset, split = corpus
    documents = label_documents(dataset, split, words=10_000)
    reviews, histories = dataset.reviews(), dataset.histories
    for user in (1, 2, histories.n_users):
        own = np.arange(histories.offsets[user - 1], split.train_ends[user - 1])[::-1]
        assert documents.users[user] == "\n".join(reviews.of(own))
    train = np.concatenate(
        [np.arange(histories.offsets[u - 1], split.train_ends[u - 1]) for u in range(1, histories.n_users + 1)]
    )
    for item in range(1, histories.n_items + 1):
        about = train[histories.items[train] == item]
        about = about[np.argsort(-histories.times[about], kind="stable")]
        assert len(set(histories.times[about])) == len(about)
        written = "\n".join(reviews.of(about))
        assert documents.items[item].endswith(written)
        head = documents.items[item][: len(documents.items[item]) - len(written)].split("\n")
        title = dataset.catalogue.titles[item]
        assert head[0] == title
        assert head[1] == ", ".join(dataset.catalogue.categories[item])
        assert head[2] == dataset.catalogue.descriptions[item]


@pytest.mark.parametrize("words", [8, 13, 40])
def test_documents_keep_to_their_budget_and_lose_the_oldest(corpus, words):
    dataset, split = corpus
    whole = label_documents(dataset, split, words=10_000)
    cut = label_documents(dataset, split, words=words)
    for long, short in zip(whole.users + whole.items, cut.users + cut.items, strict=True):
        assert len(short.split()) == min(words, len(long.split()))
        assert long.startswith(short)


def test_silent_users_get_the_titles_of_training_items(tmp_path, monkeypatch):
    def text(user, step, theme):
        return "" if user % 2 else f"word{user} again"

    dataset, split = planted(tmp_path / "mirror", monkeypatch, text=text)
    documents = label_documents(dataset, split)
    histories, titles = dataset.histories, dataset.catalogue.titles
    for user in range(1, histories.n_users + 1):
        number = int(dataset.user_tokens[user][1:])
        train = histories.items[histories.offsets[user - 1] : split.train_ends[user - 1]][::-1]
        assert documents.wrote[user] == (number % 2 == 0)
        if documents.wrote[user]:
            assert documents.users[user] == "\n".join([f"word{number} again"] * len(train))
        else:
            lines = documents.users[user].split("\n")
            assert [line.split(":")[0] for line in lines] == [titles[item] for item in train]
    assert documents.counts["users with titles in place of reviews"] == histories.n_users // 2


def test_without_reviews_users_are_their_training_titles():
    dataset, split = films()
    documents = label_documents(dataset, split)
    assert documents.source == "catalogue"
    assert not documents.wrote.any()
    assert documents.counts["users with titles in place of reviews"] == 30
    for user in range(1, 31):
        start, end = dataset.histories.offsets[user - 1], split.train_ends[user - 1]
        train = dataset.histories.items[start:end][::-1].tolist()
        expected = [f"{dataset.catalogue.titles[i]}: {', '.join(dataset.catalogue.categories[i])}" for i in train]
        assert documents.users[user] == "\n".join(expected)
    item = 7
    year, kinds = dataset.catalogue.years[item], ", ".join(dataset.catalogue.categories[item])
    assert documents.items[item] == f"{dataset.catalogue.titles[item]} ({year})\n{kinds}"


def test_without_reviews_no_held_out_title_reaches_a_user():
    dataset, split = films()
    documents, everything = label_documents(dataset, split), label_documents(dataset, split, "all")
    for cases in (split.valid, split.test):
        for user, target in zip(cases.users.tolist(), cases.targets.tolist(), strict=True):
            title = dataset.catalogue.titles[target]
            assert f"{title}:" not in documents.users[user]
            assert f"{title}:" in everything.users[user]


def test_choice_of_reviews_against_a_loop():
    rng = np.random.default_rng(0)
    ids, lengths = rng.integers(1, 6, 60), rng.integers(0, 9, 60)
    times, budget = rng.integers(0, 12, 60), np.array([0, 3, 10, 25, 100, 0])
    positions, room = _newest_that_fit(ids, lengths, times, budget)
    expected = []
    for id in range(1, 6):
        left = budget[id]
        own = sorted(np.flatnonzero((ids == id) & (lengths > 0)), key=lambda p: (-times[p], -p))
        for position in own:
            if left <= 0:
                break
            expected.append((position, left))
            left -= lengths[position]
    assert list(zip(positions.tolist(), room.tolist(), strict=True)) == expected


def test_small_things():
    assert _first_words("a b\nc  d", 3) == "a b\nc"
    assert _first_words(" a b", 5) == " a b"
    assert _first_words("a b", 0) == ""
    assert plain_title("Matrix, The") == "The Matrix"
    assert plain_title("Fast, Cheap & Out of Control") == "Fast, Cheap & Out of Control"


def test_refusals(corpus):
    dataset, split = corpus
    with pytest.raises(BenchError, match="train_only"):
        label_documents(dataset, split, "train")
    with pytest.raises(BenchError, match="at least 8"):
        label_documents(dataset, split, words=2)
