"""What the user sees while something runs: a bar after two seconds, a line a minute in a file, and the log."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

log = logging.getLogger("recllm_bench")


LOG_SECONDS = 60.0
"""Seconds between two lines about progress where stderr is no terminal, all bars together."""


def track(iterable: Iterable[Any] | None = None, label: str = "", total: int | None = None, unit: str = "it") -> Any:
    """Wrap an iterable in a progress bar that shows only when it takes over two seconds.

    Where stderr is no terminal (a file, a pipe), there is no bar but at most one plain line a minute.

    Returns
    -------
    tqdm
        Iterate over it, or call ``update`` and ``set_postfix_str``.
    """
    bar, look = _bars()["terminal" if sys.stderr.isatty() else "file"]
    silent = not log.isEnabledFor(logging.INFO)
    return bar(iterable, desc=label, total=total, unit=unit, leave=False, file=sys.stderr, disable=silent, **look)


@cache
def _bars() -> dict[str, tuple[Any, dict[str, Any]]]:
    """The classes of bars with their looks; made at the first use, because importing tqdm takes time."""
    from tqdm import tqdm

    class Lines(tqdm):
        """A bar that only ever writes whole lines, and not before ``LOG_SECONDS`` have passed since the last."""

        last = time.monotonic()

        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            if time.monotonic() - Lines.last >= LOG_SECONDS:
                Lines.last = time.monotonic()
                self.fp.write(f"{self}\n")
                self.fp.flush()

        def clear(self, nolock: bool = False) -> None:
            """Nothing is on the screen that could be in the way of another line."""

        def close(self) -> None:
            if not self.disable:
                self.disable = True
                self._decr_instances(self)  # type: ignore[attr-defined]

    plain = "{desc}: {n_fmt} of {total_fmt} {unit} in {elapsed}, {remaining} left{postfix}"
    return {
        "terminal": (tqdm, {"delay": 2, "mininterval": 0.5, "dynamic_ncols": True}),
        "file": (Lines, {"mininterval": 0.5, "bar_format": plain}),
    }


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {"time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)), "level": record.levelname}
        entry["message"] = record.getMessage()
        entry.update(getattr(record, "facts", {}))
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Copy the package's log to ``path`` as JSON lines while the block runs.

    ``log.info("text", extra={"facts": {...}})`` adds its facts as fields of the line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_Lines())
    handler.setLevel(logging.DEBUG)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def show_log(level: int = logging.INFO) -> None:
    """Print the package's log to stderr, one plain line a message, without breaking a progress bar."""
    if any(isinstance(handler, _Console) for handler in log.handlers):
        return
    log.setLevel(level)
    log.propagate = False
    log.addHandler(_Console())


class _Console(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        tqdm.write(prefix + record.getMessage(), file=sys.stderr)
