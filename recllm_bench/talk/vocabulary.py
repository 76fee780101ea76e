"""The words by which a catalogue's facts are said: its own categories, their parts, and what people say for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from recllm_bench.conversation.attributes import AttributeTable, Fact
from recllm_bench.conversation.redaction import SMALL_WORDS, words
from recllm_bench.conversation.spoken import MOODS, SpokenFacts

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue
    from recllm_bench.talk.neighbours import Neighbours

Words = tuple[str, ...]
_TITLE_SHARE = 0.5  # of the titles, above which a word of them says nothing


def word_set(text: str) -> frozenset[str]:
    """Words with spaces between them, as a set."""
    return frozenset(text.split())


NOUNS = word_set(
    """movie film flick picture show cinema game title product item thing stuff book album record cd song device
    program business place"""
)
"""What items are called: never a fact."""

_SAID = """
action: fights, explosions / action-packed, explosive
adventure: adventures, quest, quests / adventurous
animation: cartoon, cartoons, anime, animated film / animated
children's, children, kids, family: child, kids film, for my kids, for my children / kid-friendly, family-friendly
comedy: comic, laugh, laughs, jokes, funny stuff, comedies / funny, funnier, hilarious, humorous, comedic, amusing
crime: gangster, gangsters, mafia, heist, mob / criminal
documentary: documentaries, docs, true stories / factual
drama: dramas, tearjerker / dramatic, sad, moving, serious, emotional
fantasy: magic, wizards, fairy tale, fairy tales / magical
film-noir: noirs / noirish, hard-boiled
horror: horrors, slasher, ghost story / scary, scarier, frightening, creepy, spooky, terrifying, gory
musical: musicals, singing
mystery: mysteries, whodunit, detective, detectives / mysterious
romance: love story, love stories, romances / romantic
sci-fi, science fiction: scifi, sf, space, aliens, robots / futuristic
thriller: suspense, thrillers / suspenseful, thrilling, tense
war: war stories, soldiers, battles / warlike
western: cowboys, cowboy, westerns, wild west
rpg, role-playing: role playing, rpgs, role playing game, jrpg
shooter, fps: shooting, first person shooter, shooters
strategy: tactics, tactical / strategic
puzzle, puzzles: brain teaser, brain teasers
racing: cars, race, races, driving
simulation: simulator, simulators, sim
sports: sport / sporty
multiplayer, multi-player: with friends, online play
free to play: free / free
""".strip()
"""A line for what people mean: names that a catalogue may have for it: other nouns for it / adjectives."""


class Meant(NamedTuple):
    """What a form of words stands for.

    Attributes
    ----------
    terms : tuple of int
        Columns of :attr:`Vocabulary.matrix`; an item has it when it has any of them.
    label : str
        Its name in the catalogue.
    adjective : bool
        Whether it is said beside a noun: "romantic" joins what was asked for before, "a western" takes its place.
    content : bool
        Whether it is a word of descriptions or titles, meant only where something is said to be about it, or before
        what items are called ("a pirate game"); anywhere where there are no categories.
    """

    terms: tuple[int, ...]
    label: str
    adjective: bool = False
    content: bool = False


class Vocabulary:
    """What can be asked of a catalogue, and the words for it.

    Parameters
    ----------
    catalogue : Catalogue
        Its categories (and their parts: "playstation" for every category with that word), its years, telling words of
        its descriptions and titles. Facts that all items share say nothing and are no part of it.
    neighbours : Neighbours, optional
        Say what is like an item without categories.

    Attributes
    ----------
    facts : list of Fact
        Categories, the most common first, then words of descriptions and of titles.
    matrix : scipy.sparse.csc_matrix, bool [n_items + 1, n_facts]
        Which item has which.
    years : int array [n_items + 1]
        0 where unknown.
    old, new : int
        Years before and after which about a quarter of the dated items lie; 0 where years are few or unknown.
    """

    def __init__(self, catalogue: Catalogue, neighbours: Neighbours | None = None) -> None:
        self.neighbours = neighbours
        self.domain, self.years = catalogue.domain, np.asarray(catalogue.years)
        table = AttributeTable(catalogue)
        kept = [place for place, fact in enumerate(table.vocabulary) if fact.kind == "category"]
        self.facts, blocks = [table.vocabulary[place] for place in kept], [table.matrix.tocsc()[:, kept]]
        self.n_categories = len(kept)
        spoken = SpokenFacts(catalogue)
        told = [place for place, fact in enumerate(spoken.vocabulary) if fact.kind == "word"]
        self.facts += [spoken.vocabulary[place] for place in told]
        blocks.append(spoken.matrix.tocsc()[:, told])
        named, of_title = _title_words(catalogue)
        self.facts += [Fact("title", word) for word in named]
        blocks.append(of_title)
        self.matrix = (sparse.hstack(blocks) > 0).tocsc()
        self._rows = self.matrix.tocsr()
        eras = dict(fact.value.split() for fact in spoken.vocabulary if fact.kind == "era")
        self.old, self.new = int(eras.get("before", 0)), int(eras.get("after", 0))
        self.forms: dict[Words, Meant] = {}
        self._add_categories()
        self._add_synonyms()
        self._add_words()
        self.longest = max(map(len, self.forms), default=0)
        self.has_years = bool(self.years.any())

    def has(self, terms: Iterable[int]) -> np.ndarray:
        """Items that have any of some facts, bool [n_items + 1]."""
        found = np.zeros(self.matrix.shape[0], dtype=bool)
        for term in terms:
            found[self.matrix.indices[self.matrix.indptr[term] : self.matrix.indptr[term + 1]]] = True
        return found

    def categories_of(self, item: int) -> list[int]:
        """The telling categories of an item, as terms."""
        return [term for term in self.terms_of(item) if term < self.n_categories]

    def terms_of(self, item: int) -> list[int]:
        """Every fact of an item, as terms in ascending order."""
        return sorted(self._rows.indices[self._rows.indptr[item] : self._rows.indptr[item + 1]].tolist())

    def examples(self, n: int = 3) -> list[str]:
        """Names of the most common categories."""
        return [fact.value for fact in self.facts[: min(n, self.n_categories)]]

    def _add_categories(self) -> None:
        own: dict[Words, list[int]] = {}
        parts: dict[Words, list[int]] = {}
        nouns = NOUNS | {form for word, _, _ in words(self.domain) for form in (word, *_numbers_of(word))}
        for term in range(self.n_categories):
            spelled = folded(self.facts[term].value)
            own.setdefault(spelled, []).append(term)
            for word in set(spelled):
                if len(spelled) > 1 and len(word) > 2 and not word.isdigit() and word not in nouns | SMALL_WORDS:
                    parts.setdefault((word,), []).append(term)
        for spelled, terms in own.items():
            if spelled and not (len(spelled) == 1 and spelled[0] in nouns | SMALL_WORDS):
                self.forms[spelled] = Meant(tuple(terms), self.facts[terms[0]].value)
        for table, named in ((own, False), (parts, True)):
            for spelled, terms in table.items():
                label = f"any {spelled[0]}" if named and len(terms) > 1 else self.facts[terms[0]].value
                for last in (spelled[-1], *_numbers_of(spelled[-1])) if spelled else ():
                    if (form := (*spelled[:-1], last)) not in self.forms and form[0] not in nouns:
                        self.forms[form] = Meant(tuple(terms), label)

    def _add_words(self) -> None:
        """Words of descriptions and titles; one that is both is both."""
        terms: dict[str, list[int]] = {}
        for term in range(self.n_categories, len(self.facts)):
            terms.setdefault(self.facts[term].value, []).append(term)
        for word, own in terms.items():
            both = [*own, *(term for other in _numbers_of(word) for term in terms.get(other, []))]
            told = any(self.facts[term].kind == "word" for term in both)
            label = f"about {word}" if told else f"'{word}' in the title"
            for form in (word, *_numbers_of(word)):
                self.forms.setdefault((form,), Meant(tuple(both), label, content=True))

    def _add_synonyms(self) -> None:
        said = [line.partition(":")[::2] for line in _SAID.splitlines()]
        for names, others in said:
            known = [self.forms[form] for name in names.split(",") if (form := folded(name)) in self.forms]
            if not known:
                continue
            terms = tuple(dict.fromkeys(term for meant in known for term in meant.terms))
            plain, _, adjectives = others.partition("/")
            mood = MOODS.get(names.split(",")[0], "")
            for text, adjective in ((names, False), (plain, False), (f"{adjectives},{mood}", True)):
                for form in filter(None, map(folded, text.split(","))):
                    self.forms.setdefault(form, Meant(terms, known[0].label, adjective))


def _title_words(catalogue: Catalogue) -> tuple[list[str], sparse.csc_matrix]:
    """Words that stand in two titles or more, and not in half of them; which item has which."""
    of_item = [set(folded(title)) for title in catalogue.titles]
    counts = Counter(word for found in of_item for word in found)
    most = max(2.0, _TITLE_SHARE * len(of_item))
    named = [word for word, n in counts.items() if 2 <= n <= most and len(word) > 2 and word not in SMALL_WORDS]
    column = {word: place for place, word in enumerate(sorted(named))}
    pairs = [(item, column[word]) for item, found in enumerate(of_item) for word in found if word in column]
    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    shape = (len(of_item), len(column))
    return list(column), sparse.csc_matrix((np.ones(len(rows), dtype=np.int32), (rows, columns)), shape=shape)


def folded(text: str) -> Words:
    """Words of a text without case, accents and punctuation."""
    return tuple(word for word, _, _ in words(text))


def _numbers_of(word: str) -> list[str]:
    """Singular and plural of a word."""
    if word.endswith("ies"):
        return [word[:-3] + "y"]
    if word.endswith("s") and not word.endswith("ss"):
        return [word[:-1]]
    return [word[:-1] + "ies"] if word.endswith("y") else [word + "s"]


class Slots(AttributeTable):
    """Invented words that stand in a sentence for what was found there; no item has them.

    So whoever reads negations by a vocabulary reads them for years, titles and synonyms too.
    """

    def __init__(self, catalogue: Catalogue, names: Iterable[str]) -> None:
        super().__init__(catalogue)
        self.vocabulary = [Fact("slot", name) for name in names]
        self.matrix = sparse.csr_matrix((len(catalogue), len(self.vocabulary)), dtype=np.int32)

    def _known(self, catalogue: Catalogue) -> Iterable[list[Fact]]:
        return [[] for _ in range(1, len(catalogue))]
