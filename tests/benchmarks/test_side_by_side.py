"""The runner of the benchmarks: fresh processes, turns, medians, ratios, slopes; and each script at a tiny size."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import side_by_side  # noqa: E402
from side_by_side import Comparison, Runner, Side, Target  # noqa: E402

from recllm_bench.errors import BenchError  # noqa: E402

SCRIPT = """
import os, sys, time
import side_by_side
order = sys.argv[0] + ".order"

def work(name, mebibytes, seconds):
    with open(order, "a") as file:
        file.write(name + " ")
    held = bytearray(mebibytes << 20)
    held[::4096] = b"1" * len(held[::4096])
    return {"seconds": seconds, "pid": os.getpid(), "threads": side_by_side.threads(), "scaled": ["seconds"]}

def broken():
    raise RuntimeError("broken on purpose")

parser = side_by_side.parser("")
sys.exit(side_by_side.main(parser.parse_args(), __file__, {"work": work, "broken": broken}, None, {}))
"""


@pytest.fixture
def runner(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    return Runner(str(script), repeat=3, threads=1)


def side(name, mebibytes=1, seconds=1.0, scale=1.0):
    return Side(name, "work", {"name": name, "mebibytes": mebibytes, "seconds": seconds}, scale=scale)


def test_sides_take_turns_in_fresh_processes_with_memory_of_their_own(runner):
    found = runner.compare("holding memory", [side("ours", 10), side("peer", 300, seconds=5.0, scale=2.0)])
    order = Path(runner.script + ".order").read_text().split()
    assert order == ["ours", "peer", "peer", "ours", "ours", "peer"]
    runs = [run for each in found.runs.values() for run in each]
    assert len({run["pid"] for run in runs} | {os.getpid()}) == 7
    assert {run["threads"] for run in runs} == {1}
    # The parent of this test may be large: it must not show up in a child's peak.
    assert found.medians["ours"]["peak_gib"] < 0.15
    assert 0.25 < found.medians["peer"]["peak_gib"] - found.medians["ours"]["peak_gib"] < 0.35
    assert found.medians["peer"]["seconds"] == 10.0
    assert any("1/2" in note for note in found.notes)


def test_a_failing_side_is_an_error_not_a_number(runner, capfd):
    with pytest.raises(BenchError, match="failed with exit code 1"):
        runner.once(Side("peer", "broken"))
    assert "broken on purpose" in capfd.readouterr().err


def test_slope_is_the_exponent_of_a_power_law():
    sizes = [10, 20, 40, 80]
    assert side_by_side.slope(sizes, [3e-4 * size**1.7 for size in sizes]) == pytest.approx(1.7)
    assert side_by_side.slope([1, 2], [5.0, 5.0]) == pytest.approx(0.0)
    for bad in (([1], [1.0]), ([1, 1], [1.0, 2.0]), ([1, 2], [0.0, 1.0]), ([1, 2, 3], [1.0, 2.0])):
        with pytest.raises(ValueError, match="slope"):
            side_by_side.slope(*bad)


def comparison(ours, theirs):
    runs = {"ours": [{"seconds": value} for value in ours], "peer": [{"seconds": value} for value in theirs]}
    medians = {name: side_by_side.medians_of(each) for name, each in runs.items()}
    return Comparison("work", ["ours", "peer"], runs, medians)


def test_targets_are_ratios_of_medians():
    found = comparison([1.0, 2.0, 100.0], [9.0, 10.0, 1.0]).judge(Target("seconds", 4.0), Target("seconds", 5.0))
    assert [(judged["value"], judged["met"]) for judged in found.judged] == [(4.5, True), (4.5, False)]
    lines = side_by_side.table(found, {"seconds": "s"})
    assert "4.50x" in lines and "NOT met" in lines
    quality = comparison([0.10], [0.11]).judge(Target("seconds", -0.002, "quality")).judged[0]
    assert quality["value"] == pytest.approx(-0.01)
    assert not quality["met"]
    assert comparison([math.inf], [1.0]).judge(Target("seconds", 1.0)).judged[0]["met"] is False


def test_time_to_quality_is_measured_at_the_peers_best():
    import training

    trace = [[1.0, 0.05], [2.0, 0.10], [3.0, 0.09], [4.0, 0.12]]
    assert training.seconds_to(trace, 0.10) == 2.0
    assert training.seconds_to(trace, 0.11) == 4.0
    assert training.seconds_to(trace, 0.13) == math.inf
    runs = {
        "ours": [{"trace": trace, "quality": 0.12}],
        "RecBole": [{"trace": [[10.0, 0.08], [50.0, 0.10], [60.0, 0.07]], "quality": 0.10}],
    }
    found = training.to_quality(Comparison("", ["ours", "RecBole"], runs, {}))
    assert found.medians["ours"]["to_quality"] == 2.0
    assert found.medians["RecBole"]["to_quality"] == 50.0


TINY = {
    "training": ["--datasets", "ml-100k", "--users", "30", "--peer-steps", "1"],
    "evaluation": ["--users", "600", "--items", "500", "--peer-users", "300"],
    "em": ["--dataset", "ml-100k", "--users", "60", "--intents", "16", "--batch-size", "64", "--peer-steps", "2"],
    "embedding": ["--texts", "40", "--longest", "40"],
    "generation": ["--model", "llama2-stories260k", "--prompts", "8", "--tokens", "12", "--batch", "4"],
    "loading": ["--interactions", "20000", "--peer-interactions", "10000"],
    "startup": [],
}


TINY["training to quality"] = ["--datasets", "ml-100k", "--users", "10", "--to-quality", "--epochs", "2"]
_OTHERS = sorted(set(TINY) - {"evaluation"})


@pytest.mark.parametrize("script", ["evaluation", *(pytest.param(name, marks=pytest.mark.slow) for name in _OTHERS)])
def test_each_script_measures_both_sides_and_they_agree(script, tmp_path):
    name, found = script.split()[0], tmp_path / "found.json"
    words = [*TINY[script], "--repeat", "1", "--threads", "1", "--json", str(found)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr  # a script stops where its sides differ
    record = json.loads(found.read_text())
    assert record["benchmark"] == name
    assert record["machine"]["versions"]["python"]
    for compared in record["comparisons"]:
        assert len(compared["sides"]) == 2
        assert compared["title"] in done.stdout
        for side_name in compared["sides"]:
            assert compared["medians"][side_name]["seconds"] > 0
            assert compared["medians"][side_name]["peak_gib"] > 0
    assert any(compared["judged"] for compared in record["comparisons"])
    if script == "evaluation":
        ours, theirs = (record["comparisons"][0]["medians"][name]["ndcg"] for name in ("ours", "RecBole"))
        assert ours == pytest.approx(theirs, abs=1e-5)
        assert 0.02 < ours < 0.98  # neither by chance nor without a mistake


def test_what_a_script_measures_decides_its_exit_code_and_record(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        SCRIPT.replace("None, {})", "measure, {'seconds': 's'}, grow)").replace(
            "parser = side",
            """def measure(given, runner):
    sides = [side_by_side.Side(name, "work", {"name": name, "mebibytes": 1, "seconds": second})
             for name, second in (("ours", 2.0), ("peer", 3.0))]
    return [runner.compare("work", sides).judge(side_by_side.Target("seconds", 2.0))]

