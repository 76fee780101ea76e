"""Training of one sequence model on one split: which loss it gets, and in which batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from recllm_bench import recbole_bridge
from recllm_bench.data.splits import Split
from recllm_bench.data.windows import DeviceHistories, WindowBatch, training_windows
from recllm_bench.dropout import draw_bytes
from recllm_bench.training.finished import Outcome
from recllm_bench.training.graphs import runs
from recllm_bench.training.loop import fit, takes_fixed_steps
from recllm_bench.training.objectives import objective_named
from recllm_bench.training.training_options import TrainingOptions

if TYPE_CHECKING:
    from recllm_bench.evaluation.protocols import Protocol

POOL = 16  # batches among which windows are sorted by length: little padding, and batches still differ


def train_sequence_model(
    model: nn.Module,
    split: Split,
    options: TrainingOptions,
    *,
    validate: Callable[[], float] | None,
    work: Path,
    device: torch.device | str = "cpu",
    seed: int = 0,
    label: str = "train",
) -> Outcome:
    """Train a model on the training prefixes of a split.

    A model with ``training_loss(batch, generator)`` is trained by it; a causal encoder (``sequence_states`` and
    ``item_vectors``) by ``options.objective`` at all positions; any other model of RecBole's zoo by its own
    ``calculate_loss`` on RecBole's batches. ``options.trainer: recbole`` leaves all of it to RecBole's own trainer.

    Parameters
    ----------
    model : torch.nn.Module
        On ``device``; holds the best epoch's weights afterwards.
    options : TrainingOptions
        Objective, windows, optimiser.
    validate : callable or None
        The validation metric of the model as it stands; larger is better.
    work : Path
        Folder for checkpoints and the product; a killed run goes on from what it finds there.
    seed : int
        Fixes data order, dropout and sampling.

    Returns
    -------
    Outcome
        Best epoch, history, seconds.
    """
    if options.trainer == "recbole":
        from recllm_bench.training.recbole_trainer import train_with_recbole

        return train_with_recbole(model, options, validate=validate, work=work, label=label)
    if options.byte_dropout:
        draw_bytes(model)
    device = torch.device(device)
    options = options.on(device)
    source = _source(model, split, options, device, seed)
    if options.precision == "auto" and not reads_windows(model):
        options = dataclasses.replace(options, precision="fp32")  # sparse products of the zoo know no half precision
    outcome = fit(
        source.batches,
        source.loss,
        {"model": model},
        validate,
        options,
        work,
        device=device,
        seed=seed,
        label=label,
        before_epoch=source.before_epoch,
        steps=source.steps,
        fixed=reads_windows(model),
    )
    if hasattr(model, "write_products"):
        cast(Any, model).write_products(work)
    return outcome


def validator(
    model: nn.Module,
    split: Split,
    protocol: Protocol,
    options: TrainingOptions,
    *,
    device: torch.device | str = "cpu",
    columns: Mapping[str, np.ndarray] | None = None,
) -> Callable[[], float] | None:
    """Bind the validation metric: the mean over all validation cases, by full ranking under the protocol's rules.

    Parameters
    ----------
    model : torch.nn.Module
        Scored as it stands at each call.
    split : Split
        Its validation cases.
    protocol : Protocol
        What is done with history items and ties.
    options : TrainingOptions
        ``validate_metric, max_length``.
    columns : mapping, optional
        Further columns of the validation cases.

    Returns
    -------
    callable or None
        None when the split has no validation cases.

    Raises
    ------
    BenchError
        For an unknown metric.
    """
    from recllm_bench.evaluation.metrics import per_user, validation_metric
    from recllm_bench.evaluation.own_metrics import data_facts
    from recllm_bench.evaluation.ranks import rank_cases

    name = validation_metric(options.validate_metric)
    if not len(split.valid):
        return None
    rules = dataclasses.replace(protocol, candidates="all")
    length = int(getattr(model, "history_length", 0) or options.max_length)
    facts = data_facts(split)

    def validate() -> float:
        ranks = rank_cases(model, split, split.valid, rules, columns=columns, max_length=length, device=device)
        values = per_user(ranks, (name,), (), rules.ties, warn=False, facts=facts)
        return float(next(iter(values.values())).mean())

    return validate


@dataclass(frozen=True)
class EpochContext:
    """What ``before_epoch(epoch, context)`` of a model may read.

    Attributes
    ----------
    split : Split
        The data; only training prefixes may be read.
    histories : DeviceHistories
        Makes padded batches.
    max_length : int
        Items in a window.
    device : torch.device
        Where batches are made.
    seed : int
        Seed of the run.
    """

    split: Split
    histories: DeviceHistories
    max_length: int
    device: torch.device
    seed: int

    def training_sequences(self, batch_size: int = 512) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """The newest training window of every user as ``(users [B], item_seq [B, L], lengths [B])``.

        The last training item is left out, being the newest target: what is seen is what training reads.
        """
        windows = training_windows(self.split.histories, self.split.train_ends, self.max_length, "last")
        for start in range(0, len(windows), batch_size):
            rows = np.arange(start, min(start + batch_size, len(windows)))
            batch = self.histories.window_batch(windows, rows, self.max_length)
            yield batch.users, batch.inputs, batch.lengths


@dataclass(frozen=True)
class _Source:
    batches: Callable[[int], Any]
    loss: Callable[[Any, torch.Generator], torch.Tensor]
    before_epoch: Callable[[int], None] | None
    steps: int | None


def reads_windows(model: nn.Module) -> bool:
    """Whether a model trains on this project's windows, not on batches of RecBole's own making."""
    return hasattr(model, "training_loss") or is_causal_encoder(model)


def _source(model: Any, split: Split, options: TrainingOptions, device: torch.device, seed: int) -> _Source:
    if not reads_windows(model):
        zoo = recbole_bridge.zoo_training(model, device, seed)
        return _Source(zoo.batches, zoo.loss, zoo.before_epoch, zoo.steps)
    histories = DeviceHistories(split.histories, device)
    before_epoch = None
    if hasattr(model, "before_epoch"):
        context = EpochContext(split, histories, options.max_length, device, seed)
        before_epoch = lambda epoch: model.before_epoch(epoch, context)  # noqa: E731
    loss = getattr(model, "training_loss", None) or encoder_loss(model, split, options, device)
    if not takes_fixed_steps(options, device):
        return _Source(
            lambda epoch: WindowBatches(histories, split.train_ends, options, seed, epoch), loss, before_epoch, None
        )
    return _Source(
        _Ahead(lambda epoch: FixedWindowBatches(histories, split.train_ends, options, seed, epoch), options.epochs),
        lambda rows, generator: loss(histories.fixed_batch(rows), generator),
        before_epoch,
        None,
    )


class _Ahead:
    """Draws the batches of the next epoch while a device still has steps of the present one in its queue."""

    def __init__(self, draw: Callable[[int], FixedWindowBatches], epochs: int) -> None:
        self.draw, self.epochs = draw, epochs
        self.ready: tuple[int, FixedWindowBatches] | None = None

    def __call__(self, epoch: int) -> FixedWindowBatches:
        """The batches of an epoch."""
        found = self.ready[1] if self.ready and self.ready[0] == epoch else self.draw(epoch)
        self.ready = None
        found.at_end = lambda: self._prepare(epoch + 1)
        return found

    def _prepare(self, epoch: int) -> None:
        if epoch <= self.epochs:
            self.ready = epoch, self.draw(epoch)


def is_causal_encoder(model: Any) -> bool:
    """Whether one forward pass gives the states of all positions."""
    return hasattr(model, "sequence_states") and hasattr(model, "item_vectors")


class WindowBatches:
    """The batches of an epoch: every window once, in an order that ``(seed, epoch)`` fixes, alike in length together.

    Parameters
    ----------
    histories : DeviceHistories
        Makes padded batches.
    train_ends : int64 [n_users]
        Absolute exclusive end of each training prefix.
    options : TrainingOptions
        ``max_length, coverage, batch_size``.
    seed, epoch : int
        Fix the windows and their order.
    """

    def __init__(
        self, histories: DeviceHistories, train_ends: np.ndarray, options: TrainingOptions, seed: int, epoch: int
    ) -> None:
        self.histories, self.max_length = histories, options.max_length
        self.windows = training_windows(
            histories.histories, train_ends, options.max_length, options.coverage, (seed, epoch)
        )
        self.rows = batch_rows(self.windows.ends - self.windows.starts, options.batch_size, seed, epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[WindowBatch]:
        for rows in self.rows:
            yield self.histories.window_batch(self.windows, rows, self.max_length)


class FixedWindowBatches(WindowBatches):
    """The same batches for fixed steps: rows of windows, or runs of them, which the step itself makes batches of."""

    at_end: Callable[[], None] = staticmethod(lambda: None)

    def __init__(
        self, histories: DeviceHistories, train_ends: np.ndarray, options: TrainingOptions, seed: int, epoch: int
    ) -> None:
        super().__init__(histories, train_ends, options, seed, epoch)
        self.together = options.steps_a_graph

    def __iter__(self) -> Iterator[Any]:
        yield from runs(self.histories.fixed_rows(self.windows, self.rows, self.max_length), self.together)
        self.at_end()


def batch_rows(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Shuffle rows, sort each pool of ``POOL`` batches by length, cut into batches, shuffle the batches.

    Parameters
    ----------
    lengths : int [n]
        Length of each row.

    Returns
    -------
    list of int64 arrays
        Every row is in exactly one batch.
    """
    if not len(lengths):
        return []
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    pool = POOL * batch_size
    pools = np.split(order, range(pool, len(order), pool))
    order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in pools])
    batches = np.split(order, range(batch_size, len(order), batch_size))
    return [batches[place] for place in rng.permutation(len(batches))]


