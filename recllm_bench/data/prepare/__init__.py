"""From a name or a path to a dataset with ids, prepared once and mapped from disk afterwards.

This front imports nothing heavy, so that listings and cached comparisons start at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recllm_bench.data.cards import default_store, find_card, user_filters
from recllm_bench.errors import BenchError

if TYPE_CHECKING:
    from recllm_bench.artifacts import ArtifactStore
    from recllm_bench.data.prepared import PreparedDataset

__all__ = ["canonical_name", "filter_names", "format_check", "prepare"]


def prepare(
    name_or_path: str, filter: str = "all", store: ArtifactStore | None = None, most_bad: float | None = None
) -> PreparedDataset:
    """Return a dataset under a filter, preparing it when that has not been done.

    Users are numbered by their first row in the source, items by first appearance in the prepared histories
    (sequence files keep their own item ids). Equal times keep file order. Repeated interactions stay.

    Parameters
    ----------
    name_or_path : str
        A name or alias that has a card (upper and lower case alike), or the path of a folder with RecBole atomic
        files, of a CSV, TSV or Parquet file with named columns, of a sequence file, or of a known dataset's folder
        or archive.
    filter : str
        A filter of the card, or settings such as ``"min_rating=4,users_min=5,items_min=5,rounds=10"``.
    store : ArtifactStore, optional
        Where prepared data lies; by default the cache folder's store.
    most_bad : float, optional
        Share of lines of a large JSON source that may be bad and are then skipped; by default that of the environment
        variable ``RECLLM_BAD_LINES``, else 0.001. Data prepared under a larger share is refused under a smaller one.

    Returns
    -------
    PreparedDataset

    Raises
    ------
    BenchError
        For unknown names and filters, unreadable or malformed files, and data that is not what its card expects.
    """
    from recllm_bench.data.prepare.pipeline import prepare_dataset

    return prepare_dataset(name_or_path, filter, store or default_store(), most_bad)


def format_check(prepared: PreparedDataset) -> str:
    """Table of found against expected counts, for people."""
    from recllm_bench.data import facts

    return facts.format_check(prepared)


def canonical_name(name_or_path: str) -> str:
    """The card's name for a name or alias; the absolute path for a path that exists.

    Raises
    ------
    BenchError
        For neither, with the nearest known name.
    """
    try:
        return str(find_card(name_or_path)["name"])
    except BenchError:
        path = Path(name_or_path).expanduser()
        if name_or_path and path.exists():
            return str(path.resolve())
        raise


def filter_names(name_or_path: str) -> list[str]:
    """Filters of a dataset: its card's, or those for a user's own data."""
    try:
        return list(find_card(name_or_path)["filters"])
    except BenchError:
        canonical_name(name_or_path)
        return list(user_filters())
