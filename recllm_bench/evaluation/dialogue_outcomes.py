"""Outcomes of dialogues: success after K turns, and the average number of turns."""

from __future__ import annotations

import numpy as np

from recllm_bench.api.measure import Measure
from recllm_bench.errors import BenchError

FAILED = 0
"""Outcome of a dialogue that ended without the target being shown."""
INVALID = -1
"""Outcome of a dialogue that could not be held (a provider's error); it is left out of all means."""

_MOST_INVALID = 0.01


def valid_outcomes(turns: np.ndarray) -> np.ndarray:
    """Outcomes without the invalid ones.

    Parameters
    ----------
    turns : int [n]
        Turn of the first success (from 1), :data:`FAILED` or :data:`INVALID`.

    Raises
    ------
    BenchError
        When more than 1 % are invalid: the run says nothing then.
    """
    turns = np.asarray(turns)
    invalid = turns == INVALID
    if len(turns) and invalid.mean() > _MOST_INVALID:
        raise BenchError(f"{int(invalid.sum())} of {len(turns)} dialogues are invalid (more than 1 %); run them again")
    return turns[~invalid]


def success_at(turns: np.ndarray, k: int) -> np.ndarray:
    """1 where the dialogue succeeded within its first k turns; the mean is S@k.

    Parameters
    ----------
    turns : int [n]
        Turn of the first success (from 1), or :data:`FAILED`.
    k : int
        Turns allowed.

    Returns
    -------
    float64 [n]
    """
    turns = _checked(turns)
    return ((turns != FAILED) & (turns <= k)).astype(np.float64)


def turn_counts(turns: np.ndarray, max_turns: int, at_failure: str = "max_turns") -> np.ndarray:
    """Turns that each dialogue adds to the average AT.

    Parameters
    ----------
    turns : int [n]
        Turn of the first success (from 1), or :data:`FAILED`.
    max_turns : int
        The most turns a dialogue may take.
    at_failure : str
        ``max_turns``: a failure counts that many, as in LatentCRS's released script. ``max_turns_plus_1``: one
        more. ``exclude``: only successes count, and the result has only their rows.

    Returns
    -------
    float64 [n] or [successes]
    """
    turns = _checked(turns)
    if len(turns) and turns.max() > max_turns:
        raise BenchError(f"a dialogue succeeded at turn {turns.max()}, but only {max_turns} are allowed")
    failed = turns == FAILED
    if at_failure == "exclude":
        return turns[~failed].astype(np.float64)
    costs = {"max_turns": max_turns, "max_turns_plus_1": max_turns + 1, "max_turns+1": max_turns + 1}
    if at_failure not in costs:
        raise BenchError(f"at_failure: '{at_failure}' is not one of max_turns, exclude, max_turns_plus_1")
    return np.where(failed, costs[at_failure], turns).astype(np.float64)


def dialogue_values(
    turns: np.ndarray, max_turns: int, at_failure: str = "max_turns", success_turns: tuple[int, ...] = (3, 5)
) -> dict[str, np.ndarray]:
    """Values of every dialogue, ready for intervals: ``S@k`` and ``AT``.

    Parameters
    ----------
    turns : int [n]
        Outcomes; invalid ones are left out.
    max_turns, at_failure
        See :func:`turn_counts`.
    success_turns : tuple of int
        The k of S@k; those beyond ``max_turns`` are skipped.
    """
    turns = valid_outcomes(turns)
    values = {f"S@{k}": success_at(turns, k) for k in success_turns if k <= max_turns}
    values["AT"] = turn_counts(turns, max_turns, at_failure)
    return values


def _checked(turns: np.ndarray) -> np.ndarray:
    turns = np.asarray(turns)
    if len(turns) and turns.min() < FAILED:
        raise BenchError("outcomes hold invalid dialogues; take them out with valid_outcomes first")
    return turns


def cost_measures(seconds: np.ndarray, input_tokens: np.ndarray, output_tokens: np.ndarray) -> list[Measure]:
    """What a system took for a dialogue: seconds, and tokens of its chat model where it asked one.

    Parameters
    ----------
    seconds : float64 [n]
        Of each dialogue; its share of the batches that it was in, so that this is no time that a single user waits.
    input_tokens, output_tokens : int64 [n]
        Read and written.

    Returns
    -------
    list of Measure
        Mean and 95th percentile of the seconds, means of the tokens; nothing for what was not told.
    """
    means = {"tokens read a dialogue": input_tokens, "tokens written a dialogue": output_tokens}
    found = [Measure(name, float(values.mean()), "dialogues") for name, values in means.items() if values.any()]
    if seconds.any():
        found.append(Measure("seconds a dialogue, of a batch", float(seconds.mean()), "dialogues"))
        found.append(Measure("seconds a dialogue, 95th percentile", float(np.percentile(seconds, 95)), "dialogues"))
    return found
