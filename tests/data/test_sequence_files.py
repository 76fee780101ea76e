"""Sequence files beside the plain ones: owner's ids, JSON, and RecBole's lists of items."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from recllm_bench.data.facts import check
from recllm_bench.data.prepare import prepare
from recllm_bench.data.prepare.sequence_files import read_json_sequences, read_pairs, read_sequences
from recllm_bench.data.prepare.tables import read_atomic
from recllm_bench.data.splits import leave_one_out
from recllm_bench.errors import BenchError


def write(path: Path, content: str | bytes | dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(content) if isinstance(content, dict) else content
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def histories_of(rows) -> dict[str, list[str]]:
    """Item tokens of each user token, in the order a history would have."""
    order = rows.order if rows.order is not None else np.zeros(len(rows))
    told: dict[str, list[str]] = {}
    for row in np.lexsort((order, rows.users)):
        told.setdefault(rows.user_tokens[rows.users[row]], []).append(rows.item_tokens[rows.items[row]])
    return told


# --- owner's ids beside sequences ------------------------------------------------------------------------------------

MAPS = {"id2user": {"1": "AX", "2": "AY"}, "id2item": {"1": "B01", "2": "B02", "3": "B03"}}


def test_owner_ids_become_tokens(tmp_path):
    files = {
        "sequences": write(tmp_path / "s.txt", "1 1 2 1\n2 3 2\n"),
        "ids": write(tmp_path / "maps.json", MAPS),
        "items": write(tmp_path / "titles.json", {"2": {"title": "Two", "categories": [["Root", "A"], ["Root", "B"]]}}),
    }
    rows = read_sequences(files, drop_root=True)
    assert histories_of(rows) == {"AX": ["B01", "B02", "B01"], "AY": ["B03", "B02"]}
    assert (rows.text["B02"].title, rows.text["B02"].categories) == ("Two", ("A", "B"))
    assert not rows.source_ids
    plain = read_sequences({"sequences": files["sequences"]})
    assert plain.source_ids
    assert (plain.users == rows.users).all()


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({"id2user": MAPS["id2user"]}, r"maps\.json:1: has no 'id2item'"),
        ({**MAPS, "id2item": {"1": "B01", "2": "B02"}}, r"'id2item' has no entry for the item 3; it belongs to other"),
        ({**MAPS, "id2user": {"1": "AX"}}, r"'id2user' has no entry for the user 2"),
    ],
)
def test_maps_of_other_sequences(tmp_path, maps, message):
    files = {
        "sequences": write(tmp_path / "s.txt", "1 1 2 1\n2 3 2\n"),
        "ids": write(tmp_path / "maps.json", maps),
    }
    with pytest.raises(BenchError, match=message):
        read_sequences(files)


@pytest.mark.parametrize("change", [lambda t: t.replace(b"\n", b"\r\n"), lambda t: b"\xef\xbb\xbf" + t])
@pytest.mark.parametrize("reader", [read_sequences, read_pairs])
def test_line_ends_and_byte_order_mark(tmp_path, change, reader):
    text = b"1 5 3 5\n2 1 2\n" if reader is read_sequences else b"1 5\n1 3\n2 1\n"
    plain, other = (reader({"sequences": write(tmp_path / f"{name}.txt", content)}) for name, content in
                    (("a", text), ("b", change(text))))  # fmt: skip
    assert histories_of(plain) == histories_of(other)


# --- {user: [items]} -------------------------------------------------------------------------------------------------


def test_json_sequences(tmp_path):
    files = {
        "sequences": write(tmp_path / "s.json", {"9": [0, 7, "7"], "4": [2]}),
        "items": write(
            tmp_path / "i.json", {"0": {"title": " Zero\n", "categories": "A,B", "description": ["x", "y"]}}
        ),
    }
    rows = read_json_sequences(files)
    assert histories_of(rows) == {"9": ["0", "7", "7"], "4": ["2"]}
    assert rows.item_tokens == ["0", "7", "2"]
    assert (rows.text["0"].title, rows.text["0"].categories, rows.text["0"].description) == ("Zero", ("A", "B"), "x y")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"1": [1, 2],\n "2": }', r"s\.json:2: not valid JSON"),
        ("[[1, 2]]", r"s\.json:1: expected a JSON object"),
        ('{"1": 5}', "the history of user 1 is not a list"),
        ('{"1": [[1]]}', "the history of user 1 is not a list of item ids"),
        ('{"1": [1], "2": []}', "the user 2 has no items"),
        ('{"1": [1], "1": [2]}', "'1' appears twice"),
        ('{"1": [1, ""]}', "an item id is empty"),
        ("[" * 200_000, "not valid JSON"),
    ],
)
def test_malformed_json_sequences(tmp_path, text, message):
    with pytest.raises(BenchError, match=message) as caught:
        read_json_sequences({"sequences": write(tmp_path / "s.json", text)})
    assert "\n" not in str(caught.value)


# --- RecBole's lists -------------------------------------------------------------------------------------------------

HEAD = "user_id:token\titem_id_list:token_seq\titem_id:token\n"


def test_lists_of_items(tmp_path):
    path = write(tmp_path / "g.inter", HEAD + "u1\ta b c\td\nu2\t\te\nu3\tb\ta\n")
    rows = read_atomic(
        {"inter": path, "item": write(tmp_path / "g.item", "item_id:token\ttitle:token_seq\na\tAlpha\n")}
    )
    assert histories_of(rows) == {"u1": ["a", "b", "c", "d"], "u2": ["e"], "u3": ["b", "a"]}
    assert rows.text["a"].title == "Alpha"
    assert rows.order is None
    assert prepare(str(path)).facts["interactions"] == 7


def test_lists_without_a_target_and_with_times(tmp_path):
    head = "session_id:token\tuser_id:token\tmovie_id_list:token_seq\ttimestamp_list:float_seq\n"
    rows = read_atomic({"inter": write(tmp_path / "g.inter", head + "9\tu1\ta b c\t3e9 1e9 2e9\n9\tu2\ta\t1e9\n")})
    assert histories_of(rows) == {"u1": ["b", "c", "a"], "u2": ["a"]}
    assert rows.order.tolist() == [3e9, 1e9, 2e9, 1e9]
    assert rows.has_times


def test_growing_lines_of_a_user_are_one_history(tmp_path):
    """RecBole's augmentation writes each beginning of a history as a line of its own."""
    text = "u1\ta\tb\nu2\tz y\tx\nu1\ta b\tc\nu2\tz\ty\nu1\ta b c\td\n"
    rows = read_atomic({"inter": write(tmp_path / "g.inter", HEAD + text)})
    assert histories_of(rows) == {"u1": ["a", "b", "c", "d"], "u2": ["z", "y", "x"]}
    assert rows.user_tokens == ["u1", "u2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "u1\ta b\tc\nu1\tb\tc\n", r"g\.inter:3: a second history of the user of line 2"),
        (HEAD + "u1\ta b\tc\nu2\t\t\n", r"g\.inter:3: the user has no items"),
        (HEAD + "\ta b\tc\n", r"g\.inter:2: the user id is empty"),
        (HEAD + "u1\ta b\n", r"g\.inter:2: 2 fields instead of 3"),
        ("who:token\titem_id_list:token_seq\nu\ta\n", r"g\.inter:1: no user column"),
        (
            "user_id:token\titem_id_list:token_seq\ttimestamp_list:float_seq\nu\ta b\t1\n",
            r"g\.inter:2: 2 items but 1 times",
        ),
        (
            "user_id:token\titem_id_list:token_seq\ttimestamp_list:float_seq\nu\ta\t1\nv\ta b\t1 -2\n",
            r"g\.inter:3: the time -2 lies before 1970",
        ),
        (
            "user_id:token\titem_id_list:token_seq\ttimestamp_list:float_seq\nu\ta\t1\nv\ta b\t1 x\n",
            r"g\.inter:3: the time 'x' is not a number",
        ),
    ],
)
def test_malformed_lists(tmp_path, text, message):
    with pytest.raises(BenchError, match=message):
        read_atomic({"inter": write(tmp_path / "g.inter", text)})


