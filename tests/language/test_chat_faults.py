"""A chat server on this machine with a small model behind it: it fails in every way, is killed, replayed and paid."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest

from recllm_bench.conversation.chatting import Chatting
from recllm_bench.conversation.dialogue import Response
from recllm_bench.conversation.dialogue_loop import run_dialogues
from recllm_bench.conversation.profile import build_profiles
from recllm_bench.data.splits import Cases
from recllm_bench.errors import BenchError
from recllm_bench.language.chat import LocalChat, chat_model
from recllm_bench.language.chat_replay import ReplayChat
from recllm_bench.language.chat_spending import price, price_table, spending
from tests.conftest import planted_catalogue, planted_histories
from tests.language.chat_endpoint import Faults, SmallModel, asking, completion, say

USERS = 110


@pytest.fixture(scope="module")
def stories(models_folder) -> LocalChat:
    return LocalChat(str(models_folder / "llama2-stories260k"), device="cpu")


def dialogues(chat, shelf=None, histories=None):
    """Dialogues whose users speak by a chat model and whose system asks it at every turn."""
    shelf, histories = planted_catalogue(60), planted_histories(USERS, 60, 12)
    users, ends = np.arange(1, USERS + 1), histories.offsets[1:] - 1
    cases = Cases(users, ends, histories.items[ends])
    simulator = Chatting(shelf, seed=3, chat=chat)
    profiles = build_profiles(shelf, histories, users, ends, cases.targets, attributes=simulator.attributes)

    def respond(talks):
        asked = [say(f"user {talk.user}, turn {len(talk.messages)}: {talk.messages[-1][1]}") for talk in talks]
        answers = chat.attempt(asked, max_tokens=8)
        return [
            Response([], error="no answer") if answer is None
            else Response([1 + (talk.user * 7 + len(answer.text) + turn) % 60 for turn in range(2)])
            for talk, answer in zip(talks, answers, strict=True)
        ]  # fmt: skip

    return run_dialogues(respond, simulator, profiles, cases, histories, shelf, max_turns=2), simulator


def test_with_a_fifth_of_all_calls_failing_every_dialogue_completes(endpoint, stories, tmp_path):
    faults = endpoint.reply = Faults(SmallModel(stories, most=4), stall=9)
    chat = asking(endpoint, cache=tmp_path / "a.jsonl", timeout=8, attempts=8)
    outcomes, simulator = dialogues(chat)
    assert len(outcomes) == USERS and not outcomes.invalid.any()
    assert simulator.counts["asked"] == USERS and simulator.counts["lost"] == chat.usage.lost == 0
    kinds = Counter(kind for _, kind in faults.met)
    assert set(kinds) == {"well", *Faults.KINDS}
    assert sum(kinds.values()) == len(endpoint.bodies)
    # Nothing is lost and nothing is asked for twice: a call too many stands for each that went wrong.
    questions = {json.dumps(body["messages"]) for body in endpoint.bodies}
    wrong = sum(kinds[kind] for kind in Faults.RETRIED)
    assert wrong > 0.09 * len(endpoint.bodies)
    assert len(endpoint.bodies) == len(questions) + wrong == chat.usage.answers + wrong
    assert chat.usage.unspoken == kinds["thoughts alone"]
    before = len(endpoint.bodies)
    again, _ = dialogues(asking(endpoint, cache=tmp_path / "a.jsonl"))
    assert len(endpoint.bodies) == before
    assert np.array_equal(again.turns, outcomes.turns)


def test_a_question_that_never_gets_an_answer_makes_one_dialogue_invalid(endpoint, stories, tmp_path):
    small = SmallModel(stories, most=4)

    def reply(body, number):
        return (500, {}) if body["messages"][-1]["content"].startswith("user 17,") else small(body, number)

    endpoint.reply = reply
    chat = asking(endpoint, cache=tmp_path / "a.jsonl", attempts=2, timeout=20)
    outcomes, _ = dialogues(chat)
    assert outcomes.users[outcomes.invalid].tolist() == [17]
    assert outcomes.ended[16] == "error: no answer" and chat.usage.lost == 1
    assert all(outcomes.dialogues[row].messages for row in range(USERS))
    with pytest.raises(BenchError, match="did not answer in 2 attempts: 500"):
        chat.complete([say("user 17, again")], max_tokens=8)  # who must have it is told


def test_openings_that_got_no_answer_are_none_and_a_dead_server_ends_the_run(endpoint):
    shelf, histories = planted_catalogue(60), planted_histories(20, 60, 12)
    users, ends = np.arange(1, 21), histories.offsets[1:] - 1
    profiles = build_profiles(shelf, histories, users, ends, histories.items[ends])
    echo = endpoint.reply
    endpoint.reply = lambda body, number: (503, {}) if number % 4 == 0 else echo(body, number)
    simulator = Chatting(shelf, seed=3, chat=asking(endpoint, attempts=1, concurrency=1))
    said = simulator.open(profiles)
    assert 0 < said.count(None) == simulator.counts["lost"] < 20
    endpoint.reply = lambda body, number: (503, {})
    with pytest.raises(BenchError, match="did not answer in 1 attempts: 503"):
        asking(endpoint, attempts=1).attempt([say(str(n)) for n in range(20)], max_tokens=5)


def test_64_requests_are_in_flight(endpoint):
    endpoint.reply = lambda body, number: time.sleep(0.25) or (200, completion(body["messages"][0]["content"]))
    chat = asking(endpoint)
    begin = time.monotonic()
    assert chat.complete([say(str(n)) for n in range(192)], max_tokens=5) == [str(n) for n in range(192)]
    assert endpoint.most_busy == 64
    assert time.monotonic() - begin < 192 * 0.25 / 8


KILLED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
from recllm_bench.language.chat_server import ServerChat
chat = ServerChat("small", sys.argv[1], concurrency=4, cache=sys.argv[2])
chat.complete([[{"role": "user", "content": str(number)}] for number in range(400)], max_tokens=5)
"""


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_repeats_no_paid_call(endpoint, tmp_path, kill):
    echo = endpoint.reply
    endpoint.reply = lambda body, number: time.sleep(0.03) or echo(body, number)
    command = [sys.executable, "-c", KILLED, endpoint.url, str(tmp_path / "a.jsonl")]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while len(endpoint.bodies) < 24 and running.poll() is None:
        time.sleep(0.005)
    running.send_signal(kill)
    running.wait(20)
    time.sleep(0.1)
    called = len(endpoint.bodies)
    assert 24 <= called < 400
    chat = asking(endpoint, cache=tmp_path / "a.jsonl")
    assert chat.complete([say(str(n)) for n in range(400)], max_tokens=5) == [f"echo {n}" for n in range(400)]
    repeated = len(endpoint.bodies) - 400
    # What a kill cuts off was never received, so it was not paid for; an interrupt waits for what is in flight.
    assert repeated <= (4 if kill == signal.SIGKILL else 0)
    assert called - repeated == chat.usage.cached


