"""The command line: one command, and every mistake as one line."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec

from recllm_bench.cli import looking, running
from recllm_bench.cli.parser import build_parser
from recllm_bench.cli.waiting import waiting
from recllm_bench.errors import BenchError

__all__ = ["build_parser", "main"]

NEED_RECBOLE = (running.run, running.sweep, running.evaluate, running.chat, looking.model_options)
"""Commands that name a model: without RecBole they say at once how to get it, not after data was prepared."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        0 when all went well, 2 after a user's mistake, 130 after Ctrl-C or kill.
    """
    os.environ.update(waiting(os.environ))  # before anything loads torch, which reads it once
    parser = build_parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "command"):
        parser.print_help()
        return 0
    from recllm_bench.data.cards import hide_card_folder
    from recllm_bench.progress import show_log

    hide_card_folder()
    show_log()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # kill stops it as Ctrl-C does: no half line stays
    try:
        if options.command in NEED_RECBOLE:
            _require_recbole()
        options.command(options)
    except BenchError as error:
        return _refuse(_damaged_product(error) or str(error))
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        names = error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)
        hint = "no such file can be; check the name" if names else "check space and permissions, then repeat"
        return _refuse(f"{place}{error.strerror or error}; {hint}")
    except Exception as error:
        said = _damaged_product(error) or _memory(error)
        if not said:
            raise
        return _refuse(said)
    return 0


def _refuse(message: str) -> int:
    """Print why a command stops, as one line; a word too long to read, such as a wrong argument, is cut."""
    line = re.sub(r"\S{300,}", lambda word: f"{word[0][:80]}...", " ".join(message.splitlines()))
    print(f"error: {line}".encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
    return 2


def _memory(error: Exception) -> str:
    """What to say when memory did not suffice; empty for an error of another kind."""
    text = str(error)
    if isinstance(error, MemoryError) or "allocate" in text or "out of memory" in text:
        return f"the memory does not suffice ({' '.join(text.split())[:200]}); make sizes or batches smaller"
    return ""


def _damaged_product(error: Exception) -> str:
    """What to say when a product that was read proves damaged; empty for an error of another kind."""
    from recllm_bench.artifacts import set_aside_culprit

    return set_aside_culprit(error)


def _require_recbole() -> None:
    if find_spec("recbole") is None:
        from recllm_bench.recbole_bridge import load_recbole

        load_recbole()
