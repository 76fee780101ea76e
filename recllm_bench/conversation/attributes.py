"""What can be said of an item without naming it: categories, decade, year."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue

_SETS_AT_ONCE = 256


class Fact(NamedTuple):
    """One attribute of an item.

    Attributes
    ----------
    kind : str
        ``"category"``, ``"decade"`` or ``"year"``.
    value : str
        Such as ``"Comedy"``, ``"1990s"``, ``"1995"``.
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

    Attributes
    ----------
    vocabulary : list of Fact
        Every attribute, most common first; equally common ones in alphabetical order.
    matrix : scipy.sparse.csr_matrix, int32 [n_items + 1, n_attributes]
        1 where the item has the attribute; row 0 (padding) is empty. Columns follow ``vocabulary``, so the
        attributes of a row stand in the fixed order in which they are uttered.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        of_item: list[list[Fact]] = [[]]
        counts: dict[Fact, int] = {}
        for item in range(1, len(catalogue)):
            facts = [Fact("category", name.strip()) for name in catalogue.categories[item] if name.strip()]
            year = int(catalogue.years[item])
            if year:
                facts += [Fact("decade", f"{year // 10 * 10}s"), Fact("year", str(year))]
            facts = list(dict.fromkeys(facts))
            of_item.append(facts)
            for fact in facts:
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

    def facts(self, item: int) -> tuple[Fact, ...]:
        """Attributes of an item, most common in the catalogue first."""
        return self._facts[item]

    def count_matches(self, fact_sets: Sequence[Sequence[Fact]]) -> np.ndarray:
        """How many items have all facts of a set: ``n_match``, the difficulty of the simulation.

        Parameters
        ----------
        fact_sets : sequence of sequence of Fact
            Facts uttered in each dialogue. The empty set matches every item.

        Returns
        -------
        int64 [len(fact_sets)]
        """
        row_of: dict[frozenset, int] = {}
        rows = [row_of.setdefault(frozenset(facts), len(row_of)) for facts in fact_sets]
        unique = list(row_of)
        counts = np.zeros(len(unique), dtype=np.int64)
        for start in range(0, len(unique), _SETS_AT_ONCE):
            chunk = unique[start : start + _SETS_AT_ONCE]
            pairs = [(self.index.get(fact, -1), row) for row, facts in enumerate(chunk) for fact in facts]
            known = [(column, row) for column, row in pairs if column >= 0]
            shape = (len(self.vocabulary), len(chunk))
            columns, sets = np.array(known, dtype=np.int64).reshape(-1, 2).T
            asked = sparse.csr_matrix((np.ones(len(known), dtype=np.int32), (columns, sets)), shape=shape)
            shared = (self.matrix @ asked).tocsc()  # attributes an item shares with a set
            sizes = np.array([len(facts) for facts in chunk])
            full = shared.data == np.repeat(sizes, np.diff(shared.indptr))
            counts[start : start + len(chunk)] = np.add.reduceat(
                np.concatenate([full, [0]]).astype(np.int64), shared.indptr[:-1]
            ) * (np.diff(shared.indptr) > 0)
            counts[start : start + len(chunk)][sizes == 0] = self.matrix.shape[0] - 1
        return counts[rows]
