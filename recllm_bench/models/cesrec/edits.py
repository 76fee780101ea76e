"""Controls: other edits of a history than the method's own, at the cost of an evaluation each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recllm_bench.api.measure import Measure
from recllm_bench.artifacts import content_hash
from recllm_bench.models.cesrec.masking import Masked, kept
from recllm_bench.progress import log

if TYPE_CHECKING:
    from recllm_bench.conversation.understanding import Understanding
    from recllm_bench.models.cesrec.round_store import Played

COLLAPSED = 0.1
"""Share of the users from which one written title is a warning."""


def random_masker(
    k: int, min_keep: int, mode: str, seed: Sequence[int]
) -> Callable[[torch.Tensor, torch.Tensor], Masked]:
    """Masks ``k`` items of each history by chance; ``min_keep`` stay."""

    def mask(items: torch.Tensor, lengths: torch.Tensor) -> Masked:
        drawn = np.random.default_rng(list(seed)).random(tuple(items.shape))
        drawn[np.arange(items.shape[1]) >= lengths.cpu().numpy()[:, None]] = np.inf
        wanted = np.minimum(k, (lengths.cpu().numpy() - min_keep).clip(min=0))
        masked = torch.from_numpy(drawn.argsort(1).argsort(1) < wanted[:, None]).to(items.device)
        return Masked(*kept(items, lengths, masked, mode), masked, int((wanted < k).sum()))

    return mask


def retitled(construct: Callable[..., Any], choose: Callable[[int, str, set[int]], int]) -> Callable[..., Any]:
    """A constructor whose edits stay where they are, with other titles in them.

    Parameters
    ----------
    construct : callable
        The method's own.
    choose : callable
        ``choose(row, remark, taken)`` gives the item that is written instead; ``taken`` may not be.
    """

    def other(lists: Any, flags: Any, said: Sequence[str], targets: Any) -> Any:
        written = construct(lists, flags, said, targets)
        for row, (old, new) in enumerate(zip(lists, written.lists, strict=True)):
            places = [place for place, item in enumerate(new) if item and item not in old]
            taken = {*old, *new}
            for place in places:
                new[place] = choose(row, said[row], taken)
                taken.add(new[place])
        return written

    return other


_SAID: dict[str, dict[str, Any]] = {}  # what was answered last, of one constructor at a time
_MOST_SAID = 2


def repeated(construct: Callable[..., Any], who: Sequence[Any], reuse: bool) -> Callable[..., Any]:
    """A constructor whose answers to whole sets of users are kept, and given again to controls that ask the same.

    Parameters
    ----------
    who : sequence
        What decides the answers beside the questions.
    reuse : bool
        Give kept answers; else only keep them, since the method's own row is timed.
    """

    def asked(*call: Any) -> Any:
        owner, question = content_hash(list(who)), content_hash(list(call))
        if owner not in _SAID:
            _SAID.clear()
        held = _SAID.setdefault(owner, {})
        found = held.get(question) if reuse else None
        if found is None:
            found = held[question] = construct(*call)
            if len(held) > _MOST_SAID:  # the fewest users go, of as many the newest: rounds of one user are timings
                del held[min(reversed(held), key=lambda name: len(held[name].lists))]
        return replace(found, lists=[list(row) for row in found.lists])

    return asked


def any_title(n_items: int, seed: Sequence[int]) -> Callable[[int, str, set[int]], int]:
    """Any item of the catalogue, all alike."""
    rng = np.random.default_rng(list(seed))

    def choose(row: int, remark: str, taken: set[int]) -> int:
        while (item := int(rng.integers(1, n_items + 1))) in taken:
            pass
        return item

    return choose


def fitting_title(reader: Understanding, popularity: np.ndarray) -> Callable[[int, str, set[int]], int]:
    """The most popular item that fits what the remark states; of all items where none is left."""
    order = np.argsort(-popularity[1:], kind="stable") + 1

    def choose(row: int, remark: str, taken: set[int]) -> int:
        fits = reader.fits(reader.read([remark])[0])
        free = [item for item in order.tolist() if item not in taken]
        return next((item for item in free if fits[item]), free[0])

    return choose


def when_accepting(played: Played, first: bool = False) -> Any:
    """Places where every user who is shown the target says yes and keeps the place: the reading with acceptance.

    Parameters
    ----------
    played : Played
        Rounds without acceptance.
    first : bool
        Such a user's target is first, whatever ranked it: what is shown is the back end's best, and words may rank.
    """
    found = played.ranks[-1]
    higher, tied = found.higher.copy(), found.tied.copy()
    for number in range(len(played.rounds) - 1, 0, -1):
        hit = played.rounds[number].shown == found.targets
        before = played.ranks[number - 1]
        higher[hit], tied[hit] = (0, 1) if first else (before.higher[hit], before.tied[hit])
    return type(found)(found.users, found.targets, higher, tied, found.candidates, None, found.lengths)


def collapse(played: Played, titles: Sequence[str], reader: Understanding) -> tuple[list[Measure], str]:
    """How many different titles were written, how often the commonest, how often what was wished for; and a warning."""
    counts: Counter[str] = Counter()
    asked = fitting = total = 0
    for before, after in zip(played.rounds, played.rounds[1:], strict=False):
        rows = np.array([row for row, text in enumerate(after.feedback) if text], dtype=np.int64)
        asked += len(rows)
        for row, old, new in zip(rows.tolist(), before.pseudo.lists(rows), after.pseudo.lists(rows), strict=True):
            written = set(new) - set(old)
            fits = reader.fits(reader.read([after.feedback[row]])[0])
            counts.update({titles[item] for item in written})
            fitting, total = fitting + int(fits[list(written)].sum()), total + len(written)
    (title, most), *_ = counts.most_common(1) or [("", 0)]
    share = most / max(1, asked)
    measures = [
        Measure("distinct titles", float(len(counts)), "written"),
        Measure("users with the commonest title (share)", share, "written"),
        Measure("titles that fit the wish (share)", fitting / max(1, total), "written"),
    ]
    if share <= COLLAPSED:
        return measures, ""
    warning = f"'{title}' was written for {most:,} of {asked:,} remarks: the constructor has collapsed to few titles"
    log.warning(f"cesrec: {warning}")
    return measures, warning
