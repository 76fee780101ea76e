"""Which item of the catalogue somebody means by a title: exactly, by a part of it, or by its spelling."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from recllm_bench.conversation.redaction import SMALL_WORDS, other_spellings, title_forms
from recllm_bench.talk.vocabulary import Words, folded

_YEAR = re.compile(r"[(\[]?\b(1[89]\d\d|20\d\d)\b[)\]]?\s*$")
_LEAST_RATIO, _CLEAR = 78.0, 6.0  # of spellings; a lead under which it is asked which one is meant
_MOST = 5  # items between which it is asked


class TitlesSaid:
    """Finds items by what people call them.

    Parameters
    ----------
    titles : sequence of str
        By item id; entry 0 is padding.
    years : int array [n_items + 1]
        0 where unknown.
    popularity : array [n_items + 1]
        Of several, the most popular comes first.
    """

    def __init__(self, titles: Sequence[str], years: np.ndarray, popularity: np.ndarray) -> None:
        self._years, self._weight = years, popularity
        self._forms: dict[Words, list[int]] = {}
        self._whole: dict[Words, list[int]] = {}
        for item in range(1, len(titles)):
            named = title_forms(titles[item]) if titles[item] else []
            named += [other for form in named for other in other_spellings(form)]
            for place, form in enumerate(filter(None, dict.fromkeys(map(folded, named)))):
                (self._whole if place == 0 else self._forms).setdefault(form, []).append(item)
        self.longest = max(map(len, [*self._whole, *self._forms]), default=0)
        self._texts = [" ".join(form) for form in dict.fromkeys([*self._whole, *self._forms])]

    def exact(self, text: str | Words) -> list[int]:
        """Items that are called exactly this, the most popular first; a year at its end decides between them."""
        form = folded(text) if isinstance(text, str) else text
        bare = form
        found = self._whole.get(form, []) or self._forms.get(form, [])
        if not found and len(form) > 1 and re.fullmatch(r"1[89]\d\d|20\d\d", form[-1]):
            bare = form[:-1]
            named = [*self._whole.get(bare, []), *self._forms.get(bare, [])]
            found = [item for item in named if str(self._years[item]) == form[-1]]
        return self._ordered(found)

    def find(self, text: str) -> tuple[list[int], str]:
        """Items that a title may mean, the likeliest first, and how it was found.

        Returns
        -------
        items : list of int
            Empty when none is near; more than one when it is not clear which is meant.
        way : str
            ``exact``, ``part`` or ``spelling``; empty without items.
        """
        if found := self.exact(text):
            return found, "exact"
        asked = " ".join(folded(_YEAR.sub("", text)) or folded(text))
        if not asked:
            return [], ""
        if any(word not in SMALL_WORDS for word in asked.split()):
            holding = [form for form in self._texts if f" {asked} " in f" {form} "]
            if found := self._items(holding):
                return found, "part"
        from rapidfuzz import fuzz, process

        near = process.extract(asked, self._texts, scorer=fuzz.token_sort_ratio, limit=20, score_cutoff=_LEAST_RATIO)
        if near:
            best = near[0][1]
            return self._items([form for form, score, _ in near if score > best - _CLEAR]), "spelling"
        return [], ""

    def _items(self, forms: Sequence[str]) -> list[int]:
        keys = [tuple(form.split()) for form in forms]
        return self._ordered([item for key in keys for item in self._whole.get(key) or self._forms[key]])

    def _ordered(self, items: Sequence[int]) -> list[int]:
        return sorted(dict.fromkeys(items), key=lambda item: (-self._weight[item], item))[:_MOST]
