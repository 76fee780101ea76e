"""Measure how fast a language model answers on this machine, beside plain ``transformers.generate`` and one by one.

    python benchmarks/generation.py                       96 conversations, 48 tokens each, smollm2
    python benchmarks/generation.py --model NAME --prompts 32 --device cuda

The conversations share a system message and differ in what the user says. Answers must be equal: greedy, float32.
benchmarks/side_by_side.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side
from side_by_side import OURS, Comparison, Runner, Side, Target

from recllm_bench.errors import BenchError

FASTER, TOGETHER = 3.0, 8.0
"""Ratios below which ``--assert`` fails: against transformers at equal batches, and against one conversation a time."""
EQUAL = 0.95
"""Share of answers that must be equal to the last token; the rest may part where two tokens score alike."""
COLUMNS = {
    "seconds": "seconds",
    "tokens_per_second": "new tokens/s",
    "seconds_per_answer": "s per answer",
    "prompt_tokens": "prompt tokens",
    "peak_gib": "peak GiB",
}
SYSTEM = (
    "You are somebody who is looking for a film. Say in one or two sentences what you would like to watch, and mention"
    " every fact that you are given, nothing else. Do not name a film. Do not greet, do not explain what you are doing,"
    " and speak as people do when they ask a friend for advice."
)


def conversations(count: int, seed: int) -> list[list[dict[str, str]]]:
    """Invented facts of 2 to 40 words, log-uniform, behind one system message."""
    rng = np.random.default_rng(seed)
    words = np.array(Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split())
    found = []
    for size in np.exp(rng.uniform(np.log(2), np.log(41), count)).astype(int):
        facts = ", ".join(words[(len(words) * rng.random(size) ** 3).astype(int)])
        found.append([{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"Facts: {facts}."}])
    return found


def ours(task: dict[str, Any], batch: int, place: str) -> dict[str, Any]:
    """This project's chat with a local model, nothing cached."""
    from recllm_bench.language.chat import chat_model
    from recllm_bench.language.generation import generate

    chat: Any = chat_model(f"local:{task['model']}", cache=False, device=task["device"], batch_size=batch)
    asked = conversations(task["prompts"], task["seed"])
    backbone = chat.backbone
    generate(backbone, [[1, 2, 3]], max_new_tokens=2)
    before, start = side_by_side.resident(), time.perf_counter()
    prompts = [chat.prompt(conversation, task["tokens"]) for conversation in asked]
    answers = generate(backbone, prompts, max_new_tokens=task["tokens"], batch_size=batch)
    return _found(before, start, prompts, answers, task, Path(place) / "ours.json")


def one_by_one(task: dict[str, Any], place: str) -> dict[str, Any]:
    """The same with one conversation in a batch; of every eighth, and multiplied."""
    task = {**task, "every": 8}
    from recllm_bench.language.chat import chat_model

    chat: Any = chat_model(f"local:{task['model']}", cache=False, device=task["device"], batch_size=1)
    return _asked(chat, conversations(task["prompts"], task["seed"])[:: task["every"]], task, alone=True)


def together(task: dict[str, Any], batch: int, place: str) -> dict[str, Any]:
    """All conversations of a turn in one call, in batches as a chat model makes them."""
    from recllm_bench.language.chat import chat_model

    chat: Any = chat_model(f"local:{task['model']}", cache=False, device=task["device"])
    return _asked(chat, conversations(task["prompts"], task["seed"]), task, alone=False)


def _asked(chat: Any, asked: list[Any], task: dict[str, Any], alone: bool) -> dict[str, Any]:
    chat.complete([[{"role": "user", "content": "Hello"}]], max_tokens=2)
    before, start, known = side_by_side.resident(), time.perf_counter(), chat.usage.completion_tokens
    for part in [[each] for each in asked] if alone else [asked]:
        chat.complete(part, max_tokens=task["tokens"])
    side_by_side.wait_for(task["device"])
    seconds, tokens = time.perf_counter() - start, chat.usage.completion_tokens - known
    return {
        "before_gib": before,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "seconds_per_answer": seconds / len(asked),
    }


