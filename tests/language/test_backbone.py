"""Backbones: packed passes against separate ones, what frozen means, and every refusal a user can meet."""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
from pathlib import Path

import pytest
import torch

from recllm_bench.errors import BenchError
from recllm_bench.language.backbone import (
    Backbone,
    backbone_key,
    chat_key,
    load_backbone,
    packed_mask,
    packed_positions,
)
from recllm_bench.language.quantisation import placement, settle_precision, weight_bytes

STORIES = "llama2-stories260k"
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(scope="module")
def stories(models_folder) -> Backbone:
    return load_backbone(str(models_folder / STORIES), device="cpu")


@pytest.fixture(scope="module")
def exact(models_folder) -> Backbone:
    """The same model in float64."""
    backbone = load_backbone(str(models_folder / STORIES), device="cpu")
    backbone.model.double()
    return dataclasses.replace(backbone, dtype=torch.float64)


@pytest.fixture
def folder(models_folder, tmp_path) -> Path:
    """A copy of the model that a test may break."""
    return Path(shutil.copytree(models_folder / STORIES, tmp_path / "model", copy_function=shutil.copyfile))


def edit(folder: Path, **changes) -> None:
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    folder.joinpath("config.json").write_text(json.dumps(config))


@pytest.mark.shared
def test_says_what_it_is(stories):
    assert (stories.context, stories.width, stories.vocabulary, stories.stop_ids) == (512, 64, 512, (2,))
    assert stories.source.startswith(f"{STORIES}@")
    assert stories.substitute == "llama2-stories260k (260.0k) for Llama-2-7b"
    assert stories.word_embedding().shape == (512, 64)
    assert stories.head()(torch.zeros(3, 64)).shape == (3, 512)
    assert stories.model.config._attn_implementation == "sdpa"
    assert stories.dtype == torch.float32


@pytest.mark.shared
def test_is_frozen(stories):
    assert not stories.model.training
    assert not any(value.requires_grad for value in stories.model.parameters())
    before = stories.weights_hash()
    inputs = stories.embed(torch.tensor([[1, 5, 9]])).requires_grad_()
    stories.hidden_states(inputs).sum().backward()
    assert inputs.grad.abs().sum() > 0
    assert stories.weights_hash() == before
    weight = stories.model.model.layers[3].mlp.up_proj.weight
    kept = weight[5, 7].item()
    weight[5, 7] = kept + 1e-6 + abs(kept) * 1e-5
    assert stories.weights_hash() != before
    weight[5, 7] = kept
    assert stories.weights_hash() == before


