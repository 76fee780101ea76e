"""From a language model's item vectors to hybrid ones in the recommender's space (CESRec, equations 2, 10, 11)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recllm_bench.artifacts import write_json
from recllm_bench.errors import BenchError, NotEnough
from recllm_bench.files import write_array
from recllm_bench.options import option
from recllm_bench.training.loop import fit, load_weights, threads
from recllm_bench.training.training_options import TrainingOptions

VECTORS, FACTS = "hybrid.npy", "adapter.json"
_COLLAPSED = 1e-6  # share of the collaborative vectors' variance under which hybrid vectors count as equal


@dataclass(frozen=True)
class AdapterOptions:
    """The adapter's shape and training (specification, section 4)."""

    hidden: int = option(512, "width between the two layers", low=1)
    standardise: bool = option(True, "scale each dimension of the language model's vectors to mean 0, variance 1")
    learning_rate: float = option(1e-3, "learning rate of Adam", low=0)
    batch_size: int = option(512, "items in a step", low=1)
    epochs: int = option(200, "most passes over the items", low=1)
    patience: int = option(10, "passes without progress on held-out items before training stops", low=1)
    held_out: float = option(0.05, "share of the items kept aside for early stopping", low=0, high=0.5)


class Adapter(nn.Module):
    """``W2 GELU(W1 x + b1) + b2`` (2), (10), after standardisation of ``x``.

    Parameters
    ----------
    width_in, width_out : int
        Lengths d_l and d_r.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width_in: int, width_out: int, hidden: int = 512) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width_in, hidden), nn.GELU(), nn.Linear(hidden, width_out))
        self.register_buffer("mean", torch.zeros(width_in))
        self.register_buffer("scale", torch.ones(width_in))

    def standardise(self, vectors: Tensor) -> None:
        """Take mean and deviation of each dimension from vectors [n, d_l]; a constant dimension is only centred."""
        self.mean.copy_(vectors.mean(0))
        deviation = vectors.std(0, correction=0)
        self.scale.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))

    def forward(self, vectors: Tensor) -> Tensor:
        """Hybrid vectors [..., d_r] of semantic ones [..., d_l]."""
        return self.layers((vectors - self.mean) / self.scale)


def alignment_loss(hybrid: Tensor, collaborative: Tensor) -> Tensor:
    """Squared distance between hybrid and collaborative vectors [n, d_r], mean over items (11)."""
    return (hybrid - collaborative).square().sum(1).mean()


def fit_adapter(
    semantic: np.ndarray | Tensor,
    collaborative: np.ndarray | Tensor,
    options: AdapterOptions,
    work: Path,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    label: str = "adapter",
    items: np.ndarray | None = None,
) -> np.ndarray:
    """Align the language model's item vectors with the recommender's, which stay constants.

    Parameters
    ----------
    semantic : float [n_items + 1, d_l]
        Row 0 is padding.
    collaborative : float [n_items + 1, d_r]
    work : Path
        Gets the adapter, ``hybrid.npy`` and ``adapter.json``; after a kill, training goes on.
    label : str
        Name on bar and log.
    items : int [m], optional
        Items to learn from; all by default.

    Returns
    -------
    float32 [n_items + 1, d_r]
        Hybrid vectors; row 0 is zero.

    Raises
    ------
    BenchError
        When the two tables do not belong together, hold what is no number, or the hybrid vectors are all alike
        (cosines between them would mean nothing).
    """
    device = torch.device(device)
    inputs, targets = (
        torch.as_tensor(part).detach().to(device, torch.float32).clone() for part in (semantic, collaborative)
    )
    if len(inputs) != len(targets) or inputs.dim() != 2 or targets.dim() != 2:
        raise BenchError(f"{label}: vectors of shape {tuple(inputs.shape)} and {tuple(targets.shape)} do not match")
    for name, part in (("language model", inputs), ("recommender", targets)):
        if not torch.isfinite(part[1:]).all():
            raise BenchError(f"{label}: the {name}'s item vectors hold values that are no numbers")
    rng = np.random.default_rng([seed, 0xADA])
    known = rng.permutation(np.arange(1, len(inputs)) if items is None else np.asarray(items))
    n_aside = round(options.held_out * len(known))
    if len(known) - n_aside < 2:
        raise NotEnough(f"{label}: {len(known)} items are too few to align vectors with")
    aside, learnt = (torch.from_numpy(part).to(device) for part in (known[:n_aside], known[n_aside:]))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        adapter = Adapter(inputs.shape[1], targets.shape[1], options.hidden).to(device)
    if options.standardise:
        adapter.standardise(inputs[learnt])

    def batches(epoch: int) -> Iterator[Tensor]:
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(learnt)))
        yield from learnt[order.to(device)].split(options.batch_size)

    def loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        return alignment_loss(adapter(inputs[rows]), targets[rows])

    def validate() -> float:
        return -float(alignment_loss(adapter(inputs[aside]), targets[aside]))

    training = TrainingOptions(
        epochs=options.epochs,
        patience=options.patience,
        learning_rate=options.learning_rate,
        validate_metric="-distance",
        precision="fp32",
    )
    with threads(1):  # steps are small products; waking a second thread costs more than it saves
        outcome = fit(
            batches, loss, {"adapter": adapter}, validate if n_aside else None, training, work,
            device=device, seed=seed, label=label,
        )  # fmt: skip
    with torch.no_grad():
        hybrid = adapter(inputs)
        hybrid[0] = 0
        spread, expected = (part[1:].var(0, correction=0).sum() for part in (hybrid, targets))
        if not torch.isfinite(spread) or spread <= _COLLAPSED * expected:
            raise BenchError(
                f"{label}: the hybrid vectors of all items are alike (variance {float(spread):.2g}), so no outlier can "
                "be told; lower its learning rate, or train the recommender longer"
            )
        facts: dict[str, Any] = {
            "items": len(learnt),
            "held_out": n_aside,
            "epochs": outcome.epochs,
            "distance": float(alignment_loss(hybrid[learnt], targets[learnt])),
            "variance": float(spread),
        }
        if n_aside:
            middle = targets[learnt].mean(0).expand(n_aside, -1)
            facts["held_out_distance"] = float(alignment_loss(hybrid[aside], targets[aside]))
            facts["held_out_distance_of_mean"] = float(alignment_loss(middle, targets[aside]))
    vectors = hybrid.cpu().numpy()
    write_array(work / VECTORS, vectors)
    write_json(work / FACTS, facts)
    return vectors


def load_hybrid(folder: Path) -> np.ndarray:
    """The hybrid vectors of a finished alignment, float32 [n_items + 1, d_r]."""
    return np.load(folder / VECTORS)


def load_adapter(folder: Path, width_in: int, width_out: int, hidden: int = 512) -> Adapter:
    """The adapter of a finished alignment, for texts that are not items."""
    adapter = Adapter(width_in, width_out, hidden)
    load_weights(folder, {"adapter": adapter})
    return adapter.eval().requires_grad_(False)
