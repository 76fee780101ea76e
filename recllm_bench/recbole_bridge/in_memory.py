"""RecBole datasets made of arrays instead of files. Import it after ``load_recbole()``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from recbole.data.dataset import Dataset, SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils.enum_type import FeatureSource, FeatureType

from recllm_bench.data.histories import Histories

FEATURE = "class"
"""Name RecBole's feature-aware models expect for the item's categories (``selected_features`` of their yaml)."""


if TYPE_CHECKING:
    _Base: Any = Dataset
else:
    _Base = object  # RecBole's class comes after it among the bases of those below


class _InMemory(_Base):
    """Replaces the reading, filtering and numbering of files (dataset.py ``_from_scratch``).

    Holds the interactions before ``train_ends`` and no other. Ids are ours; every user and item is known, with or
    without a training interaction.
    """

    def __init__(
        self,
        config: Any,
        histories: Histories,
        train_ends: np.ndarray,
        categories: Sequence[Sequence[str]] | None = None,
    ) -> None:
        self._given = (histories, np.asarray(train_ends, np.int64), categories)
        super().__init__(config)

    def _from_scratch(self) -> None:
        histories, train_ends, categories = self._given
        del self._given
        self._get_preset()
        self._get_field_from_config()
        self.user_feat = self.item_feat = None
        inside = histories.before(train_ends)
        self._users, self._items = histories.users_of_positions()[inside], histories.items[inside].astype(np.int64)
        lengths = np.bincount(self._users, minlength=histories.n_users + 1)[1:]
        self._firsts = np.repeat(np.cumsum(lengths) - lengths, lengths)
        self._number(self.uid_field, histories.n_users, FeatureSource.USER_ID)
        self._number(self.iid_field, histories.n_items, FeatureSource.ITEM_ID)
        self.set_field_property(self.time_field, FeatureType.FLOAT, FeatureSource.INTERACTION, 1)
        self.inter_feat = Interaction(
            {
                self.uid_field: torch.from_numpy(self._users),
                self.iid_field: torch.from_numpy(self._items),
                # The place in the user's history: RecBole only sorts by it, and float32 holds it exactly.
                self.time_field: torch.from_numpy((np.arange(len(self._items)) - self._firsts).astype(np.float32)),
            }
        )
        if categories is not None:
            self._set_categories(categories, histories.n_items)
        self.feat_name_list = self._build_feat_name_list()

    def _number(self, field: str, count: int, source: Any) -> None:
        self.set_field_property(field, FeatureType.TOKEN, source, 1)
        self._set_tokens(field, ["[PAD]", *map(str, range(1, count + 1))])

    def _set_tokens(self, field: str, tokens: list[str]) -> None:
        self.field2id_token[field] = np.array(tokens)
        self.field2token_id[field] = {token: number for number, token in enumerate(tokens)}

    def _set_categories(self, categories: Sequence[Sequence[str]], n_items: int) -> None:
        names = sorted({name for row in categories for name in row})
        ids = {name: number for number, name in enumerate(names, 1)}
        width = max(len(row) for row in categories)
        table = torch.zeros(n_items + 1, width, dtype=torch.long)
        for item, row in enumerate(categories):
            table[item, : len(row)] = torch.tensor([ids[name] for name in row], dtype=torch.long)
        self.set_field_property(FEATURE, FeatureType.TOKEN_SEQ, FeatureSource.ITEM, width)
        self._set_tokens(FEATURE, ["[PAD]", *names])
        self.item_feat = Interaction({self.iid_field: torch.arange(n_items + 1), FEATURE: table})

    def _change_feat_format(self) -> None:
        """The features are tensors already."""

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """Users x items of the training prefixes (SequentialDataset would rebuild it from its prefix rows)."""
        return Dataset.inter_matrix(self, form, value_field)


class InMemoryDataset(_InMemory, Dataset):
    """For general models: one row for each training interaction."""


class InMemorySequentialDataset(_InMemory, SequentialDataset):
    """For sequential models: one row for each training item but a user's first, in RecBole's order.

    A row's prefix is made when a batch asks for it: all prefixes at once would take ``total x max_length`` numbers.
    """

    def _from_scratch(self) -> None:
        super()._from_scratch()
        self._aug_presets()
        self._targets = np.flatnonzero(np.arange(len(self._items)) > self._firsts)

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: Any, join: bool = True) -> Any:
        ends = self._targets[index]
        starts = np.maximum(self._firsts[ends], ends - self.max_item_list_len)
        column = np.arange(self.max_item_list_len)
        places = np.minimum(starts[:, None] + column, len(self._items) - 1)
        prefixes = np.where(column < (ends - starts)[:, None], self._items[places], 0)
        columns = {
            self.uid_field: self._users[ends],
            self.iid_field: self._items[ends],
            self.item_id_list_field: prefixes,
            self.item_list_length_field: ends - starts,
        }
        if self.config["model"] == "DIEN":  # customized_dataset.py DIENDataset: a wrong item for each place
            others = np.random.randint(1, self.item_num - 1, prefixes.shape)  # noqa: NPY002  seeded for each epoch
            columns[self.config["NEG_PREFIX"] + self.item_id_list_field] = np.where(
                prefixes > 0, others + (others >= prefixes), 0
            )
        rows = Interaction({name: torch.from_numpy(column) for name, column in columns.items()})
        return self.join(rows) if join else rows