# --- the real files --------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(data_mirror, monkeypatch):
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(data_mirror))
    return data_mirror


def assert_expected(prepared) -> None:
    rows = [row for row in check(prepared) if row.expected is not None]
    assert rows
    assert all(row.ok for row in rows), rows


def lines_of(path: Path) -> list[list[str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [line.split() for line in file if line.strip()]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "file"), [("sasrec-video", "sasrec/Video.txt.gz"), ("bert4rec-beauty", "bert4rec/beauty.txt.gz")]
)
def test_pairs_keep_the_ids_of_the_file(mirror, name, file):
    prepared = prepare(name)
    assert_expected(prepared)
    told: dict[str, list[int]] = {}
    for user, item in lines_of(mirror / "sequences" / file):
        told.setdefault(user, []).append(int(item))
    assert list(prepared.user_tokens[1:]) == list(told)
    assert prepared.histories.items.tolist() == [item for row in told.values() for item in row]
    assert not prepared.has_times


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "twin"), [("beauty", "s3rec-beauty"), ("sports", "s3rec-sports"), ("yelp", "s3rec-yelp")]
)
def test_owner_ids_beside_the_same_sequences(mirror, name, twin):
    prepared, plain = prepare(f"p5-{name}"), prepare(twin)
    assert_expected(prepared)
    assert (prepared.histories.items == plain.histories.items).all()
    assert (prepared.histories.offsets == plain.histories.offsets).all()
    assert prepared.catalogue.texts() == plain.catalogue.texts()
    with gzip.open(mirror / f"sequences/llm_recsys_id/{name}_datamaps.json.gz", "rt") as file:
        maps = json.load(file)
    assert prepared.catalogue.tokens[1:] == [maps["id2item"][token] for token in plain.catalogue.tokens[1:]]
    assert list(prepared.user_tokens[1:]) == [maps["id2user"][token] for token in plain.user_tokens[1:]]
    titled = {"beauty": 12_101, "sports": 0, "yelp": 20_033}[name]
    assert prepared.facts["items_with_text"] == titled


