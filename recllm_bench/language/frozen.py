"""A frozen causal language model as a function from input vectors to states."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch.utils.checkpoint import checkpoint

from recllm_bench.errors import BenchError
from recllm_bench.language.block_attention import Documents, attends_by_blocks
from recllm_bench.language.layout import Layout, probe
from recllm_bench.language.quantisation import OPTION

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_HASHED_AT_ONCE = 1 << 26  # elements moved to the host at a time
_layouts: WeakKeyDictionary[Any, Layout] = WeakKeyDictionary()  # of each loaded model


@dataclass
class Backbone:
    """A frozen causal language model and its tokenizer.

    Attributes
    ----------
    name : str
        As the user named it; ``"miniature"`` for one pre-trained here.
    source : str
        Folder name or hub id, with revision.
    substitute : str
        What it stands in for, shown in every table; empty when it is the model meant.
    model : PreTrainedModel
        In eval mode, without gradients on its weights.
    tokenizer : PreTrainedTokenizerBase
        A fast tokenizer.
    device : torch.device
        Where its inputs lie.
    dtype : torch.dtype
        Of its states (and of its weights, unless they are quantised).
    precision_option : str
        What sets the precision of its weights, for messages; empty where nothing does.
    """

    name: str
    source: str
    substitute: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    precision_option: str = OPTION

    @property
    def context(self) -> int:
        """Most positions of one input."""
        config = self.model.config
        for field in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
            if getattr(config, field, None):
                return int(getattr(config, field))
        length = int(self.tokenizer.model_max_length)
        return length if length < 1 << 30 else 2048

    @property
    def _table(self) -> Any:
        return self.model.get_input_embeddings()

    @property
    def width(self) -> int:
        """Length D of a state and of an input vector."""
        return int(self._table.weight.shape[1])

    @property
    def vocabulary(self) -> int:
        """Rows V of the input embedding."""
        return int(self._table.weight.shape[0])

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a text."""
        told = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        ids = set(told if isinstance(told, (list, tuple)) else [] if told is None else [told])
        if self.tokenizer.eos_token_id is not None:
            ids.add(self.tokenizer.eos_token_id)
        return tuple(sorted(int(token) for token in ids))

    def weights_hash(self) -> str:
        """SHA-256 over the names, types, shapes and bytes of all parameters and stored buffers, hexadecimal.

        Buffers that are derived from the configuration (rotary frequencies) are left out: some grow with the input.
        """
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict(keep_vars=False).items()):
            if not isinstance(value, torch.Tensor):
                digest.update(f"{name} {value!r};".encode())
                continue
            digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
            flat = value.detach().contiguous().view(-1)
            for part in flat.split(_HASHED_AT_ONCE):
                digest.update(part.view(torch.uint8).cpu().numpy().tobytes() if part.numel() else b"")
        return digest.hexdigest()

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Input vectors of word ids, [...] -> [..., D]."""
        return self._table(ids.to(self.device))

    def word_embedding(self) -> torch.Tensor:
        """Input vectors of all words [V, D], as they enter the first layer; without gradient."""
        table = self._table
        scale = getattr(table, "embed_scale", None)  # Gemma 3 scales inside its embedding module
        return table.weight.detach() if scale is None else table.weight.detach() * scale

    def head(self) -> torch.nn.Module:
        """The output layer, states [..., D] -> word scores [..., V]."""
        return self.model.get_output_embeddings()

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Word scores of states, float32 [..., D] -> [..., V], with what some models do after their head."""
        scores = self.head()(states).float()
        config = self.model.config
        if getattr(config, "logit_scale", None):  # Cohere
            scores = scores * config.logit_scale
        if getattr(config, "logits_scaling", None):  # Granite
            scores = scores / config.logits_scaling
        if getattr(config, "final_logit_softcapping", None):  # Gemma 2
            cap = config.final_logit_softcapping
            scores = torch.tanh(scores / cap) * cap
        return scores

    def hidden_states(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | Documents | None = None,
        position_ids: torch.Tensor | None = None,
        *,
        checkpointing: bool = False,
    ) -> torch.Tensor:
        """States after the last norm, differentiable with respect to the inputs.

        Parameters
        ----------
        inputs_embeds : float [B, L, D]
            Input vectors; cast to the model's type.
        attention_mask : tensor, optional
            ``[B, L]`` (1: a token, 0: padding), or a block mask ``[B or 1, 1, L, L]``: boolean (true: row attends to
            column; causality included) or float to be added to the attention scores, or the documents of packed rows.
            Without it, all is attended to causally.
        position_ids : int64 [B, L], optional
            By default counted from the first unmasked token, or from the left under a block mask.
        checkpointing : bool
            Recompute each layer in the backward pass instead of keeping its activations; dropout is drawn as before.

        Returns
        -------
        float [B, L, D]

        Raises
        ------
        BenchError
            When the mask has a wrong shape or type, or packing or padding would change what the model says.
        """
        self._refuse_changing(attention_mask, position_ids)
        layers = _decoder_layers(self.model) if checkpointing and torch.is_grad_enabled() else None
        with _recomputed(layers) if layers is not None else nullcontext():
            return self.states(inputs_embeds, attention_mask, position_ids)

    def states(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | Documents | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As :meth:`hidden_states`, whatever packing or padding does to the model."""
        found = self._run(inputs_embeds, attention_mask, position_ids, use_cache=False).last_hidden_state
        return found.to(inputs_embeds.device)  # a model that is spread over devices ends on another one

    @property
    def layout(self) -> Layout:
        """Whether the model may be packed and padded; probed once for each loaded model."""
        if self.model not in _layouts:
            _layouts[self.model] = probe(self)
        return _layouts[self.model]

    def _refuse_changing(self, mask: torch.Tensor | Documents | None, positions: torch.Tensor | None) -> None:
        """Refuse masks under which a sequence would have other states than alone."""
        if mask is None:
            return
        layout, packed = self.layout, mask.dim() == 4
        if (packed and not layout.packs) or (
            isinstance(mask, torch.Tensor) and not packed and not layout.pads and not bool(mask.all())
        ):
            raise BenchError(
                f"language model '{self.name}' ({type(self.model).__name__}) gives {'packed' if packed else 'padded'}"
                " sequences other states than it gives each alone; name another, such as a Llama, Qwen or GPT-2"
            )
        if packed and 0 < layout.window < mask.shape[-1]:
            longest = mask.shape[-1] if positions is None else int(positions.max()) + 1
            if longest > layout.window:
                raise BenchError(
                    f"language model '{self.name}' sees {layout.window} tokens back, and a packed sequence has"
                    f" {longest}; shorten the sequences, or name a model without a sliding window"
                )

    def advance(
        self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor, cache: Any = None
    ) -> tuple[torch.Tensor, Any]:
        """States of the next inputs given a key/value cache, and the cache with them in it.

        Parameters
        ----------
        inputs_embeds : float [B, n, D]
            The new inputs.
        attention_mask : int64 [B, past + n]
            1 for tokens, 0 for padding, the cached ones included.
        position_ids : int64 [B, n]
            Places of the new inputs.
        cache : object, optional
            What the last call returned.
        """
        self._refuse_changing(attention_mask, position_ids)
        output = self._run(inputs_embeds, attention_mask, position_ids, use_cache=True, past_key_values=cache)
        if getattr(output, "past_key_values", None) is None:
            raise BenchError(f"language model '{self.name}' keeps no key/value cache, so it cannot generate here")
        return output.last_hidden_state, output.past_key_values

    def _run(self, inputs_embeds, attention_mask, position_ids, **options):
        batch, length = inputs_embeds.shape[:2]
        if isinstance(attention_mask, Documents):
            documents = attention_mask.to(inputs_embeds.device)
            blocks = attends_by_blocks(self.model)
            attention_mask = documents.blocks() if blocks else self._additive(documents.dense(), batch, length)
        elif attention_mask is not None and attention_mask.dim() == 4:
            attention_mask = self._additive(attention_mask, batch, length)
        elif attention_mask is not None:
            if position_ids is None:
                position_ids = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
        elif position_ids is not None:
            # Without a mask some versions of transformers read resetting positions as packed sequences, others do not.
            attention_mask = torch.ones(batch, length, dtype=torch.long, device=inputs_embeds.device)
        if position_ids is not None:
            if not self._takes_positions:
                raise BenchError(f"language model '{self.name}' takes no positions, so it cannot be packed or padded")
            options["position_ids"] = position_ids
        return self._decoder(inputs_embeds=inputs_embeds.to(self.dtype), attention_mask=attention_mask, **options)

    def _additive(self, mask: torch.Tensor, batch: int, length: int) -> torch.Tensor:
        """A block mask as numbers added to the attention scores; the one form that every version of SDPA code reads."""
        if mask.shape not in ((batch, 1, length, length), (1, 1, length, length)):
            raise BenchError(f"a block mask of shape {tuple(mask.shape)} does not fit inputs [{batch}, {length}, D]")
        lowest = torch.finfo(self.dtype).min  # not minus infinity: a row that may see nothing must not become NaN
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=self.dtype, device=mask.device).masked_fill(~mask, lowest)
        elif mask.is_floating_point():
            mask = mask.to(self.dtype).clamp(min=lowest)
        else:
            raise BenchError(f"a block mask must be boolean or float, not {mask.dtype}")
        return mask.expand(batch, 1, length, length)

    @cached_property
    def _decoder(self) -> torch.nn.Module:
        return self.model.base_model

    @cached_property
    def _takes_positions(self) -> bool:
        return "position_ids" in inspect.signature(type(self._decoder).forward).parameters


def packed_mask(segments: torch.Tensor) -> torch.Tensor:
    """Block-diagonal causal mask of packed sequences.

    Parameters
    ----------
    segments : int [B, L]
        Which sequence each place belongs to, counted from 1; 0 is padding, which attends to itself alone.

    Returns
    -------
    bool [B, 1, L, L]
        True where the row's place attends to the column's.
    """
    length = segments.shape[1]
    place = torch.arange(length, device=segments.device)
    same = (segments[:, :, None] == segments[:, None, :]) & (segments[:, :, None] > 0)
    return ((same & (place[:, None] >= place)) | (place[:, None] == place))[:, None]


def packed_positions(segments: torch.Tensor) -> torch.Tensor:
    """Position of each place in its own packed sequence, int64 [B, L]; sequences are contiguous."""
    place = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    first = torch.ones_like(segments, dtype=torch.bool)
    first[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return place - torch.where(first, place, 0).cummax(1).values


def _decoder_layers(model: PreTrainedModel) -> torch.nn.ModuleList:
    count = model.config.num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return module
    raise BenchError(f"gradient checkpointing finds no list of {count} layers in {type(model).__name__}; switch it off")


@contextmanager
def _recomputed(layers: torch.nn.ModuleList) -> Iterator[None]:
    """While it lasts, each layer's forward pass is checkpointed.

    transformers' own gradient checkpointing works in train mode only, where dropout would be on.
    """

    draws = any(isinstance(part, torch.nn.Dropout) and part.training and part.p for part in layers.modules())

    def wrapped(forward):
        def run(*inputs, **named):
            return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=draws, **named)

        return run

    own = [vars(layer).get("forward") for layer in layers]  # device maps put one there
    for layer in layers:
        layer.forward = wrapped(layer.forward)
    try:
        yield
    finally:
        for layer, before in zip(layers, own, strict=True):
            del layer.forward
            if before is not None:
                layer.forward = before
