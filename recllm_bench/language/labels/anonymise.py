"""Names of items in a text, replaced by their tokens (``iid_17``), as in the figure of the ReLRec paper.

Titles are looked for as whole words, in any spacing and punctuation, the longest first. How much a title must look like
one depends on how many content words it has:

- three or more: it is replaced in upper and lower case alike;
- one or two: only where they are written as a name, with capitals;
- a single word ("Casino"): moreover its capital must not be that of a sentence's beginning, unless the word is in
  quotation marks, and no other title may have the word in it ("Southern" beside "Southern Spice" is a common word);
- none ("If", "It", "1984"): never, such a word is a word like any other.

Where several items share a title, the item that a label is about goes first, then the lowest id.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from recllm_bench.language.labels.documents import plain_title
from recllm_bench.language.labels.label_records import Labels, item_token
from recllm_bench.language.labels.phrases import FUNCTION_WORDS

_WORD = re.compile(r"[^\W_]+")
_BRACKETS_LAST = re.compile(r"\s*[(\[][^()\[\]]*[)\]]\s*$")
_LEAST_LETTERS = 3
_ANY_CASE = 3  # content words from which a title is one in lower case too
_WIDEST_GAP = 4
_BREAKS = frozenset("!?;\n_")
_SENTENCE_ENDS = frozenset(".!?:\n")
_QUOTES = frozenset("\"'“”‘’«»*")


class TitleNames:
    """Finds the titles of a catalogue in texts, in one pass over each text's words.

    Parameters
    ----------
    titles : sequence of str [n_items + 1]
        By item id; entry 0 and empty titles are skipped. ``"Matrix, The"`` is looked for as ``"The Matrix"`` too, and
        a title with a closing bracket also without it.

    Attributes
    ----------
    replaced : int
        Names replaced so far.
    """

    def __init__(self, titles: Sequence[str]) -> None:
        self.replaced = 0
        self._items: dict[tuple[str, ...], tuple[int, ...]] = {}
        self._longest: dict[str, int] = {}
        spread = Counter(word for words in {_folded(title) for title in titles} for word in set(words))
        for item, title in enumerate(titles):
            whole = plain_title(title)
            for form in {title, whole, _BRACKETS_LAST.sub("", whole)} if item and title else ():
                words = _folded(form)
                if not any(map(_is_content, words)):
                    continue
                if len(words) == 1 and (len(words[0]) < _LEAST_LETTERS or spread[words[0]] > 1):
                    continue
                known = self._items.get(words, ())
                self._items[words] = known if item in known else (*known, item)
                self._longest[words[0]] = max(len(words), self._longest.get(words[0], 0))

    def replace(self, text: str, about: int = 0, keep_own: bool = False) -> str:
        """The text with every title replaced by its item's token.

        Parameters
        ----------
        about : int
            The item the label describes, 0 for none.
        keep_own : bool
            Leave the title of that item in words.
        """
        spans = [match.span() for match in _WORD.finditer(text)]
        words = [text[start:end].casefold() for start, end in spans]
        pieces, done, place = [], 0, 0
        while place < len(words):
            for length in range(min(self._longest.get(words[place], 0), len(words) - place), 0, -1):
                items = self._items.get(tuple(words[place : place + length]))
                if items and self._is_name(text, spans[place : place + length]):
                    if not (keep_own and about in items):
                        pieces += [text[done : spans[place][0]], item_token(about if about in items else items[0])]
                        done = spans[place + length - 1][1]
                        self.replaced += 1
                    place += length - 1
                    break
            place += 1
        return "".join([*pieces, text[done:]]) if pieces else text

    def _is_name(self, text: str, spans: Sequence[tuple[int, int]]) -> bool:
        start, end = spans[0][0], spans[-1][1]
        if text[start - 1 : start] == "_" or text[end : end + 1] == "_":
            return False
        for (_, left), (right, _) in pairwise(spans):
            if right - left > _WIDEST_GAP or not _BREAKS.isdisjoint(text[left:right]):
                return False
        content = [text[left:right] for left, right in spans if _is_content(text[left:right].casefold())]
        if len(content) >= _ANY_CASE:
            return True
        if any(word[0].islower() for word in content):
            return False
        if len(spans) > 1:
            return True
        before = text[:start].rstrip()
        return start > 0 and (text[start - 1] in _QUOTES or bool(before and before[-1] not in _SENTENCE_ENDS))


def anonymise(
    labels: Labels, titles: Sequence[str], keep_own: bool = False, of_users: Sequence[bool] | None = None
) -> Labels:
    """Replace the titles of catalogue items in every label; counted as ``names replaced``.

    Parameters
    ----------
    keep_own : bool
        Leave an item's title in its own label.
    of_users : sequence of bool [n_users + 1], optional
        Whose labels are looked through; all by default.
    """
    names = TitleNames(titles)
    users = [
        tuple(names.replace(text) for text in versions) if of_users is None or of_users[user] else versions
        for user, versions in enumerate(labels.users)
    ]
    items = [
        tuple(names.replace(text, item, keep_own) for text in versions) for item, versions in enumerate(labels.items)
    ]
    counts = {**labels.counts, "names replaced": names.replaced}
    return replace(labels, users=users, items=items, counts=counts)


def _folded(title: str) -> tuple[str, ...]:
    return tuple(word.casefold() for word in _WORD.findall(title))


def _is_content(word: str) -> bool:
    return word not in FUNCTION_WORDS and not word.isdigit()
