"""Architectures: who may be packed and padded, sliding windows, and tokenizers with more tokens than rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from recllm_bench.errors import BenchError
from recllm_bench.language.backbone import Backbone, load_backbone, packed_mask, packed_positions
from recllm_bench.language.generation import generate

pytestmark = pytest.mark.shared

STORIES = "llama2-stories260k"
SMALL = {"vocab_size": 512, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**SMALL, "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}
PACKED = {
    "gpt2": {"vocab_size": 512, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neox": {**SMALL, "intermediate_size": 48, "max_position_embeddings": 64},
    "llama": LLAMA,
    "mistral": {**LLAMA, "sliding_window": None},
    "gemma": {**LLAMA, "head_dim": 8},
    "gemma2": {**LLAMA, "head_dim": 8},
    "qwen2": LLAMA,
    "mixtral": {**LLAMA, "num_local_experts": 2},
}
UNPACKED = {  # kind -> configuration, whether it may be padded
    "bloom": ({"vocab_size": 512, "hidden_size": 32, "n_layer": 2, "n_head": 4}, False),  # distances, no positions
    "mamba": ({**SMALL, "state_size": 4}, False),  # reads one token after the other
    "falcon": ({**SMALL, "alibi": True}, True),
}


def tiny_model(kind: str, folder: Path, models: Path, **config) -> Path:
    """A random model of some architecture with the stories' tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config)).save_pretrained(folder)
    for path in (models / STORIES).glob("*token*"):
        shutil.copyfile(path, folder / path.name)
    return folder


def loaded(kind: str, folder: Path, models: Path, **config) -> Backbone:
    return load_backbone(str(tiny_model(kind, folder / kind, models, **config)), device="cpu", stands_for="")


