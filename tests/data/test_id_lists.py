"""Corpora cut to published lists of users and items."""

from __future__ import annotations

import gzip
import json
import re

import numpy as np
import pytest
from raw_sources import FORMS, Item, Review, mirror, write_lines

from recllm_bench.data.cards import all_cards, default_store, find_card
from recllm_bench.data.interactions import Interactions
from recllm_bench.data.prepare import format_check, prepare
from recllm_bench.data.prepare.id_lists import IdLists, keep_listed_ids, read_ids
from recllm_bench.data.prepare.sources import find_id_lists
from recllm_bench.errors import BenchError

__all__ = ["mirror"]  # a fixture
START = 1_400_025_600
DAY = 86_400


def write(folder, content: str | bytes, name: str = "ids.json"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        ('{"uid": 0, "user_id": "a"}\n{"uid": 1, "user_id": "b"}\n', ["a", "b"]),
        ('{"iid": 0, "asin": "0373730489"}', ["0373730489"]),
        ('{"uid": 0, "username": 7}\n{"uid": 1, "username": "8"}', ["7", "8"]),
        ("\ufeffa\r\n\r\n  b  \r\nc", ["a", "b", "c"]),
        ('{"uid": 0, "username": "one\u2028name\x85"}\n{"uid": 1, "username": " b "}', ["one\u2028name\x85", " b "]),
        ('{"uid": 0, "username": "\\ud83d\\ude00"}', ["\U0001f600"]),
    ],
)
def test_forms(tmp_path, content, ids):
    assert read_ids(write(tmp_path, content)) == ids
    assert read_ids(write(tmp_path, gzip.compress(content.encode()), "ids.json.gz")) == ids


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"uid": 0, "user_id": "first"}', "the id first stands twice"),
        ("first", "the id first stands twice"),
        ('{"uid": 0, "user_id": }', "not valid JSON"),
        ('{"uid": 0, "user_id": "x"', "not valid JSON"),
        ('{"uid": 0}', r"expected one id beside the number, found \[\]"),
        ('{"uid": 0, "a": "x", "b": "y"}', "expected one id beside the number"),
        ('{"uid": 0, "user_id": ""}', "expected one id beside the number"),
        ('{"uid": 0, "user_id": null}', "expected one id beside the number"),
        ('{"uid": 0, "user_id": ["x"]}', "expected one id beside the number"),
        ('{"uid": 0, "user_id": "\\ud800"}', "not valid JSON"),
        ('{"uid": ' + "[" * 100_000, "not valid JSON"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_malformed(tmp_path, line, why):
    content = b'{"uid": 0, "user_id": "first"}\n\n' + line.encode("utf-8", "surrogateescape") + b"\n"
    with pytest.raises(BenchError, match=rf"ids\.json:3: {why}") as caught:
        read_ids(write(tmp_path, content))
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_empty(tmp_path):
    with pytest.raises(BenchError, match="the file is empty"):
        read_ids(write(tmp_path, "\n\n"))


def test_in_memory_rows(tmp_path):
    rows = Interactions(np.array([0, 1, 2, 0]), np.array([0, 1, 0, 1]), ["a", "b", "c"], ["x", "y"])
    users, items = write(tmp_path, "a\nc\nz", "users"), write(tmp_path, "x", "items")
    kept, found = keep_listed_ids(rows, IdLists("some", users, items, {}))
    assert (kept.users.tolist(), kept.items.tolist()) == ([0, 2], [0, 0])
    assert found == {
        "name": "some",
        "users": {"listed": 3, "in the corpus": 2},
        "items": {"listed": 1, "in the corpus": 1},
    }
    kept, found = keep_listed_ids(rows, IdLists("some", None, items, {}))
    assert kept.users.tolist() == [0, 2]
    assert "users" not in found
    with pytest.raises(BenchError, match=r"users: none of its 3 users occurs in the data"):
        keep_listed_ids(rows, IdLists("some", write(tmp_path, "1\n2\n3", "users"), None, {}))


def test_a_restricted_corpus(mirror):
    """The lists decide first, then the filter's rating and counts."""
    form = FORMS["yelp"]
    rows = [
        Review(f"u{user}", f"b{item}", START + (7 * user + item) * DAY, 3.0) for user in range(4) for item in range(7)
    ]
    rows += [Review("u1", "b9", START + 99 * DAY, 1.0), Review("\u20ae\u029c W", "b1", START, 5.0)]
    form.make(mirror, rows, [Item("b1", "Bar")])
    for name, ids in (("user", ["u1", "u3", "\u20ae\u029c W", "gone"]), ("item", ["b0", "b1", "b2", "b3", "b4", "b9"])):
        key = {"user": ("uid", "user_id"), "item": ("iid", "business_id")}[name]
        lines = (json.dumps({key[0]: n, key[1]: one}).encode() for n, one in enumerate(ids))
        write_lines(mirror / f"profiles/rlmrec/yelp_{name}.json.gz", lines)
    prepared = prepare("yelp", "relrec")
    assert list(prepared.user_tokens[1:]) == ["u1", "u3"], "the third has one interaction only"
    assert prepared.catalogue.tokens[1:] == ["b0", "b1", "b2", "b3", "b4"]
    assert prepared.facts["interactions"] == 10
    lists = prepared.facts["id_lists"]
    assert lists == {
        "name": "rlmrec",
        "users": {"listed": 4, "in the corpus": 3},
        "items": {"listed": 6, "in the corpus": 6},
    }
    assert "restricted to the ids of rlmrec: 3 of 4 users, 6 of 6 items occur in the corpus" in format_check(prepared)
    before = prepared.checksum
    write_lines(mirror / "profiles/rlmrec/yelp_user.json.gz", [b'{"uid": 0, "user_id": "u1"}'])
    assert prepare("yelp", "relrec").checksum != before, "other lists are other data"


def test_absent_lists(mirror):
    FORMS["yelp"].make(mirror, [Review()], [Item()])
    # No network: the owner's address cannot answer.
    (mirror / "profiles").mkdir()
    card = {**find_card("yelp"), "id_lists": {"own": {"users": {"path": "profiles/own.json"}}}}
    with pytest.raises(BenchError, match=r"profiles/own\.json") as caught:
        find_id_lists(card, "own", default_store())
    assert "RECLLM_DATA_MIRROR" in str(caught.value)
    with pytest.raises(BenchError, match=re.escape("yelp has no id lists 'rlmerc'") + ".*rlmrec"):
        prepare("yelp", "ids=rlmerc")


def test_every_filter_names_lists_that_exist():
    found = 0
    for card in all_cards().values():
        for settings in card["filters"].values():
            if "ids" in (settings or {}):
                assert settings["ids"] in card["id_lists"]
                found += 1
    assert found >= 4
