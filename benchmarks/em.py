"""Measure an epoch of LatentCRS' variational EM, beside a plain implementation that encodes every batch anew.

    python benchmarks/em.py                     ml1m, 512 intents, the options of the published runs
    python benchmarks/em.py --dataset ml-100k --intents 64 --peer-steps 10

Both sides have the same networks, records, batches, losses and optimiser, and their losses are compared before anything
is timed. benchmarks/README.md says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side
from em_plainly import Plain
from side_by_side import OURS, Comparison, Curve, Runner, Side, Target

from recllm_bench.errors import BenchError

FASTER = 30.0
"""Ratio below which ``--assert`` fails."""
COLUMNS = {
    "seconds": "s an epoch",
    "products": "s of products",
    "once": "s before epochs",
    "steps": "steps",
    "e_loss": "E loss",
    "m_loss": "M loss",
    "peak_gib": "peak GiB",
    "cuda_gib": "CUDA GiB",
}
KINDS = {
    "products": ("linear_pointwise", "aten::mm", "aten::addmm"),
    "gathering rows": ("index", "embedding", "aten::cat"),
    "normalisation, ReLU, dropout": ("layer_norm", "threshold", "clamp", "relu", "random_"),
    "softmax, logarithms, sums": ("softmax", "aten::log", "aten::exp", "aten::sum", "aten::dot"),
    "products of elements, copies": ("aten::mul", "aten::add", "aten::sub", "aten::div", "aten::copy_", "aten::ge"),
    "optimiser": ("adamw", "Optimizer"),
}
"""Parts of operators' names, by kind of work."""
_TEXT_WIDTH = 384
PLAIN = "plain PyTorch"


@dataclass
class Work:
    """What both sides are given."""

    options: Any
    encoder: Any
    histories: Any
    records: Any
    negatives: Any
    intents: Any
    texts: Any
    items: Any
    device: str
    batch_size: int

    @property
    def length(self) -> int:
        """Items of a history: a record without its target."""
        return self.options.window - 1

    def networks(self) -> tuple[Any, Any]:
        """Fresh networks, the same at each call."""
        import torch

        from recllm_bench.models.latentcrs.networks import GenerativeNet, InferenceNet

        torch.manual_seed(1)
        inference = InferenceNet(self.intents, self.options).to(self.device)
        return inference, GenerativeNet(self.intents, _TEXT_WIDTH, self.options).to(self.device)


def work(dataset: str, users: int, intents: int, batch_size: int, device: str, dropout: bool = True) -> Work:
    """Records of a dataset, an encoder of the published shape, random intents, one random utterance for each item.

    What is learnt does not matter to the time of a step, so that the encoder need not be trained.
    """
    import torch

    from recllm_bench.api.registry import resolve
    from recllm_bench.data.histories import Histories
    from recllm_bench.data.prepare import prepare
    from recllm_bench.data.splits import leave_one_out
    from recllm_bench.data.windows import DeviceHistories
    from recllm_bench.models.latentcrs.backbone import frozen_items
    from recllm_bench.models.latentcrs.options import LatentCRSOptions
    from recllm_bench.models.latentcrs.records import draw_negatives, training_records
    from recllm_bench.recbole_bridge import build_model

    whole = prepare(dataset).histories
    n_users = min(users or whole.n_users, whole.n_users)
    offsets = np.asarray(whole.offsets[: n_users + 1])
    histories = Histories(np.asarray(whole.items[: offsets[-1]]), offsets, whole.n_items)
    split = leave_one_out(histories)
    without = {} if dropout else {"text_dropout": 0.0, "encoder_dropout_in_train": False}
    options = LatentCRSOptions(intents=intents, w_nce=0.0, w_rec=5.0, w_e_rec=5.0, **without)
    encoder = build_model(
        resolve("models", "iclrec"), histories, split.train_ends, {}, seed=1, device=device, max_length=50
    )[0]
    encoder.eval().requires_grad_(False)
    records = training_records(histories, split.train_ends, options.window)
    drawn = draw_negatives(
        histories,
        records,
        options.negatives,
        options.train_repeat,
        exclude=options.neg_exclude,
        window=options.window,
        seed=1,
    )
    generator = torch.Generator().manual_seed(1)
    items = frozen_items(encoder)
    centroids = torch.nn.functional.normalize(torch.randn(intents, items.shape[1], generator=generator), dim=1)
    texts = torch.nn.functional.normalize(torch.randn(whole.n_items + 1, _TEXT_WIDTH, generator=generator), dim=1)
    return Work(
        options,
        encoder,
        DeviceHistories(histories, device),
        records,
        torch.from_numpy(drawn).to(device),
        centroids.to(device),
        texts.to(device),
        items,
        device,
        batch_size,
    )


