"""Cells of a sweep in processes side by side on one machine: one view of all, and a cell that fails stops no other."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any
from unittest.mock import patch

from recllm_bench.errors import BenchError, NotEnough
from recllm_bench.estimates import duration
from recllm_bench.language.chat_spending import BUDGET, process_budget
from recllm_bench.progress import log
from recllm_bench.recipe import Recipe
from recllm_bench.rows import Finished


def run_apart(recipes: Sequence[tuple[str, Recipe]], jobs: int) -> Finished:
    """Run cells in processes of their own, so many at a time; those whose record exists are not run again.

    Where ``OMP_NUM_THREADS`` does not say how many threads a process has, the machine's cores are shared out: threads
    order sums, so they are part of a run's key. What two cells have in common is trained by one of them.

    Parameters
    ----------
    recipes : sequence of (label, Recipe)
        The rows.
    jobs : int
        Most processes at a time.

    Raises
    ------
    BenchError
        When no cell could be run.

    Notes
    -----
    Each cell may ask paid servers for an equal share of ``RECLLM_TOKEN_BUDGET``, since processes count for themselves.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // jobs))
    own, budget = {"OMP_NUM_THREADS": threads}, process_budget().limit
    if budget > 0:
        own[BUDGET] = str(max(1, budget // len(recipes)))
    folders: dict[int, Path] = {}
    failures: list[tuple[str, str]] = []
    todo, running = list(range(len(recipes))), dict[Connection, _Running]()
    view = _View(len(recipes))
    try:
        with patch.dict(os.environ, own):
            while todo or running:
                while todo and len(running) < jobs:
                    started = _Running(todo[0], *recipes[todo.pop(0)])
                    running[started.connection] = started
                for connection in wait(list(running), timeout=0.5):
                    assert isinstance(connection, Connection)
                    cell = running[connection]
                    kind, said = cell.hear()
                    if kind in ("said", "named"):
                        continue
                    del running[connection]
                    cell.process.join()
                    if kind == "done":
                        folders[cell.row] = Path(said)
                    else:
                        failures.append((cell.name, said))
                    view.line(cell, kind, said)
                view.draw(list(running.values()), len(folders), len(failures))
    finally:
        view.close()
        for cell in running.values():
            cell.process.terminate()  # as Ctrl-C: what was trained is kept
        for cell in running.values():
            cell.process.join()
    if not folders:
        raise BenchError(f"no cell of the sweep could be run; {failures[0][0]}: {failures[0][1]}")
    return Finished([folders[row] for row in sorted(folders)], failures)


class _Running:
    """A cell in its process."""

    def __init__(self, row: int, label: str, recipe: Recipe) -> None:
        self.row, self.name, self.message = row, label or recipe.model, "begins"
        self.start = time.monotonic()
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe(duplex=False)
        self.errors = tempfile.NamedTemporaryFile("r", prefix="recllm-sweep-", errors="replace")  # noqa: SIM115
        self.process = context.Process(target=_work, args=(other, label, recipe, self.errors.name))
        self.process.start()
        other.close()  # the process has its own; when that is closed, nothing comes any more

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.start

    def hear(self) -> tuple[str, str]:
        """What it says next: ``said``, ``named``, ``done``, ``failed`` or, without a word, that it ended."""
        try:
            kind, said = self.connection.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode or 0
            why = f"signal {-code}" if code < 0 else f"code {code}"
            last = (self.errors.read().strip().splitlines() or [""])[-1][:200]
            return "failed", f"its process ended with {why}" + (f": {last}" if last else "")
        if kind == "named":
            self.name = said
        elif kind == "said":
            self.message = said
        return kind, said


class _View:
    """One view of all cells: live on a terminal, else a line for each that ends."""

    def __init__(self, total: int) -> None:
        self.total, self.ended, self.start = total, 0, time.monotonic()
        self.live: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self.live = Live(console=Console(stderr=True, highlight=False), refresh_per_second=2, transient=True)
            self.live.start()

    def line(self, cell: _Running, kind: str, said: str) -> None:
        """A cell has ended."""
        self.ended += 1
        end = f"done in {duration(cell.seconds)}" if kind == "done" else f"{kind}: {said}"
        text = f"cell {self.ended} of {self.total}: {cell.name}: {end}"
        if self.live is not None:
            self.live.console.print(text, markup=False)
        else:
            log.log(logging.INFO if kind == "done" else logging.WARNING, text)

    def draw(self, running: Sequence[_Running], done: int, failed: int) -> None:
        """What is going on now."""
        if self.live is None:
            return
        from rich.text import Text

        waiting = self.total - done - failed - len(running)
        lost = f", {failed} failed" if failed else ""
        head = f"{done} of {self.total} cells done{lost}, {len(running)} running, {waiting} waiting, "
        lines = [head + duration(time.monotonic() - self.start)]
        lines += [f"  {cell.name}  {duration(cell.seconds)}  {cell.message}" for cell in running]
        self.live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"))

    def close(self) -> None:
        """Take the view away; the lines stay."""
        if self.live is not None:
            self.live.stop()


class _Sender(logging.Handler):
    """Sends the log's lines to the process that shows them."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(logging.INFO)
        self.connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        self.connection.send(("said", record.getMessage()))


def _work(connection: Connection, label: str, recipe: Recipe, errors: str) -> None:
    """Run one cell; the body of a process."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_APPEND), 2)  # bars and warnings; the end of it is shown after a crash
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(_Sender(connection))
    try:
        from recllm_bench.data.cards import default_store, hide_card_folder
        from recllm_bench.runner import BenchCell

        hide_card_folder()
        cell = BenchCell(recipe, label, default_store())
        connection.send(("named", cell.name))
        cell.check()
        connection.send(("done", str(cell.run())))
    except NotEnough as error:
        connection.send(("left out", str(error)))
    except BenchError as error:
        connection.send(("failed", str(error)))
    except KeyboardInterrupt:
        connection.send(("failed", "stopped"))
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        connection.send(("failed", f"{type(error).__name__}: {line}"))
