"""A tiny random language model with a tokenizer of its own, and small histories, for tests of ReLRec."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from recllm_bench.data.splits import Split, leave_one_out
from recllm_bench.language.backbone import Backbone
from recllm_bench.models.relrec.model import ReLRec
from recllm_bench.models.relrec.packing import Book, LabelTokens
from recllm_bench.models.relrec.prompts import ITEM_PROMPTS, USER_PROMPTS
from tests.conftest import planted_histories

WIDTH, LAYERS = 32, 2
N_USERS, N_ITEMS = 14, 12
SENTENCES = (
    "The quick brown fox likes films about space, and songs about rain.",
    "Someone who enjoys slow stories would choose this one; others would not.",
    "A short profile of the person: quiet, curious, fond of old books.",
)


@lru_cache(maxsize=1)
def tiny_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES, *USER_PROMPTS, *ITEM_PROMPTS], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


def tiny_backbone(
    dtype: torch.dtype = torch.float64, *, context: int = 128, tied: bool = True, seed: int = 0
) -> Backbone:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer()),
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=tied,
        attn_implementation="sdpa",
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    model = LlamaForCausalLM(config).to(dtype).eval().requires_grad_(False)
    return Backbone(
        "tiny", "tiny", "tiny random Llama for Llama-2-7b", model, tiny_tokenizer(), torch.device("cpu"), dtype
    )


def planted_split(n_users: int = N_USERS, n_items: int = N_ITEMS, length: int = 9) -> Split:
    return leave_one_out(planted_histories(n_users, n_items, length))


def planted_labels(n_users: int = N_USERS, n_items: int = N_ITEMS) -> Any:
    rng = np.random.default_rng(5)
    words = ["quiet", "curious", "old", "space", "rain", "books", "films", "songs", "slow", "short", "quick", "brown"]

    def text() -> str:
        return " ".join(rng.choice(words, int(rng.integers(2, 9)))) + f" like iid_{int(rng.integers(1, n_items + 1))}"

    users = [(), *(tuple(text() for _ in range(3)) for _ in range(n_users))]
    items = [(), *(tuple(text() for _ in range(3)) for _ in range(n_items))]
    users[2], items[3] = (), ()  # ids without a label
    return SimpleNamespace(users=users, items=items)


class Config(dict):
    """What RecBole's base class and the model read of a configuration."""


def tiny_model(
    backbone: Backbone | None = None, kind: type[ReLRec] = ReLRec, *, split: Split | None = None, **options: Any
):
    split = split or planted_split()
    backbone = backbone or tiny_backbone()
    values = {**dataclasses.asdict(kind.Options()), "p": 16, **options}
    config = Config(
        USER_ID_FIELD="user_id",
        ITEM_ID_FIELD="item_id",
        LIST_SUFFIX="_list",
        ITEM_LIST_LENGTH_FIELD="item_length",
        NEG_PREFIX="neg_",
        MAX_ITEM_LIST_LENGTH=8,
        device=torch.device("cpu"),
        **values,
    )
    histories = split.histories
    counts = {"user_id": histories.n_users + 1, "item_id": histories.n_items + 1}
    torch.manual_seed(11)
    model = kind(config, SimpleNamespace(num=counts.__getitem__), backbone)
    model.tables.to(backbone.dtype)
    return model


def spread(model: ReLRec, seed: int = 1) -> ReLRec:
    """Random trainable values of a size that matters, so that no gradient is small by symmetry."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.tables.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.4)
    return model


def tiny_book(model: ReLRec, split: Split, labels: Any = None, limit: int = 40) -> Book:
    labels = labels or planted_labels(split.histories.n_users, split.histories.n_items)
    recon = model.options.recon
    return Book(
        model.vocabulary,
        split.histories,
        template=model.options.seq_template,
        user_token=model.options.user_token,
        user_labels=LabelTokens(labels.users, model.vocabulary, limit) if recon else None,
        item_labels=LabelTokens(labels.items, model.vocabulary, limit) if recon else None,
        user_prompts=USER_PROMPTS,
        item_prompts=ITEM_PROMPTS,
    )


def gradients(model: ReLRec, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.to_dense().clone()
        for name, parameter in model.tables.named_parameters()
    }
