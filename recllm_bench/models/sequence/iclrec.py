"""ICLRec: intent contrastive learning for sequential recommendation (Chen et al., WWW 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from recllm_bench.errors import BenchError
from recllm_bench.files import write_array
from recllm_bench.models.sequence.augmentation import random_view
from recllm_bench.models.sequence.causal import CausalTransformer
from recllm_bench.models.sequence.intents import contrast, kmeans, nearest_centroids
from recllm_bench.models.sequence.transformer import ACTIVATIONS, initialise
from recllm_bench.options import option
from recllm_bench.recbole_bridge.bare import Ids, bare_config

MASKED = -10000.0  # added to scores of hidden keys; finite, so that rows of padding have a defined result


@dataclass(frozen=True)
class ICLRecOptions:
    """Options of :class:`ICLRec`; the defaults are the published ones."""

    hidden_size: int = option(64, "width of item vectors and states", low=1)
    n_layers: int = option(2, "Transformer blocks", low=1)
    n_heads: int = option(2, "attention heads", low=1)
    inner_size: int = option(256, "width inside the feed-forward part", low=1)
    dropout: float = option(0.5, "dropout of embeddings and residual branches", low=0, high=0.95)
    attention_dropout: float = option(0.5, "dropout of attention weights", low=0, high=0.95)
    activation: str = option("gelu", "activation of the feed-forward part", choices=tuple(ACTIVATIONS))
    layer_norm_eps: float = option(1e-12, "epsilon of layer normalisation", low=0)
    initializer_range: float = option(0.02, "standard deviation of initial weights", low=0)
    item_loss: str = option(
        "bce", "loss of next items: one sampled negative as published, or cross entropy over the catalogue",
        choices=("bce", "ce"),
    )  # fmt: skip
    contrast: str = option("both", "which contrasts are learned", choices=("both", "intent", "sequence", "none"))
    sequence_weight: float = option(0.1, "weight of the contrast between views", low=0)
    intent_weight: float = option(0.1, "weight of the contrast with intents", low=0)
    temperature: float = option(1.0, "temperature of both contrasts", low=1e-6)
    views: int = option(2, "augmented views of a sequence; every pair is contrasted", choices=(2, 3))
    crop: float = option(0.2, "share of a sequence that crop keeps", low=0, high=1)
    mask: float = option(0.7, "share of a sequence that mask hides", low=0, high=1)
    reorder: float = option(0.2, "share of a sequence that reorder shuffles", low=0, high=1)
    intents: int = option(256, "number of intents (clusters of users)", low=1, at_most="users")
    pool: str = option("mean_all", "sequence vector to be clustered", choices=("last", "mean_all", "mean_nonpad"))
    remove_false_negatives: bool = option(False, "sequences of one intent are no negatives of each other")
    kmeans_iterations: int = option(20, "iterations of K-means", low=1)
    kmeans_restarts: int = option(5, "runs of K-means, the best is kept", low=1)
    kmeans_seed: int = option(1, "seed of K-means", low=0)
    kmeans_points: int = option(4096, "most points for each centroid", low=1)


class ICLRec(CausalTransformer):
    """SASRec encoder of the S3Rec layout with BCE, contrast between views, and contrast with latent intents.

    The published encoder pads on the left to a fixed length, so that the newest item always has the last position.
    ``sequence_states`` takes right-padded histories and gives exactly the states of that layout.
    """

    Options = ICLRecOptions
    display_name = "ICLRec"
    default_protocol = "unified.full"
    training_defaults: ClassVar[dict[str, Any]] = {
        "objective": "bce",
        "coverage": "last",
        "batch_size": 256,
        "patience": 40,
        "validate_metric": "NDCG@20",
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        options: ICLRecOptions = self.options
        # K-means centroids before normalisation, and whether there are any yet: saved with the weights, so that the
        # best epoch keeps its own.
        self.register_buffer("centroids", torch.zeros(options.intents, options.hidden_size))
        self.register_buffer("has_centroids", torch.zeros((), dtype=torch.bool))
        self.clustered = False  # the same, known without asking the device
        # The padding row is drawn like any other and never learns: it takes part in pooled outputs.
        self.apply(lambda module: initialise(module, options.initializer_range))

    def sequence_states(self, item_seq: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """States ``float [B, L, d]`` at the positions that left padding to the full length would give."""
        offset = (self.max_seq_length - lengths)[:, None]
        column = torch.arange(item_seq.shape[1], device=item_seq.device)
        positions = (offset + column).clamp(max=self.max_seq_length - 1)
        x = self.item_embedding(item_seq) + self.position_embedding(positions)
        return self._encode(x, None)

    def padded_states(self, left_seq: torch.Tensor) -> torch.Tensor:
        """States ``float [B, max_length, d]`` of left-padded sequences, padding positions included.

        A real position sees the real positions up to its own. At a padding position everything is hidden alike, so
        that it sees all positions; pooling over all outputs depends on that.
        """
        length = left_seq.shape[1]
        visible = (left_seq > 0)[:, None, :] & torch.ones(
            length, length, dtype=torch.bool, device=left_seq.device
        ).tril()
        bias = torch.zeros(visible.shape, device=left_seq.device).masked_fill_(~visible, MASKED)[:, None]
        return self._encode(self.item_embedding(left_seq) + self.position_embedding.weight[:length], bias)

    def item_vectors(self) -> torch.Tensor:
        """The input table serves as output table."""
        return self.item_embedding.weight

    def training_loss(self, batch: Any, generator: torch.Generator) -> torch.Tensor:
        """The loss of next items at all targets, plus the weighted contrasts.

        Parameters
        ----------
        batch : WindowBatch
            Right-padded windows.
        generator : torch.Generator
            For negatives and views.
        """
        from recllm_bench.training.objectives import NegativeSampler, binary_cross_entropy, cross_entropy
        from recllm_bench.training.sequence import scored

        weight_sequence, weight_intent = self._weights()
        pooled = None
        if weight_intent:
            states, targets, pooled = self._states_and_pooled(batch)
        else:
            states, targets = self.sequence_states(batch.inputs, batch.lengths), batch.targets
        chosen, positives = scored(states, targets, batch.masked)
        if self.options.item_loss == "ce":
            loss = cross_entropy(chosen, positives, self.item_vectors(), masked=batch.masked)
        else:
            negatives = NegativeSampler(self.n_items - 1).draw((len(chosen), 1), generator)
            loss = binary_cross_entropy(chosen, positives, self.item_vectors(), negatives, batch.masked)
        if not (weight_sequence or weight_intent):
            return loss
        options = self.options
        ratios = (options.crop, options.mask, options.reorder)
        views = [random_view(batch.inputs, batch.lengths, ratios, generator) for _ in range(options.views)]
        lefts = [self._to_left(view, lengths) for view, lengths in views]
        outputs = self.padded_states(torch.cat(lefts)).chunk(options.views)
        for one, two in combinations(range(options.views), 2):
            if weight_sequence:
                loss = loss + weight_sequence * contrast(
                    outputs[one].flatten(1), outputs[two].flatten(1), options.temperature
                )
            if weight_intent and pooled is not None:
                assigned = nearest_centroids(pooled.float(), self.centroids)
                intents = F.normalize(self.centroids, dim=1)[assigned]
                same = assigned if options.remove_false_negatives else None
                parts = [
                    contrast(self._pool(outputs[side], lefts[side]), intents, options.temperature, same)
                    for side in (one, two)
                ]
                loss = loss + weight_intent * (parts[0] + parts[1]) / 2
        return loss

    def calculate_loss(self, interaction: Any) -> torch.Tensor:
        """RecBole's one target for each history; intents are contrasted once ``before_epoch`` has found some."""
        from recllm_bench.data.windows import WindowBatch

        inputs, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        targets = torch.zeros_like(inputs).scatter_(1, lengths[:, None] - 1, interaction[self.POS_ITEM_ID][:, None])
        seed = int(torch.randint(2**62, ()))
        generator = torch.Generator(device=inputs.device).manual_seed(seed)
        return self.training_loss(WindowBatch(torch.zeros_like(lengths), inputs, targets, lengths), generator)

    def before_epoch(self, epoch: int, context: Any) -> None:
        """Cluster the pooled outputs of all training sequences.

        Parameters
        ----------
        epoch : int
            From 1.
        context : EpochContext
            Gives the training sequences.
        """
        if self.options.contrast not in ("both", "intent") or not self.options.intent_weight:
            return
        points = []
        for _, item_seq, lengths in context.training_sequences():
            points.append(self.pooled_states(item_seq, lengths).float().cpu().numpy())
        options = self.options
        found = kmeans(
            np.concatenate(points),
            options.intents,
            iterations=options.kmeans_iterations,
            restarts=options.kmeans_restarts,
            seed=options.kmeans_seed,
            points_per_centroid=options.kmeans_points,
        )
        self.centroids.copy_(torch.from_numpy(found))
        self.has_centroids.fill_(True)
        self.clustered = True

    def pooled_states(self, item_seq: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Sequence vectors ``float [B, d]`` as they are clustered (option ``pool``)."""
        if self.options.pool == "mean_all":
            left = self._to_left(item_seq, lengths)
            return self._pool(self.padded_states(left), left)
        states = self.sequence_states(item_seq, lengths)
        if self.options.pool == "last":
            return self.gather_indexes(states, lengths - 1)
        real = (item_seq > 0)[:, :, None]
        return (states * real).sum(1) / lengths[:, None]

    def intent_vectors(self) -> torch.Tensor:
        """Normalised centroids ``float [K, d]``."""
        return F.normalize(self.centroids, dim=1)

    def write_products(self, work: Path) -> None:
        """Write ``centroids.npy`` (float32 [K, d], normalised) of the epoch whose weights the model holds."""
        if self.has_centroids:
            vectors = self.intent_vectors().cpu().numpy()
            write_array(work / "centroids.npy", vectors)

    @classmethod
    def load_released(cls, path: Path, n_items: int | None = None, n_heads: int = 2) -> ICLRec:
        """Read a checkpoint of the published code.

        Parameters
        ----------
        path : Path
            A ``state_dict`` saved by the published code; only tensors are read from it.
        n_items : int, optional
            Items of the dataset it is to be used on.
        n_heads : int
            Attention heads, which no shape tells.

        Raises
        ------
        BenchError
            When the file is missing, is no such checkpoint, or has another number of items.
        """
        path = Path(path)
        tensors = _read_tensors(path)
        try:
            table, positions = tensors["item_embeddings.weight"], tensors["position_embeddings.weight"]
            n_layers = len([name for name in tensors if name.endswith("attention.query.weight")])
            inner = len(tensors["item_encoder.layer.0.intermediate.dense_1.weight"])
            found = len(table) - 2  # padding first, the mask token last
            if n_items is not None and found != n_items:
                raise BenchError(f"{path}: its item table has {found} items, the dataset {n_items}")
            shape = ICLRecOptions(hidden_size=table.shape[1], n_layers=n_layers, n_heads=n_heads, inner_size=inner)
            model = cls(bare_config(shape, len(positions), torch.device("cpu")), Ids(found))
            model.load_state_dict(_renamed(tensors, n_layers, model), strict=True)
        except (KeyError, RuntimeError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
            raise BenchError(f"{path}: not a released ICLRec checkpoint ({reason})") from error
        return model.eval()

    def _weights(self) -> tuple[float, float]:
        kind = self.options.contrast
        sequence = self.options.sequence_weight if kind in ("both", "sequence") else 0.0
        wanted = kind in ("both", "intent")
        intent = self.options.intent_weight if wanted and (self.clustered or self.has_centroids) else 0.0
        return sequence, intent

    def _encode(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        x = self.dropout(self.input_norm(x))
        for block in self.blocks:
            x = block(x, bias)
        return x

    def _states_and_pooled(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """States with the targets in the same layout, and pooled outputs without gradient."""
        if self.options.pool == "mean_all":
            left = self._to_left(batch.inputs, batch.lengths)
            states = self.padded_states(left)
            return states, self._to_left(batch.targets, batch.lengths), self._pool(states, left).detach()
        states = self.sequence_states(batch.inputs, batch.lengths)
        if self.options.pool == "last":
            return states, batch.targets, self.gather_indexes(states, batch.lengths - 1).detach()
        real = (batch.inputs > 0)[:, :, None]
        return states, batch.targets, ((states * real).sum(1) / batch.lengths[:, None]).detach()

    def _pool(self, states: torch.Tensor, left_seq: torch.Tensor) -> torch.Tensor:
        """Pool states ``[B, L, d]`` of left-padded sequences."""
        if self.options.pool == "last":
            return states[:, -1]
        if self.options.pool == "mean_all":
            return states.mean(1)
        real = (left_seq > 0)[:, :, None]
        return (states * real).sum(1) / real.sum(1).clamp(min=1)

    def _to_left(self, values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Right-padded ``[B, L]`` to left-padded ``[B, max_length]``."""
        place = torch.arange(self.max_seq_length, device=values.device) - (self.max_seq_length - lengths)[:, None]
        return values.gather(1, place.clamp(0, values.shape[1] - 1)) * (place >= 0)


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise BenchError(f"no checkpoint at {path}")
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, all of them mean that the file is not readable
        kind = type(error).__name__  # torch's own words advise to run whatever code the file holds
        reason = f"{kind}; damaged, no file of tensors, or with code in it, which is never run"
        raise BenchError(f"{path}: cannot be read as a checkpoint ({reason}); get it again") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise BenchError(f"{path}: not a released ICLRec checkpoint (expected a mapping of names to tensors)")
    return tensors


def _renamed(tensors: dict[str, torch.Tensor], n_layers: int, model: ICLRec) -> dict[str, torch.Tensor]:
    """The published code's names and layout in ours: one projection for query, key and value."""
    named = {
        "item_embedding.weight": tensors["item_embeddings.weight"][:-1],
        "position_embedding.weight": tensors["position_embeddings.weight"],
        "centroids": model.centroids,
        "has_centroids": model.has_centroids,
    }
    pairs = {"input_norm": "LayerNorm"}
    for layer in range(n_layers):
        ours, theirs = f"blocks.{layer}", f"item_encoder.layer.{layer}"
        for kind in ("weight", "bias"):
            parts = [tensors[f"{theirs}.attention.{name}.{kind}"] for name in ("query", "key", "value")]
            named[f"{ours}.attention.project.{kind}"] = torch.cat(parts)
        pairs[f"{ours}.attention.dense"] = f"{theirs}.attention.dense"
        pairs[f"{ours}.attention_norm"] = f"{theirs}.attention.LayerNorm"
        pairs[f"{ours}.widen"] = f"{theirs}.intermediate.dense_1"
        pairs[f"{ours}.narrow"] = f"{theirs}.intermediate.dense_2"
        pairs[f"{ours}.network_norm"] = f"{theirs}.intermediate.LayerNorm"
    for ours, theirs in pairs.items():
        for kind in ("weight", "bias"):
            named[f"{ours}.{kind}"] = tensors[f"{theirs}.{kind}"]
    return named