def test_an_answer_is_kept_before_anybody_waits_for_it(endpoint, tmp_path, monkeypatch):
    chat = asking(endpoint, cache=tmp_path / "a.jsonl", concurrency=6)
    together = threading.Barrier(6)
    echo = endpoint.reply
    endpoint.reply = lambda body, number: (together.wait(5) and None) or echo(body, number)
    monkeypatch.setattr(chat.usage, "add", lambda answer: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        chat.complete([say(str(n)) for n in range(6)], max_tokens=5)
    time.sleep(0.2)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 6


def test_what_was_answered_can_be_replayed(endpoint, tmp_path):
    path = tmp_path / "a.jsonl"
    asking(endpoint, cache=path).complete([say("one"), say("two")], max_tokens=5, temperature=0.5, seed=2)
    chat = chat_model(f"replay:{path}")
    assert chat.name == "replay of small"
    assert chat.complete([say("two"), say("one")], max_tokens=5, temperature=0.5, seed=2) == ["echo two", "echo one"]
    assert len(endpoint.bodies) == 2
    with pytest.raises(BenchError, match=r"no answer to 'three' under max_tokens=5, .*: it was never asked"):
        chat.complete([say("one"), say("three")], max_tokens=5, temperature=0.5, seed=2)
    with pytest.raises(
        BenchError, match=r"no answer to 'one' under max_tokens=6.*it was asked under max_tokens=5, temp"
    ):
        chat.complete([say("one")], max_tokens=6, temperature=0.5, seed=2)
    assert ReplayChat(path).key() == chat.key()
    path.write_text(path.read_text().replace("echo two", "echo 2"))
    assert ReplayChat(path).key() != chat.key()


def test_files_that_cannot_be_replayed(tmp_path):
    with pytest.raises(BenchError, match="there is no such file"):
        chat_model(f"replay:{tmp_path / 'none.jsonl'}")
    (tmp_path / "old.jsonl").write_text('{"key": "k", "model": "m", "text": "x"}\n{torn')
    with pytest.raises(BenchError, match="holds no answer together with what was asked"):
        chat_model(f"replay:{tmp_path / 'old.jsonl'}")


def test_a_run_costs_the_same_whatever_is_known(endpoint, tmp_path, monkeypatch):
    (tmp_path / "prices.yaml").write_text("small: {input: 0.5, output: 2}\n")
    monkeypatch.setenv("RECLLM_PRICES", str(tmp_path / "prices.yaml"))
    endpoint.reply = lambda body, number: (200, completion("yes", prompt_tokens=1000, completion_tokens=10))
    found = []
    for _ in range(2):
        with spending() as spent:
            chat = asking(endpoint, cache=tmp_path / "a.jsonl")
            chat.complete([say("a"), say("b"), say("a")], max_tokens=5)
            chat.complete([say("b"), say("c")], max_tokens=5)
        found.append(spent.facts()["small"])
    expected = {"answers": 3, "prompt_tokens": 3000, "completion_tokens": 30, "price": pytest.approx(0.00156)}
    assert found == [{**expected, "new": 3}, {**expected, "new": 0}]
    assert price({"input": 0.5, "output": 2}, 3000, 30) == pytest.approx(0.00156)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- small", "a table of prices has a line for each model"),
        ("a: {input: 1, output: 2}\nb: {input: 1}", r"yaml:2: b: give the price of a million tokens as \{input"),
        ("b: {input: -1, output: 2}", "yaml:1: b: input is a price of at least 0, got -1"),
        ("b: {input: 1, output: cheap}", "b: output is a price of at least 0, got 'cheap'"),
    ],
)
def test_tables_of_prices_that_are_refused(tmp_path, text, message):
    (tmp_path / "prices.yaml").write_text(text)
    with pytest.raises(BenchError, match=message):
        price_table(tmp_path / "prices.yaml")


def test_without_a_table_nothing_has_a_price(endpoint, monkeypatch):
    monkeypatch.delenv("RECLLM_PRICES", raising=False)
    with spending() as spent:
        asking(endpoint).complete([say("a")], max_tokens=5)
    assert spent.facts() == {"small": {"answers": 1, "new": 1, "prompt_tokens": 0, "completion_tokens": 0}}
