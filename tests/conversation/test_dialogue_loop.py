"""The dialogue loop: outcomes, stopping rules, and what the system can see."""

from __future__ import annotations

import dataclasses
import json
import time

import numpy as np
import pytest

from recllm_bench.conversation.dialogue import Dialogue, Reply, Response
from recllm_bench.conversation.dialogue_loop import run_dialogues, write_transcripts
from recllm_bench.conversation.profile import build_profiles
from recllm_bench.conversation.rules import RuleSimulator
from recllm_bench.data.splits import Cases
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.dialogue_outcomes import dialogue_values
from tests.conftest import planted_catalogue, planted_histories

HISTORIES = planted_histories(40, 100, 12)
CATALOGUE = planted_catalogue(100)


def cases(n: int = 3) -> Cases:
    ends = HISTORIES.offsets[1 : n + 1] - 1
    return Cases(np.arange(1, n + 1), ends, HISTORIES.items[ends])


def profiles(rows: Cases, catalogue=CATALOGUE):
    return build_profiles(catalogue, HISTORIES, rows.users, rows.ends, rows.targets)


class Talker:
    """Speaks for ever, or as told: ``script[user]`` lists what comes after the opening."""

    def __init__(self, script=None, openings=None):
        self.script, self.openings = script or {}, openings or {}

    def open(self, profiles):
        return [self.openings.get(profile.user, "hello") for profile in profiles]

    def reply(self, profiles, dialogues, shown):
        replies = []
        for profile, dialogue in zip(profiles, dialogues, strict=True):
            said = self.script.get(profile.user, [])
            turn = sum(role == "user" for role, _ in dialogue.messages) - 1
            replies.append(said[turn] if turn < len(said) else Reply("more"))
        return replies


def wrong_items(target: int, turn: int, n: int = 5) -> list[int]:
    start = (turn - 1) * n
    return [item for item in range(1, 101) if item != target][start : start + n]


def scripted(rows: Cases, hits: dict[int, int]):
    """A system that shows user u's target at turn ``hits[u]``, and wrong items before."""
    target = dict(zip(rows.users.tolist(), rows.targets.tolist(), strict=True))

    def respond(dialogues):
        answers = []
        for dialogue in dialogues:
            turn = len(dialogue.user_sentences())
            items = wrong_items(target[dialogue.user], turn)
            if hits.get(dialogue.user) == turn:
                items[3] = target[dialogue.user]
            answers.append(Response(items, input_tokens=10, output_tokens=2))
        return answers

    return respond


def run(respond, rows, simulator=None, catalogue=CATALOGUE, **options):
    return run_dialogues(
        respond, simulator or Talker(), profiles(rows, catalogue), rows, HISTORIES, catalogue, **options
    )


def test_outcomes_and_their_metrics():
    rows = cases(3)
    outcomes = run(scripted(rows, {1: 1, 2: 3}), rows)
    assert outcomes.turns.tolist() == [1, 3, 0]
    assert outcomes.ended == ["success", "success", "turns"]
    for at_failure, expected in (("max_turns", 3.0), ("exclude", 2.0), ("max_turns_plus_1", 10 / 3)):
        values = dialogue_values(outcomes.turns, 5, at_failure)
        assert values["S@3"].mean() == pytest.approx(2 / 3)
        assert values["S@5"].mean() == pytest.approx(2 / 3)
        assert values["AT"].mean() == pytest.approx(expected)
    assert [len(dialogue.shown) for dialogue in outcomes.dialogues] == [5, 15, 25]
    assert outcomes.input_tokens.tolist() == [10, 30, 50]
    assert outcomes.tokens == {"input": 30.0, "output": 6.0}


def test_only_the_first_items_count_and_only_once():
    rows = cases(1)
    target = int(rows.targets[0])
    late = [*wrong_items(target, 1), target]
    assert run(lambda dialogues: [Response(late)], rows, max_turns=1).turns.tolist() == [0]
    assert run(lambda dialogues: [Response(late)], rows, max_turns=1, shown_per_turn=6).turns.tolist() == [1]
    repeated = [late[0], late[0], late[1], late[2], late[3], target]  # the repeated item takes one place
    assert run(lambda dialogues: [Response(repeated)], rows, max_turns=1).turns.tolist() == [1]


