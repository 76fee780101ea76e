"""The training loop: epochs, early stopping, a checkpoint after each epoch, exact resumption.

Everything random in an epoch is seeded by ``(seed, epoch)``. A run that was killed and started again therefore needs
nothing but the parameters and the optimiser's state of the last whole epoch to go on exactly as if undisturbed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from recllm_bench.artifacts import Damaged, write_json
from recllm_bench.errors import BenchError, NotEnough
from recllm_bench.products import has_bfloat16
from recllm_bench.progress import log, track
from recllm_bench.training.checkpoints import check_fits, remove_checkpoint, resume_from, write_checkpoint
from recllm_bench.training.finished import (
    HISTORY,
    Outcome,
    load_outcome,
    load_weights,
    save_outcome,
    save_weights,
)
from recllm_bench.training.graphs import FixedSteps, parts_of
from recllm_bench.training.training_options import TrainingOptions

CHECKPOINT = "last.pt"


def fit(
    batches: Callable[[int], Iterable[Any]],
    loss: Callable[[Any, torch.Generator], torch.Tensor],
    modules: Mapping[str, nn.Module],
    validate: Callable[[], float] | None,
    options: TrainingOptions,
    work: Path,
    *,
    device: torch.device | str = "cpu",
    seed: int = 0,
    label: str = "train",
    before_epoch: Callable[[int], None] | None = None,
    steps: int | None = None,
    optimiser: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
    fixed: bool = False,
) -> Outcome:
    """Train until validation stops improving, and leave the best epoch's weights in ``modules``.

    Parameters
    ----------
    batches : callable
        ``batches(epoch)`` (epoch from 1) gives the epoch's batches, or ``graphs.Run`` of them.
        Modules are in training mode when it is called; it may switch them (to freeze one side for a part of the
        epoch), being run step by step with the loop.
    loss : callable
        ``loss(batch, generator)`` gives the scalar to minimise. ``generator`` is a generator on ``device`` seeded for
        the epoch, for negatives and augmentations; torch's global one is seeded too (dropout).
    modules : mapping of str to Module
        What is trained (parameters that require a gradient), saved in checkpoints and restored, buffers included.
        Their training mode is set here.
    validate : callable or None
        Larger is better; called with all modules in evaluation mode, without gradient. Without it the last epoch wins.
    options : TrainingOptions
        Epochs, patience, optimiser, precision, budget.
    work : Path
        Folder for the checkpoint, ``history.json``, ``outcome.json`` and ``model.safetensors``. When it holds a
        checkpoint, training goes on from there; when it holds a finished run, that run's weights are loaded. A
        damaged or foreign checkpoint is set aside, and the one before it serves, or training begins anew.
    seed : int
        Fixes data order, dropout and sampling.
    before_epoch : callable, optional
        ``before_epoch(epoch)`` refreshes what the loss needs (clusters); modules are in evaluation mode.
    steps : int, optional
        Batches an epoch has, for the bar, where ``batches(epoch)`` has no length.
    optimiser : callable, optional
        ``optimiser(parameters)`` makes the optimiser; AdamW by default.
    fixed : bool
        Whether steps may run as ``graphs.FixedSteps``: batches are dataclasses, and what the loss reads beside them
        stays where it is.

    Returns
    -------
    Outcome
        Best epoch and the whole history.

    Raises
    ------
    BenchError
        When the loss is no longer a finite number, or an epoch has no batch.
    """
    device = torch.device(device)
    work.mkdir(parents=True, exist_ok=True)
    finished = load_outcome(work)
    if finished is not None:
        load_weights(work, modules)
        _set_training(modules, False)
        return finished
    trained = _trainable(modules)
    fixed = fixed and optimiser is None and takes_fixed_steps(options, device)
    stepper = _adamw(trained, options, device, fixed) if optimiser is None else optimiser(trained)
    state = _State()
    state.resume(work / CHECKPOINT, modules, stepper)
    step = _Step(trained, stepper, options, device, label)
    if fixed:
        step.fixed = FixedSteps(loss, trained, stepper, options, device, step.autocast, label)
    with track(label=label, total=options.epochs, unit="epoch") as bar:
        bar.update(state.epoch)
        while not (stopped_by := state.stopped_by(options)):
            start = time.perf_counter()
            epoch = state.epoch + 1
            generator = seed_epoch(seed, epoch, device, step.fixed.generator if step.fixed else None)
            if before_epoch is not None:
                _set_training(modules, False)
                with torch.no_grad():
                    before_epoch(epoch)
            _set_training(modules, True)
            entry: dict[str, Any] = {"epoch": epoch, "loss": step.epoch(epoch, batches, loss, generator, steps)}
            entry["seconds"] = round(time.perf_counter() - start, 3)
            if validate is not None and (epoch % options.validate_every == 0 or epoch == options.epochs):
                _set_training(modules, False)
                with torch.no_grad():
                    entry["validation"] = float(validate())
            state.record(entry, time.perf_counter() - start, modules, options, validated=validate is not None)
            state.save(work / CHECKPOINT, modules, stepper)
            write_json(work / HISTORY, state.history)
            shown = f" {options.validate_metric} {entry['validation']:.4f}" if "validation" in entry else ""
            bar.set_postfix_str(f"loss {entry['loss']:.4f}{shown} best {state.best_epoch}", refresh=False)
            bar.update()
            log.debug(f"{label}: epoch {epoch}", extra={"facts": entry})
    state.restore_best(modules)
    _set_training(modules, False)
    outcome = Outcome(
        best_epoch=state.best_epoch,
        best_metric=state.best_metric,
        epochs=state.epoch,
        seconds=round(state.seconds, 3),
        stopped_by=stopped_by,
        history=state.history,
    )
    save_weights(work, modules)
    save_outcome(work, outcome)
    remove_checkpoint(work / CHECKPOINT)
    best = "" if math.isnan(outcome.best_metric) else f", {options.validate_metric} {outcome.best_metric:.4f}"
    log.info(
        f"{label}: kept epoch {outcome.best_epoch} of {outcome.epochs}{best}, {outcome.seconds:.1f} s, "
        f"stopped by {outcome.stopped_by}"
    )
    return outcome


def takes_fixed_steps(options: TrainingOptions, device: torch.device) -> bool:
    """Whether a training asks for steps of fixed places: on CUDA unless it is told otherwise."""
    if options.accumulate > 1:
        return False
    return options.steps == "fixed" or (options.steps == "auto" and device.type == "cuda")


def _adamw(
    trained: list[nn.Parameter], options: TrainingOptions, device: torch.device, fixed: bool
) -> torch.optim.Optimizer:
    fused = device.type in ("cpu", "cuda") and all(parameter.is_floating_point() for parameter in trained)
    rate, decay, capturable = options.learning_rate, options.weight_decay, fixed and device.type == "cuda"
    return torch.optim.AdamW(trained, lr=rate, weight_decay=decay, fused=fused, capturable=capturable)


def seed_epoch(
    seed: int, epoch: int, device: torch.device | str, generator: torch.Generator | None = None
) -> torch.Generator:
    """Seed torch's global generator (dropout) for an epoch and a second one for sampling, which is returned.

    Both are functions of ``(seed, epoch)`` alone, so that an epoch can be repeated without the ones before it.
    """
    dropout, sampling = np.random.SeedSequence([seed, epoch]).generate_state(2, np.uint64) >> np.uint64(1)
    torch.manual_seed(int(dropout))
    return (generator or torch.Generator(device=device)).manual_seed(int(sampling))


@contextmanager
def threads(at_most: int) -> Iterator[None]:
    """Let torch compute with few threads on the CPU while the block runs: for steps of a few small products."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(at_most, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def learning_rate(options: TrainingOptions, epoch: int) -> float:
    """The rate of an epoch (from 1): constant, or half a cosine from ``learning_rate`` down to a fiftieth of it."""
    if options.decay == "none" or options.epochs == 1:
        return options.learning_rate
    share = (1 + math.cos(math.pi * (epoch - 1) / (options.epochs - 1))) / 2
    return options.learning_rate * (0.02 + 0.98 * share)


