"""Products of halves in float32: by ``torch.mm(out_dtype=)`` from torch 2.8 on, and the same number before."""

from __future__ import annotations

import pytest
import torch

from recllm_bench import products


@pytest.mark.parametrize(
    ("version", "wide"), [("2.4.0", False), ("2.7.1+cu126", False), ("2.8.0", True), ("2.11", True)]
)
def test_only_torch_that_can_is_asked_to_sum_wide(version, wide, monkeypatch):
    products.sums_wide.cache_clear()
    monkeypatch.setattr(torch, "__version__", version)
    try:
        assert products.sums_wide() is wide
    finally:
        products.sums_wide.cache_clear()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_products_of_halves_are_summed_in_float32(kind):
    torch.manual_seed(0)
    left, right = torch.randn(5, 64).to(kind), torch.randn(7, 64).to(kind)
    found = products.product_of_halves(left, right)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), left.double() @ right.double().T, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_products_of_halves_on_cuda(kind):
    torch.manual_seed(0)
    left, right = torch.randn(50, 64).to(kind), torch.randn(70, 64).to(kind)
    found = products.product_of_halves(left.cuda(), right.cuda()).cpu()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, products.product_of_halves(left, right), rtol=1e-4, atol=1e-4)
