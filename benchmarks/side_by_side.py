"""The same work done by us and by a peer, in turns, each time in a fresh process; and how to read what came out.

A benchmark names *actions*: functions with JSON-able arguments that return a dictionary with ``seconds`` and whatever
else they found. :class:`Runner` runs an action in a child of its own, so that its peak memory is its own, and lets the
sides take turns, so that a machine that slows down slows all. This module and the parent process import nothing heavy:
a child must not inherit a large resident size, and a peer's environment has only the peer.

benchmarks/README.md says what the benchmarks measure.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recllm_bench.errors import BenchError

ROOT = Path(__file__).resolve().parent.parent
OURS = "ours"
Action = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Side:
    """Who does the work, and how it is started.

    Attributes
    ----------
    name : str
        As the table shows it; the first side of a comparison is ours.
    action : str
        Name of the action.
    arguments : mapping
        Passed to it, JSON-able.
    script : str
        File that holds the action; empty for the benchmark's own.
    python : str
        Interpreter; empty for this one.
    scale : float
        By how much ``scaled`` measures must be multiplied to stand for the whole work: 1 when all of it was done.
    """

    name: str
    action: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    script: str = ""
    python: str = ""
    scale: float = 1.0


@dataclass(frozen=True)
class Target:
    """What is claimed of our side.

    Attributes
    ----------
    measure : str
        Key of the runs.
    least : float
        Smallest ratio that meets the claim. For a cost (``lower`` is better) the ratio is theirs / ours; for a quality
        ``kind="quality"`` it is the smallest difference ours - theirs, such as -0.002.
    kind : str
        ``cost`` or ``quality``.
    """

    measure: str
    least: float
    kind: str = "cost"

    def judge(self, ours: float, theirs: float) -> tuple[float, bool]:
        """The ratio (or difference), and whether it is enough."""
        value = ours - theirs if self.kind == "quality" else theirs / ours if ours else math.inf
        return value, value >= self.least


@dataclass
class Comparison:
    """All runs of one piece of work.

    Attributes
    ----------
    title : str
        What was done.
    sides : list of str
        Names, ours first.
    runs : dict of str to list
        What each side's actions returned.
    medians : dict of str to dict
        Medians of every number of the runs.
    judged : list of dict
        Each target with its value and whether it is met.
    notes : list of str
        What a reader must know: what was scaled, what differs.
    """

    title: str
    sides: list[str]
    runs: dict[str, list[dict[str, Any]]]
    medians: dict[str, dict[str, float]]
    judged: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def judge(self, *targets: Target) -> Comparison:
        """Hold our medians against each other side's."""
        for target in targets:
            ours = self.medians[self.sides[0]].get(target.measure)
            for peer in self.sides[1:]:
                theirs = self.medians[peer].get(target.measure)
                if ours is None or theirs is None:
                    continue
                value, met = target.judge(ours, theirs)
                self.judged.append({**asdict(target), "peer": peer, "value": value, "met": met})
        return self


@dataclass
class Curve:
    """Seconds over sizes; ``slope`` is the exponent of the power law that fits them best."""

    title: str
    over: str
    sizes: list[float]
    seconds: list[float]
    slope: float


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Exponent ``b`` of ``seconds = a * sizes ** b`` by least squares in the logarithms.

    Raises
    ------
    ValueError
        With fewer than two sizes, equal sizes, or a number that is not above 0.
    """
    if len(sizes) != len(seconds) or len(set(sizes)) < 2 or min(*sizes, *seconds) <= 0:
        raise ValueError("a slope needs two or more different sizes above 0, and as many seconds above 0")
    x, y = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    middle, level = statistics.fmean(x), statistics.fmean(y)
    return sum((a - middle) * (b - level) for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


# children ----------------------------------------------------------------------------------------------------------


def resident() -> float:
    """GiB this process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def peak() -> float:
    """Most GiB this process has held since it started its program.

    ``getrusage`` would also count what the parent held when it forked.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    return math.nan


def cuda_peak() -> float:
    """Most GiB of CUDA memory that tensors of this process have taken; 0 without CUDA."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0.0
    return torch.cuda.max_memory_allocated() / 2**30


def threads() -> int:
    """Threads this child may compute with, as its parent says."""
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


def wait_for(device: Any) -> None:
    """Wait until a CUDA device has done what it was given."""
    if str(device).startswith("cuda"):
        sys.modules["torch"].cuda.synchronize()


