"""What writing a set of lists gave, whichever way they were written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

COUNTERS = (
    "n_lines",
    "n_exact",
    "n_fuzzy",
    "n_embed",
    "n_kept",
    "n_dropped",
    "n_ambiguous",
    "n_len_mismatch",
    "n_changed_positions",
    "n_unparsable",
)
"""What is counted over a run, whichever way lists are written (specification 7.3)."""


@dataclass
class Written:
    """Lists that a language model wrote.

    Attributes
    ----------
    lists : list of list of int
        Item ids, one for each line of the input; 0 where a masked place was left empty.
    counters : dict
        :data:`COUNTERS`, and ``n_lists`` and ``n_unchanged`` (lists in which nothing changed).
    tokens : dict
        ``prompt``, ``generated`` (written one step after the other, or the only ones possible), ``verified`` (copied
        and found to be what would have been written), ``passes`` of the language model.
    seconds : float
    """

    lists: list[list[int]]
    counters: dict[str, int]
    tokens: dict[str, int]
    seconds: float


def fallback_rate(counters: Mapping[str, float]) -> float:
    """Share of lines that no title of the catalogue answered exactly; 0 under constrained decoding."""
    lost = sum(counters.get(name, 0) for name in ("n_fuzzy", "n_embed", "n_kept", "n_dropped"))
    return lost / max(1, counters.get("n_lines", 0))


def fresh_counters() -> dict[str, int]:
    """All counters at 0."""
    return dict.fromkeys((*COUNTERS, "n_lists", "n_unchanged"), 0)
