"""The loop: early stopping, exact resumption after a kill, clear ends."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from recllm_bench.errors import BenchError
from recllm_bench.training.loop import fit, learning_rate, load_outcome, load_weights, seed_epoch, takes_fixed_steps
from recllm_bench.training.training_options import TrainingOptions


class Killed(BaseException):
    """Stands for a kill: no handler of the loop may swallow it."""


def network() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1))


def train(work: Path, *, options=None, kill_at=None, network_=None, validation=None, budget_of_steps=None):
    """A small regression with dropout, sampling noise, batch statistics, and a validation that goes up and down."""
    model = network() if network_ is None else network_
    options = options or TrainingOptions(epochs=6, patience=0, warmup_steps=4, learning_rate=0.03, decay="cosine")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator)
    y = x.sum(1, keepdim=True)
    seen = {"steps": 0, "epoch": 0}

    def batches(epoch):
        seen["epoch"] = epoch
        order = torch.randperm(40, generator=torch.Generator().manual_seed(epoch))
        yield from order.split(8)

    def loss(rows, generator):
        seen["steps"] += 1
        if kill_at == (seen["epoch"], (seen["steps"] - 1) % 5):
            raise Killed
        noise = torch.randn(len(rows), 1, generator=generator) * 0.1
        return ((model(x[rows]) - y[rows] + noise) ** 2).mean()

    def validate():
        return validation[seen["epoch"] - 1] if validation else -((model(x) - y) ** 2).mean().item()

    outcome = fit(batches, loss, {"net": model}, validate, options, work, seed=5)
    return model, outcome, seen


def same(one: nn.Module, two: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def without_seconds(history):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in history]


def test_the_loss_falls_and_files_are_written(tmp_path):
    _, outcome, _ = train(tmp_path)
    assert outcome.history[-1]["loss"] < outcome.history[0]["loss"]
    assert outcome.stopped_by == "epochs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.json", "model.safetensors", "outcome.json"]
    assert json.loads((tmp_path / "history.json").read_text()) == outcome.history


def test_two_runs_are_bit_equal(tmp_path):
    one, first, _ = train(tmp_path / "one")
    two, second, _ = train(tmp_path / "two")
    assert same(one, two)
    assert without_seconds(first.history) == without_seconds(second.history)


@pytest.mark.parametrize("kill_at", [(1, 2), (3, 0), (4, 3), (6, 4)])
def test_a_killed_run_ends_like_an_undisturbed_one(tmp_path, kill_at):
    whole, expected, _ = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "cut", kill_at=kill_at)
    resumed, outcome, seen = train(tmp_path / "cut")
    assert same(whole, resumed)
    assert without_seconds(outcome.history) == without_seconds(expected.history)
    assert outcome.best_epoch == expected.best_epoch
    assert seen["steps"] == 5 * (6 - kill_at[0] + 1)  # whole epochs are not repeated


def test_kill_minus_nine_between_epochs(tmp_path):
    """A real process, killed by the operating system at the end of epoch 3."""
    code = (
        "import os, signal, sys; sys.path[:0] = sys.argv[2:]\n"
        "import test_loop, recllm_bench.training.loop as loop\n"
        "from pathlib import Path\n"
        "write = loop.write_json\n"
        "def write_and_die(path, value):\n"
        "    write(path, value)\n"
        "    if path.name == 'history.json' and len(value) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "loop.write_json = write_and_die\n"
        "test_loop.train(Path(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "cut"), str(Path(__file__).parent)]
    result = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == -signal.SIGKILL
    assert (tmp_path / "cut" / "last.pt").exists()
    resumed, outcome, seen = train(tmp_path / "cut")
    whole, _, _ = train(tmp_path / "whole")
    assert same(whole, resumed)
    assert outcome.epochs == 6
    assert seen["steps"] == 15


def test_a_finished_run_is_not_trained_again(tmp_path):
    model, outcome, _ = train(tmp_path)
    again, second, seen = train(tmp_path)
    assert seen["steps"] == 0
    assert same(model, again)
    assert second == outcome == load_outcome(tmp_path)


def test_patience_keeps_the_best_epoch(tmp_path):
    options = TrainingOptions(epochs=50, patience=2)
    model, outcome, _ = train(tmp_path / "long", options=options, validation=[0.1, 0.5, 0.4, 0.5, 0.9])
    assert (outcome.best_epoch, outcome.best_metric, outcome.epochs) == (2, 0.5, 4)
    assert outcome.stopped_by == "patience"
    short, _, _ = train(tmp_path / "short", options=dataclasses.replace(options, epochs=2), validation=[0.1, 0.5])
    assert same(model, short)


def test_min_delta_is_the_smallest_gain_that_counts(tmp_path):
    options = TrainingOptions(epochs=50, patience=2, min_delta=0.1)
    _, outcome, _ = train(tmp_path, options=options, validation=[0.5, 0.55, 0.59, 0.9])
    assert (outcome.best_epoch, outcome.epochs) == (1, 3)


def test_validation_every_other_epoch_and_at_the_end(tmp_path):
    options = TrainingOptions(epochs=5, patience=0, validate_every=2)
    _, outcome, _ = train(tmp_path, options=options, validation=[9, 1, 9, 2, 3])
    assert [entry["epoch"] for entry in outcome.history if "validation" in entry] == [2, 4, 5]
    assert outcome.best_epoch == 5


def test_without_validation_the_last_epoch_is_kept(tmp_path):
    model = nn.Linear(1, 1)
    x = torch.ones(4, 1)
    outcome = fit(
        lambda epoch: [x],
        lambda batch, generator: (model(batch) - 3).square().mean(),
        {"net": model},
        None,
        TrainingOptions(epochs=3),
        tmp_path,
    )
    assert outcome.best_epoch == 3
    assert math.isnan(outcome.best_metric)
    loaded = nn.Linear(1, 1)
    load_weights(tmp_path, {"net": loaded})
    assert same(model, loaded)


def test_the_budget_ends_training_and_says_so(tmp_path):
    _, outcome, _ = train(tmp_path, options=TrainingOptions(epochs=300, patience=0, budget_seconds=1e-6))
    assert (outcome.epochs, outcome.stopped_by) == (1, "budget")


def test_frozen_parameters_do_not_move(tmp_path):
    """Adam moves what has momentum: a parameter frozen in mid-training must stay where it is."""
    model = network()
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    frozen = []

    def batches(epoch):
        yield x
        model[3].requires_grad_(False)
        frozen.append(model[3].weight.clone())
        yield x
        frozen.append(model[3].weight.clone())
        model[3].requires_grad_(True)

    fit(
        batches,
        lambda batch, generator: (model(batch) - 1).square().mean(),
        {"net": model},
        None,
        TrainingOptions(epochs=3),
        tmp_path,
    )
    assert all(torch.equal(before, after) for before, after in zip(frozen[::2], frozen[1::2], strict=True))
    assert not torch.equal(frozen[0], frozen[2])


def test_a_loss_that_is_no_number_stops_with_advice(tmp_path):
    model = nn.Linear(1, 1)
    with pytest.raises(BenchError, match=r"epoch 1, step 1.*learning_rate"):
        fit(
            lambda epoch: [torch.ones(2, 1)],
            lambda batch, generator: model(batch).sum() * math.nan,
            {"net": model},
            None,
            TrainingOptions(),
            tmp_path,
        )
    assert not (tmp_path / "model.safetensors").exists()


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(BenchError, match="nothing to train on"):
        fit(
            lambda epoch: [], lambda batch, generator: None, {"net": nn.Linear(1, 1)}, None, TrainingOptions(), tmp_path
        )


def test_weights_that_do_not_fit_are_refused(tmp_path):
    train(tmp_path)
    with pytest.raises(BenchError, match="does not fit"):
        load_weights(tmp_path, {"net": nn.Linear(2, 2)})


def test_cosine_ends_at_a_fiftieth():
    options = TrainingOptions(epochs=11, decay="cosine", learning_rate=2.0)
    assert [learning_rate(options, epoch) for epoch in (1, 6, 11)] == pytest.approx([2.0, 2.0 * 0.51, 0.04])
    assert learning_rate(dataclasses.replace(options, decay="none"), 11) == 2.0


def test_epoch_seeds_differ_and_repeat():
    def draw(seed, epoch):
        generator = seed_epoch(seed, epoch, "cpu")
        return torch.rand(1).item(), torch.rand(1, generator=generator).item()

    assert draw(1, 2) == draw(1, 2)
    assert len({*draw(1, 2), *draw(1, 3), *draw(2, 2)}) == 6


def test_warm_up_starts_from_small_steps(tmp_path):
    moved = []
    for warmup in (0, 100):
        model = nn.Linear(1, 1)
        nn.init.zeros_(model.weight)
        fit(
            lambda epoch: [torch.ones(2, 1)],
            lambda batch, generator, model=model: (model(batch) - 3).square().mean(),
            {"net": model},
            None,
            TrainingOptions(epochs=1, warmup_steps=warmup),
            tmp_path / str(warmup),
        )
        moved.append(model.weight.item())
    assert moved[1] == pytest.approx(moved[0] / 100, rel=1e-3)


def linear(work: Path, sizes: list[int], **changes) -> tuple[torch.Tensor, list[float]]:
    """Weights and losses of a regression on batches of the given sizes, twice over."""
    torch.manual_seed(3)
    model = nn.Linear(3, 1)
    x = torch.randn(sum(sizes), 3)
    options = TrainingOptions(
        epochs=2, patience=0, learning_rate=0.1, warmup_steps=3, clip_norm=0.5, **{"accumulate": 1, **changes}
    )
    outcome = fit(
        lambda epoch: torch.arange(len(x)).split(sizes),
        lambda rows, generator: ((model(x[rows]) - x[rows].sum(1, keepdim=True)) ** 2).mean(),
        {"net": model}, None, options, work,
    )  # fmt: skip
    weights = torch.cat([part.detach().flatten() for part in model.parameters()])
    return weights, [entry["loss"] for entry in outcome.history]


def test_gathered_gradients_make_the_updates_of_larger_batches(tmp_path):
    found, losses = linear(tmp_path / "gathered", [4] * 10, accumulate=4)
    expected, _ = linear(tmp_path / "whole", [16, 16, 8])  # the last two batches of an epoch make an update
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert losses[0] > losses[1] > 0
    other, _ = linear(tmp_path / "small", [4] * 10)
    assert not torch.allclose(other, expected, atol=1e-3)


def test_fixed_steps_do_not_gather():
    options = TrainingOptions(steps="fixed", accumulate=2)
    assert not takes_fixed_steps(options, torch.device("cuda"))
    assert takes_fixed_steps(dataclasses.replace(options, accumulate=1), torch.device("cpu"))
