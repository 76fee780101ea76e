"""The passes of EM: which side trains, what is frozen, and that the frozen side's tables are right."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from recllm_bench.models.latentcrs import losses
from recllm_bench.models.latentcrs.em import Batch, Examples, ExpectationMaximisation
from recllm_bench.models.latentcrs.networks import GenerativeNet, InferenceNet, tie_value_map
from recllm_bench.models.latentcrs.options import LatentCRSOptions
from recllm_bench.options import read_options
from recllm_bench.training.loop import fit
from recllm_bench.training.training_options import TrainingOptions
from tests.models.latentcrs_formulas import kl_divergence

WIDTH, TEXT, ITEMS, RECORDS, REPEATS = 6, 5, 30, 12, 2


def engine(**values) -> ExpectationMaximisation:
    torch.manual_seed(0)
    shape = {"intents": 4, "text_hidden": 7, "train_repeat": REPEATS, "negatives": 3}
    options = read_options(LatentCRSOptions, {**shape, **values}, "options")
    intents = torch.randn(4, WIDTH).double()
    inference, generative = InferenceNet(intents, options).double(), GenerativeNet(intents, TEXT, options).double()
    if options.tie_value_map:
        tie_value_map(inference, generative)
    items = torch.randn(ITEMS + 1, WIDTH).double()
    items[0] = 0
    examples = Examples(
        targets=torch.randint(1, ITEMS + 1, (RECORDS,)),
        negatives=torch.randint(1, ITEMS + 1, (REPEATS, RECORDS, 3), dtype=torch.int32),
        text_rows=torch.randint(0, 3, (RECORDS,)),
        text_vectors=torch.randn(3, TEXT).double(),
        items=items,
        clean=torch.randn(RECORDS, WIDTH).double(),
        noisy=torch.randn(REPEATS, RECORDS, WIDTH).double(),
    )
    return ExpectationMaximisation(inference, generative, examples, options, 5, 0)


def snapshot(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def is_unchanged(module: nn.Module, before: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True))


def all_rows(phase: str) -> Batch:
    return Batch(phase, torch.arange(RECORDS), torch.zeros(RECORDS, dtype=torch.long))


@pytest.mark.parametrize("values", [{"posterior_form": "exact_log", "kl_epsilon": 0.0}, {"variant": "paper"}, {}])
def test_e_step_moves_q_to_the_posterior_and_nothing_else(values: dict) -> None:
    em = engine(**values)
    em.w_e_rec = 0.0
    optimiser = torch.optim.Adam([*em.inference.parameters(), *em.generative.parameters()], lr=1e-2)
    passes = em.e_pass(1)
    next(passes)
    before, rows = snapshot(em.generative), torch.arange(RECORDS)
    em.inference.eval()
    divergences = []
    for _ in range(51):
        optimiser.zero_grad()
        loss = em.loss(all_rows("e"))
        wanted = em.log_posteriors(rows)
        torch.testing.assert_close(em.frozen(rows), wanted)
        divergences.append(float(loss.detach()))
        loss.backward()
        assert all(p.grad is None and not p.requires_grad for p in em.generative.parameters())
        optimiser.step()
    assert all(later < earlier for earlier, later in itertools.pairwise(divergences))
    assert is_unchanged(em.generative, before)


@pytest.mark.parametrize("values", [{}, {"variant": "paper"}])
def test_m_step_moves_the_generative_net_and_nothing_else(values: dict) -> None:
    em = engine(**values, text_dropout=0.0)
    optimiser = torch.optim.Adam([*em.inference.parameters(), *em.generative.parameters()], lr=1e-2)
    next(em.m_pass(1))
    before, first = snapshot(em.inference), None
    for _ in range(50):
        optimiser.zero_grad()
        loss = em.loss(all_rows("m"))
        first = float(loss.detach()) if first is None else first
        loss.backward()
        assert all(p.grad is None and not p.requires_grad for p in em.inference.parameters())
        optimiser.step()
    assert float(em.loss(all_rows("m")).detach()) < first
    assert is_unchanged(em.inference, before)


def test_direct_kl_gives_both_sides_gradients_and_em_never() -> None:
    em = engine(ablation="direct_kl")
    next(em.direct(1))
    assert not em.generative.training
    assert em.inference.training
    em.loss(all_rows("direct")).backward()
    for network in (em.inference, em.generative):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    em = engine()
    optimiser = torch.optim.Adam([*em.inference.parameters(), *em.generative.parameters()])
    phases = set()
    for batch in em.joint(1):
        optimiser.zero_grad()
        em.loss(batch).backward()
        moved = [any(p.grad is not None for p in network.parameters()) for network in (em.inference, em.generative)]
        assert moved == [batch.phase == "e", batch.phase == "m"]
        phases.add(batch.phase)
    assert phases == {"e", "m"}


def test_a_tied_map_trains_in_the_e_step_only() -> None:
    em = engine(tie_value_map=True)
    tied = em.inference.value_map.weight
    assert em.generative.intent_map.weight is tied
    next(em.e_pass(1))
    em.loss(all_rows("e")).backward()
    assert tied.grad is not None
    em.inference.zero_grad(set_to_none=True)
    next(em.m_pass(1))
    em.loss(all_rows("m")).backward()
    assert tied.grad is None


def test_an_epoch_holds_every_repeat_of_every_record_once_in_each_pass() -> None:
    em = engine()
    seen = {"e": [], "m": []}
    for batch in em.joint(3):
        seen[batch.phase] += list(zip(batch.repeats.tolist(), batch.rows.tolist(), strict=True))
    everything = {(repeat, row) for repeat in range(REPEATS) for row in range(RECORDS)}
    for pairs in seen.values():
        assert len(pairs) == len(everything)
        assert set(pairs) == everything
    assert seen["e"] != seen["m"]


def test_losses_are_the_sum_of_their_parts() -> None:
    em = engine(w_nce=0.7, w_rec=3.0, w_e_rec=2.0, lambda_kl=0.4, text_dropout=0.0)
    options, rows = em.options, torch.arange(RECORDS)
    next(em.m_pass(1))
    noisy, items = em.examples.noisy[0], em.examples.items
    candidates = torch.cat([em.examples.targets[:, None], em.examples.negatives[0].long()], 1)
    log_q = em.inference(em.examples.clean).detach()
    affinity, log_f = em.generative(noisy, em.examples.text_vectors[em.examples.text_rows])
    g = em.generative.intent_scores(affinity, items[candidates])
    h = (log_f.exp().unsqueeze(-1) * g).sum(1)
    expected = 0.4 * kl_divergence(log_q, log_f, options.kl_epsilon) + 3.0 * losses.ranking_loss(h)
    expected = expected + 0.7 * losses.contrastive_loss(log_q.exp(), log_f, g, "f_times_g", "mean")
    torch.testing.assert_close(em.loss(all_rows("m")), expected)
    next(em.e_pass(1))
    clean_affinity, clean_f = em.generative(em.examples.clean, em.examples.text_vectors[em.examples.text_rows])
    target = em.generative.target_scores(clean_affinity, items[em.examples.targets])
    log_q = em.inference(noisy)
    scores = (items[candidates] @ em.inference.item_query(log_q).unsqueeze(-1)).squeeze(-1)
    expected = kl_divergence(log_q, losses.log_posterior(clean_f, target, "softmax_product"), 1e-5)
    torch.testing.assert_close(em.loss(all_rows("e")), expected + 2.0 * losses.ranking_loss(scores))
    assert set(em.take_curves()) == {"m_kl", "m_nce", "m_rec", "e_kl", "e_rec"}
    assert em.take_curves() == {}
    assert torch.equal(em.log_q(rows), em.inference(em.examples.clean))


@pytest.mark.parametrize("dropout", [True, False])
def test_which_states_training_sees(dropout: bool) -> None:
    em = engine(encoder_dropout_in_train=dropout)
    next(em.e_pass(1))
    batch = Batch("e", torch.tensor([3]), torch.tensor([1]))
    expected = em.examples.noisy[1, 3] if dropout else em.examples.clean[3]
    torch.testing.assert_close(torch.log_softmax(em._logits(batch), -1), em.inference(expected[None]))


def test_a_table_too_large_is_computed_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    em = engine()
    next(em.e_pass(1))
    rows = torch.tensor([7, 1, 4])
    whole = em.frozen(rows)
    monkeypatch.setattr("recllm_bench.models.latentcrs.em._ENTRIES_KEPT", 1)
    next(em.e_pass(1))
    torch.testing.assert_close(em.frozen(rows), whole)
    assert not em.frozen(rows).requires_grad


def test_redrawn_negatives_are_used() -> None:
    em = engine()
    em.examples = replace(em.examples, redraw=lambda epoch: torch.full((REPEATS, RECORDS, 3), epoch, dtype=torch.int32))
    next(em.joint(9))
    assert np.all(em.examples.negatives.numpy() == 9)


def test_what_a_captured_step_reads_stays_where_it_is_however_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where distributions are computed batch by batch, from projected texts."""
    from recllm_bench.models.latentcrs import em as module

    whole, parts = engine(), engine()
    list(whole.e_pass(1))
    monkeypatch.setattr(module, "_ENTRIES_KEPT", 0)
    places = set()
    for epoch in (1, 2):
        list(parts.e_pass(epoch))
        places.add(parts._projections.data_ptr())
    assert len(places) == 1
    rows = torch.arange(RECORDS)
    torch.testing.assert_close(parts._fixed(rows), whole._fixed(rows))


