"""A prepared dataset, with what one wants at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recllm_bench.errors import BenchError

if TYPE_CHECKING:
    import pandas as pd

    from recllm_bench.data.histories import Histories
    from recllm_bench.data.prepared import PreparedDataset
    from recllm_bench.data.splits import Split


def load_dataset(name: str | Path, filter: str = "all") -> Dataset:
    """A dataset with its titles and histories, prepared when that has not been done.

    Parameters
    ----------
    name : str or Path
        A name (``recllm-bench list datasets``) or a path to data of your own.
    filter : str
        A filter of its card, or settings such as ``"min_rating=4,users_min=5"``.

    Raises
    ------
    BenchError
        For an unknown name or filter, or files that cannot be read.
    """
    from recllm_bench.data.cards import default_store
    from recllm_bench.data.prepare import prepare

    return Dataset(prepare(str(name), filter=filter, store=default_store()))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A prepared dataset, with what one wants at hand.

    Item and user ids are ``1..n``; entry 0 of every list is padding.

    Attributes
    ----------
    prepared : PreparedDataset
        Everything known of it: catalogue, facts, card, reviews.
    """

    prepared: PreparedDataset

    @property
    def name(self) -> str:
        """Its name."""
        return self.prepared.name

    @property
    def histories(self) -> Histories:
        """Who consumed what, oldest first: ``histories.of(user) -> int32 [length]``."""
        return self.prepared.histories

    @property
    def titles(self) -> list[str]:
        """Title of each item id."""
        return self.prepared.catalogue.titles

    @property
    def texts(self) -> list[str]:
        """Text of each item id, as text encoders read it."""
        return self.prepared.catalogue.texts()

    @property
    def item_tokens(self) -> Sequence[str]:
        """The data's own id of each item id."""
        return self.prepared.catalogue.tokens

    @property
    def user_tokens(self) -> Sequence[str]:
        """The data's own id of each user id."""
        return self.prepared.user_tokens

    def history(self, user: int) -> list[str]:
        """Titles of what a user consumed, oldest first; where an item has none, its own id."""
        count = self.histories.n_users
        if not 1 <= user <= count:
            raise BenchError(f"there is no user {user}: {self.name} has users 1 to {count}")
        return [self.titles[item] or self.item_tokens[item] for item in self.histories.of(user).tolist()]

    def split(self, name: str = "leave_one_out", **params: Any) -> Split:
        """Which part of each history trains, and the cases to validate and test on: ``split.test.targets``."""
        from recllm_bench.data.splits import split_named

        return split_named(name, self.histories, **params)

    def to_frame(self) -> pd.DataFrame:
        """One row an interaction, in our ids: ``user, item``, and ``time`` and ``rating`` where the data has them."""
        import pandas as pd

        histories = self.histories
        columns = {"user": histories.users_of_positions(), "item": histories.items}
        further = {"time": histories.times, "rating": histories.ratings}
        return pd.DataFrame({**columns, **{name: values for name, values in further.items() if values is not None}})

    def save_reviews(self, folder: str | Path) -> Path:
        """Write who reviewed what, when, and in which words, as a new folder of the ``datasets`` package.

        A row a review, by user and oldest first: ``user_id, item_id`` (the data's own), ``timestamp`` and ``rating``
        where the data has them, ``title`` (where it has titles of reviews) and ``text``. The folder is a dataset of
        its own: ``recllm-bench run relrec FOLDER``.

        Raises
        ------
        BenchError
            When the data has no reviews, or the folder is there already.
        """
        from recllm_bench.data.review_folders import save_reviews

        return save_reviews(Path(folder), self.prepared)

    def __repr__(self) -> str:
        histories, filter = self.histories, self.prepared.filter
        counts = f"{histories.n_users:,} users, {histories.n_items:,} items, {len(histories.items):,} interactions"
        return f"<Dataset {self.name} (filter {filter}): {counts}>"


def dataset_name(dataset: str | Path | Dataset) -> str:
    """The name or path that a dataset is asked for by."""
    if isinstance(dataset, Dataset):
        return dataset.prepared.asked or dataset.prepared.name
    return str(dataset)
