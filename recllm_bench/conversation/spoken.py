"""What people say of an item: kinds, maker, price, time, words of its description; and how each is worded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from recllm_bench.conversation.attributes import AttributeTable, Fact
from recllm_bench.conversation.redaction import SMALL_WORDS, words

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue

_ERA_STEP = 5  # years
_ERA_SHARE = 0.25  # of the items, at each end of the years
_WORD_SHARES = (0.002, 0.1)  # a word of descriptions is a fact when it stands in this share of them
_WORD_BURST = (
    1.25  # and, where it stands, more often than once: words of content come in bursts (Church and Gale, 1995)
)
_WORD_MOST, _READ = 1000, 100  # words in the vocabulary; words that are read of a description
_BRAND_ITEMS = 3  # of a maker, below which to name it names the item
CHEAP, MODERATE, EXPENSIVE = "cheap", "moderately priced", "expensive"
_PRICES = {
    CHEAP: ("not too expensive", "not very expensive", "inexpensive", "affordable"),
    MODERATE: ("medium-priced", "mid-priced"),
    EXPENSIVE: ("high-end", "upmarket"),
}
"""Bands of prices with other words for them."""
_PLAIN_WORD = re.compile(r"[a-z]{4,14}")
_COUNTED = frozenset(["comedy", "drama", "thriller", "western", "musical", "documentary", "mystery"])
_NOUNS = _COUNTED | {"romance", "fantasy"}
_MODIFIERS = frozenset(["war", "crime", "musical", "western", "documentary"])
MOODS = {
    "action": "action-packed",
    "adventure": "adventurous",
    "animation": "animated",
    "children's": "kid-friendly",
    "comedy": "funny",
    "drama": "dramatic",
    "fantasy": "magical",
    "film-noir": "noir",
    "horror": "frightening",
    "mystery": "mysterious",
    "romance": "romantic",
    "sci-fi": "futuristic",
    "thriller": "suspenseful",
}
"""What people say for a kind when they speak of a mood; whoever understands a sentence may read them."""


class SpokenFacts(AttributeTable):
    """Facts as people have them: vague ones, and no exact year.

    Beside categories: decades; whether an item is from before or after a year that has a quarter of the catalogue on
    its far side; words of descriptions that stand in .2 to 10 % of them, and there in bursts; makers of three items or
    more; and in which third of the catalogue's prices an item lies.
    """

    def _known(self, catalogue: Catalogue) -> Iterable[list[Fact]]:
        eras = _eras(catalogue.years[1:])
        told, makers, bands = _telling_words(catalogue), _makers(catalogue), _price_bands(catalogue)
        for item in range(1, len(catalogue)):
            facts = [Fact("category", name.strip()) for name in catalogue.categories[item] if name.strip()]
            year = int(catalogue.years[item])
            if year:
                facts += [
                    Fact("era", f"{side} {mark}")
                    for side, mark in eras
                    if (year > mark if side == "after" else year < mark)
                ]
                facts.append(Fact("decade", f"{year // 10 * 10}s"))
            facts += [Fact("brand", makers[item])] if makers[item] else []
            facts += [Fact("price", bands[item])] if bands[item] else []
            yield facts + [Fact("word", word) for word in told[item]]

    def wordings(self, fact: Fact) -> tuple[str, ...]:
        """Other words for a fact than its own."""
        if fact.kind == "price":
            return _PRICES[fact.value]
        mood = MOODS.get(fact.value.casefold()) if fact.kind == "category" else None
        return (mood,) if mood else ()


def noun_phrase(facts: Sequence[Fact], domain: str, vague: bool = False) -> str:
    """Facts as people join them: ``"a romantic comedy from the 1990s"``; ``"a movie"`` without any.

    Parameters
    ----------
    facts : sequence of Fact
        At most one of time.
    domain : str
        What an item is called.
    vague : bool
        Say moods where there are words for them.
    """
    moods, kinds, head, listed = [], [], "", []
    for fact in facts:
        plain = fact.value.casefold()
        if fact.kind == "price" and not (vague and fact.value == CHEAP):
            moods.append(fact.value)
        if fact.kind != "category":
            continue
        if plain in _NOUNS and not head and not vague:
            head = plain
        elif plain in MOODS and (vague or plain in _NOUNS or plain == "animation"):
            moods.append(MOODS[plain])
        elif plain in MOODS or plain in _MODIFIERS:
            kinds.append(plain)
        elif fact.value.isalpha() and not plain.endswith("s"):
            kinds.append(fact.value)
        else:
            listed.append(fact.value)
    joined = " " if head or "children's" in kinds else " and "
    text = article(" ".join([", ".join(moods), joined.join(kinds), head or domain]).strip().replace("  ", " "))
    if listed:
        text += f" listed under {' and '.join(listed)}"
    about = [fact.value for fact in facts if fact.kind == "word"]
    text += f" about {' and '.join(about)}" if about else ""
    for fact in facts:
        if fact.kind == "brand":
            text += f" from {fact.value}"
        elif fact.kind == "price" and vague and fact.value == CHEAP:
            text += f" that is {_PRICES[CHEAP][0]}"
    for fact in facts:
        if fact.kind == "decade":
            text += f" from the {fact.value}"
        elif fact.kind == "era":
            text += f" made {fact.value}"
    return text


def refused_phrase(fact: Fact) -> str:
    """A category as what somebody does not want: ``"horror"``, ``"comedies"``."""
    plain = fact.value.casefold()
    if plain in _COUNTED:
        return f"{plain[:-1]}ies" if plain.endswith("y") else f"{plain}s"
    return {"children's": "children's stuff"}.get(plain, plain if plain in MOODS or plain in _MODIFIERS else fact.value)


def spoken_title(title: str) -> str:
    """A title as it is said: without brackets, its article in front."""
    bare = re.sub(r"\s*[(\[][^()\[\]]*[)\]]", "", title).strip() or title
    moved = re.match(r"^(?P<rest>.+), (?P<article>The|An?|L[ae]s?|El|Il|Der|Die|Das)$", bare)
    return f"{moved['article']} {moved['rest']}" if moved else bare


def with_facts(catalogue: Catalogue, item: int) -> str:
    """An item as it is shown to a chat model: its title, year and categories."""
    facts = [str(catalogue.years[item])] if catalogue.years[item] else []
    return f"{spoken_title(catalogue.titles[item])} ({', '.join([*facts, *catalogue.categories[item]])})"


def article(noun: str) -> str:
    """A noun with its indefinite article."""
    return ("an " if noun[:1].casefold() in tuple("aeiou") else "a ") + noun


def _eras(years: np.ndarray) -> list[tuple[str, int]]:
    """Years that have about a quarter of the dated items before or after them."""
    dated = np.asarray(years)[np.asarray(years) > 0]
    if not len(dated) or dated.max() - dated.min() < 2 * _ERA_STEP:
        return []
    marks = np.arange(dated.min() // _ERA_STEP * _ERA_STEP + _ERA_STEP, dated.max(), _ERA_STEP)
    old = np.abs(np.array([(dated < mark).mean() for mark in marks]) - _ERA_SHARE).argmin()
    new = np.abs(np.array([(dated > mark).mean() for mark in marks]) - _ERA_SHARE).argmin()
    return [("before", int(marks[old])), ("after", int(marks[new]))]


def _makers(catalogue: Catalogue) -> list[str]:
    """Who makes each item, as most of the maker's items spell it; "" of makers with few items, or none to be said."""
    names = [" ".join(name.split()).rstrip(".") for name in catalogue.brands] or [""] * len(catalogue)
    spellings: dict[str, Counter[str]] = {}
    for name in filter(None, names):
        spellings.setdefault(name.casefold(), Counter())[name] += 1
    told = {
        folded: min(found, key=lambda name: (-found[name], name))
        for folded, found in spellings.items()
        if found.total() >= _BRAND_ITEMS and any(map(str.isalpha, folded)) and not set(".!?;:") & set(folded)
    }
    return [told.get(name.casefold(), "") for name in names]


