"""Training of sequence models on planted data, and the order of their batches."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from recllm_bench.data.splits import leave_one_out
from recllm_bench.data.windows import DeviceHistories, training_windows
from recllm_bench.dropout import Dropout, draw_bytes
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.protocols import protocol_named
from recllm_bench.models.sequence.iclrec import ICLRec
from recllm_bench.models.sequence.sasrec import SASRec
from recllm_bench.recbole_bridge.bare import Ids, bare_config
from recllm_bench.training.objectives import cross_entropy
from recllm_bench.training.sequence import (
    WindowBatches,
    batch_rows,
    encoder_loss,
    train_sequence_model,
    training_counts,
    validator,
)
from recllm_bench.training.training_options import TrainingOptions

CPU = torch.device("cpu")
OPTIONS = TrainingOptions(epochs=12, batch_size=32, max_length=10, learning_rate=5e-3)


def build(model_class, n_items, max_length=10, **options) -> nn.Module:
    torch.manual_seed(0)
    options = model_class.Options(**{"hidden_size": 32, "inner_size": 64, "dropout": 0.1, **options})
    return model_class(bare_config(options, max_length, CPU), Ids(n_items))


def hit_rate(model, split):
    return validator(
        model, split, protocol_named("unified.full"), dataclasses.replace(OPTIONS, validate_metric="HR@10")
    )()


def popularity_hit_rate(split):
    counts = training_counts(split)

    class Popular(nn.Module):
        def sequence_states(self, item_seq, lengths):
            return torch.ones(*item_seq.shape, 1)

        def item_vectors(self):
            return counts[:, None].float()

    return hit_rate(Popular(), split)


@pytest.mark.parametrize("objective", ["ce", "bce", "sampled", "gbce"])
def test_sasrec_beats_popularity_on_a_markov_chain(markov, tmp_path, objective):
    split = leave_one_out(markov)
    epochs = 40 if objective == "gbce" else 12  # its weaker pull on the target needs more steps
    options = dataclasses.replace(OPTIONS, objective=objective, negatives=20, epochs=epochs)
    model = build(SASRec, markov.n_items)
    check = validator(model, split, protocol_named("unified.full"), options)
    outcome = train_sequence_model(model, split, options, validate=check, work=tmp_path, seed=1)
    assert outcome.history[-1]["loss"] < outcome.history[0]["loss"]
    assert check() == outcome.best_metric
    assert hit_rate(model, split) > 1.5 * popularity_hit_rate(split)


def test_iclrec_beats_popularity_on_a_markov_chain(markov, tmp_path):
    split = leave_one_out(markov)
    model = build(ICLRec, markov.n_items, intents=8, attention_dropout=0.1, n_layers=1)
    options = dataclasses.replace(OPTIONS, coverage="all", epochs=25)
    check = validator(model, split, protocol_named("unified.full"), options)
    train_sequence_model(model, split, options, validate=check, work=tmp_path, seed=1)
    assert hit_rate(model, split) > 1.5 * popularity_hit_rate(split)
    assert model.has_centroids
    assert np.load(tmp_path / "centroids.npy").shape == (8, 32)


@pytest.mark.parametrize("model_class", [SASRec, ICLRec])
def test_equal_seeds_give_equal_weights(markov, tmp_path, model_class):
    split = leave_one_out(markov)
    options = dataclasses.replace(OPTIONS, epochs=2, objective="sampled", negatives=5)
    extra = {"intents": 8} if model_class is ICLRec else {}
    models = [build(model_class, markov.n_items, **extra) for _ in range(3)]
    for place, (model, seed) in enumerate(zip(models, (1, 1, 2), strict=True)):
        train_sequence_model(model, split, options, validate=None, work=tmp_path / str(place), seed=seed)
    states = [torch.cat([value.flatten().float() for value in model.state_dict().values()]) for model in models]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_all_positions_give_the_gradient_of_all_prefixes():
    """One pass over a window is the mean loss of every prefix, each in a pass of its own."""
    from recllm_bench.data.histories import Histories

    rng = np.random.default_rng(0)
    split = leave_one_out(Histories.from_rows([rng.integers(1, 21, size=size) for size in (5, 9, 4, 7)], 20))
    model = build(SASRec, 20, dropout=0.0)
    windows = training_windows(split.histories, split.train_ends, 10)
    batch = DeviceHistories(split.histories, CPU).window_batch(windows, np.arange(4), 10)
    encoder_loss(model, split, OPTIONS, CPU)(batch, None).backward()
    ours = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    total, count = 0.0, 0
    for user in range(1, 5):
        history = torch.from_numpy(split.histories.of(user)[:-2].astype(np.int64))
        for end in range(1, len(history)):
            state = model.last_states(history[None, :end], torch.tensor([end]))
            total, count = total + cross_entropy(state, history[end : end + 1], model.item_vectors()), count + 1
    (total / count).backward()
    for parameter, gradient in zip(model.parameters(), ours, strict=True):
        if parameter is not model.position_embedding.weight:
            assert torch.allclose(parameter.grad, gradient, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "still"),
    [("SASRec", {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}), ("GRU4Rec", {"dropout_prob": 0.0})],
)
def test_recbole_classes_get_the_gradient_of_recbole(name, still):
    """Same class, same weights: all positions of the windows against RecBole's batch of all prefixes."""
    from recllm_bench import recbole_bridge
    from recllm_bench.data.histories import Histories

    rng = np.random.default_rng(0)
    split = leave_one_out(Histories.from_rows([rng.integers(1, 21, size=size) for size in (5, 9, 4, 7)], 20))
    options = {**still, "hidden_size": 16, "train_batch_size": 512}
    model, _, _ = recbole_bridge.build_model(name, split.histories, split.train_ends, options, seed=1, max_length=10)
    model.train()
    windows = training_windows(split.histories, split.train_ends, 10)
    batch = DeviceHistories(split.histories, CPU).window_batch(windows, np.arange(4), 10)
    ours = encoder_loss(model, split, OPTIONS, CPU)(batch, None)
    ours.backward()
    gradients = {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}
    model.zero_grad(set_to_none=True)
    (prefixes,) = list(recbole_bridge.zoo_training(model).batches(1))
    theirs = model.calculate_loss(prefixes)
    theirs.backward()
    assert len(prefixes) == (windows.ends - windows.loss_from).sum()
    assert abs(ours - theirs) < 1e-6
    for key, value in model.named_parameters():
        if value.grad is not None:
            assert (value.grad - gradients[key]).abs().max() < 1e-5 * max(1.0, float(value.grad.abs().max())), key


