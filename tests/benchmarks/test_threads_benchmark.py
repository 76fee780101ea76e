"""Which operations depend on the number of threads: what the benchmark's own layer norm computes, and its answer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.threads import OPERATIONS, _SummedNorm, differing


def test_summed_gradients_are_those_of_layer_norm():
    torch.manual_seed(0)
    norm = nn.LayerNorm(8, eps=1e-12)
    weight, bias = (parameter.detach().normal_().requires_grad_() for parameter in norm.parameters())
    x, given = torch.randn(5, 8, requires_grad=True), torch.randn(5, 8)
    expected = torch.autograd.grad(nn.functional.layer_norm(x, [8], weight, bias, 1e-12), [x, weight, bias], given)
    found = torch.autograd.grad(_SummedNorm.apply(x, weight, bias), [x, weight, bias], given)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["layer norm with summed gradients", "embedding", "products.Linear 64 -> 256"])
def test_these_do_not_depend_on_the_number_of_threads(name: str):
    before = torch.get_num_threads()
    assert differing(OPERATIONS[name]) == [] and torch.get_num_threads() == before


def test_a_difference_is_seen():
    assert differing(lambda: [torch.tensor(float(torch.get_num_threads())), torch.ones(1)]) == [0]
