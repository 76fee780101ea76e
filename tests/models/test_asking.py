"""Ask or recommend: the gain of a question against the joint table, and a catalogue where one question decides."""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar

import numpy as np
import pytest

from recllm_bench.conversation.attributes import AttributeTable, Fact
from recllm_bench.conversation.dialogue import Dialogue, Reply
from recllm_bench.conversation.dialogue_loop import run_dialogues
from recllm_bench.conversation.questions import Questions, question
from recllm_bench.data.catalogue import Catalogue
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.dialogue_outcomes import success_at
from recllm_bench.models.asking import AskingMethod
from recllm_bench.testing import MethodConformance
from tests.conftest import planted_catalogue


def brute(catalogue: Catalogue, items: list[int], kind: str, known: set[Fact]) -> float:
    """Mutual information of item and answer, from the joint table."""
    table = AttributeTable(catalogue)
    joint: dict[tuple[int, str], float] = {}
    for item in items:
        facts = [fact.value for fact in table.facts(item) if fact.kind == kind and fact not in known] or ["nothing"]
        for value in facts:
            joint[item, value] = 1 / len(items) / len(facts)
    answers = {value: sum(p for (_, other), p in joint.items() if other == value) for _, value in joint}
    return sum(p * math.log2(p / answers[value] * len(items)) for (_, value), p in joint.items())


def test_gains_against_the_joint_table():
    catalogue, rng = planted_catalogue(30), np.random.default_rng(0)
    catalogue.years[3:6] = 0
    catalogue.categories[7] = ()
    questions = Questions(AttributeTable(catalogue))
    for size in (1, 2, 9, 30):
        items = np.sort(rng.permutation(np.arange(1, 31))[:size])
        for known in (set(), {Fact("category", "Drama"), Fact("decade", "1970s")}):
            gains = questions.gains(items, known)
            assert set(gains) == {"category", "decade", "year"}
            for kind, gain in gains.items():
                assert gain == pytest.approx(brute(catalogue, items.tolist(), kind, known), abs=1e-9), (size, kind)
    assert questions.gains(np.zeros(0, dtype=np.int64)) == dict.fromkeys(questions.kinds, 0.0)


def test_gains_in_closed_form():
    """Eight items: four genres of two, one decade: two bits, and none."""
    catalogue = planted_catalogue(9)
    catalogue.years[1:9], catalogue.years[9] = 1980, 1950
    catalogue.categories[1:] = [(f"genre {item % 4}",) for item in range(8)] + [("other",)]
    gains = Questions(AttributeTable(catalogue)).gains(np.arange(1, 9))
    assert gains == {"category": pytest.approx(2), "decade": 0, "year": 0}


def test_every_kind_has_a_question():
    assert question("category", "movie") == "What kind of movie are you in the mood for?"
    assert question("brand", "toy") == "Is there a brand that you like best?"
    assert question("colour", "toy") == "Which colour should it have?"


def files_of_a_planted_catalogue(folder) -> None:
    """125 films of one decade in 25 genres of five: only the genre tells, and one answer leaves what fits a turn."""
    rng = np.random.default_rng(3)
    folder.mkdir(parents=True)
    genres = [
        f"{first}{second}"
        for first, second in itertools.product(
            ("Neo", "Sea", "War", "Ice", "Art"), ("noir", "saga", "play", "farce", "myth")
        )
    ]
    items = [f"i{item},The Story of {item},{1980 + item % 10},{genres[item % 25]}" for item in range(1, 126)]
    rows = [
        f"u{user},i{item},5,{1_500_000_000 + time}"
        for user in range(1, 61)
        for time, item in enumerate(rng.permutation(125)[:8] + 1)
    ]
    rows += [f"v{item},i{other},5,{1_500_000_000}" for item in range(1, 126) for other in (item, item % 125 + 1)]
    (folder / "planted.csv").write_text("user_id,item_id,rating,timestamp\n" + "\n".join(rows) + "\n")
    (folder / "planted.items.csv").write_text("item_id,title,year,categories\n" + "\n".join(items) + "\n")


