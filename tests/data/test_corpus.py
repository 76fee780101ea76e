"""Every streamed source from raw lines to a prepared dataset, and the corpus that its filters share."""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from raw_sources import FORMS, Form, Item, Review, mirror, write_lines

from recllm_bench.data.cards import default_store
from recllm_bench.data.prepare import line_records as records_module
from recllm_bench.data.prepare import prepare
from recllm_bench.errors import BenchError

__all__ = ["mirror"]  # a fixture
DAY = 86_400
START = 1_400_025_600
EVERY = pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))


def planted(n: int = 60, n_users: int = 7, n_items: int = 11, seed: int = 0) -> list[Review]:
    rng = np.random.default_rng(seed)
    return [
        Review(
            f"u{rng.integers(n_users)}",
            f"i{rng.integers(n_items)}",
            START + int(day) * DAY,
            float(rating),
            f"Text {n}.",
        )
        for n, (day, rating) in enumerate(zip(rng.integers(0, 30, n), rng.integers(1, 6, n), strict=True))
    ]


def histories_of(prepared) -> dict[str, list[tuple]]:
    """(item, time, rating, review) of each user, by the source's ids."""
    histories, reviews, catalogue = prepared.histories, prepared.reviews(), prepared.catalogue
    texts = reviews.of(np.arange(len(reviews)))
    found: dict[str, list[tuple]] = {}
    for position, user in enumerate(histories.users_of_positions().tolist()):
        row = [catalogue.tokens[histories.items[position]]]
        row.append(None if histories.times is None else int(histories.times[position]))
        row.append(None if histories.ratings is None else float(histories.ratings[position]))
        row.append(texts[position])
        found.setdefault(prepared.user_tokens[user], []).append(tuple(row))
    return found


def expected_histories(form: Form, reviews: list[Review]) -> dict[str, list[tuple]]:
    """The same by a plain reading: users by first appearance, sorted by time, equal times in file order."""
    found: dict[str, list[tuple]] = {}
    head = "In short\n" if form.name.startswith("amazon") else ""
    for review in reviews:
        rating = float(review.rating) if form.has_ratings else None
        found.setdefault(str(review.user), []).append((str(review.item), review.time, rating, head + review.text))
    return {user: sorted(rows, key=lambda row: row[1]) for user, rows in found.items()}


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- every form, by an independent reading ---------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("change", ["plain", "crlf", "bom", "no end", "blank lines", "members", "unpacked"])
def test_a_plain_reading(form, change, mirror):
    reviews = planted()
    path = form.make(mirror, reviews, [Item(f"i{n}", f"Title {n}") for n in range(9)])
    lines = [form.line(review) for review in reviews]
    if change == "crlf":
        write_lines(path, lines, b"\r\n")
    elif change == "bom":
        write_lines(path, [b"\xef\xbb\xbf" + lines[0], *lines[1:]])
    elif change == "no end":
        data = b"\n".join(lines)
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    elif change == "blank lines":
        write_lines(path, [b"", *(part for line in lines for part in (line, b"", b"  "))])
    elif change == "members":
        path.write_bytes(b"".join(gzip.compress(line + b"\n") + bytes(7) for line in lines))
    elif change == "unpacked" and path.suffix == ".gz":
        path.unlink()
        write_lines(path.with_suffix(""), lines)
    prepared = prepare(form.dataset)
    assert histories_of(prepared) == expected_histories(form, reviews)
    assert list(prepared.user_tokens[1:]) == list(dict.fromkeys(review.user for review in reviews))
    assert prepared.has_times
    titles = dict(zip(prepared.catalogue.tokens, prepared.catalogue.titles, strict=True))
    assert all(titles[f"i{n}"] == (f"Title {n}" if n < 9 else "") for n in range(11) if f"i{n}" in titles)
    assert prepared.facts["items_with_text"] == sum(bool(title) for title in titles.values()) > 0


@EVERY
def test_missing_meta(form, mirror):
    form.make(mirror, planted())
    if form.name == "yelp":
        with pytest.raises(BenchError, match=r"form at https.*yelp/yelp_academic_dataset_business\.json"):
            prepare(form.dataset)
        return
    prepared = prepare(form.dataset)
    assert prepared.facts["items_with_text"] == 0
    assert set(prepared.catalogue.texts()) == {""}