@pytest.mark.shared
@pytest.mark.parametrize("name", ["beauty", "instruments"])
def test_json_sequences_of_letter(mirror, name):
    prepared = prepare(f"letter-{name}")
    assert_expected(prepared)
    with gzip.open(mirror / f"amazon/letter/{name.capitalize()}.inter.json.gz", "rt") as file:
        told = json.load(file)
    assert list(prepared.user_tokens[1:]) == list(told)
    tokens = np.array(prepared.catalogue.tokens)
    assert tokens[prepared.histories.items].tolist() == [str(item) for row in told.values() for item in row]


@pytest.mark.shared
def test_games_of_llmrank(mirror):
    """Leave-one-out on the histories gives back the published test and validation items."""
    prepared = prepare("games-llmrank")
    assert_expected(prepared)
    split = leave_one_out(prepared.histories)
    tokens = np.array(prepared.catalogue.tokens)
    for cases, part in ((split.test, "test"), (split.valid, "valid")):
        with gzip.open(mirror / f"amazon/games_llmrank/Games-6k.{part}.inter.gz", "rt") as file:
            rows = [line.rstrip("\n").split("\t") for line in file][1:]
        targets = {user: target for user, _, target in rows}
        users = [prepared.user_tokens[user] for user in cases.users.tolist()]
        assert tokens[cases.targets].tolist() == [targets[user] for user in users]
        assert len(users) == 50_546
    item = prepared.catalogue.tokens.index("0")
    assert prepared.catalogue.titles[item] == "Fire Emblem: The Sacred Stones"
    assert all(prepared.catalogue.titles[1:])
