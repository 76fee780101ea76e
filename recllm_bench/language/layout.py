"""Whether a language model gives sequences in one pass, packed or padded, the states that each would have alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from recllm_bench.errors import BenchError

_LONGEST = 9  # tokens of a probed sequence
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
"""Share of the states' norm that rounding explains: sums in another order give 1e-6 in float32."""
_COARSE = 0.05  # in 16 bits, and with quantised weights; another sequence's words change 0.1 and more


@dataclass(frozen=True)
class Layout:
    """How a model may be given several sequences.

    Attributes
    ----------
    packs : bool
        Behind one another in a row, under a block mask.
    pads : bool
        In rows filled up with padding, on either side.
    window : int
        Places that a token sees at most, 0 without such a limit. A block mask replaces the model's own, so a packed
        sequence may be no longer.
    """

    packs: bool
    pads: bool
    window: int


class Probed(Protocol):
    """What is needed of a :class:`~recllm_bench.language.frozen.Backbone`."""

    model: Any

    @property
    def context(self) -> int: ...

    @property
    def vocabulary(self) -> int: ...

    def embed(self, ids: torch.Tensor) -> torch.Tensor: ...

    def states(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor: ...


def probe(backbone: Probed) -> Layout:
    """Run three short sequences alone, packed, and padded, and compare their states."""
    window = _window(backbone.model.config)
    most = max(2, min(_LONGEST, window or _LONGEST, backbone.context // 3))
    lengths = [most, max(2, most - 4), max(2, most - 1)]
    ids = (torch.arange(sum(lengths)) * 7919 + 3) % backbone.vocabulary
    with torch.no_grad():
        inputs = backbone.embed(ids)[None]
        alone = [backbone.states(part) for part in inputs.split(lengths, 1)]
        segments = torch.repeat_interleave(torch.arange(1, 4), torch.tensor(lengths))[None].to(inputs.device)
        place = torch.cat([torch.arange(length) for length in lengths])[None].to(inputs.device)
        mask = ((segments[:, :, None] == segments[:, None, :]).tril())[:, None]
        joined = torch.cat(alone, 1)
        return Layout(
            _same(partial(backbone.states, inputs, mask, place), joined),
            all(_same(partial(_padded, backbone, inputs, lengths, side), joined) for side in ("left", "right")),
            window,
        )


def _padded(backbone: Probed, inputs: torch.Tensor, lengths: list[int], side: str) -> torch.Tensor:
    """States of the sequences as rows of one batch, behind one another again: [1, L, D]."""
    longest = max(lengths) + 1  # every row has padding
    batch = inputs.new_zeros(len(lengths), longest, inputs.shape[2])
    mask = torch.zeros(len(lengths), longest, dtype=torch.long, device=inputs.device)
    for row, part in enumerate(inputs[0].split(lengths)):
        first = longest - len(part) if side == "left" else 0
        batch[row, first : first + len(part)], mask[row, first : first + len(part)] = part, 1
    states = backbone.states(batch, mask)
    return torch.cat([states[row, kept] for row, kept in enumerate(mask.bool())])[None]


def _same(run: Callable[[], torch.Tensor], alone: torch.Tensor) -> bool:
    try:
        states = run().double()
    except torch.cuda.OutOfMemoryError:
        raise
    except (BenchError, RuntimeError, ValueError, TypeError, IndexError):
        return False  # it takes no such masks or positions
    expected = alone.double()
    return bool((states - expected).norm() <= _TOLERANCE.get(alone.dtype, _COARSE) * expected.norm())


def _window(config: Any) -> int:
    """The narrowest sliding window or chunk of a model's layers."""
    kinds = getattr(config, "layer_types", None)
    slides = kinds is None or any(kind in ("sliding_attention", "chunked_attention") for kind in kinds)
    if getattr(config, "use_sliding_window", True) is False or not slides:
        return 0
    sizes = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((int(size) for size in sizes if size), default=0)
