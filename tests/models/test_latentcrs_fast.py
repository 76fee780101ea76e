"""The fast way through EM's losses gives the values and gradients of the formulas written down plainly."""

from __future__ import annotations

import pytest
import torch

from recllm_bench import products
from recllm_bench.dropout import Dropout
from recllm_bench.models.latentcrs import losses
from recllm_bench.models.latentcrs.em import Batch, Examples, ExpectationMaximisation
from recllm_bench.models.latentcrs.networks import GenerativeNet, InferenceNet
from recllm_bench.models.latentcrs.options import LatentCRSOptions
from recllm_bench.options import read_options
from tests.models.latentcrs_formulas import kl_divergence

WIDTH, TEXT, ITEMS, RECORDS, INTENTS, REPEATS = 6, 5, 30, 37, 4, 2
OFFICIAL, PAPER = {"w_nce": 0.0}, {"variant": "paper"}


def engine(dtype: torch.dtype, **values) -> ExpectationMaximisation:
    torch.manual_seed(0)
    shape = {"intents": INTENTS, "text_hidden": 7, "text_dropout": 0.0, "train_repeat": REPEATS, "negatives": 3}
    options = read_options(LatentCRSOptions, {**shape, **values}, "options")
    intents = torch.randn(INTENTS, WIDTH, dtype=dtype)
    networks = InferenceNet(intents, options).to(dtype), GenerativeNet(intents, TEXT, options).to(dtype)
    examples = Examples(
        targets=torch.randint(1, ITEMS + 1, (RECORDS,)),
        negatives=torch.randint(1, 4, (REPEATS, RECORDS, 3), dtype=torch.int32),  # with many equal ones
        text_rows=torch.randint(0, 3, (RECORDS,)),
        text_vectors=torch.randn(3, TEXT, dtype=dtype),
        items=torch.randn(ITEMS + 1, WIDTH, dtype=dtype),
        clean=torch.randn(RECORDS, WIDTH, dtype=dtype),
        noisy=torch.randn(REPEATS, RECORDS, WIDTH, dtype=dtype),
    )
    return ExpectationMaximisation(*networks, examples, options, 5, 0)


def plain_loss(em: ExpectationMaximisation, batch: Batch) -> torch.Tensor:
    """The formulas: every intent's score of every candidate, divergences of logarithms."""
    examples, options, rows = em.examples, em.options, batch.rows
    clean, noisy = examples.clean[rows], examples.noisy[batch.repeats, rows]
    if not options.encoder_dropout_in_train:
        noisy = clean
    texts, targets = examples.text_vectors[examples.text_rows[rows]], examples.targets[rows]
    vectors = examples.items[torch.cat([targets[:, None], examples.negatives[batch.repeats, rows].long()], 1)]
    if batch.phase == "e":
        with torch.no_grad():
            affinity, log_f = em.generative(clean, texts)
            g = em.generative.intent_scores(affinity, em.generative.item_vectors(vectors[:, :1]))[..., 0]
            wanted = losses.log_posterior(log_f, g, options.posterior_form)
        log_q = em.inference(noisy)
        r = (em.inference.item_vectors(vectors) * em.inference.item_query(log_q)[:, None]).sum(-1)
        ranking = losses.ranking_loss(r, options.temperature)
        return kl_divergence(log_q, wanted, options.kl_epsilon) + em.w_e_rec * ranking
    with torch.no_grad():
        log_q = em.inference(clean)
    affinity, log_f = em.generative(noisy, texts)
    g = em.generative.intent_scores(affinity, em.generative.item_vectors(vectors))
    loss = options.lambda_kl * kl_divergence(log_q, log_f, options.kl_epsilon)
    if options.w_nce:
        nce = losses.contrastive_loss(log_q.exp(), log_f, g, options.nce_logits, options.nce_intent_reduce)
        loss = loss + options.w_nce * nce
    mixture = options.rec_form == "mixture"
    ranking = losses.mixture_loss(log_f, g) if mixture else losses.ranking_loss((log_f.exp()[..., None] * g).sum(1))
    return loss + em.w_rec * ranking


@pytest.mark.parametrize("values", [OFFICIAL, PAPER, {"kl_epsilon": 0.0}, {"value_map_on": "item"}])
@pytest.mark.parametrize("phase", ["e", "m"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_losses_and_gradients_are_those_of_the_formulas(monkeypatch, values: dict, phase: str, dtype) -> None:
    monkeypatch.setattr(products, "_SMALLEST", 0)  # float32 takes oneDNN, whatever the size
    em = engine(dtype, **values)
    next(em.e_pass(1) if phase == "e" else em.m_pass(1))
    batch = Batch(phase, torch.tensor([4, 4, 36, 0, 7]), torch.tensor([0, 1, 1, 0, 1]))
    trained = list((em.inference if phase == "e" else em.generative).parameters())
    results = []
    for function in (em.loss, lambda given: plain_loss(em, given)):
        loss = function(batch)
        results.append([loss, *torch.autograd.grad(loss, trained)])
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-10}
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, **tolerance)


@pytest.mark.parametrize("values", [OFFICIAL, PAPER])
@pytest.mark.parametrize("phase", ["e", "m", "direct"])
def test_half_precision_gives_almost_the_same_losses(values: dict, phase: str) -> None:
    em = engine(torch.float32, **values)
    next({"e": em.e_pass, "m": em.m_pass, "direct": em.direct}[phase](1))
    batch = Batch(phase, torch.tensor([4, 4, 36, 0, 7]), torch.tensor([0, 1, 1, 0, 1]))
    full = em.loss(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = em.loss(batch)
    half.backward()
    assert half.dtype == torch.float32 and half.item() != full.item()
    torch.testing.assert_close(half, full, rtol=0.03, atol=0.03)


def test_a_table_in_several_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    em, rows = engine(torch.float64), torch.tensor([36, 0, 5, 5])
    found = []
    for size in (1024, 5):
        monkeypatch.setattr("recllm_bench.models.latentcrs.em._ROWS_AT_ONCE", {"cpu": size})
        next(em.e_pass(1))
        found.append(em._fixed(rows)[0])
    torch.testing.assert_close(*found)
    torch.testing.assert_close(found[0], torch.log(em.frozen(rows).exp() + em.options.kl_epsilon))


@pytest.mark.parametrize("probability", [0.25, 0.5, 1 / 3])
@pytest.mark.parametrize("shape", [(3, 5), (0, 4), (17,)])
def test_dropout_draws_what_comparing_bytes_draws(probability: float, shape: tuple[int, ...]) -> None:
    layer, values = Dropout(probability), torch.randn(shape)
    torch.manual_seed(3)
    found = layer(values)
    torch.manual_seed(3)
    words = torch.empty((values.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.uint8)[: values.numel()].view(shape) >= round(256 * probability)
    assert torch.equal(found, values * (kept.float() * (256 / (256 - round(256 * probability)))))
