"""Records: round trip, atomic replacement, what they may not tell, and errors."""

from __future__ import annotations

import dataclasses
import getpass
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from planted_records import planted_ranks, planted_split

from recllm_bench.errors import BenchError
from recllm_bench.evaluation.metrics import per_user
from recllm_bench.recipe import recipe_from
from recllm_bench.reporting import records as records_module
from recllm_bench.reporting.machine import machine_facts
from recllm_bench.reporting.records import (
    check_writable,
    find_records,
    read_record,
    write_record,
)
from recllm_bench.reporting.users_file import dialogue_outcomes, user_values, users_hash


def test_round_trip(make):
    record = make("SASRec", 2.0)
    again = read_record(record.folder)
    assert again == record
    assert again.training_seconds == 15.0
    assert again.cases == {"users": 400, "cases": 400, "repeats": 3, "tied_share": 0.0}
    assert set(again.metrics) == {"Recall@5", "Recall@20", "NDCG@5", "NDCG@20"}
    users, values = user_values(again)
    expected = per_user(planted_ranks(2.0), ("Recall", "NDCG"), (5, 20))
    assert users.tolist() == list(range(1, 401))
    for name, column in expected.items():
        np.testing.assert_array_equal(values[name], column)
        facts = again.metrics[name]
        assert facts["mean"] == pytest.approx(column.mean())
        assert facts["low"] < facts["mean"] < facts["high"]
        assert facts["n"] == 400


def test_the_recipe_repeats_the_run(make):
    record = make("SASRec", options={"width": 8})
    values = yaml.safe_load((record.folder / "recipe.yaml").read_text())
    assert recipe_from(values, "recipe").hash() == record.recipe_hash


def test_dialogues_are_kept_beside_the_ranks(make):
    turns = np.array([1, 2, 0, 5, -1] + [3] * 395)
    record = make("LatentCRS", protocol="latentcrs.multi_turn", block="text", turns=turns)
    assert record.dialogue["n"] == 399
    assert (record.dialogue["invalid"], record.dialogue["leaks"]) == (1, 1)
    assert record.dialogue["S@3"]["mean"] == pytest.approx(397 / 399)
    assert record.dialogue["without_leaks"]["S@3"]["mean"] == pytest.approx(396 / 398)
    users, held = dialogue_outcomes(record)
    assert users.tolist() == list(range(1, 401))
    assert held.tolist() == turns.tolist()


def test_dialogues_of_other_users_get_their_own_rows(make, tmp_path: Path):
    record = make("LatentCRS")
    ranks = planted_ranks(1.0)
    outcomes = SimpleNamespace(users=np.array([900, 3]), turns=np.array([2, 0]))
    record.users_hash = users_hash(ranks, outcomes)
    write_record(tmp_path / "runs" / "other", record, ranks, outcomes)
    users, turns = dialogue_outcomes(record)
    assert dict(zip(users.tolist(), turns.tolist(), strict=True)) == {3: 0, 900: 2}
    assert len(user_values(record)[0]) == 400


def test_rankings_at_different_moments_survive_the_file(make, tmp_path: Path):
    record = make("SASRec")
    ranks = planted_ranks(1.0)
    rolling = dataclasses.replace(ranks, users=(ranks.users + 1) // 2, lengths=ranks.users % 2 + 1)
    record.users_hash = users_hash(rolling, None)
    write_record(tmp_path / "runs" / "rolling", record, rolling)
    users, values = user_values(record)
    expected = per_user(rolling, ("NDCG",), (20,))["NDCG@20"]
    assert len(users) == 200
    np.testing.assert_array_equal(values["NDCG@20"], expected)
    assert not np.allclose(expected, per_user(dataclasses.replace(rolling, lengths=None), ("NDCG",), (20,))["NDCG@20"])


def test_a_record_is_replaced_whole(make, monkeypatch: pytest.MonkeyPatch):
    first = make("SASRec", 2.0)
    before = first.folder.stat().st_ino

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(records_module, "write_users", full)
        with pytest.raises(BenchError, match="No space left"):
            write_record(first.folder, first, planted_ranks(1.0))
    assert read_record(first.folder) == first
    second = make("SASRec", 3.0)
    assert second.folder == first.folder
    assert read_record(first.folder).metrics == second.metrics != first.metrics
    assert first.folder.stat().st_ino != before
    assert os.listdir(first.folder.parent) == [first.folder.name]  # nothing temporary is left


def test_the_log_moves_into_the_record(make, tmp_path: Path):
    record = make("SASRec")
    log = tmp_path / "runs" / ".x.log.jsonl"
    log.write_text('{"message": "hello"}\n')
    write_record(record.folder, record, planted_ranks(1.0), log=log)
    assert "hello" in (record.folder / "log.jsonl").read_text()
    assert not log.exists()


def test_find_records(make, tmp_path: Path):
    a, b = make("A"), make("B")
    (tmp_path / "runs" / ".unfinished").mkdir()
    (tmp_path / "runs" / ".unfinished" / "run.json").write_text("{}")
    assert set(find_records(tmp_path)) == {a.folder, b.folder}
    assert find_records(tmp_path / "nothing") == []


def test_damaged_records(make, tmp_path: Path):
    record = make("A")
    path = record.folder / "run.json"
    values = json.loads(path.read_text())
    with pytest.raises(BenchError, match="no run record"):
        read_record(tmp_path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(BenchError, match="damaged"):
        read_record(record.folder)
    path.write_text(json.dumps({**values, "schema": 99}))
    with pytest.raises(BenchError, match="newer"):
        read_record(record.folder)
    with_more = {key: value for key, value in values.items() if key != "seal"}
    path.write_text(json.dumps({**with_more, "unknown": 1}))
    (record.folder / "users.parquet").write_bytes(b"PAR1")
    with pytest.raises(BenchError, match=r"users\.parquet"):
        user_values(read_record(record.folder))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path: Path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(BenchError, match="RECLLM_RESULTS"):
        check_writable(tmp_path / "locked" / "runs")


def test_a_file_in_the_way_is_one_line(tmp_path: Path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(BenchError, match="RECLLM_RESULTS"):
        check_writable(tmp_path / "results" / "runs")


def test_popularity_counts_training_only():
    split = planted_split(4)  # rows [1 + u % 50, 1 + u % 7, 50]: the last item is the target
    from recllm_bench.evaluation.own_metrics import training_popularity

    counts = training_popularity(split)
    assert counts[50] == 0
    assert counts.sum() == 8
    assert counts[1] == 2


def test_machine_facts_name_no_person_and_no_place():
    facts = machine_facts("cpu")
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["hardware"]["cores"] >= 1
    assert facts["hardware"]["device"] == "cpu"
    text = json.dumps(facts)
    for secret in (platform.node(), os.getcwd(), str(Path.home())):
        assert len(secret) < 2 or secret not in text
    assert f'"{getpass.getuser()}"' not in text


def test_reading_is_light(make):
    record = make("A")
    code = (
        "import sys; from recllm_bench.reporting.records import read_record; from pathlib import Path; "
        f"read_record(Path({str(record.folder)!r})); "
        "print([m for m in ('torch', 'numpy', 'pyarrow', 'pandas', 'recbole') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
