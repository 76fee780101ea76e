"""Review text beside the interactions: the right text at every place, and none from the future in training."""

from __future__ import annotations

import gzip
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from raw_sources import FORMS, Item, Review, mirror

from recllm_bench.data.columns import MappedStrings, TextFile, TextWriter, strings
from recllm_bench.data.prepare import prepare
from recllm_bench.data.reviews import PARTS
from recllm_bench.data.splits import global_time, leave_one_out, ratio
from recllm_bench.errors import BenchError

__all__ = ["mirror"]  # a fixture
DAY = 86_400
START = 1_400_025_600
FORM = FORMS["amazon-2018"]


def planted(n: int = 600, n_users: int = 40, seed: int = 0) -> list[Review]:
    """Rows of users with 1 to many interactions; no two of a user on one day."""
    rng = np.random.default_rng(seed)
    users = np.minimum(rng.geometric(0.08, n), n_users)
    days = rng.permutation(n)
    return [
        Review(f"u{user}", f"i{item}", START + int(day) * DAY, float(rng.integers(1, 6)), f"Text of row {row}.")
        for row, (user, item, day) in enumerate(zip(users, rng.integers(0, 30, n), days, strict=True))
    ]


def sorted_rows(reviews: list[Review]) -> dict[str, list[Review]]:
    found: dict[str, list[Review]] = {}
    for review in reviews:
        found.setdefault(review.user, []).append(review)
    return {user: sorted(rows, key=lambda review: review.time) for user, rows in found.items()}


def texts(batches: list[pa.Table]) -> list[str]:
    return [text for batch in batches for text in batch["text"].to_pylist()]


# --- joined to the interactions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", ["all", "users_min=5,items_min=5", "repeats=drop", "min_rating=4"])
def test_the_text_of_every_interaction(mirror, settings):
    reviews = planted()
    path = FORM.make(mirror, reviews)
    prepared = prepare(FORM.dataset, settings)
    with gzip.open(path) as file:
        lines = [json.loads(line) for line in file]
    by_key = {(line["reviewerID"], line["asin"], line["unixReviewTime"]): line["reviewText"] for line in lines}
    histories, found = prepared.histories, prepared.reviews()
    assert len(found) == len(histories.items) == prepared.facts["interactions"]
    positions = np.random.default_rng(1).permutation(len(found))
    keys = [
        (
            prepared.user_tokens[histories.users_of_positions()[position]],
            prepared.catalogue.tokens[histories.items[position]],
            int(histories.times[position]),
        )
        for position in positions.tolist()
    ]
    assert found.of(positions) == [f"In short\n{by_key[key]}" for key in keys]
    assert found.of([]) == []
    assert found.of([3, 3, 0]) == [found.of([3])[0], found.of([3])[0], found.of([0])[0]]
    split = leave_one_out(histories)
    seen = []
    for batch in found.batches(split):
        assert batch.column_names == ["user", "item", "position", "part", "title", "text"]
        place = batch["position"].to_numpy()
        assert (batch["user"].to_numpy() == histories.users_of_positions()[place]).all()
        assert (batch["item"].to_numpy() == histories.items[place]).all()
        assert [f"In short\n{text}" for text in batch["text"].to_pylist()] == found.of(place)
        seen += place.tolist()
    assert sorted(seen) == list(range(len(found)))
    rows = found._rows[np.array(seen)]
    assert (np.diff(rows) > 0).all(), "in the source's order"


def test_surrogates_newlines_and_empty_texts_survive(mirror):
    wrote = ["", "a\nb\r\n\tc", "\U0001f600 \u20ac", "\x00 nul", " ", "x" * 300_000, '"quoted" \\ \u2028']
    FORM.make(mirror, [Review("u", f"i{n}", START + n * DAY, text=text) for n, text in enumerate(wrote)])
    found = prepare(FORM.dataset).reviews()
    assert found.of(np.arange(len(wrote))) == [f"In short\n{text}".removesuffix("\n") for text in wrote]


