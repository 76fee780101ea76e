"""On a CUDA device: captured steps give the bits of steps from Python, and both the CPU's numbers."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch

from recllm_bench.data.splits import leave_one_out
from recllm_bench.models.sequence.iclrec import ICLRec
from recllm_bench.models.sequence.sasrec import SASRec
from recllm_bench.recbole_bridge import build_model
from recllm_bench.recbole_bridge.bare import Ids, bare_config
from recllm_bench.training import graphs
from recllm_bench.training.loop import fit
from recllm_bench.training.sequence import train_sequence_model
from recllm_bench.training.training_options import TrainingOptions

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
OPTIONS = TrainingOptions(
    epochs=3, batch_size=32, max_length=10, learning_rate=5e-3, warmup_steps=5, clip_norm=1.0, patience=0
)


@pytest.fixture(autouse=True)
def deterministic():
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def model_named(name: str, markov, device: str, dropout: float):
    torch.manual_seed(0)
    if name.startswith("recbole"):
        sasrec = name == "recbole:SASRec"
        options = dict.fromkeys(("hidden_dropout_prob", "attn_dropout_prob") if sasrec else ("dropout_prob",), dropout)
        ends = leave_one_out(markov).train_ends
        return build_model(name, markov, ends, options, seed=1, device=device, max_length=10)[0]
    options = {"hidden_size": 16, "inner_size": 32, "dropout": dropout}
    if name == "iclrec":
        chosen = ICLRec.Options(**options, attention_dropout=dropout, intents=4)
    else:
        chosen = SASRec.Options(**options)
    cls = ICLRec if name == "iclrec" else SASRec
    return cls(bare_config(chosen, 10, torch.device(device)), Ids(markov.n_items)).to(device)


def trained(name, markov, work, device="cuda", dropout=0.2, **changes):
    model, options = model_named(name, markov, device, dropout), dataclasses.replace(OPTIONS, **changes)
    outcome = train_sequence_model(
        model, leave_one_out(markov), options, validate=None, work=work, device=device, seed=3
    )
    weights = torch.cat([part.detach().flatten().cpu() for part in model.parameters()])
    return weights, [entry["loss"] for entry in outcome.history]


@pytest.mark.parametrize("name", ["sasrec", "iclrec", "recbole:SASRec", "recbole:GRU4Rec"])
def test_captured_steps_give_the_bits_of_eager_steps(name, markov, tmp_path, monkeypatch, caplog):
    with caplog.at_level(logging.INFO, logger="recllm_bench"):
        captured, losses = trained(name, markov, tmp_path / "captured")
    assert "run from Python" not in caplog.text
    monkeypatch.setattr(graphs, "WARM_UP", 10**9)
    eager, wanted = trained(name, markov, tmp_path / "eager")
    assert torch.equal(captured, eager) and losses == wanted


def test_several_steps_in_a_graph_give_the_bits_of_one(markov, tmp_path):
    (one, losses), (several, wanted) = (
        trained("sasrec", markov, tmp_path / str(count), steps_a_graph=count, batch_size=4) for count in (1, 3)
    )
    assert torch.equal(one, several) and losses == wanted


@pytest.mark.parametrize("name", ["sasrec", "recbole:SASRec", "recbole:GRU4Rec"])
def test_cuda_gives_the_numbers_of_the_cpu(name, markov, tmp_path):
    """In float32 without dropout: losses to a thousandth. cuDNN's recurrent layers take TF32 where they may."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        _, losses = trained(name, markov, tmp_path / "cuda", dropout=0.0, precision="fp32")
    _, wanted = trained(name, markov, tmp_path / "cpu", "cpu", dropout=0.0, precision="fp32")
    assert losses == pytest.approx(wanted, rel=1e-3)


@dataclasses.dataclass(frozen=True)
class Rows:
    rows: torch.Tensor


def test_a_step_that_waits_for_the_device_runs_from_python_with_one_note(tmp_path, caplog):
    torch.manual_seed(0)
    net, x = torch.nn.Linear(4, 1).cuda(), torch.randn(96, 4, device="cuda")

    def loss(batch, generator):
        noise = torch.randn(len(batch.rows), 1, generator=generator, device="cuda")
        value = (net(x[batch.rows]) - noise).square().mean()
        return value * (1.0 if float(value) < 1e9 else 0.5)

    def batches(epoch):
        return (Rows(part) for part in torch.arange(96, device="cuda").split(8))

    with caplog.at_level(logging.INFO, logger="recllm_bench"):
        outcome = fit(batches, loss, {"net": net}, None, OPTIONS, tmp_path, device="cuda", fixed=True)
    assert caplog.text.count("run from Python") == 1 and len(outcome.history) == 3


@pytest.mark.parametrize("broken", ["by an error", "by the device"])
def test_a_capture_that_breaks_off_leaves_training_as_it_was(broken, tmp_path, caplog):
    """What the watch does not see: the step, its dropout and its generator go on from Python."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1)).cuda()
    x = torch.randn(96, 4, device="cuda")

    def loss(batch, generator):
        if torch.cuda.is_current_stream_capturing():
            if broken == "by the device":
                torch.cuda.synchronize()
            raise RuntimeError("this step cannot be captured")
        noise = torch.randn(len(batch.rows), 1, generator=generator, device="cuda")
        return (net(x[batch.rows]) - noise).square().mean()

    def batches(epoch):
        return (Rows(part) for part in torch.arange(96, device="cuda").split(8))

    with caplog.at_level(logging.INFO, logger="recllm_bench"):
        outcome = fit(batches, loss, {"net": net}, None, OPTIONS, tmp_path, device="cuda", fixed=True)
    assert caplog.text.count("run from Python") == 1 and len(outcome.history) == 3


def test_em_captured_gives_the_bits_of_eager_steps(tmp_path, monkeypatch):
    from tests.models.test_latentcrs_em import engine

    found = []
    for name in ("captured", "eager"):
        em = engine(text_dropout=0.2)
        for part in (em.inference, em.generative):
            part.cuda()
        for field in dataclasses.fields(em.examples):
            value = getattr(em.examples, field.name)
            if isinstance(value, torch.Tensor):
                setattr(em.examples, field.name, value.cuda())
        modules = {"inference": em.inference, "generative": em.generative}
        options = dataclasses.replace(OPTIONS, precision="fp32", warmup_steps=0)
        fit(em.joint, em.loss, modules, None, options, tmp_path / name, device="cuda", seed=2, fixed=True)
        found.append((torch.cat([part.detach().flatten() for part in em.inference.parameters()]), em.take_curves()))
        monkeypatch.setattr(graphs, "WARM_UP", 10**9)
    assert torch.equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]
