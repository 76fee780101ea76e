"""Measure how fast and in how much memory raw reviews become a prepared dataset, beside RecBole's own loading.

    python benchmarks/prepare.py                                        a million reviews
    python benchmarks/prepare.py --lines 20000000 --words 250 --repeat 1 --folder FOLDER --assert

benchmarks/README.md says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import raw_reviews

from recllm_bench.errors import BenchError

CORE = 5
FILTER = f"users_min={CORE},items_min={CORE}"
"""The filter measured; RecBole's intervals below ask for the same, and both repeat it until nothing changes."""
LEAST_SPEED = 150_000
"""Review lines per second below which ``--assert`` fails."""
MOST_MEMORY = 4.0
"""GiB of peak memory above which ``--assert`` fails."""
_INTER = Path("atomic", "raw", "raw.inter")
_OURS, _TEXT, _OTHER, _AGAIN = "prepare", "text of the reviews", "another filter", "open again"
_RECBOLE = "RecBole load"


# what runs in processes of its own ---------------------------------------------------------------------------------


def _prepare(dataset: str, filter: str) -> dict[str, Any]:
    # The libraries that a preparation would load by and by, so that its seconds do not count them.
    from recllm_bench.data.prepare import prepare
    from recllm_bench.progress import show_log

    show_log()
    before, start = _resident(), time.perf_counter()
    prepared = prepare(dataset, filter)
    seconds = time.perf_counter() - start
    histories = prepared.histories
    found = {"interactions": len(histories.items), "users": histories.n_users, "items": histories.n_items}
    return {"seconds": seconds, "before": before, "found": found}


def _text(dataset: str, filter: str) -> dict[str, Any]:
    from recllm_bench.data.prepare import prepare
    from recllm_bench.progress import show_log

    show_log()
    prepared = prepare(dataset, filter)
    before, start = _resident(), time.perf_counter()
    reviews = prepared.reviews()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "before": before, "found": {"reviews": 0 if reviews is None else len(reviews)}}


def _recbole(folder: str) -> dict[str, Any]:
    from recllm_bench.recbole_bridge.configuration import model_config
    from recllm_bench.recbole_bridge.shims import quietly

    interval = f"[{CORE},inf)"
    settings = {
        "data_path": folder,
        "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
        "user_inter_num_interval": interval,
        "item_inter_num_interval": interval,
    }
    config = model_config("SASRec", {}, seed=1, device="cpu", max_length=50, name="raw", extra=settings)
    from recbole.data import create_dataset

    before, start = _resident(), time.perf_counter()
    with quietly():
        dataset = create_dataset(config)
    seconds = time.perf_counter() - start
    # RecBole counts its padding entry as a user and as an item.
    found = {"interactions": dataset.inter_num, "users": dataset.user_num - 1, "items": dataset.item_num - 1}
    return {"seconds": seconds, "before": before, "found": found}


def _generate(folder: str, inter: bool, **arguments: Any) -> dict[str, Any]:
    from recllm_bench.progress import show_log

    show_log()
    facts = raw_reviews.generate(Path(folder), **arguments)
    if inter:
        raw_reviews.write_inter(Path(folder) / _INTER, facts["form"], facts["lines"], facts["seed"])
    return facts


_ACTIONS = {"prepare": _prepare, "text": _text, "recbole": _recbole, "generate": _generate}


def _resident() -> float:
    """GiB this process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def in_process(action: str, environment: dict[str, str], **arguments: Any) -> dict[str, Any]:
    """Run an action in a fresh process, so that its peak memory is its own.

    Returns
    -------
    dict
        What the action returns, and of the whole process ``process_seconds``, ``cpu_seconds`` and ``peak_gib``.

    Raises
    ------
    BenchError
        When the process fails; its own message stands above.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, __file__, "--action", json.dumps([action, arguments]), "--answer", str(answer)]
        start = time.perf_counter()
        process = subprocess.Popen(command, env={**os.environ, **environment})
        try:
            # Of this process alone; RUSAGE_CHILDREN would be the largest of all there have been.
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise BenchError(f"the process for '{action}' failed with exit code {process.returncode}")
        result = json.loads(answer.read_text(encoding="utf-8"))
    return {
        **result,
        "process_seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_gib": usage.ru_maxrss / 2**20,
    }


# the measurement ---------------------------------------------------------------------------------------------------