def test_text_larger_than_a_group_of_rows(mirror):
    reviews = [Review(f"u{n % 3}", f"i{n % 7}", START + n, text=f"Row {n}") for n in range(10_000)]
    FORM.make(mirror, reviews)
    prepared = prepare(FORM.dataset)
    found = prepared.reviews()
    batches = list(found.batches(leave_one_out(prepared.histories), ("train",)))
    assert len(batches) > 2
    assert max(len(batch) for batch in batches) <= 4096
    assert texts(batches) == [f"Row {n}" for n in range(10_000) if n < 9_994]


# --- parts of a split ------------------------------------------------------------------------------------------------


def last_two(rows: dict[str, list[Review]]) -> dict[int, str]:
    part = {}
    for history in rows.values():
        for place, review in enumerate(history):
            left = len(history) - place
            part[id(review)] = "train" if left > 2 or len(history) < 3 else PARTS[3 - left]
    return part


def by_share(rows: dict[str, list[Review]]) -> dict[int, str]:
    part = {}
    for history in rows.values():
        n = len(history)
        train = max(1, math.floor(round(n * 0.8, 6)))
        valid = max(train, math.floor(round(n * 0.9, 6)))
        for place, review in enumerate(history):
            part[id(review)] = "train" if valid == n or place < train else "valid" if place < valid else "test"
    return part


def by_moment(rows: dict[str, list[Review]]) -> dict[int, str]:
    times = sorted(review.time for history in rows.values() for review in history)
    valid, test = times[int(len(times) * 0.8)], times[int(len(times) * 0.9)]
    return {
        id(review): "train" if review.time < valid else "valid" if review.time < test else "test"
        for history in rows.values()
        for review in history
    }


