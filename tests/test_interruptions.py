"""Runs that are killed, run beside their equals, run out of disk, or may not write: the real command, in processes.

A resumed run equals an undisturbed one in all that is recorded, times apart.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from recllm_bench.artifacts import ArtifactStore
from recllm_bench.reporting.verification import verify_record
from tests.conftest import planted_catalogue, planted_histories

SHARED = ["training.max_length=10", "training.batch_size=32"]
LLM = "llm=llama2-stories260k"
METHODS: dict[str, list[str]] = {
    "sasrec": ["training.epochs=12", "training.patience=0", "training.batch_size=8"],
    "GRU4Rec": ["training.epochs=4"],
    "BPR": ["training.epochs=6"],
    "iclrec": ["training.epochs=4", "intents=8"],
    "text-retrieval": [],
    "latentcrs": [
        "training.epochs=3",
        "intents=8",
        "backbone_options={intents: 8}",
        "backbone_training={epochs: 3}",
        "warmup_epochs=2",
        "conversation.users=20",
    ],
    "relrec": ["training.epochs=3", "p=16", LLM],
    "llama2-seq": ["training.epochs=3", "p=16", LLM],
    "cesrec": [
        "backend_training={epochs: 3, batch_size: 32, max_length: 12}",
        "adapter_hidden=16",
        "adapter_epochs=3",
        "prompt_items=5",
        "examples=20",
        "lora_rank=2",
        "tune_epochs=2",
        "tune_batch=8",
        "tune_tokens=400",
        "latency_users=2",
        LLM,
    ],
}
TIMES = ("created", "seal", "costs", "stages", "evaluation_seconds", "answer_seconds", "hardware", "revision")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's CSV of planted histories, with its catalogue beside it."""
    folder = tmp_path_factory.mktemp("shop")
    histories, catalogue = planted_histories(120, 160, 12), planted_catalogue(160)
    lines = ["user,item,timestamp"]
    for user in range(1, histories.n_users + 1):
        lines += [f"u{user},m{item},{100 + place}" for place, item in enumerate(histories.of(user))]
    (folder / "shop.csv").write_text("\n".join(lines) + "\n")
    rows = ["item,title,year,categories"]
    for item in range(1, 161):
        rows.append(f"m{item},{catalogue.titles[item]},{catalogue.years[item]},{'|'.join(catalogue.categories[item])}")
    (folder / "shop.items.csv").write_text("\n".join(rows) + "\n")
    return folder / "shop.csv"


