"""Measure how fast CESRec writes pseudo-histories, beside the plain way of doing it.

    python benchmarks/cesrec.py --llm domain-llama-4m            on a CPU
    python benchmarks/cesrec.py --shape 8b --device cuda         on a GPU, random weights of Llama-3-8b's shape

benchmarks/README.md says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cesrec_plainly import PlainWriter

from recllm_bench.data.cards import default_store
from recllm_bench.data.prepare import prepare
from recllm_bench.errors import BenchError
from recllm_bench.language.backbone import Backbone, load_backbone
from recllm_bench.language.generation import generate
from recllm_bench.language.titles.lists import ListLayout
from recllm_bench.language.titles.writing import Written, write_lists
from recllm_bench.products import Linear
from recllm_bench.progress import show_log
from recllm_bench.reporting.machine import machine_facts
from recllm_bench.runner import device_named

FASTER_EDITS, FASTER_SEQUENCE = 20.0, 8.0
"""Ratios of users per second to the plain way below which ``--assert`` fails on a CPU."""
SECONDS_PER_USER, OVER_FREE = 0.15, 0.05
"""On a GPU with the 8b shape: most seconds for a user's list, and by how much writing only titles may take longer than
writing as many tokens freely."""

INSTRUCTION = (
    "Below is a numbered list of titles that a user chose, the oldest first, and a remark that the user made. Write the"
    " list again: put in place of titles that the user would now reject ones that the user would now like, leave all"
    " others as they are, keep the order, and write one numbered title a line.\n\n"
)
REMARK = "\nRemark: I am not in the mood for something like this. I would rather have a comedy of the nineties.\n\n"
_LIKED = 1e4  # added to the score of the token that is planted
_SHAPES = {
    "8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
        "rope_theta": 500000.0,
    },
    "tiny": {
        "vocab_size": 32064,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 2048,
    },
}


@dataclass
class Task:
    """Lists to rewrite: prompts whose token ``marker`` is the number of the list, and what is to come out."""

    prompts: list[list[int]]
    before: list[list[int]]
    after: list[list[int]]
    marker: int

    def some(self, count: int) -> Task:
        """The first lists."""
        return Task(self.prompts[:count], self.before[:count], self.after[:count], self.marker)


def make_task(layout: ListLayout, backbone: Backbone, histories: Any, users: int, items: int, changes: int) -> Task:
    """The newest items of users, some of which are to be replaced by titles that are not in the list."""
    generator = np.random.default_rng(0)
    tokenizer, path = backbone.tokenizer, layout.path_of_item
    titled = np.flatnonzero(layout.trie.titled.numpy())
    begin = tokenizer(INSTRUCTION)["input_ids"]
    end = tokenizer(REMARK, add_special_tokens=False)["input_ids"]
    prompts, before, after = [], [], []
    for user in generator.permutation(histories.n_users)[:users] + 1:
        old = histories.of(int(user))[-items:].astype(np.int64)
        new, closed = old.copy(), set(path[old].tolist())
        for place in generator.permutation(len(old))[:changes]:
            item = next(item for item in generator.permutation(titled) if path[item] not in closed)
            closed.add(int(path[item]))
            new[place] = layout.trie.items_of(path[item])[0]
        number = len(prompts)
        if number >= backbone.vocabulary:
            raise BenchError(f"{users} users; the language model has tokens to number {backbone.vocabulary}")
        prompts.append([*begin, number, *layout.encode_history(old), *end])
        before.append(old.tolist())
        after.append(new.tolist())
    return Task(prompts, before, after, len(begin))


class Planted:
    """A language model that does all its work, and whose answers are known: the planted token gets the best score.

    It stands for a tuned constructor, so that nothing has to be tuned to measure the time one takes. States carry the
    number of the list and the place of the token in two further columns.
    """

    def __init__(self, backbone: Backbone, task: Task, layout: ListLayout, mode: str) -> None:
        self.backbone, self.task = backbone, task
        answers = [
            layout.encode_edits(old, new) if mode == "edits" else layout.encode_sequence(new)
            for old, new in zip(task.before, task.after, strict=True)
        ]
        width = max(map(len, answers))
        table = [[*row, *[-1] * (width - len(row))] for row in answers]
        self.answers = torch.tensor(table, device=backbone.device)
        self.lengths = torch.tensor([len(prompt) for prompt in task.prompts], device=backbone.device)
        self.rows = torch.zeros(1, dtype=torch.long, device=backbone.device)
        self.seconds = 0.0  # of the language model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backbone, name)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        self.ids = ids
        return self.backbone.embed(ids)

    def advance(self, inputs, mask, positions, cache=None):
        _wait(self.backbone.device)
        start = time.perf_counter()
        states, real = self.backbone.advance(inputs, mask, positions, None if cache is None else cache.real)
        _wait(self.backbone.device)
        self.seconds += time.perf_counter() - start
        rows = torch.zeros(len(inputs), dtype=torch.long, device=inputs.device) if cache is None else cache.rows
        here = positions == self.task.marker
        rows = torch.where(here.any(1), torch.where(here, self.ids, 0).sum(1), rows)
        marks = torch.stack([rows[:, None].expand(positions.shape), positions], 2)
        return torch.cat([states.float(), marks.float()], 2), Cache(real, rows)

    def score(self, states: torch.Tensor) -> torch.Tensor:
        """The language model's own scores, and a liking for what is planted."""
        start = time.perf_counter()
        scores = self.backbone.logits(states[:, :-2].to(self.backbone.dtype))
        _wait(self.backbone.device)
        self.seconds += time.perf_counter() - start
        row, place = states[:, -2].long(), states[:, -1].long()
        at = (place + 1 - self.lengths[row]).clamp(0, self.answers.shape[1] - 1)
        token = self.answers[row, at]
        scores[torch.arange(len(row), device=token.device), token.clamp(min=0)] += _LIKED * (token >= 0)
        return scores


