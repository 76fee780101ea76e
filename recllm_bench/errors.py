"""The one exception a user's mistake raises, and the suggestion that ends its message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """A mistake the user can mend: shown as one line, without a traceback, exit code 2."""


class NotEnough(BenchError):
    """The data lack what a row needs, such as users or titles; the other rows of a table may stand without it."""


def nearest(name: str, known: Iterable[str], limit: int = 8) -> str:
    """Say what was probably meant.

    Parameters
    ----------
    name : str
        What the user wrote.
    known : iterable of str
        Every valid name.
    limit : int
        How many names to list when nothing is close.

    Returns
    -------
    str
        ``" Did you mean 'x'?"``, or the list of known names; starts with a space.
    """
    names = sorted(set(known))
    folded = {candidate.casefold(): candidate for candidate in reversed(names)}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{folded[close[0]]}'?"
    if not names:
        return ""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f" Known: {', '.join(names[:limit])}{more}."
