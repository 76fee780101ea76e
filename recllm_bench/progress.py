"""What the user sees while something runs: a bar after two seconds, and the log."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("recllm_bench")


def track(iterable: Iterable | None = None, label: str = "", total: int | None = None, unit: str = "it"):
    """Wrap an iterable in a progress bar that shows only when it takes over two seconds.

    Returns a ``tqdm`` object: iterate over it, or call ``update`` and ``set_postfix_str``.
    """
    from tqdm import tqdm

    return tqdm(
        iterable,
        desc=label,
        total=total,
        unit=unit,
        delay=2,
        leave=False,
        dynamic_ncols=True,
        mininterval=0.5,
        file=sys.stderr,
        disable=not log.isEnabledFor(logging.INFO),
    )


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