def test_an_equal_title_is_a_near_miss():
    rows = cases(1)
    target = int(rows.targets[0])
    twin = target % 100 + 1
    titles = list(CATALOGUE.titles)
    titles[twin] = titles[target].upper()
    catalogue = dataclasses.replace(CATALOGUE, titles=titles)
    outcomes = run(lambda dialogues: [Response([twin])], rows, catalogue=catalogue, max_turns=2)
    assert outcomes.turns.tolist() == [0]
    assert outcomes.near_misses.tolist() == [2]


def test_untitled_items_are_no_near_misses():
    catalogue = dataclasses.replace(CATALOGUE, titles=[""] * 101)
    rows = cases(1)
    respond = scripted(rows, {})
    assert run(respond, rows, catalogue=catalogue).near_misses.tolist() == [0]


def test_stopping_rules():
    rows = cases(5)
    script = {
        1: [Reply("bye", end=True)],
        2: [Reply(""), Reply("")],
        3: [Reply(""), Reply("again"), Reply(""), Reply("on")],
        4: [Reply("yes!", accepted=True)],
    }
    counted: list[int] = []

    def respond(dialogues):
        counted.append(len(dialogues))
        return [Response(wrong_items(int(rows.targets[d.user - 1]), 1)) for d in dialogues]

    outcomes = run(respond, rows, Talker(script))
    assert outcomes.turns.tolist() == [0] * 5
    assert outcomes.ended == ["user left", "silence", "turns", "user left", "turns"]
    assert outcomes.false_accepts.tolist() == [False, False, False, True, False]
    assert outcomes.empty.tolist() == [0, 2, 2, 0, 0]
    assert counted == [5, 3, 2, 2, 2]  # one batch a turn, of those who still talk


def test_two_empty_openings_end_it_too():
    rows = cases(1)
    outcomes = run(scripted(rows, {}), rows, Talker({1: [Reply("")]}, {1: ""}))
    assert outcomes.ended == ["silence"]


def test_invalid_dialogues_are_counted_and_too_many_stop_the_run():
    rows = cases(2)
    with pytest.raises(BenchError, match="invalid"):
        run(scripted(rows, {}), rows, Talker({1: [Reply("", error="timeout")]}))
    many = Cases(np.tile(np.arange(1, 41), 3), np.tile(HISTORIES.offsets[1:] - 1, 3), None)
    many = dataclasses.replace(many, targets=HISTORIES.items[many.ends])
    broken = {"rows": 0}

    def respond(dialogues):
        broken["rows"] += 1
        answers = [Response([1, 2]) for _ in dialogues]
        if broken["rows"] == 1:
            answers[7] = Response([], error="server gone")
        return answers

    outcomes = run(respond, many)
    assert outcomes.invalid.sum() == 1
    assert outcomes.turns[7] == -1
    assert outcomes.ended[7] == "error: server gone"
    assert len(dialogue_values(outcomes.turns, 5)["AT"]) == len(many) - 1
    assert outcomes.facts()["invalid"] == 1


def test_no_opening_sentence_is_invalid():
    rows = Cases(np.arange(1, 41).repeat(5), (HISTORIES.offsets[1:] - 1).repeat(5), None)
    rows = dataclasses.replace(rows, targets=HISTORIES.items[rows.ends])

    class Mute(Talker):
        def open(self, profiles):
            return [None] + ["hello"] * (len(profiles) - 1)

    assert run(scripted(rows, {}), rows, Mute()).turns[0] == -1


class Poison:
    """Stands for a profile; whoever outside the simulator looks at it is caught."""

    allowed = False

    def __init__(self, profile):
        object.__setattr__(self, "_profile", profile)

    def __getattribute__(self, name):
        if not Poison.allowed and not name.startswith("__"):
            raise AssertionError(f"the system read the profile's {name}")
        return getattr(object.__getattribute__(self, "_profile"), name)


