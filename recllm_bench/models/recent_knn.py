"""ItemKNN over the newest items of a history: no parameters, seconds to make, and hard to beat where tastes drift."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import sparse

from recllm_bench.api.method import Method, Stage
from recllm_bench.artifacts import write_atomic
from recllm_bench.options import option, options_from_config
from recllm_bench.recbole_bridge.bare import Ids, bare_config
from recllm_bench.recbole_bridge.untrained import Untrained


@dataclass(frozen=True)
class RecentKNNOptions:
    """Options of :class:`RecentKNN`."""

    last: int = option(5, "newest items of a history whose neighbours are summed", low=1)


class RecentKNN(Untrained):
    """Scores an item by the sum of its cosines with a user's newest items (Sarwar et al., 2001).

    The cosine of two items is ``n_ij / sqrt(n_i n_j)``: users whose training part holds both, and each.

    Parameters
    ----------
    config : recbole.config.Config
        Carries the fields of :class:`RecentKNNOptions`.
    dataset : recbole.data.dataset.Dataset
        For the number of items, and in plain RecBole for its interactions.
    users : scipy.sparse matrix [n, n_items + 1], optional
        1 where a user's training part holds the item.
    """

    Options = RecentKNNOptions
    display_name = "ItemKNN (recent items)"
    default_protocol = "unified.full"
    training_defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any, dataset: Any, users: Any = None) -> None:
        super().__init__(config, dataset)
        self.history_length = options_from_config(RecentKNNOptions, config).last
        users = (dataset.inter_matrix(form="csr") if users is None else users).tocsr().astype(np.float32)
        users.data[:] = 1
        counts = np.asarray(users.sum(0), dtype=np.float32).ravel()
        self.known = counts > 0
        # Cosines are the products of these columns; they are never all in memory at once.
        self.users = (users @ sparse.diags((1 / np.sqrt(counts.clip(min=1))).astype(np.float32))).tocsr()

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """Scores ``float [B, n_items + 1]``; an item is no neighbour of itself."""
        items, lengths = (interaction[name].cpu().numpy() for name in (self.ITEM_SEQ, self.ITEM_SEQ_LEN))
        places = lengths[:, None] - 1 - np.arange(min(self.history_length, items.shape[1]))
        newest = np.where(places >= 0, np.take_along_axis(items, places.clip(min=0), 1), 0)
        rows, columns = np.nonzero(newest)
        ones = np.ones(len(rows), dtype=np.float32)
        asked = sparse.csr_matrix((ones, (rows, newest[rows, columns])), shape=(len(items), len(self.known)))
        scores = ((asked @ self.users.T) @ self.users).toarray() - asked.multiply(self.known).toarray()
        return torch.from_numpy(np.asarray(scores, dtype=np.float32)).to(interaction[self.ITEM_SEQ].device)


class RecentKNNMethod(Method):
    """One stage: who had what, in the training part."""

    model = RecentKNN

    def stages(self) -> list[Stage]:
        """``count``; how many items are read is in its key, as the row's numbers depend on it."""
        return [Stage("count", {"last": self.job.options.last}, self._count)]

    def load(self, folders: Mapping[str, Path]) -> RecentKNN:
        """The model of the finished stage."""
        job, users = self.job, sparse.load_npz(folders["count"] / "users.npz")
        config = bare_config(job.options, job.options.last, job.device)
        return self.model(config, Ids(job.split.histories.n_items), users).to(job.device).eval()

    def _count(self, work: Path, done: Mapping[str, Path]) -> None:
        histories, ends = self.job.split.histories, self.job.split.train_ends
        owned = histories.items[histories.before(ends)]
        pointers = np.concatenate([[0], np.cumsum(ends - histories.offsets[:-1])])
        shape = (len(ends), histories.n_items + 1)
        users = sparse.csr_matrix((np.ones(len(owned), dtype=np.float32), owned, pointers), shape=shape)
        users.sum_duplicates()
        users.data[:] = 1
        write_atomic(work / "users.npz", lambda file: sparse.save_npz(file, users))
