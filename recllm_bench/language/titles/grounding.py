"""Free answers of a chat model, read as lists of catalogue items."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recllm_bench.errors import BenchError
from recllm_bench.language.titles.counters import Written, fresh_counters
from recllm_bench.language.titles.lists import MODES
from recllm_bench.language.titles.matching import NONE, TitleMatcher, banned_rows, common_subsequence

if TYPE_CHECKING:
    from recllm_bench.language.chat import ChatModel

_NUMBERED = re.compile(r"^\s*(?:[*•>-]\s*)?(?:line\s+|item\s+|#)?\(?(\d{1,4})\s*[.):\]-]\s*(?!>)(.*)$", re.IGNORECASE)
_EDIT = re.compile(
    r"^\s*(?:[*•-]\s+)?(?:line\s+|item\s+|#)?\(?(\d{1,4})\)?[.:]?\s*(?:-+>|=+>|→)\s*(.*)$", re.IGNORECASE
)
_BULLET = re.compile(r"^\s*[*•-]\s+")
_QUOTES = "\"'`“”‘’«»*_"


@dataclass(frozen=True)
class Line:
    """A line of an answer: its number, where it has one, and the title it gives."""

    number: int | None
    title: str


def parse_lines(text: str, mode: str = "sequence") -> tuple[list[Line], int]:
    """The titles of an answer, and how many of its lines are something else.

    Numbering, bullets, quotes and trailing punctuation are taken off. Where some lines of a list are numbered, those
    that are not are talk; an edit always has a number.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("```")]
    pattern = _EDIT if mode == "edits" else _NUMBERED
    found = [pattern.match(line) for line in lines]
    if mode == "sequence" and not any(found):
        read = [Line(None, _bare(_BULLET.sub("", line))) for line in lines]
    else:
        read = [Line(int(match[1]), _bare(match[2])) for match in found if match]
    kept = [line for line in read if line.title]
    return kept, len(lines) - len(kept)


def _bare(title: str) -> str:
    """A title without quotes around it and without punctuation after it."""
    before = None
    title = title.strip()
    while title != before:
        before = title
        title = title.rstrip(".,;: \t").strip()
        if len(title) > 1 and title[0] in _QUOTES and title[-1] in _QUOTES:
            title = title[1:-1].strip()
    return title


def ground(
    texts: Sequence[str],
    before: Sequence[Sequence[int]],
    matcher: TitleMatcher,
    *,
    mode: str = "sequence",
    forbid: Sequence[Iterable[int]] | None = None,
) -> Written:
    """Read answers as lists of items.

    A line that matches nothing, or only what is forbidden, leaves the item of its place. A title that the list has
    already leaves it too, or where that is in the list as well, the place empty. Of a list that is too long the end is
    cut; one that is too short is laid along the old one by their longest common subsequence, and what was left out
    stays.

    Parameters
    ----------
    texts : sequence of str
        What was written.
    before : sequence of sequence of int
        The lists as they were; 0 is a masked place.
    mode : {"sequence", "edits"}
        What was asked for.
    forbid : sequence of iterable of int, optional
        For each list, items that may not be new in it.

    Returns
    -------
    Written
        Without tokens; lists have the length of ``before``, 0 where a place is empty.

    Raises
    ------
    BenchError
        For another mode, or numbers of lists that differ.
    """
    start = time.perf_counter()
    if mode not in MODES:
        raise BenchError(f"answers cannot be read in mode '{mode}'; use {' or '.join(MODES)}")
    if len(texts) != len(before):
        raise BenchError(f"{len(texts)} answers for {len(before)} lists")
    counters = Counter(fresh_counters())
    parsed = []
    for text in texts:
        lines, strange = parse_lines(text, mode)
        counters["n_unparsable"] += strange + (not text.strip())
        parsed.append(lines)
    matches = iter(matcher.match([line.title for lines in parsed for line in lines]))
    lists = []
    for lines, items, banned in zip(parsed, before, banned_rows(forbid, len(before)), strict=True):
        reader = _Reader([int(item) for item in items], banned, counters)
        found = [reader.meant(*next(matches)) for _ in lines]
        lists.append(reader.edits(lines, found) if mode == "edits" else reader.sequence(found))
        changed = sum(old != new for old, new in zip(items, lists[-1], strict=True))
        counters.update(n_lists=1, n_changed_positions=changed, n_unchanged=int(not changed))
    return Written(lists, dict(counters), {}, time.perf_counter() - start)


