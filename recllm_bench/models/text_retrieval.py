"""The control "text retrieval only": how far the words alone go, without any history."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.nn.functional import normalize

from recllm_bench.api.method import Job, Method, Stage
from recllm_bench.api.words import NEUTRAL_OPENING
from recllm_bench.artifacts import content_hash
from recllm_bench.files import write_array
from recllm_bench.options import option, options_from_config
from recllm_bench.progress import log
from recllm_bench.recbole_bridge.bare import Ids, bare_config
from recllm_bench.recbole_bridge.untrained import Untrained

if TYPE_CHECKING:
    from recllm_bench.conversation.dialogue import Dialogue, Response


@dataclass(frozen=True)
class TextRetrievalOptions:
    """Options of :class:`TextRetrieval`."""

    text_width: int = option(384, "width of text vectors where no text encoder says it (plain RecBole)", low=1)


class TextRetrieval(Untrained):
    """Ranks items by the cosine of the utterance's vector and the item text's vector. Nothing is trained.

    A method that reads utterances made from the target has to beat this row: what it leaves on the table is what the
    method gets from behaviour.
    """

    Options = TextRetrievalOptions
    display_name = "Text retrieval only"
    reads_words = True
    default_protocol = "latentcrs.one_turn"
    training_defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        options = options_from_config(TextRetrievalOptions, config)
        self.history_length = int(self.max_seq_length)
        self.register_buffer("text_vectors", torch.zeros(self.n_items, options.text_width))

    def item_vectors(self) -> torch.Tensor:
        """Unit vectors of the items' texts, ``float [n_items + 1, width]``; zero where an item has no text."""
        return self.text_vectors

    def query_vectors(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Unit vectors of the utterances, ``float [B, width]``; zero in plain RecBole, where nobody speaks."""
        if "utterance_vector" not in getattr(batch, "columns", batch):
            return self.text_vectors.new_zeros(len(batch[self.ITEM_SEQ]), self.text_vectors.shape[1])
        return normalize(batch["utterance_vector"].float(), dim=1)

    def predict(self, interaction: Any) -> torch.Tensor:
        """Cosine ``float [B]`` of the utterance and one given item."""
        return (self.query_vectors(interaction) * self.text_vectors[interaction[self.ITEM_ID]]).sum(1)

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """Cosines ``float [B, n_items + 1]`` of all items; padding has minus infinity."""
        scores = self.query_vectors(interaction) @ self.text_vectors.T
        scores[:, 0] = -torch.inf
        return scores

    @torch.inference_mode()
    def respond(self, job: Job, dialogues: Sequence[Dialogue]) -> list[Response]:
        """Show the items nearest to all the user said so far; no item twice, and none that the protocol excludes."""
        from recllm_bench.conversation.showing import show_best

        start = time.perf_counter()
        scores = self.dialogue_scores(job, dialogues)
        return show_best(scores, job, dialogues, seconds=time.perf_counter() - start)

    def dialogue_scores(self, job: Job, dialogues: Sequence[Dialogue]) -> torch.Tensor:
        """Cosines ``float [B, n_items + 1]`` of the items with all the user said so far."""
        said = [" ".join(dialogue.user_sentences()) or NEUTRAL_OPENING for dialogue in dialogues]
        queries = torch.from_numpy(job.encode(said)).to(self.text_vectors.device)
        return self.full_sort_predict({"utterance_vector": queries})


class TextRetrievalMethod(Method):
    """One stage: the vectors of the items' texts."""

    model = TextRetrieval

    def stages(self) -> list[Stage]:
        """See :class:`TextRetrievalMethod`."""
        key = {"encoder": dict(self.job.encoder_key), "texts": content_hash(self.job.dataset.catalogue.texts())}
        return [Stage("item-text", key, self._embed_items)]

    def load(self, folders: Mapping[str, Path]) -> TextRetrieval:
        """The model with the vectors of the finished stage."""
        job, vectors = self.job, torch.from_numpy(np.load(folders["item-text"] / "vectors.npy"))
        length, width = max(1, int(job.training.max_length)), vectors.shape[1]
        model = self.model(
            bare_config(job.options, length, job.device, text_width=width), Ids(job.split.histories.n_items)
        )
        model.text_vectors.copy_(vectors)
        return model.to(job.device).eval()

    def _embed_items(self, work: Path, done: Mapping[str, Path]) -> None:
        texts = self.job.dataset.catalogue.texts()
        items = [item for item, text in enumerate(texts) if text]
        if len(items) < len(texts) - 1:
            log.warning(f"{len(texts) - 1 - len(items)} items have no text and score 0")
        encoded = self.job.encode([texts[item] for item in items])
        vectors = np.zeros((len(texts), encoded.shape[1]), dtype=np.float32)
        vectors[items] = encoded / np.linalg.norm(encoded, axis=1, keepdims=True)
        write_array(work / "vectors.npy", vectors)
