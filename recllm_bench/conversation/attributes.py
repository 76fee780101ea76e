"""What can be said of an item without naming it: facts of the catalogue, and how many items fit some of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from recllm_bench.artifacts import content_hash

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue

_SETS_AT_ONCE = 256
_REFUSED = 1 << 16  # what one refused fact adds where a wanted one adds 1


class Fact(NamedTuple):
    """One attribute of an item.

    Attributes
    ----------
    kind : str
        ``"category"``, ``"decade"``, ``"year"``; of people also ``"era"``, ``"brand"``, ``"price"`` and ``"word"``.
    value : str
        Such as ``"Comedy"``, ``"1990s"``, ``"1995"``, ``"before 1970"``, ``"Fender"``, ``"cheap"``, ``"banjo"``.
    """

    kind: str
    value: str


class AttributeTable:
    """Which item has which attribute.

    Attributes every item shares say nothing and are left out.

    Parameters
    ----------
    catalogue : Catalogue
        Its categories and years.

    Notes
    -----
    A class under this one has other facts: it says by ``_known(catalogue)`` what is known of each item.

    Attributes
    ----------
    vocabulary : list of Fact
        Every attribute, most common first; equally common ones in alphabetical order.
    matrix : scipy.sparse.csr_matrix, int32 [n_items + 1, n_attributes]
        1 where the item has the attribute; row 0 (padding) is empty. Columns follow ``vocabulary``, so the
        attributes of a row stand in the fixed order in which they are uttered.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        of_item = [[], *(list(dict.fromkeys(facts)) for facts in self._known(catalogue))]
        counts: dict[Fact, int] = {}
        for fact in (fact for facts in of_item for fact in facts):
            counts[fact] = counts.get(fact, 0) + 1
        telling = [fact for fact, count in counts.items() if count < len(of_item) - 1 or count == 1]
        self.vocabulary = sorted(telling, key=lambda fact: (-counts[fact], fact))
        self.index = {fact: column for column, fact in enumerate(self.vocabulary)}
        columns = [sorted(self.index[fact] for fact in facts if fact in self.index) for facts in of_item]
        self._facts = [tuple(self.vocabulary[column] for column in row) for row in columns]
        lengths = np.array([len(row) for row in columns])
        flat = np.array([column for row in columns for column in row], dtype=np.int32)
        pointers = np.concatenate([[0], np.cumsum(lengths)])
        shape = (len(of_item), len(self.vocabulary))
        self.matrix = sparse.csr_matrix((np.ones(len(flat), dtype=np.int32), flat, pointers), shape=shape)

    def _known(self, catalogue: Catalogue) -> Iterable[list[Fact]]:
        for item in range(1, len(catalogue)):
            facts = [Fact("category", name.strip()) for name in catalogue.categories[item] if name.strip()]
            year = int(catalogue.years[item])
            yield [*facts, Fact("decade", f"{year // 10 * 10}s"), Fact("year", str(year))] if year else facts

    @property
    def key(self) -> dict[str, Any]:
        """Size of the vocabulary and its hash: part of who speaks."""
        return {"facts": len(self.vocabulary), "vocabulary": content_hash([list(fact) for fact in self.vocabulary])}

    def facts(self, item: int) -> tuple[Fact, ...]:
        """Attributes of an item, most common in the catalogue first."""
        return self._facts[item]

    def wordings(self, fact: Fact) -> tuple[str, ...]:
        """Other words for a fact than its own; there are none here."""
        return ()

    def count_matches(
        self, fact_sets: Sequence[Sequence[Fact]], refused: Sequence[Sequence[Fact]] | None = None
    ) -> np.ndarray:
        """How many items have all facts of a set, and none of those refused: ``n_match``, what the words give away.

        Parameters
        ----------
        fact_sets : sequence of sequence of Fact
            Facts uttered in each dialogue. The empty set matches every item.
        refused : sequence of sequence of Fact, optional
            Facts that an item must not have, for each set.

        Returns
        -------
        int64 [len(fact_sets)]
        """
        pairs = zip(fact_sets, refused or [()] * len(fact_sets), strict=True)
        row_of: dict[tuple[frozenset, frozenset], int] = {}
        rows = [row_of.setdefault((frozenset(facts), frozenset(never)), len(row_of)) for facts, never in pairs]
        unique = list(row_of)
        counts = np.zeros(len(unique), dtype=np.int64)
        for start in range(0, len(unique), _SETS_AT_ONCE):
            chunk = unique[start : start + _SETS_AT_ONCE]
            asked = [
                (self.index[fact], row, weight)
                for row, sides in enumerate(chunk)
                for facts, weight in zip(sides, (1, _REFUSED), strict=True)
                for fact in facts
                if fact in self.index
            ]
            columns, sets, weights = np.array(asked, dtype=np.int64).reshape(-1, 3).T
            shape = (len(self.vocabulary), len(chunk))
            shared = (self.matrix @ sparse.csr_matrix((weights, (columns, sets)), shape=shape)).tocsc()
            sizes = np.array([len(facts) for facts, _ in chunk])
            of_set = np.repeat(np.arange(len(chunk)), np.diff(shared.indptr))
            full = np.bincount(of_set[shared.data == sizes[of_set]], minlength=len(chunk))
            touched = np.diff(shared.indptr)  # where nothing is wanted, what has no refused fact fits
            counts[start : start + len(chunk)] = np.where(sizes, full, self.matrix.shape[0] - 1 - touched)
        return counts[rows]
