"""Label files, drawing of versions, labels of another dataset, and titles in a text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recllm_bench.errors import BenchError
from recllm_bench.language.labels import (
    Labels,
    TitleNames,
    anonymise,
    draw_versions,
    is_refusal,
    read_labels,
    switched,
    write_labels,
)

LABELS = Labels(
    users=[(), ("Likes jazz.", "jazz; piano"), (), ("“Ünicode” – ok",)],
    items=[(), ("a b c",), ()],
    source="somebody",
    scope="train_only",
    counts={"empty": 2},
)


def lines(path: Path, *rows: dict | str) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def label(kind="user", id=1, version=0, text="A label.", **more) -> dict:
    return {
        "kind": kind,
        "id": id,
        "stage": 2,
        "version": version,
        "text": text,
        "model": "m",
        "prompt_hash": "",
        **more,
    }


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "deep" / "labels.jsonl"
    write_labels(path, LABELS)
    read = read_labels(path, 3, 2)
    assert (read.users, read.items, read.source, read.scope) == (LABELS.users, LABELS.items, "somebody", "train_only")
    assert read.counts == {"empty": 2, "refusals": 0}
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert written[1] == {
        "kind": "user", "id": 1, "stage": 2, "version": 0, "text": "Likes jazz.", "model": "somebody", "prompt_hash": ""
    }  # fmt: skip
    write_labels(tmp_path / "again.jsonl", read)
    assert read_labels(tmp_path / "again.jsonl", 3, 2) == read


def test_empty_texts_and_refusals_are_dropped_and_counted(tmp_path):
    rows = [label(text="  "), label(version=1, text="I'm sorry, but I cannot help."), label(version=2, text=" Kept. ")]
    read = read_labels(lines(tmp_path / "l.jsonl", *rows, "\n", label("item", 2, text="")), 1, 2)
    assert read.users == [(), ("Kept.",)]
    assert read.items == [(), (), ()]
    assert read.counts == {"empty": 2, "refusals": 1}
    assert read.source == "m"
    assert read.scope == "unknown"


def test_half_a_surrogate_pair_is_replaced(tmp_path):
    path = lines(tmp_path / "l.jsonl", json.dumps(label(text="a \ud83d b")) + "\n")
    read = read_labels(path, 1, 1)
    assert read.users[1] == ("a \ufffd b",)
    write_labels(tmp_path / "again.jsonl", read)


def test_the_highest_stage_counts(tmp_path):
    rows = [
        label(stage=1, text="raw"),
        label(text="clean"),
        label(version=1, text="other"),
        label("item", stage=1, text="x"),
    ]
    read = read_labels(lines(tmp_path / "l.jsonl", *rows), 1, 1)
    assert read.users[1] == ("clean", "other")
    assert read.items[1] == ("x",)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (label(id=4), r":2: there is no user 4, ids go from 1 to 3; .*another dataset"),
        (label("item", id=3), r":2: there is no item 3, ids go from 1 to 2"),
        (label(id=0), ":2: there is no user 0"),
        (label(kind="users"), ":2: kind is user or item, not 'users'"),
        (label(version=0), ":2: user 1 has its version 0 already in line 1"),
        (label(id="2"), ":2: id is a whole number, not '2'"),
        (label(id=True), ":2: id is a whole number, not True"),
        (label(version=-1), ":2: version is a whole number, not -1"),
        (label(id=2, text=None), ":2: text is a string, not None"),
        ({"kind": "user", "text": "x"}, ":2: the label lacks id, version"),
        ("{broken\n", ":2: not valid JSON"),
        ("[1]\n", ":2: a line is an object, one label"),
    ],
)
def test_mistakes_are_named_with_file_and_line(tmp_path, row, message):
    path = lines(tmp_path / "mine.jsonl", label(), row)
    with pytest.raises(BenchError, match=r"mine\.jsonl" + message):
        read_labels(path, 3, 2)


def test_unreadable_files(tmp_path):
    with pytest.raises(BenchError, match="cannot read the labels"):
        read_labels(tmp_path / "none.jsonl", 1, 1)
    (tmp_path / "l.jsonl").write_bytes(b'{"kind": "user", "text": "\xe9"}\n')
    with pytest.raises(BenchError, match="not UTF-8"):
        read_labels(tmp_path / "l.jsonl", 1, 1)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that.",
        "I am sorry, there is nothing to summarise.",
        "As an AI language model, I do not have access to reviews.",
        "Unfortunately, I cannot tell from this.",
        "I cannot determine who would like it.",
        "There is not enough information to describe this user.",
        "Sorry, no reviews were given.",
        "No reviews were provided for this user.",
        "I’m unable to help.",
        "Hello! Unfortunately, I am unable to see the reviews.",
    ],
)
def test_refusals_are_seen(text):
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "This user can't resist sad songs and sorry endings.",
        "People who cannot stand noise would like this filter.",
        "Fans of 'I'm With Stupid' would enjoy it.",
        "A film about an AI that falls in love.",
        "Fans of I'm Sorry I Haven't a Clue.",
        'Ends with a boy who says: "I\'m sorry".',
        "There is no better place for dim sum lovers.",
        "No information wasted: short, sharp documentaries.",
        "Likes " + "long labels, " * 20 + "and ends with: I am sorry.",
    ],
)
def test_labels_are_no_refusals(text):
    assert not is_refusal(text)


def test_versions_are_drawn_uniformly_and_by_seed():
    labels = Labels([(), ("a", "b", "c"), (), ("d",)], [()], "", "all")
    texts, offsets = labels.flat("user")
    assert texts == ["a", "b", "c", "d"]
    assert offsets.tolist() == [0, 0, 3, 3, 4]
    drawn = draw_versions(offsets, np.full(3000, 1), np.random.default_rng(0))
    sigma = np.sqrt(3000 * (1 / 3) * (2 / 3))
    assert (np.abs(np.bincount(drawn, minlength=3) - 1000) < 3 * sigma).all()
    assert drawn.max() == 2
    np.testing.assert_array_equal(drawn, draw_versions(offsets, np.full(3000, 1), np.random.default_rng(0)))
    assert (drawn != draw_versions(offsets, np.full(3000, 1), np.random.default_rng(1))).any()
    mixed = draw_versions(offsets, np.array([3, 2, 1, 0, 3]), np.random.default_rng(0))
    assert mixed[[0, 1, 3, 4]].tolist() == [3, -1, -1, 3]
    for wrong in (-1, 4):
        with pytest.raises(IndexError, match="from 0 to 3"):
            draw_versions(offsets, np.array([wrong]), np.random.default_rng(0))


def test_switched_labels_come_from_k_mod_n():
    mine = Labels([(), *((f"u{k}",) for k in range(1, 8))], [(), ("i1",), ("i2",)], "mine", "train_only")
    other = Labels([(), ("x1",), ("x2",), ("x3",)], [(), ("y1", "y1'"), (), ("y3",)], "other", "all")
    got = switched(mine, other)
    # Remainder 0 is the last id: 3 and 6 get the label of 3.
    assert got.users == [(), *((f"x{k % 3 or 3}",) for k in range(1, 8))]
    assert got.items == [(), ("y1", "y1'"), ()]
    assert (got.source, got.scope) == ("switched: other", "all")
    assert mine.users[1] == ("u1",)
    with pytest.raises(BenchError, match="knows no items"):
        switched(mine, Labels(other.users, [()], "other", "all"))


def test_statistics():
    assert LABELS.statistics() == {
        "source": "somebody",
        "scope": "train_only",
        "writers": ["somebody"],
        "users": {"total": 3, "with_label": 2, "versions": 3, "mean_words": 2.33, "most_words": 3},
        "items": {"total": 2, "with_label": 1, "versions": 1, "mean_words": 3.0, "most_words": 3},
        "counts": {"empty": 2},
    }


TITLES = [
    "",
    "Toy Story",  # 1
    "Toy Story 2",  # 2
    "Matrix, The",  # 3
    "Heat",  # 4
    "It",  # 5
    "1984",  # 6
    "The Good, the Bad and the Ugly",  # 7
    "Toy Story",  # 8: the same title again
    "Southern",  # 9: a word of the next title too
    "Southern Comfort",  # 10
    "Shall We Dance? (Shall We Dansu?)",  # 11
    "",  # 12
    "Amélie",  # 13
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Fans of Toy Story 2 and Toy Story.", "Fans of iid_2 and iid_1."),
        ("Fans of toy story.", "Fans of toy story."),  # two words: only as a name
        ("Like The Matrix's fans", "Like iid_3's fans"),
        ("Toy Stories are no Toy Story", "Toy Stories are no iid_1"),
        ("Loves Heat and the heat.", "Loves iid_4 and the heat."),
        ("Heat is loved. Heat again; see “Heat”.", "Heat is loved. Heat again; see “iid_4”."),
        ("It is good. Read It in 1984.", "It is good. Read It in 1984."),
        ("the good, the bad and the ugly", "iid_7"),  # three content words: in any case
        ("The Good -- the BAD and the Ugly!", "iid_7!"),
        ("Southern food, Southern Comfort", "Southern food, iid_10"),
        ("Watch Shall We Dance tonight", "Watch iid_11 tonight"),
        ("I like Amélie.", "I like iid_13."),
        ("A Toy. Story", "A iid_1"),
        ("A Toy\nStory", "A Toy\nStory"),
        ("iid_1 Toy_Story xToy Story", "iid_1 Toy_Story xToy Story"),
        ("", ""),
    ],
)
def test_titles_become_tokens(text, expected):
    assert TitleNames(TITLES).replace(text) == expected


def test_of_equal_titles_the_own_goes_first():
    names = TitleNames(TITLES)
    assert names.replace("As in Toy Story", about=8) == "As in iid_8"
    assert names.replace("As in Toy Story", about=4) == "As in iid_1"
    assert names.replaced == 2


def test_anonymise_counts_and_leaves_the_rest():
    labels = Labels([(), ("Likes Toy Story.", "toys")], [(), *[()] * 7, ("Toy Story again",)], "m", "all", {"empty": 1})
    got = anonymise(labels, TITLES)
    assert got.users[1] == ("Likes iid_1.", "toys")
    assert got.items[8] == ("iid_8 again",)
    assert got.counts == {"empty": 1, "names replaced": 2}
    assert (got.source, got.scope) == ("m", "all")


def test_titles_against_a_search_of_all_of_them():
    rng = np.random.default_rng(4)
    words = ["Red", "Blue", "Night", "River", "Song", "King"]
    titles = ["", *sorted({" ".join(rng.choice(words, int(rng.integers(2, 5)))) for _ in range(30)})]
    names = TitleNames(titles)
    for _ in range(200):
        text = " ".join(rng.choice([*words, "of", "the"], 12))
        left, expected = text, ""
        while left:  # the longest title that begins here, else one word on
            fits = [t for t in titles[1:] if left == t or left.startswith(t + " ")]
            taken = max(fits, key=lambda t: len(t.split()), default=left.split(" ")[0])
            expected += f"iid_{titles.index(taken)}" if fits else taken
            left = left[len(taken) :]
            if left:
                expected, left = expected + " ", left[1:]
        assert names.replace(text) == expected
