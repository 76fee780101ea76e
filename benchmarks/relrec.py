"""Measure how fast ReLRec trains and ranks, beside the straightforward way of doing the same.

    python benchmarks/relrec.py --llm domain-llama-4m            on a CPU, invented data of the size of the paper's Yelp
    python benchmarks/relrec.py --llm domain-llama-4m --dataset ml-100k --precision bfloat16
    python benchmarks/relrec.py --shape 7b --device cuda         on a GPU, random weights of Llama-2-7b's shape

benchmarks/README.md says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from relrec_straightforward import Straightforward
from torch import nn

from recllm_bench.api.method import Job
from recllm_bench.artifacts import ArtifactStore
from recllm_bench.data.cards import default_store
from recllm_bench.data.histories import Histories
from recllm_bench.data.prepare import prepare
from recllm_bench.data.splits import leave_one_out, split_named
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.protocols import protocol_named
from recllm_bench.evaluation.ranks import rank_cases
from recllm_bench.language.backbone import Backbone, load_backbone
from recllm_bench.language.block_attention import attend_by_blocks
from recllm_bench.language.encoders import load_text_encoder
from recllm_bench.language.labels import Labels, extractive_labels
from recllm_bench.models.relrec.method import ReLRecMethod
from recllm_bench.models.relrec.model import ReLRec
from recllm_bench.models.relrec.packing import pack
from recllm_bench.models.relrec.trainer import Trainer
from recllm_bench.options import read_options
from recllm_bench.progress import show_log
from recllm_bench.recipe import Recipe
from recllm_bench.reporting.machine import machine_facts
from recllm_bench.runner import device_named
from recllm_bench.training.training_options import TrainingOptions

FASTER_TRAINING, FASTER_RANKING = 3.0, 5.0
"""Ratios to the straightforward way below which ``--assert`` fails on a CPU."""
TRAINING_SHARE, RANKING_SHARE, USERS_PER_SECOND, STEP_MEMORY = 0.45, 0.55, 300.0, 40.0
"""On a GPU with the 7b shape: shares of the matrix-product ceiling, users/s, and GiB of a step."""
_SHAPES = {
    "7b": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 4096,
    },
    "tiny": {
        "vocab_size": 4096,
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 1024,
    },
}


def planted(
    llm: str, device: torch.device, options: dict[str, Any], n_users: int = 11_091, seed: int = 42
) -> tuple[Job, Labels]:
    """A job on invented data of the size of the paper's Yelp corpus, with labels as long as written profiles are.

    11,091 users with 29 interactions in the mean, 11,010 items; the length of a label is log-normal around 45 words.
    There is nothing to learn: only sizes matter.
    """
    generator = np.random.default_rng(seed)
    n_items = round(n_users * 11_010 / 11_091)
    lengths = np.clip(generator.lognormal(3.05, 0.75, n_users).astype(int), 5, 400)
    popularity = 1 / (np.arange(n_items) + 20.0) ** 0.8
    items = generator.choice(n_items, int(lengths.sum()), p=popularity / popularity.sum()) + 1
    rows = np.split(items, np.cumsum(lengths)[:-1])
    histories = Histories.from_rows(rows, n_items=n_items)
    words = np.array((Path(__file__).parent / "words.txt").read_text(encoding="utf-8").split())

    def texts(count: int) -> list[tuple[str, ...]]:
        sizes = np.clip(generator.lognormal(3.75, 0.35, count).astype(int), 8, 110)
        places = (len(words) * generator.random(int(sizes.sum())) ** 4).round().astype(int)
        drawn = words[places.clip(max=len(words) - 1)]
        return [(), *((" ".join(part),) for part in np.split(drawn, np.cumsum(sizes)[:-1]))]

    dataset = SimpleNamespace(histories=histories, checksum=f"planted {seed}", name="planted")
    job = job_of("planted", dataset, leave_one_out(histories), device, llm, default_store(), options)
    return job, Labels(texts(n_users), texts(n_items), "planted", "train_only")


# what is measured ----------------------------------------------------------------------------------------------------


class Bench:
    """A model, its steps and its cases, for both sides."""

    def __init__(self, job: Job, labels: Labels, backbone: Any = None) -> None:
        self.job = job
        method = ReLRecMethod(job)
        if backbone is not None:
            method.backbone = lambda: backbone
        self.model = method.fresh()
        with torch.no_grad():  # as after some training: rows differ, so that ranks can be compared
            for table in (self.model.tables.users, self.model.tables.items):
                table.weight.add_(torch.randn_like(table.weight) * 0.3)
        self.folder = tempfile.TemporaryDirectory()
        self.trainer = Trainer(self.model, job, labels, Path(self.folder.name) / "terms.json")
        self.peer = Straightforward(self.model, self._plain_backbone())
        generator = np.random.default_rng([job.recipe.seed, 1])
        order = generator.permutation(len(self.trainer.windows))
        size = job.training.batch_size
        self.plans = [
            self.trainer.plan(order[start : start + size], generator) for start in range(0, len(order) - size + 1, size)
        ]

    def _plain_backbone(self) -> Any:
        """The language model as it is loaded without a thought: float32 on a CPU."""
        model = self.model.backbone
        if model.device.type == "cuda" or model.dtype == torch.float32:
            return model
        return load_backbone(self.job.options.llm, precision="float32", device=model.device)

    def packed_loss(self, number: int) -> torch.Tensor:
        """Our loss of a step, packing included."""
        plan = self.plans[number % len(self.plans)]
        batch = pack(self.trainer.book, plan, self.job.device, capacity=self.model.options.pack_length)
        return self.model.step_loss(batch)[0]

    def plain_loss(self, number: int) -> torch.Tensor:
        """The straightforward loss of the same step, padding included."""
        return self.peer.step_loss(self.trainer.book, self.plans[number % len(self.plans)])

    def steps(self, loss: Callable[[int], torch.Tensor], count: int, first: int = 0) -> float:
        """Seconds a training step takes."""
        parameters = [parameter for parameter in self.model.tables.parameters()]
        before = [parameter.detach().clone() for parameter in parameters]
        optimiser = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)
        _wait(self.job.device)
        start = time.perf_counter()
        for number in range(first, first + count):
            optimiser.zero_grad(set_to_none=True)
            value = loss(number)
            value.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
        _wait(self.job.device)
        seconds = (time.perf_counter() - start) / count
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
        return seconds

    def rank(self, cases: Any) -> tuple[float, np.ndarray]:
        """Seconds of our ranking, and the ranks."""
        start = time.perf_counter()
        ranks = rank_cases(
            self.model,
            self.job.split,
            cases,
            self.job.protocol,
            max_length=self.model.history_length,
            device=self.job.device,
            top=max(self.job.protocol.cutoffs),
        )
        _wait(self.job.device)
        return time.perf_counter() - start, ranks.higher

    def rank_one_by_one(self, cases: Any) -> tuple[float, np.ndarray]:
        """Seconds of the straightforward ranking, and the ranks."""
        self.model.eval()
        start = time.perf_counter()
        higher = self.peer.rank(self.job.split.histories, cases, self.model.history_length)
        _wait(self.job.device)
        return time.perf_counter() - start, higher

    def check(self) -> None:
        """Both sides compute the same loss and gradients.

        Raises
        ------
        BenchError
            When they do not.
        """
        found = []
        for loss in (self.packed_loss, self.plain_loss):
            self.model.zero_grad()
            value = loss(0)
            value.backward()
            gradients = [parameter.grad.flatten().float() for parameter in self.model.tables.parameters()]
            found.append((value.item(), torch.cat(gradients)))
        self.model.zero_grad()
        (one, ours), (two, theirs) = found
        gap = float((ours - theirs).norm() / theirs.norm())
        allowed = 1e-3 if self.model.backbone.dtype == torch.float32 else 0.1
        if abs(one - two) > allowed * abs(two) or gap > allowed:
            raise BenchError(f"the two sides differ: losses {one:.6f} and {two:.6f}, gradients by {gap:.2e}")

    def useful_tokens(self, steps: int) -> tuple[float, float]:
        """Tokens and targets of a step, in the mean."""
        some = [self.plans[number % len(self.plans)] for number in range(steps)]
        tokens = np.mean([(plan.lengths.sum(1) - 1).sum() for plan in some])
        targets = np.mean([(plan.lengths.sum(1) - plan.contexts).sum() for plan in some])
        return float(tokens), float(targets)


def compare(bench: Bench, steps: int, users: int, repeat: int) -> dict[str, float]:
    """Both sides in turn; medians over ``repeat``."""
    bench.check()
    sides = {"ours": bench.packed_loss, "straightforward": bench.plain_loss}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for loss in sides.values():
        bench.steps(loss, 2)
    for turn in range(repeat):
        for name, loss in sides.items():
            seconds[name].append(bench.steps(loss, steps, turn * steps))
    cases = bench.job.split.test
    cases = cases.take(np.sort(np.random.default_rng(0).permutation(len(cases))[:users]))
    ranking: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeat):
        ours, found = bench.rank(cases)
        theirs, wanted = bench.rank_one_by_one(cases)
        ranking["ours"].append(len(cases) / ours)
        ranking["straightforward"].append(len(cases) / theirs)
    if np.mean(np.abs(found - wanted) > 1 + 0.01 * wanted) > 0.01:
        raise BenchError("the two sides rank differently")
    facts = {f"{name} steps/s": 1 / statistics.median(values) for name, values in seconds.items()}
    facts |= {f"{name} users/s": statistics.median(values) for name, values in ranking.items()}
    facts["training ratio"] = facts["ours steps/s"] / facts["straightforward steps/s"]
    facts["ranking ratio"] = facts["ours users/s"] / facts["straightforward users/s"]
    facts["tokens of a step"] = bench.useful_tokens(steps)[0]
    return facts


def ceiling(device: torch.device, kind: torch.dtype) -> float:
    """Multiply-add operations per second of a large matrix product (two for each multiply-add)."""
    size = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    for _ in range(3):
        left @ right
    _wait(device)
    start, times = time.perf_counter(), 20 if device.type == "cuda" else 5
    for _ in range(times):
        left @ right
    _wait(device)
    return times * 2 * size**3 / (time.perf_counter() - start)


def utilisation(bench: Bench, steps: int, users: int) -> dict[str, float]:
    """Shares of the matrix-product ceiling on useful tokens, users/s and peak memory."""
    job, backbone = bench.job, bench.model.backbone
    peak = ceiling(job.device, backbone.dtype)
    layers = sum(weight.numel() for name, weight in backbone.model.named_parameters() if ".layers." in name)
    bench.steps(bench.packed_loss, 3)
    if job.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(job.device)
    seconds = bench.steps(bench.packed_loss, steps)
    memory = torch.cuda.max_memory_allocated(job.device) / 2**30 if job.device.type == "cuda" else float("nan")
    blocks = float("nan")
    if job.device.type == "cuda" and attend_by_blocks(backbone):
        bench.steps(bench.packed_loss, 3)  # compiles
        blocks = seconds / bench.steps(bench.packed_loss, steps)
    tokens, targets = bench.useful_tokens(steps)
    # Weights are frozen: backward is the product with the inputs' gradient alone, as costly as forward.
    head = 2 * backbone.vocabulary * backbone.width
    training = 2 * (2 * layers * tokens + head * targets)
    cases = job.split.test.take(np.arange(min(users, len(job.split.test))))
    bench.rank(cases.take(np.arange(min(len(cases), 512))))
    spent, _ = bench.rank(cases)
    histories = job.split.histories
    lengths = np.minimum(cases.ends - histories.offsets[cases.users - 1], bench.model.history_length)
    ranked = 2 * layers * float((lengths + bench.trainer.book.overhead).sum())
    return {
        "ceiling TFLOP/s": peak / 1e12,
        "training share": training / seconds / peak,
        "training share by blocks": blocks * training / seconds / peak,
        "steps/s": 1 / seconds,
        "tokens of a step": tokens,
        "peak GiB": memory,
        "ranking share": ranked / spent / peak,
        "users/s": len(cases) / spent,
        "items of a history": float(lengths.mean()),
    }


def random_backbone(shape: str, device: torch.device, tokenizer_of: str) -> Any:
    """A language model of a given shape with random weights, in bfloat16 on CUDA."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_backbone(tokenizer_of, device="cpu").tokenizer
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    config = LlamaConfig(**_SHAPES[shape], attn_implementation="sdpa", bos_token_id=1, eos_token_id=2, pad_token_id=0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.eval().requires_grad_(False)
    return Backbone(f"random {shape}", f"random {shape}", f"random {shape}", model, tokenizer, device, kind)


def make_job(dataset: str, device: torch.device, llm: str, store: ArtifactStore, options: dict[str, Any]) -> Job:
    """The job of ReLRec on a dataset under its own protocol."""
    protocol = protocol_named("relrec.full")
    prepared = prepare(dataset, filter=protocol.filter, store=store)
    split = split_named(protocol.split, prepared.histories, **dict(protocol.split_params))
    return job_of(dataset, prepared, split, device, llm, store, options)


def job_of(
    name: str, dataset: Any, split: Any, device: torch.device, llm: str, store: ArtifactStore, options: dict[str, Any]
) -> Job:
    """The job of ReLRec on prepared data."""
    training = read_options(TrainingOptions, ReLRec.training_defaults, "training")
    return Job(
        recipe=Recipe("relrec", name),
        dataset=dataset,
        split=split,
        protocol=protocol_named("relrec.full"),
        store=store,
        device=device,
        options=read_options(ReLRec.Options, {"llm": llm, **options}, "options"),
        training=dataclasses.replace(training, precision="fp32"),
        encode=load_text_encoder().encode,
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(words: list[str] | None = None) -> int:
    """Run, print, and compare with the targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", default="domain-llama-4m", help="language model (with --shape: its tokenizer alone)")
    parser.add_argument(
        "--dataset", default="", help="a dataset; by default invented data of the size of the paper's Yelp"
    )
    parser.add_argument("--corpus", type=int, default=11_091, help="users of the invented data; as many items")
    parser.add_argument("--precision", default="auto", help="of our frozen weights; the other side keeps float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--shape", choices=sorted(_SHAPES), help="random weights of this shape; no comparison")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--p", type=int, default=0, help="width of rows before the projection (0: an eighth of D)")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument("--assert", dest="demand", action="store_true", help="exit with 1 below the targets")
    arguments = parser.parse_args(words)
    show_log()
    device = device_named(arguments.device)
    if arguments.shape == "7b" and device.type != "cuda":
        print("no CUDA device here: the 7b shape was not measured; run this on a machine that has one")
        return 0
    width = _SHAPES[arguments.shape]["hidden_size"] if arguments.shape else load_backbone(arguments.llm).width
    options = {"p": arguments.p or width // 8, "llm_precision": arguments.precision}
    if arguments.dataset:
        job = make_job(arguments.dataset, device, arguments.llm, default_store(), options)
        labels = extractive_labels(job.dataset, job.split, seed=job.recipe.seed)
    else:
        job, labels = planted(arguments.llm, device, options, arguments.corpus)
    if arguments.shape:
        backbone = random_backbone(arguments.shape, device, arguments.llm)
        facts = utilisation(Bench(job, labels, backbone), arguments.steps, arguments.users)
        met = (
            facts["training share"] >= TRAINING_SHARE
            and facts["ranking share"] >= RANKING_SHARE
            and facts["users/s"] >= USERS_PER_SECOND
            and facts["peak GiB"] < STEP_MEMORY
        )
    else:
        facts = compare(Bench(job, labels), arguments.steps, arguments.users, arguments.repeat)
        met = facts["training ratio"] >= FASTER_TRAINING and facts["ranking ratio"] >= FASTER_RANKING
    for name, value in facts.items():
        print(f"{name:<28} {value:10.3f}")
    print("targets met" if met else "targets not met")
    if arguments.json:
        about = {
            "machine": {**machine_facts(str(device)), "threads": torch.get_num_threads()},
            "llm": arguments.shape or arguments.llm,
            "dataset": arguments.dataset or "planted",
            "steps": arguments.steps,
            "users": arguments.users,
            "repeat": arguments.repeat,
        }
        arguments.json.write_text(json.dumps({**about, **facts}, indent=1) + "\n", encoding="utf-8")
    return int(arguments.demand and not met)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except BenchError as error:
        raise SystemExit(f"error: {error}") from None
