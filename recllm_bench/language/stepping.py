"""Reading a batch step by step with a key/value cache: what all prompts begin with once, then each row's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.nn.functional import pad, scaled_dot_product_attention

from recllm_bench.language.frozen import Backbone
from recllm_bench.products import Linear

SHARED = 16
"""Tokens with which all prompts begin, below which they are not read apart."""
_MORE = 64  # places by which a cache grows


def shared_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens with which all prompts begin; each keeps at least one of its own."""
    shortest = min(map(len, prompts)) - 1
    if shortest < 1:
        return 0
    table = np.array([list(prompt[:shortest]) for prompt in prompts], np.int64)
    return int(np.cumprod((table == table[0]).all(0)).sum())


def steps(backbone: Backbone, beginning: torch.Tensor | None = None) -> Steps:
    """A reader of batches whose rows all begin with the same inputs ``[P, D]``, which are read here, once."""
    if not _is_plain_llama(backbone):
        return Steps(backbone, beginning)
    lay_out(backbone.model)
    return LlamaSteps(backbone, beginning)


class LaidOut(Linear):
    """A layer whose weight is laid out for oneDNN once, not at every product with some rows.

    With fewer than :data:`FEW` rows, with a gradient, or in another type than float32, it is what it was.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., in_features]`` to ``[..., out_features]``."""
        return _laid_out_product((self,), x) if _pays(self, x) else super().forward(x)


def _pays(layer: Linear, x: torch.Tensor) -> bool:
    few = x.numel() // x.shape[-1] < FEW
    return not few and not x.requires_grad and x.dtype == layer.weight.dtype == torch.float32


def _laid_out_product(layers: Sequence[Linear], x: torch.Tensor) -> torch.Tensor:
    """What these layers make of one input, behind one another, in one product."""
    state = tuple((layer.weight.data_ptr(), layer.weight._version) for layer in layers)
    made, laid = _LAID.get(layers[0], (None, None))
    if made != state:
        weights = [layer.weight.detach() for layer in layers]
        laid = torch.ops.mkldnn._reorder_linear_weight(weights[0] if len(weights) == 1 else torch.cat(weights), 32)
        for layer in layers:
            _LAID.pop(layer, None)
        _LAID[layers[0]] = state, laid
    biases: list[torch.Tensor] = [layer.bias for layer in layers if layer.bias is not None]
    bias = (biases[0] if len(biases) == 1 else torch.cat(biases)) if biases else None
    found = torch.ops.mkldnn._linear_pointwise(x.reshape(-1, x.shape[-1]), laid, bias, "none", [], "")
    return found.view(*x.shape[:-1], found.shape[-1])


def _together(layers: tuple[torch.nn.Module, ...], x: torch.Tensor) -> torch.Tensor:
    """What these layers make of one input, behind one another: ``[..., sum of their widths]``."""
    laid = tuple(layer for layer in layers if isinstance(layer, LaidOut))
    alike = len(laid) == len(layers) and len({layer.bias is None for layer in laid}) == 1
    if alike and all(_pays(layer, x) for layer in laid):
        return _laid_out_product(laid, x)
    return torch.cat([layer(x) for layer in layers], -1)


FEW = 8
"""Rows below which reading the weights, not the product, takes the time."""
_LARGE = 50_000_000  # parameters of a model below which its weights stay in a processor's cache as they are
_LAID: WeakKeyDictionary[torch.nn.Module, Any] = WeakKeyDictionary()  # beside the modules, which may be copied


def lay_out(model: torch.nn.Module) -> None:
    """Let the accelerated layers of a large model be :class:`LaidOut`; its parameters stay as they are."""
    known = hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and torch.backends.mkldnn.is_available()
    if known and sum(weight.numel() for weight in model.parameters()) >= _LARGE:
        for module in model.modules():
            if type(module) is Linear:
                module.__class__ = LaidOut


