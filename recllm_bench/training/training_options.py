"""What a user may say about training; every sequence model reads the same options."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from recllm_bench.options import option


@dataclass(frozen=True)
class TrainingOptions:
    """Options of the training loop and of the objectives.

    ``batch_size`` counts windows, so that a step's cost grows with the window length too.
    """

    trainer: str = option("engine", "the project's loop, or RecBole's own Trainer", choices=("engine", "recbole"))
    objective: str = option("ce", "loss of causal encoders", choices=("ce", "bce", "sampled", "gbce"))
    negatives: int = option(1, "negatives of bce, sampled and gbce (for each target, or in all when shared)", low=1)
    negative_sampling: str = option(
        "uniform", "how negatives are drawn; popularity is corrected by its log", choices=("uniform", "popularity")
    )
    shared_negatives: bool = option(False, "one set of negatives for all targets of a step")
    gbce_t: float = option(0.75, "calibration of gBCE: 0 is plain BCE, 1 is fully calibrated", low=0, high=1)
    max_length: int = option(50, "items a window holds", low=1)
    coverage: str = option(
        "all",
        "every target of a history; the same from windows whose borders move each epoch; or the last window's alone",
        choices=("all", "moving", "last"),
    )
    batch_size: int = option(128, "windows in a step", low=1)
    cuda_batch_size: int = option(
        0, "windows in a step on CUDA, the learning rate times the root of what that is to batch_size (0: batch_size)",
        low=0,
    )  # fmt: skip
    accumulate: int = option(
        1, "batches whose mean gradient makes one update, for batches that memory does not hold; not with fixed steps",
        low=1,
    )  # fmt: skip
    epochs: int = option(300, "most passes over the training windows", low=1, quick=True)
    learning_rate: float = option(1e-3, "learning rate of AdamW", low=0)
    decay: str = option(
        "none", "learning rate over the epochs: constant, or down to a fiftieth at the last", choices=("none", "cosine")
    )
    warmup_steps: int = option(0, "steps over which the learning rate rises from zero", low=0)
    weight_decay: float = option(0.0, "decoupled weight decay", low=0)
    clip_norm: float = option(0.0, "largest gradient norm (0: no limit)", low=0)
    patience: int = option(10, "validations without progress before training stops (0: never)", low=0)
    validate_every: int = option(1, "epochs between validations", low=1)
    validate_metric: str = option("NDCG@10", "what decides the best epoch")
    min_delta: float = option(0.0, "smallest gain that counts as progress", low=0)
    byte_dropout: bool = option(
        False, "on a CPU, draw a byte an element for dropout in layers of other libraries too: other random numbers"
    )
    precision: str = option(
        "auto", "auto is bf16 autocast for windows on CUDA, fp32 elsewhere", choices=("auto", "fp32", "bf16")
    )
    steps: str = option(
        "auto",
        "fixed steps have batches of few shapes and on CUDA are captured as graphs; auto is fixed on CUDA",
        choices=("auto", "fixed", "python"),
    )
    steps_a_graph: int = option(1, "fixed steps that a graph holds; the same numbers, fewer launches", low=1)
    budget_seconds: float = option(0.0, "stop after this much training time (0: no limit)", low=0)

    def on(self, device: Any) -> TrainingOptions:
        """The same on a device: on CUDA with its own batches, where they are set."""
        if device.type != "cuda" or not self.cuda_batch_size:
            return self
        rate = self.learning_rate * (self.cuda_batch_size / self.batch_size) ** 0.5
        return replace(self, batch_size=self.cuda_batch_size, cuda_batch_size=0, learning_rate=rate)