@dataclass
class Cache:
    """A key/value cache, and which list each of its rows is."""

    real: Any
    rows: torch.Tensor

    def batch_select_indices(self, kept: torch.Tensor) -> None:
        self.real.batch_select_indices(kept)
        self.rows = self.rows[kept]

    def batch_repeat_interleave(self, times: int) -> None:
        self.real.batch_repeat_interleave(times)
        self.rows = self.rows.repeat_interleave(times)


class Liking:
    """The same liking for the peer, one list at a time."""

    def __init__(self, answer: list[int], start: int) -> None:
        self.answer, self.start = answer, start

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, self.answer[ids.shape[1] - self.start]] += _LIKED
        return scores


# what is measured ----------------------------------------------------------------------------------------------------


def ours(backbone: Backbone, layout: ListLayout, task: Task, planted: bool, **how: Any) -> tuple[float, float, Written]:
    """Seconds, the language model's share of them, and what was written."""
    model: Any = Planted(backbone, task, layout, how["mode"]) if planted else backbone
    score = {"score": model.score} if planted else {}
    _wait(backbone.device)
    start = time.perf_counter()
    written = write_lists(model, layout, task.prompts, task.before, **how, **score)
    _wait(backbone.device)
    seconds = time.perf_counter() - start
    if planted and written.lists != task.after:
        raise BenchError(f"{how}: the lists are not those that were planted")
    return seconds, model.seconds if planted else float("nan"), written


def plainly(writer: PlainWriter, task: Task, planted: bool) -> tuple[float, list[list[int]]]:
    """Seconds of the plain way, and the lists."""
    start, lists = time.perf_counter(), []
    for prompt, before, after in zip(task.prompts, task.before, task.after, strict=True):
        liking = [Liking(writer.layout.encode_sequence(after), len(prompt))] if planted else []
        lists.append(writer.write(prompt, before, liking)[0])
    seconds = time.perf_counter() - start
    if planted and lists != task.after:
        raise BenchError("the plain way did not write the lists that were planted")
    return seconds, lists


