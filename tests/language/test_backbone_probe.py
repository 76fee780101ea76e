"""Architectures for which packing or padding changes states, and tokenizers longer than the embedding."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from recllm_bench.errors import BenchError
from recllm_bench.language.backbone import load_backbone
from recllm_bench.language.frozen import packed_mask, packed_positions

STORIES = "llama2-stories260k"
pytestmark = pytest.mark.shared
SMALL = {
    "vocab_size": 512,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
KINDS = {
    "gpt2": {"vocab_size": 512, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "mistral": {**SMALL, "sliding_window": 8},
    "gemma2": {**SMALL, "head_dim": 8, "sliding_window": 8},
    "qwen3": {**SMALL, "head_dim": 8},
    "lfm2": {**SMALL, "layer_types": ["conv", "full_attention"], "conv_L_cache": 3},
}


def loaded(kind, tmp_path, models_folder):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **KINDS[kind]))
    for value in model.parameters():
        if value.dim() > 1:
            value.data *= 10  # of the size of trained weights: a leak through fresh ones is lost in rounding
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(models_folder / STORIES).save_pretrained(tmp_path)
    return load_backbone(str(tmp_path), device="cpu")


@pytest.mark.parametrize("kind", ["gpt2", "mistral", "gemma2", "qwen3"])
def test_attention_alone_packs_and_pads(kind, tmp_path, models_folder):
    assert loaded(kind, tmp_path, models_folder).probe() == {"padded": False, "packed": False}


def test_a_convolution_over_the_row_is_never_packed(tmp_path, models_folder):
    backbone = loaded("lfm2", tmp_path, models_folder)
    assert backbone.probe()["packed"]
    segments = torch.tensor([[1, 1, 2, 2]])
    with pytest.raises(BenchError, match="gives other states to packed texts than to the same texts alone"):
        backbone.hidden_states(torch.zeros(1, 4, 32), packed_mask(segments), packed_positions(segments))
    ones = torch.ones(1, 4, dtype=torch.long)
    assert backbone.hidden_states(torch.zeros(1, 4, 32), ones).shape == (1, 4, 32)  # nothing is padded


@pytest.mark.parametrize("kind", ["mistral", "gemma2"])
def test_texts_beyond_a_sliding_window_are_never_packed(kind, tmp_path, models_folder):
    backbone = loaded(kind, tmp_path, models_folder)
    near, far = torch.tensor([[1] * 8 + [2] * 8]), torch.tensor([[1] * 9 + [2] * 7])
    inputs = torch.randn(1, 16, 32, generator=torch.Generator().manual_seed(0))
    packed = backbone.hidden_states(inputs, packed_mask(near), packed_positions(near))
    alone = backbone.hidden_states(inputs[:, 8:])
    torch.testing.assert_close(packed[:, 8:], alone, rtol=1e-3, atol=1e-3)
    with pytest.raises(BenchError, match="attends to 8 tokens back"):
        backbone.hidden_states(inputs, packed_mask(far), packed_positions(far))


def longer(tmp_path, models_folder, tokens, **how):
    tokenizer = AutoTokenizer.from_pretrained(models_folder / STORIES)
    tokenizer.add_tokens(tokens, **how)
    AutoModelForCausalLM.from_pretrained(models_folder / STORIES).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return load_backbone(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("tokens", "how"),
    [(["<image_soft_token>"], {"special_tokens": True}), (["<PRE>", "<SUF>", "<MID>"], {}), (["<pad_to_64>"], {})],
)
def test_tokens_that_no_text_yields_may_lie_beyond_the_embedding(tmp_path, models_folder, tokens, how):
    backbone = longer(tmp_path, models_folder, tokens, **how)
    ids = backbone.tokenizer("Once upon a time", return_tensors="pt")["input_ids"]
    assert backbone.embed(ids).shape == (1, ids.shape[1], 64)
    ids = backbone.tokenizer(f"a {tokens[-1]} b", return_tensors="pt")["input_ids"]
    with pytest.raises(BenchError, match=f"no vector for its tokenizer's token '{tokens[-1]}'"):
        backbone.embed(ids)


def test_words_beyond_the_embedding_are_refused_when_it_is_loaded(tmp_path, models_folder):
    model = AutoModelForCausalLM.from_pretrained(models_folder / STORIES)
    model.resize_token_embeddings(400)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(models_folder / STORIES).save_pretrained(tmp_path)
    with pytest.raises(BenchError, match="do not belong together"):
        load_backbone(str(tmp_path), device="cpu")
