"""``recllm-bench verify``: the cache and run records against what was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from recllm_bench import cli, manifests
from recllm_bench.artifacts import ArtifactStore
from recllm_bench.cli import looking
from recllm_bench.locations import cache_folder


@pytest.fixture
def store() -> ArtifactStore:
    store = ArtifactStore(cache_folder() / "artifacts")
    for number in range(3):
        store.build("planted", {"number": number}, lambda work: (work / "x.bin").write_bytes(bytes(5000)))
    return store


def run(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, list[str], str]:
    code = cli.main(["verify", *arguments])
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err


def flip(path: Path) -> None:
    path.write_bytes(b"\x01" + path.read_bytes()[1:])


def test_a_whole_cache(capsys, store) -> None:
    code, lines, _ = run(capsys, "--cache")
    assert code == 0
    assert lines == [f"3 of 3 products in {store.root} are whole"]


def test_an_empty_cache(capsys) -> None:
    code, lines, _ = run(capsys, "--cache")
    assert code == 0 and lines[0].startswith("0 of 0 products")


def test_each_damaged_product_is_a_line_and_repair_sets_it_aside(capsys, store) -> None:
    first, second, _ = store.products()
    flip(first / "x.bin")
    (second / "artifact.json").unlink()
    code, lines, error = run(capsys, "--cache")
    assert code == 2
    assert lines == [
        f"{first}: its x.bin has another content than was written (its checksum differs)",
        f"{second}: it has no artifact.json",
    ]
    assert "2 of 3 products" in error and "verify --cache --repair" in error
    assert first.exists() and second.exists()

    code, lines, _ = run(capsys, "--cache", "--repair")
    assert code == 0
    assert lines[0].endswith(f"set aside as {first.name}.damaged-1")
    assert lines[-1] == f"1 of 3 products in {store.root} are whole"
    assert not first.exists() and not second.exists()
    code, lines, _ = run(capsys, "--cache")
    assert code == 0
    assert lines[0].startswith("2 set aside in") and lines[-1] == f"1 of 1 products in {store.root} are whole"


def test_unfinished_work_is_no_damage(capsys, store) -> None:
    (store.root / "planted" / "0123456789abcdef.partial").mkdir()
    assert run(capsys, "--cache")[0] == 0


def test_an_error_in_reading_names_the_damaged_product(capsys, store, monkeypatch) -> None:
    """A product that no quick check finds damaged: the command ends in one line, and its repetition works."""
    import json

    monkeypatch.setattr(manifests, "ALWAYS_HASHED", 0)
    folder = store.build("planted", {"text": 1}, lambda work: (work / "facts.json").write_text('{"a": 1}'))
    path = folder / "facts.json"
    at = path.stat()
    path.write_text("{{a: 1}}"[: at.st_size])
    import os

    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
    manifests._found_whole.clear()
    assert store.find("planted", {"text": 1}) == folder

    def reads(_: object) -> None:
        json.loads(path.read_text())

    monkeypatch.setattr(looking, "doctor", reads)
    assert cli.main(["doctor"]) == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 1 and "facts.json" in said and "the same command makes it again" in said
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--repair"], "--repair belongs to --cache"),
        (["--cache", "a-record"], "give one or the other"),
        (["nowhere"], "nowhere holds no run record"),
        ([], "holds no run record"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, said) -> None:
    code, _, error = run(capsys, *arguments)
    assert code == 2
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert said in line