def recbole_sasrec(split, **options):
    from recllm_bench import recbole_bridge

    return recbole_bridge.build_model("SASRec", split.histories, split.train_ends, options, seed=1, max_length=10)[0]


def test_drawing_bytes_changes_nothing_of_a_recbole_class_but_what_is_dropped(markov):
    split = leave_one_out(markov)
    histories = DeviceHistories(split.histories, CPU)
    batch = next(iter(WindowBatches(histories, split.train_ends, dataclasses.replace(OPTIONS), 0, 1)))
    found = []
    for dropout in (0.0, 0.5):
        options = {"hidden_dropout_prob": dropout, "attn_dropout_prob": dropout}
        models = [recbole_sasrec(split, **options), draw_bytes(recbole_sasrec(split, **options))]
        assert list(models[0].state_dict()) == list(models[1].state_dict())
        assert sum(type(part) is Dropout for part in models[1].modules()) == 7  # embeddings, and three in each layer
        for model in models:
            torch.manual_seed(5)
            model.train()
            training = model.sequence_states(batch.inputs, batch.lengths)
            model.eval()
            found.append((training, model.sequence_states(batch.inputs, batch.lengths)))
    assert torch.equal(found[0][0], found[1][0]), "without dropout, training is the same to the bit"
    assert torch.equal(found[2][1], found[3][1]), "and so is ranking with it"
    assert not torch.equal(found[2][0], found[3][0])