def plain(task: dict[str, Any], batch: int, place: str) -> dict[str, Any]:
    """``transformers.generate`` as it is: batches in the order given, padded on the left."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from recllm_bench.language.backbone_files import find_backbone

    folder = find_backbone(task["model"]).folder
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(folder).float().to(task["device"]).eval()
    ends = {model.generation_config.eos_token_id, tokenizer.eos_token_id}
    asked = conversations(task["prompts"], task["seed"])
    options = {"do_sample": False, "max_new_tokens": task["tokens"], "pad_token_id": tokenizer.pad_token_id}
    with torch.inference_mode():
        model.generate(torch.tensor([[1, 2, 3]], device=task["device"]), **{**options, "max_new_tokens": 2})
        before, start = side_by_side.resident(), time.perf_counter()
        prompts = [_plainly(tokenizer, conversation) for conversation in asked]
        answers: list[list[int]] = []
        for first in range(0, len(prompts), batch):
            part = prompts[first : first + batch]
            inputs = tokenizer.pad({"input_ids": part}, return_tensors="pt").to(task["device"])
            written = model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :].tolist()
            for row in written:
                stop = next((place for place, token in enumerate(row) if token in ends), len(row))
                answers.append(row[:stop])
    return _found(before, start, prompts, answers, task, Path(place) / "peer.json")


def _plainly(tokenizer: Any, conversation: list[dict[str, str]]) -> list[int]:
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    text = "".join(f"{message['role'].capitalize()}: {message['content']}\n" for message in conversation)
    return tokenizer(text + "Assistant:")["input_ids"]


def _found(
    before: float, start: float, prompts: list[Any], answers: list[list[int]], task: dict[str, Any], file: Path
) -> dict[str, Any]:
    side_by_side.wait_for(task["device"])
    seconds = time.perf_counter() - start
    file.write_text(json.dumps([list(map(int, row)) for row in answers]), encoding="utf-8")
    tokens = sum(map(len, answers))
    return {
        "before_gib": before,
        "seconds": seconds,
        "new_tokens": tokens,
        "prompt_tokens": sum(map(len, prompts)),
        "tokens_per_second": tokens / seconds,
    }


ACTIONS = {"ours": ours, "plain": plain, "one_by_one": one_by_one, "together": together}


def measure(given: argparse.Namespace, runner: Runner) -> list[Comparison]:
    """Answer on both sides, compare every answer; then a turn at once beside one by one."""
    task = {name: getattr(given, name) for name in ("model", "prompts", "tokens", "seed", "device")}
    what = f"{given.prompts} conversations, at most {given.tokens} new tokens, {given.model}, float32"
    with tempfile.TemporaryDirectory(prefix="recllm_bench_") as place:
        arguments = {"task": task, "batch": given.batch, "place": place}
        sides = [Side(OURS, "ours", arguments), Side("transformers.generate", "plain", arguments)]
        found = runner.compare(f"{what}, batches of {given.batch}", sides)
        mine, theirs = (json.loads((Path(place) / f"{name}.json").read_text()) for name in ("ours", "peer"))
        sides = [Side(OURS, "together", arguments), Side("one by one", "one_by_one", {"task": task, "place": place})]
        turn = runner.compare(f"{what}: a turn", sides)
    equal = sum(one == other for one, other in zip(mine, theirs, strict=True))
    found.notes.append(f"{equal} of {len(mine)} answers are equal to the last token")
    if equal < EQUAL * len(mine):
        raise BenchError(f"only {equal} of {len(mine)} answers are equal; wanted {EQUAL:.0%}")
    turn.notes.append("one by one: every eighth conversation")
    return [found.judge(Target("seconds", FASTER)), turn.judge(Target("seconds_per_answer", TOGETHER))]


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = side_by_side.parser(__doc__)
    parser.add_argument("--model", default="smollm2", help="a name that needs no hub (default: smollm2)")
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--tokens", type=int, default=48, help="most new tokens of an answer")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    return side_by_side.main(parser.parse_args(words), __file__, ACTIONS, measure, COLUMNS)


if __name__ == "__main__":
    sys.exit(main())