class _Step:
    """Forward, backward, update; and an epoch of them."""

    def __init__(
        self,
        parameters: list[nn.Parameter],
        optimiser: torch.optim.Optimizer,
        options: TrainingOptions,
        device: torch.device,
        label: str,
    ) -> None:
        self.parameters, self.optimiser, self.options, self.label = parameters, optimiser, options, label
        self.rate = options.learning_rate
        able = device.type == "cuda" and has_bfloat16(device)
        wanted = options.precision == "bf16" or (options.precision == "auto" and able)
        self.autocast = (lambda: torch.autocast(device.type, torch.bfloat16)) if wanted else nullcontext
        self.check_every = 1 if device.type == "cpu" else 50  # reading a CUDA scalar waits for the device
        self.fixed: FixedSteps | None = None

    def epoch(
        self,
        epoch: int,
        batches: Callable[[int], Iterable[Any]],
        loss: Callable[[Any, torch.Generator], torch.Tensor],
        generator: torch.Generator,
        steps: int | None,
    ) -> float:
        """Train on every batch; returns the mean loss of the steps."""
        self.rate = learning_rate(self.options, epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate
        total, count = None, 0
        if self.fixed is not None:
            self.fixed.begin(self.rate)
        drawn = batches(epoch)
        total_steps = len(drawn) if isinstance(drawn, Sized) else steps
        with track(label=f"{self.label}: epoch {epoch}", total=total_steps, unit="step") as bar:
            for given in drawn:
                parts = parts_of(given)
                if self.fixed is not None:
                    self.fixed.steps(given)
                    total, count = self.fixed.total, count + len(parts)
                    bar.update(len(parts))
                    continue
                for batch in parts:
                    value = self._gather(batch, loss, generator, first=count % self.options.accumulate == 0)
                    count += 1
                    if count % self.options.accumulate == 0:
                        self._move()
                    total = value.double() if total is None else total + value
                    if count % self.check_every == 0:
                        self._check(float(total), epoch, count)
                    bar.update()
        if left := count % self.options.accumulate:  # the last update of an epoch has the mean of fewer
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(self.options.accumulate / left)
            self._move()
        if total is None:
            raise NotEnough(f"{self.label}: nothing to train on; every history is shorter than two items")
        self._check(float(total), epoch, count)
        return float(total) / count

    def _gather(self, batch: Any, loss: Callable, generator: torch.Generator, first: bool) -> torch.Tensor:
        """Add the gradient of a batch to those of its update, of which it may be the ``first``."""
        if first:
            self._warm_up()
            self.optimiser.zero_grad(set_to_none=True)
        with self.autocast():
            value = loss(batch, generator)
        (value if self.options.accumulate == 1 else value / self.options.accumulate).backward()
        return value.detach()

    def _move(self) -> None:
        if self.options.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, self.options.clip_norm)
        self.optimiser.step()

    def _warm_up(self) -> None:
        if not self.options.warmup_steps:
            return
        state = next(iter(self.optimiser.state.values()), None)
        done = int(state["step"]) if state else 0
        if done <= self.options.warmup_steps:
            share = min(1.0, (done + 1) / self.options.warmup_steps)
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate * share

    def _check(self, total: float, epoch: int, step: int) -> None:
        if not math.isfinite(total):
            raise BenchError(
                f"{self.label}: the loss is no longer a number (epoch {epoch}, step {step}); lower "
                "training.learning_rate or set training.clip_norm=5"
            )


