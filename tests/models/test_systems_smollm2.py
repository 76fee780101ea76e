"""Every system on a small real chat model, offline, through the very path that a large one takes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from recllm_bench.conversation.dialogue import Dialogue
from recllm_bench.language.chat import LocalChat
from recllm_bench.planning import resolved
from recllm_bench.recipe import recipe_from
from recllm_bench.runner import BenchCell
from recllm_bench.testing.planted import planted_files

SMALL = {"intents": 2, "text_hidden": 8, "train_repeat": 1, "negatives": 3, "warmup_epochs": 1}
SYSTEMS: dict[str, dict[str, Any]] = {
    "zero-shot": {"listed": 1},
    "chat-rec": {"candidates": 4, "recommender": "pop"},
    "interecagent": {
        "plan_tokens": 24,
        "retries": 1,
        "recommender_options": {"hidden_size": 8, "n_layers": 1},
        "recommender_training": {"epochs": 1},
    },
    "latentcrs": {
        **SMALL,
        "backbone_options": {"hidden_size": 8, "n_layers": 1, "intents": 2},
        "backbone_training": {"epochs": 1},
        "variant_output": "V",
        "verifies": 4,
    },
}


def test_all_systems_answer_offline(tmp_path, monkeypatch):
    """One batch of calls a turn (two where a plan is asked for again), tokens counted, nothing asked twice."""
    batches: list[int] = []
    ask = LocalChat.ask

    def counted(self, conversations, **parameters):
        batches.append(len(conversations))
        return ask(self, conversations, **parameters)

    monkeypatch.setattr(LocalChat, "ask", counted)
    data = planted_files(tmp_path / "data", n_users=6)
    for model, options in SYSTEMS.items():
        values = {"model": model, "dataset": str(data), "protocol": "latentcrs.one_turn", "device": "cpu"}
        recipe = recipe_from({**values, "options": options, "training": {"epochs": 1}}, "test")
        cell = BenchCell(resolved(recipe))
        loaded = cell.cell.load()
        rules = dataclasses.replace(cell.talking_job().protocol, shown_per_turn=2)
        job = dataclasses.replace(cell.talking_job(), protocol=rules)
        talks = [
            Dialogue(1, np.array([1, 2, 3], dtype=np.int32), [("user", "I want a western.")]),
            Dialogue(
                2, np.array([4], dtype=np.int32), [("user", "Hi!"), ("assistant", "1. X"), ("user", "Older.")], [5]
            ),
        ]
        batches.clear()
        answers = loaded.respond(job, talks)
        assert batches[0] == 2 and len(batches) <= (2 if model == "interecagent" else 1)
        for talk, answer in zip(talks, answers, strict=True):
            assert answer.input_tokens > 20 and answer.output_tokens > 0 and not answer.error
            assert len(answer.items) <= 2 and not set(answer.items) & set(talk.shown)
            assert len(answer.items) == 2 or model == "zero-shot", "whatever the chat model writes"
        batches.clear()
        again = loaded.respond(job, talks)
        assert not batches
        assert [(answer.items, answer.input_tokens) for answer in again] == [
            (answer.items, answer.input_tokens) for answer in answers
        ]
        columns = cell.columns(cell.split.test)
        assert all(len(column) == 6 for column in columns.values())
        said = cell.cell.method.report(cell.cell.trained[0])
        assert any(who.startswith("SmolLM2") for who in said["substitutes"].values())


@pytest.mark.parametrize("name", ["zero-shot", "chat-rec", "interecagent"])
def test_the_recipes_are_small_and_say_so(name):
    from recllm_bench.evaluation.protocols import protocol_named
    from recllm_bench.recipe import shipped_recipe

    for dataset in ("ml-100k", "ml1m"):
        recipe = resolved(recipe_from({"seed": 1, **shipped_recipe(name, dataset)}, name))
        assert protocol_named(recipe.protocol).users == recipe.conversation.users == 24
        assert (
            recipe.budget.startswith("{protocol.users} users, dialogues of {conversation.users}")
            and recipe.dataset == dataset
        )
