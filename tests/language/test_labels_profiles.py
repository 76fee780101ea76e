"""Profiles by others: by the dataset's own numbers, or through a map to the owner's ids."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import pytest

from recllm_bench.data.prepare import prepare
from recllm_bench.errors import BenchError
from recllm_bench.language.labels import import_profiles, labels_from_file, read_labels, write_labels
from tests.language.planted_reviews import films


@pytest.fixture
def dataset():
    plain, _ = films(n_users=4, n_items=5, length=4)
    catalogue = dataclasses.replace(plain.catalogue, tokens=["", "10", "11", "12", "13", "14"])
    return dataclasses.replace(plain, catalogue=catalogue, user_tokens=["", "0", "1", "2", "3"], name="mine")


def profile(uid=0, iid=10, user="Likes jazz.", item="For jazz fans.", **more) -> dict:
    return {"uid": uid, "iid": iid, "user_summary": user, "item_summary": item, "explanation": "SECRET", **more}


def written(path: Path, *rows: dict | str) -> Path:
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_profiles_go_by_the_datasets_numbers(dataset, tmp_path):
    rows = [
        profile(),
        profile(2, 12, "Likes folk.", "For folk fans."),
        profile(2, 10, "Likes folk.", "Another of it."),
        profile(9, 99),
        profile(9, 13, item=" "),
        profile(3, 13, "I'm sorry, I cannot say.", "For metal fans."),
    ]
    labels = import_profiles(written(tmp_path / "p.jsonl.gz", *rows), dataset)
    assert labels.users == [(), ("Likes jazz.",), (), ("Likes folk.",), ()]
    assert labels.items == [(), ("For jazz fans.", "Another of it."), (), ("For folk fans.",), ("For metal fans.",), ()]
    assert labels.scope == "unknown"
    assert labels.source == "profiles of p.jsonl.gz"
    assert labels.counts == {
        "profiles": 6, "empty": 1, "refusals": 1, "unknown ids": 2, "users without label": 2, "items without label": 2
    }  # fmt: skip
    assert "SECRET" not in str(labels)


def test_a_map_leads_to_the_owners_ids(dataset, tmp_path):
    owned = dataclasses.replace(dataset, user_tokens=["", "Ua", "Ub", "Uc", "Ud"])
    users = written(tmp_path / "users.json", {"uid": 0, "user_id": "Uc"}, {"uid": 1, "user_id": "Ua"})
    items = written(tmp_path / "items.json.gz", {"iid": 7, "asin": "11"})
    path = written(tmp_path / "p.jsonl", profile(0, 7), profile(5, 7, "Nobody.", "For jazz fans."))
    labels = import_profiles(path, owned, user_map=users, item_map=items)
    assert labels.users == [(), (), (), ("Likes jazz.",), ()]
    assert labels.items == [(), (), ("For jazz fans.",), (), (), ()]
    assert labels.counts["unknown ids"] == 1
    with pytest.raises(BenchError, match=r"users\.json:1: an id map has iid and one of business_id"):
        import_profiles(path, owned, item_map=users)


def test_profiles_of_another_dataset_are_refused(dataset, tmp_path):
    with pytest.raises(BenchError, match="none of its 1 profiles is of a user or item of mine"):
        import_profiles(written(tmp_path / "p.jsonl", profile(77, 88)), dataset)
    rows = [profile(0, 10, title=dataset.catalogue.titles[1]), profile(1, 11, title="Something Else")]
    with pytest.raises(BenchError, match="1 of 2 profiles have another title"):
        import_profiles(written(tmp_path / "p.jsonl", *rows), dataset)
    rows[1]["title"] = dataset.catalogue.titles[2].upper() + "!"
    assert len(import_profiles(written(tmp_path / "p.jsonl", *rows), dataset).users[2]) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{\n", ":2: not valid JSON"),
        ("3\n", ":2: a line is an object"),
        (profile(uid=None), ":2: 'uid' is a number or text, not None"),
        ({"uid": 1, "iid": 10, "item_summary": "x"}, ":2: 'user_summary' is text, not None; a profile has uid, iid"),
        (profile(item=3), ":2: 'item_summary' is text, not 3"),
    ],
)
def test_mistakes_are_named_with_file_and_line(dataset, tmp_path, row, message):
    with pytest.raises(BenchError, match=r"p\.jsonl" + message):
        import_profiles(written(tmp_path / "p.jsonl", profile(), row), dataset)


def test_files_that_are_missing_or_damaged(dataset, tmp_path):
    with pytest.raises(BenchError, match="no such file of labels"):
        import_profiles(tmp_path / "none.jsonl", dataset)
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(b"x" * 1000)[:-20])
    with pytest.raises(BenchError, match="damaged"):
        import_profiles(tmp_path / "p.jsonl.gz", dataset)


def test_either_form_is_known_by_its_first_line(dataset, tmp_path, monkeypatch):
    (tmp_path / "profiles").mkdir()
    written(tmp_path / "profiles/p.jsonl.gz", profile())
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(tmp_path))
    labels = labels_from_file("profiles/p.jsonl", dataset)  # under the mirror, packed
    assert labels.users[1] == ("Likes jazz.",)
    write_labels(tmp_path / "labels.jsonl", labels)
    assert labels_from_file(tmp_path / "labels.jsonl", dataset) == read_labels(tmp_path / "labels.jsonl", 4, 5)
    for other in ("", "text\n", '{"user": 1}\n'):
        with pytest.raises(BenchError, match=r"other\.txt:1: neither labels"):
            labels_from_file(written(tmp_path / "other.txt", other), dataset)


@pytest.mark.shared
def test_xrec_profiles_label_their_own_corpus(data_mirror):
    dataset = prepare("xrec-yelp", "relrec")
    labels = import_profiles("profiles/xrec/yelp_tst.jsonl", dataset)
    facts = labels.statistics()
    assert facts["users"]["total"] == 15_962
    assert facts["items"]["total"] == 14_085
    assert facts["users"]["with_label"] == facts["users"]["versions"] == 2_228
    assert facts["items"]["with_label"] == facts["items"]["versions"] == 2_473
    assert labels.counts["unknown ids"] == 0
    lines = gzip.decompress((data_mirror / "profiles/xrec/yelp_tst.jsonl.gz").read_bytes()).splitlines()
    users = {token: id for id, token in enumerate(dataset.user_tokens)}
    items = {token: id for id, token in enumerate(dataset.catalogue.tokens)}
    for row in map(json.loads, lines[::97]):
        user, item = users[str(row["uid"])], items[str(row["iid"])]
        assert labels.users[user] == (row["user_summary"],)
        assert labels.items[item] == (row["item_summary"],)
        assert dataset.catalogue.titles[item] == row["title"]
        assert item in dataset.histories.of(user)
    with pytest.raises(BenchError, match="have another title"):
        import_profiles("profiles/xrec/amazon_tst.jsonl", dataset)