def encoder_loss(
    model: Any, split: Split, options: TrainingOptions, device: torch.device
) -> Callable[[WindowBatch, torch.Generator], torch.Tensor]:
    """Loss of a causal encoder: the objective at every position that has a target, and at no other."""
    n_items = split.histories.n_items
    counts = None
    if options.negative_sampling == "popularity":
        counts = training_counts(split).to(device)
    # RecBole's cross entropy has a class for padding; its classes train here by their own definition.
    theirs = type(model).__module__.startswith("recbole.")
    objective = objective_named(options, n_items, counts, padding_is_class=theirs)

    def loss(batch: WindowBatch, generator: torch.Generator) -> torch.Tensor:
        states = model.sequence_states(batch.inputs, batch.lengths)
        chosen, targets = scored(states, batch.targets, batch.masked)
        return objective(chosen, targets, model.item_vectors(), generator, batch.masked)

    return loss


def scored(states: torch.Tensor, targets: torch.Tensor, masked: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """States ``[n, d]`` and targets ``[n]`` of the positions that have one; of all positions when ``masked``."""
    states, targets = states.reshape(-1, states.shape[-1]), targets.flatten()
    if masked:
        return states, targets
    places = targets.nonzero().squeeze(1)
    return states.index_select(0, places), targets[places]


def training_counts(split: Split) -> torch.Tensor:
    """How often each item occurs in the training prefixes, int64 [n_items + 1]."""
    items = split.histories.items[split.histories.before(split.train_ends)]
    return torch.from_numpy(np.bincount(items, minlength=split.histories.n_items + 1))
