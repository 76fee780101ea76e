"""Damage to finished products: noticed, set aside, named in one line, made again; never served, never a traceback."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from recllm_bench import artifacts, manifests
from recllm_bench.artifacts import ArtifactStore, set_aside_culprit
from recllm_bench.errors import BenchError

KEY = {"planted": 1}
FILES = ("model.safetensors", "items.npy", "catalogue.arrow", "facts.json", "outcome.json", "deep/part.npy")
MANIFEST = "artifact.json"


def make(work: Path) -> None:
    """The kinds of file that products consist of."""
    save_file({"w": torch.arange(4000.0)}, work / "model.safetensors")
    np.save(work / "items.npy", np.arange(5000))
    table = pa.table({"titles": [f"title {row}" for row in range(500)]})
    with pa.OSFile(str(work / "catalogue.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    (work / "facts.json").write_text(json.dumps({"n_items": 500, "checksum": "abc"}))
    (work / "outcome.json").write_text(json.dumps({"seconds": 1.0, "history": []}))
    (work / "deep").mkdir(exist_ok=True)
    np.save(work / "deep" / "part.npy", np.arange(10))


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def random_bytes(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def flipped(path: Path) -> None:
    """One bit, with the old time of writing."""
    times, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def other_json(path: Path) -> None:
    path.write_text("{}")


DAMAGE = (half, zeros, random_bytes, flipped, longer, empty, a_folder, a_dangling_link, Path.unlink)
CASES = [(name, damage) for name in FILES for damage in DAMAGE]
CASES += [(MANIFEST, damage) for damage in DAMAGE if damage is not longer]  # a space after JSON is no damage
CASES += [(name, other_json) for name in ("facts.json", "outcome.json", MANIFEST)]


def content(folder: Path) -> dict[str, bytes]:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return {name: (folder / name).read_bytes() for name in names if name != MANIFEST}


def in_a_new_process() -> None:
    """What a process has checked it does not hash again while nothing changes; another one begins without that."""
    manifests._found_whole.clear()
    artifacts._used.clear()


def check_mended(root: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture) -> None:
    calls: list[Path] = []

    def counted(work: Path) -> None:
        calls.append(work)
        make(work)

    store = ArtifactStore(root)
    folder = store.build("planted", KEY, counted)
    before = content(folder)
    damage(folder)
    in_a_new_process()
    assert store.find("planted", KEY) is None
    assert store.build("planted", KEY, counted) == folder
    assert len(calls) == 2
    assert content(folder) == before
    assert not [path for path in root.rglob("*") if path.suffix in (".partial", ".tmp")]
    (aside,) = folder.parent.glob("*.damaged-*")
    lines = [record.getMessage() for record in caplog.records if "cannot be used" in record.getMessage()]
    assert len(lines) == 1 and "\n" not in lines[0]
    assert folder.name in lines[0] and str(aside) in lines[0]
    in_a_new_process()
    assert store.build("planted", KEY, counted) == folder
    assert len(calls) == 2


@pytest.mark.parametrize(("name", "damage"), CASES, ids=[f"{name}-{damage.__name__}" for name, damage in CASES])
def test_a_damaged_file_is_made_again(tmp_path, caplog, name: str, damage: Callable[[Path], None]) -> None:
    check_mended(tmp_path, lambda folder: damage(folder / name), caplog)


MANIFEST_CASES = {
    "a list": lambda text: "[]",
    "a word": lambda text: '"artifact"',
    "nothing": lambda text: "null",
    "deep": lambda text: "[" * 100_000,
    "no UTF-8": lambda text: b"\xff\xfe\x00",
    "version 1": lambda text: json.dumps({"kind": "planted", "key": KEY, "seconds": 1.0}),
    "version 3": lambda text: json.dumps({**json.loads(text), "version": 3}),
    "another key": lambda text: json.dumps({**json.loads(text), "key": {"planted": 2}}),
    "no files": lambda text: json.dumps({**json.loads(text), "files": {}}),
    "other seconds": lambda text: text.replace('"seconds"', '"second"'),
}


@pytest.mark.parametrize("case", MANIFEST_CASES)
def test_a_manifest_that_is_none(tmp_path, caplog, case: str) -> None:
    def damage(folder: Path) -> None:
        written = MANIFEST_CASES[case]((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_bytes(written if isinstance(written, bytes) else written.encode())

    check_mended(tmp_path, damage, caplog)


def test_another_product_under_the_name(tmp_path, caplog) -> None:
    """A folder that was copied to the wrong place is whole in itself."""

    def damage(folder: Path) -> None:
        other = ArtifactStore(tmp_path).build("planted", {"planted": 2}, lambda work: (work / "x").write_text("other"))
        shutil.rmtree(folder)
        shutil.copytree(other, folder)

    check_mended(tmp_path, damage, caplog)


def test_files_beside_the_products_do_no_harm(tmp_path) -> None:
    store = ArtifactStore(tmp_path)
    folder = store.build("planted", KEY, make)
    (folder / "notes.txt").write_text("mine")
    in_a_new_process()
    assert store.build("planted", KEY, lambda work: pytest.fail("made again")) == folder


def test_damage_within_a_process_is_noticed_too(tmp_path) -> None:
    store = ArtifactStore(tmp_path)
    folder = store.build("planted", KEY, make)
    assert store.find("planted", KEY) == folder
    half(folder / "items.npy")
    assert store.find("planted", KEY) is None


def test_large_files_are_hashed_when_they_were_touched(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(manifests, "ALWAYS_HASHED", 10_000)  # facts and outcome, not the arrays
    store = ArtifactStore(tmp_path)
    folder = store.build("planted", KEY, make)
    hashed: list[str] = []
    real = manifests.file_hash
    monkeypatch.setattr(manifests, "file_hash", lambda path, *more: hashed.append(path.name) or real(path, *more))
    in_a_new_process()
    assert store.find("planted", KEY)
    assert "items.npy" not in hashed and {"facts.json", "outcome.json"} <= set(hashed)

    os.utime(folder / "items.npy")  # as a copy of the cache has it: hashed once, then its time is known
    hashed.clear()
    in_a_new_process()
    assert store.find("planted", KEY)
    assert "items.npy" in hashed
    hashed.clear()
    in_a_new_process()
    assert store.find("planted", KEY)
    assert "items.npy" not in hashed

    flipped(folder / "items.npy")  # size and time are kept: only the whole check sees it
    in_a_new_process()
    assert store.find("planted", KEY)
    (finding,) = store.examine()
    assert finding.folder == folder and "items.npy" in finding.reason and finding.moved_to is None
    (finding,) = store.examine(repair=True)
    assert finding.moved_to is not None and finding.moved_to.exists() and not folder.exists()
    assert list(store.examine()) == []


def test_an_error_in_reading_leads_to_the_damaged_product(tmp_path, monkeypatch) -> None:
    """Damage that no quick check sees ends in an error of a library: then the cause is looked for."""
    monkeypatch.setattr(manifests, "ALWAYS_HASHED", 0)
    store = ArtifactStore(tmp_path)
    folder = store.build("planted", KEY, make)
    path = folder / "model.safetensors"
    times = path.stat()
    zeros(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    in_a_new_process()
    assert store.build("planted", KEY, make) == folder
    with pytest.raises(BenchError, match=r"model\.safetensors.*same command makes it again") as caught:
        store.build("next", KEY, lambda work: load_file(path))
    assert "\n" not in str(caught.value)
    assert not folder.exists()
    store.build("planted", KEY, make)
    store.build("next", KEY, lambda work: load_file(path))
    assert set_aside_culprit(KeyError("a mistake in the code")) == ""


@pytest.mark.parametrize("damage", [half, zeros, random_bytes, empty])
@pytest.mark.parametrize("name", FILES[:5])
def test_what_an_earlier_attempt_left_is_set_aside_when_it_cannot_be_read(tmp_path, caplog, name, damage) -> None:
    store = ArtifactStore(tmp_path)
    read: dict[str, Callable[[Path], object]] = {
        "model.safetensors": load_file,
        "items.npy": lambda path: np.load(path, mmap_mode="r"),
        "catalogue.arrow": lambda path: pa.ipc.open_file(path).read_all(),
    }

    def resumable(work: Path) -> None:
        path = work / name
        if path.exists():
            read.get(name, lambda path: json.loads(path.read_text()))(path)
        make(work)
        if not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.build("planted", KEY, resumable)
    (partial,) = tmp_path.rglob("*.partial")
    damage(partial / name)
    folder = store.build("planted", KEY, resumable)
    assert (folder / MANIFEST).exists()
    assert len(list(folder.parent.glob("*.partial.damaged-*"))) == 1
    (line,) = [record.getMessage() for record in caplog.records if "earlier attempt" in record.getMessage()]
    assert str(partial) in line and "beginning anew" in line


def test_a_mistake_in_the_code_keeps_what_an_earlier_attempt_left(tmp_path) -> None:
    store = ArtifactStore(tmp_path)

    def fails(work: Path) -> None:
        (work / "epoch-5").touch()
        raise RuntimeError("CUDA out of memory")

    for _ in range(2):
        with pytest.raises(RuntimeError):
            store.build("planted", KEY, fails)
    assert [path.name for path in tmp_path.rglob("epoch-5")] == ["epoch-5"]
    assert not list(tmp_path.rglob("*.damaged-*"))


def test_temporary_files_of_a_killed_writer_are_no_part_of_the_product(tmp_path) -> None:
    store = ArtifactStore(tmp_path)
    work = store.path("planted", KEY).with_suffix(".partial")
    work.mkdir(parents=True)
    (work / ".last.pt.123.tmp").write_bytes(bytes(100))
    folder = store.build("planted", KEY, make)
    assert not (folder / ".last.pt.123.tmp").exists()
    assert set(manifests.read_manifest(folder)["files"]) == set(FILES)


def test_a_damaged_product_in_a_folder_that_may_not_be_written(tmp_path, monkeypatch) -> None:
    store = ArtifactStore(tmp_path)
    folder = store.build("planted", KEY, make)
    half(folder / "items.npy")

    def refused(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refused)
        with pytest.raises(BenchError, match=r"items\.npy.*Read-only file system.*RECLLM_CACHE") as caught:
            store.build("planted", KEY, make)
    assert "\n" not in str(caught.value)