def test_the_system_sees_dialogues_and_nothing_of_the_profile():
    rows = cases(4)
    poisoned = [Poison(profile) for profile in profiles(rows)]
    seen: list[Dialogue] = []

    def respond(dialogues):
        Poison.allowed = False
        try:
            for dialogue in dialogues:
                assert type(dialogue) is Dialogue
                values = json.dumps(
                    [int(dialogue.user), dialogue.history.tolist(), dialogue.messages, dialogue.shown]
                )  # plain values all through: no profile hides in there
                assert values
                assert set(vars(dialogue)) == {"user", "history", "messages", "shown", "asked", "sizes"}
                seen.append(dialogue)
                dialogue.messages.clear()  # and what it does to them changes nothing
                dialogue.shown.append(1)
                dialogue.history[:] = 0
            return [Response(wrong_items(int(rows.targets[d.user - 1]), 1)) for d in dialogues]
        finally:
            Poison.allowed = True

    Poison.allowed = False
    with pytest.raises(AssertionError, match="profile's facts"):
        _ = poisoned[0].facts
    Poison.allowed = True
    outcomes = run_dialogues(respond, RuleSimulator(CATALOGUE, 1), poisoned, rows, HISTORIES, CATALOGUE)
    assert len(seen) >= 8
    for row, dialogue in enumerate(outcomes.dialogues):
        assert dialogue.history.tolist() == HISTORIES.items[HISTORIES.offsets[row] : rows.ends[row]].tolist()
        assert int(rows.targets[row]) not in dialogue.shown
        assert dialogue.messages[0][0] == "user"
    assert HISTORIES.items.min() >= 1


def test_leaks_are_taken_out_and_flagged():
    rows = cases(3)
    titles = {profile.user: CATALOGUE.titles[profile.target] for profile in profiles(rows)}
    heard: list[str] = []

    def respond(dialogues):
        heard.extend(text for dialogue in dialogues for role, text in dialogue.messages if role == "user")
        return [Response([1])] * len(dialogues)

    openings = {1: f"give me {titles[1]}", 2: "a drama"}
    outcomes = run(respond, rows, Talker({2: [Reply(f"I meant {titles[2]}")]}, openings))
    assert outcomes.leaked.tolist() == [True, True, False]
    assert outcomes.leaks.sum() == 2
    assert not any(title in text for title in titles.values() for text in heard)


