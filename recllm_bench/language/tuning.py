"""Fine-tuning a causal language model on (prompt, answer) pairs with LoRA (Hu et al., 2021).

Pairs are packed (see :mod:`~recllm_bench.language.packing`), so that a step costs what its tokens cost, common
beginnings of prompts once, and gives the loss that pairs in rows of their own would have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from recllm_bench.artifacts import write_json
from recllm_bench.errors import BenchError
from recllm_bench.language.adapters import ALL_LINEAR, AdapterWeights, adapted, save_adapter
from recllm_bench.language.backbone import Backbone
from recllm_bench.language.block_attention import attend_by_blocks
from recllm_bench.language.packing import Example, Packed, chunks, pack, units_of
from recllm_bench.options import option
from recllm_bench.progress import log
from recllm_bench.training.loop import fit
from recllm_bench.training.training_options import TrainingOptions

__all__ = ["ADAPTER", "FACTS", "Example", "TuningOptions", "answer_loss", "tune"]

ADAPTER, FACTS = "adapter", "tuning.json"
_GROUPS_OF_A_STEP = 4  # at least so many different beginnings in a step


@dataclass(frozen=True)
class TuningOptions:
    """LoRA and its training; the defaults are those of CESRec's specification, section 4."""

    rank: int = option(16, "rank of the updates", low=1)
    alpha: float = option(32.0, "scale of the updates, divided by the rank", low=0)
    dropout: float = option(0.05, "dropout before the updates", low=0, high=0.9)
    target_modules: tuple[str, ...] = option(
        ("q_proj", "k_proj", "v_proj", "o_proj"), f"layers that get updates, by last name, or {ALL_LINEAR}"
    )
    learning_rate: float = option(1e-4, "highest learning rate of AdamW", low=0)
    warmup_share: float = option(0.03, "share of all steps over which the learning rate rises", low=0, high=1)
    epochs: int = option(3, "passes over the examples", low=1)
    parts: int = option(4, "parts of a pass; after each there is a validation and a checkpoint", low=1)
    patience: int = option(0, "parts without progress before tuning stops (0: never)", low=0)
    batch_size: int = option(64, "examples in a step", low=1)
    most_tokens: int = option(1024, "longest example; longer ones are left out and counted", low=2)
    tokens_at_once: int = option(0, "positions of one pass; a step takes several (0: by width and device)", low=0)
    clip_norm: float = option(1.0, "largest gradient norm (0: no limit)", low=0)
    share: bool = option(True, "read common beginnings of prompts once; each step then has fewer different ones")
    checkpointing: bool = option(False, "recompute layers in the backward pass to save memory")
    packed_attention: str = option(
        "dense",
        "how packed rows attend: under a dense mask, or by blocks, on CUDA where the model gives the same",
        choices=("dense", "blocks"),
    )


def answer_loss(backbone: Backbone, packed: Packed, *, checkpointing: bool = False) -> torch.Tensor:
    """Negative log-likelihood of the answers' tokens (CESRec, equation 8), nats [N]; differentiable to an adapter."""
    states = backbone.hidden_states(
        backbone.embed(packed.tokens),
        packed.documents(),
        packed.positions.to(backbone.device),
        checkpointing=checkpointing,
    )
    logits = backbone.logits(states.flatten(0, 1)[packed.scored.to(states.device)])
    return cross_entropy(logits, packed.targets.to(logits.device), reduction="none")


