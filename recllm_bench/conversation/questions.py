"""What a question is worth: how much the answer to it is expected to tell of the wanted item."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from recllm_bench.conversation.attributes import AttributeTable, Fact

_ASKED = {
    "category": "What kind of {domain} are you in the mood for?",
    "decade": "From which decade should it be?",
    "era": "Should it be an old one or a new one?",
    "year": "From which year should it be?",
    "brand": "Is there a brand that you like best?",
    "price": "How much may it cost?",
    "word": "What should it be about?",
}


def question(kind: str, domain: str) -> str:
    """A kind of fact as a question."""
    return _ASKED.get(kind, "Which {kind} should it have?").format(domain=domain, kind=kind)


class Questions:
    """Expected information gain of asking for a kind of fact.

    Parameters
    ----------
    table : AttributeTable
        Which items have which facts.
    """

    def __init__(self, table: AttributeTable) -> None:
        self.table = table
        kinds = list(dict.fromkeys(fact.kind for fact in table.vocabulary))
        self._columns = {kind: np.array([fact.kind == kind for fact in table.vocabulary], dtype=bool) for kind in kinds}

    @property
    def kinds(self) -> list[str]:
        """Kinds of facts, those with the most common fact first."""
        return list(self._columns)

    def gains(self, items: np.ndarray, known: Collection[Fact] = ()) -> dict[str, float]:
        """Bits that the answer to each question tells of the item, when all of ``items`` are equally likely.

        Whoever wants an item answers with one of its facts of the kind that are not known yet, each as likely, or that
        there is none. The gain is the mutual information of item and answer (Lindley, 1956): entropy of the answer less
        its entropy given the item.

        Parameters
        ----------
        items : int64 [m]
            Ids of the items that still fit.
        known : collection of Fact
            Facts that were said.

        Returns
        -------
        dict of str to float
            0 for every kind where nothing fits.
        """
        if not len(items):
            return dict.fromkeys(self._columns, 0.0)
        said = np.array([fact in known for fact in self.table.vocabulary], dtype=bool)
        rows = self.table.matrix[items]
        gains = {}
        for kind, columns in self._columns.items():
            has = rows[:, np.flatnonzero(columns & ~said)]
            counts = np.asarray(has.sum(1)).ravel()
            told = counts > 0
            weights = np.where(told, 1 / np.maximum(counts, 1), 0) / len(items)
            answers = np.append(np.asarray(has.T @ weights).ravel(), (~told).mean())
            answers = answers[answers > 0]
            entropy = -(answers * np.log2(answers)).sum()
            gains[kind] = max(0.0, float(entropy - np.log2(np.maximum(counts, 1)).mean()))
        return gains
