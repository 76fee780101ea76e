"""Text encoders: sentences to vectors, each distinct sentence once, in batches without padding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch

from recllm_bench.errors import BenchError
from recllm_bench.language.encoder_files import EncoderFiles, find_encoder, revision
from recllm_bench.language.quantisation import dtype_option
from recllm_bench.products import accelerate
from recllm_bench.progress import log, track

ONE_WORD = 'This sentence : "{text}" means in one word:"'
"""PromptEOL's prompt (Jiang et al., 2023, "Scaling Sentence Embeddings with Large Language Models")."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_TOKENS_AT_ONCE = {"cpu": 512, "cuda": 65536}  # on a CPU, what a layer makes of more does not stay in its caches


class TextEncoder(ABC):
    """Turns texts into vectors.

    Attributes
    ----------
    name : str
        What the user called it.
    """

    name: str

    @property
    @abstractmethod
    def revision(self) -> str:
        """Hash of weights and configuration."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Length of a vector."""

    @abstractmethod
    def encode(self, texts: Sequence[str], label: str = "") -> np.ndarray:
        """Vectors of texts, float32 [n, width], finite and none of zero length.

        Parameters
        ----------
        texts : sequence of str
            Repeated texts are encoded once.
        label : str
            What the progress bar says.

        Raises
        ------
        BenchError
            When a vector is not finite or has no length.
        """

    def key(self) -> dict[str, Any]:
        """Everything a vector depends on, JSON-able, for the keys of artifacts."""
        return {"encoder": self.name, "revision": self.revision}


def load_text_encoder(
    spec: str = "minilm",
    *,
    device: torch.device | str = "cpu",
    dtype: str | None = None,
    template: str = "{text}",
    pooling: str = "auto",
    double_bos: bool = False,
) -> TextEncoder:
    """Make a text encoder; its weights are read when the first text is encoded.

    Parameters
    ----------
    spec : str
        ``"minilm"``, ``"smollm2"``, a folder, a name under ``RECLLM_MODELS``, or a hub id.
    dtype : {"float32", "bfloat16", "float16"}, optional
        Precision of the weights; by default float32, and bfloat16 for a language model on CUDA. On a CPU with
        bfloat16 instructions, ``"bfloat16"`` is up to 3.5 times as fast, and moves a cosine by
        less than 0.01.
    template : str
        What the encoder reads, ``{text}`` being the text. A causal language model reads the bare default through
        PromptEOL's one-word prompt (:data:`ONE_WORD`); ``"raw"`` gives it the text alone.
    pooling : {"auto", "mean", "last"}
        How token states become one vector; ``auto`` is what the model was trained for.
    double_bos : bool
        Put the begin-of-text token twice (LatentCRS's released script does, specification section 5).

    Raises
    ------
    BenchError
        When the model cannot be found or a parameter is out of its choices.
    """
    if dtype is not None and dtype not in _DTYPES:
        raise BenchError(f"text encoder '{spec}': dtype '{dtype}' is not one of {', '.join(_DTYPES)}")
    if pooling not in ("auto", "mean", "last"):
        raise BenchError(f"text encoder '{spec}': pooling '{pooling}' is not one of auto, mean, last")
    if template not in ("raw", "one_word") and "{text}" not in template:
        raise BenchError(f"text encoder '{spec}': template {template!r} does not contain {{text}}")
    files = find_encoder(spec)
    named = {"raw": "{text}", "one_word": ONE_WORD, "{text}": ONE_WORD if files.causal else "{text}"}
    return _Transformer(files, torch.device(device), dtype, named.get(template, template), pooling, double_bos)


