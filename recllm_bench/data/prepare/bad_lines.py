"""Lines of large sources that cannot be read: counted, shown, and too many of them refused, also when asked again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from recllm_bench.errors import BenchError
from recllm_bench.progress import log

BAD_SHARE = 0.001
VARIABLE = "RECLLM_BAD_LINES"
_SHOWN = 3
_EARLY = 1000


class Skipped(NamedTuple):
    """Bad lines of one file: the first with its place, how many, and of how many lines."""

    first: str
    bad: int
    lines: int


def allowed_share(most_bad: float | None) -> float:
    """Share of lines that may be bad: as given, else that of ``RECLLM_BAD_LINES``, else 0.001.

    Raises
    ------
    BenchError
        For anything but a number from 0 to 1.
    """
    said = os.environ.get(VARIABLE, "") if most_bad is None else most_bad
    if said == "":
        return BAD_SHARE
    try:
        share = float(said)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        name = VARIABLE if most_bad is None else "--bad-lines"
        raise BenchError(f"{name} is the share of lines that may be bad, a number from 0 to 1, got {said}")
    return share


def refuse_too_many(skipped: Iterable[Skipped], most: float) -> None:
    """Raise when more than a share of a file's lines was skipped, whoever skipped them.

    What was read under a larger share lies in the cache for everybody; this decides whether one may have it.

    Raises
    ------
    BenchError
        With the first bad line.
    """
    for file in skipped:
        if file.bad > round(most * file.lines, 6):  # 0.07 * 100 is a little above 7
            _refuse(file, most)


def _refuse(file: Skipped, most: float) -> None:
    raise BenchError(
        f"{file.first}; {file.bad:,} of {file.lines:,} lines are bad, more than the {100 * most:g} % that may be "
        f"skipped; mend the file, or allow more: --bad-lines of prepare, {VARIABLE} for every command"
    )


class BadLines:
    """Counts the lines that had to be skipped, shows the first, and refuses a file that has too many.

    Parameters
    ----------
    path : Path
        The file, for messages.
    most : float
        Share of lines that may be bad.
    """

    def __init__(self, path: Path, most: float = BAD_SHARE) -> None:
        self.path, self.most = path, allowed_share(most)
        self.count = 0
        self.first: list[str] = []

    def add(self, line: int, why: str) -> None:
        """Note one bad line.

        Raises
        ------
        BenchError
            When there are over a thousand, and ten times the share: a file of another kind is not read to its end.
        """
        self.count += 1
        if len(self.first) < _SHOWN:
            self.first.append(f"{self.path}:{line}: {why}")
            log.warning(f"{self.first[-1]}; the line is skipped")
        if self.count > _EARLY and self.count > 10 * self.most * line:
            _refuse(self.skipped(line), self.most)

    def skipped(self, lines: int) -> Skipped:
        """What was skipped of ``lines`` lines."""
        return Skipped(self.first[0] if self.first else "", self.count, lines)

    def finish(self, lines: int) -> None:
        """Judge the whole file.

        Raises
        ------
        BenchError
            When more than the allowed share of its lines is bad.
        """
        refuse_too_many([self.skipped(lines)], self.most)
        if self.count > _SHOWN:
            log.warning(f"{self.path}: {self.count:,} of {lines:,} lines were skipped")