def raw_files(folder: Path, lines: int, given: argparse.Namespace, inter: bool) -> tuple[Path, dict[str, Any]]:
    """Make the raw files, or find those of an earlier run in ``folder``.

    Returns
    -------
    place : Path
        The folder to use as a mirror.
    summary : dict
        What is in the files; see :func:`raw_reviews.generate`.
    """
    wanted = raw_reviews.arguments(given.form, lines, given.words, given.category, given.seed, given.level, True)
    place = folder / "-".join(str(wanted[name]) for name in ("form", "lines", "words", "category", "seed", "level"))
    summary = place / raw_reviews.SUMMARY
    if summary.exists() and (not inter or (place / _INTER).exists()):
        found = json.loads(summary.read_text(encoding="utf-8"))
        if {name: found.get(name) for name in wanted} == wanted:
            return place, found
    wanted.pop("version")
    shutil.rmtree(place, ignore_errors=True)
    facts = in_process("generate", {}, folder=str(place), inter=inter, **wanted)
    speed = lines / facts["seconds"]
    print(f"made {place.name}: {_size(facts)} in {facts['seconds']:.0f} s ({speed:,.0f} lines/s)", file=sys.stderr)
    os.sync()  # or the first measurement would share the disk with what the system still has to write
    return place, json.loads(summary.read_text(encoding="utf-8"))


def measure(place: Path, summary: dict[str, Any], cache: Path) -> dict[str, dict[str, Any]]:
    """Prepare with an empty cache, read the text, prepare under another filter, open again; check what came out.

    Raises
    ------
    BenchError
        When the prepared data is not what was generated.
    """
    environment = {"RECLLM_CACHE": str(cache), "RECLLM_DATA_MIRROR": str(place)}
    shutil.rmtree(cache, ignore_errors=True)
    try:
        name = summary["dataset"]
        runs = {
            _OURS: in_process("prepare", environment, dataset=name, filter=FILTER),
            _TEXT: in_process("text", environment, dataset=name, filter=FILTER),
            _OTHER: in_process("prepare", environment, dataset=name, filter="all"),
            _AGAIN: in_process("prepare", environment, dataset=name, filter=FILTER),
        }
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    truth = {"interactions": summary["reviews"], "users": summary["users"], "items": summary["items"]}
    if runs[_OTHER]["found"] != truth:
        raise BenchError(f"{name}: prepared {runs[_OTHER]['found']}, generated {truth}")
    if runs[_TEXT]["found"]["reviews"] != runs[_OURS]["found"]["interactions"]:
        raise BenchError(f"{name}: text of {runs[_TEXT]['found']['reviews']:,} reviews, not of every interaction")
    if runs[_AGAIN]["found"] != runs[_OURS]["found"]:
        raise BenchError(f"{name}: opened again it is {runs[_AGAIN]['found']}, before it was {runs[_OURS]['found']}")
    return runs