@pytest.mark.shared
def test_states_and_scores_are_the_model_s_own(stories):
    ids = stories.tokenizer(["Once upon a time, there was a dog"], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = stories.model(input_ids=ids).logits
        states = stories.hidden_states(stories.embed(ids))
    torch.testing.assert_close(stories.logits(states), expected, rtol=0, atol=1e-5)


SEGMENTS = torch.tensor([[1] * 9 + [2] * 5 + [3] * 12 + [0] * 4, [1] * 2 + [2] * 17 + [0] * 11])


def passes(backbone: Backbone, mask: torch.Tensor, checkpointing: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """States of the packed batch, and the gradient of a function of them with respect to the inputs."""
    torch.manual_seed(0)
    inputs = backbone.embed(torch.randint(3, 512, SEGMENTS.shape)).requires_grad_()
    states = backbone.hidden_states(inputs, mask, packed_positions(SEGMENTS), checkpointing=checkpointing)
    loss = (states.square() * (SEGMENTS > 0)[..., None]).sum()
    return states.detach(), torch.autograd.grad(loss, inputs)[0]


@pytest.mark.shared
@pytest.mark.parametrize("form", ["boolean", "additive"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_packed_pass_equals_separate_ones(exact, form, checkpointing):
    mask = packed_mask(SEGMENTS)
    if form == "additive":
        mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -torch.inf)
    states, gradients = passes(exact, mask, checkpointing)
    torch.manual_seed(0)
    ids = torch.randint(3, 512, SEGMENTS.shape)
    for row in range(2):
        for segment in range(1, int(SEGMENTS[row].max()) + 1):
            own = SEGMENTS[row] == segment
            alone = exact.embed(ids[row, own][None]).requires_grad_()
            expected = exact.hidden_states(alone)
            torch.testing.assert_close(states[row, own], expected.detach()[0], rtol=0, atol=1e-5)
            (gradient,) = torch.autograd.grad(expected.square().sum(), alone)
            torch.testing.assert_close(gradients[row, own], gradient[0], rtol=1e-5, atol=1e-5)


@pytest.mark.shared
def test_without_a_block_mask_sequences_do_mix(exact):
    """The comparison above can fail: a plain causal mask gives other states from the second sequence on."""
    causal = torch.ones(1, 1, 30, 30, dtype=torch.bool).tril()
    apart, together = passes(exact, packed_mask(SEGMENTS))[0], passes(exact, causal)[0]
    torch.testing.assert_close(apart[0, :9], together[0, :9])
    assert (apart[0, 9:14] - together[0, 9:14]).abs().max() > 0.1


@pytest.mark.shared
def test_checkpointing_recomputes_layers_and_leaves_no_trace(stories):
    calls = []
    layer = stories.model.model.layers[2]
    hook = layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    inputs = stories.embed(torch.tensor([[1, 5, 9]])).requires_grad_()
    states = stories.hidden_states(inputs, checkpointing=True)
    assert len(calls) == 1
    states.sum().backward()
    hook.remove()
    assert len(calls) == 2
    assert "forward" not in vars(layer)


@pytest.mark.shared
def test_padding_on_either_side_changes_nothing(stories):
    ids = torch.tensor([[1, 40, 41, 42]])
    alone = stories.hidden_states(stories.embed(ids))
    for left, right in ((3, 0), (0, 3)):
        padded = torch.nn.functional.pad(stories.embed(ids), (0, 0, left, right))
        mask = torch.nn.functional.pad(torch.ones_like(ids), (left, right))
        states = stories.hidden_states(padded, mask)[:, left : left + 4]
        torch.testing.assert_close(states, alone, rtol=0, atol=1e-5)


def test_packed_mask_and_positions_by_hand():
    segments = torch.tensor([[1, 1, 2, 0]])
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert packed_mask(segments)[0, 0].int().tolist() == expected
    assert packed_positions(segments).tolist() == [[0, 1, 0, 0]]


@pytest.mark.shared
def test_a_wrong_mask_is_refused(stories):
    inputs = torch.zeros(1, 4, 64)
    with pytest.raises(BenchError, match="does not fit"):
        stories.hidden_states(inputs, torch.ones(1, 1, 3, 4, dtype=torch.bool))
    with pytest.raises(BenchError, match="boolean or float"):
        stories.hidden_states(inputs, torch.ones(1, 1, 4, 4, dtype=torch.long))


@pytest.mark.shared
def test_the_key_is_the_files_not_their_place(models_folder, folder, monkeypatch):
    key = backbone_key(str(folder))
    monkeypatch.setenv("RECLLM_MODELS", str(models_folder))
    assert backbone_key(STORIES) == key
    (folder / "README.md").write_text("a note")
    (folder / "artifact.json").write_text("{}")
    assert backbone_key(str(folder)) == key
    edit(folder, rope_theta=500.0)
    assert backbone_key(str(folder)) != key


@pytest.mark.shared
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["BertModel"], "model_type": "bert"}, "no language-model head"),
        ({"architectures": ["BertLMHeadModel"], "model_type": "bert"}, "not causal"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "not a causal language model"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "sequence-to-sequence"),
        ({"model_type": "invented", "auto_map": {"AutoModel": "code.Model"}}, "code of its own, which is not run"),
        ({"model_type": "invented"}, "unknown to this transformers"),
        ({"model_type": ""}, "no model_type"),
        ({"quantization_config": {"quant_method": "awq"}}, "stored quantised by awq"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "needs a CUDA device"),
    ],
)
def test_configurations_that_are_refused(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(BenchError, match=message):
        load_backbone(str(folder), device="cpu")


@pytest.mark.shared
def test_files_that_are_refused(folder, models_folder, tmp_path):
    with pytest.raises(BenchError, match="a file; give the folder"):
        load_backbone(str(folder / "config.json"))
    with pytest.raises(BenchError, match="tokenizer alone"):
        load_backbone(str(models_folder / "llama2-tokenizer"))
    with pytest.raises(BenchError, match="no such folder"):
        load_backbone(str(tmp_path / "nothing"))
    with pytest.raises(BenchError, match="no language model is named"):
        load_backbone(" ")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for broken in (whole[:-7], whole[:4], struct.pack("<Q", 1 << 40) + whole[8:], b"\0" * 64):
        weights.write_bytes(broken)
        with pytest.raises(BenchError, match="cut short or broken"):
            load_backbone(str(folder))
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BenchError, match="2 of 2 weight files are missing"):
        load_backbone(str(folder))
    (folder / "model.safetensors.index.json").unlink()
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(BenchError, match=r"only pickled weights .* only safetensors are loaded"):
        load_backbone(str(folder))
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(BenchError, match="has no tokenizer"):
        load_backbone(str(folder))
    (folder / "config.json").write_text("{]")
    with pytest.raises(BenchError, match=r"config\.json:1 is not valid JSON"):
        load_backbone(str(folder))