class Steps:
    """Any model, through its own cache.

    Parameters
    ----------
    backbone : Backbone
        The model.
    beginning : float [P, D], optional
        Inputs with which every row begins.
    """

    def __init__(self, backbone: Backbone, beginning: torch.Tensor | None) -> None:
        self.backbone, self.length = backbone, 0 if beginning is None else len(beginning)
        self._beginning = beginning
        self._cache: Any = None
        self._mask: torch.Tensor

    def begin(self, inputs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Read the rows' own inputs.

        Parameters
        ----------
        inputs : float [B, L, D]
            Padded on the left.
        mask : int64 [B, L]
            1 for inputs, 0 for padding.

        Returns
        -------
        float [B, D]
            States of the last place.
        """
        self._cache, rows = None, len(inputs)
        if self._beginning is not None:
            ones = mask.new_ones(1, self.length)
            _, cache = self.backbone.advance(self._beginning[None], ones, ones.cumsum(1) - 1)
            if hasattr(cache, "batch_repeat_interleave"):
                cache.batch_repeat_interleave(rows)
                self._cache = cache
            else:
                inputs = _joined(self._beginning, inputs, mask)
            mask = torch.cat([mask.new_ones(rows, self.length), mask], 1)
            if self._cache is None:  # the beginning stands right before each row's own inputs
                mask = mask.sort(1).values
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -inputs.shape[1] :]
        states, self._cache = self.backbone.advance(inputs, mask, positions, self._cache)
        self._mask = mask
        return states[:, -1]

    def step(self, inputs: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """States ``[B, D]`` of one further input ``[B, D]`` a row, at these positions ``[B]``."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(inputs), 1)], 1)
        states, self._cache = self.backbone.advance(inputs[:, None], self._mask, positions[:, None], self._cache)
        return states[:, -1]

    def keep(self, rows: torch.Tensor) -> bool:
        """Forget all rows but these; false where the cache cannot."""
        if not hasattr(self._cache, "batch_select_indices"):
            return False
        self._cache.batch_select_indices(rows)
        self._mask = self._mask[rows]
        return True


class LlamaSteps(Steps):
    """A Llama on a CPU, from its own layers.

    Keys and values lie in buffers that grow by whole blocks, a group of heads reads its keys without a copy for each
    head, and those of the common beginning are one block that all rows read in one product.
    """

    def __init__(self, backbone: Backbone, beginning: torch.Tensor | None) -> None:
        super().__init__(backbone, beginning)
        model: Any = backbone.model
        self._model, self._layers = model.model, list(model.model.layers)
        config = model.config
        self._heads, self._groups = config.num_attention_heads, config.num_key_value_heads
        self._size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._first: list[tuple[torch.Tensor, torch.Tensor]] = []  # of the beginning, [groups, P, size] a layer
        self._own: list[tuple[torch.Tensor, torch.Tensor]] = []  # of the rows, [B, groups, room, size] a layer
        self._used = 0
        self._hidden: torch.Tensor | None = None  # added to scores of the rows' own places, [B, 1, 1, used]
        if beginning is not None:
            length, self.length = self.length, 0
            read, _ = self._read(beginning[None], torch.ones(1, length, dtype=torch.long), None)
            self.length = length
            self._first = [(keys[0], values[0]) for keys, values in read]

    def begin(self, inputs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """See :meth:`Steps.begin`."""
        rows, length = mask.shape
        seen = None
        padded = not bool(mask.all())
        if padded or self._first:
            place = torch.arange(length)
            own = (place <= place[:, None]) & (mask[:, None, :].bool() | (place == place[:, None]))
            before = own.new_ones(rows, length, self.length)
            seen = torch.cat([before, own], 2)[:, None]
        read, states = self._read(inputs, mask, seen)
        room = length + _MORE
        self._own, self._used = [], length
        for number, (keys, values) in enumerate(read):
            pair = keys.new_empty(2, rows, self._groups, room, self._size)
            pair[0, :, :, :length], pair[1, :, :, :length] = keys, values
            self._own.append((pair[0], pair[1]))
            read[number] = (keys[:0], values[:0])  # frees what has been copied
        self._hidden = None
        if padded:
            lowest = torch.finfo(states.dtype).min
            self._hidden = torch.zeros(mask.shape).masked_fill(mask == 0, lowest)[:, None, None]
        return states

    def step(self, inputs: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """See :meth:`Steps.step`."""
        if self._used == (room := self._own[0][0].shape[2]):
            more = (0, 0, 0, max(_MORE, room // 4))
            self._own = [(pad(keys, more), pad(values, more)) for keys, values in self._own]
        self._used += 1
        if self._hidden is not None:
            self._hidden = pad(self._hidden, (0, 1))
        states = inputs
        # A query's scale goes with its turn.
        scale = torch.ones(self._heads + self._groups, 1)
        scale[: self._heads] = self._layers[0].self_attn.scaling
        cos, sin = (part * scale for part in self._turns(inputs, positions[:, None]))
        for number, layer in enumerate(self._layers):
            found = self._attend(number, layer.self_attn, _normed(layer.input_layernorm, states), cos, sin)
            states = states + layer.self_attn.o_proj(found)
            states = states + _gated(layer.mlp, _normed(layer.post_attention_layernorm, states))
        return self._model.norm(states)

    def keep(self, rows: torch.Tensor) -> bool:
        """See :meth:`Steps.keep`."""
        self._own = [(keys[rows], values[rows]) for keys, values in self._own]
        if self._hidden is not None:
            self._hidden = self._hidden[rows]
        return True

    def _attend(self, number: int, own: Any, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor):
        """What one input a row sees of the beginning and of its own row, [B, heads * size]."""
        rows, used, groups, size = len(states), self._used, self._groups, self._size
        each, heads = self._heads // groups, self._heads
        mixed = _together((own.q_proj, own.k_proj, own.v_proj), states).view(rows, -1, size)
        turned = _turned(mixed[:, : heads + groups], cos, sin)
        keys, values = self._own[number]
        keys[:, :, used - 1], values[:, :, used - 1] = turned[:, heads:], mixed[:, heads + groups :]
        query = turned[:, :heads].view(rows, groups, each, size)
        scores = query @ keys[:, :, :used].transpose(2, 3)
        if self._hidden is not None:
            scores += self._hidden
        if not self._first:
            return (scores.softmax(3) @ values[:, :, :used]).view(rows, -1)
        first, theirs = self._first[number]
        before = query.transpose(0, 1).reshape(groups, rows * each, size) @ first.transpose(1, 2)
        weights = torch.cat([before.view(groups, rows, each, -1).transpose(0, 1), scores], 3).softmax(3)
        shared = weights[..., : self.length].transpose(0, 1).reshape(groups, rows * each, -1) @ theirs
        found = weights[..., self.length :] @ values[:, :, :used]
        found += shared.view(groups, rows, each, size).transpose(0, 1)
        return found.view(rows, -1)

    def _turns(self, inputs: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of each input's turn for :func:`_turned`, [..., 1, size]; the sines of the first half are
        negative."""
        cos, sin = self._model.rotary_emb(inputs, positions)
        half = self._size // 2
        return cos.view(-1, 1, self._size), torch.cat([-sin[..., :half], sin[..., half:]], -1).view(-1, 1, self._size)

    def _read(self, inputs: torch.Tensor, mask: torch.Tensor, seen: torch.Tensor | None):
        """Keys and values of each layer ``[B, groups, L, size]``, and last states ``[B, D]``, of rows of inputs behind
        the beginning. Padding goes through attention alone: what is multiplied with weights is tokens only.
        """
        rows, length = mask.shape
        real = mask.bool()
        positions = (mask.cumsum(1) - 1)[real] + self.length
        cos, sin = self._turns(inputs, positions[None])
        states, read = inputs[real], []
        heads, groups = self._heads, self._groups
        for number, layer in enumerate(self._layers):
            own, normed = layer.self_attn, _normed(layer.input_layernorm, states)

            def placed(values: torch.Tensor) -> torch.Tensor:
                grid = values.new_zeros(rows, length, values.shape[1], self._size)
                grid[real] = values
                return grid.transpose(1, 2)

            mixed = _together((own.q_proj, own.k_proj, own.v_proj), normed).view(len(states), -1, self._size)
            turned = _turned(mixed[:, : heads + groups], cos, sin)
            query, keys, values = map(placed, (turned[:, :heads], turned[:, heads:], mixed[:, heads + groups :]))
            read.append((keys, values))
            if self._first:
                first, theirs = (part.expand(rows, -1, -1, -1) for part in self._first[number])
                keys, values = torch.cat([first, keys], 2), torch.cat([theirs, values], 2)
            keys, values = (part.repeat_interleave(self._heads // self._groups, 1) for part in (keys, values))
            found = scaled_dot_product_attention(
                query, keys, values, attn_mask=seen, is_causal=seen is None, scale=own.scaling
            )
            states = states + own.o_proj(found.transpose(1, 2)[real].flatten(1))
            states = states + _gated(layer.mlp, _normed(layer.post_attention_layernorm, states))
        return read, self._model.norm(states[mask.sum(1).cumsum(0) - 1])


def _is_plain_llama(backbone: Backbone) -> bool:
    model: Any = backbone.model
    rope = getattr(model.config, "rope_parameters", None) or getattr(model.config, "rope_scaling", None) or {}
    return (
        type(model).__name__ == "LlamaForCausalLM"
        and backbone.device.type == "cpu"
        and backbone.dtype == torch.float32
        and rope.get("rope_type", "default") in ("default", "linear", "llama3")  # others change with the length
        and hasattr(model.model, "rotary_emb")
    )


def _turned(values: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al., 2021) in the order of a Llama's halves, by :meth:`LlamaSteps._turns`."""
    return values * cos + values.roll(values.shape[-1] // 2, -1) * sin


def _normed(norm: Any, states: torch.Tensor) -> torch.Tensor:
    return torch.rms_norm(states, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _gated(mlp: Any, states: torch.Tensor) -> torch.Tensor:
    gate, up = _together((mlp.gate_proj, mlp.up_proj), states).chunk(2, -1)
    return mlp.down_proj(mlp.act_fn(gate) * up)


def _joined(beginning: torch.Tensor, inputs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The beginning right before each row's own inputs, padded on the left."""
    rows, length, width = inputs.shape
    joined = inputs.new_zeros(rows, len(beginning) + length, width)
    for row, own in enumerate(mask.sum(1).tolist()):
        joined[row, -own:] = inputs[row, length - own :]
        joined[row, length - own : length - own + len(beginning)] = beginning
    return joined
