"""Training steps as one launch: captured once for each form of batch, replayed for every other batch of that form.

On a small model a step is hundreds of kernels that a GPU ends sooner than Python starts them. A CUDA graph holds all of
them: forward, backward, clipping, the optimiser, the sum of the losses. What a replay reads lies at fixed places: the
batch is copied there, the rate of learning and the state of the optimiser are tensors, generators are registered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from recllm_bench.progress import log
from recllm_bench.training.training_options import TrainingOptions

WARM_UP = 3
"""Steps of a form that run from Python before it is captured: kernels are chosen, the optimiser makes its state."""
MOST = 12
"""Forms that are captured; batches of further forms run from Python."""


@dataclass(frozen=True)
class Run:
    """Batches of one form whose steps follow one another with nothing between: one launch where they are captured."""

    batches: tuple[Any, ...]


def runs(batches: Iterable[Any], most: int) -> Iterator[Any]:
    """Neighbouring batches of one form as runs of ``most``; what is left over comes batch by batch, in order."""
    held: list[Any] = []
    for batch in batches:
        if held and form_of(batch) != form_of(held[0]):
            yield from held
            held = []
        held.append(batch)
        if len(held) == most:
            yield Run(tuple(held)) if most > 1 else batch
            held = []
    yield from held


class Steps:
    """Takes steps; what recurs in the same form is captured.

    A form is a batch's type, the shapes of its tensors and its other values; a :class:`Run` has one of its own. Steps
    that read sizes back from the device or copy from the host cannot be captured: they run from Python, with one note
    in the log.

    Parameters
    ----------
    step : callable
        ``step(batch)`` takes a whole step; it must change tensors in place alone.
    device : torch.device
        Only on CUDA is anything captured; elsewhere the same step runs on the same fixed places.
    generator : torch.Generator
        Of negatives and augmentations, beside torch's own.
    label : str
        For the note.
    """

    def __init__(
        self, step: Callable[[Any], None], device: torch.device, generator: torch.Generator, label: str
    ) -> None:
        self.step, self.device, self.generator, self.label = step, device, generator, label
        self.seen: Counter[Any] = Counter()
        self.replays: dict[Any, Callable[[Any], None]] = {}
        self.refused = ""
        if device.type == "cuda":
            self.stream = torch.cuda.Stream(device)
            self.pool = torch.cuda.graph_pool_handle()
            if not hasattr(torch.cuda.CUDAGraph, "register_generator_state"):
                self.refused = "this torch cannot capture a generator"

    def __call__(self, batch: Any) -> None:
        """Take the step of a batch, or the steps of a run."""
        form, parts = form_of(batch), parts_of(batch)
        if form not in self.replays:
            if self.refused or self.seen[form_of(parts[0])] < WARM_UP or len(self.replays) >= MOST:
                for part in parts:
                    self._from_python(part)
                return
            recorded = self._recorded(batch)
            if self.refused:
                for part in parts:
                    self._from_python(part)
                return
            self.replays[form] = recorded
        self.replays[form](batch)

    def _from_python(self, batch: Any) -> None:
        """Take a step as it is written; the last before a capture is watched for what would wait for the device."""
        form = form_of(batch)
        self.seen[form] += 1
        watched = self.seen[form] == WARM_UP and not self.refused
        if self.device.type != "cuda":
            self.step(batch)
            return
        here = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            mode = torch.cuda.get_sync_debug_mode()
            try:
                torch.cuda.set_sync_debug_mode("error" if watched else mode)
                self.step(batch)
            except RuntimeError as error:
                if not watched or "synchroniz" not in str(error):
                    raise
                self._refuse(error)
                torch.cuda.set_sync_debug_mode(mode)
                self.step(batch)  # it had stopped before it changed any weight
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        here.wait_stream(self.stream)

    def _recorded(self, batch: Any) -> Callable[[Any], None]:
        held = [with_tensors(part, [tensor.clone() for tensor in tensors_of(part)]) for part in parts_of(batch)]
        places = [tensor for part in held for tensor in tensors_of(part)]
        run = self._captured(held) if self.device.type == "cuda" else partial(self._take, held)

        def replay(given: Any) -> None:
            torch._foreach_copy_(places, [tensor for part in parts_of(given) for tensor in tensors_of(part)])
            run()

        return replay

    def _take(self, held: Sequence[Any]) -> None:
        for part in held:
            self.step(part)

    def _captured(self, held: Sequence[Any]) -> Callable[[], None]:
        here = torch.cuda.current_device() if self.device.index is None else self.device.index
        graph, drawing = torch.cuda.CUDAGraph(), (self.generator, torch.cuda.default_generators[here])
        graph.register_generator_state(self.generator)
        before = [generator.clone_state() for generator in drawing]
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                self._take(held)
        except RuntimeError as error:
            # A capture that was broken off leaves generators believing in it, and graphs that were captured before
            # belong to them: none is used again.
            for generator, state in zip(drawing, before, strict=True):
                generator.graphsafe_set_state(state)
            self.replays.clear()
            self._refuse(error)
        return graph.replay

    def _refuse(self, error: RuntimeError) -> None:
        self.refused = str(error).strip().splitlines()[0]
        log.info(f"{self.label}: steps run from Python, not as one launch ({self.refused})")


class FixedSteps:
    """The epochs of a training whose steps are :class:`Steps`; between them and the host no word passes in an epoch.

    Takes the same steps as the loop that runs from Python, up to the order of sums.

    Parameters
    ----------
    loss : callable
        As for ``loop.fit``; it must not depend on values that lie on the device.
    autocast : callable
        Makes the context of the loss.
    """

    def __init__(
        self,
        loss: Callable[[Any, torch.Generator], torch.Tensor],
        parameters: list[nn.Parameter],
        optimiser: torch.optim.Optimizer,
        options: TrainingOptions,
        device: torch.device,
        autocast: Callable[[], Any],
        label: str,
    ) -> None:
        self.loss, self.parameters, self.optimiser = loss, parameters, optimiser
        self.options, self.autocast = options, autocast
        self.generator = torch.Generator(device=device)
        kind = torch.float32 if device.type == "cuda" else torch.float64  # as the optimiser's kernels read it
        self.epoch_rate, self.rate = (torch.zeros((), dtype=kind, device=device) for _ in range(2))
        self.total = torch.zeros((), dtype=torch.float64, device=device)
        self.steps = Steps(self._step, device, self.generator, label)

    def begin(self, rate: float) -> None:
        """Prepare an epoch whose learning rate, once it has risen, is ``rate``."""
        self.total.zero_()
        self.epoch_rate.fill_(rate)
        self.rate.fill_(rate)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate

    def _step(self, batch: Any) -> None:
        if self.options.warmup_steps:
            state = next(iter(self.optimiser.state.values()), None)
            done = state["step"] if state else torch.zeros_like(self.rate)
            self.rate.copy_(self.epoch_rate * ((done.double() + 1) / self.options.warmup_steps).clamp(max=1))
        self.optimiser.zero_grad(set_to_none=True)
        with self.autocast():
            value = self.loss(batch, self.generator)
        value.backward()
        if self.options.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, self.options.clip_norm)
        self.optimiser.step()
        self.total.add_(value.detach())


def parts_of(batch: Any) -> tuple[Any, ...]:
    """The batches of a run; a batch alone."""
    return batch.batches if isinstance(batch, Run) else (batch,)


def form_of(batch: Any) -> tuple[Any, ...]:
    """What two batches share when one captured step serves both."""
    if isinstance(batch, Run):
        return (len(batch.batches), *form_of(batch.batches[0]))
    values = [getattr(batch, field.name) for field in fields(batch)]
    described = ((tuple(v.shape), v.dtype) if isinstance(v, torch.Tensor) else v for v in values)
    return (type(batch), *described)


def tensors_of(batch: Any) -> list[torch.Tensor]:
    """Tensors of a batch (a dataclass), in the order of its fields."""
    values = (getattr(batch, field.name) for field in fields(batch))
    return [value for value in values if isinstance(value, torch.Tensor)]


def with_tensors(batch: Any, tensors: Sequence[torch.Tensor]) -> Any:
    """The same batch with other tensors."""
    names = [field.name for field in fields(batch) if isinstance(getattr(batch, field.name), torch.Tensor)]
    return replace(batch, **dict(zip(names, tensors, strict=True)))
