"""The example model: the bench's conformance suite, and its formula by hand."""

import math

import torch
from recllm_bench_example.fading_mean import FadingMean

from recllm_bench.testing import ModelConformance


class TestFadingMean(ModelConformance):
    model = FadingMean
    options = {"hidden_size": 16}  # noqa: RUF012

    def test_weights_halve_after_the_half_life(self, split):
        model = self.build(split)
        with torch.no_grad():
            state = model.sequence_states(torch.tensor([[1, 2, 3]]), torch.tensor([3]))[0, 2]
            r = 0.5 ** (1 / 2.0)
            by_hand = (r**2 * model.items.weight[1] + r * model.items.weight[2] + model.items.weight[3]) / (
                1 + r + r**2
            )
        assert torch.allclose(state, by_hand, atol=1e-6)
        assert math.isclose(torch.sigmoid(model.keep).item(), r, rel_tol=1e-6)