def run(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All measurements: the full size, and for the comparison the peer's size.

    Raises
    ------
    BenchError
        When ours and RecBole's results differ.
    """
    peer_lines = min(given.peer_lines, given.lines)
    whole = peer_lines == given.lines
    place, summary = raw_files(folder, given.lines, given, inter=whole)
    small, small_summary = (place, summary) if whole or not peer_lines else raw_files(folder, peer_lines, given, True)
    full: list[dict[str, Any]] = []
    peer: list[dict[str, Any]] = []
    for _ in range(given.repeat):
        # Turn by turn, so that a machine that slows down slows both.
        full.append(measure(place, summary, folder / "cache"))
        if peer_lines:
            ours = full[-1] if whole else measure(small, small_summary, folder / "cache")
            theirs = in_process("recbole", {"RECLLM_CACHE": str(folder / "cache")}, folder=str(small / "atomic"))
            if theirs["found"] != ours[_OURS]["found"]:
                raise BenchError(f"after the same filter RecBole has {theirs['found']}, we {ours[_OURS]['found']}")
            peer.append({_OURS: ours[_OURS], _RECBOLE: theirs})
    result: dict[str, Any] = {"raw": summary, "repeat": given.repeat, "filter": FILTER, "runs": full}
    result["median"] = _medians(full, given.lines)
    if peer:
        medians = _medians(peer, peer_lines)
        ours, theirs = medians[_OURS], medians[_RECBOLE]
        result["peer"] = {
            "lines": peer_lines,
            "runs": peer,
            "median": medians,
            "ratio": {
                "speed": ours["lines_per_second"] / theirs["lines_per_second"],
                "memory": ours["peak_gib"] / theirs["peak_gib"],
            },
        }
    return result


def _medians(runs: Sequence[dict[str, dict[str, Any]]], lines: int) -> dict[str, dict[str, Any]]:
    medians: dict[str, dict[str, Any]] = {}
    for what in runs[0]:
        values = {
            name: statistics.median(each[what][name] for each in runs)
            for name in ("seconds", "cpu_seconds", "process_seconds", "before", "peak_gib")
        }
        medians[what] = {**values, "lines_per_second": lines / values["seconds"], "found": runs[0][what]["found"]}
    return medians


# what is shown -----------------------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    raw, lines = result["raw"], result["raw"]["lines"]
    out = [
        f"{raw['dataset']}: {lines:,} generated reviews of {raw['users']:,} users on {raw['items']:,} items, "
        f"{_size(raw)}; filter {result['filter']}; medians of {result['repeat']}",
        "",
        f"  {'':<28}{'lines/s':>12}{'seconds':>10}{'CPU seconds':>13}{'peak memory':>14}{'before it':>12}",
    ]
    for what in (_OURS, _TEXT, _OTHER, _AGAIN):
        out.append(_row(what, result["median"][what], what in (_OURS, _TEXT)))
    if "peer" in result:
        peer = result["peer"]
        out += ["", f"  the same {peer['lines']:,} reviews in the same run"]
        out += [_row(what, peer["median"][what], True) for what in (_OURS, _RECBOLE)]
        ratio = peer["ratio"]
        out += [
            f"  ratio against RecBole       {ratio['speed']:>11.2f}x{'':>23}{ratio['memory']:>13.2f}x",
            "",
            "  The work differs. RecBole reads a plain table of ids, ratings and times and keeps the result in memory;",
            "  we unpack and parse whole records, check them, read the items' text, and store it with the ids and the",
            "  filtered dataset on disk. Seconds exclude imports; peak memory includes them ('before it').",
        ]
    return "\n".join(out)


def failures(result: dict[str, Any]) -> list[str]:
    """What ``--assert`` objects to; empty when the preparation is fast and small enough."""
    ours, found = result["median"][_OURS], []
    if ours["lines_per_second"] < LEAST_SPEED:
        found.append(f"{ours['lines_per_second']:,.0f} lines/s are less than {LEAST_SPEED:,}")
    peak = max(values["peak_gib"] for values in result["median"].values())
    if peak > MOST_MEMORY:
        found.append(f"a peak of {peak:.2f} GiB is more than {MOST_MEMORY:g} GiB")
    return found


def _row(what: str, values: dict[str, Any], with_speed: bool) -> str:
    speed = f"{values['lines_per_second']:,.0f}" if with_speed else ""
    return (
        f"  {what:<28}{speed:>12}{values['seconds']:>10.2f}{values['cpu_seconds']:>13.2f}"
        f"{values['peak_gib']:>10.2f} GiB{values['before']:>8.2f} GiB"
    )


def _size(summary: dict[str, Any]) -> str:
    on_disk = sum(file["bytes"] for file in summary["files"].values())
    content = sum(file["raw_bytes"] for file in summary["files"].values())
    return f"{on_disk / 1e9:.2f} GB on disk, {content / 1e9:.2f} GB unpacked"


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=1_000_000, help="reviews (default: 1,000,000)")
    parser.add_argument("--peer-lines", type=int, default=1_000_000, help="reviews that RecBole loads; 0: none")
    parser.add_argument("--form", default="amazon-2018", help="kind of raw files (default: amazon-2018)")
    parser.add_argument("--words", type=float, help="mean words of a review (default: as published)")
    parser.add_argument("--category", default=raw_reviews.CATEGORY, help="Amazon's category")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--level", type=int, default=1, help="of zlib (default: 1)")
    parser.add_argument("--repeat", type=int, default=3, help="measurements; medians are shown (default: 3)")
    parser.add_argument("--folder", type=Path, help="keep the raw files here, and reuse those that lie here")
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    parser.add_argument("--assert", dest="limits", action="store_true", help="exit 1 when too slow or too large")
    parser.add_argument("--action", help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    try:
        if given.action:
            action, arguments = json.loads(given.action)
            given.answer.write_text(json.dumps(_ACTIONS[action](**arguments)), encoding="utf-8")
            return 0
        if given.lines < 1 or given.repeat < 1 or given.peer_lines < 0:
            raise BenchError("--lines and --repeat must be above 0, --peer-lines not below 0")
        result = _measured(given)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(result))
    if given.json:
        from recllm_bench.reporting.machine import machine_facts

        text = json.dumps({"machine": machine_facts(), **result}, indent=1) + "\n"
        given.json.write_text(text, encoding="utf-8")
    found = failures(result) if given.limits else []
    for failure in found:
        print(f"too slow or too large: {failure}", file=sys.stderr)
    return 1 if found else 0


def _measured(given: argparse.Namespace) -> dict[str, Any]:
    if given.folder:
        given.folder.mkdir(parents=True, exist_ok=True)
        return run(given, given.folder.absolute())
    with tempfile.TemporaryDirectory(prefix="recllm_bench_") as folder:
        return run(given, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
