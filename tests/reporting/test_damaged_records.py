"""Bad record folders: one line each, left out of tables, never a traceback and never a table without its marks."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recllm_bench import cli
from recllm_bench.errors import BenchError
from recllm_bench.reporting.records import RunRecord, find_records, read_record
from recllm_bench.reporting.sharing import share_record
from recllm_bench.reporting.users_file import user_values
from recllm_bench.reporting.verification import is_finished, verify_record, whole_records


def in_json(change: Callable[[dict], object], sealed: bool = False) -> Callable[[Path], None]:
    """Change ``run.json``; as an earlier version wrote it (without a seal), unless ``sealed``."""

    def damage(folder: Path) -> None:
        path = folder / "run.json"
        values = json.loads(path.read_text())
        if not sealed:
            values.pop("seal", None)
        change(values)
        path.write_text(json.dumps(values))

    return damage


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content)


def cut(name: str, share: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return damage


def gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def a_folder(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


def in_users(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        pq.write_table(change(pq.read_table(folder / "users.parquet")), folder / "users.parquet")

    return damage


def column(name: str, values: Callable[[pa.Table], pa.Array]) -> Callable[[Path], None]:
    return in_users(lambda table: table.set_column(table.column_names.index(name), name, values(table)))


def metric(**facts: object) -> Callable[[Path], None]:
    return in_json(lambda values: values["metrics"]["NDCG@20"].update(facts))


DAMAGE: dict[str, Callable[[Path], None]] = {
    "run.json empty": written("run.json", b""),
    "run.json of zeros": written("run.json", bytes(1000)),
    "run.json cut": cut("run.json", 0.5),
    "run.json cut at its end": cut("run.json", 0.999),
    "run.json not UTF-8": written("run.json", b'{"name": "\xff\xfe"}'),
    "run.json in UTF-16": written("run.json", '{"name": "x"}'.encode("utf-16")),
    "run.json deep": written("run.json", b'{"name":' + b"[" * 100_000),
    "run.json a list": written("run.json", b"[]"),
    "run.json a word": written("run.json", b'"run"'),
    "run.json null": written("run.json", b"null"),
    "run.json a number of 5000 digits": written("run.json", b'{"schema": ' + b"9" * 5000 + b"}"),
    "run.json empty mapping": written("run.json", b"{}"),
    "run.json a folder": a_folder("run.json"),
    "edited metric, sealed": in_json(lambda values: values["metrics"]["NDCG@20"].update(mean=0.99), sealed=True),
    "edited note, sealed": in_json(lambda values: values["notes"].append("by hand"), sealed=True),
    "edited users_hash, sealed": in_json(lambda values: values.update(users_hash="0" * 16), sealed=True),
    "wrong seal": in_json(lambda values: values.update(seal="0" * 16), sealed=True),
    "seal no text": in_json(lambda values: values.update(seal=[1]), sealed=True),
    "edited metric": metric(mean=0.99),
    "edited number of users": metric(n=399),
    "metric a text": metric(mean="0.5"),
    "metric null": metric(mean=None),
    "metric NaN": metric(mean=float("nan")),
    "metric a truth value": metric(mean=True),
    "interval absent": in_json(lambda values: values["metrics"]["NDCG@20"].pop("low")),
    "metrics a list": in_json(lambda values: values.update(metrics=[1])),
    "metric a list": in_json(lambda values: values["metrics"].update({"NDCG@20": [1]})),
    "name a number": in_json(lambda values: values.update(name=5)),
    "name null": in_json(lambda values: values.update(name=None)),
    "name absent": in_json(lambda values: values.pop("name")),
    "recipe a text": in_json(lambda values: values.update(recipe="x")),
    "recipe without dataset": in_json(lambda values: values["recipe"].pop("dataset")),
    "recipe's protocol a list": in_json(lambda values: values["recipe"].update(protocol=[1])),
    "dataset without name": in_json(lambda values: values["dataset"].pop("name")),
    "protocol null": in_json(lambda values: values.update(protocol=None)),
    "notes a text": in_json(lambda values: values.update(notes="x")),
    "notes of numbers": in_json(lambda values: values.update(notes=[1])),
    "stages of texts": in_json(lambda values: values.update(stages={"train": "long"})),
    "cases of lists": in_json(lambda values: values.update(cases={"users": [1]})),
    "cases infinite": in_json(lambda values: values["cases"].update(users=float("inf"))),
    "other number of cases": in_json(lambda values: values["cases"].update(cases=399)),
    "curves flat": in_json(lambda values: values.update(curves={"train": [1, 2]})),
    "created a number": in_json(lambda values: values.update(created=5)),
    "substitutes of lists": in_json(lambda values: values.update(substitutes={"simulator": [1]})),
    "depends a list": in_json(lambda values: values.update(depends=[1])),
    "dialogue a number": in_json(lambda values: values.update(dialogue={"S@3": 1, "n": 3})),
    "leaks a list": in_json(lambda values: values.update(dialogue={"leaks": [1]})),
    "evaluation_seconds a text": in_json(lambda values: values.update(evaluation_seconds="x")),
    "users_hash of another run": in_json(lambda values: values.update(users_hash="0123456789abcdef")),
    "schema 99": in_json(lambda values: values.update(schema=99)),
    "schema a text": in_json(lambda values: values.update(schema="1")),
    "nested too deep": in_json(lambda values: values["recipe"].update(options=json.loads("[" * 500 + "]" * 500))),
    "users.parquet missing": gone("users.parquet"),
    "users.parquet empty": written("users.parquet", b""),
    "users.parquet four bytes": written("users.parquet", b"PAR1"),
    "users.parquet cut": cut("users.parquet", 0.5),
    "users.parquet cut at its end": cut("users.parquet", 0.99),
    "users.parquet random": written("users.parquet", os.urandom(4000)),
    "users.parquet a folder": a_folder("users.parquet"),
    "half of the users": in_users(lambda table: table.slice(0, len(table) // 2)),
    "no rows": in_users(lambda table: table.slice(0, 0)),
    "rows twice": in_users(lambda table: pa.concat_tables([table, table])),
    "without a column": in_users(lambda table: table.drop_columns(["higher"])),
    "without users": in_users(lambda table: table.drop_columns(["user"])),
    "texts for numbers": column("higher", lambda table: pa.array([f"x{row}" for row in range(len(table))])),
    "fractions": column("higher", lambda table: pa.array([row + 0.5 for row in range(len(table))])),
    "other places": column("higher", lambda table: pa.array([0] * len(table))),
    "other users": column("user", lambda table: pa.array(range(1000, 1000 + len(table)))),
    "other targets": column("target", lambda table: pa.array([7] * len(table))),
    "ties of nobody": column("tied", lambda table: pa.array([0] * len(table))),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_bad_record_is_one_line_and_the_others_are_shown(make, tmp_path, capsys, case: str) -> None:
    bad = make("Damaged", 1.0)
    make("SASRec", 2.0)
    make("GRU4Rec", 1.5)
    folder = bad.folder
    DAMAGE[case](folder)

    def run(*arguments: object) -> tuple[int, str, list[str]]:
        code = cli.main([*map(str, arguments), "--results", str(tmp_path / "runs")])
        said = capsys.readouterr()
        return code, said.out, said.err.splitlines()

    for _ in range(2):  # also when the whole ones are remembered
        code, table, warnings = run("compare", "ml1m")
        assert code == 0
        assert "SASRec" in table and "GRU4Rec" in table and "Damaged" not in table
        assert "minus the others" in table or "SASRec minus" in table or "better" in table
        assert len(warnings) == 1 and len(warnings[0]) < 400
        assert warnings[0].startswith("warning: left out: ") and folder.name in warnings[0]
    code, _, warnings = run("report", "--output", tmp_path / "report.html")
    assert code == 0 and len(warnings) == 1
    assert "Damaged" not in (tmp_path / "report.html").read_text()
    assert not is_finished(folder)  # 'run' makes it again
    with pytest.raises(BenchError) as caught:
        verify_record(folder)
    assert "\n" not in str(caught.value)
    assert cli.main(["verify", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr()
    assert said.out.count("whole  ") == 2 and said.out.count("bad    ") == 1
    assert "1 of 3 records are not whole" in said.err


def test_what_is_no_damage(make, tmp_path) -> None:
    record = make("SASRec", 2.0)
    (record.folder / "log.jsonl").unlink(missing_ok=True)
    (record.folder / "notes.txt").write_text("mine")
    assert is_finished(record.folder)
    in_json(lambda values: values.update(something_new=1))(record.folder)  # an earlier version wrote it
    assert is_finished(record.folder)
    assert read_record(record.folder).metrics == record.metrics


def test_dialogues_are_compared_too(make) -> None:
    import numpy as np

    record = make("LatentCRS", protocol="latentcrs.multi_turn", block="text", turns=np.array([1, 2, 0, 5] * 100))
    assert any("S@3" in line and "AT" in line for line in verify_record(record.folder))
    in_json(lambda values: values["dialogue"]["S@3"].update(mean=0.9))(record.folder)
    with pytest.raises(BenchError, match=r"S@3 = 0\.9 .*users\.parquet gives 0\.5"):
        verify_record(record.folder)
    in_json(lambda values: values["dialogue"]["S@3"].update(mean=0.5))(record.folder)
    assert verify_record(record.folder)
    in_json(lambda values: values["dialogue"].update(n=3))(record.folder)
    with pytest.raises(BenchError, match="speaks of 3 dialogues"):
        verify_record(record.folder)


def test_values_of_another_run_are_never_read(make) -> None:
    one, two = make("SASRec", 2.0), make("GRU4Rec", 1.5)
    shutil.copy(one.folder / "users.parquet", two.folder / "users.parquet")
    with pytest.raises(BenchError, match=r"users\.parquet holds other values"):
        user_values(two)


def test_only_what_changed_is_checked_again(make, tmp_path, monkeypatch) -> None:
    from recllm_bench.reporting import verification

    make("SASRec", 2.0)
    make("GRU4Rec", 1.5)
    checked: list[str] = []
    real = verification.verify_record
    monkeypatch.setattr(verification, "verify_record", lambda folder: checked.append(folder.name) or real(folder))
    folders = find_records(tmp_path / "runs")
    assert len(whole_records(folders)) == 2 and len(checked) == 2
    assert len(whole_records(folders)) == 2 and len(checked) == 2
    os.utime(folders[0] / "users.parquet")
    assert len(whole_records(folders)) == 2 and checked[2:] == [folders[0].name]
    for memory in (b"", b"[]", b"{", b'{"SASRec-0": 5}'):
        (tmp_path / "runs" / ".checked.json").write_bytes(memory)
        assert len(whole_records(folders)) == 2
    assert len(checked) == 11


def test_no_whole_record_is_one_line(make, tmp_path, capsys) -> None:
    record = make("SASRec")
    (record.folder / "users.parquet").unlink()
    assert cli.main(["compare", "--results", str(tmp_path / "runs")]) == 2
    assert "error: none of the 1 run records" in capsys.readouterr().err


def test_a_shared_record_is_checked_by_its_numbers(make, tmp_path) -> None:
    record = make("SASRec", 2.0)
    copy = share_record(record.folder, tmp_path / "shared")
    assert any("no target ids" in line for line in verify_record(copy))
    column("higher", lambda table: pa.array([0] * len(table)))(copy)
    with pytest.raises(BenchError, match=r"users\.parquet gives 1 "):
        verify_record(copy)
    (record.folder / "users.parquet").unlink()
    with pytest.raises(BenchError, match=r"users\.parquet is missing"):
        share_record(record.folder, tmp_path / "shared")


def test_every_field_has_a_type_that_is_checked() -> None:
    """A field with an annotation that the reader does not know would be read unchecked."""
    import typing

    from recllm_bench.reporting.record_values import _misfit

    unchecked = [
        name
        for name, hint in typing.get_type_hints(RunRecord).items()
        if name not in ("folder", "members") and not _misfit(object(), hint, name)
    ]
    assert unchecked == []
