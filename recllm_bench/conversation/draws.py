"""Random choices that depend on some numbers alone, whatever else is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
_MASK = (1 << 64) - 1


class Draw:
    """Random choices that depend on some numbers alone.

    Parameters
    ----------
    *numbers : int
        Such as seed, user, target and turn.
    """

    def __init__(self, *numbers: int) -> None:
        self.state = 0
        for number in numbers:
            self.state = _mixed(self.state + 0x9E3779B97F4A7C15 * (number + 1))

    @classmethod
    def at(cls, state: int) -> Draw:
        """Go on where another draw was."""
        draw = cls()
        draw.state = state
        return draw

    def rate(self, share: float) -> bool:
        """True in this share of the draws."""
        return self.below(1 << 20) < share * (1 << 20)

    def below(self, count: int) -> int:
        """A whole number from 0 to ``count - 1``."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & _MASK
        return (_mixed(self.state) >> 16) % count

    def of(self, choices: Sequence[T]) -> T:
        """One of the choices."""
        return choices[self.below(len(choices))]


def _mixed(value: int) -> int:
    """SplitMix64's finaliser, as :func:`.rules.mixed`."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
