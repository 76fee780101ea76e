"""Key phrases against a plain count, and the labels made of them."""

from __future__ import annotations

import math
import re
import time
from collections import Counter

import numpy as np
import pytest

from recllm_bench.data.prepare import prepare
from recllm_bench.data.splits import leave_one_out
from recllm_bench.errors import BenchError
from recllm_bench.language.labels import extractive_labels, label_documents
from recllm_bench.language.labels.extractive import _leanings, _telling
from recllm_bench.language.labels.label_records import plural
from recllm_bench.language.labels.phrases import STOP_WORDS, _diverse, _stem, key_phrases, least_documents
from tests.language.planted_reviews import POISON, THEMES, films, planted

JOINING = {"of", "and", "for", "in", "to", "on", "&", "n"}


def plain_phrases(documents: list[list[str]], most: int) -> list[tuple[str, ...]]:
    """The definition, one document and one phrase at a time; words of ASCII letters, sentences end with ``.``."""
    counts = [Counter() for _ in documents]
    words, times = Counter(), Counter()
    total = 0
    for pieces, count in zip(documents, counts, strict=True):
        for piece in pieces:
            sentences = [sentence.split() for sentence in piece.lower().split(".")]
            total += sum(map(len, sentences)) + len(sentences) - 1
            said = set()
            for sentence in sentences:
                words.update(sentence)
                for length in (1, 2, 3):
                    for start in range(len(sentence) - length + 1):
                        gram = tuple(sentence[start : start + length])
                        outer = all(len(word) > 2 and word not in STOP_WORDS for word in (gram[0], gram[-1]))
                        inner = length < 3 or gram[1] in JOINING or (len(gram[1]) > 2 and gram[1] not in STOP_WORDS)
                        if outer and inner:
                            times[gram] += 1
                            said.add(gram)
            count.update(said)
    n, n_pieces = sum(map(bool, documents)), sum(map(len, documents))
    spread = Counter(gram for count in counts for gram in count)
    everywhere = Counter()
    for count in counts:
        everywhere.update(count)

    def usual(gram: tuple[str, ...]) -> bool:
        if spread[gram] < least_documents(n):
            return False
        return len(gram) == 1 or times[gram] > 4 * math.prod(words[word] / total for word in gram) * total

    found = []
    for pieces, count in zip(documents, counts, strict=True):
        weight = {}
        for gram, often in count.items():
            expected = len(pieces) * everywhere[gram] / n_pieces
            value = math.sqrt(len(gram)) * often * math.log((often + 0.5) / (expected + 0.5))
            if usual(gram) and value > 0:
                weight[gram] = value
        kept: list[tuple[str, ...]] = []
        order = sorted(
            weight, key=lambda gram: (count[gram] == 1, -round(weight[gram], 9), gram + ("",) * (3 - len(gram)))
        )
        for gram in order[:24]:
            stems = {_stem(word) for word in gram if len(word) > 2 and word not in STOP_WORDS}
            clash = any(stems & {_stem(w) for w in other if len(w) > 2 and w not in STOP_WORDS} for other in kept)
            if not clash and len(kept) < most:
                kept.append(gram)
        found.append(tuple(" ".join(gram) for gram in kept))
    return found


def test_key_phrases_against_a_plain_count():
    rng = np.random.default_rng(5)
    single = [f"word{'abcdefghij'[i // 10]}{'klmnopqrst'[i % 10]}x" for i in range(60)]
    habits = ["nylon string", "nylon strings", "range of motion", "drum kit", "big fat drum kit", "of the", "the"]
    documents = []
    for _ in range(60):
        pieces = []
        for _ in range(int(rng.integers(1, 5))):
            parts = [*rng.choice(single, int(rng.integers(1, 9))), *rng.choice(habits, int(rng.integers(0, 3)))]
            said = " ".join(part + ("." if rng.random() < 0.2 else "") for part in rng.permutation(parts))
            pieces.append(said.rstrip("."))
        documents.append(pieces)
    documents[3] = []
    got = key_phrases(documents, most=4)
    assert got == plain_phrases(documents, 4)
    assert got[3] == ()
    assert sum(map(bool, got)) > 40
    assert {len(phrase.split()) for row in got for phrase in row} == {1, 2, 3}


def test_phrases_keep_within_sentences_and_drop_near_duplicates():
    documents = [["Acoustic guitar! Acoustic guitars. Red", "An acoustic guitar; red"]] * 3
    documents += [["Drums. Wooden sticks", "Wooden sticks. Drums"]] * 3 + [[]]
    documents += [[text] for text in ["Nobody cares about pianos, do they", "Piano", "Brass", "Reeds"] * 3]
    found = key_phrases(documents)
    assert found[0] == ("acoustic guitar", "red")
    assert found[3] == ("wooden sticks", "drums")
    assert not any("guitar red" in phrase or "drums wooden" in phrase for row in found for phrase in row)
    assert found[6] == ()