@dataclass
class _Found:
    """What a line means: an item (0: nothing), how it was found, and whether there was a choice."""

    item: int
    way: str
    ambiguous: bool


class _Reader:
    """Reads the lines of one answer into one list."""

    def __init__(self, before: list[int], banned: set[int], counters: Counter[str]) -> None:
        self.before, self.banned, self.counters = before, banned, counters

    def meant(self, candidates: Sequence[int], way: str) -> _Found:
        """One of the items that a line may mean: what the list has already, else the likeliest one allowed."""
        here = [item for item in candidates if item in self.before]
        allowed = here or [item for item in candidates if item not in self.banned]
        return _Found(allowed[0], way, len(candidates) > 1) if allowed else _Found(0, NONE, False)

    def sequence(self, found: list[_Found]) -> list[int]:
        """A whole list that was written."""
        size = len(self.before)
        self.counters["n_len_mismatch"] += len(found) != size
        if len(found) >= size:
            return self._put(list(range(size)), found[:size])
        # Between two titles that stayed, lines take the places in order; those for which there is none are dropped.
        places: list[int | None] = []
        last = -1
        for line, place in [*common_subsequence([line.item for line in found], self.before), (len(found), size)]:
            between = range(last + 1, last + 1 + line - len(places))
            places += [free if free < place else None for free in between]
            places.append(place)
            last = place
        return self._put(places[: len(found)], found)

    def edits(self, lines: list[Line], found: list[_Found]) -> list[int]:
        """Edits that were written; one of no line of the list cannot be read, the first of a line counts."""
        places: list[int | None] = []
        kept = []
        for line, meant in zip(lines, found, strict=True):
            place = (line.number or 0) - 1
            if not 0 <= place < len(self.before):
                self.counters["n_unparsable"] += 1
                continue
            places.append(None if place in places else place)
            kept.append(meant)
        return self._put(places, kept)

    def _put(self, places: list[int | None], found: list[_Found]) -> list[int]:
        """The list with each line at its place; no title twice that was not there twice."""
        out = list(self.before)
        written = {place for place, line in zip(places, found, strict=True) if line.item}  # all others stay
        there = Counter(item for place, item in enumerate(self.before) if place not in written)
        had = Counter(self.before)
        for place, line in zip(places, found, strict=True):
            self.counters["n_lines"] += 1
            if place is None:
                self.counters["n_dropped"] += 1
                continue
            own = self.before[place]
            item, way = line.item, line.way
            if not item:
                self.counters["n_kept" if own else "n_dropped"] += 1
                continue
            if there[item] >= (had[item] if item == own else 1):
                item = own if there[own] < had[own] else 0
                way = "kept" if item else "dropped"
            elif line.ambiguous and item != own:
                self.counters["n_ambiguous"] += 1
            self.counters[f"n_{way}"] += 1
            there[item] += 1
            out[place] = item
        return out


def write_lists_freely(
    chat: ChatModel,
    conversations: Sequence[Sequence[Mapping[str, str]]],
    before: Sequence[Sequence[int]],
    matcher: TitleMatcher,
    *,
    mode: str = "sequence",
    forbid: Sequence[Iterable[int]] | None = None,
    max_tokens: int = 1024,
    seed: int = 0,
) -> Written:
    """Have a chat model rewrite lists in free text, and read what it wrote.

    Parameters
    ----------
    chat : ChatModel
        Asked with temperature 0.
    conversations : sequence
        What each list's rewriting is asked with.
    before, matcher, mode, forbid
        As for :func:`ground`.
    max_tokens : int
        Of an answer.
    seed : int
        For a server that wants one.

    Returns
    -------
    Written
        ``tokens`` has ``prompt`` and ``generated``, of answers that were not known already.
    """
    start = time.perf_counter()
    usage = getattr(chat, "usage", None)
    earlier = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
    answers = chat.complete(conversations, max_tokens=max_tokens, temperature=0.0, seed=seed)
    written = ground(answers, before, matcher, mode=mode, forbid=forbid)
    if usage:
        written.tokens["prompt"] = usage.prompt_tokens - earlier[0]
        written.tokens["generated"] = usage.completion_tokens - earlier[1]
    written.seconds = time.perf_counter() - start
    return written
