"""Steps of fixed places: the same numbers as the loop from Python, and what is captured when."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from recllm_bench.data.splits import leave_one_out
from recllm_bench.data.windows import DeviceHistories, WindowBatch, training_windows
from recllm_bench.models.sequence.iclrec import ICLRec
from recllm_bench.models.sequence.sasrec import SASRec
from recllm_bench.recbole_bridge import build_model
from recllm_bench.recbole_bridge.bare import Ids, bare_config
from recllm_bench.training import graphs
from recllm_bench.training.graphs import MOST, WARM_UP, FixedSteps, Run, Steps, form_of, runs, tensors_of
from recllm_bench.training.objectives import (
    NegativeSampler,
    binary_cross_entropy,
    calibrated_binary_cross_entropy,
    cross_entropy,
    sampled_softmax,
)
from recllm_bench.training.sequence import FixedWindowBatches, train_sequence_model
from recllm_bench.training.training_options import TrainingOptions

CPU = torch.device("cpu")
OPTIONS = TrainingOptions(
    epochs=3,
    batch_size=32,
    max_length=10,
    learning_rate=5e-3,
    warmup_steps=5,
    clip_norm=1.0,
    decay="cosine",
    patience=0,
)


def ours(model_class, n_items, **options) -> nn.Module:
    torch.manual_seed(0)
    options = model_class.Options(**{"hidden_size": 16, "inner_size": 32, "dropout": 0.0, **options})
    return model_class(bare_config(options, 10, CPU), Ids(n_items))


def trained(model, histories, tmp_path, steps, **changes):
    """Weights and losses after some epochs."""
    options = dataclasses.replace(OPTIONS, steps=steps, **changes)
    outcome = train_sequence_model(
        model, leave_one_out(histories), options, validate=None, work=tmp_path / steps, seed=3
    )
    return torch.cat([part.detach().flatten() for part in model.parameters()]), [e["loss"] for e in outcome.history]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sasrec", {}),
        ("sasrec", {"coverage": "moving"}),
        ("sasrec", {"objective": "bce", "shared_negatives": True, "negatives": 3}),
        ("sasrec", {"objective": "gbce", "shared_negatives": True, "negatives": 3}),
        ("sasrec", {"objective": "sampled", "shared_negatives": True, "negatives": 3}),
        ("recbole:SASRec", {}),
        ("recbole:GRU4Rec", {}),
        ("iclrec", {}),
    ],
)
def test_fixed_steps_give_the_numbers_of_the_loop(name, changes, markov, tmp_path):
    """Equal up to the order of sums, which Adam makes a fraction of a step where a gradient is nearly zero."""

    def model():
        if name == "sasrec":
            return ours(SASRec, markov.n_items)
        if name == "iclrec":
            return ours(
                ICLRec, markov.n_items, attention_dropout=0.0, intents=4, kmeans_restarts=1, item_loss="ce",
                mask=0.0, crop=1.0, reorder=0.0,
            )  # fmt: skip
        ends = leave_one_out(markov).train_ends
        sasrec = name == "recbole:SASRec"
        dropouts = dict.fromkeys(("hidden_dropout_prob", "attn_dropout_prob") if sasrec else ("dropout_prob",), 0.0)
        return build_model(name, markov, ends, dropouts, seed=1, device=CPU, max_length=10)[0]

    (weights, losses), (expected, wanted) = (
        trained(model(), markov, tmp_path, steps, **changes) for steps in ("fixed", "python")
    )
    np.testing.assert_allclose(losses, wanted, rtol=2e-5)
    torch.testing.assert_close(weights, expected, rtol=1e-3, atol=OPTIONS.learning_rate / 20)
    assert (weights != 0).any()


def test_what_is_recorded_gives_the_numbers_of_what_is_not_bit_by_bit(markov, tmp_path, monkeypatch):
    recorded, losses = trained(ours(SASRec, markov.n_items, dropout=0.3), markov, tmp_path / "recorded", "fixed")
    monkeypatch.setattr(graphs, "WARM_UP", 10**9)
    plain, wanted = trained(ours(SASRec, markov.n_items, dropout=0.3), markov, tmp_path / "plain", "fixed")
    assert torch.equal(recorded, plain) and losses == wanted


def test_several_steps_at_once_give_the_numbers_of_one_bit_by_bit(markov, tmp_path, monkeypatch):
    """Dropout, negatives and warm-up included; the order of batches of several widths stays."""
    taken = []
    recorded = Steps._recorded
    monkeypatch.setattr(Steps, "_recorded", lambda self, batch: taken.append(batch) or recorded(self, batch))
    changes = {"coverage": "moving", "objective": "bce", "negatives": 2, "batch_size": 4}
    found = []
    for together in (1, 3):
        model = ours(SASRec, markov.n_items, dropout=0.3)
        place = tmp_path / str(together)
        found.append(trained(model, markov, place, "fixed", steps_a_graph=together, **changes))
    assert torch.equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]
    assert any(isinstance(batch, Run) and len(batch.batches) == 3 for batch in taken)


def test_runs_are_neighbours_of_one_form_in_order():
    sizes = [2, 2, 2, 2, 2, 1, 2, 2, 1, 1, 1]
    batches = [batch_of(number, rows) for number, rows in enumerate(sizes)]
    found = list(runs(batches, 2))
    flat = [part for each in found for part in (each.batches if isinstance(each, Run) else [each])]
    assert all(one is two for one, two in zip(flat, batches, strict=True))
    assert [len(each.batches) if isinstance(each, Run) else 1 for each in found] == [2, 2, 1, 1, 2, 2, 1]
    assert all(one is two for one, two in zip(runs(batches, 1), batches, strict=True))


def test_the_next_epoch_is_drawn_before_the_present_one_is_read(markov, tmp_path, monkeypatch):
    drawn = []
    init = FixedWindowBatches.__init__
    monkeypatch.setattr(
        FixedWindowBatches, "__init__", lambda self, *words: drawn.append(words[-1]) or init(self, *words)
    )
    read = []
    begin = FixedSteps.begin
    monkeypatch.setattr(FixedSteps, "begin", lambda self, rate: read.append(list(drawn)) or begin(self, rate))
    trained(ours(SASRec, markov.n_items), markov, tmp_path, "fixed")
    assert drawn == [1, 2, 3] and read == [[], [1, 2], [1, 2, 3]]


def test_fixed_steps_go_on_after_a_stop_as_if_undisturbed(markov, tmp_path):
    whole, _ = trained(ours(SASRec, markov.n_items, dropout=0.3), markov, tmp_path / "whole", "fixed")
    model = ours(SASRec, markov.n_items, dropout=0.3)

    class Stopped(BaseException):
        pass

    states, seen = model.sequence_states, []

    def stopping(*words):
        seen.append(1)
        if len(seen) == 30:
            raise Stopped
        return states(*words)

    model.sequence_states = stopping
    with pytest.raises(Stopped):
        trained(model, markov, tmp_path / "parts", "fixed")
    assert (tmp_path / "parts" / "fixed" / "last.pt").exists()
    parts, _ = trained(ours(SASRec, markov.n_items, dropout=0.3), markov, tmp_path / "parts", "fixed")
    assert torch.equal(parts, whole)


def test_batches_of_cuda_are_its_own_and_the_step_grows_by_their_root():
    options = dataclasses.replace(OPTIONS, batch_size=100, cuda_batch_size=400)
    assert options.on(CPU) is options and OPTIONS.on(torch.device("cuda")) is OPTIONS
    wider = options.on(torch.device("cuda"))
    assert (wider.batch_size, wider.learning_rate) == (400, pytest.approx(2 * OPTIONS.learning_rate))
    assert wider.on(torch.device("cuda")) is wider


# batches -----------------------------------------------------------------------------------------------------------


def test_fixed_batches_hold_what_batches_hold(markov):
    windows = training_windows(markov, markov.offsets[1:], 10)
    on_device = DeviceHistories(markov, CPU)
    rows = [np.array([0, 3, 5]), np.arange(6, 20)]
    for fixed, own in zip(on_device.fixed_rows(windows, rows, 10), rows, strict=True):
        found, expected = on_device.fixed_batch(fixed), on_device.window_batch(windows, own, 10)
        width = expected.inputs.shape[1]
        assert found.masked and not expected.masked and found.inputs.shape[1] in (3, 5, 8, 10)
        for name in ("inputs", "targets"):
            whole, part = getattr(found, name), getattr(expected, name)
            assert torch.equal(whole[:, :width], part) and not whole[:, width:].any()
        assert torch.equal(found.users, expected.users) and torch.equal(found.lengths, expected.lengths)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("chunk_elements", [None, 40])
def test_masked_losses_are_those_of_the_targets_alone(first, chunk_elements):
    torch.manual_seed(0)
    states, items = torch.randn(50, 8, requires_grad=True), torch.randn(20, 8, requires_grad=True)
    targets = torch.randint(1, 20, (50,)) * (torch.rand(50) < 0.6)
    places, k = targets.nonzero().squeeze(1), 4
    drawn = NegativeSampler(19).draw((50, k), torch.Generator().manual_seed(1))
    uniform = torch.full((20,), -1.5)
    losses = {
        "ce": lambda s, t, n, **m: cross_entropy(s, t, items, first=first, chunk_elements=chunk_elements, **m),
        "bce": lambda s, t, n, **m: binary_cross_entropy(s, t, items, n, **m),
        "sampled": lambda s, t, n, **m: sampled_softmax(s, t, items, n, uniform, **m),
        "gbce": lambda s, t, n, **m: calibrated_binary_cross_entropy(s, t, items, n, k / 18, 0.75, **m),
    }
    for name, loss in losses.items():
        found = loss(states, targets, drawn, masked=True)
        expected = loss(states[places], targets[places], drawn[places])
        torch.testing.assert_close(found, expected, msg=name)
        for one, two in zip(*(torch.autograd.grad(value, [states, items]) for value in (found, expected)), strict=True):
            torch.testing.assert_close(one, two, msg=name)
        with torch.no_grad():
            torch.testing.assert_close(loss(states, targets, drawn, masked=True), expected.detach(), msg=name)


def test_a_batch_without_any_target_has_no_loss_and_no_gradient():
    states = torch.randn(4, 3, requires_grad=True)
    loss = cross_entropy(states, torch.zeros(4, dtype=torch.long), torch.randn(5, 3), masked=True)
    loss.backward()
    assert loss == 0 and not states.grad.any()


# what is captured --------------------------------------------------------------------------------------------------


def batch_of(value: float, rows: int = 2) -> WindowBatch:
    return WindowBatch(*(torch.full((rows,), value) for _ in range(4)))


def test_a_form_is_recorded_after_its_warm_up_and_reads_from_one_place():
    seen = []
    steps = Steps(lambda batch: seen.append((tensors_of(batch)[0].data_ptr(), float(batch.users[0]))), CPU, None, "x")
    for value in range(WARM_UP + 3):
        steps(batch_of(value))
    assert [value for _, value in seen] == list(range(WARM_UP + 3))
    assert len({place for place, _ in seen[WARM_UP:]}) == 1
    steps(batch_of(9.0, rows=1))  # the last batch of an epoch is smaller: a form of its own
    assert len(steps.replays) == 1 and seen[-1][1] == 9.0


def test_a_run_is_recorded_as_one_and_reads_each_batch_from_its_place():
    seen = []
    steps = Steps(lambda batch: seen.append((tensors_of(batch)[0].data_ptr(), float(batch.users[0]))), CPU, None, "x")
    for value in range(0, 12, 2):
        steps(Run((batch_of(float(value)), batch_of(value + 1.0))))
    assert [value for _, value in seen] == list(range(12))
    assert len({place for place, _ in seen[4:]}) == 2 and list(steps.replays) == [(2, *form_of(batch_of(0.0)))]


def test_forms_differ_by_shape_type_and_other_values():
    one = batch_of(1.0)
    forms = {
        form_of(each)
        for each in (
            one,
            batch_of(2.0),
            batch_of(1.0, rows=3),
            dataclasses.replace(one, masked=True),
            dataclasses.replace(one, users=one.users.long()),
        )
    }
    assert len(forms) == 4


def test_only_so_many_forms_are_recorded():
    count = [0]
    steps = Steps(lambda batch: count.__setitem__(0, count[0] + len(batch.users)), CPU, None, "x")
    for _ in range(WARM_UP + 2):
        for rows in range(1, MOST + 4):
            steps(batch_of(1.0, rows))
    assert len(steps.replays) == MOST
    assert count[0] == (WARM_UP + 2) * sum(range(1, MOST + 4))
