"""Tuning: packed against separate, what is learnt, what stays frozen, adapters that load elsewhere, kills, refusals."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from recllm_bench.errors import BenchError
from recllm_bench.language import adapters, tuning
from recllm_bench.language.adapters import AdapterWeights, adapted, linear_layers, save_adapter, with_adapter
from recllm_bench.language.backbone import Backbone, load_backbone
from recllm_bench.language.packing import chunks, pack, units_of
from recllm_bench.language.tuning import ADAPTER, FACTS, TuningOptions, answer_loss, tune
from recllm_bench.training.loop import CHECKPOINT

pytestmark = pytest.mark.shared
STORIES = "llama2-stories260k"
LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": ("q_proj", "v_proj")}
QUICK = TuningOptions(rank=4, alpha=8, batch_size=8, epochs=2, parts=2, learning_rate=5e-3, target_modules=("q_proj",))


@pytest.fixture(scope="module")
def stories(models_folder) -> Backbone:
    return load_backbone(str(models_folder / STORIES), device="cpu")


@pytest.fixture(scope="module")
def exact(models_folder) -> Backbone:
    """The same model in float64."""
    backbone = load_backbone(str(models_folder / STORIES), device="cpu")
    backbone.model.double()
    return dataclasses.replace(backbone, dtype=torch.float64)


def some_examples(count: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Prompts of random tokens whose answer is their second token, twice, and the end."""
    rng = np.random.default_rng(seed)
    prompts = [[1, *rng.integers(3, 40, int(rng.integers(2, 14))).tolist()] for _ in range(count)]
    return [(prompt, [prompt[1], prompt[1], 2]) for prompt in prompts]