def test_difficulty_is_the_number_of_items_that_match():
    rows = cases(20)
    outcomes = run(scripted(rows, {}), rows, RuleSimulator(CATALOGUE, 2, facts_in_opening=2))
    for row in range(20):
        said = " ".join(outcomes.dialogues[row].user_sentences())
        target = int(rows.targets[row])
        stated = {name for name in CATALOGUE.categories[target] if name in said}
        year = int(CATALOGUE.years[target])
        decade, exact = f"{year // 10 * 10}s" in said, f"{year}" in said.replace("0s", "-")
        matching = [
            item
            for item in range(1, 101)
            if stated <= set(CATALOGUE.categories[item])
            and (not decade or CATALOGUE.years[item] // 10 == year // 10)
            and (not exact or CATALOGUE.years[item] == year)
        ]
        assert outcomes.n_match[row] == len(matching)
    assert outcomes.facts()["mean_n_match"] == pytest.approx(outcomes.n_match.mean(), abs=0.01)


def test_bad_answers_of_the_system():
    rows = cases(2)
    for respond, words in (
        (lambda dialogues: [Response([1])], "1 responses to 2"),
        (lambda dialogues: [Response([101])] * 2, "101, which is no item"),
        (lambda dialogues: [Response([0])] * 2, "0, which is no item"),
    ):
        with pytest.raises(BenchError, match=words):
            run(respond, rows)
    with pytest.raises(BenchError, match="profiles"):
        run_dialogues(scripted(rows, {}), Talker(), [], rows, HISTORIES, CATALOGUE)
    with pytest.raises(BenchError, match="at least one turn"):
        run(scripted(rows, {}), rows, max_turns=0)


def test_no_items_is_an_answer_too():
    rows = cases(1)
    outcomes = run(lambda dialogues: [Response([])], rows, RuleSimulator(CATALOGUE))
    assert outcomes.turns.tolist() == [0]
    assert ("assistant", "I have nothing to suggest.") in outcomes.dialogues[0].messages


def test_two_runs_are_equal_and_transcripts_are_readable(tmp_path):
    rows = cases(10)
    first, second = (run(scripted(rows, {4: 2}), rows, RuleSimulator(CATALOGUE, 3)) for _ in range(2))
    assert [d.messages for d in first.dialogues] == [d.messages for d in second.dialogues]
    for name, column in first.columns().items():
        np.testing.assert_array_equal(column, second.columns()[name])
    path = tmp_path / "dialogues.jsonl"
    write_transcripts(path, first, CATALOGUE)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 10
    assert lines[3]["turns"] == 2
    assert lines[3]["target"]["text"] == CATALOGUE.text(int(rows.targets[3]))
    assert CATALOGUE.titles[first.dialogues[0].shown[0]] in lines[0]["messages"][1]["text"]


def test_five_hundred_users_take_seconds():
    histories, catalogue = planted_histories(500, 3000, 30), planted_catalogue(3000)
    ends = histories.offsets[1:] - 1
    rows = Cases(np.arange(1, 501), ends, histories.items[ends])
    rng = np.random.default_rng(0)
    items, users = rng.normal(size=(3001, 64)), rng.normal(size=(501, 64))

    def respond(dialogues):
        scores = users[[dialogue.user for dialogue in dialogues]] @ items.T
        scores[:, 0] = -np.inf
        for row, dialogue in enumerate(dialogues):
            scores[row, dialogue.shown] = -np.inf
        best = np.argsort(-scores, axis=1)[:, :5]
        return [Response(row.tolist()) for row in best]

    start = time.perf_counter()
    made = build_profiles(catalogue, histories, rows.users, rows.ends, rows.targets)
    outcomes = run_dialogues(respond, RuleSimulator(catalogue, 1), made, rows, histories, catalogue)
    assert time.perf_counter() - start < 5
    assert len(outcomes) == 500
    assert all(len(set(dialogue.shown)) == len(dialogue.shown) for dialogue in outcomes.dialogues)


def test_shown_items_that_a_user_already_had_are_counted():
    """User 1 is shown two of five from the history, user 2 none of five, user 3 nothing new at all."""
    rows = cases(3)
    past = {user: HISTORIES.of(user)[:-1] for user in (1, 2, 3)}
    fresh = [[item for item in range(1, 101) if item not in HISTORIES.of(user)] for user in (1, 2, 3)]
    shows = {
        1: [*dict.fromkeys(past[1].tolist())][:2] + fresh[0][:3],
        2: fresh[1][:5],
        3: [*dict.fromkeys(item for item in past[3].tolist() if item != HISTORIES.of(3)[-1])][:5],
    }

    def respond(dialogues):
        return [Response(shows[dialogue.user]) for dialogue in dialogues]

    outcomes = run_dialogues(respond, Talker(), profiles(rows), rows, HISTORIES, CATALOGUE, max_turns=1)
    assert outcomes.known.tolist() == [0.4, 0.0, 1.0]
    measure, *_ = outcomes.measures()
    assert measure.value == pytest.approx((2 + 0 + len(shows[3])) / (10 + len(shows[3])))


def test_nothing_shown_is_no_share():
    rows = cases(2)
    outcomes = run_dialogues(
        lambda dialogues: [Response([]) for _ in dialogues], Talker(), profiles(rows), rows, HISTORIES, CATALOGUE
    )
    assert np.isnan(outcomes.known).all() and outcomes.measures()[0].value == 0.0
