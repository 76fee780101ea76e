"""The artifact store: whole or not at all, made once, resumed after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from recllm_bench.artifacts import ArtifactStore, content_hash, file_hash, write_atomic, write_json
from recllm_bench.errors import BenchError

BUILDER = """
import sys, time
from pathlib import Path
from recllm_bench.artifacts import ArtifactStore

root, log = Path(sys.argv[1]), Path(sys.argv[2])

def make(work):
    with open(log, "a") as file:
        file.write("start\\n")
    done = sorted(path.name for path in work.iterdir())
    for step in range(int(sys.argv[3])):
        if f"step{step}" in done:
            continue
        (work / f"step{step}").write_text(str(step))
        with open(log, "a") as file:
            file.write(f"{step}\\n")
        time.sleep(float(sys.argv[4]))

print(ArtifactStore(root).build("planted", {"a": 1}, make))
"""


def start(root: Path, log: Path, steps: int, pause: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(root), str(log), str(steps), str(pause)], stdout=subprocess.PIPE, text=True
    )


def test_made_once_and_named_by_its_key(tmp_path: Path) -> None:
    store, calls = ArtifactStore(tmp_path), []

    def make(work: Path) -> None:
        calls.append(work)
        (work / "x").write_text("1")

    first = store.build("planted", {"a": 1, "b": [2]}, make)
    assert first == store.build("planted", {"b": [2], "a": 1}, make)
    assert first != store.build("planted", {"a": 1, "b": [3]}, make)
    assert len(calls) == 2
    manifest = json.loads((first / "artifact.json").read_text())
    assert manifest["key"] == {"a": 1, "b": [2]}
    assert manifest["seconds"] >= 0
    assert (first / "x").read_text() == "1"
    assert not list(tmp_path.rglob("*.partial"))


def test_a_killed_build_goes_on_with_what_it_left(tmp_path: Path) -> None:
    log = tmp_path / "log"
    victim = start(tmp_path / "store", log, 200, 0.02)
    deadline = time.monotonic() + 30
    while not (log.exists() and len(log.read_text().split()) > 4):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    kept = len(log.read_text().split()) - 1
    assert not list((tmp_path / "store").rglob("artifact.json"))
    second = start(tmp_path / "store", log, 20, 0)
    folder = Path(second.communicate(timeout=60)[0].strip())
    steps = [line for line in log.read_text().split() if line != "start"]
    assert log.read_text().split().count("start") == 2
    assert sorted(map(int, steps)) == list(range(max(20, kept)))  # nothing was made twice
    assert (folder / "artifact.json").exists()
    assert (folder / "step0").read_text() == "0"


def test_two_builders_at_once_make_it_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    builders = [start(tmp_path / "store", log, 5, 0.1) for _ in range(3)]
    folders = {builder.communicate(timeout=60)[0].strip() for builder in builders}
    assert all(builder.returncode == 0 for builder in builders)
    assert len(folders) == 1
    assert log.read_text().split().count("start") == 1


def test_a_failing_build_leaves_no_product(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)

    def fail(work: Path) -> None:
        (work / "half").write_text("")
        raise BenchError("planted")

    with pytest.raises(BenchError, match="planted"):
        store.build("planted", {}, fail)
    assert not store.path("planted", {}).exists()
    seen = []
    store.build("planted", {}, lambda work: seen.extend(path.name for path in work.iterdir()))
    assert seen == ["half"]


def test_an_unwritable_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")  # a file where the store's folder should be: fails for every user, root too
    with pytest.raises(BenchError, match=r"cannot write .*RECLLM_CACHE") as caught:
        ArtifactStore(tmp_path / "file").build("planted", {}, lambda work: None)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    def fill(work: Path) -> None:
        with open("/dev/full", "w") as file:
            file.write("x" * 100_000)

    with pytest.raises(BenchError, match="No space left on device; free space"):
        ArtifactStore(tmp_path).build("planted", {}, fill)


def test_write_atomic_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomic(path, lambda file: file.write(b"old"))

    def fail(file: object) -> None:
        file.write(b"new, but")
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError):
        write_atomic(path, fail)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["file"]


def test_hashes(tmp_path: Path) -> None:
    assert content_hash({"a": 1, "b": (1, 2)}) == content_hash({"b": [1, 2], "a": np.int64(1)})
    assert content_hash({"a": 1}) != content_hash({"a": 2})
    with pytest.raises(TypeError, match="cannot be part of a key"):
        content_hash({"a": object()})
    (tmp_path / "x").write_bytes(b"abc")
    assert file_hash(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    write_json(tmp_path / "y.json", {"path": tmp_path, "set": {2, 1}, "array": np.arange(2)})
    assert json.loads((tmp_path / "y.json").read_text()) == {"path": str(tmp_path), "set": [1, 2], "array": [0, 1]}