def tune(
    backbone: Backbone,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    options: TuningOptions,
    work: Path,
    *,
    seed: int,
    device: torch.device | str | None = None,
    label: str = "tuning",
    mends: Sequence[str] = (),
) -> dict[str, Any]:
    """Tune a language model; its own weights stay as they are.

    The loss of a step is the mean over its answer tokens. The learning rate rises over the first steps and then falls
    like half a cosine from part to part; the part with the best held-out loss is kept.

    Parameters
    ----------
    backbone : Backbone
        Frozen, of any precision.
    examples, held_out : sequence of (prompt, answer)
        Token ids; the answer brings its end token. Without ``held_out`` the last part is kept.
    work : Path
        Gets ``adapter/`` (as ``peft.PeftModel.from_pretrained`` reads it), ``tuning.json`` and what
        :func:`~recllm_bench.training.loop.fit` leaves; after a kill, tuning goes on from the last part.
    seed : int
        Of the updates, the order and dropout.
    device : torch.device, optional
        The backbone's own, which is the default.
    label : str
        Name on bar and log.
    mends : sequence of str
        What a user may set where one example does not fit on a device, by the options of whoever tunes.

    Returns
    -------
    dict
        What ``tuning.json`` holds: counts, trainable numbers, tokens, held-out loss (nats a token) before and after.

    Raises
    ------
    BenchError
        Without peft or usable examples, for unknown layers, or when the loss is no longer a number.
    """
    limit = min(options.most_tokens, backbone.context + 1)
    usable, validated = _usable(examples, limit, label), _usable(held_out, limit, label)
    if not usable:
        raise BenchError(f"{label}: none of {len(examples)} examples has at most {limit} tokens; shorten the prompts")
    if options.packed_attention == "blocks":
        attend_by_blocks(backbone)
    budget = options.tokens_at_once or _positions_at_once(backbone, options)
    measured = [pack(part, scale=6.0 * backbone.width) for part in chunks(validated, budget)]
    feed = _Feed(usable, options, budget, 6.0 * backbone.width, seed, mends)
    layers: Any = options.target_modules
    if tuple(layers) in ((ALL_LINEAR,), ("all",)):
        layers = ALL_LINEAR
    config = {
        "r": options.rank,
        "lora_alpha": options.alpha,
        "lora_dropout": options.dropout,
        "target_modules": layers,
    }

    def gathered(packs: list[Packed]) -> torch.Tensor:
        """The loss of a step; its gradients are gathered pass by pass."""
        total = sum(len(part.targets) for part in packs)
        done: float | torch.Tensor = 0.0
        for part in packs:
            share = answer_loss(backbone, part, checkpointing=options.checkpointing).sum() / total
            share.backward()
            done = share.detach() + done
        assert isinstance(done, torch.Tensor)  # a step has at least one pass
        return done

    def loss(packs: list[Packed], generator: torch.Generator) -> torch.Tensor:
        first = next(weights.parameters())
        while True:
            try:
                return gathered(packs) + 0.0 * first.sum()  # the loop's own backward adds nothing to the gradients
            except torch.cuda.OutOfMemoryError:
                weights.zero_grad(set_to_none=True)
            packs = feed.smaller(label)
            torch.cuda.empty_cache()

    def held_out_loss() -> float:
        total = sum(float(answer_loss(backbone, part).sum()) for part in measured)
        return total / sum(len(part.targets) for part in measured)

    with torch.no_grad():
        before = held_out_loss() if measured else None
    with adapted(backbone, config, seed) as model:
        weights = AdapterWeights(model)
        outcome = fit(
            feed.batches,
            loss,
            {"adapter": weights},
            (lambda: -held_out_loss()) if measured else None,
            feed.training(backbone),
            work,
            device=device or backbone.device,
            seed=seed,
            label=label,
            steps=-(-feed.steps // feed.parts),
        )
        save_adapter(model, work / ADAPTER)
        size = weights.size()
    facts = {
        "llm": backbone.source,
        "options": asdict(options),
        "examples": len(usable),
        "held_out": len(validated),
        "too_long": len(examples) + len(held_out) - len(usable) - len(validated),
        "trainable": size,
        "passes": outcome.epochs / feed.parts,
        "tokens": int(feed.tokens * outcome.epochs / feed.parts),
        "tokens_read": feed.tokens_read(outcome.epochs),
        "answer_tokens": sum(len(answer) for _, answer in usable),
        "held_out_loss_before": before,
        "held_out_loss": -outcome.best_metric if measured else None,
        "seconds": outcome.seconds,
    }
    write_json(work / FACTS, facts)
    return facts


class _Feed:
    """Steps of the training loop; one of its epochs is a part of a pass over the examples.

    Examples with a common beginning stay together, so that it is read once; the groups are shuffled.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        options: TuningOptions,
        budget: int,
        scale: float,
        seed: int,
        mends: Sequence[str] = (),
    ) -> None:
        self.mends = mends
        self.examples, self.options, self.budget, self.scale, self.seed = examples, options, budget, scale, seed
        most = max(1, options.batch_size // _GROUPS_OF_A_STEP)
        self.units = units_of(examples, scale=scale, share=options.share, most=most)
        self.steps = -(-len(examples) // options.batch_size)
        self.parts = min(options.parts, self.steps)
        self.tokens = sum(len(prompt) + len(answer) for prompt, answer in examples)
        self._read: dict[int, int] = {}
        self._step: list[Example] = []

    def batches(self, epoch: int) -> Iterator[list[Packed]]:
        """The steps of an epoch, counted as they are taken."""
        self._read[epoch] = 0
        for packs in self._steps(epoch):
            self._read[epoch] += sum(packed.n_tokens for packed in packs)
            yield packs

    def _steps(self, epoch: int) -> Iterator[list[Packed]]:
        """Each step as packs small enough for one pass."""
        passed, part = divmod(epoch - 1, self.parts)
        order = np.random.default_rng([self.seed, passed]).permutation(len(self.units))
        rows = [member for unit in order for member in self.units[unit].members]
        for step in np.array_split(np.arange(self.steps), self.parts)[part]:
            some = rows[step * self.options.batch_size : (step + 1) * self.options.batch_size]
            self._step = [self.examples[row] for row in some]
            yield self._packs()

    def _packs(self) -> list[Packed]:
        parts = chunks(self._step, self.budget)
        return [pack(chunk, scale=self.scale, share=self.options.share) for chunk in parts]

    def smaller(self, label: str) -> list[Packed]:
        """The present step again, in passes of half the positions, as are all that follow."""
        longest = max(len(prompt) + len(answer) for prompt, answer in self._step)
        if self.budget <= longest:
            raise BenchError(
                f"{label}: a pass over one example of {longest} tokens does not fit on the GPU; "
                + " or ".join(["tune a smaller model", *(f"set {mend}" for mend in self.mends)])
            )
        self.budget = max(longest, min(self.budget, sum(pack.n_tokens for pack in self._packs())) // 2)
        log.warning(f"{label}: a pass did not fit in memory; from here on passes have {self.budget} positions")
        return self._packs()

    def tokens_read(self, epochs: int) -> int:
        """Positions that the model read in so many epochs; those of an earlier attempt are packed again to count."""
        missed = (packs for epoch in range(1, epochs + 1) if epoch not in self._read for packs in self._steps(epoch))
        return sum(self._read.values()) + sum(packed.n_tokens for packs in missed for packed in packs)

    def training(self, backbone: Backbone) -> TrainingOptions:
        """What the training loop is told."""
        options = self.options
        fast = backbone.device.type == "cuda" and backbone.dtype == torch.bfloat16
        return TrainingOptions(
            epochs=options.epochs * self.parts,
            learning_rate=options.learning_rate,
            decay="cosine",
            warmup_steps=int(options.warmup_share * self.steps * options.epochs),
            clip_norm=options.clip_norm,
            patience=options.patience,
            validate_metric="-loss",
            precision="bf16" if fast else "fp32",
        )


def bytes_of_position(backbone: Backbone, options: TuningOptions) -> int:
    """About how many bytes one position of a pass keeps for the backward pass.

    A layer keeps ten vectors of the model's width and four of its inner width, and six bytes a number for each input of
    an adapted layer (its copies under dropout). With checkpointing that holds for one layer at a time, and every other
    one keeps its input.
    """
    config, size = backbone.model.config, torch.finfo(backbone.dtype).bits // 8
    width, layers = backbone.width, int(getattr(config, "num_hidden_layers", 1))
    inner = int(getattr(config, "intermediate_size", 0) or 4 * width)
    named = set(options.target_modules)
    every = bool(named & {ALL_LINEAR, "all"})
    adapted_inputs = sum(
        part.in_features
        for name, part in backbone.model.named_modules()
        if isinstance(part, torch.nn.Linear) and (name.rpartition(".")[2] in named or (every and "lm_head" not in name))
    )
    layer = (10 * width + 4 * inner) * size + 6 * adapted_inputs // layers
    return layer + layers * width * size if options.checkpointing else layers * layer


def _positions_at_once(backbone: Backbone, options: TuningOptions) -> int:
    if backbone.device.type == "cpu":
        return 8192
    most = max(2048, (1 << 24) // backbone.width)
    size = torch.cuda.mem_get_info(backbone.device)[1]  # all of it: what is free depends on what else runs
    own = sum(part.numel() * part.element_size() for part in backbone.model.parameters())
    room = 0.6 * max(0, size - own)
    return int(min(most, max(options.most_tokens, room // bytes_of_position(backbone, options))))


def _usable(examples: Sequence[Example], limit: int, label: str) -> list[Example]:
    kept = []
    for number, example in enumerate(examples):
        prompt, answer = example
        if not len(prompt) or not len(answer):
            raise BenchError(f"{label}: example {number} has an empty {'answer' if len(prompt) else 'prompt'}")
        if len(prompt) + len(answer) <= limit:
            kept.append(example)
    if len(kept) < len(examples):
        log.warning(f"{label}: {len(examples) - len(kept)} of {len(examples)} examples exceed {limit} tokens, left out")
    return kept
