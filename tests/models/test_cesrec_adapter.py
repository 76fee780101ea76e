"""Semantic item vectors and the adapter that aligns them: closed forms, a planted teacher, collapse."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from recllm_bench.artifacts import ArtifactStore
from recllm_bench.errors import BenchError
from recllm_bench.language.backbone import load_backbone
from recllm_bench.models.cesrec.adapter import (
    Adapter,
    AdapterOptions,
    alignment_loss,
    fit_adapter,
    load_adapter,
    load_hybrid,
)
from recllm_bench.models.cesrec.item_vectors import StateEncoder, item_texts, item_vectors
from tests.conftest import planted_catalogue

STORIES = "llama2-stories260k"
QUICK = AdapterOptions(hidden=32, epochs=60, batch_size=64, learning_rate=5e-3)


@pytest.fixture(scope="module")
def stories(models_folder):
    return load_backbone(str(models_folder / STORIES), device="cpu")


def taught(seed=0, items=400, width=24, out=6):
    """Semantic vectors and what a random linear teacher makes of them; row 0 is nonsense that nobody may read."""
    rng = np.random.default_rng(seed)
    semantic = rng.standard_normal((items + 1, width)).astype(np.float32) * rng.uniform(0.1, 30, width)
    collaborative = (semantic / semantic.std(0)) @ rng.standard_normal((width, out)) / np.sqrt(width)
    semantic[0] = collaborative[0] = np.nan
    return semantic.astype(np.float32), collaborative.astype(np.float32)


def test_computes_its_formula():
    adapter = Adapter(3, 2, hidden=4)
    inputs = torch.tensor([[1.0, 2.0, 3.0], [4.0, 0.0, 3.0]])
    adapter.standardise(inputs)
    with torch.no_grad():
        standard = torch.tensor([[-1.0, 1.0, 0.0], [1.0, -1.0, 0.0]])  # a constant dimension is only centred
        first, second = adapter.layers[0], adapter.layers[2]
        expected = torch.nn.functional.gelu(standard @ first.weight.T + first.bias) @ second.weight.T + second.bias
        torch.testing.assert_close(adapter(inputs), expected)


def test_loss_is_the_mean_squared_distance():
    ours, theirs = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    assert alignment_loss(ours, theirs).item() == pytest.approx((25 + 1) / 2)
    assert alignment_loss(ours, ours).item() == 0


def test_learns_a_linear_teacher(tmp_path):
    semantic, collaborative = taught()
    constant = torch.from_numpy(collaborative.copy()).requires_grad_()
    hybrid = fit_adapter(semantic, constant, QUICK, tmp_path, seed=1)
    facts = json.loads((tmp_path / "adapter.json").read_text())
    assert facts["held_out"] == 20 and facts["items"] == 380
    assert facts["held_out_distance"] < 0.2 * facts["held_out_distance_of_mean"]
    assert constant.grad is None and np.array_equal(constant.detach().numpy(), collaborative, equal_nan=True)
    assert hybrid.shape == collaborative.shape and not hybrid[0].any()
    np.testing.assert_array_equal(load_hybrid(tmp_path), hybrid)
    distance = np.square(hybrid[1:] - collaborative[1:]).sum(1).mean()
    assert distance == pytest.approx((facts["distance"] * 380 + facts["held_out_distance"] * 20) / 400, rel=1e-4)
    again = load_adapter(tmp_path, 24, 6, hidden=32)
    torch.testing.assert_close(again(torch.from_numpy(semantic[1:])), torch.from_numpy(hybrid[1:]))


def test_equal_seeds_give_equal_vectors_also_after_a_kill(tmp_path, monkeypatch):
    semantic, collaborative = taught()
    options = AdapterOptions(hidden=8, epochs=6, batch_size=100)
    whole = fit_adapter(semantic, collaborative, options, tmp_path / "whole", seed=3)
    from recllm_bench.models.cesrec import adapter

    real, calls = adapter.alignment_loss, [0]

    def interrupted(*inputs):
        calls[0] += 1
        if calls[0] == 18:
            raise KeyboardInterrupt
        return real(*inputs)

    monkeypatch.setattr(adapter, "alignment_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_adapter(semantic, collaborative, options, tmp_path / "parts", seed=3)
    monkeypatch.setattr(adapter, "alignment_loss", real)
    np.testing.assert_array_equal(fit_adapter(semantic, collaborative, options, tmp_path / "parts", seed=3), whole)
    other = fit_adapter(semantic, collaborative, options, tmp_path / "other", seed=4)
    assert not np.array_equal(other, whole)


def test_learns_from_the_items_it_is_given(tmp_path):
    semantic, collaborative = taught()
    collaborative[201:] = 1e3  # never trained by the recommender, say
    fit_adapter(semantic, collaborative, QUICK, tmp_path, seed=0, items=np.arange(1, 201))
    facts = json.loads((tmp_path / "adapter.json").read_text())
    assert facts["items"] + facts["held_out"] == 200 and facts["distance"] < 10


def test_refuses_vectors_that_are_all_alike(tmp_path):
    semantic, collaborative = taught(items=100)
    semantic[1:] = 3.0
    with pytest.raises(BenchError, match="all items are alike"):
        fit_adapter(semantic, collaborative, AdapterOptions(hidden=8, epochs=2), tmp_path, seed=0)


def test_refuses_tables_that_do_not_match(tmp_path):
    semantic, collaborative = taught(items=100)
    with pytest.raises(BenchError, match="do not match"):
        fit_adapter(semantic[:-1], collaborative, QUICK, tmp_path, seed=0)
    collaborative[5, 0] = np.inf
    with pytest.raises(BenchError, match="recommender's item vectors"):
        fit_adapter(semantic, collaborative, QUICK, tmp_path, seed=0)
    with pytest.raises(BenchError, match="too few"):
        fit_adapter(semantic, semantic, QUICK, tmp_path, seed=0, items=np.array([3]))


@pytest.mark.shared
@pytest.mark.parametrize("pool", ["last_token", "mean"])
def test_states_are_those_of_each_text_alone(stories, pool):
    texts = ["Once upon a time", "A dog", "A dog", "There was a very big tree in the garden of the king."]
    vectors = StateEncoder(stories, pool).encode(texts)
    assert vectors.shape == (4, 64) and np.array_equal(vectors[1], vectors[2])
    for text, vector in zip(texts, vectors, strict=True):
        ids = torch.tensor([stories.tokenizer(text)["input_ids"]])
        assert ids[0, 0] == stories.tokenizer.bos_token_id
        states = stories.model.base_model(input_ids=ids).last_hidden_state[0].detach()
        expected = states[-1] if pool == "last_token" else states[1:].mean(0)
        np.testing.assert_allclose(vector, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.shared
def test_item_vectors_are_made_once(stories, tmp_path, monkeypatch):
    catalogue, store = planted_catalogue(30), ArtifactStore(tmp_path)
    catalogue.titles[7] = ""
    catalogue.titles[9] = catalogue.titles[8]
    vectors = item_vectors(stories, catalogue, store)
    assert vectors.shape == (31, 64) and vectors.dtype == np.float32
    assert not vectors[0].any() and vectors[1:].any(1).all()
    np.testing.assert_array_equal(vectors[9], vectors[8])
    monkeypatch.setattr(StateEncoder, "encode", lambda *_: pytest.fail("encoded twice"))
    np.testing.assert_array_equal(item_vectors(stories, catalogue, store), vectors)
    for other in ({"pool": "mean"}, {"text": "title+category"}, {"key": {"backbone": "another"}}):
        with pytest.raises(pytest.fail.Exception, match="encoded twice"):
            item_vectors(stories, catalogue, store, **other)


def test_texts_of_items():
    catalogue = planted_catalogue(3)
    catalogue.titles[2] = "  "
    catalogue.categories[3] = ()
    first, second = catalogue.categories[1]
    assert item_texts(catalogue) == ["", "Invented Story 1", "m2", "Invented Story 3"]
    assert item_texts(catalogue, "title+category")[1] == f"Invented Story 1 ({first}, {second})"
    assert item_texts(catalogue, "title+category")[3] == "Invented Story 3"
    with pytest.raises(BenchError, match="text 'plot'"):
        item_texts(catalogue, "plot")
    with pytest.raises(BenchError, match="text_pool 'first'"):
        StateEncoder(None, "first")
