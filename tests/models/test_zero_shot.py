"""The zero-shot row: what a chat model names is what is ranked, and nothing that it invents counts."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from recllm_bench.conversation.dialogue import Dialogue
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.places import UNRANKED
from recllm_bench.language.asking import Cost, ask, spent, timed
from recllm_bench.language.chat import chat_model
from recllm_bench.language.titles.matching import TitleMatcher
from recllm_bench.language.titles.naming import named_items, validity
from recllm_bench.models.systems.listing import LISTED
from recllm_bench.testing import MethodConformance
from tests.models.answering import answering, drawn

TITLES = ["", "The Long Road", "Night Train", "Night Train", "Blue Harbour", ""]


def named(text: str, most: int = 5, forbid: Any = (), prefer: Any = ()) -> tuple[list[int], dict]:
    popularity = np.array([0, 1, 1, 9, 1, 0])
    matcher = TitleMatcher(TITLES, encoder=None, popularity=popularity)
    lists, counts = named_items([text], matcher, most, [set(forbid)], [list(prefer)])
    return lists[0], dict(counts)


def test_titles_are_found_and_the_rest_is_dropped():
    items, counts = named("1. Night Train\n2. The Lomg Road\n3. Invented Here\n4. night train.\n5. Blue Harbour (1999)")
    assert items == [3, 1, 4], "the more popular of two that share a title; none twice; nothing invented"
    assert counts == {
        "answers": 1, "without a title": 0, "lines": 5, "exact": 3, "fuzzy": 1, "embed": 0, "none": 1, "repeated": 1,
        "forbidden": 0,
    }  # fmt: skip


def test_what_was_shown_is_not_named_again_and_the_past_decides_between_copies():
    assert named("1. Night Train", prefer=[2])[0] == [2]
    assert named("1. Night Train\n2. Blue Harbour", forbid=[2, 3, 4]) == (
        [],
        {
            "answers": 1, "without a title": 1, "lines": 2, "exact": 2, "fuzzy": 0, "embed": 0, "none": 0,
            "repeated": 0, "forbidden": 2,
        },
    )  # fmt: skip
    assert named("1. Night Train", forbid=[3])[0] == [2], "the other copy is still free"


def test_lines_after_the_last_item_wanted_are_not_counted():
    items, counts = named("1. Blue Harbour\n2. Night Train\n3. Nonsense", most=2)
    assert (items, counts["lines"], counts["none"]) == ([4, 3], 2, 0)


def test_validity_is_before_any_guess():
    *_, counts = named_items(
        ["1. Night Train\n2. The Lomg Road\n3. Nothing"], TitleMatcher(TITLES, encoder=None), 5, [()]
    )
    assert validity(counts) == pytest.approx(1 / 3)


def test_costs_go_to_the_dialogues_that_caused_them():
    with answering(lambda messages: messages[-1]["content"]) as (spec, server):
        chat, costs = chat_model(spec), [Cost() for _ in range(3)]
        said = [[{"role": "user", "content": text}] for text in ("a", "b")]
        with timed(costs):
            assert ask(chat, said, [costs[0], costs[2]], max_tokens=5) == ["a", "b"]
        ask(chat, said[:1], costs[:1], max_tokens=5)
        assert [(cost.calls, cost.input_tokens, cost.output_tokens) for cost in costs] == [
            (2, 14, 6),
            (0, 0, 0),
            (1, 7, 3),
        ]
        assert len(server.bodies) == 2, "an answer that is known costs what it did, and is not asked for again"
        assert costs[0].seconds == costs[1].seconds > 0
        assert ask(chat, [], [], max_tokens=5) == []


def test_an_answer_that_is_given_up_ends_one_dialogue_alone(tmp_path):
    with answering(lambda messages: "1. Night Train") as (spec, server):
        plain = server.reply
        server.reply = lambda body, number: (
            (500, "down") if body["messages"][-1]["content"] == "b" else plain(body, number)
        )
        chat = chat_model(spec, cache=tmp_path / "answers.jsonl", attempts=2, backoff=0.01)
        costs = [Cost(), Cost()]
        said = [[{"role": "user", "content": text}] for text in ("a", "b")]
        assert ask(chat, said, costs, max_tokens=5) == ["1. Night Train", ""]
    assert [cost.error for cost in costs] == ["", "small gave no answer"]
    found = {measure.label: measure.value for measure in spent(costs, "dialogues", chat)}
    assert found["turns without an answer, dialogues"] == 1 and found["tokens read a turn, dialogues"] == 3.5


def test_a_price_is_told_where_the_table_has_one(tmp_path, monkeypatch):
    table = tmp_path / "prices.yaml"
    table.write_text("small: {input: 2.0, output: 10.0}\n")
    costs = [Cost(1, 1000, 100), Cost(2, 3000, 500)]
    with answering(lambda messages: "") as (spec, _):
        chat = chat_model(spec)
        assert not any("price" in measure.name for measure in spent(costs, "dialogues", chat, 1))
        monkeypatch.setenv("RECLLM_PRICES", str(table))
        found = {measure.label: measure.value for measure in spent(costs, "dialogues", chat, 1)}
    assert found["price a dialogue, dialogues"] == pytest.approx((4000 * 2 + 600 * 10) / 1e6)
    assert found["price a turn, dialogues"] == pytest.approx(0.007)
    assert found["calls a turn, dialogues"] == 1.5
    assert spent([], "dialogues", chat) == []


def titles_by_hash(messages: list[dict]) -> str:
    """Six titles of the planted catalogue, and one that is not in it."""
    lines = [f"The Story of {number}" for number in drawn(messages, 40, 9)]
    return "\n".join(f"{place}. {line}" for place, line in enumerate([*lines[:2], "Of Nobody's Making", *lines[2:]], 1))


class TestZeroShot(MethodConformance):
    """Against a server, as a hosted model would be asked."""

    method = "zero-shot"
    protocol = "latentcrs.one_turn"
    changes: ClassVar[dict[str, Any]] = {"listed": 5, "titles": 3, "nearest": True}

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def server(cls):
        with answering(titles_by_hash) as (spec, server):
            cls.options = {"chat": spec, "listed": 8}
            yield server

    def test_the_list_is_the_ranking(self, trained):
        """The first title named ranks first; what is not named has no rank."""
        cell = trained[0]
        columns, ranks = cell.columns(cell.split.test), self.ranks_of(cell)
        listed = columns[LISTED]
        assert listed.shape == (40, 8) and (listed > 0).all()
        places = [np.flatnonzero(row == target) for row, target in zip(listed, cell.split.test.targets, strict=True)]
        assert ranks.higher.tolist() == [place[0] if len(place) else UNRANKED for place in places]
        assert len(set(ranks.higher.tolist())) > 2, "some targets are named"

    def test_what_was_measured(self, trained):
        """Nine lines of ten are titles; each answer has its tokens."""
        cell = self.cell_of_another(trained)
        cell.columns(cell.split.test)
        found = {measure.label: measure.value for measure in cell.cell.method.report({})["measures"]}
        assert found["named titles that are catalogue titles, share, one turn"] == pytest.approx(8 / 9)
        assert found["named titles dropped, share, one turn"] == pytest.approx(1 / 9)
        spent = [found[f"{what} a turn, one turn"] for what in ("calls", "tokens read", "tokens written")]
        assert spent == [1, 7, 3]

    def cell_of_another(self, trained):
        """A cell that has counted nothing yet."""
        return self.cell_of(trained[1]["system"].parents[2])

    def test_the_chat_model_reads_the_past_and_the_words_alone(self, trained, server):
        """The newest titles, oldest first, and what the user said last; not the target."""
        model, job = trained[0].cell.load(), trained[0].talking_job()
        history = np.array([5, 6, 7], dtype=np.int32)
        talk = Dialogue(
            3, history, [("user", "A western."), ("assistant", "1. The Story of 9"), ("user", "Older.")], [9]
        )
        (response,) = model.respond(job, [talk])
        body = server.bodies[-1]
        roles = [message["role"] for message in body["messages"]]
        assert roles == ["system", "user", "assistant", "user"]
        said = [trained[0].cell.method.said[item] for item in history]
        assert f"the newest last: {'; '.join(said)}." in body["messages"][0]["content"]
        assert body["messages"][-1]["content"].startswith("Older.\n\nRecommend 5 titles to me")
        assert body["temperature"] == 0
        assert (response.input_tokens, response.output_tokens) == (7, 3) and response.seconds > 0


def test_a_chat_model_that_is_not_there_is_named_before_anything_runs(tmp_path):
    class Wrong(MethodConformance):
        method = "zero-shot"
        protocol = "latentcrs.one_turn"
        options: ClassVar[dict[str, Any]] = {"chat": "smollm2"}

    from recllm_bench.testing.planted import planted_files

    planted_files(tmp_path / "data")
    with pytest.raises(BenchError, match="chat model 'smollm2': write local:NAME, server:MODEL@URL or replay:FILE"):
        Wrong.cell_of(tmp_path).check()
