"""Closed forms and brute force for the losses and the networks of LatentCRS."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from torch.nn import functional

from recllm_bench.dropout import Dropout
from recllm_bench.errors import BenchError
from recllm_bench.models.latentcrs import losses
from recllm_bench.models.latentcrs.networks import FeedForward, GenerativeNet, InferenceNet, TextProjector
from recllm_bench.models.latentcrs.options import LatentCRSOptions, check_options
from recllm_bench.options import read_options
from tests.models.latentcrs_formulas import evidence_bound, kl_divergence

WIDTH, TEXT = 6, 5


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def resolved(**values) -> LatentCRSOptions:
    return check_options(read_options(LatentCRSOptions, {"text_hidden": 7, "text_dropout": 0.0, **values}, "options"))


def networks(options: LatentCRSOptions, count: int = 4) -> tuple[InferenceNet, GenerativeNet]:
    intents = torch.randn(count, WIDTH, dtype=torch.float64)
    return InferenceNet(intents, options).double(), GenerativeNet(intents, TEXT, options).double()


def random_log(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64).log_softmax(-1)


FORMS = [{}, {"variant": "paper"}, {"g_form": "factored_user"}, {"g_item_map": True, "use_wm": True}]


def test_bound_is_tight_only_at_the_exact_posterior() -> None:
    log_f, log_likelihood = random_log(50, 4), random_log(50, 4)
    evidence = torch.logsumexp(log_f + log_likelihood, -1)
    other = evidence_bound(random_log(50, 4).exp(), log_f, log_likelihood)
    exact = losses.log_posterior(log_f, log_likelihood, "exact_log").exp()
    assert (other < evidence - 1e-6).all()
    torch.testing.assert_close(evidence_bound(exact, log_f, log_likelihood), evidence, atol=1e-9, rtol=0)


def test_posterior_values() -> None:
    log_f, g = torch.log(torch.tensor([[0.5, 0.5]])), torch.tensor([[math.log(3), 0.0]])
    exact = losses.log_posterior(log_f, g, "exact_log").exp()
    product = losses.log_posterior(log_f, g, "softmax_product").exp()
    torch.testing.assert_close(exact, torch.tensor([[0.75, 0.25]]))
    torch.testing.assert_close(product, torch.tensor([[0.634, 0.366]]), atol=5e-4, rtol=0)


@pytest.mark.parametrize("epsilon", [0.0, 1e-5])
def test_kl_by_hand(epsilon: float) -> None:
    p, q = torch.tensor([[0.2, 0.8], [0.5, 0.5]]).double(), torch.tensor([[0.6, 0.4], [0.9, 0.1]]).double()
    expected = 0.0
    for row in range(2):
        for j in range(2):
            a, b = float(p[row, j]), float(q[row, j])
            expected += a * (math.log(a + epsilon) - math.log(b + epsilon)) / 2
    assert float(kl_divergence(p.log(), q.log(), epsilon)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("logits", ["g", "f_times_g"])
def test_contrastive_loss_by_hand(logits: str) -> None:
    q, log_f, g = random_log(3, 4).exp(), random_log(3, 4), torch.randn(3, 4, 5, dtype=torch.float64)
    total = 0.0
    for b in range(3):
        for j in range(4):
            values = g[b, j] * (log_f[b, j].exp() if logits == "f_times_g" else 1.0)
            total += float(q[b, j] * functional.cross_entropy(values[None], torch.tensor([0]))) / 3
    assert float(losses.contrastive_loss(q, log_f, g, logits, "sum")) == pytest.approx(total, abs=1e-12)
    assert float(losses.contrastive_loss(q, log_f, g, logits, "mean")) == pytest.approx(total / 4, abs=1e-12)


def test_mixture_loss() -> None:
    log_f = torch.log(torch.tensor([[0.5, 0.5]]))
    assert float(losses.mixture_loss(log_f, torch.zeros(1, 2, 2))) == pytest.approx(math.log(2), abs=1e-6)
    log_f, g = random_log(3, 4), torch.randn(3, 4, 5, dtype=torch.float64)
    ratio = (log_f.exp().unsqueeze(-1) * g.exp()).sum(1)
    expected = -(ratio[:, 0] / ratio.sum(1)).log().mean()
    torch.testing.assert_close(losses.mixture_loss(log_f, g), expected)


def test_raw_ratio_is_refused() -> None:
    with pytest.raises(BenchError, match="rec_form: 'raw_ratio' is not one of softmax_h, mixture"):
        resolved(rec_form="raw_ratio")


def test_losses_fall_when_the_positive_rises() -> None:
    q, log_f, g = random_log(2, 3).exp(), random_log(2, 3), torch.randn(2, 3, 4, dtype=torch.float64)
    up = g.clone()
    up[..., 0] += 0.01
    assert losses.mixture_loss(log_f, up) < losses.mixture_loss(log_f, g)
    for logits in ("g", "f_times_g"):
        before = losses.contrastive_loss(q, log_f, g, logits, "sum")
        assert losses.contrastive_loss(q, log_f, up, logits, "sum") < before
    assert losses.ranking_loss(up[:, 0]) < losses.ranking_loss(g[:, 0])


@pytest.mark.parametrize("values", FORMS)
def test_one_intent_is_plain_sampled_softmax(values: dict) -> None:
    options = resolved(**values)
    inference, generative = networks(options, 1)
    states, x = torch.randn(8, WIDTH).double(), torch.randn(8, TEXT).double()
    vectors = generative.item_vectors(torch.randn(8, 5, WIDTH).double())
    log_q = inference(states)
    affinity, log_f = generative(states, x)
    g = generative.intent_scores(affinity, vectors)
    assert log_q.abs().max() < 1e-12
    assert log_f.abs().max() < 1e-12
    assert float(kl_divergence(log_q, log_f)) == pytest.approx(0.0, abs=1e-12)
    plain = functional.cross_entropy(g[:, 0], torch.zeros(8, dtype=torch.long))
    torch.testing.assert_close(losses.contrastive_loss(log_q.exp(), log_f, g, "g", "sum"), plain)
    torch.testing.assert_close(losses.mixture_loss(log_f, g), plain)
    h = (vectors @ generative.item_query(affinity, log_f).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(h, g[:, 0])


@pytest.mark.parametrize("values", FORMS)
def test_query_is_the_mixture_of_intent_scores(values: dict) -> None:
    _, generative = networks(resolved(**values))
    states, x = torch.randn(8, WIDTH).double(), torch.randn(8, TEXT).double()
    items = torch.randn(8, 5, WIDTH).double()
    affinity, log_f = generative(states, x)
    intents = generative.intents if generative.prior_map is None else generative.intents @ generative.prior_map.weight.T
    mapped = generative.intents @ generative.intent_map.weight.T
    if generative.intent_map.bias is not None:
        mapped = mapped + generative.intent_map.bias
    item_side = items if generative.item_map is None else items @ generative.item_map.weight.T
    user = generative.feed_forward(torch.cat([states, generative.projector(x)], 1))
    expected = torch.zeros(8, 5, dtype=torch.float64)
    for b in range(8):
        prior = torch.softmax(torch.stack([user[b] @ m for m in intents]), 0)
        for j in range(len(intents)):
            factor = user[b] @ intents[j] if generative.with_user else 1.0
            expected[b] += prior[j] * factor * (item_side[b] @ mapped[j])
    query = generative.item_query(affinity, log_f)
    torch.testing.assert_close((generative.item_vectors(items) @ query.unsqueeze(-1)).squeeze(-1), expected)
    weighted = (log_f.exp().unsqueeze(-1) * generative.intent_scores(affinity, generative.item_vectors(items))).sum(1)
    torch.testing.assert_close(weighted, expected)
    one = generative.target_scores(affinity, generative.item_vectors(items)[:, 2])
    torch.testing.assert_close(one, generative.intent_scores(affinity, generative.item_vectors(items))[..., 2])


@pytest.mark.parametrize("value_map_on", ["item", "intent"])
def test_inference_by_hand(value_map_on: str) -> None:
    net, _ = networks(resolved(value_map_on=value_map_on))
    states, items = torch.randn(3, WIDTH).double(), torch.randn(9, WIDTH).double()
    logits = torch.stack([net.key(net.intents) @ net.query(state) / math.sqrt(WIDTH) for state in states])
    q = torch.softmax(logits, 1)
    torch.testing.assert_close(net(states).exp(), q)
    if value_map_on == "item":
        expected = (q @ net.intents) @ (items @ net.value_map.weight.T).T
    else:
        expected = sum(q[:, j, None] * (net.value_map(net.intents[j]) @ items.T) for j in range(4))
    torch.testing.assert_close(net.item_query(net(states)) @ net.item_vectors(items).T, expected)


def test_permuting_intents_leaves_scores() -> None:
    for values in FORMS:
        inference, generative = networks(resolved(**values))
        states, x = torch.randn(8, WIDTH).double(), torch.randn(8, TEXT).double()
        before = generative.item_query(*generative(states, x)), inference.item_query(inference(states))
        order = torch.randperm(4)
        with torch.no_grad():
            generative.intents.copy_(generative.intents[order])
            inference.intents.copy_(inference.intents[order])
        torch.testing.assert_close(generative.item_query(*generative(states, x)), before[0])
        torch.testing.assert_close(inference.item_query(inference(states)), before[1])


def test_distinct_texts_give_the_same_as_one_text_each() -> None:
    projector = TextProjector(TEXT, 7, WIDTH, 0.0).double()
    texts, rows = torch.randn(3, TEXT).double(), torch.tensor([0, 2, 2, 1])
    torch.testing.assert_close(projector(texts, rows), projector(texts[rows]))


def test_parameter_count_of_the_released_network() -> None:
    options = LatentCRSOptions(intents=512)
    net = GenerativeNet(torch.zeros(512, 64), 4096, options)
    expected = 4096 * 1024 + 2 * 1024 + (1024 * 64 + 64)
    expected += (128 * 128 + 128) + (128 * 64 + 64) + (64 * 64 + 64) + (64 * 64 + 64) + 64 * 512
    assert sum(parameter.numel() for parameter in net.parameters()) == expected


def test_feed_forward_options() -> None:
    assert (FeedForward(8, False, True)(torch.randn(50, 16)) >= 0).all()
    assert (FeedForward(8, False, False)(torch.randn(50, 16)) < 0).any()
    names = [type(layer).__name__ for layer in FeedForward(8, True, True).layers]
    assert names == ["Linear", "LayerNorm", "ReLU"] * 3


def test_single_case_keeps_its_shape() -> None:
    inference, generative = networks(resolved())
    assert inference(torch.randn(1, WIDTH).double()).shape == (1, 4)
    assert generative.item_query(*generative(torch.randn(1, WIDTH).double(), torch.zeros(1, TEXT).double())).shape == (
        1,
        WIDTH,
    )


def test_a_variant_decides_what_is_not_given() -> None:
    decided = [field.name for field in fields(LatentCRSOptions) if field.metadata["presets"]]
    assert len(decided) == 19
    official, paper = resolved(), resolved(variant="paper")
    assert all(getattr(official, name) != getattr(paper, name) for name in decided)
    assert (official.embedded, paper.embedded, resolved(variant="paper", x_text="last").embedded) == (
        *("last", "all", "last"),
    )
    assert resolved(variant="paper", use_wm=False).use_wm is False
    assert resolved(train_repeat=2, ablation="no_augmentation").train_repeat == 2
    assert [resolved(variant=name, ablation="no_augmentation").train_repeat for name in ("code", "paper")] == [1, 1]
    assert replace(resolved(variant="code"), variant="official") == official


@pytest.mark.parametrize(
    "values",
    [
        {"ablation": "no_rec", "w_nce": 0.0},
        {"tie_value_map": True, "variant": "paper"},
        {"train_encoder": True},
        {"w_e_rec": 0.0},
        {"ablation": "no_inference", "w_rec": 0.0},
    ],
)
def test_meaningless_combinations_are_refused(values: dict) -> None:
    with pytest.raises(BenchError):
        resolved(**values)


def test_options_are_read_with_messages() -> None:
    assert read_options(LatentCRSOptions, {"g_item_map": "true", "intents": "8"}, "o").g_item_map is True
    for values in ({"intents": 0}, {"pad_to": "middle"}, {"intens": 3}):
        with pytest.raises(BenchError):
            read_options(LatentCRSOptions, values, "options")
    assert replace(LatentCRSOptions(), backbone_options={"n_layers": 1}).backbone_options == {"n_layers": 1}


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.5])
def test_dropout_keeps_the_mean_and_drops_the_share(probability: float) -> None:
    layer, values = Dropout(probability), torch.ones(1001, 999)
    dropped = layer(values)
    assert float((dropped == 0).float().mean()) == pytest.approx(probability, abs=2e-3)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=5e-3)
    assert layer.eval()(values) is values
