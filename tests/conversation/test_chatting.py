"""A chat model says the facts that the rules chose: what it may keep, and what stands in for what it may not."""

from __future__ import annotations

import re

import numpy as np
import pytest

from recllm_bench.conversation.chatting import Chatting
from recllm_bench.conversation.people import People
from recllm_bench.conversation.profile import build_profiles
from recllm_bench.conversation.simulators import simulator_named
from recllm_bench.conversation.understanding import Understanding
from recllm_bench.errors import BenchError
from recllm_bench.language.chat_replies import Answer
from recllm_bench.reporting.records import read_record
from tests.conftest import planted_catalogue, planted_histories

HISTORIES, CATALOGUE = planted_histories(40, 100, 30), planted_catalogue(100)
ENDS = HISTORIES.offsets[1:] - 1


def profiles(table):
    return build_profiles(
        CATALOGUE, HISTORIES, np.arange(1, 41), ENDS, HISTORIES.items[ENDS], attributes=table, train_ends=ENDS - 1
    )


class Scripted:
    """A chat model that answers by a function of the wish and of whether it is asked again."""

    name = "scripted"

    def __init__(self, answer):
        self.answer, self.batches = answer, []

    def attempt(self, conversations, *, max_tokens, temperature=0.0, seed=0):
        self.batches.append(len(conversations))
        wishes = [re.search(r'The wish: "I want (.*)\."', talk[1]["content"])[1] for talk in conversations]
        return [Answer(self.answer(wish, len(talk) > 2)) for wish, talk in zip(wishes, conversations, strict=True)]


def spoken(answer):
    chat = Scripted(answer)
    simulator = Chatting(CATALOGUE, 3, chat=chat)
    made = profiles(simulator.attributes)
    return chat, simulator, made, simulator.open(made)


def test_what_keeps_the_facts_is_kept():
    chat, simulator, _, texts = spoken(lambda wish, again: f'"Gimme {wish}, pal!"')
    assert all(text.startswith("Gimme ") for text in texts)
    assert simulator.counts == {"asked": 40, "rewritten": 0, "replaced": 0, "lost": 0}
    assert chat.batches == [40]  # one batch


def test_what_is_wrong_is_rewritten_once():
    chat, simulator, _, texts = spoken(lambda wish, again: f"Gimme {wish}!" if again else "Gimme a western opera!")
    assert all(text.startswith("Gimme ") and "opera" not in text for text in texts)
    assert simulator.counts["replaced"] == 0 and simulator.counts["rewritten"] == chat.batches[1] > 30


@pytest.mark.parametrize(
    "bad",
    [
        lambda wish: "",
        lambda wish: "Anything at all.",
        lambda wish: f"{wish}, and it must be a western from the 1930s",
        lambda wish: f"{wish} " + "very " * 80,
        lambda wish: f"I hate {wish}",
        lambda wish: f"I want {wish}.",
        lambda wish: f'The wish: "I want {wish}',
    ],
)
def test_what_stays_wrong_is_replaced_by_the_rules(bad):
    _, simulator, made, texts = spoken(lambda wish, again: bad(wish))
    people = People(CATALOGUE, 3)
    kept = [text for text, rule in zip(texts, people.open(made), strict=True) if text != rule]
    assert len(kept) <= 2  # a wish for a western of the thirties may be just right
    assert simulator.counts["replaced"] >= 38
    reader = Understanding(CATALOGUE, simulator.attributes)
    told = reader.told(list(zip(simulator.facts_said(made), simulator.facts_refused(made), strict=True)))
    assert reader.read(texts) == told


def test_a_name_is_replaced():
    titles = dict(zip(range(101), CATALOGUE.titles, strict=True))
    chat = Scripted(lambda wish, again: "")
    simulator = Chatting(CATALOGUE, 3, chat=chat)
    made = profiles(simulator.attributes)
    named = iter([titles[profile.target] for profile in made] * 2)
    chat.answer = lambda wish, again: f"{wish} such as {next(named)}"
    texts = simulator.open(made)
    assert not any(titles[profile.target] in text for text, profile in zip(texts, made, strict=True))


def test_a_real_model_is_asked_and_what_it_says_is_safe(models_folder):
    simulator = simulator_named("local:llama2-stories260k", CATALOGUE, seed=3)
    made = profiles(simulator.attributes)[:6]
    texts = simulator.open(made)
    assert len(texts) == 6 and all(texts)
    assert simulator.simulator.counts["asked"] == 6
    assert simulator.key["simulator"].endswith("llama2-stories260k") and simulator.key["prompt"]
    assert simulator.open(made) == texts


def test_a_model_must_be_named():
    with pytest.raises(BenchError, match="local:NAME, server:MODEL@URL or"):
        simulator_named("local", CATALOGUE)


def test_what_was_replaced_is_recorded(tmp_path, models_folder):
    from recllm_bench.runner import BenchCell
    from tests.conversation.test_nothing_to_say import cell, shop

    recipe = cell(shop(tmp_path, lambda item: "Drum" if item % 2 else "Flute"), "local:llama2-stories260k")
    made = BenchCell(recipe)
    record = read_record(made.run())
    counts = {measure.about: measure.value for measure in record.measures if measure.name == "openings by a chat model"}
    assert counts["asked"] == 40 and counts["replaced"] + counts["rewritten"] <= 40
    assert record.users == "local:llama2-stories260k over 2 facts, leaves 0.05"