class Bench:
    """The command ``run MODEL shop.csv --alone`` with a cache and results of its own."""

    def __init__(self, root: Path, shop: Path, model: str) -> None:
        self.root = root
        self.command = [sys.executable, "-m", "recllm_bench.cli", "run", model, str(shop), "--alone"]
        self.command += ["--set", *SHARED, *METHODS[model]]
        self.environment = {**os.environ, "RECLLM_CACHE": str(root), "RECLLM_RESULTS": str(root / "results")}
        self.environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}

    def start(self, before: Sequence[str] = (), **how: Any) -> subprocess.Popen:
        return subprocess.Popen(
            [*before, *self.command],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **how,
        )

    def finish(self, **how: Any) -> dict[str, Any]:
        """Run to the end; what is recorded, times apart."""
        process = self.start(**how)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return self.recorded()

    def refused(self, **how: Any) -> str:
        """The one line a run that cannot go on ends in."""
        process = self.start(**how)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 2, said
        assert "Traceback" not in said
        (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
        return line

    def recorded(self) -> dict[str, Any]:
        (path,) = self.root.glob("results/runs/*/run.json")
        verify_record(path.parent)
        values = json.loads(path.read_text())
        kept = {name: value for name, value in values.items() if name not in TIMES}
        kept["stages"] = sorted(values["stages"])
        kept["parameters"] = values["costs"]["parameters"]
        kept["measures"] = [each for each in values["measures"] if "second" not in each["name"]]
        kept["files"] = {
            file.name: file.read_bytes() for file in path.parent.iterdir() if file.name not in ("run.json", "log.jsonl")
        }
        return kept

    def killed(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Kill the run after some seconds; whether it was still running."""
        process = self.start()
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline and not until():
            time.sleep(0.02)
        running = process.poll() is None
        process.kill()
        process.communicate()
        return running

    def leaves_nothing_behind(self) -> None:
        left = [*self.root.rglob("*.partial"), *self.root.rglob(".*.tmp"), *self.root.rglob("*.damaged-*")]
        assert not left
        assert not list(ArtifactStore(self.root / "artifacts").examine())


@pytest.fixture(scope="module")
def calm(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[dict[str, Any], float]]:
    """``calm(model)``: what an undisturbed run records, and the seconds it took."""
    known: dict[str, tuple[dict[str, Any], float]] = {}

    def of(model: str) -> tuple[dict[str, Any], float]:
        if model not in known:
            bench, start = Bench(tmp_path_factory.mktemp("calm"), shop, model), time.monotonic()
            known[model] = bench.finish(), time.monotonic() - start
            bench.leaves_nothing_behind()
        return known[model]

    return of


def check_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == expected[name], name


def test_a_run_killed_while_it_trains_ends_like_an_undisturbed_one(shop, tmp_path, calm) -> None:
    expected, _ = calm("sasrec")
    bench = Bench(tmp_path, shop, "sasrec")
    assert bench.killed(60, until=lambda: bool(list(tmp_path.rglob("last.before.pt"))))
    (checkpoint,) = tmp_path.rglob("last.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])  # and its newest checkpoint is damaged
    check_equal(bench.finish(), expected)
    for path in tmp_path.rglob("last.pt.damaged-1"):
        path.unlink()
    bench.leaves_nothing_behind()


def test_a_limit_on_file_sizes_is_one_line_and_loses_nothing(shop, tmp_path, calm) -> None:
    expected, _ = calm("sasrec")
    bench = Bench(tmp_path, shop, "sasrec")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))

    said = bench.refused(preexec_fn=limit)
    assert "cannot write" in said and "last.pt" in said and "File too large" in said
    check_equal(bench.finish(), expected)
    bench.leaves_nothing_behind()


@pytest.mark.slow
@pytest.mark.parametrize("model", METHODS)
def test_kills_at_random_moments(request, shop, tmp_path, calm, model: str) -> None:
    if LLM in METHODS[model]:
        request.getfixturevalue("models_folder")
    expected, seconds = calm(model)
    draw, kills = random.Random(model), 0
    bench = Bench(tmp_path / "bench", shop, model)
    for _ in range(12):
        if bench.killed(draw.uniform(0.2, 0.9) * seconds):
            kills += 1
        else:  # it had gone too far before
            shutil.rmtree(bench.root)
        if kills == 4:
            break
    assert kills == 4
    check_equal(bench.finish(), expected)
    bench.leaves_nothing_behind()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["sasrec", "latentcrs"])
def test_two_equal_runs_at_once(shop, tmp_path, calm, model: str) -> None:
    bench = Bench(tmp_path, shop, model)
    processes = [bench.start() for _ in range(2)]
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    check_equal(bench.recorded(), calm(model)[0])
    bench.leaves_nothing_behind()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["model.safetensors", "items.npy", "catalogue.arrow", "facts.json", "artifact.json"])
def test_a_damaged_cache_is_mended_by_the_same_command(shop, tmp_path, calm, damage: str) -> None:
    expected, _ = calm("sasrec")
    bench = Bench(tmp_path, shop, "sasrec")
    bench.finish()
    paths = list((tmp_path / "artifacts").rglob(damage))
    assert paths
    for path in paths:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    shutil.rmtree(tmp_path / "results")
    process = bench.start()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert said.count(f"its {damage}") == len(paths)
    check_equal(bench.recorded(), expected)


def mounted(options: str, folder: Path) -> list[str]:
    """What to put before a command so that it sees a folder mounted in another way; skips where that is not allowed."""
    before = ["unshare", "--mount", "sh", "-c", f'{options} && exec "$@"', "sh"]
    tried = subprocess.run([*before, "true"], capture_output=True) if shutil.which("unshare") else None
    if tried is None or tried.returncode:
        pytest.skip("this user may not mount anything")
    return before


@pytest.mark.slow
def test_a_full_disk_is_one_line(shop, tmp_path) -> None:
    before = mounted(f"mount -t tmpfs -o size=300k none {tmp_path}", tmp_path)
    said = Bench(tmp_path, shop, "sasrec").refused(before=before)
    assert "No space left on device" in said and str(tmp_path) in said


@pytest.mark.slow
def test_a_cache_that_may_not_be_written(shop, tmp_path, calm) -> None:
    """What is finished is used; what is not is refused in one line."""
    cache, results = tmp_path / "cache", tmp_path / "results"
    bench = Bench(cache, shop, "sasrec")
    bench.environment["RECLLM_RESULTS"] = str(results)
    process = bench.start()
    assert process.wait(300) == 0
    before = mounted(f"mount --bind {cache} {cache} && mount -o remount,ro,bind {cache}", cache)
    shutil.rmtree(results)
    process = bench.start(before)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    (path,) = results.glob("runs/*/run.json")
    assert json.loads(path.read_text())["metrics"] == calm("sasrec")[0]["metrics"]
    shutil.rmtree(results)
    (weights,) = cache.rglob("model.safetensors")
    weights.write_bytes(bytes(weights.stat().st_size))
    said = bench.refused(before=before)
    assert "its model.safetensors has another content" in said and "may not be written; set RECLLM_CACHE" in said
    bench.command += ["training.epochs=2"]
    said = bench.refused(before=before)
    assert "Read-only file system" in said and "RECLLM_CACHE" in said
