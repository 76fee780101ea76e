"""Folders of records that hold something else: tables leave them out in one line each, ``share`` refuses them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from recllm_bench import cli


@pytest.fixture(scope="module")
def finished(shop: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One real record."""
    results = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECLLM_CACHE", str(shared_cache))
        patch.setenv("RECLLM_RESULTS", str(results))
        assert cli.main(["run", "pop", str(shop), "--alone"]) == 0
    return next((results / "runs").glob("pop-*"))


def values(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "run.json"
        found = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in found.items() if value is not ...}))

    return damage


def content(data: bytes, name: str = "run.json") -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data)


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def half(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return damage


DAMAGE: dict[str, Callable[[Path], None]] = {
    "run.json empty": content(b""),
    "run.json a list": content(b"[]"),
    "run.json a number": content(b"5"),
    "run.json null": content(b"null"),
    "run.json an empty mapping": content(b"{}"),
    "run.json text": content(b"hello"),
    "run.json HTML": content(b"<html></html>"),
    "run.json not UTF-8": content(b'{"name": "caf\xe9"}'),
    "run.json with NaN": content(b'{"name": NaN}'),
    "run.json nested deep": content(b"[" * 20000 + b"]" * 20000),
    "run.json zeros": content(bytes(512)),
    "run.json half": half("run.json"),
    "users empty": content(b"", "users.parquet"),
    "users zeros": content(bytes(512), "users.parquet"),
    "users half": half("users.parquet"),
    "users gone": without("users.parquet"),
    "metrics edited": values(metrics={"NDCG@10": {"mean": 0.99, "low": 0.98, "high": 1.0, "n": 40}}),
    "metrics a list": values(metrics=[1]),
    "metrics words": values(metrics={"NDCG@10": {"mean": "high"}}),
    "name a number": values(name=5),
    "name gone": values(name=...),
    "recipe a list": values(recipe=[1]),
    "recipe gone": values(recipe=...),
    "protocol words": values(protocol="unified.full"),
    "dataset null": values(dataset=None),
    "stages words": values(stages={"train": "long"}),
    "curves words": values(curves={"train": "up"}),
    "schema of tomorrow": values(schema=99),
    "schema words": values(schema="new"),
    "created a number": values(created=5),
    "users hash of others": values(users_hash="0" * 16),
}


@pytest.mark.parametrize("verb", ["compare", "report"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_bad_record_is_left_out_in_one_line(finished, tmp_path, capsys, kind: str, verb: str) -> None:
    shutil.copytree(finished, tmp_path / "runs" / "good")
    shutil.copytree(finished, tmp_path / "runs" / "bad")
    DAMAGE[kind](tmp_path / "runs" / "bad")
    output = ["--output", str(tmp_path / "page.html")] if verb == "report" else []
    assert cli.main([verb, "--results", str(tmp_path / "runs"), *output]) == 0
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if "left out" in line]
    assert len(lines) == 1 and "bad" in lines[0], printed.err
    assert "Traceback" not in printed.err
    assert "Pop (RecBole)" in (printed.out if verb == "compare" else (tmp_path / "page.html").read_text())


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_bad_record_is_not_shared(refused, finished, tmp_path, kind: str) -> None:
    shutil.copytree(finished, tmp_path / "bad")
    DAMAGE[kind](tmp_path / "bad")
    refused(["share", tmp_path / "bad", "--to", tmp_path / "shared"], "bad")


@pytest.mark.parametrize("kind", list(DAMAGE)[:6])
def test_bad_records_alone_are_refused(refused, finished, tmp_path, kind: str) -> None:
    shutil.copytree(finished, tmp_path / "runs" / "bad")
    DAMAGE[kind](tmp_path / "runs" / "bad")
    refused(["compare", "--results", tmp_path / "runs"], "runs")
