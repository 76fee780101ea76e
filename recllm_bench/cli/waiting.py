"""How threads wait for each other, settled before torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping

OWN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Variables by which a user says how threads wait: GNU's runtime, which torch's own builds bring, and Intel's."""


SPINS = 1000
"""Turns that a thread of GNU's runtime waits awake, some microseconds: long enough for one that is at work to end its
part, short enough to cost little where it has lost its core. Measured by ``benchmarks/busy.py``."""


def waiting(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment so that threads that wait for the slowest spin for microseconds, then sleep.

    A training step has a thousand small parallel regions. By default a thread that is done spins on; where another
    program has the core of one it waits for, it spins away a whole slice of time, in each of them. One that sleeps at
    once has to be woken in each, which takes longer than the region.

    Parameters
    ----------
    environment : mapping
        Variables as the user has set them.

    Returns
    -------
    dict
        Nothing where the user has decided. The results of a computation do not depend on it.
    """
    if any(name in environment for name in OWN):
        return {}
    return {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": str(SPINS)}