def run_action(actions: Mapping[str, Action], name: str, arguments: Mapping[str, Any], answer: Path) -> None:
    """In the child: run an action and write what it found, with the memory it took."""
    found = actions[name](**arguments)
    found.setdefault("before_gib", 0.0)
    found["peak_gib"] = peak()
    found["added_gib"] = found["peak_gib"] - found["before_gib"]
    if cuda_peak():
        found["cuda_gib"] = cuda_peak()
        found["gpu"] = sys.modules["torch"].cuda.get_device_name()
    answer.write_text(json.dumps(found), encoding="utf-8")


class Runner:
    """Starts the children of a benchmark.

    Parameters
    ----------
    script : str
        The benchmark's file.
    repeat : int
        Turns of each side.
    threads : int
        Threads a child may compute with.
    environment : mapping, optional
        Further environment variables of all children.
    """

    def __init__(self, script: str, repeat: int, threads: int, environment: Mapping[str, str] | None = None) -> None:
        self.script, self.repeat, self.threads = script, repeat, threads
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
        self.environment = {
            **os.environ,
            **{name: str(threads) for name in names},
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")]),
            "PYTHONWARNINGS": "ignore",
            "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
            **(environment or {}),
        }

    def once(self, side: Side, label: str = "", limit: float = 0.0) -> dict[str, Any]:
        """Run a side once in a fresh process; one that is not done after ``limit`` seconds is ended.

        Returns
        -------
        dict
            What the action returned, with ``peak_gib``, ``added_gib``, ``cpu_seconds``, ``process_seconds``; infinite
            ``seconds`` where it was ended.

        Raises
        ------
        BenchError
            When the process fails; its own message stands above.
        """
        if label:
            print(f"{label}{side.name} ... ", end="", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="recllm_bench_") as folder:
            answer = Path(folder) / "answer.json"
            words = ["--action", json.dumps([side.action, dict(side.arguments)]), "--answer", str(answer)]
            command = [side.python or sys.executable, side.script or self.script, *words]
            start = time.perf_counter()
            process = subprocess.Popen(command, env=self.environment)
            ended = threading.Timer(limit, process.kill)
            if limit:
                ended.start()
            try:
                _, status, usage = os.wait4(process.pid, 0)  # usage of this child alone
            except BaseException:
                process.kill()
                process.wait()
                raise
            finally:
                ended.cancel()
            process.returncode = os.waitstatus_to_exitcode(status)
            over = process.returncode == -signal.SIGKILL and 0 < limit <= time.perf_counter() - start
            if over:
                answer.write_text(json.dumps({"seconds": math.inf}), encoding="utf-8")
            elif process.returncode:
                raise BenchError(f"{side.name}: '{side.action}' failed with exit code {process.returncode}")
            found = json.loads(answer.read_text(encoding="utf-8"))
        found["process_seconds"] = time.perf_counter() - start
        found["cpu_seconds"] = usage.ru_utime + usage.ru_stime
        for name in found.get("scaled", ()):
            found[name] *= side.scale
        if label:
            print(f"{found.get('seconds', found['process_seconds']):.3g} s", file=sys.stderr)
        return found

    def compare(self, title: str, sides: Sequence[Side], repeat: int = 0) -> Comparison:
        """Let the sides take turns; each second turn in the other direction.

        Parameters
        ----------
        title : str
            What is done.
        sides : sequence of Side
            Ours first.
        repeat : int
            Turns, when it is not the benchmark's own number.
        """
        repeat = repeat or self.repeat
        runs: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
        for turn in range(repeat):
            for side in sides if turn % 2 == 0 else reversed(sides):
                runs[side.name].append(self.once(side, f"{title} [{turn + 1}/{repeat}] "))
        notes = [
            f"{side.name}: 1/{side.scale:.4g} of the work was timed and multiplied; the cost is linear in it"
            for side in sides
            if side.scale != 1
        ]
        medians = {name: medians_of(each) for name, each in runs.items()}
        return Comparison(title, [side.name for side in sides], runs, medians, notes=notes)

    def curve(self, title: str, over: str, sides: Mapping[int, Side]) -> Curve:
        """Seconds of the side of each size, the least of two processes: what disturbs a machine only adds."""
        seconds = []
        for size, side in sides.items():
            label = f"{title}, {size:,} {over} "
            seconds.append(min(self.once(side, label)["seconds"] for _ in range(2)))
        return Curve(title, over, list(sides), seconds, slope(list(sides), seconds))


