"""Statistics that took a while, kept in a small file beside the run records they were made from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recllm_bench.artifacts import write_json
from recllm_bench.reporting.records import RunRecord

_FILE = ".pairs.json"
_VERSION = 3  # of how the results are computed; those of other versions are computed again


class Remembered:
    """Results by key.

    Parameters
    ----------
    records : sequence of RunRecord
        The file lies in the folder of the first that was read from disk; without one nothing is kept.
    """

    def __init__(self, records: Sequence[RunRecord]) -> None:
        folders = [record.folder for record in records if record.folder is not None]
        self.path = folders[0].parent / _FILE if folders else None
        self.known: dict[str, Any] = _load(self.path)
        self.changed = False

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """The result of a key, computed when it is not known."""
        if key not in self.known:
            self.known[key] = compute()
            self.changed = True
        return self.known[key]

    def save(self) -> None:
        """Keep what was computed; a folder that cannot be written costs only time."""
        if self.changed and self.path is not None:
            try:
                write_json(self.path, {"version": _VERSION, "results": self.known})
            except OSError:
                return


def _load(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return dict(values["results"]) if values["version"] == _VERSION else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}  # absent, old or damaged: computed again
