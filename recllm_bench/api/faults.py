"""Failures inside a class from outside, told as its author needs them: file, line, and what went wrong."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from recllm_bench.api.registry import ModelEntry
from recllm_bench.errors import BenchError


@contextmanager
def own_faults(entry: ModelEntry) -> Iterator[None]:
    """Say where a model from outside fails, in one line; the error itself stays its cause.

    Parameters
    ----------
    entry : ModelEntry
        Whose code runs; nothing is changed for models of the bench and of RecBole, whose failures are not the user's.

    Raises
    ------
    BenchError
        With file and line of the innermost part of the model's own module.
    """
    try:
        yield
    except (BenchError, OSError, MemoryError):
        raise
    except Exception as error:
        modules = {part.__module__.split(".")[0] for part in (entry.model, entry.method)} - {"recbole", "recllm_bench"}
        frames = list(traceback.walk_tb(error.__traceback__))
        own = [(frame, line) for frame, line in frames if frame.f_globals.get("__name__", "").split(".")[0] in modules]
        if not modules:
            raise
        frame, line = (own or frames)[-1]
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        place = f"{frame.f_code.co_filename}:{line}"
        if own:
            raise BenchError(f"'{entry.name}' fails at {place}: {reason}; mend it there") from error
        raise BenchError(f"'{entry.name}' gives what {place} cannot use: {reason}; see the model contract") from error