@pytest.mark.shared
def test_weights_that_would_be_random_are_refused(folder):
    edit(folder, num_hidden_layers=6)
    with pytest.raises(BenchError, match="tensors are not in its files"):
        load_backbone(str(folder))


@pytest.mark.shared
def test_a_tokenizer_of_another_model_is_refused(folder, models_folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json"):
        shutil.copyfile(models_folder / "llama2-tokenizer" / name, folder / name)
    with pytest.raises(BenchError, match="32000 tokens and its embedding 512 rows"):
        load_backbone(str(folder))


@pytest.mark.shared
def test_devices_and_precisions_that_are_refused(models_folder, monkeypatch):
    monkeypatch.setenv("RECLLM_MODELS", str(models_folder))
    with pytest.raises(BenchError, match="is no device"):
        load_backbone(STORIES, device="abacus")
    with pytest.raises(BenchError, match="not one of auto, float32"):
        load_backbone(STORIES, precision="2bit", device="cpu")
    for precision, device in (("8bit", "meta"), ("4bit", "meta")):
        with pytest.raises(BenchError, match=f"llm_precision={precision} needs a CUDA device, not {device}"):
            settle_precision(precision, torch.device(device), STORIES)
    if not torch.cuda.is_available():
        with pytest.raises(BenchError, match="there are 0 CUDA devices"):
            load_backbone(STORIES, device="cuda")
    assert load_backbone(STORIES, precision="bfloat16", device="cpu").dtype == torch.bfloat16


def test_quantisation_without_its_package_is_refused(monkeypatch):
    real = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "bitsandbytes" else real(name, *rest)
    )
    with pytest.raises(BenchError, match="pip install bitsandbytes accelerate"):
        settle_precision("4bit", CUDA, "x")
    for capability, half in (((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float16")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert settle_precision("auto", CUDA, "x") == half
    assert settle_precision("auto", CPU, "x") == "float32"


def llama_7b() -> dict[str, tuple[tuple[int, ...], int]]:
    """Names and shapes of Llama-2-7b."""
    shapes = {"model.embed_tokens.weight": (32000, 4096), "lm_head.weight": (32000, 4096), "model.norm.weight": (4096,)}
    for layer in range(32):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"model.layers.{layer}.self_attn.{name}.weight"] = (4096, 4096)
        for name, shape in (("gate", (11008, 4096)), ("up", (11008, 4096)), ("down", (4096, 11008))):
            shapes[f"model.layers.{layer}.mlp.{name}_proj.weight"] = shape
        for name in ("input", "post_attention"):
            shapes[f"model.layers.{layer}.{name}_layernorm.weight"] = (4096,)
    return {name: (shape, 0) for name, shape in shapes.items()}


def test_memory_estimate_of_llama_2_7b():
    tensors = llama_7b()
    assert weight_bytes(tensors, "bfloat16") == 2 * 6_738_415_616  # its published number of parameters
    assert weight_bytes(tensors, "float32") == 4 * 6_738_415_616
    assert weight_bytes(tensors, "bfloat16", tied=True) == 2 * (6_738_415_616 - 32000 * 4096)
    linear = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    rest = 2 * (6_738_415_616 - linear)
    assert weight_bytes(tensors, "4bit") == pytest.approx(linear * 33 / 64 + rest)
    assert weight_bytes(tensors, "8bit") == pytest.approx(linear + rest, rel=1e-3)


def test_a_device_that_is_too_small_is_told_before_loading():
    tensors, gib = llama_7b(), 2**30
    assert placement("llama", tensors, "bfloat16", CUDA, [24 * gib]) == "one"
    with pytest.raises(BenchError, match=r"needs about 13.3 GiB in bfloat16, cuda:0 has 12.0 GiB.*llm_precision=8bit"):
        placement("llama", tensors, "bfloat16", CUDA, [12 * gib])
    with pytest.raises(BenchError, match="try llm_precision=4bit"):
        placement("llama", tensors, "bfloat16", CUDA, [6 * gib])
    with pytest.raises(BenchError, match="a smaller model or a larger device"):
        placement("llama", tensors, "bfloat16", CUDA, [2 * gib])
    assert placement("llama", tensors, "bfloat16", CUDA, [12 * gib, 12 * gib], may_spread=True) == "spread"
    with pytest.raises(BenchError, match="try llm_precision=8bit"):
        placement("llama", tensors, "bfloat16", CUDA, [12 * gib, 12 * gib])


def check_precision(folder: Path, precision: str, device: str) -> None:
    """Words stay likely as in float32, gradients reach the inputs, and the weights stay what was hashed."""
    reference = load_backbone(str(folder), device="cpu")
    backbone = load_backbone(str(folder), precision=precision, device=device)
    ids = reference.tokenizer(["Once upon a time, there was a girl named Lily."], return_tensors="pt")["input_ids"]
    expected = reference.logits(reference.hidden_states(reference.embed(ids))).softmax(-1)
    before = backbone.weights_hash()
    mask = packed_mask(torch.ones_like(ids).to(device))
    with torch.no_grad():
        backbone.hidden_states(backbone.embed(ids), mask)
    inputs = backbone.embed(ids).detach().float().requires_grad_()
    states = backbone.hidden_states(inputs, mask, checkpointing=True)
    found = backbone.logits(states).softmax(-1).cpu()
    assert (found - expected).abs().sum(-1).mean() < {"bfloat16": 0.05, "8bit": 0.2, "4bit": 0.6}[precision]
    found.square().sum().backward()
    assert torch.isfinite(inputs.grad).all()
    assert inputs.grad.abs().sum() > 0
    assert backbone.weights_hash() == before


@pytest.mark.gpu
@pytest.mark.shared
@pytest.mark.parametrize("precision", ["bfloat16", "8bit", "4bit"])
def test_precisions_on_cuda(models_folder, precision):
    if precision != "bfloat16":
        pytest.importorskip("bitsandbytes")
    check_precision(models_folder / "llama2-stories260k-ffn192", precision, "cuda")


@pytest.mark.shared
@pytest.mark.parametrize("precision", ["8bit", "4bit"])
def test_quantised_weights_on_a_cpu(models_folder, monkeypatch, precision):
    modules = pytest.importorskip("bitsandbytes.nn.modules")
    # on a CPU with AVX512-BF16 the first pass without gradient would pack 4-bit weights anew
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: True, raising=False)
    check_precision(models_folder / "llama2-stories260k-ffn192", precision, "cpu")


@pytest.mark.shared
def test_a_local_writer_counts_by_its_files(models_folder, tmp_path):
    """Other weights in the folder of a chat model are another writer: labels and histories are written again."""
    place = tmp_path / "writer"
    shutil.copytree(models_folder / STORIES, place)
    before = chat_key(f"local:{place}")
    assert before == backbone_key(str(place)) and chat_key("server:m@http://localhost:9/v1") == {}
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "rope_theta": 20000.0}))
    assert chat_key(f"local:{place}") != before
