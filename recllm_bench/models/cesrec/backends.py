"""Recommenders below CESRec, behind one narrow interface: histories in, scores out. None of them sees a word."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recllm_bench.api.method import Job, Method
from recllm_bench.data.splits import Split
from recllm_bench.data.windows import DeviceHistories, training_windows
from recllm_bench.errors import BenchError
from recllm_bench.recbole_bridge import interaction
from recllm_bench.training.cells import Cell, inner_cell

if TYPE_CHECKING:
    from recllm_bench.api.model import Model

_SCORES_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Scores of one block of users over the whole catalogue."""


class TrainedBackend:
    """A trained model of the bench or of RecBole's zoo as a backend.

    Parameters
    ----------
    model : Module
        In evaluation mode; never changed here.
    n_items : int
        Items of the dataset, padding not counted.
    history_length : int
        Most items it reads.
    """

    def __init__(
        self, name: str, model: Model, n_items: int, history_length: int, device: torch.device | str = "cpu"
    ) -> None:
        self.name, self.model, self.n_items, self.history_length = name, model, n_items, history_length
        self.device = torch.device(device)
        self._vectors: Tensor | None = None

    @property
    def query(self) -> Callable[[Mapping[str, Tensor]], Tensor] | None:
        """A batch's query vectors ``[B, d]``, or None when scores are no dot products."""
        model = self.model
        if not hasattr(model, "item_vectors"):
            return None
        if hasattr(model, "query_vectors"):
            return model.query_vectors
        return self._last_states if hasattr(model, "sequence_states") else None

    def scored_vectors(self) -> Tensor:
        """Item side of the dot products, ``[n_items + 1, d]``, as the model gives it."""
        if self._vectors is not None:
            return self._vectors
        with torch.inference_mode():
            vectors = self.model.item_vectors()[: self.n_items + 1].float()
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            self._vectors = vectors  # the model will not change any more
        return vectors

    @torch.inference_mode()
    def score(self, item_seq: Tensor, lengths: Tensor, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Scores ``[B, C]`` of candidates ``[B, C]``, or ``[B, n_items + 1]`` of all ids.

        Parameters
        ----------
        item_seq : int64 [B, L]
            Right-padded, ``L <= history_length``.
        lengths : int64 [B]
            At least 1.
        users : int64 [B]
            For recommenders with user tokens.
        candidates : int64 [B, C], optional
        """
        batch = {"user_id": users, "item_id_list": item_seq, "item_length": lengths}
        query = self.query
        if query is None:
            scores = self.model.full_sort_predict(interaction(batch)).float().reshape(len(users), -1)
            scores = scores[:, : self.n_items + 1]
            return scores if candidates is None else scores.gather(1, candidates)
        states, vectors = query(batch).float(), self.scored_vectors()
        if candidates is None:
            return states @ vectors.T
        # As in the evaluator: one product and one sum for each pair, in one order, so that equal vectors tie.
        return (states[:, None, :] * vectors[candidates]).sum(-1)

    def rows_at_once(self, width: int) -> int:
        """Histories scored at once when each has ``width`` scores."""
        most = _SCORES_AT_ONCE.get(self.device.type, _SCORES_AT_ONCE["cpu"])
        return max(1, min(1024, most // max(1, width)))

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """Its item table, ``[n_items + 1, d_r]``, without gradient; the padding row is zero.

        Raises
        ------
        BenchError
            When the model has no vector for each item.
        """
        model = self.model
        table = getattr(getattr(model, "item_embedding", None), "weight", None)
        if hasattr(model, "item_vectors"):
            table = model.item_vectors()
        if table is None or table.dim() != 2 or len(table) <= self.n_items:
            raise BenchError(
                f"cesrec: backend {self.name} has no vector for each item to align with; set use_masking=false and "
                "replace_with=target, or choose another backend"
            )
        table = table[: self.n_items + 1].detach().float().clone()
        table[0] = 0
        return table

    @torch.no_grad()
    def contextual_vectors(self, split: Split) -> Tensor:
        """Mean state behind each item over the training windows, ``[n_items + 1, d_r]``.

        An item that no training window holds has the vector of the item table.

        Raises
        ------
        BenchError
            When the model has no states at all positions, or they are not as long as its item vectors.
        """
        table = self.item_vectors()
        if not hasattr(self.model, "sequence_states"):
            raise BenchError(f"cesrec: backend {self.name} has no state behind each item; set collab_source=item_table")
        windows = training_windows(split.histories, split.train_ends, self.history_length)
        histories = DeviceHistories(split.histories, self.device)
        sums, counts = torch.zeros_like(table), table.new_zeros(len(table))
        for start in range(0, len(windows), 256):
            rows = np.arange(start, min(start + 256, len(windows)))
            batch = histories.window_batch(windows, rows, self.history_length)
            inside = batch.inputs > 0
            states = self.model.sequence_states(batch.inputs, batch.lengths)[inside].float()
            if states.shape[1] != table.shape[1]:
                raise BenchError(
                    f"cesrec: states of backend {self.name} are no item vectors; set collab_source=item_table"
                )
            sums.index_add_(0, batch.inputs[inside], states)
            counts.index_add_(0, batch.inputs[inside], torch.ones_like(states[:, 0]))
        return torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], table)

    def weights_hash(self) -> str:
        """SHA-256 of all parameters and stored buffers, hexadecimal: equal before and after CESRec."""
        digest = hashlib.sha256()
        for key, value in sorted(self.model.state_dict().items()):
            flat = value.detach().contiguous().cpu()
            digest.update(f"{key} {flat.dtype} {tuple(flat.shape)};".encode())
            digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
        return digest.hexdigest()

    def _last_states(self, batch: Mapping[str, Tensor]) -> Tensor:
        states = self.model.sequence_states(batch["item_id_list"], batch["item_length"])
        return states[torch.arange(len(states), device=states.device), batch["item_length"] - 1]


def backend_cell(
    job: Job, name: str, options: Mapping[str, Any] | None = None, training: Mapping[str, Any] | None = None
) -> Cell:
    """The backend of a job: its own recipe on the same data, split and seed, with the changes asked for.

    Raises
    ------
    BenchError
        For an unknown model, wrong options, or a model that needs words to rank.
    """
    cell = inner_cell(job, name, options, training, f"backend {name} of cesrec")
    if cell.entry.reads_words and cell.entry.method.history_encoder is Method.history_encoder:
        raise BenchError(
            f"cesrec: backend {cell.entry.name} ranks by what users say, and a backend sees histories alone; use "
            "sasrec, GRU4Rec, iclrec or relrec"
        )
    return cell


def trained_backend(cell: Cell) -> TrainedBackend:
    """The backend in evaluation mode on the job's device; trained now where no run has trained it before."""
    job = cell.job
    if cell.entry.reads_words:  # the encoder of a method that reads words: its own length, not that of the method
        model = cell.method.history_encoder()
        length = int(getattr(model, "history_length", 0) or getattr(model, "max_seq_length", 0) or 0)
    else:
        model = cell.load()
        length = cell.history_length(model)
    model = model.to(job.device).eval().requires_grad_(False)
    name, n_items = cell.entry.name, job.split.histories.n_items
    return TrainedBackend(name, model, n_items, length or job.training.max_length, job.device)
