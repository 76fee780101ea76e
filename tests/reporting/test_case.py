"""``recllm-bench show``: one user of a run, for any model."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from recllm_bench import cli
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.places import UNRANKED, Ranks
from recllm_bench.reporting.case import write_cases
from recllm_bench.reporting.records import find_records

KINDS = {"b": "Drama", "c": "Comedy", "d": "Western", "e": "Drama|Comedy", "f": "Western|Comedy", "g": "Drama|Crime"}
ITEMS = {"b": "Blue Night", "c": "Cold Harbour", "d": "Dust", "e": "Early Train", "f": "Far", "g": "Green"}


@pytest.fixture
def shop(tmp_path):
    """Seven users whose histories are told; 'b' is the most popular item."""
    rows = [f"u{user},{item},{order}" for user in range(7) for order, item in enumerate("bcdef"[: 3 + user % 3] + "g")]
    (tmp_path / "shop.csv").write_text("\n".join(["user,item,timestamp", *rows]) + "\n")
    items = [f"{token},{title},{KINDS[token]}" for token, title in ITEMS.items()]
    (tmp_path / "shop.items.csv").write_text("\n".join(["item_id,title,categories", *items]) + "\n")
    return str(tmp_path / "shop.csv")


def record_of(tmp_path):
    (folder,) = find_records(tmp_path / "results")
    return folder


def test_any_model_has_a_case(shop, tmp_path, capsys):
    assert cli.main(["run", "pop", shop, "--alone"]) == 0
    folder = record_of(tmp_path)
    capsys.readouterr()
    assert cli.main(["show", folder.name[:12], "--user", "2"]) == 0, "the beginning of a name is enough"
    said = capsys.readouterr().out
    assert "user 2 ('u1')" in said and "wanted: Green  [Drama, Crime]" in said
    head = said.index("history of 4")
    places = [said.index(ITEMS[item], head) for item in "bcde"]
    assert places == sorted(places), "oldest first"
    kept = pq.read_table(folder / "cases.parquet").to_pydict()
    users = pq.read_table(folder / "users.parquet").to_pydict()
    row = users["user"].index(2)
    assert f"rank {users['higher'][row] + 1}" in said
    first = said[said.index("ranked first:") :]
    titles = [ITEMS["fg"[0]], ITEMS["g"]]
    assert all(title in first for title in titles), "what is not in the history is left to rank"
    assert kept["user"] == users["user"] and "rounds" not in kept and "said" not in kept


def test_a_reader_of_words_has_what_was_said(shop, tmp_path, capsys):
    assert cli.main(["run", "words-fit", shop, "--alone", "--set", "options.among={pop: {}}"]) == 0
    folder = record_of(tmp_path)
    said = pq.read_table(folder / "cases.parquet").to_pydict()["said"]
    capsys.readouterr()
    assert cli.main(["show", str(folder), "--user", "1"]) == 0
    assert f"the user says: {said[0]}" in capsys.readouterr().out
    assert said[0] and "Green" not in said[0]


def test_an_older_record_says_what_it_lacks(shop, tmp_path, capsys):
    assert cli.main(["run", "pop", shop, "--alone"]) == 0
    folder = record_of(tmp_path)
    (folder / "cases.parquet").unlink()
    capsys.readouterr()
    assert cli.main(["show", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "wanted:" in said and "ranked first:" not in said
    (line,) = [line for line in said.splitlines() if "does not hold what was ranked first" in line]
    command = line[line.index("recllm-bench run") :].partition("'")[0].split()
    assert cli.main(command[1:]) == 0, "what it says mends it"
    capsys.readouterr()
    assert cli.main(["show", str(folder)]) == 0
    assert "ranked first" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-run"], "no run record 'no-such-run'"),
        (["pop", "--user", "99"], "has no case of this user; its 7 users are numbered from 1 to 7"),
        (["pop", "--user", "0"], "has no case of this user"),
    ],
)
def test_mistakes_are_one_line(shop, capsys, arguments, message):
    assert cli.main(["run", "pop", shop, "--alone"]) == 0
    capsys.readouterr()
    assert cli.main(["show", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.count("\n") == 0


def test_a_shared_copy_and_a_damaged_file(shop, tmp_path, capsys):
    assert cli.main(["run", "pop", shop, "--alone"]) == 0
    folder = record_of(tmp_path)
    assert cli.main(["share", str(folder), "--to", str(tmp_path / "shared")]) == 0
    assert not (tmp_path / "shared" / folder.name / "cases.parquet").exists(), "items are the owner's"
    capsys.readouterr()
    assert cli.main(["show", str(tmp_path / "shared" / folder.name)]) == 0
    assert "wanted: not told in a shared copy" in capsys.readouterr().out
    (folder / "cases.parquet").write_bytes(b"no parquet")
    assert cli.main(["show", str(folder)]) == 2
    assert "cases.parquet cannot be read" in capsys.readouterr().err


def planted(n: int = 3) -> Ranks:
    higher = np.array([0, 2, UNRANKED])[:n]
    return Ranks(np.arange(1, n + 1), np.full(n, 4, np.int32), higher, np.full(n, 2), np.full(n, 9))


def test_rounds_come_back_as_they_were_told(tmp_path):
    rounds = [
        [{"history": [1, 2], "higher": 5, "tied": 1}, {"shown": 7, "said": "no", "masked": [1], "history": [2, 3]}],
        [{"history": [4], "higher": 0, "tied": 1}],
        [],
    ]
    write_cases(tmp_path / "c", planted(), ["a", "b", "c"], rounds)
    found = pq.read_table(tmp_path / "c").to_pydict()
    assert found["said"] == ["a", "b", "c"] and "top" not in found
    told = [
        [{name: value for name, value in each.items() if value is not None} for each in case]
        for case in found["rounds"]
    ]
    assert json.loads(json.dumps(told)) == rounds


def test_what_no_reader_knows_is_refused(tmp_path):
    with pytest.raises(
        BenchError, match=r"happened\(\) tells rounds with unknown parts \['show'\]; the parts are shown"
    ):
        write_cases(tmp_path / "c", planted(1), None, [[{"show": 1}]])
    with pytest.raises(BenchError, match=r"happened\(\) tells rounds with 1 cases, not 3"):
        write_cases(tmp_path / "c", planted(), None, [[]])