def test_the_loop_draws_bytes_only_when_told(markov, tmp_path):
    split = leave_one_out(markov)
    for told in (False, True):
        model = recbole_sasrec(split)
        options = dataclasses.replace(OPTIONS, epochs=1, byte_dropout=told)
        train_sequence_model(model, split, options, validate=None, work=tmp_path / str(told))
        assert any(type(part) is Dropout for part in model.modules()) == told


@pytest.mark.parametrize("name", ["SASRec", "FPMC"])
def test_recbole_classes_train_through_the_engine(markov, tmp_path, name):
    from recllm_bench import recbole_bridge

    split = leave_one_out(markov)
    model, _, _ = recbole_bridge.build_model(name, markov, split.train_ends, {}, seed=1, max_length=10)
    options = dataclasses.replace(OPTIONS, epochs=3)
    check = validator(model, split, protocol_named("unified.full"), options)
    before = check()
    outcome = train_sequence_model(model, split, options, validate=check, work=tmp_path, seed=1)
    assert outcome.best_metric > 1.5 * before
    assert check() == outcome.best_metric


@pytest.mark.parametrize("model", ["SASRec", SASRec])
def test_recbole_trainer_trains_its_classes_and_ours(markov, tmp_path, model):
    from recllm_bench import recbole_bridge

    split = leave_one_out(markov)
    settings = {} if isinstance(model, str) else {"hidden_size": 32}
    built, _, _ = recbole_bridge.build_model(model, markov, split.train_ends, settings, seed=1, max_length=10)
    options = dataclasses.replace(OPTIONS, epochs=4, trainer="recbole")
    check = validator(built, split, protocol_named("unified.full"), options)
    before = check()
    outcome = train_sequence_model(built, split, options, validate=check, work=tmp_path, seed=1)
    assert outcome.epochs == len(outcome.history) == 4
    assert outcome.best_metric == max(entry["validation"] for entry in outcome.history) > before
    assert check() == outcome.best_metric
    again = train_sequence_model(built, split, options, validate=None, work=tmp_path, seed=1)
    assert again == outcome


def test_recbole_trainer_needs_a_recbole_model(markov, tmp_path):
    options = dataclasses.replace(OPTIONS, trainer="recbole")
    with pytest.raises(BenchError, match="use trainer=engine"):
        train_sequence_model(build(SASRec, 100), leave_one_out(markov), options, validate=None, work=tmp_path)


def test_validation_and_test_items_never_reach_training(markov, tmp_path):
    """Poison: other held-out items leave every weight as it is."""
    poisoned = dataclasses.replace(markov, items=markov.items.copy())
    for user in range(markov.n_users):
        poisoned.items[markov.offsets[user + 1] - 2 : markov.offsets[user + 1]] = 7
    weights = []
    for number, histories in enumerate((markov, poisoned)):
        model = build(SASRec, markov.n_items)
        options = dataclasses.replace(OPTIONS, epochs=2, negative_sampling="popularity", objective="sampled")
        work = tmp_path / str(number)
        train_sequence_model(model, leave_one_out(histories), options, validate=None, work=work, seed=1)
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_killed_run_over_moving_windows_ends_like_an_undisturbed_one(markov, tmp_path):
    split = leave_one_out(markov)
    options = dataclasses.replace(OPTIONS, epochs=4, max_length=4, coverage="moving")
    built = {"max_length": 4, "n_layers": 1}
    whole = build(SASRec, markov.n_items, **built)
    train_sequence_model(whole, split, options, validate=None, work=tmp_path / "whole", seed=1)

    class Killed(BaseException):
        pass

    def kill(module, inputs):
        if module.training and (tmp_path / "cut" / "history.json").exists():
            raise Killed

    first = build(SASRec, markov.n_items, **built)
    first.dropout.register_forward_pre_hook(kill)
    with pytest.raises(Killed):
        train_sequence_model(first, split, options, validate=None, work=tmp_path / "cut", seed=1)
    resumed = build(SASRec, markov.n_items, **built)
    outcome = train_sequence_model(resumed, split, options, validate=None, work=tmp_path / "cut", seed=1)
    assert outcome.epochs == 4
    weights = resumed.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in whole.state_dict().items())
    fixed = build(SASRec, markov.n_items, **built)
    options = dataclasses.replace(options, coverage="all")
    train_sequence_model(fixed, split, options, validate=None, work=tmp_path / "fixed", seed=1)
    assert not torch.equal(fixed.item_vectors(), whole.item_vectors())