def test_one_reviewer_s_word_stands_behind_what_several_say():
    """An instrument is called by what two of three reviewers say, however rare the third one's hobby-horse is."""
    rows = ["reed", "brass", "drum", "string", "valve", "bow"]
    told = [[f"{word}. stand", f"stand. {word}", "marketing bout"] for word in rows for _ in range(3)]
    told += [["stand"]] * 30
    for row, phrases in enumerate(key_phrases(told)[: 3 * len(rows)]):
        assert phrases[0] == rows[row // 3] and set(phrases[1:]) <= {"marketing bout", "stand"}


def test_odd_texts_have_phrases_or_none():
    texts = [
        "",
        "  ",
        "...",
        "123 45",
        "it the of",
        "Ein schöner Klang – Größe!",
        "日本語 テスト",
        "''' -- &",
        "\x00\ud83dx",
    ]
    found = key_phrases([[text.encode("utf-8", "ignore").decode()] for text in texts])
    assert len(found) == len(texts)
    assert found[:5] == [()] * 5
    assert key_phrases([]) == []


def test_diversity_keeps_the_heaviest():
    stems = np.array([0, 0, 1, 2, -1])  # words 0 and 1 are forms of one
    table = np.array([[[0, -1, -1], [1, 2, -1], [2, -1, -1], [3, -1, -1], [-1, -1, -1]]])
    assert _diverse(table, stems, 8).tolist() == [[True, False, True, True, False]]
    assert _diverse(table, stems, 1).sum() == 1


def test_stems_join_forms():
    assert len({_stem(word) for word in ("string", "strings")}) == 1
    assert len({_stem(word) for word in ("recording", "recorded", "record", "recorder")}) == 1
    assert len({_stem(word) for word in ("box", "boxes")}) == 1
    assert len({_stem(word) for word in ("guitar", "drum", "bass", "base", "glass", "glad")}) == 6


def test_leanings_against_a_plain_sum():
    rng = np.random.default_rng(2)
    kinds = [(), *(tuple(rng.choice(list("abcd"), size=int(rng.integers(0, 4)), replace=False)) for _ in range(9))]
    owners, items = rng.integers(1, 6, 50), rng.integers(1, 10, 50)
    everybody = Counter(kind for item in items for kind in kinds[item])
    total = sum(everybody.values())
    for user, got in enumerate(_leanings(kinds, owners, items, 5)):
        own = Counter(kind for item in items[owners == user] for kind in kinds[item])
        size = sum(own.values())
        weight = {}
        for kind, times in own.items():
            q = everybody[kind] / total
            p = (times + 5 * q) / (size + 5)
            weight[kind] = p * math.log(p / q)
        best = sorted((kind for kind in weight if weight[kind] > 0), key=lambda kind: (-weight[kind], kind))
        assert got == tuple(best[:3])


def test_telling_categories_leave_out_what_most_have():
    kinds = [(), ("music", "jazz"), ("music", "metal", "live", "1990s"), ("music", "metal"), ("music",)]
    nameless = [()] * 5
    assert _telling(kinds, nameless) == [(), ("jazz",), ("metal", "live", "1990s"), ("metal",), ()]
    named = [(), *[("A Title",)] * 4]  # what it is called tells it apart: what it is may be said; its year is there
    assert _telling(kinds, named) == [(), ("music", "jazz"), ("music", "metal", "live"), ("music", "metal"), ("music",)]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    return planted(tmp_path / "mirror", monkeypatch)


def test_labels_speak_of_the_theme(corpus):
    dataset, split = corpus
    labels = extractive_labels(dataset, split)
    for user in range(1, dataset.histories.n_users + 1):
        theme = list(THEMES)[int(dataset.user_tokens[user][1:]) % 3]
        own = {word for phrase in THEMES[theme] for word in phrase.split()} | {theme}
        others = {word for name, said in THEMES.items() if name != theme for p in said for word in p.split()} - own
        for text in labels.users[user]:
            words = set(re.findall(r"\w+", text.lower()))
            assert len(words & own) >= 3
            assert not words & others
    assert all(labels.items[1:])
    assert all(len(set(versions)) == 3 for versions in labels.users[1:] + labels.items[1:])
    assert labels.users[0] == labels.items[0] == ()
    assert labels.source == "extractive"
    assert labels.scope == "train_only"


def test_forms_of_the_versions(corpus):
    dataset, split = corpus
    labels = extractive_labels(dataset, split, versions=9)
    for versions in labels.users[1:] + labels.items[1:]:
        assert len(set(versions)) == 9
        for version, text in enumerate(versions):
            ends = len(re.findall(r"\.(?:\s|$)", text))
            assert ends == (2 if version % 3 == 2 else 1) or (version % 3 == 0 and ends == 0 and ";" in text)
            assert "{" not in text


def test_poison_reaches_labels_only_when_asked_for(corpus):
    dataset, split = corpus
    assert not any(
        POISON in text for kind in ("user", "item") for text in extractive_labels(dataset, split).flat(kind)[0]
    )
    # Everybody's held-out reviews hold the word, so as a single word it tells nothing; "record" goes with it.
    leaking = extractive_labels(dataset, split, scope="all")
    assert any(POISON in text for kind in ("user", "item") for text in leaking.flat(kind)[0])


def test_equal_seeds_equal_labels(corpus):
    dataset, split = corpus
    documents = label_documents(dataset, split)
    first = extractive_labels(dataset, split, seed=7)
    assert extractive_labels(dataset, split, seed=7, documents=documents) == first
    other = extractive_labels(dataset, split, seed=8)
    assert other != first
    assert {len(row) for row in other.users[1:]} == {3}


def test_without_reviews_labels_are_kinds_and_words_of_titles():
    """A user's label has no token of an item and no word that held-out titles alone have; an item's has its title."""
    dataset, split = films()
    labels = extractive_labels(dataset, split)
    titles, years = dataset.catalogue.titles, dataset.catalogue.years
    for user in range(1, dataset.histories.n_users + 1):
        train = dataset.histories.items[dataset.histories.offsets[user - 1] : split.train_ends[user - 1]].tolist()
        known = {word for item in train for word in re.findall(r"\w+", titles[item].lower())}
        held_out = {
            word
            for cases in (split.valid, split.test)
            for item in cases.targets[cases.users == user].tolist()
            for word in re.findall(r"\w+", titles[item].lower())
        } - known
        assert labels.users[user]
        for text in labels.users[user]:
            assert "iid_" not in text
            assert not held_out & set(re.findall(r"\w+", text.lower()))
    for item in range(1, dataset.histories.n_items + 1):
        assert all(f"{titles[item]} ({years[item]})" in text and "iid_" not in text for text in labels.items[item])
    assert len({versions[0] for versions in labels.items[1:]}) == dataset.histories.n_items


def test_a_phrase_that_is_a_whole_title_stays_words_in_the_label_of_who_wrote_nothing():
    """Of real titles many come as phrases ("four weddings and a funeral"); made tokens, they would name items met."""
    dataset = prepare("ml-100k")
    split = leave_one_out(dataset.histories)
    labels = extractive_labels(dataset, split, versions=1)
    assert not any("iid_" in text for versions in labels.users for text in versions)
    titles = {title.casefold() for title in dataset.catalogue.titles if len(title.split()) > 3}
    assert any(title in text.casefold() for versions in labels.users for text in versions for title in titles)


def test_nothing_known_gives_no_label(tmp_path, monkeypatch):
    dataset, split = planted(tmp_path / "mirror", monkeypatch, text=lambda *_: "", meta=False)
    labels = extractive_labels(dataset, split)
    assert not any(labels.users) and not any(labels.items)
    assert labels.counts["users without label"] == dataset.histories.n_users
    assert labels.statistics()["users"] == {
        "total": 36, "with_label": 0, "versions": 0, "mean_words": 0.0, "most_words": 0
    }  # fmt: skip


def test_refusals(corpus):
    with pytest.raises(BenchError, match="1 to 9"):
        extractive_labels(*corpus, versions=10)
    with pytest.raises(BenchError, match="label_scope"):
        extractive_labels(*corpus, scope="everything")


def test_plurals():
    assert [plural(word) for word in ("movie", "business", "category", "toy", "box")] == [
        "movies", "businesses", "categories", "toys", "boxes"
    ]  # fmt: skip


@pytest.mark.shared
def test_real_reviews_make_labels_and_hold_nothing_back(data_mirror):
    dataset = prepare("amazon-musical-instruments", "relrec")
    split = leave_one_out(dataset.histories)
    start = time.process_time()
    labels = extractive_labels(dataset, split)
    assert time.process_time() - start < 20
    facts = labels.statistics()
    assert facts["users"]["with_label"] == facts["users"]["total"] == dataset.histories.n_users
    assert facts["items"]["with_label"] > 0.95 * facts["items"]["total"]
    assert 8 < facts["users"]["mean_words"] < 30
    # Every word of a user's label but the template's stands in a training review of that user.
    reviews, histories = dataset.reviews(), dataset.histories
    for user in range(1, 200):
        own = reviews.of(np.arange(histories.offsets[user - 1], split.train_ends[user - 1]))
        written = re.sub(r"[`’‘]", "'", " ".join(own).lower())
        listed = re.sub(r"^(interests: |looks for )", "", labels.users[user][0].lower()).rstrip(".")
        for phrase in re.split(r"[;,] ", listed):
            assert all(word in written for word in phrase.split()), (user, phrase)
