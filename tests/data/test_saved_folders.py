"""Folders of the ``datasets`` package: reviews as a dataset of one's own, labels, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import recllm_bench as rb
from recllm_bench import cli
from recllm_bench.data.prepare import prepare
from recllm_bench.errors import BenchError, NotEnough
from recllm_bench.language.labels import Labels, labels_from_file, save_labels
from recllm_bench.language.miniature import require_text
from recllm_bench.models.relrec.labelling import labels_key
from recllm_bench.models.relrec.options import ReLRecOptions

pytest.importorskip("datasets.arrow_writer")  # a folder of the checkout has the package's name
import datasets

USERS, ITEMS = 9, 12


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECLLM_CACHE", str(tmp_path / "cache"))


def columns(**changes) -> dict[str, list]:
    """Reviews of nine users, six each, in an order that is not that of time."""
    rows = [(user, (user * 5 + step * 7) % ITEMS, step) for step in (3, 0, 5, 1, 4, 2) for user in range(USERS)]
    found = {
        "user_id": [f"u{user}" for user, _, _ in rows],
        "asin": [f"i{item}" for _, item, _ in rows],
        "timestamp": [1_500_000_000 + 86_400 * step for _, _, step in rows],
        "rating": [4.0] * len(rows),
        "title": [None if step == 3 else f"short {user}" for user, _, step in rows],
        "text": ["" if step == 5 else f"user {user} writes about item {item}" for user, item, step in rows],
    }
    return {name: values for name, values in (found | changes).items() if values is not None}


def saved(folder: Path, **changes) -> Path:
    datasets.Dataset.from_dict(columns(**changes)).save_to_disk(str(folder))
    return folder


def test_a_saved_folder_is_a_dataset_with_its_reviews(tmp_path):
    found = prepare(str(saved(tmp_path / "mine")), filter="all")
    assert (found.histories.n_users, found.histories.n_items) == (USERS, ITEMS)
    assert found.facts["has_times"] and found.facts["has_ratings"]
    for user, token in enumerate(found.user_tokens[1:], 1):
        told = [found.catalogue.tokens[item] for item in found.histories.of(user)]
        assert told == [f"i{(int(token[1:]) * 5 + step * 7) % ITEMS}" for step in range(6)], "oldest first"
    reviews = found.reviews().of(np.arange(6))
    number = int(found.user_tokens[1][1:])
    assert reviews[0] == f"short {number}\nuser {number} writes about item {(number * 5) % ITEMS}"
    assert reviews[3] == f"user {number} writes about item {(number * 5 + 21) % ITEMS}", "a review without a title"
    assert reviews[5] == f"short {number}", "and one without a text"


def test_reviews_come_back_as_they_were_saved(tmp_path):
    first = rb.load_dataset(saved(tmp_path / "mine"))
    again = rb.load_dataset(first.save_reviews(tmp_path / "again"))
    assert first.user_tokens == again.user_tokens and first.item_tokens == again.item_tokens
    assert first.to_frame().equals(again.to_frame())
    places = np.arange(USERS * 6)
    assert first.prepared.reviews().of(places) == again.prepared.reviews().of(places)
    other = datasets.load_from_disk(str(tmp_path / "again"))
    assert other.column_names == ["user_id", "item_id", "timestamp", "rating", "title", "text"]
    with pytest.raises(BenchError, match="again: is there already"):
        first.save_reviews(tmp_path / "again")
    silent = rb.load_dataset(saved(tmp_path / "silent", title=None, text=None))
    with pytest.raises(BenchError, match="silent has no reviews to save"):
        silent.save_reviews(tmp_path / "nothing")


def test_reviews_are_text_where_they_are_read(tmp_path):
    mine, silent = saved(tmp_path / "mine"), saved(tmp_path / "silent", title=None, text=None)
    require_text(prepare(str(mine), filter="all"), reviews=True)
    for folder, reviews in ((mine, False), (silent, True)):
        with pytest.raises(NotEnough, match="have no text for a language model"):
            require_text(prepare(str(folder), filter="all"), reviews=reviews)


def test_splits_are_one_table_and_the_command_runs_on_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RECLLM_RESULTS", str(tmp_path / "results"))
    whole = datasets.Dataset.from_dict(columns())
    parts = {"train": whole.select(range(40)), "test": whole.select(range(40, len(whole)))}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "parts"))
    of_parts, alone = (
        prepare(str(tmp_path / "parts"), filter="all"),
        prepare(str(saved(tmp_path / "mine")), filter="all"),
    )
    assert np.array_equal(of_parts.histories.items, alone.histories.items)
    assert cli.main(["run", "pop", str(tmp_path / "parts"), "--alone", "--set", "protocol=unified.full"]) == 0
    assert "parts · unified.full · 9 users" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"user_id": None}, "mine:1: no user column among asin, "),
        ({"user_id": ["u1"] * 3 + [None] + ["u2"] * 50}, "mine:4: the user id is empty"),
        ({"rating": ["good"] * 54}, "mine:1: "),
        ({"timestamp": list(range(54))}, "save Unix times, or sort the rows and leave the column out"),
    ],
)
def test_bad_rows_are_refused_with_their_place(tmp_path, changes, said):
    with pytest.raises(BenchError) as refused:
        prepare(str(saved(tmp_path / "mine", **changes)), filter="all")
    assert said in str(refused.value)


def test_a_damaged_folder_and_a_missing_package_are_told(tmp_path, monkeypatch):
    folder = saved(tmp_path / "mine")
    (part,) = folder.glob("*.arrow")
    whole = part.read_bytes()
    part.write_bytes(whole[:40])
    with pytest.raises(BenchError, match="mine: not a readable folder of the datasets package"):
        prepare(str(folder), filter="all")
    part.write_bytes(whole)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BenchError, match=r"pip install 'datasets>=2\.20'"):
        prepare(str(folder), filter="all")


def test_labels_come_back_from_a_folder(tmp_path):
    found = prepare(str(saved(tmp_path / "mine")), filter="all")
    users = [(), *((f"user {k}", f"he or she is user {k}") for k in range(1, USERS + 1))]
    items = [(), *(() if k == 4 else (f"item {k}",) for k in range(1, ITEMS + 1))]
    labels = Labels(users, items, "gpt-3.5-turbo", "all", {"empty": 1, "refusals": 0})
    save_labels(tmp_path / "labels", labels)
    again = labels_from_file(tmp_path / "labels", found)
    assert (again.users, again.items, again.source, again.scope) == (users, items, "gpt-3.5-turbo", "all")
    assert again.writers == ("gpt-3.5-turbo",) and again.counts["empty"] == 1
    key = labels_key(ReLRecOptions(labels=str(tmp_path / "labels")))
    save_labels(tmp_path / "same", labels)
    assert labels_key(ReLRecOptions(labels=str(tmp_path / "same"))) == key, "what they hold is the key"
    save_labels(tmp_path / "writer", Labels(users, items, "somebody else", "all", {"empty": 1, "refusals": 0}))
    assert labels_key(ReLRecOptions(labels=str(tmp_path / "writer"))) != key, "who wrote them is part of it"
    save_labels(tmp_path / "scope", Labels(users, items, "gpt-3.5-turbo", "train", {"empty": 1, "refusals": 0}))
    assert labels_key(ReLRecOptions(labels=str(tmp_path / "scope"))) != key, "and what they were made from"
    save_labels(tmp_path / "other", Labels([(), *users[:0:-1]], items, "gpt-3.5-turbo", "all"))
    assert labels_key(ReLRecOptions(labels=str(tmp_path / "other"))) != key


def test_labels_of_another_program_are_checked_as_a_file_is(tmp_path):
    found = prepare(str(saved(tmp_path / "mine")), filter="all")
    rows = {"kind": ["user", "item"], "id": [1, 2], "version": [0, 0], "text": ["likes tea", "a kettle"]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "theirs"))
    labels = labels_from_file(tmp_path / "theirs", found)
    assert labels.users[1] == ("likes tea",) and labels.items[2] == ("a kettle",)
    assert (labels.source, labels.scope) == ("theirs", "unknown")
    datasets.Dataset.from_dict(rows | {"id": [1, 99]}).save_to_disk(str(tmp_path / "beyond"))
    with pytest.raises(BenchError, match="beyond:2: there is no item 99, ids go from 1 to 12"):
        labels_from_file(tmp_path / "beyond", found)


def test_nothing_imports_the_package_before_it_is_needed(tmp_path):
    script = (
        "import sys\nfrom recllm_bench.data.prepare import prepare\n"
        "from recllm_bench.language.labels import save_labels\n"
        "prepare('ml-100k')\nprint('datasets.arrow_writer' in sys.modules)\n"
        f"prepare({str(saved(tmp_path / 'mine'))!r})\nprint('datasets.arrow_writer' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == ["False", "True"], done.stderr
