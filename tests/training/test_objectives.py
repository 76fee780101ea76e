"""Objectives against brute force and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from recllm_bench import products
from recllm_bench.training.objectives import (
    NegativeSampler,
    binary_cross_entropy,
    calibrated_binary_cross_entropy,
    calibration,
    cross_entropy,
    objective_named,
    sampled_softmax,
)
from recllm_bench.training.training_options import TrainingOptions


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(23, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    items = torch.randn(12, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(1, 12, (23,), generator=generator)
    return states, targets, items


def gradients(loss, *leaves):
    return torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("chunk_elements", [1, 40, 10_000])
@pytest.mark.parametrize("first", [0, 1])
def test_chunked_cross_entropy_is_softmax_cross_entropy(batch, chunk_elements, first):
    states, targets, items = batch
    ours = cross_entropy(states, targets, items, first=first, chunk_elements=chunk_elements)
    plain = F.cross_entropy(states @ items[first:].T, targets - first)
    assert torch.allclose(ours, plain, atol=1e-12)
    scaled = zip(gradients(3 * ours, states, items), gradients(3 * plain, states, items), strict=True)
    assert all(torch.allclose(one, two, atol=1e-12) for one, two in scaled)


@pytest.mark.parametrize(("n", "rows"), [(1, 64), (31, 64), (64, 64), (65, 64), (200, 64), (200, 7)])
@pytest.mark.parametrize("first", [0, 1])
def test_cross_entropy_by_fast_products_is_softmax_cross_entropy(monkeypatch, n, rows, first):
    """Rows that fill up a chunk, and the order of the factors, leave loss and gradients alone."""
    monkeypatch.setattr(products, "_SMALLEST", 0)
    generator = torch.Generator().manual_seed(n)
    states = torch.randn(n, 6, generator=generator, requires_grad=True)
    items = torch.randn(50, 6, generator=generator, requires_grad=True)
    targets = torch.randint(1, 50, (n,), generator=generator)
    ours = cross_entropy(states, targets, items, first=first, chunk_elements=rows * 50)
    plain = F.cross_entropy(states @ items[first:].T, targets - first)
    assert torch.allclose(ours, plain, atol=1e-5)
    pairs = zip(gradients(ours, states, items), gradients(plain, states, items), strict=True)
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in pairs)


def test_cross_entropy_without_gradient_is_the_same_number(batch):
    states, targets, items = batch
    with torch.no_grad():
        assert torch.allclose(cross_entropy(states, targets, items), F.cross_entropy(states @ items[1:].T, targets - 1))


def test_cross_entropy_survives_large_scores():
    states, items = torch.full((1, 1), 100.0), torch.tensor([[0.0], [100.0], [-100.0]])
    assert cross_entropy(states, torch.tensor([1]), items).item() == pytest.approx(0.0, abs=1e-6)
    assert cross_entropy(states, torch.tensor([2]), items).item() == pytest.approx(20_000.0)


def test_padding_gets_no_gradient_unless_it_is_a_class(batch):
    states, targets, items = batch
    (without,) = gradients(cross_entropy(states, targets, items), items)
    (with_it,) = gradients(cross_entropy(states, targets, items, first=0), items)
    assert without[0].abs().max() == 0
    assert with_it[0].abs().max() > 0


@pytest.mark.parametrize("shared", [False, True])
def test_bce_is_a_sum_of_logs(batch, shared):
    states, targets, items = batch
    negatives = torch.randint(1, 12, (4,) if shared else (23, 4))
    expected = 0.0
    for row in range(23):
        expected -= math.log(torch.sigmoid(states[row] @ items[targets[row]]).item())
        for item in negatives if shared else negatives[row]:
            expected -= math.log(1 - torch.sigmoid(states[row] @ items[item]).item())
    assert binary_cross_entropy(states, targets, items, negatives).item() == pytest.approx(expected / 23)


def test_one_negative_equals_a_column_of_many(batch):
    states, targets, items = batch
    negatives = torch.randint(1, 12, (23, 2))
    positive = F.softplus(-(states * items[targets]).sum(1)).mean()
    parts = [binary_cross_entropy(states, targets, items, negatives[:, k : k + 1]) - positive for k in range(2)]
    assert torch.allclose(binary_cross_entropy(states, targets, items, negatives) - positive, parts[0] + parts[1])


def test_sampled_softmax_by_hand():
    # scores: target log 3, negatives 0 and 0 -> -log(3 / 5)
    states, items = torch.ones(1, 1), torch.tensor([[0.0], [math.log(3)], [0.0], [0.0]])
    loss = sampled_softmax(states, torch.tensor([1]), items, torch.tensor([[2, 3]]))
    assert loss.item() == pytest.approx(-math.log(3 / 5), abs=1e-6)


def test_sampled_softmax_leaves_the_target_out_of_the_negatives(batch):
    states, targets, items = batch
    negatives = torch.cat((targets[:, None], torch.randint(1, 12, (23, 3))), 1)
    others = negatives[:, 1:].masked_fill(negatives[:, 1:] == targets[:, None], 0)
    expected = 0.0
    for row in range(23):
        scores = [states[row] @ items[targets[row]]]
        scores += [states[row] @ items[item] for item in others[row] if item]
        expected -= torch.log_softmax(torch.stack(scores), 0)[0].item()
    assert sampled_softmax(states, targets, items, negatives).item() == pytest.approx(expected / 23)


def test_log_q_correction_makes_every_item_once_the_full_softmax(batch):
    """Drawing each item exactly once, with expectation 1, the corrected loss is the full cross entropy."""
    states, targets, items = batch
    everything = torch.arange(1, 12)
    loss = sampled_softmax(states, targets, items, everything, torch.zeros(12))
    assert torch.allclose(loss, cross_entropy(states, targets, items), atol=1e-6)


def test_log_q_correction_converges_to_the_full_softmax(batch):
    states, targets, items = batch
    counts = torch.arange(12) * 3
    options = TrainingOptions(
        objective="sampled", negatives=20_000, negative_sampling="popularity", shared_negatives=True
    )
    loss = objective_named(options, 11, counts)(states, targets, items, torch.Generator().manual_seed(0))
    full = cross_entropy(states, targets, items)
    uncorrected = sampled_softmax(states, targets, items, torch.arange(1, 12).repeat_interleave(counts[1:]))
    assert abs(loss - full) < 0.02
    assert abs(uncorrected - full) > 0.5


def test_popularity_sampler_follows_counts_plus_one():
    counts = torch.tensor([0, 9, 0, 29, 0])
    sampler = NegativeSampler.by_popularity(counts)
    drawn = sampler.draw((40_000,), torch.Generator().manual_seed(1))
    shares = torch.bincount(drawn, minlength=5) / 40_000
    expected = torch.tensor([0, 10, 1, 30, 1]) / 42
    assert torch.allclose(shares, expected, atol=0.01)
    assert torch.allclose(sampler.log_probability[1:].exp(), expected[1:], atol=1e-6)


def test_uniform_sampler_covers_exactly_the_items():
    drawn = NegativeSampler(5).draw((2000,), torch.Generator().manual_seed(1))
    assert drawn.unique().tolist() == [1, 2, 3, 4, 5]


def test_gbce_calibration_ends():
    assert calibration(0.25, 0.0) == pytest.approx(1.0)
    assert calibration(0.25, 1.0) == pytest.approx(0.25)
    assert calibration(1.0, 0.3) == pytest.approx(1.0)


def test_gbce_is_bce_with_a_power_of_the_positive(batch):
    states, targets, items = batch
    negatives = torch.randint(1, 12, (23, 3))
    beta = calibration(0.3, 0.75)
    positive = torch.sigmoid((states * items[targets]).sum(1)) ** beta
    negative = torch.sigmoid((states[:, None] * items[negatives]).sum(2))
    expected = -(positive.log() + (1 - negative).log().sum(1)).mean()
    assert torch.allclose(calibrated_binary_cross_entropy(states, targets, items, negatives, 0.3, 0.75), expected)
    plain = calibrated_binary_cross_entropy(states, targets, items, negatives, 0.3, 0.0)
    assert torch.allclose(plain, binary_cross_entropy(states, targets, items, negatives))


@pytest.mark.parametrize("objective", ["ce", "bce", "sampled", "gbce"])
@pytest.mark.parametrize("shared", [False, True])
def test_every_objective_falls_when_the_target_rises(objective, shared):
    items = torch.eye(61)
    targets = torch.tensor([2, 4])
    options = TrainingOptions(objective=objective, negatives=3, shared_negatives=shared)
    loss = objective_named(options, 60)
    low, high = (
        loss(height * items[targets], targets, items, torch.Generator().manual_seed(0)).item() for height in (0.0, 1.0)
    )
    assert high < low


def test_cross_entropy_under_autocast_stays_close(batch):
    states, targets, items = (tensor.float() if tensor.is_floating_point() else tensor for tensor in batch)
    exact = cross_entropy(states, targets, items)
    with torch.autocast("cpu", torch.bfloat16):
        rough = cross_entropy(states, targets, items)
    assert rough.dtype == torch.float32
    assert abs(rough - exact) < 0.03