def _price_bands(catalogue: Catalogue) -> list[str]:
    """In which third of the known prices each item lies; "" where they are too few or too alike to have thirds."""
    prices = np.full(len(catalogue), np.nan) if catalogue.prices is None else np.asarray(catalogue.prices, np.float64)
    known = prices[~np.isnan(prices)]
    if len(np.unique(known)) < len(_PRICES):
        return [""] * len(catalogue)
    low, high = np.quantile(known, (1 / 3, 2 / 3), method="lower")
    place = np.where(prices <= low, 0, np.where(prices <= high, 1, 2))
    return ["" if unknown else list(_PRICES)[band] for unknown, band in zip(np.isnan(prices), place, strict=True)]


def _telling_words(catalogue: Catalogue) -> list[list[str]]:
    """For each item id the words of its description that are facts, rarest first."""
    texts = catalogue.descriptions_of(range(len(catalogue)))
    counts = [Counter(_PLAIN_WORD.findall(" ".join(text.split()[:_READ]).casefold())) for text in texts]
    items, total = Counter[str](), Counter[str]()
    for found in counts:
        items.update(found.keys())
        total.update(found)
    described = sum(map(bool, counts))
    low, high = max(3, _WORD_SHARES[0] * described), _WORD_SHARES[1] * described
    own = {word for word, _, _ in words(catalogue.domain)} | SMALL_WORDS
    known = [
        word for word, n in items.items() if low <= n <= high and total[word] >= _WORD_BURST * n and word not in own
    ]
    kept = set(sorted(known, key=lambda word: (-items[word], word))[:_WORD_MOST])
    return [sorted(kept & found.keys(), key=lambda word: (items[word], word)) for found in counts]