RULES = {
    "leave_one_out": (leave_one_out, last_two),
    "ratio": (ratio, by_share),
    "global_time-all": (lambda histories: global_time(histories, targets="all"), by_moment),
    "global_time-last": (global_time, by_moment),
    "global_time-first": (lambda histories: global_time(histories, targets="first"), by_moment),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_poison_from_the_future_never_reaches_training(mirror, rule, seed):
    """Every validation and test review is poisoned in the raw file, by a reading of the rule of its own."""
    cut, parts_of = RULES[rule]
    reviews = planted(seed=seed)
    part_of = parts_of(sorted_rows(reviews))
    named = [replace(review, text=f"{part_of[id(review)]} {review.text}") for review in reviews]
    poisoned = [review if review.text.startswith("train") else replace(review, text="POISON") for review in named]
    FORM.make(mirror, poisoned)
    prepared = prepare(FORM.dataset)
    split = cut(prepared.histories)
    found = prepared.reviews()
    training = texts(list(found.batches(split, parts=("train",))))
    assert not any("POISON" in text for text in training)
    assert training == [review.text for review in poisoned if review.text != "POISON"]
    kept = found.parts(split)
    assert {found.of([place])[0] for place in np.flatnonzero(kept > 0)} == {"In short\nPOISON"}
    # Validation alone is free of tests, whatever of the windows is a case.
    FORM.make(mirror, [review if review.text[:4] != "test" else replace(review, text="POISON") for review in named])
    found = prepare(FORM.dataset).reviews()
    before = texts(list(found.batches(split, parts=("train", "valid"))))
    if rule != "global_time-first":
        assert not any("POISON" in text for text in before)
    assert texts(list(found.batches(split, parts=("train",)))) == training


@pytest.mark.parametrize("rule", RULES)
def test_parts_against_the_split(mirror, rule):
    FORM.make(mirror, planted(seed=5))
    prepared = prepare(FORM.dataset)
    split = RULES[rule][0](prepared.histories)
    found = prepared.reviews()
    parts = found.parts(split)
    assert parts.dtype == np.int8
    owners = prepared.histories.users_of_positions()
    for place, part in enumerate(parts.tolist()):
        assert (part == 0) == (place < split.train_ends[owners[place] - 1])
    assert (parts[split.valid.ends] == 1).all()
    assert (parts[split.test.ends] == 2).all()
    by_name = {name: [] for name in PARTS}
    for batch in found.batches(split):
        for place, name in zip(batch["position"].to_pylist(), batch["part"].to_pylist(), strict=True):
            by_name[name].append(place)
    for number, name in enumerate(PARTS):
        assert sorted(by_name[name]) == np.flatnonzero(parts == number).tolist()
        some = [place for batch in found.batches(split, (name,)) for place in batch["position"].to_pylist()]
        assert some == by_name[name]


@pytest.mark.parametrize("parts", [("training",), "train", ("train", "")])
def test_an_unknown_part(mirror, parts):
    FORM.make(mirror, planted(30))
    prepared = prepare(FORM.dataset)
    with pytest.raises(ValueError, match="not in"):
        list(prepared.reviews().batches(leave_one_out(prepared.histories), parts))


# --- text that is gone -----------------------------------------------------------------------------------------------


def text_folder(prepared) -> Path:
    (folder,) = (path for path in (prepared.folder.parent.parent / "reviews").iterdir() if path.is_dir())
    return folder


def test_text_is_read_when_it_is_asked_for(mirror):
    FORM.make(mirror, planted(60), [Item("i1")])
    prepared = prepare(FORM.dataset)
    assert not (prepared.folder.parent.parent / "reviews").exists()
    assert prepared.reviews(read=False) is None
    first = prepared.reviews().of(np.arange(60))
    assert prepared.reviews(read=False).of(np.arange(60)) == first
    shutil.rmtree(text_folder(prepared))
    assert prepared.reviews().of(np.arange(60)) == first, "read once more"


def test_text_stays_when_the_raw_files_go(mirror):
    path = FORM.make(mirror, planted(60), [Item("i1")])
    prepared = prepare(FORM.dataset)
    first = prepared.reviews().of(np.arange(60))
    path.unlink()
    assert prepared.reviews().of(np.arange(60)) == first
    shutil.rmtree(text_folder(prepared))
    with pytest.raises(BenchError, match="Video_Games_5"):
        prepared.reviews()


def test_other_raw_files_than_those_prepared_are_refused(mirror):
    FORM.make(mirror, planted(60), [Item("i1")])
    prepared = prepare(FORM.dataset)
    FORM.make(mirror, planted(61), [Item("i1")])
    with pytest.raises(BenchError, match="have changed since they were prepared"):
        prepared.reviews()


def test_filters_share_the_text(mirror):
    FORM.make(mirror, planted(60))
    prepared, other = prepare(FORM.dataset), prepare(FORM.dataset, "cesrec")
    assert other.reviews() is not None
    assert prepared.reviews(read=False) is not None


# --- columns on disk -------------------------------------------------------------------------------------------------


def test_rows_of_a_text_file(tmp_path):
    rng = np.random.default_rng(0)
    wrote = [None if n % 11 == 0 else f"{n} " * int(rng.integers(0, 40)) for n in range(9_000)]
    writer = TextWriter(tmp_path / "text")
    for start, stop in ((0, 0), (0, 1), (1, 5_000), (5_000, 5_000), (5_000, 9_000)):
        columns = [pa.array(wrote[start:stop], pa.large_string()), pa.array(range(start, stop), pa.int64())]
        writer.write(pa.RecordBatch.from_arrays(columns, ["text", "row"]))
    writer.close()
    file = TextFile(tmp_path / "text")
    assert (len(file), file.names) == (9_000, ["text", "row"])
    assert file.column("row").to_pylist() == list(range(9_000))
    for rows in ([], [0], [8_999, 0, 8_999], rng.integers(0, 9_000, 500), np.arange(9_000)[::-1]):
        assert file.take(rows, ["text"])["text"].to_pylist() == [wrote[row] for row in rows]
    joined = []
    for start, group in file.groups(["row", "text"]):
        assert group["row"].to_pylist() == list(range(start, start + len(group)))
        joined += group["text"].to_pylist()
    assert joined == wrote


def test_mapped_strings():
    column = MappedStrings(pa.chunked_array([["a", "b"], [], ["c"]], pa.string()))
    assert list(column) == ["a", "b", "c"]
    assert (column[2], column[-1], column[np.int64(0)], column[1:]) == ("c", "c", "a", ["b", "c"])
    assert column == ["a", "b", "c"]
    assert column != ["a", "b", "d"]
    assert column != ["a", "b"]
    assert column != "abc"
    assert "c" in column
    assert strings(["a\ud800", None, "b"]).to_pylist() == ["a?", None, "b"]
