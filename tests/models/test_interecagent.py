"""InteRecAgent: plans are read or refused in words, queries are bound and read-only, the buffer is as a loop has it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from recllm_bench.conversation.dialogue import Dialogue
from recllm_bench.errors import BenchError
from recllm_bench.models.systems.item_database import FILE, Condition, ItemDatabase, write_database
from recllm_bench.models.systems.plans import FALLBACK, TOLD, Step, read_plan
from recllm_bench.testing import MethodConformance
from tests.conftest import planted_catalogue
from tests.models.answering import answering, drawn

CATALOGUE = planted_catalogue(60)


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> ItemDatabase:
    path = tmp_path_factory.mktemp("items") / FILE
    write_database(path, CATALOGUE)
    return ItemDatabase(path)


def test_queries_against_a_loop(database):
    years, genres = CATALOGUE.years, CATALOGUE.categories
    cases = [
        ([Condition("category", "is", "drama")], lambda item: "Drama" in genres[item]),
        ([Condition("category", "not", "Drama")], lambda item: "Drama" not in genres[item]),
        ([Condition("year", "from", 1960), Condition("year", "to", 1969)], lambda item: 1960 <= years[item] < 1970),
        ([Condition("year", "is", int(years[3]))], lambda item: years[item] == years[3]),
        ([Condition("title", "has", "STORY 1")], lambda item: str(item).startswith("1")),
        ([Condition("title", "is", "invented story 7")], lambda item: item == 7),
        ([], lambda item: True),
        ([Condition("category", "is", "Nothing")], lambda item: False),
    ]
    for conditions, fits in cases:
        assert database.query(conditions) == [item for item in range(1, 61) if fits(item)], conditions


@pytest.mark.parametrize("value", ["'; DROP TABLE items; --", "Drama' OR '1'='1", 'x") UNION SELECT 1 --', "%", "\0"])
def test_a_value_is_never_part_of_the_statement(database, value):
    assert database.query([Condition("category", "is", value)]) == []
    assert len(database.query([])) == 60


def test_the_database_cannot_be_written(database):
    import sqlite3

    for statement in ("DELETE FROM items", "CREATE TABLE more (x)", "ATTACH ':memory:' AS other"):
        with pytest.raises(sqlite3.Error):
            database._database.execute(statement)
            database._database.execute("CREATE TABLE other.x (y)")


@pytest.mark.parametrize("condition", [("price", "is", "1"), ("category", "from", "a"), ("year", "is", "1990 OR 1")])
def test_conditions_that_there_are_not_are_refused(database, condition):
    with pytest.raises(BenchError):
        database.query([Condition(*condition)])


def test_a_number_too_large_is_the_plans_fault(database):
    with pytest.raises(BenchError, match="cannot be run"):
        database.query([Condition("year", "is", 10**30)])


def test_a_query_that_takes_too_many_steps_is_stopped(database, monkeypatch):
    from recllm_bench.models.systems import item_database

    monkeypatch.setattr(item_database, "_STEPS", 1)
    with pytest.raises(BenchError, match="interrupted"):
        database.query([Condition("category", "not", "Drama")])


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ('[{"tool": "rank"}]', (Step("rank"),)),
        ('Sure: {"tool": "rank", "why": 1} done', (Step("rank"),)),
        (
            '```json\n[{"tool": "query", "where": [["category", "is", " Drama "], ["year", "from", "1990"]]}]\n```',
            (Step("query", (Condition("category", "is", "Drama"), Condition("year", "from", 1990))),),
        ),
        (
            '[{"tool": "similar", "titles": "Night"}, {"tool": "rank"}]',
            (Step("similar", titles=("Night",)), Step("rank")),
        ),
    ],
)
def test_plans_are_read(text, plan):
    assert read_plan(text) == plan


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON list"),
        ("I would query dramas", "no JSON list"),
        ("[1, 2]", "no JSON list"),
        ("[]", "no JSON list"),
        ('[{"tool": "drop table"}]', "no tool"),
        ('[{"tool": "rank"}, 3]', "no tool 3"),
        ('[{"tool": "query"}]', 'needs "where"'),
        ('[{"tool": "query", "where": [["category", "Drama"]]}]', "a condition is"),
        ('[{"tool": "query", "where": [["price", "is", "1"]]}]', "no condition"),
        ('[{"tool": "query", "where": [["year", "from", "the 90s"]]}]', "four digits"),
        ('[{"tool": "query", "where": [["year", "from", true]]}]', "four digits"),
        ('[{"tool": "query", "where": [["category", "is", ["Drama"]]]}]', "write a word"),
        ('[{"tool": "similar", "titles": []}]', 'needs "titles"'),
        (json.dumps([{"tool": "rank"}] * 7), "too many"),
    ],
)
def test_plans_that_cannot_be_run_are_refused_in_words(text, reason):
    with pytest.raises(BenchError, match=reason):
        read_plan(text)


def test_the_example_that_is_told_is_a_plan():
    assert [step.tool for step in read_plan(TOLD.partition("For example: ")[2])] == ["query", "rank"]


def plans(messages: list[dict]) -> str:
    """A query for one genre and the rank; every third user gets words at first, every ninth for good."""
    place = drawn(messages[:2], 9, 1)[0]
    if place == 9 or (place % 3 == 0 and len(messages) == 2):
        return "I would look for something nice."
    genre = ("Action", "Comedy", "Drama", "Horror", "Romance", "Western")[drawn(messages[:2], 6, 1)[0] - 1]
    return json.dumps([{"tool": "query", "where": [["category", "is", genre]]}, {"tool": "rank"}])


class TestInteRecAgent(MethodConformance):
    """Against a server, with a small sequence model."""

    method = "interecagent"
    protocol = "latentcrs.one_turn"
    chosen: ClassVar[dict[str, Any]] = {
        "listed": 8,
        "retries": 1,
        "recommender_options": {"hidden_size": 8, "n_layers": 1},
        "recommender_training": {"epochs": 1},
    }
    changes: ClassVar[dict[str, Any]] = {"retries": 0, "similar": 9, "recommender_options": {"hidden_size": 4}}

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def server(cls):
        with answering(plans) as (spec, server):
            cls.options = {**cls.chosen, "chat": spec}
            yield server

    def test_failed_plans_are_asked_again_and_counted(self, trained, place):
        """With the reason; what fails for good falls back to the taste alone."""
        cell = self.cell_of(place)
        with answering(plans) as (spec, server):
            cell = self.cell_of(place, options={"chat": spec})
            cell.cell.load()
            cell.columns(cell.split.test)
            asked = [body["messages"] for body in server.bodies]
        first = [messages for messages in asked if len(messages) == 2]
        places = [drawn(messages, 9, 1)[0] for messages in first]
        again = [messages for messages in asked if len(messages) == 4]
        assert len(first) == 40 and len(again) == sum(number % 3 == 0 for number in places) > 0
        assert all("That plan cannot be run: there is no JSON list" in messages[3]["content"] for messages in again)
        found = {measure.label: measure.value for measure in cell.cell.method.report({})["measures"]}
        assert found["plans that could not be read, share, one turn"] == pytest.approx(places.count(9) / 40)
        assert found["plans asked for again, a plan, one turn"] == pytest.approx(len(again) / 40)
        assert found["calls a turn, one turn"] == pytest.approx(1 + len(again) / 40)

    def test_a_plan_is_run_as_a_loop_would(self, trained):
        """Query, similar and rank against plain Python; a step that leaves nothing is undone."""
        cell = trained[0]
        cell.cell.load()
        method, catalogue = cell.cell.method, cell.dataset.catalogue
        scores = torch.randn(41, generator=torch.Generator().manual_seed(1))
        scores[[0, 4, 9]] = -torch.inf
        order = sorted((item for item in range(41) if scores[item] > -torch.inf), key=lambda item: -scores[item])
        counts: Counter[str] = Counter()
        western = (Condition("category", "is", "Western"),)
        fits = [item for item in order if "Western" in catalogue.categories[item]]
        assert method.run([Step("query", western), Step("rank")], scores, 3, counts) == fits[:3]
        both = [Step("query", western), Step("query", (Condition("year", "from", 2500),)), Step("rank")]
        assert method.run(both, scores, 3, counts) == fits[:3] and counts["empty"] == 1
        everything = method.run([Step("query", western)], scores, 20, counts)
        assert everything == [*fits, *(item for item in order if item not in fits)][:20]
        assert (counts["filled"], counts["unsorted"]) == (int(len(fits) < 20), 1)
        assert method.run(FALLBACK, scores, 5, counts) == order[:5]
        vectors = method.vectors.numpy()
        method.options = type(method.options)(similar=6)
        seed = method.said.index("The Story of 12")
        near = sorted(order, key=lambda item: -float(vectors[item] @ vectors[seed]))[:6]
        step = Step("similar", titles=("The Story of 12", "Of No Story"))
        assert method.run([step, Step("rank")], scores, 4, counts) == [item for item in order if item in near][:4]
        assert counts["unknown titles"] == 1
        assert method.run([Step("similar", titles=("Of No Story",))], scores, 2, counts) == order[:2]

    def test_a_row_without_item_vectors_is_refused(self, place):
        """Nothing could be similar."""
        with pytest.raises(BenchError, match=r"recommender=pop has no item vectors .* name sasrec or iclrec"):
            self.cell_of(place, options={"recommender": "pop"}).check()

    def test_the_dialogue_is_in_the_plans_prompt(self, trained, server):
        """All that was said, the tools last."""
        talk = Dialogue(
            2, np.array([1, 2], dtype=np.int32), [("user", "Hi."), ("assistant", "1. X"), ("user", "Older.")]
        )
        trained[0].cell.load().respond(trained[0].talking_job(), [talk])
        asked = next(body["messages"] for body in server.bodies[::-1] if len(body["messages"]) == 4)
        assert [message["role"] for message in asked] == ["system", "user", "assistant", "user"]
        assert asked[-1]["content"] == f"Older.\n\n{TOLD}"