def _ours(given: Work, together: int = 1) -> tuple[Any, Any, Any]:
    """Networks, and EM over states that are computed once, with so many steps a launch."""
    import torch

    from recllm_bench.models.latentcrs.backbone import encode_cases
    from recllm_bench.models.latentcrs.em import Examples, ExpectationMaximisation

    options, encoder = given.options, given.encoder
    words = (encoder, given.histories, given.records, given.length, options.pad_to)
    clean, noisy = encode_cases(*words), None
    if options.encoder_dropout_in_train:
        encoder.train()
        noisy = torch.stack([encode_cases(*words) for _ in range(options.train_repeat)])
        encoder.eval()
    targets = torch.from_numpy(given.records.targets).long().to(given.device)
    examples = Examples(targets, given.negatives, targets, given.texts, given.items, clean, noisy)
    inference, generative = given.networks()
    em = ExpectationMaximisation(inference, generative, examples, options, given.batch_size, seed=1, together=together)
    return inference, generative, em


# what runs in processes of its own ---------------------------------------------------------------------------------


def ours(together: int = 1, **arguments: Any) -> dict[str, Any]:
    """A joint epoch by the project's loop; the states that it reads are computed before, and timed apart."""
    from recllm_bench.training.loop import fit, threads
    from recllm_bench.training.training_options import TrainingOptions

    given = work(**arguments)
    before, start = side_by_side.resident(), time.perf_counter()
    inference, generative, em = _ours(given, together)
    side_by_side.wait_for(given.device)
    once = time.perf_counter() - start
    training = TrainingOptions(epochs=2, patience=0, learning_rate=1e-3, precision="fp32")
    with tempfile.TemporaryDirectory() as folder, threads(2):
        modules = {"inference": inference, "generative": generative}
        outcome = fit(
            em.joint,
            em.loss,
            modules,
            None,
            training,
            Path(folder),
            device=given.device,
            seed=1,
            label="EM",
            fixed=True,
        )
    steps = -(-len(given.records) * given.options.train_repeat // given.batch_size)
    found = {"before_gib": before, "seconds": outcome.history[-1]["seconds"], "once": once, "steps": 2 * steps}
    with threads(2):
        found["products"] = steps * _products(given)
        if given.device == "cpu":
            found["profile"] = _profile(inference, generative, em)
    return found


def _profile(inference: Any, generative: Any, em: Any) -> dict[str, float]:
    """Shares of the time of a few steps of both passes, by kind of work, tables of frozen distributions apart."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    optimiser = torch.optim.AdamW([*inference.parameters(), *generative.parameters()], lr=1e-3, fused=True)
    em.together = 1
    spent = dict.fromkeys((*KINDS, "other, dispatch included"), 0.0)
    for stream in (em.e_pass(3), em.m_pass(3)):
        next(stream)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            for batch in itertools.islice(stream, 40):
                optimiser.zero_grad(set_to_none=True)
                em.loss(batch).backward()
                optimiser.step()
        for event in profiler.key_averages():
            kind = next((kind for kind, words in KINDS.items() if any(word in event.key for word in words)), None)
            spent[kind or "other, dispatch included"] += event.self_cpu_time_total
    return {kind: seconds / sum(spent.values()) for kind, seconds in spent.items()}


def _products(given: Work) -> float:
    """Seconds of the large matrix products of an E-step and an M-step, nothing else: the floor under these steps."""
    import torch

    from recllm_bench.products import linear

    width, intents, rows = given.items.shape[1], given.options.intents, given.batch_size
    hidden, pair = given.options.text_hidden, (width, intents)
    shapes = [(_TEXT_WIDTH, hidden), (hidden, width), (2 * width, 2 * width), (2 * width, width), (width, width)]
    shapes += [pair, pair[::-1], (width, width), pair, pair[::-1], (width, width)]  # M: prior and query; E: q and query
    layers = [
        [torch.randn(*shape, device=given.device) for shape in ((rows, inner), (outer, inner), (rows, outer))]
        for inner, outer in shapes
    ]
    seconds = []
    for _ in range(60):
        start = time.perf_counter()
        for number, (x, weight, gradient) in enumerate(layers):
            linear(x, weight)
            # the gradient of the weights, in the order in which oneDNN is faster
            linear(*((gradient.T, x.T) if gradient.shape[1] < 3 * x.shape[1] else (x.T, gradient.T)))
            if number:  # texts need no gradient
                linear(gradient, weight.T)
        side_by_side.wait_for(given.device)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def plain(timed: int, **arguments: Any) -> dict[str, Any]:
    """``timed`` steps of each pass, and what all of them would take, by PyTorch's own products."""
    import torch

    from recllm_bench import products

    products._operator = lambda: None
    given = work(**arguments)
    side = Plain(given)
    before = side_by_side.resident()
    count = len(given.records)
    order = np.random.default_rng(1).permutation(count * given.options.train_repeat)
    batches = [order[start : start + given.batch_size] for start in range(0, len(order), given.batch_size)]
    seconds = 0.0
    for loss, network in ((side.e_loss, side.inference), (side.m_loss, side.generative)):
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
        start = 0.0
        for number, batch in enumerate(batches[: timed + 2]):
            if number == min(2, len(batches) - 1):  # the first two warm up
                side_by_side.wait_for(given.device)
                start, first = time.perf_counter(), number
            optimiser.zero_grad()
            value = loss(batch % count, batch // count)
            value.backward()
            optimiser.step()
            value.item()
        side_by_side.wait_for(given.device)
        done = len(batches[: timed + 2]) - first
        seconds += (time.perf_counter() - start) * len(batches) / done
    return {"before_gib": before, "seconds": seconds, "steps": 2 * len(batches), "timed_steps": 2 * done}


def check(**arguments: Any) -> dict[str, Any]:
    """Losses of one batch on both sides, without dropout."""
    import torch

    from recllm_bench.models.latentcrs.em import Batch

    given = work(**arguments, dropout=False)
    given.items.mul_(20)  # as after some training: every term of a loss then has a say
    inference, generative, em = _ours(given)
    side = Plain(given)
    with torch.no_grad():
        for network in (inference, generative, side.inference, side.generative):
            for parameter in network.parameters():
                parameter.mul_(2)
    rows = np.random.default_rng(2).permutation(len(given.records))[: given.batch_size]
    repeats = np.random.default_rng(3).integers(0, given.options.train_repeat, len(rows))
    found = {"seconds": 0.0}
    for phase, network_pass, theirs in (("e", em.e_pass, side.e_loss), ("m", em.m_pass, side.m_loss)):
        next(iter(network_pass(1)))  # freezes one side and fills its table
        chosen = (torch.from_numpy(rows).to(given.device), torch.from_numpy(repeats).to(given.device))
        found[f"{phase}_ours"] = float(em.loss(Batch(phase, *chosen)))
        found[f"{phase}_plain"] = float(theirs(rows, repeats))
    return found


ACTIONS = {"ours": ours, "plain": plain, "check": check}


def _arguments(given: argparse.Namespace) -> dict[str, Any]:
    data = {"dataset": given.dataset, "users": given.users}
    return {**data, "intents": given.intents, "batch_size": given.batch_size, "device": given.device}


def measure(given: argparse.Namespace, runner: Runner) -> list[Comparison]:
    """Compare the losses, then the epochs."""
    arguments = _arguments(given)
    losses = runner.once(Side("losses of both sides", "check", arguments), "compare ")
    for phase in "em":
        one, two = losses[f"{phase}_ours"], losses[f"{phase}_plain"]
        if abs(one - two) > 1e-4 * max(1.0, abs(two)):
            raise BenchError(f"the two sides differ: the {phase.upper()}-pass' loss is {one:.6f} and {two:.6f}")
    sides = [
        Side(OURS, "ours", arguments),
        Side(PLAIN, "plain", {**arguments, "timed": given.peer_steps}),
    ]
    found = runner.compare(f"LatentCRS: an EM epoch on {given.dataset}, {given.intents} intents", sides)
    for name, key in ((OURS, "ours"), (PLAIN, "plain")):
        found.medians[name] |= {f"{phase}_loss": losses[f"{phase}_{key}"] for phase in "em"}
    run = found.runs[PLAIN][0]
    found.notes += [
        f"{PLAIN}: {run['timed_steps']} of {run['steps']} steps were timed, after two of each pass to warm up",
        "s before epochs: states of all records, computed once for a whole training; no part of the epoch",
        "losses are of one batch, without dropout",
    ]
    if given.device == "cpu":
        found.notes.append(f"profile of our steps: {_shares(found.runs[OURS])}")
    return [found.judge(Target("seconds", FASTER))]


def _shares(runs: list[dict[str, Any]]) -> str:
    """Median share of each kind of work."""
    shares = {kind: np.median([run["profile"][kind] for run in runs]) for kind in runs[0]["profile"]}
    return ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items())


def grow(given: argparse.Namespace, runner: Runner) -> list[Curve]:
    """Seconds of an epoch over intents and over the size of a batch."""
    curves = []
    for name, sizes in (("intents", (64, 128, 256, 512)), ("batch_size", (120, 240, 480, 960))):
        sides = {size: Side(OURS, "ours", {**_arguments(given), name: size}) for size in sizes}
        curves.append(runner.curve("EM epoch", name, sides))
    return curves


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = side_by_side.parser(__doc__)
    parser.add_argument("--dataset", default="ml1m")
    parser.add_argument("--users", type=int, default=0, help="only the first users (default: all)")
    parser.add_argument("--intents", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=480)
    parser.add_argument("--peer-steps", type=int, default=20, help="steps of each pass that the plain side is timed on")
    return side_by_side.main(parser.parse_args(words), __file__, ACTIONS, measure, COLUMNS, grow)


if __name__ == "__main__":
    sys.exit(main())