def medians_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Median of every number that all runs have."""
    names = [name for name, value in runs[0].items() if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return {name: statistics.median(run[name] for run in runs) for name in names if all(name in run for run in runs)}


# what is shown -----------------------------------------------------------------------------------------------------


def table(comparison: Comparison, columns: Mapping[str, str]) -> str:
    """A comparison for people.

    Parameters
    ----------
    comparison : Comparison
    columns : mapping of str to str
        Measure to heading; a measure that no side has is left out.
    """
    shown = {
        name: heading
        for name, heading in columns.items()
        if any(name in comparison.medians[side] for side in comparison.sides)
    }
    lines = ["", comparison.title, f"  {'':<26}" + "".join(f"{heading:>17}" for heading in shown.values())]
    for side in comparison.sides:
        values = comparison.medians[side]
        cells = (f"{values[name]:.4g}" if name in values else "-" for name in shown)
        lines.append(f"  {side:<26}" + "".join(f"{cell:>17}" for cell in cells))
    for judged in comparison.judged:
        kind, verdict = judged["kind"], "met" if judged["met"] else "NOT met"
        value = {"quality": f"{judged['value']:+.4f}", "cost": f"{judged['value']:.2f}x"}.get(
            kind, f"{judged['value']:.3g}"
        )
        bound = "at most" if kind == "limit" else "at least"
        heading = columns.get(judged["measure"], judged["measure"])
        lines.append(f"  {heading} against {judged['peer']}: {value}, wanted {bound} {judged['least']:g}: {verdict}")
    lines += [f"  {note}" for note in comparison.notes]
    return "\n".join(lines)


def curve_lines(curve: Curve) -> str:
    """A cost curve for people."""
    points = ", ".join(f"{size:g}: {second:.3g} s" for size, second in zip(curve.sizes, curve.seconds, strict=True))
    return f"  {curve.title} over {curve.over}: {points}; log-log slope {curve.slope:.2f}"


# the command -------------------------------------------------------------------------------------------------------


def parser(about: str) -> argparse.ArgumentParser:
    """The arguments that every benchmark has."""
    found = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--repeat", type=int, default=3, help="turns of each side; medians are shown (default: 3)")
    found.add_argument("--threads", type=int, default=0, help="threads of each side (default: all cores)")
    found.add_argument("--device", default="cpu", help="cpu or cuda")
    found.add_argument("--curve", action="store_true", help="measure how cost grows instead: log-log slopes")
    found.add_argument("--json", type=Path, help="write everything measured to this file")
    found.add_argument("--assert", dest="demand", action="store_true", help="exit with 1 when a target is missed")
    found.add_argument("--action", help=argparse.SUPPRESS)
    found.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    return found


def main(
    given: argparse.Namespace,
    script: str,
    actions: Mapping[str, Action],
    measure: Callable[[argparse.Namespace, Runner], list[Comparison]],
    columns: Mapping[str, str],
    grow: Callable[[argparse.Namespace, Runner], list[Curve]] | None = None,
) -> int:
    """Be the child that was asked for, or measure (with ``--curve``: ``grow``), show and store.

    Returns
    -------
    int
        0; 1 when ``--assert`` is given and a target was missed; 2 after a mistake.
    """
    # As after Ctrl-C: the child is ended and temporary folders are removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    try:
        if given.action:
            name, arguments = json.loads(given.action)
            run_action(actions, name, arguments, given.answer)
            return 0
        if given.repeat < 1 or given.threads < 0:
            raise BenchError("--repeat must be at least 1, --threads not below 0")
        if given.device != "cpu" and not has_cuda():
            print("no CUDA device here: nothing was measured; run this on a machine that has one")
            return 0
        cores = given.threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
        runner = Runner(script, given.repeat, cores)
        if given.curve and grow is None:
            raise BenchError("this benchmark has no sizes to grow")
        comparisons = [] if given.curve else measure(given, runner)
        curves = grow(given, runner) if given.curve else []
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for comparison in comparisons:
        print(table(comparison, columns))
    for curve in curves:
        print(curve_lines(curve))
    missed = [judged for comparison in comparisons for judged in comparison.judged if not judged["met"]]
    if comparisons:
        print("\ntargets met" if not missed else f"\n{len(missed)} targets not met")
    if given.json:
        from recllm_bench.reporting.machine import machine_facts

        asked = {
            name: value for name, value in vars(given).items() if name not in ("action", "answer", "json", "demand")
        }
        record = {
            "benchmark": Path(script).stem,
            "machine": {**machine_facts(given.device), "threads": cores},
            "arguments": {name: value.name if isinstance(value, Path) else value for name, value in asked.items()},
            "comparisons": [asdict(comparison) for comparison in comparisons],
            "curves": [asdict(curve) for curve in curves],
            "met": not missed,
        }
        given.json.write_text(json.dumps(_finite(record), indent=1) + "\n", encoding="utf-8")
    return int(given.demand and bool(missed))


def _finite(value: Any) -> Any:
    """The same with null for what is infinite or no number: JSON has neither."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def has_cuda() -> bool:
    """Whether torch sees a CUDA device; asked in a child, because the parent loads nothing heavy."""
    words = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", words], check=False).returncode == 0