def grow(given, runner):
    sides = {size: side_by_side.Side("ours", "work", {"name": "o", "mebibytes": 1, "seconds": size**1.5})
             for size in (2, 8)}
    return [runner.curve("work", "size", sides)]

parser = side""",
            1,
        )
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent)])}
    record = tmp_path / "found.json"
    for words, code in ((["--json", str(record)], 0), (["--assert"], 1), (["--repeat", "0"], 2)):
        done = subprocess.run(
            [sys.executable, str(script), "--repeat", "1", *words],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
        )
        assert done.returncode == code, done.stderr
    judged = json.loads(record.read_text())["comparisons"][0]["judged"][0]
    assert (judged["value"], judged["met"]) == (1.5, False)
    assert "error: --repeat" in done.stderr
    words = [sys.executable, str(script), "--curve", "--json", str(record)]
    assert "log-log slope 1.50" in subprocess.run(words, capture_output=True, text=True, env=environment).stdout
    found = json.loads(record.read_text())
    assert (found["comparisons"], found["curves"][0]["sizes"]) == ([], [2, 8])


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(set(TINY) - {"startup", "training to quality"}))
def test_each_script_measures_how_cost_grows(script, tmp_path):
    found = tmp_path / "found.json"
    words = [*TINY[script], "--curve", "--threads", "1", "--json", str(found)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{script}.py"), *words], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(found.read_text())
    assert record["comparisons"] == []
    assert all(len(set(curve["sizes"])) > 2 and abs(curve["slope"]) < 3 for curve in record["curves"])


@pytest.mark.slow
def test_without_a_cuda_device_scripts_say_so():
    if side_by_side.has_cuda():
        pytest.skip("there is a CUDA device")
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "evaluation.py"), "--device", "cuda"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    assert "no CUDA device" in done.stdout