@EVERY
def test_odd_titles(form, mirror):
    titles = {
        "i1": "Same",
        "i2": "Same",
        "i3": None,
        "i4": "",
        "i5": "  two \n lines ",
        "i6": "caf\xe9 \u20ac \U0001f600",
    }
    items = [Item(token, title) for token, title in titles.items()]
    items += [Item("i1", "Later"), Item(None, "No id"), Item("", "Empty id"), Item("absent", "Never reviewed")]
    form.make(mirror, [Review(item=f"i{n}", time=START + n * DAY) for n in range(1, 8)], items)
    prepared = prepare(form.dataset)
    found = dict(zip(prepared.catalogue.tokens, prepared.catalogue.titles, strict=True))
    expected = {"i1": "Same", "i2": "Same", "i3": "", "i4": "", "i5": "two lines", "i6": titles["i6"], "i7": ""}
    assert found == {"": "", **expected}
    noticed = prepared.facts["noticed"]
    assert noticed["items in the metadata"] == 10
    assert noticed["metadata without an id"] == 2
    assert noticed["items that stand twice in the metadata"] == 1


@EVERY
def test_odd_ids(form, mirror):
    rows = [Review(7, "i1"), Review("7", 12, START + DAY), Review("8", "12", START), Review("\xe9\u20ac", "i1")]
    form.make(mirror, rows, [Item(12, "Twelve"), Item("i1", "One")])
    prepared = prepare(form.dataset)
    assert list(prepared.user_tokens[1:]) == ["7", "8", "\xe9\u20ac"]
    assert prepared.catalogue.tokens == ["", "i1", "12"]
    assert prepared.catalogue.titles == ["", "One", "Twelve"]


# --- bad lines -------------------------------------------------------------------------------------------------------


def spoilt(form: Form, what: str) -> bytes:
    """A line that cannot be used, and is one bad line whatever the form."""
    user, item, when, rating = form.names
    record = form.review(Review())
    entry = record["reviews"][0] if "reviews" in record else record
    if what == "no user":
        del record[user]
    elif what == "empty user":
        record[user] = ""
    elif what == "null item":
        entry[item] = None
    elif what == "time":
        entry[when] = -5 if not form.has_dates_as_text else "1969-12-31"
    elif what == "late time":
        entry[when] = 99_999_999_999 if not form.has_dates_as_text else "2100-01-01"
    elif what == "no time":
        entry[when] = None
    elif what == "rating":
        entry[rating] = "good"
    elif what == "infinite rating":
        entry[rating] = "inf"
    elif what == "types":
        record[user] = [1, 2]
    elif what == "half a line":
        return form.line(Review())[:-20]
    elif what == "latin-1":
        return form.line(Review()).replace(b"Good", b"\xe9\xe9")
    elif what == "garbage":
        return b"\x00\x01garbage"
    return form.write(record).encode()


BAD = ["no user", "empty user", "null item", "time", "late time", "no time", "rating", "infinite rating", "types"]
BAD += ["half a line", "latin-1", "garbage"]
# While ids are read, the text of these is passed over: it cannot make a line bad.
TEXT_PASSED_OVER = ["amazon-2014", "amazon-2018", "amazon-2023", "yelp", "steam-json"]


@pytest.mark.parametrize(
    ("form", "what"),
    [
        pytest.param(form, what, id=f"{form.name}-{what}")
        for form in FORMS.values()
        for what in BAD
        if (form.has_ratings or "rating" not in what) and not (what == "latin-1" and form.name in TEXT_PASSED_OVER)
    ],
)
def test_bad_lines(form, what, mirror, caplog):
    reviews = planted()
    path = form.make(mirror, reviews, [Item("i1")])
    lines = [form.line(review) for review in reviews]
    write_lines(path, [*lines[:10], b"", spoilt(form, what), *lines[10:]], b"\r\n")
    australian = form.dataset.startswith("steam-au")
    if australian and ("time" in what or what == "null item"):
        # One entry among many of a line: undated ones are the newest, entries without an item are counted.
        prepared = prepare(form.dataset)
        assert "lines skipped in reviews" not in prepared.facts["noticed"]
        key = "entries without an item" if what == "null item" else "entries without a whole date"
        assert prepared.facts["noticed"][key] == 1
        assert prepared.has_times == (what == "null item")
        return
    with caplog.at_level(logging.WARNING, "recllm_bench"):
        prepared = prepare(form.dataset, most_bad=0.02)
    assert histories_of(prepared) == expected_histories(form, reviews)
    assert prepared.facts["noticed"]["lines skipped in reviews"] == 1
    assert prepared.facts["noticed"]["lines in reviews"] == 62
    assert any(f"{path}:12: " in record.getMessage() for record in caplog.records)
    write_lines(path, [spoilt(form, what), *lines, spoilt(form, what)])
    with pytest.raises(BenchError, match=re.escape(f"{path}:1: ") + r".*; 2 of 62 lines are bad, more than") as caught:
        prepare(form.dataset, most_bad=0.02)
    assert "\n" not in str(caught.value)
    assert prepare(form.dataset, most_bad=0.1).facts["noticed"]["lines skipped in reviews"] == 2