def states(backbone: Backbone, lengths: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """States of random sequences packed into one row, and of each alone."""
    torch.manual_seed(0)
    inputs = backbone.embed(torch.randint(3, 512, (1, sum(lengths))))
    segments = torch.repeat_interleave(torch.arange(len(lengths)) + 1, torch.tensor(lengths))[None]
    with torch.no_grad():
        alone = torch.cat([backbone.hidden_states(part) for part in inputs.split(lengths, 1)], 1)
        return backbone.hidden_states(inputs, packed_mask(segments), packed_positions(segments)), alone


@pytest.mark.parametrize("kind", PACKED)
def test_architectures_that_pack_and_pad(kind, tmp_path, models_folder):
    backbone = loaded(kind, tmp_path, models_folder, **PACKED[kind])
    assert backbone.context == 64
    assert (backbone.layout.packs, backbone.layout.pads) == (True, True)
    torch.testing.assert_close(*states(backbone, (9, 5, 12)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [STORIES, "llama2-stories260k-ffn192", "domain-llama-4m"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_trained_models_pack_and_pad(name, precision, models_folder):
    layout = load_backbone(str(models_folder / name), precision=precision, device="cpu").layout
    assert (layout.packs, layout.pads, layout.window) == (True, True, 0)


@pytest.mark.parametrize("kind", UNPACKED)
def test_architectures_that_packing_changes_are_refused(kind, tmp_path, models_folder, caplog):
    config, pads = UNPACKED[kind]
    with caplog.at_level("WARNING", logger="recllm_bench"):
        backbone = loaded(kind, tmp_path, models_folder, **config)
    assert "packing is refused" in caplog.text
    assert (backbone.layout.packs, backbone.layout.pads) == (False, pads)
    with pytest.raises(BenchError, match="gives packed sequences other states than it gives each alone") as caught:
        states(backbone, (9, 5))
    assert "\\n" not in str(caught.value)
    inputs, mask = torch.zeros(2, 3, 32), torch.tensor([[0, 1, 1], [1, 1, 1]])
    if pads:
        assert backbone.hidden_states(inputs, mask).shape == (2, 3, 32)
    else:
        with pytest.raises(BenchError, match="gives padded sequences other states"):
            backbone.hidden_states(inputs, mask)


def test_the_probe_sees_a_model_that_mixes_what_is_packed(tmp_path, models_folder, monkeypatch):
    """A model that takes block masks and positions without complaint, and heeds neither."""
    backbone = loaded("llama", tmp_path, models_folder, **LLAMA)
    assert backbone.layout.packs and backbone.layout.pads
    other = loaded("llama", tmp_path / "other", models_folder, **LLAMA)
    real = type(other.model.model).forward
    monkeypatch.setattr(
        type(other.model.model),
        "forward",
        lambda self, *, attention_mask=None, position_ids=None, **rest: real(self, **rest),
    )
    monkeypatch.setattr(type(other), "_takes_positions", True)
    deaf = load_backbone(str(tmp_path / "other" / "llama"), device="cpu")
    assert not deaf.layout.packs and not deaf.layout.pads


def test_the_probe_runs_once_for_a_model(tmp_path, models_folder):
    backbone = loaded("llama", tmp_path, models_folder, **LLAMA)
    passes = []
    backbone.model.model.register_forward_pre_hook(lambda *_: passes.append(1))
    states(backbone, (4, 5))
    assert len(passes) == 3


@pytest.mark.parametrize("kind", ["mistral", "gemma2", "gemma3_text"])
def test_sliding_windows_bound_what_is_packed(kind, tmp_path, models_folder):
    backbone = loaded(kind, tmp_path, models_folder, **LLAMA, head_dim=8, sliding_window=8)
    assert backbone.layout.packs and backbone.layout.window == 8
    torch.testing.assert_close(*states(backbone, (8, 5, 7)), rtol=1e-4, atol=1e-5)
    with pytest.raises(BenchError, match="sees 8 tokens back, and a packed sequence has 9; shorten the sequences"):
        states(backbone, (8, 9))
    inputs = backbone.embed(torch.arange(3, 23)[None])
    mask = torch.ones(1, 20, dtype=torch.long)
    torch.testing.assert_close(backbone.hidden_states(inputs, mask), backbone.hidden_states(inputs))
    causal = torch.ones(1, 1, 20, 20, dtype=torch.bool).tril()  # what the refusal saves from
    difference = backbone.states(inputs, causal) - backbone.hidden_states(inputs)
    assert difference[:, :8].abs().max() < 1e-5 < 1e-3 < difference[:, 8:].abs().max()


def test_a_window_that_is_switched_off_is_none(tmp_path, models_folder):
    backbone = loaded("qwen2", tmp_path, models_folder, **LLAMA, sliding_window=8, use_sliding_window=False)
    assert backbone.layout.window == 0
    torch.testing.assert_close(*states(backbone, (12, 20)), rtol=1e-4, atol=1e-5)


@pytest.fixture
def longer(models_folder, tmp_path):
    """Makes a copy of the stories' model whose tokenizer has further tokens."""
    from transformers import AutoTokenizer

    def make(tokens: list[str], special: bool = True) -> Path:
        folder = tmp_path / "longer"
        shutil.copytree(models_folder / STORIES, folder, copy_function=shutil.copyfile)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(tokens, special_tokens=special)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.mark.parametrize("tokens", [["<image_soft_token>"], [f"<extra_{number}>" for number in range(40)]])
@pytest.mark.parametrize("special", [True, False])
def test_tokens_that_no_text_yields_are_no_hindrance(longer, models_folder, tokens, special):
    backbone = load_backbone(str(longer(tokens, special)), device="cpu")
    assert len(backbone.tokenizer) == 512 + len(tokens) > backbone.vocabulary == 512
    plain = load_backbone(str(models_folder / STORIES), device="cpu")
    text = "Once upon a time, there was an image"
    ids = backbone.tokenizer(text)["input_ids"]
    assert ids == plain.tokenizer(text)["input_ids"]
    assert generate(backbone, [ids], max_new_tokens=5) == generate(plain, [ids], max_new_tokens=5)
    for texts in (f"see {tokens[-1]} here", ["fine", f"see {tokens[-1]} here"]):
        with pytest.raises(BenchError, match=f"has no row for the token '{tokens[-1]}' in one of the texts; take it"):
            backbone.tokenizer(texts)
    with pytest.raises(BenchError, match="has no row for the token"):
        backbone.tokenizer(f"see {tokens[0]}", return_tensors="pt")


def test_a_longer_tokenizer_can_be_saved_and_copied(longer, tmp_path):
    import copy

    from transformers import AutoTokenizer

    backbone = load_backbone(str(longer(["<image_soft_token>"])), device="cpu")
    backbone.tokenizer.save_pretrained(tmp_path / "saved")
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "saved")("a dog")["input_ids"] == backbone.tokenizer("a dog").input_ids
    )
    with pytest.raises(BenchError, match="has no row for the token"):
        copy.deepcopy(backbone.tokenizer)("<image_soft_token>")


def test_a_tokenizer_whose_words_are_beyond_the_model_is_refused(models_folder, tmp_path):
    folder = tiny_model("llama", tmp_path / "short", models_folder, **{**LLAMA, "vocab_size": 500})
    with pytest.raises(BenchError, match="512 tokens and its embedding 500 rows; they do not belong together"):
        load_backbone(str(folder), device="cpu")
