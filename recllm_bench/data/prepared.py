"""A dataset as the rest of the bench sees it: histories, catalogue, facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recllm_bench.data.catalogue import Catalogue
from recllm_bench.data.histories import Histories

if TYPE_CHECKING:
    from recllm_bench.data.reviews import Reviews


@dataclass(frozen=True)
class PreparedDataset:
    """One dataset under one filter, in one id space.

    Attributes
    ----------
    name, filter : str
        What it is and which filter made it.
    folder : Path
        Where its files lie.
    histories : Histories
        Every interaction kept, oldest first.
    catalogue : Catalogue
        Item text.
    user_tokens : sequence of str
        The source's user ids; entry 0 is padding.
    facts : dict
        Counts, mean length, sparsity, share of ties in time.
    checksum : str
        Hash of ids, order and text.
    has_times : bool
        Whether real times are known (global time splits need them).
    variant : str
        Which known variant of the source was read.
    card : dict
        The dataset card.
    """

    name: str
    filter: str
    folder: Path
    histories: Histories
    catalogue: Catalogue
    user_tokens: Sequence[str]
    facts: dict[str, Any]
    checksum: str
    has_times: bool
    variant: str
    card: dict[str, Any]

    def reviews(self) -> Reviews | None:
        """What users wrote about each interaction; None when the source has no review text.

        Raises
        ------
        BenchError
            When the text was removed from the cache.
        """
        if "reviews" not in self.facts:
            return None
        import numpy as np

        from recllm_bench.data.reviews import Reviews
        from recllm_bench.errors import BenchError

        path = self.folder.parent.parent / self.facts["reviews"]
        if not path.exists():
            raise BenchError(
                f"{path}: the review text is gone; delete {path.parent} and {self.folder}, then prepare {self.name}"
            )
        return Reviews(path, np.load(self.folder / "rows.npy", mmap_mode="r"), self.histories)