@EVERY
def test_no_bad_line_is_allowed_when_none_is_allowed(form, mirror):
    path = form.make(mirror, planted(), [Item("i1")])
    write_lines(path, [b"garbage", *(form.line(review) for review in planted())])
    with pytest.raises(BenchError, match=r":1: .*; 1 of 61 lines are bad, more than the 0 %"):
        prepare(form.dataset, most_bad=0.0)


@EVERY
def test_bad_lines_in_the_metadata(form, mirror):
    form.make(mirror, planted(), [Item("i1", "Kept")])
    path = mirror / form.items_path
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    write_lines(path, [data.rstrip(), b"garbage"])
    prepared = prepare(form.dataset, most_bad=0.5)
    assert prepared.facts["noticed"]["lines skipped in items"] == 1
    assert "Kept" in prepared.catalogue.titles
    write_lines(path, [b"garbage", data.rstrip(), b"garbage"])
    with pytest.raises(BenchError, match=re.escape(str(path)) + ":1: .*2 of 3 lines are bad"):
        prepare(form.dataset, most_bad=0.5)


@EVERY
def test_a_file_of_something_else(form, mirror):
    path = form.make(mirror, planted(), [Item("i1")])
    for lines, message in (
        ([b"<html>", b"<body>404</body>"] * 100, ":1: "),
        ([b"{}"] * 100, f":1: the field {form.names[0]} is missing"),
        ([b"[1, 2]"], ":1: a JSON array"),
        ([b""] * 10, "the file is empty"),
        ([b"\xff\xfe{\x00}\x00"], "UTF-16"),
    ):
        write_lines(path, lines)
        with pytest.raises(BenchError, match=message) as caught:
            prepare(form.dataset)
        assert str(path) in str(caught.value)


@EVERY
def test_damaged_archive(form, mirror):
    path = form.make(mirror, planted(), [Item("i1")])
    data = b"".join(form.line(review) + b"\n" for review in planted())
    path.unlink()
    path = path if path.suffix == ".gz" else path.with_name(path.name + ".gz")
    for damaged in (gzip.compress(data)[:-300], gzip.compress(data)[:-8] + bytes(8)):
        path.write_bytes(damaged)
        with pytest.raises(BenchError, match=re.escape(str(path)) + r":\d+: truncated or damaged gzip file"):
            prepare(form.dataset)
    path.write_bytes(gzip.compress(bytes(1 << 20)) * 80)
    with pytest.raises(BenchError, match="refused as unsafe"):
        prepare(form.dataset)


# --- times and ratings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [form.name for form in FORMS.values() if form.has_ratings])
def test_ratings_as_strings(name, mirror):
    form = FORMS[name]
    ratings = ["5", "4.5", " 3 ", 2, 1.0]
    form.make(mirror, [Review(item=f"i{n}", time=START + n * DAY, rating=r) for n, r in enumerate(ratings)], [Item()])
    assert prepare(form.dataset).histories.ratings.tolist() == [5, 4.5, 3, 2, 1]
    assert prepare(form.dataset, "min_rating=4").facts["interactions"] == 2


@pytest.mark.parametrize("name", ["amazon-2014", "amazon-2018", "amazon-2023"])
def test_seconds_and_milliseconds(name, mirror):
    form = FORMS[name]
    times = [START, (START + DAY) * 1000 + 999, str(START + 2 * DAY), f"{START + 3 * DAY}999", float(START + 4 * DAY)]
    form.make(mirror, [])
    records = [{**form.review(Review(item=f"i{n}")), form.names[2]: value} for n, value in enumerate(times)]
    write_lines(mirror / form.reviews_path, (json.dumps(record).encode() for record in records))
    prepared = prepare(form.dataset)
    assert prepared.histories.times.tolist() == [START + n * DAY for n in range(5)], "whole seconds, each by itself"


# --- the shared corpus -----------------------------------------------------------------------------------------------


@EVERY
def test_filters_share_what_was_read(form, mirror, monkeypatch):
    form.make(mirror, planted(200), [Item("i1")])
    read = []
    original = records_module.stream_lines

    def counted(path, *rest):
        read.append(path.name)
        return original(path, *rest)

    monkeypatch.setattr(records_module, "stream_lines", counted)
    first = prepare(form.dataset)
    assert len(read) == 2, "each file once"
    second = prepare(form.dataset, "items_min=2,repeats=drop")
    assert len(read) == 2
    assert second.facts["interactions"] < first.facts["interactions"]
    assert len(list((default_store().root / "corpus").glob("*/facts.json"))) == 1
    assert set(histories_of(second)) <= set(histories_of(first))
    for user, rows in histories_of(second).items():
        assert set(rows) <= set(histories_of(first)[user])


