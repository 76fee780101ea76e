"""Batched generation from prompts that may hold learned vectors: greedy or sampled, with a key/value cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from recllm_bench.errors import BenchError
from recllm_bench.language.backbone import Backbone
from recllm_bench.language.quantisation import to_set
from recllm_bench.language.stepping import SHARED, Steps, shared_beginning, steps
from recllm_bench.progress import log, track

Prompt = Sequence[int] | torch.Tensor


def generate(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | Sequence[int] = 0,
    batch_size: int = 32,
    embed: Callable[[torch.Tensor], torch.Tensor] | None = None,
    score: Callable[[torch.Tensor], torch.Tensor] | None = None,
    stop: Sequence[int] | None = None,
    label: str = "",
) -> list[list[int]]:
    """Continue prompts.

    Parameters
    ----------
    prompts : sequence
        Each one the ids of its tokens, or its input vectors ``[L, D]``. Special tokens are the caller's to put in.
    max_new_tokens : int
        Most tokens of an answer; a prompt that comes near the end of the context gets fewer.
    temperature : float
        0 takes the likeliest token; above, tokens are drawn from the scores divided by it.
    top_p : float
        Draw only among the likeliest tokens that together reach this probability.
    seed : int or sequence of int
        Of the draws, which do not depend on how prompts are batched; or a seed for each prompt. The scores themselves
        agree between batches up to rounding: a draw on the very edge of two tokens can still fall to either.
    batch_size : int
        Prompts at a time; halved when a device runs out of memory.
    embed : callable, optional
        ids int64 [B] -> input vectors [B, D], for a vocabulary that goes beyond words.
    score : callable, optional
        states [B, D] -> scores [B, vocabulary]; minus infinity forbids a token.
    stop : sequence of int, optional
        Tokens that end an answer and are not part of it; the model's own by default.
    label : str
        What the progress bar says.

    Returns
    -------
    list of list of int
        New tokens of each prompt, in the order of the prompts.

    Raises
    ------
    BenchError
        For an empty prompt, one that fills the context, or scores that are not numbers.
    """
    if max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1 or batch_size < 1:
        raise BenchError(
            f"generation with max_new_tokens={max_new_tokens}, temperature={temperature}, top_p={top_p},"
            f" batch_size={batch_size}: needs at least 1, at least 0, over 0 to 1, at least 1"
        )
    lengths = [len(prompt) for prompt in prompts]
    for number, length in enumerate(lengths):
        if not 0 < length < backbone.context:
            raise BenchError(f"prompt {number} has {length} tokens; {backbone.name} takes 1 to {backbone.context - 1}")
    stop = backbone.stop_ids if stop is None else stop
    if not backbone.layout.pads:
        batch_size = 1  # rows of several lengths would be padded
    writer = _Writer(
        backbone,
        embed or backbone.embed,
        score or backbone.logits,
        torch.tensor(sorted(stop), dtype=torch.long, device=backbone.device),
        max_new_tokens,
        temperature,
        top_p,
        _draws(len(prompts), max_new_tokens, seed) if temperature > 0 else None,
    )
    plain: list[Any] = [prompt for prompt in prompts if not (isinstance(prompt, torch.Tensor) and prompt.dim() == 2)]
    shared = shared_beginning(plain) if len(plain) == len(prompts) > 1 else 0
    if shared >= SHARED and backbone.layout.pads:
        with torch.no_grad():
            writer.begin(torch.as_tensor(prompts[0][:shared], dtype=torch.long, device=backbone.device))
        prompts = [prompt[shared:] for prompt in prompts]
    answers: list[list[int]] = [[] for _ in prompts]
    waiting = sorted(range(len(prompts)), key=lambda number: -lengths[number])  # the largest batch first
    with torch.no_grad(), track(label=label or f"writing with {backbone.name}", total=len(prompts), unit="text") as bar:
        while waiting:
            rows = waiting[:batch_size]
            try:
                written = writer.write(rows, [prompts[row] for row in rows])
            except torch.cuda.OutOfMemoryError:
                if batch_size == 1:
                    raise BenchError(
                        f"{backbone.device} has no room for one prompt of {max(lengths)} tokens with {backbone.name};"
                        f" shorten the prompts or try {to_set(backbone.precision_option, '4bit')}"
                    ) from None
                batch_size = max(1, min(batch_size, len(rows)) // 2)
                log.info(f"writing with {backbone.name}: out of memory; {batch_size} prompts at a time from here on")
                torch.cuda.empty_cache()
                continue
            for row, answer in zip(rows, written, strict=True):
                answers[row] = answer
            waiting = waiting[len(rows) :]
            bar.update(len(rows))
    return answers


@dataclass
class _Writer:
    """Writes a batch of answers in lock-step."""

    backbone: Backbone
    embed: Callable[[torch.Tensor], torch.Tensor]
    score: Callable[[torch.Tensor], torch.Tensor]
    stop: torch.Tensor
    max_new_tokens: int
    temperature: float
    top_p: float
    draws: torch.Tensor | None

    def __post_init__(self) -> None:
        self.steps: Steps = steps(self.backbone)

    def begin(self, ids: torch.Tensor) -> None:
        """Read what all prompts begin with; they are given without it from here on."""
        self.steps = steps(self.backbone, self.embed(ids).to(self.backbone.dtype))

    def write(self, rows: list[int], prompts: list[Prompt]) -> list[list[int]]:
        inputs, mask, lengths = self._padded(prompts)
        lengths = lengths + self.steps.length
        device = inputs.device
        room = (self.backbone.context - lengths).clamp(max=self.max_new_tokens)
        tokens = torch.full((len(rows), int(room.max())), -1, dtype=torch.long, device=device)
        draws = None if self.draws is None else self.draws[rows].to(device)
        broken = torch.zeros((), dtype=torch.bool, device=device)
        carried = torch.arange(len(rows), device=device)  # rows of the batch that are still in the cache
        alive = torch.ones(len(rows), dtype=torch.bool, device=device)  # of these, which are still being written
        states = self.steps.begin(inputs, mask)
        for step in range(tokens.shape[1]):
            scores = self.score(states).float()
            best = scores.amax(1)  # one that is no number stays none; forbidden tokens are minus infinity
            broken |= torch.isnan(best).any() | (best == torch.inf).any()
            chosen = _choose(scores, None if draws is None else draws[carried, step], self.temperature, self.top_p)
            alive &= ~torch.isin(chosen, self.stop)
            tokens[carried, step] = torch.where(alive, chosen, -1)
            alive &= room[carried] > step + 1
            left = int(alive.sum())
            if left == 0:
                break
            if left <= len(alive) * 3 // 4 and self.steps.keep(kept := alive.nonzero()[:, 0]):
                carried, alive, chosen = carried[kept], alive[kept], chosen[kept]
            if step + 1 == tokens.shape[1]:
                break
            # A row that has ended runs on until it is dropped; its place must stay inside the context.
            positions = (lengths[carried] + step).clamp(max=self.backbone.context - 1)
            states = self.steps.step(self.embed(chosen).to(self.backbone.dtype), positions)
        if broken:
            mend = to_set(self.backbone.precision_option, "float32", "another model")
            raise BenchError(f"{self.backbone.name} gave scores that are not numbers; try {mend}")
        return [[token for token in row if token >= 0] for row in tokens.tolist()]

    def _padded(self, prompts: list[Prompt]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Input vectors [B, L, D] and mask [B, L], padded on the left, and lengths [B]."""
        backbone = self.backbone
        vectors = []
        for prompt in prompts:
            if isinstance(prompt, torch.Tensor) and prompt.dim() == 2:
                vectors.append(prompt.to(backbone.device, backbone.dtype))
            else:
                ids = torch.as_tensor(prompt, dtype=torch.long, device=backbone.device)
                vectors.append(self.embed(ids).to(backbone.dtype))
        lengths = torch.tensor([len(rows) for rows in vectors], device=backbone.device)
        longest = int(lengths.max())
        inputs = vectors[0].new_zeros(len(vectors), longest, vectors[0].shape[1])
        for row, value in enumerate(vectors):
            inputs[row, longest - len(value) :] = value
        mask = (torch.arange(longest, device=backbone.device) >= (longest - lengths)[:, None]).long()
        return inputs, mask, lengths


