"""CESRec as a recommender: another recommender, reading a history that feedback in words has rewritten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor

from recllm_bench.api.registry import model_named
from recllm_bench.errors import BenchError
from recllm_bench.models.cesrec.backends import TrainedBackend
from recllm_bench.models.cesrec.options import CESRecOptions, check_options
from recllm_bench.options import options_from_config
from recllm_bench.recbole_bridge.bare import Ids, Overlay, bare_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recllm_bench.api.method import Job
    from recllm_bench.conversation.dialogue import Dialogue, Response

ITEMS, LENGTHS = "pseudo_list", "pseudo_length"
"""Columns of a case: its pseudo-history, and how many items it holds."""


class CESRec(SequentialRecommender):
    """An unchanged recommender that scores pseudo-histories (Findings of EMNLP 2025; arXiv 2509.09342).

    On the bench :class:`~recllm_bench.models.cesrec.method.CESRecMethod` trains it and plays the rounds of feedback:
    the model itself only scores what they left. In plain RecBole there are neither stages nor words, and it is its
    backend.

    Parameters
    ----------
    config : recbole.config.Config
        Carries the fields of :class:`CESRecOptions`, and in plain RecBole those of the backend.
    dataset : recbole.data.dataset.Dataset
        For the number of items.
    backend : TrainedBackend, optional
        The trained recommender; built from ``config`` when it is not given.
    """

    Options = CESRecOptions
    display_name = "CESRec"
    reads_words = True
    default_protocol = "cesrec.sampled100"
    training_defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any, dataset: Any, backend: TrainedBackend | None = None) -> None:
        super().__init__(config, dataset)
        self.options = check_options(options_from_config(CESRecOptions, config))
        if backend is None:
            model_class = model_named(self.options.backend).model
            inner = Overlay(config, self.options.backend_options or {})
            try:
                model = model_class(inner, dataset)
            except (KeyError, TypeError) as error:
                raise BenchError(
                    f"cesrec: plain RecBole has no options for backend {self.options.backend} ({error}); add them to "
                    "the configuration, or run it on the bench"
                ) from error
            backend = TrainedBackend(
                self.options.backend, model, self.n_items - 1, int(self.max_seq_length), config["device"]
            )
        self.backend = backend
        self.recommender = backend.model
        self.history_length = backend.history_length
        self.reader: Any = None  # of what was said, where it ranks items itself
        self.talker: Any = None  # of dialogues
        if self.options.ranks_by_words:
            return
        if backend.query is not None:  # scores are dot products: the evaluator may use one matrix product
            self.query_vectors = self._query_vectors
            self.item_vectors = self._item_vectors

    @classmethod
    def around(cls, job: Job, backend: TrainedBackend, reader: Any = None) -> CESRec:
        """The model around a trained backend, in evaluation mode; ``reader`` knows which items fit what was said."""
        config = bare_config(job.options, backend.history_length, job.device)
        model = cls(config, Ids(job.split.histories.n_items), backend)
        model.reader = reader
        return model.eval().requires_grad_(False)

    # scores

    def calculate_loss(self, interaction: Any) -> Tensor:
        """The backend's own loss: CESRec never changes how it is trained."""
        return self.recommender.calculate_loss(interaction)

    def predict(self, interaction: Any) -> Tensor:
        """Score ``[B]`` of one given item for each (pseudo-)history."""
        scores = self.full_sort_predict(interaction)
        return scores.gather(1, interaction[self.ITEM_ID][:, None])[:, 0]

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Scores ``[B, n_items + 1]`` of (pseudo-)histories; padding has minus infinity."""
        items, lengths = self._histories(interaction)
        scores = self.backend.score(items, lengths, interaction[self.USER_ID]).clone()
        if self.reader is not None:
            scores = scores * 0 if self.options.edit == "words" else scores
            scores = self.reader.fitting_first(scores, interaction)
        scores[:, 0] = -torch.inf
        return scores

    def respond(self, job: Job, dialogues: Sequence[Dialogue]) -> list[Response]:
        """The best items by histories that every sentence rewrites, in all dialogues as one batch."""
        if self.talker is None:
            raise NotImplementedError("CESRec converses on the bench alone")
        return self.talker.respond(job, dialogues)

    def _query_vectors(self, batch: Any) -> Tensor:
        items, lengths = self._histories(batch)
        query = self.backend.query
        assert query is not None  # or this model would have no such method
        return query({"user_id": batch[self.USER_ID], self.ITEM_SEQ: items, self.ITEM_SEQ_LEN: lengths})

    def _item_vectors(self) -> Tensor:
        return self.recommender.item_vectors()

    def _histories(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Pseudo-histories of a batch, or the real ones where there are none; as wide as the longest."""
        if ITEMS not in getattr(batch, "columns", batch):
            return batch[self.ITEM_SEQ], batch[self.ITEM_SEQ_LEN]
        lengths = batch[LENGTHS].long()
        return batch[ITEMS][:, : int(lengths.max())].long(), lengths
