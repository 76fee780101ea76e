"""Prices as shops write them."""

from __future__ import annotations

import re
from typing import Any

_MOST = 1e7  # what costs more is a missing value written as a number, or several numbers in a row
_PLAIN = re.compile(r"\d+\.?\d*|\.\d+", re.ASCII)
_GROUPED = re.compile(r"(\d{1,3}(?:,\d{3})+|\d{1,3}(?:\.\d{3})+|\d+)(?:[.,](\d{1,2}))?", re.ASCII)
_SIGN = r"(?:us\$|usd|eur|gbp|cad|aud|[$€£¥₹])"
_WRITTEN = re.compile(
    rf"(?:from|now)?\s*{_SIGN}?\s*(?P<first>[\d.,]*\d[\d.,]*)\s*{_SIGN}?(?:\s*(?:-|–|—|to)\s*{_SIGN}?\s*[\d.,]*\d\s*{_SIGN}?)?",
    re.ASCII,
)


def price_of(value: Any) -> float | None:
    """A price as a number, in whatever currency the source has; None where there is none.

    Parameters
    ----------
    value : object
        A number, or text such as ``"$1,299.99"``, ``"1.299,99 EUR"``, ``"from 14.99"``, ``"$10.00 - $25.00"`` (of a
        range the lower end), ``"Free to Play"``. Whatever else stands there, scraps of pages and words, is no price.

    Returns
    -------
    float or None
        At least 0.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value) if 0 <= value <= _MOST else None
    text = " ".join(str(value).split()).casefold()
    if re.fullmatch(r"free\b[a-z ]{0,20}", text):
        return 0.0
    found = _WRITTEN.fullmatch(text)
    return _number(found["first"].rstrip(".,")) if found and len(text) <= 60 else None


def _number(text: str) -> float | None:
    if _PLAIN.fullmatch(text):
        price = float(text)
    elif grouped := _GROUPED.fullmatch(text):
        price = float(f"{re.sub('[.,]', '', grouped[1])}.{grouped[2] or 0}")
    else:
        return None
    return price if price <= _MOST else None