def test_moving_windows_have_the_targets_of_fixed_ones_in_every_epoch(markov):
    split = leave_one_out(markov)
    options = TrainingOptions(batch_size=16, max_length=6)
    histories = DeviceHistories(split.histories, CPU)
    expected = torch.from_numpy(np.bincount(targets_of(histories, split, options, 1)))
    for epoch in (1, 2, 3):
        moving = dataclasses.replace(options, coverage="moving")
        assert torch.equal(torch.from_numpy(np.bincount(targets_of(histories, split, moving, epoch))), expected)


def targets_of(histories, split, options, epoch):
    batches = WindowBatches(histories, split.train_ends, options, 1, epoch)
    found = [batch.targets[batch.targets > 0] for batch in batches]
    assert len(batches) == len(found)
    return torch.cat(found).numpy()


def test_every_window_is_in_exactly_one_batch():
    lengths = np.random.default_rng(0).integers(2, 200, 1000)
    batches = batch_rows(lengths, 16, seed=1, epoch=1)
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(1000))
    assert {len(rows) for rows in batches} <= {16, 1000 % 16}
    again, other = batch_rows(lengths, 16, 1, 1), batch_rows(lengths, 16, 1, 2)
    assert all(np.array_equal(one, two) for one, two in zip(batches, again, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(batches, other, strict=True))


def test_histories_too_short_to_train_on_are_named(tmp_path):
    from recllm_bench.data.histories import Histories

    split = leave_one_out(Histories.from_rows([np.array([1, 2, 3]), np.array([2])], 3))
    with pytest.raises(BenchError, match="nothing to train on"):
        train_sequence_model(build(SASRec, 3), split, OPTIONS, validate=None, work=tmp_path)


def test_sorting_by_length_saves_padding(markov):
    from recllm_bench.data.histories import Histories

    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 10, size=size) for size in rng.integers(4, 50, 640)]
    split = leave_one_out(Histories.from_rows(rows, 10))
    options = TrainingOptions(batch_size=32, max_length=50)
    windows = training_windows(split.histories, split.train_ends, 50)
    batches = list(WindowBatches(DeviceHistories(split.histories, CPU), split.train_ends, options, 0, 1))
    read = sum(batch.inputs.numel() for batch in batches)
    assert read < 1.15 * sum(int(batch.lengths.sum()) for batch in batches)
    assert sum(int((batch.targets > 0).sum()) for batch in batches) == (windows.ends - windows.loss_from).sum()


def test_unknown_validation_metric(markov):
    options = dataclasses.replace(OPTIONS, validate_metric="NDGC@10")
    with pytest.raises(BenchError, match="NDCG"):
        validator(None, leave_one_out(markov), protocol_named("unified.full"), options)
    with pytest.raises(BenchError, match="such as NDCG@10"):
        validator(
            None,
            leave_one_out(markov),
            protocol_named("unified.full"),
            dataclasses.replace(OPTIONS, validate_metric="NDCG"),
        )
