"""Dialogues to read and users to look at: which of them, whose titles, and what is said where there are none."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from recllm_bench.data.prepare import prepare
from recllm_bench.data.splits import split_named
from recllm_bench.evaluation.places import Ranks
from recllm_bench.evaluation.protocols import PROTOCOLS
from recllm_bench.recipe import Recipe
from recllm_bench.reporting.comparison import compare
from recllm_bench.reporting.records import make_record, write_record
from recllm_bench.reporting.site import people_and_talks
from recllm_bench.reporting.site.leaderboards import run_id
from recllm_bench.reporting.site.people_and_talks import dialogues_of, users_of
from recllm_bench.reporting.site.prepared_behind import training_counts
from recllm_bench.reporting.site.user_parts import sliced_figures


def entry(user: int, **changes) -> dict:
    item = {"item": user, "text": f"Film {user}"}
    base = {"user": user, "target": item, "turns": 0, "ended": "user left", "leaked": False, "n_match": 3}
    said = [{"role": "user", "text": "a film"}, {"role": "assistant", "text": "this one"}]
    return base | {"history": [item], "messages": said, "shown": [{"item": 99, "text": "Shown"}]} | changes


def with_dialogues(record, entries) -> None:
    lines = [each if isinstance(each, str) else json.dumps(each) for each in entries]
    (record.folder / "dialogues.jsonl").write_text("\n".join(lines) + "\n")


def test_dialogues_keep_what_was_said_and_leave_damaged_lines_out(make):
    record = make("A", block="text")
    assert dialogues_of(record) is None
    with_dialogues(record, [entry(1), "{", "[]", entry(2, leaked=True, turns=2), entry(3, target=None)])
    found = dialogues_of(record)
    assert (found["total"], found["bad"]) == (2, 3)
    assert found["titles"] == {"1": "Film 1", "2": "Film 2", "99": "Shown"}
    assert found["dialogues"][1][:6] == [2, 2, 2, "user left", True, 3]
    assert found["dialogues"][0][6:] == [[1], [["user", "a film"], ["assistant", "this one"]], [99]]


def test_of_too_many_dialogues_those_with_leaks_come_first(make, monkeypatch):
    monkeypatch.setattr(people_and_talks, "MOST_DIALOGUES", 4)
    record = make("A", block="text")
    with_dialogues(record, [entry(user, leaked=user in (8, 9)) for user in range(1, 10)])
    found = dialogues_of(record)
    assert [each[0] for each in found["dialogues"]] == [1, 2, 8, 9] and found["total"] == 9
    assert set(found["titles"]) == {"1", "2", "8", "9", "99"}, "titles of what is shown alone"


def test_without_data_titles_are_those_of_the_dialogues(make):
    rows = [make("A", 1.0, block="text", seed=1), make("B", 2.0, block="text", seed=2)]
    found = users_of(compare(rows), {})
    assert "No histories and no titles" in found["about"] and found["titles"] == {}
    assert "recllm-bench prepare ml1m" in found["about"]
    with_dialogues(rows[0], [entry(7, target={"item": 50, "text": "The Target"})])
    found = users_of(compare(rows), {run_id(rows[0]): dialogues_of(rows[0])})
    assert "dialogues mention" in found["about"] and found["titles"] == {"7": "Film 7", "50": "The Target"}
    assert next(each for each in found["users"] if each[0] == 7)[3] == [7]
    talked, silent = ({row["name"]: row for row in found["rows"]}[name] for name in "AB")
    assert (talked["talk"], talked["talked"]) == (run_id(rows[0]), [7]) and "talk" not in silent


@pytest.fixture
def prepared_rows(tmp_path):
    """Two rows on small data that lie prepared in the cache."""
    rng = np.random.default_rng(1)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(120):
        for at in range(6 + user % 9):
            lines.append(f"u{user}\ti{rng.integers(0, 40)}\t{at}")
    path = tmp_path / "small"
    path.mkdir()
    (path / "small.inter").write_text("\n".join(lines) + "\n")
    titles = ["item_id:token\tmovie_title:token_seq", *(f"i{item}\tTitle {item}" for item in range(40))]
    (path / "small.item").write_text("\n".join(titles) + "\n")
    prepared = prepare(str(path))
    split = split_named("leave_one_out", prepared.histories)
    protocol = PROTOCOLS["latentcrs.one_turn"]
    records = []
    for number, name in enumerate(("A", "B")):
        n = len(split.test.users)
        ones, higher = np.ones(n, np.int64), rng.integers(0, 30, n)
        lengths = split.test.ends - split.histories.offsets[split.test.users - 1]
        ranks = Ranks(split.test.users, split.test.targets, higher, ones + number, ones * 40, None, lengths=lengths)
        record = make_record(
            name=name,
            recipe=Recipe(model="sasrec", dataset=str(path), protocol=protocol.name, seed=number),
            block="history",
            dataset=prepared,
            protocol=protocol,
            split=split,
            ranks=ranks,
        )
        write_record(tmp_path / "runs" / name, record, ranks)
        records.append((record, ranks))
    return SimpleNamespace(
        records=[record for record, _ in records], ranks=records[0][1], prepared=prepared, split=split
    )


def test_users_have_places_histories_and_titles_of_the_data(prepared_rows):
    given = prepared_rows
    found = users_of(compare(given.records), {})
    assert [row["name"] for row in found["rows"]] == ["A", "B"] and found["total"] == len(given.ranks.users)
    assert "prepared data in the cache" in found["about"]
    for row, (user, target, length, history, places) in enumerate(found["users"]):
        assert user == given.ranks.users[row] and target == given.ranks.targets[row]
        own = given.split.histories.of(user).tolist()
        assert history == own[:-1][-10:] and own[-1] == target and length == len(own) - 1
        assert places[0] == given.ranks.higher[row] + 1  # tied with nothing
        assert places[1] % 1 == 0.5, "tied with one other item: half a place further down"
        assert found["titles"][str(target)] == given.prepared.catalogue.text(target) != ""
    assert sorted(found["pair"]) == [0, 1]


def test_of_too_many_users_some_are_taken_evenly(prepared_rows, monkeypatch):
    monkeypatch.setattr(people_and_talks, "MOST_USERS", 5)
    users = [each[0] for each in users_of(compare(prepared_rows.records), {})["users"]]
    everyone = prepared_rows.ranks.users
    assert len(users) == 5 and (users[0], users[-1]) == (everyone[0], everyone[-1])


def test_popularity_counts_training_interactions_alone(prepared_rows):
    counts = training_counts(prepared_rows.records[0])
    expected = np.zeros_like(counts)
    for user in range(1, 121):
        for item in prepared_rows.split.histories.of(user)[:-2]:  # the last two are for validation and test
            expected[item] += 1
    assert counts.tolist() == expected.tolist()
    lengths, popularity = sliced_figures(compare(prepared_rows.records))
    assert [figure.axis for figure in (*lengths, *popularity)] == [
        "interactions in the history",
        "training interactions",
    ]


def test_data_that_have_changed_are_not_taken(prepared_rows):
    for record in prepared_rows.records:
        record.dataset["checksum"] = "other"
    assert training_counts(prepared_rows.records[0]) is None
    assert "not in the cache" in users_of(compare(prepared_rows.records), {})["about"]
