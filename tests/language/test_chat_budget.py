"""The limit of tokens: none is asked of another machine without it, and none beyond it."""

from __future__ import annotations

import threading

import pytest

from recllm_bench.errors import BenchError
from recllm_bench.language import chat_server, chat_spending
from recllm_bench.language.chat import LocalChat, chat_model, check_chat
from recllm_bench.language.chat_spending import BUDGET, TokenBudget, process_budget
from tests.language.chat_endpoint import asking, completion, say

SEVERAL = [say(f"question {number:03}") for number in range(40)]
MOST = 3 + 20  # of one question: twelve characters, and max_tokens


@pytest.fixture
def paid(endpoint, monkeypatch):
    """The server of these tests, as if it were on another machine, in a process that has spent nothing."""
    monkeypatch.setattr(chat_server, "NEAR", ())
    monkeypatch.setattr(chat_spending, "_PROCESS", TokenBudget(BUDGET))
    monkeypatch.delenv(BUDGET, raising=False)
    endpoint.reply = lambda body, number: (200, completion("yes", prompt_tokens=6, completion_tokens=4))
    return endpoint


def test_a_server_on_another_machine_is_not_asked_without_a_limit(paid, monkeypatch):
    with pytest.raises(BenchError, match=rf"may have to be paid for: set {BUDGET} to the most tokens.*or to -1"):
        check_chat(f"server:small@{paid.url}")
    with pytest.raises(BenchError, match=BUDGET):
        asking(paid).complete(SEVERAL, max_tokens=20)
    assert not paid.bodies
    monkeypatch.setenv(BUDGET, "-1")
    check_chat(f"server:small@{paid.url}")
    assert asking(paid).complete(SEVERAL, max_tokens=20) == ["yes"] * 40


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_this_machine_costs_nothing(host, monkeypatch):
    monkeypatch.delenv(BUDGET, raising=False)
    assert not chat_model(f"server:m@http://{host}:9/v1", cache=False).lacks_limit
    assert chat_model("server:m@https://api.openai.com/v1", cache=False).lacks_limit


@pytest.mark.parametrize("value", ["many", "1e6", "-2", "5.0"])
def test_a_limit_that_is_no_number_is_refused(value, monkeypatch):
    monkeypatch.setenv(BUDGET, value)
    with pytest.raises(BenchError, match=f"{BUDGET}={value}: give the most tokens as a whole number"):
        process_budget()


def test_a_limit_ends_the_questions_and_keeps_the_answers(paid, tmp_path, monkeypatch):
    """Ten tokens a question: whatever is in flight, a limit of 200 is never passed, and little of it is left."""
    monkeypatch.setenv(BUDGET, "200")
    file = tmp_path / "answers.jsonl"
    with pytest.raises(BenchError, match=rf"{BUDGET}=200 is used up: about \d+ tokens.*the same command goes on"):
        asking(paid, cache=file).complete(SEVERAL, max_tokens=20)
    first = len(paid.bodies)
    assert 200 - MOST <= 10 * first <= 200
    assert len(file.read_text().splitlines()) == first
    with pytest.raises(BenchError, match="is used up"):  # of all models of a process together
        asking(paid).complete([say("another")], max_tokens=20)
    assert len(paid.bodies) == first
    monkeypatch.setattr(chat_spending, "_PROCESS", TokenBudget(BUDGET))  # the same command once more
    monkeypatch.setenv(BUDGET, "1000")
    assert asking(paid, cache=file).complete(SEVERAL, max_tokens=20) == ["yes"] * 40
    assert len(paid.bodies) == 40 and process_budget().spent == 10 * (40 - first)


def test_known_answers_take_nothing_from_a_limit(paid, tmp_path, monkeypatch):
    monkeypatch.setenv(BUDGET, "1000")
    for _ in range(2):
        asking(paid, cache=tmp_path / "answers.jsonl").complete(SEVERAL, max_tokens=20)
    assert process_budget().spent == 400


def test_a_server_that_tells_no_tokens_counts_by_the_most(paid, monkeypatch):
    monkeypatch.setenv(BUDGET, "1000")
    paid.reply = lambda body, number: (200, completion("yes"))
    asking(paid).complete(SEVERAL[:2], max_tokens=20)
    assert process_budget().spent == 2 * MOST


def test_a_question_without_an_answer_gives_its_room_back(paid, monkeypatch):
    monkeypatch.setenv(BUDGET, str(MOST))
    paid.reply = lambda body, number: (500, "") if number == 1 else (200, completion("yes", prompt_tokens=1))
    with pytest.raises(BenchError, match="did not answer"):
        asking(paid, attempts=1).complete([say("question one")], max_tokens=20)
    assert asking(paid).complete([say("question two")], max_tokens=20) == ["yes"]


def test_an_own_limit_stands_in_for_that_of_the_process(paid, monkeypatch):
    """And where both are set, both hold."""
    chat = asking(paid)
    chat.budget = TokenBudget("token_budget", 100)
    with pytest.raises(BenchError, match="token_budget=100 is used up"):
        chat.complete(SEVERAL, max_tokens=20)
    assert 10 * len(paid.bodies) == chat.budget.spent <= 100
    monkeypatch.setenv(BUDGET, "30")
    chat.budget = TokenBudget("token_budget", -1)
    with pytest.raises(BenchError, match=f"{BUDGET}=30 is used up"):
        chat.complete([say("again"), say("and again")], max_tokens=20)


def test_room_is_waited_for_while_anything_is_in_flight():
    budget, inside, go = TokenBudget("b", 100), threading.Event(), threading.Event()

    def hold() -> None:
        with budget.room(90) as count:
            inside.set()
            go.wait(5)
            count(10)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(5)
    threading.Timer(0.05, go.set).start()
    with budget.room(90) as count:
        assert budget.spent == 10
        count(80)
    holder.join()
    with pytest.raises(BenchError, match="b=100 is used up: about 90 tokens are spent, and the next question may take"):
        budget.room(11).__enter__()


def test_a_model_on_this_machine_keeps_to_an_own_limit(models_folder):
    chat = LocalChat(str(models_folder / "llama2-stories260k"), device="cpu", batch_size=1)
    chat.budget = TokenBudget("token_budget", 60)
    with pytest.raises(BenchError, match="token_budget=60 is used up"):
        chat.complete([say("Once"), say("Twice"), say("Thrice"), say("Again")], max_tokens=8)
    assert 0 < chat.budget.spent <= 60