def compare(
    backbone: Backbone, fast: Backbone, layout: ListLayout, task: Task, peer_users: int, batch_size: int, repeat: int
) -> dict[str, Any]:
    """All ways in turn; medians over ``repeat``. ``fast`` is the backbone as we hold it."""
    ways = {
        "edits": {"mode": "edits"},
        "sequence": {"mode": "sequence"},
        "sequence, no speculation": {"mode": "sequence", "speculate": False},
    }
    writer, few = PlainWriter(backbone, layout), task.some(peer_users)
    plainly(writer, task.some(1), True)
    rates: dict[str, list[float]] = {name: [] for name in (*ways, "plain")}
    shares: dict[str, list[float]] = {name: [] for name in ways}
    facts: dict[str, Any] = {}
    for how in ways.values():
        ours(fast, layout, task.some(batch_size), True, batch_size=batch_size, **how)
    for _ in range(repeat):
        for name, how in ways.items():
            seconds, model, written = ours(fast, layout, task, True, batch_size=batch_size, **how)
            rates[name].append(len(task.before) / seconds)
            shares[name].append((seconds - model) / model)
            facts[f"{name}: tokens read a user"] = sum(
                written.tokens[kind] for kind in ("prompt", "generated", "verified")
            ) / len(task.before)
        seconds, _ = plainly(writer, few, True)
        rates["plain"].append(len(few.before) / seconds)
    facts |= {f"{name}: users/s": statistics.median(values) for name, values in rates.items()}
    for name in ways:
        facts[f"{name}: ratio"] = facts[f"{name}: users/s"] / facts["plain: users/s"]
        facts[f"{name}: beside the model"] = statistics.median(shares[name])
    return facts


def own_choice(backbone: Backbone, layout: ListLayout, task: Task, peer_users: int, batch_size: int) -> dict[str, Any]:
    """Once without planted answers: the untuned model rewrites nearly every line; both sides must write the same."""
    few = task.some(peer_users)
    seconds, lists = plainly(PlainWriter(backbone, layout), few, False)
    facts: dict[str, Any] = {"own choice, plain: users/s": len(lists) / seconds}
    for name, how in (("sequence", {"mode": "sequence"}), ("edits", {"mode": "edits"})):
        seconds, _, written = ours(backbone, layout, task, False, batch_size=batch_size, **how)
        facts[f"own choice, {name}: users/s"] = len(task.before) / seconds
        facts[f"own choice, {name}: changed lines"] = written.counters["n_changed_positions"] / len(task.before)
        if name == "sequence":
            differ = sum(a != b for a, b in zip(lists, written.lists[: len(lists)], strict=True))
            facts["own choice: lists that differ"] = differ
            if differ > 0.1 * len(lists):  # where two titles score alike, rounding decides
                raise BenchError(f"{differ} of {len(lists)} lists differ from those written plainly")
    facts["own choice, sequence: ratio"] = facts["own choice, sequence: users/s"] / facts["own choice, plain: users/s"]
    facts["own choice, edits: ratio"] = facts["own choice, edits: users/s"] / facts["own choice, plain: users/s"]
    return facts


def large(backbone: Backbone, layout: ListLayout, task: Task, batch_size: int) -> dict[str, Any]:
    """Seconds a user, beside free writing of as many tokens at the same batch, for a model too large for the peer."""
    facts: dict[str, Any] = {}
    for mode in ("edits", "sequence"):
        ours(backbone, layout, task.some(batch_size), True, batch_size=batch_size, mode=mode)
        seconds, model, written = ours(backbone, layout, task, True, batch_size=batch_size, mode=mode)
        facts[f"{mode}: s a user"] = seconds / len(task.before)
        facts[f"{mode}: beside the model"] = (seconds - model) / model
        facts[f"{mode}: passes"] = written.tokens["passes"]
    edits = [layout.encode_edits(old, new) for old, new in zip(task.before, task.after, strict=True)]
    length = round(np.mean([len(row) for row in edits]))
    for some in (task.some(batch_size), task):
        _wait(backbone.device)
        start = time.perf_counter()
        generate(backbone, some.prompts, max_new_tokens=length, stop=(), batch_size=batch_size)
        _wait(backbone.device)
        facts["edits, free: s a user"] = (time.perf_counter() - start) / len(some.prompts)
    facts["edits: over free"] = facts["edits: s a user"] / facts["edits, free: s a user"] - 1
    if backbone.device.type == "cuda":
        facts["peak GiB"] = torch.cuda.max_memory_allocated(backbone.device) / 2**30
    return facts


