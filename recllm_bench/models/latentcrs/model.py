"""LatentCRS as a recommender: a history and a sentence in, a ranking of the whole catalogue out."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor

from recllm_bench.api.registry import model_named
from recllm_bench.conversation.dialogue_state import StateReader, dialogue_text
from recllm_bench.conversation.showing import best_of, hide, history_batch
from recllm_bench.conversation.understanding import reader_for
from recllm_bench.errors import BenchError
from recllm_bench.models.latentcrs.backbone import frozen_items, last_states
from recllm_bench.models.latentcrs.em import Batch, Examples, ExpectationMaximisation
from recllm_bench.models.latentcrs.measuring import check_vectors
from recllm_bench.models.latentcrs.networks import GenerativeNet, InferenceNet, tie_value_map
from recllm_bench.models.latentcrs.options import LatentCRSOptions, check_options
from recllm_bench.options import options_from_config
from recllm_bench.recbole_bridge.bare import Overlay

if TYPE_CHECKING:
    from recllm_bench.api.method import Job
    from recllm_bench.api.model import Model
    from recllm_bench.conversation.dialogue import Dialogue, Response


class LatentCRS(SequentialRecommender):
    """Latent intents joined by variational EM (arXiv 2503.10703v1), in the paper's or the released code's reading.

    On the bench :class:`~recllm_bench.models.latentcrs.method.LatentCRSMethod` trains it. In plain RecBole, where there
    are neither stages nor words, the encoder trains by its own loss, both networks in one loop by the sum of their
    losses (as ``ablation: direct_kl``) on detached states, and the utterance is the zero vector.

    Parameters
    ----------
    config : recbole.config.Config
        Carries the fields of :class:`LatentCRSOptions`, and in plain RecBole those of the backbone.
    dataset : recbole.data.dataset.Dataset
        For the number of items.
    encoder : Module, optional
        A pre-trained causal encoder; built from ``config`` when it is not given.
    intents : Tensor [K, d], optional
        Start intents; random directions when they are not given.
    """

    Options = LatentCRSOptions
    display_name = "LatentCRS"
    reads_words = True
    default_protocol = "latentcrs.one_turn"
    training_defaults: ClassVar[dict[str, Any]] = {
        "batch_size": 480,
        "epochs": 500,
        "patience": 20,
        "min_delta": 1e-5,
        "learning_rate": 1e-3,
        "validate_metric": "NDCG@10",
        "precision": "fp32",  # the networks are small and their logarithms want the digits
    }

    def __init__(self, config: Any, dataset: Any, encoder: Model | None = None, intents: Tensor | None = None) -> None:
        super().__init__(config, dataset)
        self.options = options = check_options(options_from_config(LatentCRSOptions, config))
        self.history_length = options.window - 1
        self.x_text = ""  # what validation dialogues chose
        self.reader: StateReader | None = None  # of whole dialogues, where a summary is embedded
        if encoder is None:
            inner = Overlay(config, options.backbone_options or {})
            encoder = model_named(options.backbone).model(inner, dataset)
        self.encoder: Model = encoder
        width = encoder.item_vectors().shape[1]
        if intents is None:
            intents = F.normalize(torch.randn(options.intents, width), dim=1)
        self.generative = GenerativeNet(intents, options.text_width, options)
        self.inference = None if options.ablation == "no_inference" else InferenceNet(intents, options)
        if options.train_encoder:
            for network in (self.generative, self.inference):
                if network is not None:
                    network.encoder = copy.deepcopy(encoder)
        if options.tie_value_map and self.inference is not None:
            tie_value_map(self.inference, self.generative)

    # scores

    def query_vectors(self, batch: Any) -> Tensor:
        """Queries ``[B, d]`` whose dot products with :meth:`item_vectors` are h.

        Parameters
        ----------
        batch : mapping
            ``item_id_list [B, L]``, ``item_length [B]`` and, where there are words, ``utterance_vector [B, d_x]``.
        """
        item_seq, lengths = batch[self.ITEM_SEQ], batch[self.ITEM_SEQ_LEN]
        states = last_states(self._encoder(self.generative), item_seq, lengths, self.options.pad_to)
        x = self._words(batch, states)
        return self.generative.item_query(*self.generative(states, x))

    def item_vectors(self) -> Tensor:
        """Item side of h, ``[n_items + 1, d]``; the padding row is zero."""
        return self.generative.item_vectors(frozen_items(self._encoder(self.generative)))

    def predict(self, interaction: Any) -> Tensor:
        """Score ``[B]`` of one given item for each history."""
        return (self.query_vectors(interaction) * self.item_vectors()[interaction[self.ITEM_ID]]).sum(1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Scores ``[B, n_items + 1]``; padding has minus infinity when ``exclude_pad``, else 0."""
        scores = self.query_vectors(interaction) @ self.item_vectors().T
        if self.options.exclude_pad:
            scores[:, 0] = -torch.inf
        return scores

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Plain RecBole: the encoder's own loss, and the sum of all losses of both networks on detached states."""
        options = self.options
        targets = interaction[self.POS_ITEM_ID]
        with torch.no_grad():
            encoder = self._encoder(self.generative)
            item_seq, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
            states = last_states(encoder, item_seq, lengths, options.pad_to)
            items = frozen_items(encoder)
            # A step of 1 to n_items - 1 around the catalogue from the target never comes back to it.
            shape = (1, len(targets), options.negatives)
            steps = torch.randint(1, max(2, self.n_items - 1), shape, device=targets.device)
            negatives = (targets[None, :, None] - 1 + steps) % (self.n_items - 1) + 1
            words = self._words(interaction, states)
        rows = torch.arange(len(targets), device=targets.device)
        examples = Examples(targets, negatives, rows, words, items, states, noisy=states[None])
        w_rec = 0.0 if options.ablation == "no_rec" else None
        em = ExpectationMaximisation(
            self.inference, self.generative, examples, options, len(targets), 0, w_rec=w_rec, w_e_rec=w_rec
        )
        phase = "ranking" if self.inference is None else "direct"
        return self.encoder.calculate_loss(interaction) + em.loss(Batch(phase, rows, torch.zeros_like(rows)))

    # dialogues

    @torch.no_grad()
    def respond(self, job: Job, dialogues: Sequence[Dialogue]) -> list[Response]:
        """Recommend in every dialogue, all of them as one batch (LatentCRS_B).

        Parameters
        ----------
        job : Job
            Its ``encode`` reads the sentences (option ``x_text``).
        dialogues : sequence of Dialogue
            What users did, said and were shown.

        Returns
        -------
        list of Response
            ``shown_per_turn`` items of the protocol, 5 where it has none; none that was shown before under
            ``seen_policy: drop``.
        """
        if not dialogues:
            return []
        start = time.perf_counter()
        scores = self.dialogue_scores(job, dialogues, [self.read(dialogue, job) for dialogue in dialogues])
        return best_of(scores, job, seconds=time.perf_counter() - start)

    def read(self, dialogue: Dialogue, job: Job) -> str:
        """What is embedded of a dialogue (option ``x_text``); empty where the user said nothing."""
        if self.reader is None and (self.x_text or self.options.embedded) == "summary":
            self.reader = StateReader(job.dataset.catalogue, reader_for(job))
        return dialogue_text(dialogue, self.x_text or self.options.embedded, self.reader)

    def dialogue_scores(self, job: Job, dialogues: Sequence[Dialogue], texts: Sequence[str]) -> Tensor:
        """Scores ``[B, n_items + 1]`` after so many dialogues; minus infinity for what must not be shown.

        Parameters
        ----------
        job : Job
            Its ``encode`` reads the texts.
        dialogues : sequence of Dialogue
            Histories, and what was shown.
        texts : sequence of str
            What is read of each; the vector of an empty one is zero.
        """
        if not all(len(dialogue.history) for dialogue in dialogues):
            raise BenchError(
                "latentcrs: a dialogue has an empty history; it recommends to users with at least one item"
            )
        batch = history_batch(dialogues, self.history_length, self.generative.intents.device)
        batch["utterance_vector"] = self._sentence_vectors(job, texts).to(self.generative.intents.device)
        scores = self.query_vectors(batch) @ self.item_vectors().T
        return hide(scores, job, dialogues, again=self.options.seen_policy != "drop")

    def _sentence_vectors(self, job: Job, texts: Sequence[str]) -> Tensor:
        """Vectors of what the users said; zero for a user who said nothing."""
        distinct = sorted(set(texts) - {""})
        table = np.zeros((1, self.generative.projector.enter.in_features), dtype=np.float32)
        if distinct:
            vectors = job.encode(distinct)
            check_vectors(vectors)
            table = np.concatenate([table, vectors]).astype(np.float32)
        row_of = {"": 0, **{text: row for row, text in enumerate(distinct, 1)}}
        return torch.from_numpy(table[[row_of[text] for text in texts]])

    def _encoder(self, network: GenerativeNet) -> Model:
        return self.encoder if network.encoder is None else network.encoder

    def _words(self, batch: Any, states: Tensor) -> Tensor:
        columns = batch if isinstance(batch, Mapping) else batch.interaction
        if "utterance_vector" in columns:
            return columns["utterance_vector"].to(states)
        return states.new_zeros(len(states), self.generative.projector.enter.in_features)