class _State:
    """What a checkpoint holds beside weights: the history, and the best epoch's weights."""

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.epoch = 0
        self.best_epoch = 0
        self.best_metric = math.nan
        self.stale = 0
        self.seconds = 0.0
        self.best: dict[str, dict[str, torch.Tensor]] = {}

    def stopped_by(self, options: TrainingOptions) -> str:
        if options.patience and self.stale >= options.patience:
            return "patience"
        if self.epoch >= options.epochs:
            return "epochs"
        if options.budget_seconds and self.seconds >= options.budget_seconds:
            return "budget"
        return ""

    def record(
        self,
        entry: dict[str, Any],
        seconds: float,
        modules: Mapping[str, nn.Module],
        options: TrainingOptions,
        validated: bool,
    ) -> None:
        """Take note of an epoch, and keep its weights when it is the best so far."""
        self.epoch = entry["epoch"]
        self.seconds += seconds
        self.history.append(entry)
        if validated and "validation" not in entry:
            return
        metric = entry.get("validation", math.nan)
        if validated and self.best_epoch and not metric > self.best_metric + options.min_delta:
            self.stale += 1
            return
        self.stale, self.best_epoch, self.best_metric = 0, self.epoch, metric
        self.best = {name: _copy(module.state_dict()) for name, module in modules.items()} if validated else {}

    def restore_best(self, modules: Mapping[str, nn.Module]) -> None:
        for name, tensors in self.best.items():
            modules[name].load_state_dict(tensors)

    def save(self, path: Path, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer) -> None:
        content = {
            "modules": {name: module.state_dict() for name, module in modules.items()},
            "optimiser": optimiser.state_dict(),
            "state": self.__dict__,
        }
        write_checkpoint(path, content)

    def resume(self, path: Path, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer) -> None:
        """Go on from a checkpoint, when there is a usable one."""

        def restore(content: dict[str, Any]) -> None:
            self._check(content, path, modules, optimiser)
            for name, module in modules.items():
                module.load_state_dict(content["modules"][name])
            optimiser.load_state_dict(content["optimiser"])
            self.__dict__.update(content["state"])

        if resume_from(path, restore):
            log.info(f"going on after epoch {self.epoch}")

    def _check(
        self, content: Any, path: Path, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer
    ) -> None:
        """Refuse what another model, another optimiser or another version wrote, before anything is changed."""
        what = f"the checkpoint {path}"
        try:
            kept, groups, state = content["modules"], content["optimiser"]["param_groups"], content["state"]
            sizes = [len(group["params"]) for group in groups]
            alike = state.keys() == self.__dict__.keys() and kept.keys() == modules.keys()
        except (KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"{what} is of another version") from error
        if not alike or sizes != [len(group["params"]) for group in optimiser.param_groups]:
            raise Damaged(f"{what} is of another version or another model")
        for name, module in modules.items():
            check_fits(kept[name], module, what)


def _copy(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in tensors.items()}


def _trainable(modules: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    """Parameters that require a gradient, each once."""
    every = dict.fromkeys(parameter for module in modules.values() for parameter in module.parameters())
    return [parameter for parameter in every if parameter.requires_grad]


def _set_training(modules: Mapping[str, nn.Module], training: bool) -> None:
    for module in modules.values():
        module.train(training)