def random_backbone(shape: str, device: torch.device, tokenizer_of: str) -> Backbone:
    """A language model of a given shape with random weights, in bfloat16 on CUDA."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from recllm_bench.locations import models_folder

    tokenizer = AutoTokenizer.from_pretrained((models_folder() or Path()) / tokenizer_of)
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


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(words: list[str] | None = None) -> int:
    """Run, print, and compare with the targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", default="domain-llama-4m", help="language model")
    parser.add_argument("--tokenizer", default="llama2-tokenizer", help="tokenizer of --shape, under RECLLM_MODELS")
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--precision", default="float32", help="of our weights; the other side keeps float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--shape", choices=sorted(_SHAPES), help="random weights of this shape; no comparison")
    parser.add_argument("--users", type=int, default=256)
    parser.add_argument("--peer-users", type=int, default=16)
    parser.add_argument("--items", type=int, default=20, help="newest items of a history that are rewritten")
    parser.add_argument("--changes", type=int, default=1, help="lines that change")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--own-choice", action="store_true", help="also without planted answers")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument("--assert", dest="demand", action="store_true", help="exit with 1 below the targets")
    arguments = parser.parse_args(words)
    show_log()
    device = device_named(arguments.device)
    if arguments.shape == "8b" and device.type != "cuda":
        print("no CUDA device here: the 8b shape was not measured; run this on a machine that has one")
        return 0
    dataset = prepare(arguments.dataset, store=default_store())
    if arguments.shape:
        backbone = random_backbone(arguments.shape, device, arguments.tokenizer)
    else:
        backbone = load_backbone(arguments.llm, device=device, precision="float32")
    layout = ListLayout.of(dataset.catalogue.titles, backbone.tokenizer, most_lines=arguments.items)
    task = make_task(layout, backbone, dataset.histories, arguments.users, arguments.items, arguments.changes)
    facts: dict[str, Any] = {
        "users": len(task.before),
        "prompt tokens": float(np.mean([len(prompt) for prompt in task.prompts])),
        "list tokens": float(np.mean([len(layout.encode_sequence(items)) for items in task.before])),
    }
    if arguments.shape:
        facts |= large(backbone, layout, task, arguments.batch_size)
        met = facts["edits: s a user"] <= SECONDS_PER_USER and facts["edits: over free"] <= OVER_FREE
    else:
        fast = load_backbone(arguments.llm, device=device, precision=arguments.precision)
        for module in backbone.model.modules():  # the plain side multiplies by PyTorch's own products
            if type(module) is Linear:
                module.__class__ = torch.nn.Linear
        sizes = (arguments.peer_users, arguments.batch_size)
        facts |= compare(backbone, fast, layout, task, *sizes, arguments.repeat)
        if arguments.own_choice:
            facts |= own_choice(backbone, layout, task, *sizes)
        met = facts["edits: ratio"] >= FASTER_EDITS and facts["sequence: ratio"] >= FASTER_SEQUENCE
    for name, value in facts.items():
        print(f"{name:<42} {value:10.3f}")
    print("targets met" if met else "targets not met")
    if arguments.json:
        about = {
            "machine": {**machine_facts(str(device)), "threads": torch.get_num_threads()},
            "llm": arguments.shape or arguments.llm,
            "dataset": arguments.dataset,
            "precision": arguments.precision,
            "items": arguments.items,
            "changes": arguments.changes,
            "batch size": arguments.batch_size,
            "peer users": arguments.peer_users,
        }
        arguments.json.write_text(json.dumps({**about, **facts}, indent=1) + "\n", encoding="utf-8")
    return int(arguments.demand and not met)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except BenchError as error:
        raise SystemExit(f"error: {error}") from None
