"""A dataset as the rest of the bench sees it: histories, catalogue, facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recllm_bench.artifacts import ArtifactStore
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
    asked : str
        Name or path under which it was asked for.
    said : mapping of int to str, optional
        Words of real people, by user id (:mod:`recllm_bench.conversation.real_users`).
    read_reviews : callable
        Finds the file of what users wrote, or reads it from the source.
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
    asked: str = ""
    said: Mapping[int, str] | None = None
    read_reviews: Callable[[str, str, int, ArtifactStore], Path | None] | None = None

    def reviews(self, read: bool = True) -> Reviews | None:
        """What users wrote about each interaction; None when the source has no review text.

        The first call reads the raw files once more; afterwards the text lies in the cache.

        Parameters
        ----------
        read : bool
            Whether to read it now when that has not been done; else None is returned then.

        Raises
        ------
        BenchError
            When the raw files are gone or have changed.
        """
        if "reviews" not in self.facts or self.read_reviews is None:
            return None
        import numpy as np

        from recllm_bench.data.reviews import Reviews

        store = ArtifactStore(self.folder.parent.parent)
        corpus, rows = self.facts["reviews"]["corpus"], self.facts["reviews"]["rows"]
        if not read and store.find_named("reviews", corpus) is None:
            return None
        path = self.read_reviews(self.asked or self.name, corpus, rows, store)
        return Reviews(path, np.load(self.folder / "rows.npy", mmap_mode="r"), self.histories) if path else None