class Answering:
    """A user who says nothing of its own, and exactly what it is asked for."""

    name = "answering"

    def __init__(self, catalogue: Catalogue) -> None:
        self.attributes = AttributeTable(catalogue)

    def open(self, profiles):
        return ["Hello, I want to see something."] * len(profiles)

    def reply(self, profiles, dialogues, shown):
        return [self._reply(*row) for row in zip(profiles, dialogues, strict=True)]

    def _reply(self, profile, dialogue) -> Reply:
        facts = [fact.value for fact in self.attributes.facts(profile.target) if fact.kind == dialogue.asked[-1]]
        return Reply(f"I want {facts[0]}." if facts else "No, not that.")


class Planted(MethodConformance):
    method = "asking"
    protocol = "latentcrs.one_turn"
    options: ClassVar[dict[str, Any]] = {"model": "text-retrieval", "enough": 1}


def outcomes(place, **options: Any):
    """Two turns of 60 users with the answering user."""
    cell = Planted.cell_of(place, options=options)
    model, job, cases = cell.cell.load(), cell.talking_job(), cell.split.test.take(np.arange(60))
    catalogue = cell.dataset.catalogue
    held = run_dialogues(
        lambda dialogues: model.respond(job, dialogues), Answering(catalogue), cell.job.words.profiles(cases), cases,
        cell.dataset.histories, catalogue, max_turns=2,
    )  # fmt: skip
    return held, cell


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asking")
    files_of_a_planted_catalogue(folder / "data")
    return folder


def test_one_question_finds_every_item(place):
    held, cell = outcomes(place)
    assert {tuple(talk.asked) for talk in held.dialogues} == {("category", "")}, "the one kind that tells"
    assert success_at(held.turns, 2).mean() == 1.0
    assert all(not talk.shown[5:] for talk in held.dialogues)
    found = {measure.label: measure.value for measure in cell.cell.method.report({})["measures"]}
    assert found["questions for a category, dialogues"] == 60
    without, _ = outcomes(place, questions=0)
    assert success_at(without.turns, 2).mean() < 0.3, "two guesses of five among 125"


def test_it_may_recommend_and_ask_at_once(place):
    held, _ = outcomes(place, with_items=True)
    assert all(len(talk.shown) in (5, 10) and talk.asked[0] == "category" for talk in held.dialogues)
    first = next(talk for talk in held.dialogues if len(talk.asked) == 2)
    assert first.messages[1][1].startswith("Perhaps The Story of ") and first.messages[1][1].endswith(
        "in the mood for?"
    )


@pytest.mark.parametrize(
    ("options", "dialogue", "kind"),
    [
        ({}, {}, "category"),
        ({"least_gain": 5.0}, {}, ""),
        ({"enough": 25}, {}, ""),
        ({}, {"asked": ["category"]}, ""),  # nothing else tells
        ({"questions": 1}, {"asked": ["category"]}, ""),
        ({"questions": 1}, {"asked": [""]}, "category"),
        ({}, {"messages": [("user", "A neonoir from the 1980s.")]}, ""),
    ],
)
def test_when_it_asks(place, options, dialogue, kind):
    method: AskingMethod = Planted.cell_of(place, options=options).cell.method
    talk = Dialogue(1, np.array([1]), **{"messages": [("user", "Something good.")], **dialogue})
    assert method.kind_to_ask(talk, 5) == kind


def test_only_what_converses_can_recommend(place):
    with pytest.raises(BenchError, match="sasrec does not converse"):
        Planted.cell_of(place, options={"model": "sasrec"}).check()


class TestAskingKeepsTheContract(Planted):
    """Around text retrieval, recommending in the turn of a question too."""

    options: ClassVar[dict[str, Any]] = {"model": "text-retrieval", "with_items": True}
    changes: ClassVar[dict[str, Any]] = {"model": "latentcrs", "questions": 1}
