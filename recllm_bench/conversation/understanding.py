"""What a sentence asks for, as any system could read it: catalogue facts that are wanted or refused, and who fits.

Nothing here knows a target. A sentence is read word by word against the catalogue's vocabulary of facts; titles in it
("something like ...") are passed over, and a negation turns the facts in its reach into refusals.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from recllm_bench.conversation.attributes import AttributeTable
from recllm_bench.conversation.redaction import SMALL_WORDS, words
from recllm_bench.conversation.spoken import SpokenFacts, spoken_title

if TYPE_CHECKING:
    from torch import Tensor

    from recllm_bench.conversation.attributes import Fact
    from recllm_bench.data.catalogue import Catalogue

Words = tuple[str, ...]
WANTED, UNWANTED = "wanted_facts", "unwanted_facts"
"""Columns of a case: numbers of :attr:`Understanding.terms`."""

_CLAUSE_ENDS = frozenset(".!?;:\n…")
_MASKS_KEPT = 1 << 28  # bytes
_NOT_LIST = """not no never without nothing neither nor none cannot avoid avoiding except excluding hate hates dislike
    dislikes skip skipping than minus dont doesnt didnt wont wouldnt cant couldnt isnt arent wasnt werent aint"""
_NOT_PAIR_LIST = """instead of/sick of/tired of/enough of/bored of/bored with/anything but/everything but/all but/
    fed up/stay away/far from"""
_NO_REFUSAL_LIST = """not only/not just/no doubt/no problem/no matter/not sure/not necessarily/never mind/nothing but/
    none other"""
_ENDING_LIST = "for me/my thing/my taste/what i/to my/my cup"
_TURN_LIST = "but i rather instead just only"
_ASK_LIST = "give show find recommend suggest make want prefer like need try"
_ABOUT_LIST = "about with featuring involving on"
_MAKER_LIST = "from by"
_HOLD_LIST = "to me ever would really"  # "do not really want"


def _pairs(text: str) -> frozenset[Words]:
    return frozenset(tuple(pair.split()) for pair in text.split("/"))


_NOT, _TURNS, _ASKS = (frozenset(text.split()) for text in (_NOT_LIST, _TURN_LIST, _ASK_LIST))
_CUES = {"word": frozenset(_ABOUT_LIST.split()), "brand": frozenset(_MAKER_LIST.split())}
_HOLDS = _NOT | set(_HOLD_LIST.split())
_NOT_PAIRS, _NO_REFUSAL, _ENDINGS = (_pairs(text) for text in (_NOT_PAIR_LIST, _NO_REFUSAL_LIST, _ENDING_LIST))
_DECADES = ("twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties")


class Wish(NamedTuple):
    """What one sentence asks for; numbers of :attr:`Understanding.terms`.

    Attributes
    ----------
    wanted, unwanted : tuple of int
        Facts that an item must have, and must not have.
    """

    wanted: tuple[int, ...]
    unwanted: tuple[int, ...] = ()


class Understanding:
    """Reads sentences by the vocabulary of a catalogue.

    Facts of several kinds that are said by the same words (a genre and a tag) are one term: an item has it when it has
    any of them.

    Parameters
    ----------
    catalogue : Catalogue
        Its titles are passed over.
    *tables : AttributeTable
        Its vocabularies of facts; by default all that simulated users know to say.

    Attributes
    ----------
    terms : list of tuple of str
        The words of each term.
    facts : dict of int to Fact
        The first fact of each term.
    matrix : scipy.sparse.csc_matrix, bool [n_items + 1, n_terms]
        Which item has which.
    """

    def __init__(self, catalogue: Catalogue, *tables: AttributeTable) -> None:
        tables = tables or (AttributeTable(catalogue), SpokenFacts(catalogue))
        facts = [fact for table in tables for fact in table.vocabulary]
        number: dict[Words, int] = {}
        place = [number.setdefault(_folded(fact.value), len(number)) for fact in facts]
        self._number, self.terms = number, list(number)
        self.facts = {term: fact for term, fact in reversed(list(zip(place, facts, strict=True)))}
        entries = (np.ones(len(place), dtype=np.int32), (np.arange(len(place)), place))
        merge = sparse.csr_matrix(entries, shape=(len(place), len(number)))
        self.matrix = ((sparse.hstack([table.matrix for table in tables]) @ merge) > 0).tocsc()
        self._forms: dict[Words, int] = {}
        noun = _folded(catalogue.domain)
        for term, spelled in enumerate(self.terms):
            if spelled and spelled != noun and not (len(spelled) == 1 and spelled[0] in SMALL_WORDS):
                self._forms[spelled] = term
        wordings = [table.wordings(fact) for table in tables for fact in table.vocabulary]
        for term, others in zip(place, wordings, strict=True):  # other forms never take a fact's own words
            if self.terms[term] in self._forms:
                for form in [*_other_forms(self.terms[term]), *map(_folded, others)]:
                    self._forms.setdefault(form, term)
        # A word of descriptions ("love") is meant where something is about it, a maker ("Always") behind "from".
        cues = [(term, _CUES.get(fact.kind)) for fact, term in zip(facts, place, strict=True)]
        plain = {term for term, cue in cues if cue is None}
        self._cues: dict[int, frozenset[str]] = {}
        for term, cue in cues:
            if cue is not None and term not in plain:
                self._cues[term] = self._cues.get(term, frozenset()) | cue
        self._longest = max(map(len, self._forms), default=0)
        titles = {_folded(form) for title in set(catalogue.titles) for form in (title, spoken_title(title))}
        titles |= {title[:-1] for title in titles if title[-1:] and len(title[-1]) == 4 and title[-1].isdigit()}
        self._titles = {title for title in titles if len(title) > 1 and title not in self._forms}
        self._longest_title = max(map(len, self._titles), default=0)
        self._read: dict[str, Wish] = {}
        self._masks: dict[Wish, np.ndarray] = {}

    def read(self, sentences: Sequence[str]) -> list[Wish]:
        """The wish of each sentence; equal sentences are read once."""
        for text in set(sentences) - self._read.keys():
            self._read[text] = self._wish(text)
        return [self._read[text] for text in sentences]

    def told(self, facts: Sequence[tuple[Sequence[Fact], Sequence[Fact]]]) -> list[Wish]:
        """Wishes of users whose wanted and refused facts are known."""
        return [Wish(*(tuple(sorted(set(map(self.term, side)) - {-1})) for side in sides)) for sides in facts]

    def term(self, fact: Fact) -> int:
        """The number of a fact; -1 of one that is not known."""
        return self._number.get(_folded(fact.value), -1)

    def fits(self, wish: Wish) -> np.ndarray:
        """Items that have all that is wanted and nothing that is refused, bool [n_items + 1]; padding never fits."""
        if wish not in self._masks:
            mask = np.ones(self.matrix.shape[0], dtype=bool)
            for terms, has in ((wish.wanted, True), (wish.unwanted, False)):
                for term in terms:
                    mask &= self.having(term) == has
            mask[0] = False
            if len(self._masks) * len(mask) > _MASKS_KEPT:
                self._masks.clear()
            self._masks[wish] = mask
        return self._masks[wish]

    def having(self, term: int) -> np.ndarray:
        """Items that have a term, bool [n_items + 1]."""
        mask = np.zeros(self.matrix.shape[0], dtype=bool)
        mask[self.matrix.indices[self.matrix.indptr[term] : self.matrix.indptr[term + 1]]] = True
        return mask

    def columns(self, wishes: Sequence[Wish]) -> dict[str, np.ndarray]:
        """Wishes as columns of ranking cases, ``int64 [n, ...]``, filled up with -1."""
        return {
            WANTED: _padded([wish.wanted for wish in wishes]),
            UNWANTED: _padded([wish.unwanted for wish in wishes]),
        }

    def fitting_first(self, scores: Tensor, batch: Any) -> Tensor:
        """Scores ``[B, n_items + 1]`` that put what fits before what does not; both keep their order, and their ties.

        Parameters
        ----------
        scores : float [B, n_items + 1]
        batch : mapping
            With :meth:`columns`; without them the scores stay.
        """
        if WANTED not in getattr(batch, "columns", batch):
            return scores
        rows = [
            [tuple(term for term in row if term >= 0) for row in batch[name].tolist()] for name in (WANTED, UNWANTED)
        ]
        return put_first(scores, np.stack([self.fits(Wish(*sides)) for sides in zip(*rows, strict=True)]))

    def _wish(self, text: str) -> Wish:
        spelled = words(text)
        found = [word for word, _, _ in spelled]
        gaps = [text[end:start] for (_, _, end), (_, start, _) in pairwise(spelled)]
        opens = [True, *(bool(_CLAUSE_ENDS & set(gap)) for gap in gaps)]
        sides: tuple[set[int], set[int]] = (set(), set())
        place, refused, prefers, cue, clause = 0, False, False, "", list[int]()
        while place < len(found):
            if opens[place]:
                refused, prefers, cue, clause = False, False, "", []
            length = self._title_at(found, opens, place)
            if length:
                place += length
                continue
            term, length = self._fact_at(found, opens, place)
            if length and term in self._cues and cue not in self._cues[term]:
                length = 0
            if length:
                sides[refused].add(term)
                clause.append(term)
                place += length
                continue
            if found[place] not in ("and", "or", "a", "an", "the"):
                cue = found[place]
            word, following = found[place], tuple(found[place : place + 2])
            after = gaps[place] if place < len(gaps) else ""
            denies = (word in _NOT or following in _NOT_PAIRS) and not (
                following in _NO_REFUSAL or (word in ("no", "none") and "," in after)
            )
            if denies:
                if clause and tuple(found[place + 1 : place + 3]) in _ENDINGS:  # "a western is not for me"
                    sides[0].difference_update(clause)
                    sides[1].update(clause)
                refused = True
            elif word in ("to", "over") and prefers and clause:  # "I prefer a drama to a western"
                refused = True
            elif word in _TURNS or (word in _ASKS and place and found[place - 1] not in _HOLDS):
                refused = refused and following in (("rather", "than"), ("just", "not"))
            prefers = prefers or word in ("prefer", "rather")
            place += 2 if following in _NOT_PAIRS or following in _NO_REFUSAL else 1
        return Wish(tuple(sorted(sides[0])), tuple(sorted(sides[1] - sides[0])))

    def _fact_at(self, found: list[str], opens: list[bool], place: int) -> tuple[int, int]:
        """The longest fact whose words begin here, and how many words; 0 words without one."""
        for length in range(min(self._longest, len(found) - place), 0, -1):
            term = self._forms.get(tuple(found[place : place + length]))
            if term is not None and not any(opens[place + 1 : place + length]):
                return term, length
        return 0, 0

    def _title_at(self, found: list[str], opens: list[bool], place: int) -> int:
        """Words of the longest title of several words that begins here; titles may hold a colon."""
        for length in range(min(self._longest_title, len(found) - place), 1, -1):
            if tuple(found[place : place + length]) in self._titles:
                return length
        return 0


def reader_for(job: Any) -> Understanding:
    """Reads the sentences of a job's users: by the catalogue's facts, and by those that its simulator alone knows."""
    catalogue, own = job.dataset.catalogue, job.words.attributes
    tables = [AttributeTable(catalogue), SpokenFacts(catalogue)]
    return Understanding(catalogue, *tables, *([] if type(own) in map(type, tables) else [own]))


def put_first(scores: Tensor, fits: np.ndarray) -> Tensor:
    """Scores ``[B, n]`` that put what fits (bool ``[B, n]``) before what does not; both keep order and ties."""
    import torch

    values, places = scores.sort(dim=1)
    steps = torch.nn.functional.pad((values[:, 1:] > values[:, :-1]).float().cumsum(1), (1, 0))
    ranks = torch.empty_like(steps).scatter_(1, places, steps)
    return ranks + torch.from_numpy(fits).to(ranks.device) * scores.shape[1]


def _padded(rows: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Rows of different lengths as one array, filled up with -1."""
    filled = np.full((len(rows), max(map(len, rows), default=0)), -1, dtype=np.int64)
    for place, row in enumerate(rows):
        filled[place, : len(row)] = row
    return filled


def _folded(text: str) -> Words:
    return tuple(word for word, _, _ in words(text))


def _other_forms(spelled: Words) -> list[Words]:
    """Singular and plural of the last word; other ways to name a decade."""
    *first, last = spelled
    forms = [last + "s", last[:-1] + "ies" if last.endswith("y") else last + "es"]
    if last.endswith("ies"):
        forms.append(last[:-3] + "y")
    elif last.endswith("s") and not last.endswith("ss"):
        forms.append(last[:-1])
    if len(spelled) == 1 and len(last) == 5 and last[:4].isdigit() and last.endswith("0s"):
        forms = [last[2:]] if last[:2] == "19" else []
        forms += [_DECADES[int(last[2]) - 2]] if last[:2] == "19" and last[2] > "1" else []
    elif last.isdigit():
        forms = []
    return [(*first, form) for form in forms]