@EVERY
def test_equal_input_gives_equal_bytes(form, mirror, tmp_path, monkeypatch):
    form.make(mirror, planted(500), [Item(f"i{n}") for n in range(11)])
    found = []
    for name in ("one", "two"):
        monkeypatch.setenv("RECLLM_CACHE", str(tmp_path / name))
        prepared = prepare(form.dataset, "users_min=5")
        assert prepared.reviews() is not None
        files = files_in(default_store().root)
        found.append({name: data for name, data in files.items() if not name.endswith("artifact.json")})
    assert found[0] == found[1]
    assert any("reviews.parquet" in name for name in found[0])


KILLED = """
import sys, time
from recllm_bench.data.columns import TextWriter
from recllm_bench.data.prepare import prepare
original = TextWriter.write
count = 0
def slow(self, batch):
    global count
    original(self, batch)
    count += 1
    if count == int(sys.argv[1]):
        print("now", flush=True)
        time.sleep(60)
TextWriter.write = slow
prepare("amazon-2018-video-games").reviews()
"""


@pytest.mark.parametrize(("after", "kind"), [(1, "corpus"), (2, "dataset"), (3, "reviews"), (5, "reviews")])
def test_killed_in_the_middle(after, kind, mirror, tmp_path, monkeypatch):
    form = FORMS["amazon-2018"]
    text = "Long text. " * 2000
    reviews = [replace(review, text=text) for review in planted(500)]
    form.make(mirror, reviews, [Item(f"i{n}") for n in range(11)])
    monkeypatch.setenv("RECLLM_CACHE", str(tmp_path / "undisturbed"))
    expected = prepare(form.dataset)
    assert expected.reviews() is not None
    undisturbed = files_in(default_store().root)
    monkeypatch.setenv("RECLLM_CACHE", str(tmp_path / "killed"))
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(after)], stdout=subprocess.PIPE, env=os.environ)
    assert process.stdout.readline() == b"now\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    root = default_store().root
    (left,) = (root / kind).glob("*.partial")
    assert list(left.iterdir())
    assert not list((root / kind).glob("*/artifact.json"))
    if kind == "corpus":
        (left / ".users.npy.123.tmp").write_bytes(b"half of an array")
    prepared = prepare(form.dataset)
    assert prepared.checksum == expected.checksum
    assert prepared.reviews() is not None
    found = files_in(root)
    assert not list(root.rglob("*.partial"))
    assert set(found) == set(undisturbed)
    for name, data in found.items():
        assert name.endswith("artifact.json") or data == undisturbed[name], name


@pytest.mark.parametrize("name", TEXT_PASSED_OVER)
def test_unreadable_text_keeps_its_interaction(name, mirror):
    form = FORMS[name]
    odd = [form.line(Review("u1", "i1")).replace(b"Good", b"\xe9\xe9")]
    path = form.make(mirror, planted(), [Item()])
    lines = [form.line(review) for review in planted()]
    write_lines(path, [*lines[:3], *odd, *lines[3:]])
    prepared = prepare(form.dataset)
    assert prepared.facts["interactions"] == len(lines) + 1
    texts = prepared.reviews().of(np.arange(len(lines) + 1))
    (replaced,) = [text for text in texts if "\ufffd" in text]
    assert replaced.endswith("\ufffd\ufffd enough.")
    # Every other interaction has its own text still.
    assert sorted(text for text in texts if text != replaced) == sorted(
        "\n".join(part for part in ("In short", review.text) if part)
        if name.startswith("amazon")
        else review.text or ""
        for review in planted()
    )


def test_a_refused_file_leaves_nothing_that_counts(mirror):
    form = FORMS["yelp"]
    path = form.make(mirror, planted(), [Item()])
    write_lines(path, [b"bad"] * 5)
    with pytest.raises(BenchError, match="5 of 5 lines are bad"):
        prepare(form.dataset)
    assert not list(default_store().root.glob("*/*/artifact.json"))
    form.make(mirror, planted(), [Item()])
    assert histories_of(prepare(form.dataset)) == expected_histories(form, planted())


def test_reviews_that_nobody_wrote(mirror):
    form = FORMS["steam-flattened"]
    form.make(mirror, [replace(review, text=None) for review in planted()])
    assert prepare(form.dataset).reviews() is None