def families(count: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Examples of which several begin alike, some with equal prompts, one prompt inside another."""
    rng = np.random.default_rng(seed)
    trunks = [[1, *rng.integers(3, 40, 30).tolist()] for _ in range(max(1, count // 6))]
    made = []
    for number in range(count):
        prompt = trunks[number % len(trunks)] + rng.integers(3, 9, int(rng.integers(0, 4))).tolist()
        made.append((prompt, [*rng.integers(3, 40, int(rng.integers(0, 4))).tolist(), 2]))
    return made


def one_by_one(backbone: Backbone, examples) -> torch.Tensor:
    """The loss of each answer token, an example at a time, by the model's own forward pass."""
    losses = []
    for prompt, answer in examples:
        logits = backbone.model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
        losses.append(cross_entropy(logits[len(prompt) - 1 : -1], torch.tensor(answer), reduction="none"))
    return torch.cat(losses)


def gradients(model) -> list[torch.Tensor]:
    values = [value.grad.clone() for value in AdapterWeights(model).parameters()]
    model.zero_grad(set_to_none=True)
    return values


@pytest.mark.parametrize("width", [0, 20, 200])
@pytest.mark.parametrize("share", [True, False])
def test_packed_loss_and_gradient_are_those_of_separate_rows(exact, width, share):
    examples = [*some_examples(17), *families(20)]
    with adapted(exact, LORA, seed=1) as model:
        for layer in AdapterWeights(model).children():  # away from the start, where half the gradients are zero
            torch.nn.init.normal_(layer["lora_B"]["default"].weight, std=0.05)
        model.double()
        packed = pack(examples, width=width, share=share)
        ours = answer_loss(exact, packed).sum()
        ours.backward()
        packed_gradients = gradients(model)
        theirs = one_by_one(exact, examples).sum()
        theirs.backward()
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=1e-6)  # ours scores words in float32
        for ours, theirs in zip(packed_gradients, gradients(model), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    whole = sum(len(prompt) + len(answer) - 1 for prompt, answer in examples)
    assert packed.n_tokens < 0.6 * whole if share else packed.n_tokens == whole


def test_common_beginnings_are_read_once():
    examples = [*families(60), *some_examples(10)]
    units = units_of(examples)
    assert sorted(member for unit in units for member in unit.members) == list(range(70))
    for unit in units:
        prompts = [examples[member][0] for member in unit.members]
        assert all(prompt[: unit.common] == prompts[0][: unit.common] for prompt in prompts)
        assert unit.size == unit.common + sum(sum(map(len, examples[m])) - 1 - unit.common for m in unit.members)
    shared = [unit for unit in units if len(unit.members) > 1]
    assert len(shared) == 10 and all(unit.common >= 31 for unit in shared)
    assert max(len(unit.members) for unit in units_of(examples, most=4)) == 4
    assert pack(examples).n_tokens == sum(unit.size for unit in units)


def test_a_word_in_common_is_no_group():
    """All prompts begin with the beginning of a text; a family must not be broken up for its sake."""
    examples = [
        ([1, 5, *range(10 + family, 40 + family), 3 + turn], [7, 2]) for family in range(3) for turn in range(4)
    ]
    assert [sorted(unit.members) for unit in units_of(examples)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_chunks_keep_within_their_budget():
    examples = some_examples(50)
    parts = list(chunks(examples, 60))
    assert [example for part in parts for example in part] == examples
    assert all(sum(len(p) + len(a) for p, a in part) <= 60 for part in parts)
    assert len(list(chunks(examples, 1))) == 50


def test_only_answers_are_targets():
    packed = pack([([1, 5, 6], [7, 2]), ([1, 8], [9, 9, 2])])
    by_place = dict(zip(packed.scored.tolist(), packed.targets.tolist(), strict=True))
    tokens = packed.tokens.flatten().tolist()
    assert sorted((tokens[place], target) for place, target in by_place.items()) == [
        (6, 7), (7, 2), (8, 9), (9, 2), (9, 9),
    ]  # fmt: skip


def test_rows_are_filled():
    lengths = np.random.default_rng(0).integers(5, 60, 200)
    examples = [([1] * int(length), [2]) for length in lengths]
    packed = pack(examples, width=256)
    assert lengths.sum() / packed.tokens.numel() > 0.95


def test_a_step_in_several_passes_is_the_step(stories, tmp_path):
    """Gathered gradients: the first update is the same however few positions a pass takes."""
    examples = some_examples(16)
    options = dataclasses.replace(QUICK, batch_size=16, epochs=1, parts=1, dropout=0.0)
    whole = tune(stories, examples, examples, options, tmp_path / "whole", seed=0)
    parts = tune(stories, examples, examples, dataclasses.replace(options, tokens_at_once=30), tmp_path / "b", seed=0)
    assert parts["held_out_loss"] == pytest.approx(whole["held_out_loss"], rel=1e-5)
    assert whole["held_out_loss"] < whole["held_out_loss_before"]


def test_learns_leaves_the_model_alone_and_loads_elsewhere(stories, tmp_path):
    import peft
    from transformers import AutoModelForCausalLM

    frozen = stories.weights_hash()
    options = dataclasses.replace(
        QUICK, rank=16, alpha=32, epochs=10, batch_size=32, target_modules=("all-linear",), learning_rate=1e-2
    )
    facts = tune(stories, some_examples(256), some_examples(40, 1), options, tmp_path, seed=0, label="copying")
    assert facts == json.loads((tmp_path / FACTS).read_text()) | {"options": facts["options"]}
    assert facts["held_out_loss"] < 0.5 * facts["held_out_loss_before"]
    assert stories.weights_hash() == frozen
    assert not any(value.requires_grad for value in stories.model.parameters())
    config = json.loads((tmp_path / ADAPTER / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == stories.source  # and no folder of this machine
    packed = pack(some_examples(40, 1))
    tuned = with_adapter(stories, tmp_path / ADAPTER)
    assert stories.weights_hash() == frozen and tuned.weights_hash() != frozen
    assert tuned.source.startswith(stories.source + "+") and tuned.substitute == stories.substitute
    ours = answer_loss(tuned, packed)
    assert ours.mean().item() == pytest.approx(facts["held_out_loss"], rel=1e-4)
    with torch.no_grad():
        before = answer_loss(stories, packed)
    assert before.mean().item() == pytest.approx(facts["held_out_loss_before"], rel=1e-4)
    fresh = AutoModelForCausalLM.from_pretrained(stories.model.name_or_path)
    theirs = peft.PeftModel.from_pretrained(fresh, str(tmp_path / ADAPTER)).eval()
    with torch.no_grad():
        logits = theirs(input_ids=packed.tokens[:1, :5]).logits
    torch.testing.assert_close(logits, tuned.model(input_ids=packed.tokens[:1, :5]).logits, rtol=1e-3, atol=1e-3)


def test_a_twin_copies_only_what_the_adapter_changes(stories, tmp_path):
    with adapted(stories, LORA) as model:
        save_adapter(model, tmp_path)
    twin = with_adapter(stories, tmp_path)
    own, theirs = dict(stories.model.named_parameters()), dict(twin.model.named_parameters())
    assert set(own) == set(theirs)
    copied = {name for name in own if own[name].data_ptr() != theirs[name].data_ptr()}
    assert {name.split(".")[-2] for name in copied} == {"q_proj", "v_proj"}
    assert twin.weights_hash() == stories.weights_hash()  # a fresh adapter changes nothing


def test_an_adapter_is_attached_where_weights_are_quantised(stories, tmp_path):
    with adapted(stories, LORA) as model:
        for layer in AdapterWeights(model).children():
            torch.nn.init.normal_(layer["lora_B"]["default"].weight, std=0.1)
        save_adapter(model, tmp_path)
    merged = with_adapter(stories, tmp_path)
    stories.model.is_quantized = True
    try:
        attached = with_adapter(stories, tmp_path)
    finally:
        del stories.model.is_quantized
    own, theirs = dict(stories.model.named_parameters()), dict(attached.model.named_parameters())
    assert all(theirs[name.replace("_proj.", "_proj.base_layer.") if name not in theirs else name].data_ptr()
               == value.data_ptr() for name, value in own.items())  # fmt: skip
    packed = pack(some_examples(6))
    torch.testing.assert_close(answer_loss(attached, packed), answer_loss(merged, packed), rtol=1e-4, atol=1e-4)
    assert (answer_loss(stories, packed) - answer_loss(merged, packed)).abs().max() > 1e-3


def test_a_killed_tuning_goes_on_as_if_undisturbed(stories, tmp_path, monkeypatch):
    examples, aside = some_examples(40), some_examples(10, 1)
    whole = tune(stories, examples, aside, QUICK, tmp_path / "whole", seed=7)
    real, calls = tuning.answer_loss, [0]

    def interrupted(*inputs, **named):
        calls[0] += 1
        if calls[0] == 11:  # a forward before, three steps and a validation a part: in the third part
            raise KeyboardInterrupt
        return real(*inputs, **named)

    monkeypatch.setattr(tuning, "answer_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(stories, examples, aside, QUICK, tmp_path / "parts", seed=7)
    assert (tmp_path / "parts" / CHECKPOINT).exists()
    assert not any("lora" in name for name, _ in stories.model.named_modules())  # taken out also then
    monkeypatch.setattr(tuning, "answer_loss", real)
    for resumed in range(2):  # the second time nothing is left to train
        if resumed:
            monkeypatch.setattr(tuning._Feed, "batches", lambda *_: pytest.fail("trained twice"))
        again = tune(stories, examples, aside, QUICK, tmp_path / "parts", seed=7)
        assert {**again, "seconds": 0} == {**whole, "seconds": 0} and again["tokens_read"] > 0
    files = [(tmp_path / name / ADAPTER / "adapter_model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]


def test_every_example_comes_once_in_a_pass(stories):
    examples = [([1, 3], [number, 2]) for number in range(3, 60)]
    feed = tuning._Feed(examples, dataclasses.replace(QUICK, parts=3), 1000, 1e3, seed=0)
    assert (feed.steps, feed.parts) == (8, 3)
    passes = []
    for first in (1, 4):
        packs = [one for part in range(first, first + 3) for step in feed.batches(part) for one in step]
        passes.append([target for one in packs for target in one.targets.tolist() if target != 2])
        assert sorted(passes[-1]) == list(range(3, 60))
    assert passes[0] != passes[1]
    assert feed.training(stories).epochs == 6
    assert tuning._Feed(examples[:3], QUICK, 1000, 1e3, seed=0).parts == 1


def test_long_examples_are_left_out_and_counted(stories, tmp_path):
    examples = [*some_examples(9), ([1] * 30, [5, 2]), ([1] * 600, [5, 2])]
    facts = tune(stories, examples, [], dataclasses.replace(QUICK, most_tokens=20, epochs=1), tmp_path, seed=0)
    assert (facts["examples"], facts["too_long"], facts["held_out_loss"]) == (9, 2, None)
    with pytest.raises(BenchError, match="none of 2 examples has at most 20 tokens"):
        tune(stories, examples[-2:], [], dataclasses.replace(QUICK, most_tokens=20), tmp_path / "none", seed=0)


@pytest.mark.parametrize(
    ("examples", "changes", "said"),
    [
        ([([1, 4], [])], {}, "example 0 has an empty answer"),
        ([([], [4])], {}, "example 0 has an empty prompt"),
        ([([1, 4], [2])], {"target_modules": ("c_attn",)}, "has no layers .*c_attn.*q_proj"),
        ([([1, 4], [2])], {"learning_rate": 1e30, "epochs": 9, "clip_norm": 0.0}, "no longer a number"),
    ],
)
def test_refusals(stories, tmp_path, examples, changes, said):
    frozen = stories.weights_hash()
    with pytest.raises(BenchError, match=said):
        tune(stories, examples, [], dataclasses.replace(QUICK, **changes), tmp_path, seed=0)
    assert stories.weights_hash() == frozen


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_checkpointing_gives_the_same_gradient(stories, dropout):
    with adapted(stories, {**LORA, "lora_dropout": dropout}) as model:
        AdapterWeights(model).train()
        packed, found = pack(some_examples(5)), []
        for checkpointing in (False, True):
            torch.manual_seed(3)
            answer_loss(stories, packed, checkpointing=checkpointing).mean().backward()
            found.append(gradients(model))
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_a_pass_that_does_not_fit_is_halved_until_it_does(stories, tmp_path, monkeypatch):
    """Memory that holds 40 positions of a pass: tuning gives what it gives with passes of so many from the start."""
    examples, loss, sizes = some_examples(24), tuning.answer_loss, []

    def narrow(backbone, packed, **changes):
        if torch.is_grad_enabled() and packed.n_tokens > 40:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        sizes.extend([packed.n_tokens] * torch.is_grad_enabled())
        return loss(backbone, packed, **changes)

    options = dataclasses.replace(QUICK, batch_size=12, dropout=0.0)
    whole = tune(stories, examples, examples[:4], options, tmp_path / "whole", seed=0)
    monkeypatch.setattr(tuning, "answer_loss", narrow)
    halved = tune(stories, examples, examples[:4], options, tmp_path / "halved", seed=0)
    assert 0 < max(sizes) <= 40 and halved["held_out_loss"] == pytest.approx(whole["held_out_loss"], rel=1e-4)
    with pytest.raises(
        BenchError, match=r"example of .* does not fit on the GPU; tune a smaller model or set less of x$"
    ):
        tune(stories, [([1] * 50, [2])], [], options, tmp_path / "one", seed=0, mends=["less of x"])


def test_what_a_position_keeps_is_what_was_measured_on_a_large_model():
    """An 8B model of bfloat16 kept 31.6 GiB of a pass of 4,096 positions for q, k, v and o, 50.4 for all layers."""

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"):
                setattr(self, name, torch.nn.Linear(4096, 1))
            self.down_proj = torch.nn.Linear(14336, 1)

    class Large(torch.nn.Module):
        class Config:
            num_hidden_layers, intermediate_size = 32, 14336

        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList(Layer() for _ in range(32))
            self.config = self.Config()

    class Shape:
        model, width, dtype = Large(), 4096, torch.bfloat16

    options = TuningOptions()
    gib = tuning.bytes_of_position(Shape, options) * 4096 / 2**30
    every = tuning.bytes_of_position(Shape, dataclasses.replace(options, target_modules=("all-linear",))) * 4096 / 2**30
    assert 31.6 <= gib <= 1.2 * 31.6 and 50.4 <= every <= 1.2 * 50.4
    again = tuning.bytes_of_position(Shape, dataclasses.replace(options, checkpointing=True)) * 4096 / 2**30
    assert again < gib / 10


def test_refuses_folders_that_hold_no_adapter_of_the_model(stories, tmp_path):
    with pytest.raises(BenchError, match="holds no adapter"):
        with_adapter(stories, tmp_path)
    with adapted(stories, LORA) as model:
        save_adapter(model, tmp_path)
    from safetensors.torch import load_file, save_file

    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name.replace("layers.4", "layers.40"): value for name, value in tensors.items()}, path)
    with pytest.raises(BenchError, match=r"another model.*layers\.40"):
        with_adapter(stories, tmp_path)
    save_file({name: value[..., :2].contiguous() for name, value in tensors.items()}, path)
    with pytest.raises(BenchError, match="does not fit"):
        with_adapter(stories, tmp_path)


def test_says_what_is_missing_without_peft(stories, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(BenchError, match="pip install"):
        with_adapter(stories, tmp_path)


def test_names_the_layers_there_are(stories):
    assert linear_layers(stories.model) == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]  # fmt: skip
    assert adapters.ALL_LINEAR == "all-linear"


def test_a_small_update_survives_in_half_precision(models_folder, tmp_path):
    """Merged into bfloat16 weights an update of a thousandth of them would be rounded away."""
    half = load_backbone(str(models_folder / STORIES), device="cpu", precision="bfloat16")
    with adapted(half, LORA) as model:
        for layer in AdapterWeights(model).children():
            torch.nn.init.normal_(layer["lora_B"]["default"].weight, std=1e-4)
        save_adapter(model, tmp_path)
    tuned = with_adapter(half, tmp_path)
    name = next(name for name, _ in half.model.named_modules() if name.endswith("q_proj"))
    plain, changed = half.model.get_submodule(name), tuned.model.get_submodule(name)
    inputs = torch.randn(64, plain.weight.shape[1]).bfloat16()
    factors = [getattr(changed, part)["default"].weight.float() for part in ("lora_A", "lora_B")]
    update = factors[1] @ factors[0] * (LORA["lora_alpha"] / LORA["r"])
    merged = plain.weight + update.bfloat16()
    assert (merged == plain.weight).float().mean() > 0.5  # what merging would lose
    with torch.no_grad():
        added = (changed.lora_B["default"](changed.lora_A["default"](inputs.float()))) * changed.scaling["default"]
    torch.testing.assert_close(added, inputs.float() @ update.T, rtol=1e-4, atol=1e-7)
