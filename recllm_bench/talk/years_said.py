"""Years as people say them: "from the late 80s", "older than 1980", "between 1950 and 1960", "something newer"."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from recllm_bench.talk.vocabulary import Vocabulary
from recllm_bench.talk.wishes import EVER, NEVER, YEARS, Constraint

_NAMED_LIST = "twenties thirties forties fifties sixties seventies eighties nineties"
_NAMED = _NAMED_LIST.split()
_POINT = (
    r"(?:the\s+)?(?:(?:years?|decades?)\s+)?(?:(?P<part{n}>early|mid|middle|late)[\s-]+)?"
    rf"(?P<point{{n}}>(?:1[89]|20)\d0['’]?s|['’]?\d0['’]?s|(?:1[89]|20)\d\d(?!\d)|{'|'.join(_NAMED)})(?!\w)"
)
_ONE, _OTHER = _POINT.format(n=1), _POINT.format(n=2)
_BEFORE = (
    r"(?:not?\s+(?:newer|later|younger)\s+than|(?P<upto>until|till|up\s+to|through)|older\s+than|earlier\s+than|"
    r"before|prior\s+to|pre)"
)
_AFTER = (
    r"(?:(?P<since>since|starting\s+(?:in|from)|not?\s+older\s+than)|newer\s+than|later\s+than|younger\s+than|"
    r"more\s+recent\s+than|after|post)"
)
_NOT_PAST = re.compile(r"not?\s+(?:newer|later|younger)", re.IGNORECASE)
_RANGE = re.compile(
    rf"\b(?:(?:between|from|of|in)\s+)?{_ONE}\s*(?:-|–|to|and|until|till|through)\s*{_OTHER}", re.IGNORECASE
)
_BOUND = re.compile(
    rf"\b(?:made\s+|released\s+|from\s+)?(?:(?P<before>{_BEFORE})|(?P<after>{_AFTER}))[\s-]+{_ONE}", re.IGNORECASE
)
_ONWARDS = re.compile(
    rf"\b(?:from\s+)?{_ONE}\s+(?:on|onwards?|and\s+(?:later|newer|after)|or\s+(?:later|newer))\b", re.IGNORECASE
)
_DOWN = re.compile(rf"\b(?:from\s+)?{_ONE}\s+(?:and|or)\s+(?:earlier|older|before)\b", re.IGNORECASE)
_AT = re.compile(rf"(?:\b(?:made\s+|released\s+)?(?:from|in|of|during)\s+)?(?<!\w){_ONE}", re.IGNORECASE)
_AGE = re.compile(
    r"\b(?:(?P<old>older\s+than)\s+|(?P<new>newer\s+than|younger\s+than)\s+|(?:from\s+|in\s+)?(?:the\s+)?(?:last|past)\s+)"
    r"(?P<years>\d{1,2})\s+years\b",
    re.IGNORECASE,
)
_RELATIVE = re.compile(
    r"\b(?:(?P<newer>newer|more\s+recent|more\s+modern|later|too\s+old)|(?P<older>older|earlier|too\s+(?:new|recent)))"
    r"(?:\s+(?:ones?|than\s+(?:that|this|these|those|them|(?:number\s+|#)?(?P<number>\d{1,2}))))?(?!\s*than)\b",
    re.IGNORECASE,
)
_VAGUE = re.compile(
    r"\b(?:(?P<old>old|classic|classics|vintage|old[\s-]fashioned)|(?P<new>new|recent|modern|contemporary|latest))\b",
    re.IGNORECASE,
)


class YearsFound(NamedTuple):
    """Years in a sentence: where, and what they say; ``relative`` when they are held against what was shown."""

    start: int
    end: int
    constraint: Constraint
    relative: bool = False


def years_in(text: str, vocabulary: Vocabulary, shown: Sequence[int]) -> list[YearsFound]:
    """Spans of years in a sentence, none of which overlap.

    Parameters
    ----------
    text : str
        What was said.
    vocabulary : Vocabulary
        Its years decide what "the 20s" and "old" are.
    shown : sequence of int
        Items of the last list: "newer" is newer than the newest of them.
    """
    taken: list[YearsFound] = []
    for found in _found(text, vocabulary, list(shown)):
        if all(found.end <= other.start or found.start >= other.end for other in taken):
            taken.append(found)
    return sorted(taken)


def _found(text: str, vocabulary: Vocabulary, shown: list[int]) -> Iterator[YearsFound]:
    years = vocabulary.years
    newest = int(years.max())
    for match in _AGE.finditer(text):
        mark = newest - int(match["years"])
        older = Constraint(YEARS, f"before {mark}", high=mark - 1)
        yield YearsFound(*match.span(), older if match["old"] else Constraint(YEARS, f"after {mark}", low=mark + 1))
    for match in _RANGE.finditer(text):
        low, high = _span(match, 1, years)[0], _span(match, 2, years)[1]
        if low <= high:
            yield YearsFound(*match.span(), Constraint(YEARS, f"{low} to {high}", low=low, high=high))
    for match in _BOUND.finditer(text):
        low, high = _span(match, 1, years)
        if match["before"]:
            last = high if match["upto"] or _NOT_PAST.match(match["before"]) else low - 1
            shown_as = f"before {low}" if last < low else f"until {last}"
            yield YearsFound(*match.span(), Constraint(YEARS, shown_as, high=last))
        else:
            first = low if match["since"] else high + 1
            shown_as = f"since {first}" if match["since"] else f"after {high}"
            yield YearsFound(*match.span(), Constraint(YEARS, shown_as, low=first))
    for pattern in (_ONWARDS, _DOWN):
        for match in pattern.finditer(text):
            low, high = _span(match, 1, years)
            on = Constraint(YEARS, f"since {low}", low=low)
            yield YearsFound(
                *match.span(), on if pattern is _ONWARDS else Constraint(YEARS, f"until {high}", high=high)
            )
    for match in _AT.finditer(text):
        low, high = _span(match, 1, years)
        label = str(low) if low == high else f"{low}s" if high - low == 9 and low % 10 == 0 else f"{low} to {high}"
        yield YearsFound(*match.span(), Constraint(YEARS, label, low=low, high=high))
    for match in _RELATIVE.finditer(text):
        number = int(match["number"] or 0)
        held = [int(years[item]) for item in (shown[number - 1 : number] if number else shown) if years[item]]
        if held:
            mark = max(held) if match["newer"] else min(held)
            after = Constraint(YEARS, f"after {mark}", low=mark + 1)
            yield YearsFound(
                *match.span(), after if match["newer"] else Constraint(YEARS, f"before {mark}", high=mark - 1), True
            )
        elif (vague := _vague(vocabulary, bool(match["older"]))) is not None:
            yield YearsFound(*match.span(), vague)
    for match in _VAGUE.finditer(text):
        if (vague := _vague(vocabulary, bool(match["old"]))) is not None:
            yield YearsFound(*match.span(), vague)


def _vague(vocabulary: Vocabulary, old: bool) -> Constraint | None:
    """The oldest or newest quarter of the catalogue; None where years are unknown or all alike."""
    if old:
        return Constraint(YEARS, f"before {vocabulary.old}", high=vocabulary.old - 1) if vocabulary.old else None
    return Constraint(YEARS, f"after {vocabulary.new}", low=vocabulary.new + 1) if vocabulary.new else None


def _span(match: re.Match[str], place: int, years: np.ndarray) -> tuple[int, int]:
    """First and last year of a year or a decade, or of its early, middle or late part."""
    said, part = match[f"point{place}"].casefold(), (match[f"part{place}"] or "").casefold()
    digits = re.sub(r"\D", "", said)
    if said in _NAMED:
        digits = f"{20 + 10 * _NAMED.index(said)}"
    if len(digits) == 4 and said.isdigit():
        return int(digits), int(digits)
    low = int(digits) if len(digits) == 4 else _century(int(digits), years)
    first, last = {"early": (0, 3), "mid": (4, 6), "middle": (4, 6), "late": (7, 9)}.get(part, (0, 9))
    return low + first, low + last


def _century(decade: int, years: np.ndarray) -> int:
    """The decade that is meant by two digits: of both centuries the one that the catalogue has more of."""
    counts = {
        start + decade: int(((years >= start + decade) & (years < start + decade + 10)).sum()) for start in (1900, 2000)
    }
    likely = 1900 if decade >= 30 else 2000
    return max(counts, key=lambda low: (counts[low], low - decade == likely))


__all__ = ["EVER", "NEVER", "YearsFound", "years_in"]
