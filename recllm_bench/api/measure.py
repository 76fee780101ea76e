"""A number that a method measures beside its ranking, with its place: the round, the users, what it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """One number.

    Attributes
    ----------
    name : str
        What is measured, for people: ``"label similarity"``, or a metric with its cut-off such as ``"NDCG@10"``.
    value : float
        The number; counts are whole.
    about : str
        What it is measured on, where that is not everything: ``"users"``, ``"target not in pseudo-history"``.
    round : int or None
        After how many rounds of feedback.
    lengths : (int, int or None) or None
        Users with histories of so many interactions, both ends included; None is no upper end.
    """

    name: str
    value: float
    about: str = ""
    round: int | None = None
    lengths: tuple[int, int | None] | None = None

    @property
    def label(self) -> str:
        """The name with its place, unique within a record."""
        parts = [self.name]
        if self.about:
            parts.append(self.about)
        if self.lengths is not None:
            parts.append(f"histories {self.bucket}")
        if self.round is not None:
            parts.append(f"round {self.round}")
        return ", ".join(parts)

    @property
    def bucket(self) -> str:
        """The lengths of histories in words; empty where all count."""
        if self.lengths is None:
            return ""
        low, high = self.lengths
        return f"above {low - 1}" if high is None else f"of {low} to {high}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a run record; what is not set is left out."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "")}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Measure:
        """What :meth:`as_dict` gave."""
        values = dict(facts)
        if values.get("lengths") is not None:
            low, high = values["lengths"]
            values["lengths"] = (int(low), None if high is None else int(high))
        return cls(**{**values, "value": float(values["value"])})
