"""``recllm-bench verify``: the cache and run records against what was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recllm_bench import cli, manifests
from recllm_bench.artifacts import ArtifactStore
from recllm_bench.cli import looking
from recllm_bench.locations import cache_folder, results_folder
from recllm_bench.reporting.record import RunRecord
from recllm_bench.reporting.repetition import agreement


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


SMALL = ["training.epochs=2", "training.max_length=10", "training.batch_size=64"]


@pytest.fixture
def records(own_data, capsys) -> list[Path]:
    """A run that was trained, and one with words and dialogues."""
    assert cli.main(["run", "sasrec", str(own_data), "--alone", "--set", *SMALL, "hidden_size=16"]) == 0
    words = ["conversation.users=20", "conversation.simulator=rules:2"]
    assert cli.main(["run", "text-retrieval", str(own_data), "--alone", "--set", *words]) == 0
    capsys.readouterr()
    return sorted((results_folder() / "runs").glob("*/"))


def test_a_repeated_run_agrees_to_the_bit(capsys, records, monkeypatch) -> None:
    trained = []
    monkeypatch.setattr("recllm_bench.training.stages._make", _noting(trained))
    code, lines, _ = run(capsys, *map(str, records))
    assert code == 0
    assert [line for line in lines if line.startswith("agrees")] == [
        f"agrees  {folder}: to the bit, on the same stack" for folder in records
    ]
    assert "train" in trained, "the stages were made again, not found in the cache"
    assert sorted((results_folder() / "runs").glob("*/")) == records, "nothing is left in the results"
    trained.clear()
    code, lines, _ = run(capsys, "--files", *map(str, records))
    assert code == 0 and not trained and not any(line.startswith("agrees") for line in lines)
    code, lines, _ = run(capsys)
    assert code == 0 and not trained, "folders of records are checked alone"


def test_a_run_that_gives_other_numbers_does_not_agree(capsys, records, monkeypatch) -> None:
    from recllm_bench.reporting import record_values

    folder = next(record for record in records if record.name.startswith("sasrec"))
    path = folder / "run.json"
    values = {key: value for key, value in json.loads(path.read_text()).items() if key != record_values.SEAL}
    path.write_text(json.dumps(record_values.sealed({**values, "recipe": {**values["recipe"], "seed": 43}})))
    _, lines, _ = run(capsys, str(folder))
    assert not any("to the bit" in line for line in lines)
    assert any(line.startswith(("differs", "agrees ")) and "on another stack" in line for line in lines)
    assert any("targets have another rank" in line for line in lines)
    assert "stack: recipe.seed: 42 -> 43" in "\n".join(lines)


def test_what_does_not_agree_is_told_by_metric() -> None:
    def record(mean: float, users: str) -> RunRecord:
        facts = {"mean": mean, "low": 0.1, "high": 0.3, "n": 10}
        return RunRecord("x", "history", {}, {}, {}, metrics={"NDCG@10": facts}, users_hash=users)

    assert agreement(record(0.2, "a"), record(0.2, "a")) == (True, True, [])
    exact, close, lines = agreement(record(0.2, "a"), record(0.25, "b"))
    assert (exact, close) == (False, True) and lines[0] == "NDCG@10: 0.2 then, 0.25 now"
    assert agreement(record(0.2, "a"), record(0.4, "b"))[:2] == (False, False)
    assert not agreement(record(0.2, "a"), record(0.2, "b"))[0], "the same mean of other values"


def test_a_record_that_cannot_be_repeated_says_why(capsys, records, own_data) -> None:
    own_data.unlink()
    code, lines, error = run(capsys, *map(str, records))
    assert code == 2 and error.count("\n") == 1
    assert "2 of 2 records were not repeated" in error
    assert sum(line.startswith("failed") and "shop.csv" in line for line in lines) == 2


def _noting(trained: list[str]):
    def make(stage, done, work) -> None:
        trained.append(stage.name)
        stage.make(work, done)

    return make