@pytest.mark.parametrize("redrawn", [False, True])
def test_steps_of_fixed_places_take_the_steps_of_the_loop_bit_by_bit(redrawn: bool, tmp_path: Path) -> None:
    """Tables, negatives and curves lie at one place for all epochs, as a captured step needs them."""
    found = []
    for steps in ("fixed", "python"):
        em = engine(text_dropout=0.2)
        em.together = 2 if steps == "fixed" or redrawn else 1  # a loop from Python takes runs batch by batch
        if redrawn:
            first = em.examples.negatives.clone()
            em.examples.redraw = lambda epoch, first=first: (first + epoch) % 20 + 1
        places = em.examples.negatives.data_ptr()
        modules = {"inference": em.inference, "generative": em.generative}
        options = TrainingOptions(
            epochs=3, patience=0, learning_rate=1e-2, precision="fp32", steps=steps, clip_norm=1.0
        )
        outcome = fit(em.joint, em.loss, modules, None, options, tmp_path / steps, seed=2, fixed=True)
        assert em.examples.negatives.data_ptr() == places
        weights = [part.detach() for network in modules.values() for part in network.parameters()]
        found.append((weights, [entry["loss"] for entry in outcome.history], em.take_curves()))
    (weights, losses, curves), (expected, wanted, others) = found
    assert all(torch.equal(one, two) for one, two in zip(weights, expected, strict=True))
    assert losses == wanted and curves == others and len(curves) >= 4
