"""The text a miniature language model learns from: chosen, tokenised, in one row."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recllm_bench.artifacts import set_aside, write_atomic
from recllm_bench.errors import NotEnough

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNKNOWN, BEGIN, END, PADDING = "<unk>", "<s>", "</s>", "<pad>"


def choose_texts(
    texts: Iterable[str], most: int, held_out: float, seed: int, *, lines: bool = False
) -> tuple[list[str], list[str]]:
    """Distinct texts in a random order that depends on them alone, at most so many characters; the last held out.

    White space is one space; with ``lines``, line breaks stay.
    """
    heap: list[tuple[int, str]] = []  # the texts with the smallest hashes so far, largest on top
    seen: set[int] = set()
    characters, limit = 0, None
    for text in texts:
        text = "\n".join(" ".join(line.split()) for line in text.split("\n")) if lines else " ".join(text.split())
        if not text.strip():
            continue
        rank = int.from_bytes(hashlib.blake2b(f"{seed} {text}".encode(), digest_size=8).digest(), "big")
        if rank in seen or (limit is not None and rank > limit):
            continue
        seen.add(rank)
        heapq.heappush(heap, (-rank, text))
        characters += len(text)
        while characters > most and len(heap) > 2:
            limit, dropped = heapq.heappop(heap)
            limit = -limit
            seen.discard(limit)
            characters -= len(dropped)
    if len(heap) < 2:
        raise NotEnough(
            f"a miniature language model needs at least 2 different texts and there are {len(heap)}; name a language"
            " model instead"
        )
    ordered = [text for _, text in sorted(heap)]
    aside = max(1, round(held_out * len(ordered)))
    return ordered[aside:], ordered[:aside]


def train_tokenizer(texts: list[str], path: Path, vocabulary: int) -> Tokenizer:
    """A byte-level BPE with single digits; kept in the work folder, so that a resumed run has the same."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    if path.exists():
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:  # the library has no class of its own for a damaged file
            set_aside(path, f"{path} is damaged ({type(error).__name__}); the tokenizer is trained again")
    core = Tokenizer(models.BPE(unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[UNKNOWN, BEGIN, END, PADDING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer, length=len(texts))
    core.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A {BEGIN} $B",
        special_tokens=[(BEGIN, core.token_to_id(BEGIN))],
    )
    write_atomic(path, lambda file: file.write(core.to_str().encode()))
    return core


def token_stream(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """All texts in one row of tokens, int64; each begins with the token of a beginning and ends with that of an end."""
    end = tokenizer.token_to_id(END)
    return np.concatenate([np.array([*entry.ids, end], np.int64) for entry in tokenizer.encode_batch(texts)])


def unigram_perplexity(stream: np.ndarray, aside: np.ndarray, vocabulary: int) -> float:
    """Held-out perplexity of training frequencies with add-one smoothing; beginnings are not counted here either."""
    begin = int(stream[0])
    counts = np.bincount(stream[stream != begin], minlength=vocabulary) + 1.0
    counted = aside[1:][aside[1:] != begin]
    return float(np.exp(-np.log(counts / counts.sum())[counted].mean()))