class _Transformer(TextEncoder):
    """A transformers model and its tokenizer, loaded when they are first needed."""

    def __init__(
        self,
        files: EncoderFiles,
        device: torch.device,
        dtype: str | None,
        template: str,
        pooling: str,
        double_bos: bool,
    ) -> None:
        self.files, self.device, self.template, self.double_bos = files, device, template, double_bos
        self.dtype = dtype or ("bfloat16" if files.causal and device.type == "cuda" else "float32")
        self.pooling = files.pooling if pooling == "auto" else pooling
        self.name = files.name

    @cached_property
    def revision(self) -> str:
        return revision(self.files.folder)

    @property
    def width(self) -> int:
        return int(self._model.config.hidden_size)

    def key(self) -> dict[str, Any]:
        how = {"template": self.template, "dtype": self.dtype, "pooling": self.pooling, "double_bos": self.double_bos}
        return {**super().key(), **how}

    def encode(self, texts: Sequence[str], label: str = "") -> np.ndarray:
        row_of: dict[str, int] = {}
        rows = np.fromiter((row_of.setdefault(text, len(row_of)) for text in texts), np.int64, len(texts))
        unique = list(row_of)
        vectors = np.empty((len(unique), self.width), dtype=np.float32)
        if not unique:
            return vectors
        tokens = self._tokens(unique)
        lengths = np.array([len(ids) for ids in tokens])
        order = np.argsort(-lengths, kind="stable")
        bar = track(label=label or f"embedding with {self.name}", total=len(unique), unit="text")
        with torch.inference_mode(), bar:
            for batch in _batches(order, lengths, _TOKENS_AT_ONCE.get(self.device.type, 2048)):
                vectors[batch] = self._forward([tokens[row] for row in batch]).float().cpu().numpy()
                bar.update(len(batch))
        _refuse_degenerate(vectors, unique, self.name)
        return vectors[rows]

    def _forward(self, tokens: list[list[int]]) -> torch.Tensor:
        lengths = torch.tensor([len(ids) for ids in tokens])
        longest = int(lengths.max())
        padded = torch.tensor([ids + [self._pad] * (longest - len(ids)) for ids in tokens])
        mask = torch.arange(longest)[None, :] < lengths[:, None]
        inputs = {"input_ids": padded.to(self.device)}
        if not mask.all():  # batches of one length need no mask, and attention is faster without
            inputs["attention_mask"] = mask.long().to(self.device)
        states = self._model(**inputs).last_hidden_state
        if self.pooling == "cls":
            pooled = states[:, 0]
        elif self.pooling == "last":
            pooled = states[torch.arange(len(states)), lengths - 1]
        else:
            weight = mask.to(self.device, states.dtype)[:, :, None]
            pooled = (states * weight).sum(1) / weight.sum(1)
        return torch.nn.functional.normalize(pooled.float(), dim=1) if self.files.normalise else pooled

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        """Token ids of the prompts; a text that does not fit is cut, never the prompt around it."""
        before, after = self._frame.split("{text}", 1)
        special = not self._frame_has_bos
        tokens = self._tokenize([before + text + after for text in texts], special)
        long = [row for row, ids in enumerate(tokens) if len(ids) > self.files.max_tokens]
        if long:
            log.warning(f"{self.name}: {len(long)} texts are cut to {self.files.max_tokens} tokens")
            room = self.files.max_tokens - len(self._tokenize([before + after], special)[0]) - 2
            if room < 1:
                raise BenchError(
                    f"text encoder '{self.name}': its prompt alone fills its {self.files.max_tokens} tokens"
                )
            kept = [self._cut(texts[row], room) for row in long]
            for row, ids in zip(long, self._tokenize([before + text + after for text in kept], special), strict=True):
                tokens[row] = ids
        if self.double_bos and self._tokenizer.bos_token_id is not None:
            tokens = [[self._tokenizer.bos_token_id, *ids] for ids in tokens]
        empty = next((row for row, ids in enumerate(tokens) if not ids), None)
        if empty is not None:
            raise BenchError(f"text encoder '{self.name}': the text {texts[empty]!r} has no tokens")
        return tokens

    def _tokenize(self, texts: list[str], special: bool) -> list[list[int]]:
        return self._tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]

    def _cut(self, text: str, room: int) -> str:
        spans = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return text[: spans["offset_mapping"][:room][-1][1]]

    @cached_property
    def _frame(self) -> str:
        """The template, inside the model's chat markup where it has one."""
        if not (self.files.causal and self._tokenizer.chat_template and self.template != "{text}"):
            return self.template
        # The date is fixed: some chat templates would otherwise put today's, and every day would have its own vectors.
        return self._tokenizer.apply_chat_template(
            [{"role": "user", "content": self.template}],
            tokenize=False,
            add_generation_prompt=True,
            date_string="26 Jul 2024",
        )

    @property
    def _frame_has_bos(self) -> bool:
        bos = self._tokenizer.bos_token
        return bool(self.files.causal and bos and self._frame.startswith(bos))

    @cached_property
    def _tokenizer(self):
        from transformers import AutoTokenizer

        with _readable_errors(self.name):
            return AutoTokenizer.from_pretrained(self.files.folder, local_files_only=True, padding_side="right")

    @property
    def _pad(self) -> int:
        return self._tokenizer.pad_token_id or 0

    @cached_property
    def _model(self):
        from transformers import AutoModel

        with _readable_errors(self.name):
            model = AutoModel.from_pretrained(
                self.files.folder, local_files_only=True, use_safetensors=True, **dtype_option(_DTYPES[self.dtype])
            )
        return accelerate(model.eval().requires_grad_(False).to(self.device))


def _batches(order: np.ndarray, lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Rows of one batch after the other: longest first, at most ``budget`` tokens with padding."""
    start = 0
    while start < len(order):
        size = max(1, budget // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _refuse_degenerate(vectors: np.ndarray, texts: list[str], name: str) -> None:
    norms = np.linalg.norm(vectors, axis=1)
    bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if len(bad):
        kind = "zero length" if norms[bad[0]] == 0 else "values that are not finite"
        raise BenchError(
            f"text encoder '{name}': the vector of {texts[bad[0]][:60]!r} has {kind} ({len(bad)} of {len(texts)}"
            " texts); use float32 or another encoder"
        )


@contextmanager
def _readable_errors(name: str) -> Iterator[None]:
    """Loading without bars of its own; what transformers raises becomes one line."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BenchError(f"text encoder '{name}' cannot be loaded: {first}") from error
    finally:
        if shown:
            logging.enable_progress_bar()
