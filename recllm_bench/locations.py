"""Where things lie: caches, results, the project's own data files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from recllm_bench.errors import BenchError

_CHECKOUT = Path(__file__).resolve().parent.parent


def cache_folder() -> Path:
    """Folder of downloads and artifacts: ``RECLLM_CACHE``, else ``.recllm`` in the current folder."""
    return Path(os.environ.get("RECLLM_CACHE") or ".recllm").expanduser().absolute()


def results_folder() -> Path:
    """Folder of run records: ``RECLLM_RESULTS``, else ``results`` in the current folder."""
    return Path(os.environ.get("RECLLM_RESULTS") or "results").expanduser().absolute()


def data_mirror() -> str | None:
    """Folder or URL tried before any public address: ``RECLLM_DATA_MIRROR``."""
    return os.environ.get("RECLLM_DATA_MIRROR") or None


def models_folder() -> Path | None:
    """Folder in which a language model's name is looked up first: ``RECLLM_MODELS``."""
    value = os.environ.get("RECLLM_MODELS")
    return Path(value).expanduser().absolute() if value else None


def resource(*parts: str) -> Path:
    """Return a file or folder that ships with the project (``datasets``, ``recipes``, ``results/published``).

    Raises
    ------
    BenchError
        If neither a checkout nor an installed copy has it.
    """
    roots = (_CHECKOUT, Path(sys.prefix) / "share" / "recllm_bench")
    for root in roots:
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise BenchError(
        f"{'/'.join(parts)} is missing from this installation; reinstall recllm_bench or run from a checkout"
    )
