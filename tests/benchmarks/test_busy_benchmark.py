"""The benchmark of busy machines: its own busy process, its limits, its sentence; and what the command settles."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from recllm_bench.cli.waiting import OWN, SPINS, waiting

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import busy  # noqa: E402
from side_by_side import Comparison, Runner, Side  # noqa: E402

AFTER = (
    "import os\nfrom recllm_bench.cli import main\nmain(['list', 'protocols'])\n"
    "import torch\ntorch.ones(9).sum()\nprint('policy', os.environ.get('OMP_WAIT_POLICY'))"
)


def after_a_command(**variables: str) -> subprocess.CompletedProcess:
    bare = {name: value for name, value in os.environ.items() if name not in OWN}
    environment = {**bare, "OMP_DISPLAY_ENV": "verbose", **variables}
    command = [sys.executable, "-c", AFTER]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)


def test_the_command_settles_how_threads_wait_before_torch_is_loaded():
    done = after_a_command()
    assert "policy passive" in done.stdout
    if "libgomp" in Path("/proc/self/maps").read_text() and torch.backends.openmp.is_available():
        # what the runtime itself says it has read
        assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr and f"GOMP_SPINCOUNT = '{SPINS}'" in done.stderr


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "77")])
def test_what_the_user_has_set_stays(name: str, value: str):
    assert waiting({name: value}) == {}
    done = after_a_command(**{name: value})
    assert f"policy {'active' if name == 'OMP_WAIT_POLICY' else None}" in done.stdout


def test_the_busy_process_is_busy_and_ends():
    with busy.busy_process(60) as number:
        stat = Path(f"/proc/{number}/stat")
        start = time.monotonic()
        while not _ticks(stat) and time.monotonic() - start < 30:
            time.sleep(0.05)
        assert _ticks(stat) > 0
    assert not stat.exists()
    parent = (
        "import busy, sys\nwith busy.busy_process(60) as number:\n    print(number, flush=True)\n    sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], env={**os.environ, "PYTHONPATH": f"{BENCHMARKS}:{BENCHMARKS.parent}"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        stat, start = Path(f"/proc/{int(process.stdout.readline())}/stat"), time.monotonic()
        process.kill()
    while stat.exists() and _state(stat) != "Z" and time.monotonic() - start < 30:
        time.sleep(0.05)
    assert not stat.exists() or _state(stat) == "Z"
    with busy.busy_process(1) as number:  # it does not outlive its time where nobody ends it
        stat, start = Path(f"/proc/{number}/stat"), time.monotonic()
        while _state(stat) != "Z" and time.monotonic() - start < 60:
            time.sleep(0.1)
        assert _state(stat) == "Z"


def _state(stat: Path) -> str:
    return stat.read_text().split(")")[1].split()[0]


def _ticks(stat: Path) -> int:
    return int(stat.read_text().split(")")[1].split()[11])


def test_a_row_that_is_not_done_in_time_is_given_up(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import time; time.sleep(60)")
    found = Runner(str(script), 1, 1).once(Side("slow", "x"), limit=0.3)
    assert math.isinf(found["seconds"]) and found["process_seconds"] < 30


def test_ratios_are_judged_by_their_limits():
    seconds = {busy.SETTLED: 1.0, busy.SETTLED + busy.BUSY: 2.3, busy.DEFAULT: 0.98, busy.DEFAULT + busy.BUSY: math.inf}
    medians = {name: {"seconds": value} for name, value in seconds.items()}
    found = busy.judge(Comparison("title", list(medians), {}, medians))
    assert [(round(each["value"], 2), each["met"]) for each in found.judged] == [(2.3, False), (1.02, True)]
    assert "inf times" in found.notes[0]
