"""Packed rows that attend by blocks have the states of a dense mask; where that cannot be, the model stays as it is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from recllm_bench.language.backbone import load_backbone
from recllm_bench.language.block_attention import Documents, attend_by_blocks, attends_by_blocks
from recllm_bench.language.packing import pack
from recllm_bench.language.tuning import answer_loss

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.fixture
def backbone(models_folder):
    return load_backbone(str(models_folder / "llama2-stories260k"), device="cpu")


def examples(count: int, vocabulary: int):
    """Prompts of which some begin alike, and answers."""
    rng = np.random.default_rng(0)
    begin = rng.integers(3, vocabulary, 30).tolist()
    return [
        (begin[: 12 * (n % 3)] + rng.integers(3, vocabulary, n + 2).tolist(), rng.integers(3, vocabulary, 4).tolist())
        for n in range(count)
    ]


def seen_by_hand(units, branches):
    rows, length = units.shape
    found = torch.zeros(rows, 1, length, length, dtype=torch.bool)
    for row in range(rows):
        for place in range(length):
            for other in range(place + 1):
                same = units[row, place] == units[row, other]
                found[row, 0, place, other] = same and branches[row, other] in (0, branches[row, place])
    return found


def test_documents_by_hand():
    units = torch.tensor([[1, 1, 1, 1, 2, 2, 0, 0]])
    branches = torch.tensor([[0, 1, 1, 2, 0, 0, 0, 0]])
    assert torch.equal(Documents(units, branches).dense(), seen_by_hand(units, branches))
    assert torch.equal(Documents(units).dense(), seen_by_hand(units, torch.zeros_like(branches)))
    assert Documents(units).shape == (1, 1, 8, 8) and Documents(units).dim() == 4


@pytest.mark.parametrize("branched", [True, False])
def test_blocks_hold_what_the_dense_mask_holds(branched):
    rng = torch.Generator().manual_seed(0)
    units = torch.randint(0, 5, (2, 300), generator=rng).sort(1).values
    branches = torch.randint(0, 3, (2, 300), generator=rng) if branched else None
    documents = Documents(units, branches)
    row, query, key = torch.meshgrid(torch.arange(2), torch.arange(300), torch.arange(300), indexing="ij")
    blocks = documents.blocks()
    assert torch.equal(blocks.mask_mod(row, 0 * row, query, key), documents.dense()[:, 0])
    assert blocks.kv_num_blocks.sum() < 2 * 3 * 3  # some are skipped: what lies ahead, and other documents


@pytest.mark.shared
def test_states_by_blocks_are_those_of_the_dense_mask(backbone):
    packed = pack(examples(14, backbone.vocabulary), width=160)
    inputs = backbone.embed(packed.tokens)
    with torch.no_grad():
        losses = answer_loss(backbone, packed)
        expected = backbone.hidden_states(inputs, packed.documents().dense(), packed.positions)
        assert torch.equal(backbone.hidden_states(inputs, packed.documents(), packed.positions), expected)
        alone = backbone.hidden_states(inputs[:1, :20])
        assert attend_by_blocks(backbone, gradient=False) and attends_by_blocks(backbone.model)
        assert attend_by_blocks(backbone, gradient=False)
        found = backbone.hidden_states(inputs, packed.documents(), packed.positions)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert not torch.equal(found, expected)  # another way was taken
        torch.testing.assert_close(answer_loss(backbone, packed), losses, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(backbone.hidden_states(inputs[:1, :20]), alone)  # what is not packed stays
        masked = backbone.hidden_states(inputs[:1, :20], torch.ones(1, 20, dtype=torch.long))
        torch.testing.assert_close(masked, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.shared
def test_a_model_that_gives_other_states_by_blocks_stays_as_it_is(backbone, monkeypatch, caplog):
    monkeypatch.setattr(Documents, "blocks", lambda self: Documents(torch.ones_like(self.units)).dense())
    with caplog.at_level("INFO", logger="recllm_bench"):
        assert not attend_by_blocks(backbone, gradient=False)
        assert "dense masks (its states are others)" in caplog.text and not attends_by_blocks(backbone.model)
        backbone.model.base_model.config._attn_implementation = "eager"
        assert not attend_by_blocks(backbone)
    assert "its attention is eager" in caplog.text


@pytest.mark.shared
def test_on_a_cpu_what_is_trained_keeps_its_dense_masks(backbone, caplog):
    with caplog.at_level("INFO", logger="recllm_bench"):
        assert not attend_by_blocks(backbone)
    assert "dense masks (FlexAttention does not support backward on CPU" in caplog.text
    packed = pack(examples(3, backbone.vocabulary))
    assert torch.isfinite(answer_loss(backbone, packed)).all()


@pytest.mark.gpu
@pytest.mark.shared
def test_gradients_by_blocks_are_those_of_the_dense_mask_on_cuda(models_folder):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    from transformers import LlamaConfig, LlamaForCausalLM

    loaded = load_backbone(str(models_folder / "llama2-stories260k"), device="cuda", precision="float32")
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=loaded.vocabulary, attn_implementation="sdpa", **sizes))
    backbone = dataclasses.replace(loaded, model=model.cuda().eval().requires_grad_(False))
    packed = pack(examples(14, backbone.vocabulary), width=160)
    found = []
    for blocks in (False, True):
        assert not blocks or attend_by_blocks(backbone)
        inputs = backbone.embed(packed.tokens).detach().requires_grad_()
        states = backbone.hidden_states(inputs, packed.documents(), packed.positions.cuda(), checkpointing=True)
        states.square().sum().backward()
        found.append((states.detach(), inputs.grad))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=2e-3, atol=2e-3)
