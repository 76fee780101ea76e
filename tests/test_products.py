"""Products by oneDNN are PyTorch's own, there and back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from recllm_bench import products


@pytest.fixture(autouse=True)
def _all_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_SMALLEST", 0)


@pytest.mark.parametrize("shape", [(64, 24), (33, 24), (1, 24), (0, 24), (5, 7, 24)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("outer", [8, 40, 96])  # the gradient of the weights has its two sides in either order
def test_values_and_gradients_are_those_of_pytorch(
    shape: tuple[int, ...], bias: bool, transposed: bool, outer: int
) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    weight = torch.randn(24, outer).T if transposed else torch.randn(outer, 24)
    given = torch.randn(*shape[:-1], outer)
    results = []
    for function in (products.linear, nn.functional.linear):
        inputs = [x.clone().requires_grad_(), weight.detach().clone().requires_grad_()]
        inputs += [torch.arange(float(outer)).requires_grad_()] if bias else []
        found = function(*inputs)
        results.append([found, *torch.autograd.grad(found, inputs, given)])
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_a_gradient_without_layout_of_its_own_is_understood() -> None:
    x, weight = torch.randn(32, 8, requires_grad=True), torch.randn(16, 8, requires_grad=True)
    products.linear(x, weight).sum().backward()  # an expanded gradient
    torch.testing.assert_close(x.grad, weight.detach().sum(0).expand(32, 8), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weight.grad, x.detach().sum(0).expand(16, 8), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
def test_what_is_not_finite_stays_in_its_row(value: float) -> None:
    x = torch.rand(40, 8)
    x[3, 2] = value
    found, expected = products.linear(x, torch.ones(16, 8)), x @ torch.ones(8, 16)
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_other_types_and_the_lack_of_the_operator_take_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(32, 8), torch.randn(16, 8)
    assert products.linear(x.double(), weight.double()).dtype == torch.float64
    monkeypatch.setattr(products, "_operator", lambda: None)
    assert torch.equal(products.linear(x, weight), nn.functional.linear(x, weight))


@pytest.mark.parametrize("n", [32, 7])
def test_a_product_without_gradient_is_that_of_pytorch(n: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(n, 24), torch.randn(40, 24)
    torch.testing.assert_close(products.product(x, weight), x @ weight.T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        products.product(x.T, torch.randn(n, 5).fill_(2).T), x.sum(0)[:, None].mul(2).expand(24, 5)
    )
    assert torch.equal(products.product(x.double(), weight.double()), x.double() @ weight.double().T)


def test_an_accelerated_model_has_the_same_parameters_and_answers() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Sequential(nn.Linear(16, 4, bias=False)))
    names, x = list(model.state_dict()), torch.randn(3, 11, 8)
    before = model(x)
    assert products.accelerate(model) is model
    assert isinstance(model[0], products.Linear)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