def _draws(prompts: int, steps: int, seed: int | Sequence[int]) -> torch.Tensor:
    """One number in [0, 1) per prompt and step, drawn beforehand so that answers are the same in any batch."""
    if not isinstance(seed, int):
        rows = [torch.rand(steps, generator=torch.Generator().manual_seed(own), dtype=torch.float64) for own in seed]
        return torch.stack(rows) if rows else torch.empty(0, steps, dtype=torch.float64)
    return torch.rand(prompts, steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _choose(scores: torch.Tensor, draws: torch.Tensor | None, temperature: float, top_p: float) -> torch.Tensor:
    """Next token of each row, int64 [B], from scores [B, V] and, when sampling, numbers in [0, 1) [B]."""
    if draws is None:
        return scores.argmax(1)
    probabilities, tokens = (scores.double() / temperature).softmax(1).sort(dim=1, descending=True, stable=True)
    reached = probabilities.cumsum(1)
    # The smallest set of likeliest tokens that reaches top_p (Holtzman et al., 2020), then inversion within it.
    size = (reached - probabilities < top_p).sum(1, keepdim=True)
    total = reached.gather(1, size - 1)
    place = torch.searchsorted(reached, draws[:, None] * total, right=True).minimum(size - 1)
    return tokens.gather(1, place)[:, 0]
