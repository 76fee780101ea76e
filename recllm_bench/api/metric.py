"""What a metric is: one plain function of where the targets stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

FACTS = ("items", "candidates", "popularity", "titles")
"""What a metric may need beside places, see :attr:`Places.facts`."""


class Places(Protocol):
    """Where every target stands, grouped by ranking: what a user was shown at one moment, nearly always one target.

    Attributes
    ----------
    higher, tied : int64 [targets]
        Candidates that beat the target, and those that tie with it (itself included). The protocol's tie policy is
        already in them.
    owner : int64 [targets]
        The target's ranking, ``0..n_rankings - 1``.
    relevant : int64 [n_rankings]
        Targets of each ranking, at least 1.
    ranked : bool [targets]
        Whether the model scored the target at all; where not, a metric is 0.
    facts : mapping
        What the metric declared in ``needs``, nothing else: ``items`` (int64 [targets], the target's id),
        ``candidates`` (int64 [targets], how many there were, the target included), ``popularity`` (int64
        [n_items + 1], training interactions of each item, entry 0 is padding), ``titles`` (list of str
        [n_items + 1]).
    """

    @property
    def higher(self) -> np.ndarray: ...
    @property
    def tied(self) -> np.ndarray: ...
    @property
    def owner(self) -> np.ndarray: ...
    @property
    def relevant(self) -> np.ndarray: ...
    @property
    def ranked(self) -> np.ndarray: ...
    @property
    def facts(self) -> Mapping[str, Any]: ...
    @property
    def n_rankings(self) -> int:
        """Number of rankings."""
        ...

    def total_gain(self, gains: np.ndarray) -> np.ndarray:
        """Expected gain of each ranking's targets together, float64 [n_rankings]; ``gains[r - 1]`` is rank r's."""
        ...

    def first_ranks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distribution of each ranking's best rank: ``owner``, ``rank``, ``probability``, [m] each."""
        ...


class Metric(Protocol):
    """A function ``metric(targets, k) -> float64 [n_rankings]``; larger is better.

    ``k`` is the cut-off, None for the whole ranking. A user's value is the mean over the user's rankings. The function
    may carry three attributes:

    - ``uncut`` (bool, default False): the whole ranking makes sense and is reported too, as for MRR;
    - ``cutoffs`` (bool, default True): False for a metric that has no cut-off, which implies ``uncut``;
    - ``needs`` (tuple of str, default empty): names of :data:`FACTS` that it reads from ``targets.facts``.

    The first line of its docstring explains it in ``recllm-bench list metrics``. When the name is resolved the function
    is tried on four invented targets: it must return one finite number for each ranking, or the run ends with one line.
    """

    def __call__(self, targets: Places, k: int | None, /) -> np.ndarray:
        """Value of each ranking, float64 [n_rankings]."""
        ...
