"""The turns of dialogues: how many were held, and success against how many items still fitted the words.

A system is to be judged by what it adds to the words. Where few items still fit, showing any of them succeeds; beside
the success of turns with about so many stands that of a blind pick among what fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from recllm_bench.api.measure import Measure
from recllm_bench.evaluation.dialogue_outcomes import INVALID, success_at, turn_counts

EDGES = (0, 11, 31, 101, 301, 1001)
"""Where the classes of the difficulty curve begin: items that still fit."""
HELD, GONE, FITTING = "turns held, mean", "share that left", "items that still fit, median"
CONVENTIONS = {
    "max_turns": "a failure counts all turns",
    "max_turns_plus_1": "a failure counts one turn more",
    "exclude": "successes alone",
}
"""Ways to count a failure in AT (:func:`.turn_counts`), in words."""
SUCCESS, BLIND, COUNTED = "success of a turn", "success of a blind pick", "turns"


def turn_measures(turns: np.ndarray, left: np.ndarray, gone: Sequence[bool], shown: int) -> list[Measure]:
    """What stands beside success and AT.

    Parameters
    ----------
    turns : int [n]
        Outcomes of dialogues (:mod:`.dialogue_outcomes`); invalid ones are left out.
    left : int [n, most]
        Items that still fitted before each turn, -1 where it was not held.
    gone : sequence of bool [n]
        Whether the user left.
    shown : int
        Items shown in a turn.

    Returns
    -------
    list of Measure
        Turns held; users who left; the median of what still fitted before each turn; and for turns before which so
        many items fitted (classes :data:`EDGES`) their success, that of a blind pick (``min(1, shown / left)``; 0 where
        nothing fits) and their number. Empty without dialogues.
    """
    valid = np.asarray(turns) != INVALID
    turns, left, leavers = np.asarray(turns)[valid], np.asarray(left)[valid], np.asarray(gone, dtype=bool)[valid]
    if not len(turns):
        return []
    held = left >= 0
    found = [Measure(HELD, float(held.sum(1).mean()), "dialogues"), Measure(GONE, float(leavers.mean()), "dialogues")]
    for turn in np.flatnonzero(held.any(0)).tolist():
        found.append(Measure(FITTING, float(np.median(left[held[:, turn], turn])), f"turn {turn + 1}"))
    hits = (np.arange(1, left.shape[1] + 1) == turns[:, None])[held]
    counts = left[held]
    blind = np.where(counts > 0, np.minimum(1.0, shown / np.maximum(counts, 1)), 0.0)
    for low, high in pairwise([*EDGES, None]):
        inside = (counts >= low) & ((counts < high) if high else True)
        if inside.any():
            about = f"{low} to {high - 1} items still fit" if high else f"{low} items or more still fit"
            means = (hits[inside].mean(), blind[inside].mean(), inside.sum())
            found += [Measure(n, float(v), about) for n, v in zip((SUCCESS, BLIND, COUNTED), means, strict=True)]
    return found


def convention_measures(turns: np.ndarray, most: int, flagged: np.ndarray) -> list[Measure]:
    """Success after each turn, and AT under each way to count failures; again without flagged dialogues.

    Parameters
    ----------
    turns : int [n]
        Outcomes of dialogues; invalid ones are left out.
    most : int
        Turns a dialogue may take.
    flagged : bool [n]
        Dialogues in which the user named the target.

    Returns
    -------
    list of Measure
        The second half is missing where nothing is flagged, or everything.
    """
    valid = np.asarray(turns) != INVALID
    turns, flagged = np.asarray(turns)[valid], np.asarray(flagged, dtype=bool)[valid]
    found: list[Measure] = []
    groups = {"dialogues": np.ones(len(turns), dtype=bool)}
    if flagged.any() and not flagged.all():
        groups["dialogues without a leak"] = ~flagged
    for about, rows in groups.items():
        some = turns[rows]
        if not len(some):
            continue
        found += [Measure(f"S@{turn}", float(success_at(some, turn).mean()), about) for turn in range(1, most + 1)]
        for convention, words in CONVENTIONS.items():
            counts = turn_counts(some, most, convention)
            if len(counts):
                found.append(Measure("AT", float(counts.mean()), f"{about}, {words}"))
    return found
