"""Chat-Rec: candidates of a trained row, put in order by a chat model; nothing that it writes can add an item."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from recllm_bench.conversation.dialogue import Dialogue
from recllm_bench.conversation.dialogue_state import State, StateReader
from recllm_bench.language.ordering import read_order, reordered
from recllm_bench.models.systems.listing import LISTED
from recllm_bench.models.systems.recommender import best_first
from recllm_bench.testing import MethodConformance
from tests.conftest import planted_catalogue
from tests.models.answering import answering, drawn


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("3, 1, 2", [2, 0, 1]),
        ("3 > 1 > 9 > 3", [2, 0]),
        ("Sure!\n2, 4\nBecause 1 is old.", [1, 3]),
        ("The order: 4 2", [3, 1]),
        ("3\n1\n2", [2, 0, 1]),
        ("1. 4\n2. 1", [3, 0]),
        ("1. Night Train\n2. The Long Road (1990)\n3. Invented", [1, 0]),
        ("3. Night Train", [1]),
        ("Night Train to Lisbon, or Night Train", [3]),
        ("I like 12 Angry Men and 1995.", None),
        ("none fits", None),
        ("0, 5, 17", None),
        ("2.5", None),
        ("", None),
    ],
)
def test_an_order_is_read_as_it_is_written(text, order):
    assert read_order(text, ["The Long Road", "Night Train", "Blue Harbour", "Night Train to Lisbon"]) == order


def test_what_is_not_named_keeps_its_place_behind():
    assert reordered("abcd", [2, 0]) == list("cabd")
    assert reordered("abcd", []) == list("abcd")


def test_the_best_come_first_and_equal_ones_by_id():
    scores = torch.tensor([[-torch.inf, 1.0, 3.0, 3.0, -torch.inf], [-torch.inf, -torch.inf, -torch.inf, 0.0, 0.0]])
    assert best_first(scores, 3) == [[2, 3, 1], [3, 4]]


def test_later_words_correct_earlier_ones():
    states, state = StateReader(planted_catalogue(20)), State()
    drama, western = (states.reader.terms.index((name,)) for name in ("drama", "western"))
    for text in ("I want a drama.", "No, not a drama, rather a western.", "Anything."):
        state = states.add(state, text)
    assert (set(state.wanted), set(state.unwanted)) == ({western}, {drama})


def by_hash(messages: list[dict]) -> str:
    """An order of the first five candidates that depends on all that was said, and a number that is none."""
    return "99, " + ", ".join(map(str, drawn(messages, 5, 5))) + "\nThey fit your words."


class TestChatRec(MethodConformance):
    """Against a server, with the row that trains in a moment."""

    method = "chat-rec"
    protocol = "latentcrs.one_turn"
    changes: ClassVar[dict[str, Any]] = {"candidates": 5, "retrieve": "history", "recommender": "recent-knn"}

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def server(cls):
        with answering(by_hash) as (spec, server):
            cls.options = {"chat": spec, "listed": 8, "candidates": 10, "recommender": "pop"}
            yield server

    def test_the_chat_model_orders_what_fits(self, trained, server):
        """The candidates fit the words as long as there are any; the first five are as the answer orders them."""
        cell = trained[0]
        method, model = cell.cell.method, cell.cell.load()
        talk = Dialogue(2, np.array([1, 2], dtype=np.int32), [("user", "I want a western.")], [])
        talk.shown = [item for item in range(1, 41) if "Western" in cell.dataset.catalogue.categories[item]][:1]
        (response,) = model.respond(cell.talking_job(), [talk])
        found = best_first(method._fitting([talk], method.recommender.scores([talk], [set(talk.shown)])), 10)[0]
        western = ["Western" in cell.dataset.catalogue.categories[item] for item in found]
        assert western == sorted(western, reverse=True) and any(western)
        asked = server.bodies[-1]["messages"]
        assert response.items == [found[place - 1] for place in drawn(asked, 5, 5)]
        lines = asked[0]["content"].split("Candidates:\n")[1].splitlines()
        assert len(lines) == 10 and lines[0].startswith(f"1. {method.said[found[0]]} (19")

    def test_a_reason_is_said_where_it_is_asked_for(self, trained, place):
        """The sentence after the numbers, and the titles."""
        cell = self.cell_of(place, options={"explain": True})
        talk = Dialogue(2, np.array([1, 2], dtype=np.int32), [("user", "I want a western.")])
        (response,) = cell.cell.load().respond(cell.talking_job(), [talk])
        assert response.say.startswith("They fit your words.\n1. The Story of")

    def test_an_answer_without_numbers_keeps_the_order(self, trained, place):
        """It is counted."""
        with answering(lambda messages: "I would rather not say.") as (spec, _):
            cell = self.cell_of(place, options={"chat": spec, "retrieve": "history"})
            listed = cell.columns(cell.split.test)[LISTED]
            report = {measure.label: measure.value for measure in cell.cell.method.report({})["measures"]}
        assert report["answers without an order, share, one turn"] == 1
        assert (listed == listed[0]).mean() > 0.9, "popularity's order, the same for all"
