"""RecBole's own batches and losses, for models that are no causal encoders."""

from __future__ import annotations

import functools
import operator
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.errors import BenchError
from recllm_bench.recbole_bridge.shims import load_recbole, quietly

if TYPE_CHECKING:
    import torch


def trains_by_gradient(model: Any) -> bool:
    """Whether training takes steps; Pop, ItemKNN, EASE and their like are ready once they are built."""
    load_recbole()
    from recbole.utils import ModelType

    # nceplrec.py and its like are of the general type, but solve their equations at once and hold a dummy parameter.
    return model.type != ModelType.TRADITIONAL and sum(part.numel() for part in model.parameters()) > 1


def training_batches(config: Any, dataset: Any) -> Any:
    """RecBole's training loader: prefixes for sequential models, negatives as the configuration says.

    Iterating gives ``Interaction`` batches on the CPU.

    Raises
    ------
    BenchError
        When negatives cannot be drawn because a user has every item.
    """
    load_recbole()
    from recbole.data.utils import _create_sampler, get_dataloader

    asked = config["train_neg_sample_args"]
    nothing = dataset.copy(dataset.inter_feat[np.zeros(0, np.int64)])
    try:
        with quietly():
            sampler = _create_sampler(
                dataset,
                [dataset, nothing, nothing],
                asked["distribution"],
                config["repeatable"],
                asked["alpha"],
            )
            sampler = sampler.set_phase("train") if sampler else None
            return get_dataloader(config, "train")(config, dataset, sampler, shuffle=config["shuffle"])
    except ValueError as error:
        raise BenchError(f"{config['model']} on {config['dataset']}: {error}") from error


class ZooTraining:
    """Batches and loss of one model, for a loop that takes the steps.

    Order, negatives and masks of an epoch are a function of ``(seed, epoch)`` alone, so that a killed run can go on.

    Parameters
    ----------
    model : recbole recommender
        On ``device``.
    config, dataset
        What :func:`build_model` returned with it.

    Attributes
    ----------
    steps : int
        Batches in an epoch.
    """

    def __init__(self, model: Any, config: Any, dataset: Any, device: torch.device | str, seed: int) -> None:
        self.model, self.config, self.device, self.seed = model, config, device, seed
        self.loader = training_batches(config, dataset)
        if config["train_neg_sample_args"].get("dynamic"):
            self.loader.get_model(model)  # trainer.py Trainer.fit
        # trainer.py RecVAETrainer: some passes train the encoder, then the prior is renewed, then the decoder.
        self._two_sided = hasattr(model, "update_prior")
        self._encoder_passes = int(config["n_enc_epochs"] or 0) if self._two_sided else 0
        passes = self._encoder_passes + int(config["n_dec_epochs"] or 0) if self._two_sided else 1
        self.steps = len(self.loader) * passes
        self._epoch, self._encoder_turn = 0, False

    def before_epoch(self, epoch: int) -> None:
        """Renew NCL's clusters (trainer.py NCLTrainer.fit); ``epoch`` counts from 1."""
        self._epoch = epoch
        if hasattr(self.model, "e_step") and (epoch - 1) % int(self.config["m_step"]) == 0:
            with self._explained(), quietly():
                self.model.e_step()

    def batches(self, epoch: int) -> Iterator[Any]:
        """Batches of an epoch (from 1), on the device."""
        self._epoch = epoch
        state = np.random.SeedSequence([self.seed, epoch]).generate_state(2)
        self.loader.generator.manual_seed(int(state[0]))
        np.random.seed(state[1])  # noqa: NPY002  sampler/sampler.py draws from NumPy's global generator
        random.seed(int(state[1]))  # data/transform.py masks with this one
        if not self._two_sided:
            yield from self._one_pass()
            return
        try:
            for _ in range(self._encoder_passes):
                yield from self._one_side(encoder=True)
            self.model.update_prior()
            for _ in range(int(self.config["n_dec_epochs"])):
                yield from self._one_side(encoder=False)
        finally:
            self.model.encoder.requires_grad_(True)
            self.model.decoder.requires_grad_(True)

    def loss(self, batch: Any, generator: torch.Generator | None = None) -> torch.Tensor:
        """The model's own loss, summed where it has parts; ``generator`` is not needed."""
        with self._explained():
            if self._two_sided:
                parts = self.model.calculate_loss(batch, self._encoder_turn)
            else:
                parts = self.model.calculate_loss(batch)
        if not isinstance(parts, tuple):
            return parts
        # trainer.py NCLTrainer._train_epoch leaves the prototype loss out while it warms up.
        if hasattr(self.model, "e_step") and self._epoch <= int(self.config["warm_up_step"]):
            parts = parts[:-1]
        return functools.reduce(operator.add, parts)

    def _one_pass(self) -> Iterator[Any]:
        with self._explained():
            for batch in self.loader:
                yield batch.to(self.device)

    def _one_side(self, encoder: bool) -> Iterator[Any]:
        self._encoder_turn = encoder
        self.model.encoder.requires_grad_(encoder)
        self.model.decoder.requires_grad_(not encoder)
        yield from self._one_pass()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn an error from inside RecBole's model into one line (too few users for its clusters, and the like)."""
        try:
            yield
        except (RuntimeError, ValueError, IndexError, KeyError, AssertionError) as error:
            where = f"RecBole's {type(self.model).__name__} cannot train on {self.config['dataset']}"
            text = str(error).strip().splitlines() or [type(error).__name__]
            raise BenchError(f"{where}: {text[-1]}; change its options, or choose another model") from error


def zoo_training(model: Any, device: torch.device | str = "cpu", seed: int = 0) -> ZooTraining:
    """Batches and loss of a model that :func:`build_model` made (it remembers its configuration and dataset)."""
    config, dataset = model.recbole_parts
    return ZooTraining(model, config, dataset, device, seed)
