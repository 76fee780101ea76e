"""WordsAndHistory: a method in two stages that reads what the user says beside what they consumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import nn
from torch.nn.functional import normalize

from recllm_bench import Measure, Method, Stage, option
from recllm_bench.artifacts import content_hash, write_atomic, write_json
from recllm_bench.evaluation.metrics import per_user
from recllm_bench.evaluation.ranks import rank_cases
from recllm_bench.options import options_from_config
from recllm_bench.recbole_bridge.bare import Ids, bare_config


@dataclass(frozen=True)
class WordsAndHistoryOptions:
    """Options of :class:`WordsAndHistory`."""

    ridge: float = option(10.0, "penalty on the map from a history to the next item's text", low=0.001)
    steps: int = option(10, "weights of the words tried between 0 and 1, less one", low=1)
    text_width: int = option(384, "width of text vectors where no text encoder says it (plain RecBole)", low=1)


class WordsAndHistory(SequentialRecommender):
    """Scores items by the cosine of their text and a mix of two guesses at it: (1 - w) M h + w u.

    ``h`` is the mean text vector of the history, ``M`` maps it to the text of the next item, ``u`` is the vector of
    what the user says.
    """

    Options = WordsAndHistoryOptions
    display_name = "WordsAndHistory"
    reads_words = True
    default_protocol = "latentcrs.one_turn"

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        width = options_from_config(WordsAndHistoryOptions, config).text_width
        self.history_length = int(self.max_seq_length)
        self.register_buffer("texts", torch.zeros(self.n_items, width))
        self.register_buffer("map", torch.eye(width))
        self.register_buffer("weight", torch.tensor(0.0))
        self.nothing = nn.Parameter(torch.zeros(1))  # RecBole's trainer needs a parameter and a loss

    def item_vectors(self) -> torch.Tensor:
        """Unit vectors of the items' texts, ``float [n_items + 1, d]``."""
        return self.texts

    def query_vectors(self, batch: Any) -> torch.Tensor:
        """The mix, ``float [B, d]``; in plain RecBole nobody speaks, so the history stands alone."""
        counts = batch[self.ITEM_SEQ_LEN].clamp(min=1).unsqueeze(1)
        guess = normalize(self.texts[batch[self.ITEM_SEQ]].sum(1) / counts @ self.map, dim=1)
        if "utterance_vector" not in getattr(batch, "columns", batch):
            return guess
        return (1 - self.weight) * guess + self.weight * normalize(batch["utterance_vector"].float(), dim=1)

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """Scores ``float [B, n_items + 1]``."""
        return self.query_vectors(interaction) @ self.texts.T

    def predict(self, interaction: Any) -> torch.Tensor:
        """Score ``float [B]`` of one given item."""
        return (self.query_vectors(interaction) * self.texts[interaction[self.ITEM_ID]]).sum(1)

    def calculate_loss(self, interaction: Any) -> torch.Tensor:
        """Zero: both stages are solved, not descended."""
        return self.nothing.sum() * 0


class WordsAndHistoryMethod(Method):
    """First the map from histories to texts, then how much the words weigh."""

    model = WordsAndHistory

    def stages(self) -> list[Stage]:
        """``align`` never sees a word, so controls and other simulators share its product."""
        job, options = self.job, self.job.options
        texts = {"encoder": dict(job.encoder_key), "texts": content_hash(job.dataset.catalogue.texts())}
        length, measured = int(job.training.max_length), job.protocol.fingerprint()
        return [
            Stage("align", {**texts, "ridge": options.ridge, "length": length}, self._align),
            Stage("weigh", {"words": dict(job.words.key), "steps": options.steps, "measured": measured}, self._weigh),
        ]

    def load(self, folders: Mapping[str, Path]) -> WordsAndHistory:
        """The model from both stages."""
        weight = json.loads((folders["weigh"] / "weight.json").read_text())["weight"]
        return self._model(folders["align"], weight)

    def report(self, folders: Mapping[str, Path]) -> dict[str, Any]:
        """What validation chose."""
        said = json.loads((folders["weigh"] / "weight.json").read_text())
        return {"measures": [Measure(name, value) for name, value in said.items()]}

    def _model(self, align: Path, weight: float) -> WordsAndHistory:
        job, found = self.job, np.load(align / "vectors.npz")
        config = bare_config(job.options, int(job.training.max_length), job.device, text_width=found["texts"].shape[1])
        model = self.model(config, Ids(job.split.histories.n_items))
        model.texts.copy_(torch.from_numpy(found["texts"]))
        model.map.copy_(torch.from_numpy(found["map"]))
        model.weight.fill_(weight)
        return model.to(job.device).eval()

    def _align(self, work: Path, done: Mapping[str, Path]) -> None:
        job, texts = self.job, self.job.dataset.catalogue.texts()
        known = [item for item, text in enumerate(texts) if text]
        encoded = job.encode([texts[item] for item in known])
        vectors = np.zeros((len(texts), encoded.shape[1]), dtype=np.float32)
        vectors[known] = encoded / np.linalg.norm(encoded, axis=1, keepdims=True)
        histories, length = job.split.histories, int(job.training.max_length)
        square = np.zeros((encoded.shape[1],) * 2)
        cross = np.zeros_like(square)
        for start, end in zip(histories.offsets[:-1], job.split.train_ends, strict=True):  # training prefixes alone
            rows = vectors[histories.items[start:end]].astype(np.float64)
            if len(rows) < 2:
                continue
            until = np.concatenate([np.zeros_like(rows[:1]), rows.cumsum(0)])[:-1]
            places = np.arange(1, len(rows))
            oldest = np.maximum(places - length, 0)
            means = (until[places] - until[oldest]) / (places - oldest)[:, None]
            square += means.T @ means
            cross += means.T @ rows[1:]
        solved = np.linalg.solve(square + job.options.ridge * np.eye(len(square)), cross)
        write_atomic(work / "vectors.npz", lambda file: np.savez(file, texts=vectors, map=solved.astype(np.float32)))

    def _weigh(self, work: Path, done: Mapping[str, Path]) -> None:
        job, cases, model = self.job, self.job.split.valid, self._model(done["align"], 0.0)
        columns, found = self.columns(cases, job.words), []
        for weight in np.linspace(0, 1, job.options.steps + 1).tolist():
            model.weight.fill_(weight)
            ranks = rank_cases(
                model, job.split, cases, job.protocol, columns=columns, max_length=model.history_length,
                device=job.device,
            )  # fmt: skip
            found.append((float(per_user(ranks, ["NDCG@10"], ())["NDCG@10"].mean()), -weight))
        best, weight = max(found)  # of equal ones the smallest weight
        write_json(work / "weight.json", {"weight": round(-weight, 6), "NDCG@10 on validation": best})
