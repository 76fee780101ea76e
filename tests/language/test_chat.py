"""Chat models: a server on this machine that fails in every way, the cache, and a real small model."""

from __future__ import annotations

import logging
import time

import pytest
import torch

from recllm_bench.errors import BenchError
from recllm_bench.language import chat_server
from recllm_bench.language.backbone import load_backbone
from recllm_bench.language.chat import LocalChat, ServerChat, chat_model
from recllm_bench.language.chat_answers import AnswerCache
from recllm_bench.language.chat_replies import Answer
from recllm_bench.language.generation import generate
from tests.language.chat_endpoint import asking, completion, say

KEY = "sk-very-secret-0123456789"


def test_answers_come_in_order_and_several_at_a_time(endpoint):
    def slow(body, number):
        time.sleep(0.02 * (number % 3))
        return 200, completion(f" {body['messages'][-1]['content']}! \n", prompt_tokens=3, completion_tokens=2)

    endpoint.reply = slow
    chat = asking(endpoint, concurrency=4)
    questions = [say(f"question {number}") for number in range(20)]
    assert chat.complete(questions, max_tokens=7, temperature=0.5, seed=9) == [f"question {n}!" for n in range(20)]
    assert 1 < endpoint.most_busy <= 4
    body = endpoint.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("small", 7, 0.5, 9)
    assert (chat.usage.answers, chat.usage.prompt_tokens, chat.usage.completion_tokens) == (20, 60, 40)


def test_equal_questions_are_asked_once(endpoint):
    chat = asking(endpoint)
    assert chat.complete([say("a"), say("b"), say("a")], max_tokens=5) == ["echo a", "echo b", "echo a"]
    assert len(endpoint.bodies) == 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(endpoint, status):
    endpoint.reply = lambda body, number: (status, {}) if number < 4 else (200, completion("at last"))
    assert asking(endpoint).complete([say("x")], max_tokens=5) == ["at last"]
    assert len(endpoint.bodies) == 4


def test_the_waits_grow_and_the_server_s_wish_comes_first(endpoint):
    endpoint.reply = lambda body, number: (503, {}) if number < 4 else (200, completion("ok"))
    asking(endpoint, backoff=0.1).complete([say("x")], max_tokens=5)
    waits = [after - before for before, after in zip(endpoint.times, endpoint.times[1:], strict=False)]
    for wait, expected in zip(waits, (0.1, 0.2, 0.4), strict=True):
        assert 0.7 * expected < wait < 1.3 * expected + 0.15
    endpoint.times.clear()
    endpoint.bodies.clear()
    endpoint.reply = lambda body, number: (429, {}, {"Retry-After": "0.3"}) if number < 2 else (200, completion("ok"))
    asking(endpoint).complete([say("x")], max_tokens=5)
    assert 0.3 <= endpoint.times[1] - endpoint.times[0] < 0.6


def test_an_answer_in_another_form_is_asked_again_and_then_told(endpoint):
    endpoint.reply = lambda body, number: (200, "<html>")
    with pytest.raises(BenchError, match="did not answer in 2 attempts: an answer that is not in the OpenAI form"):
        asking(endpoint, attempts=2).complete([say("x")], max_tokens=5)
    assert len(endpoint.bodies) == 2


def test_a_server_that_is_silent_or_not_there_is_given_up(endpoint):
    endpoint.reply = lambda body, number: time.sleep(0.5) or (200, completion("late"))
    with pytest.raises(BenchError, match=r"did not answer in 2 attempts: .*timed out"):
        asking(endpoint, attempts=2, timeout=0.1).complete([say("x")], max_tokens=5)
    with pytest.raises(BenchError, match=r"did not answer in 2 attempts: .*refused.*see whether it is up"):
        ServerChat("small", "http://127.0.0.1:9/v1", attempts=2, backoff=0.01).complete([say("x")], max_tokens=5)


@pytest.mark.parametrize(
    ("status", "reply", "message"),
    [
        (401, {}, "asks for a key .401.; set RECLLM_API_KEY"),
        (404, {}, "not found .404.; check the model's name, and that the URL ends as in"),
        (400, {"error": {"message": "context length is 10"}}, "refuses the request .400.: context length is 10"),
        (422, "no such thing", "refuses the request .422.: no such thing"),
        (302, {}, "points to another address"),
        (307, {}, "points to another address"),
        (429, {"error": {"code": "insufficient_quota"}}, "quota is used up"),
    ],
)
def test_what_cannot_be_mended_by_asking_again_ends_at_once(endpoint, status, reply, message):
    endpoint.reply = lambda body, number: (status, reply, {"Location": endpoint.url + "/elsewhere"})
    with pytest.raises(BenchError, match=message) as caught:
        asking(endpoint, concurrency=1).complete([say("x"), say("y"), say("z")], max_tokens=5)
    assert len(endpoint.bodies) == 1
    assert "\n" not in str(caught.value)


def test_parameters_a_server_does_not_take_are_renamed_or_left_out(endpoint):
    def picky(body, number):
        if "max_tokens" in body:
            return 400, {"error": {"message": "'max_tokens' is not supported, use 'max_completion_tokens'"}}
        if "temperature" in body:
            return 400, {"error": {"message": "Unsupported value: 'temperature' does not support 0"}}
        if "seed" in body:
            return 422, {"detail": "extra field: seed"}
        return 200, completion("fine")

    endpoint.reply = picky
    assert asking(endpoint, attempts=1).complete([say("x")], max_tokens=5) == ["fine"]
    assert endpoint.bodies[-1] == {"model": "small", "messages": say("x"), "max_completion_tokens": 5}

    def together(body, number):
        time.sleep(0.05)  # all requests in flight meet the same refusal
        return picky(body, number)

    endpoint.reply = together
    questions = [say(str(number)) for number in range(12)]
    assert asking(endpoint, attempts=1, concurrency=12).complete(questions, max_tokens=5) == ["fine"] * 12


def test_a_text_the_provider_will_not_read_gets_an_empty_answer(endpoint):
    filtered = (400, {"error": {"code": "content_filter"}})
    endpoint.reply = lambda body, number: (
        filtered if body["messages"][0]["content"] == "bad" else (200, completion("ok"))
    )
    assert asking(endpoint).complete([say("bad"), say("good")], max_tokens=5) == ["", "ok"]
    endpoint.reply = lambda body, number: (200, completion(None, finish="length"))
    chat = asking(endpoint)
    assert chat.complete([say("x")], max_tokens=5) == [""]
    assert chat.usage.cut == 1


def test_requests_keep_the_pace(endpoint):
    chat = asking(endpoint, requests_per_minute=600)
    chat.complete([say(str(number)) for number in range(5)], max_tokens=5)
    assert max(endpoint.times) - min(endpoint.times) > 0.35


@pytest.mark.parametrize("variable", chat_server.KEYS)
def test_the_key_is_sent_and_appears_nowhere_else(endpoint, monkeypatch, caplog, tmp_path, capfd, variable):
    monkeypatch.setenv(variable, KEY)
    caplog.set_level(logging.DEBUG, logger="recllm_bench")
    cache = tmp_path / "answers.jsonl"
    # A server that repeats the key in whatever it says.
    replies = {
        "retried": lambda: (503, f"overloaded, {KEY}"),
        "refused": lambda: (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
        "wrong": lambda: (400, {"error": {"message": f"Bearer {KEY} may not do this"}}),
        "fine": lambda: (200, completion(f"your key is {KEY}")),
    }
    endpoint.reply = lambda body, number: replies[body["messages"][0]["content"]]()
    said = []
    chat = asking(endpoint, cache=cache, attempts=2)
    for question in replies:
        try:
            said += chat.complete([say(question)], max_tokens=5)
        except BenchError as error:
            said.append(str(error))
            said.append(repr(error.__cause__) + repr(error.__context__))
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in endpoint.headers)
    assert any("refuses the key in " + variable in text for text in said)
    assert "your key is ***" in said
    shown = capfd.readouterr()
    places = [*said, caplog.text, cache.read_text(), repr(vars(chat)), repr(chat.key()), shown.out, shown.err]
    assert not [place for place in places if KEY in place]
    assert "trying again" in caplog.text


def test_where_a_key_is_not_sent(endpoint, monkeypatch):
    assert chat_server._api_key("https://api.example.org/v1") == ""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert chat_server._api_key("https://api.example.org/v1") == KEY
    assert chat_server._api_key("http://localhost:8000/v1") == KEY
    assert chat_server._api_key("http://far.example.org/v1") == ""  # it would travel unencrypted
    monkeypatch.setenv("RECLLM_API_KEY", "own-key")
    assert chat_server._api_key("http://far.example.org/v1") == "own-key"
    monkeypatch.setenv("RECLLM_API_KEY", f"{KEY}\nX-Other: 1")
    with pytest.raises(BenchError, match="RECLLM_API_KEY holds characters") as caught:
        asking(endpoint).complete([say("x")], max_tokens=5)
    assert KEY not in str(caught.value)
    assert not endpoint.bodies


def test_nothing_is_asked_twice_and_a_killed_run_goes_on(endpoint, tmp_path):
    cache = tmp_path / "deep" / "answers.jsonl"
    questions = [say(str(number)) for number in range(6)]

    def dies(body, number):
        return (200, completion("first " + body["messages"][0]["content"])) if number <= 3 else (401, {})

    endpoint.reply = dies
    with pytest.raises(BenchError, match="asks for a key"):
        asking(endpoint, cache=cache, concurrency=1).complete(questions, max_tokens=5)
    kept = cache.read_text().splitlines()
    assert len(kept) == 3
    with open(cache, "a") as file:
        file.write('{"key": "torn')  # as a kill leaves it
    endpoint.bodies.clear()
    endpoint.reply = lambda body, number: (200, completion("then " + body["messages"][0]["content"]))
    chat = asking(endpoint, cache=cache)
    expected = ["first 0", "first 1", "first 2", "then 3", "then 4", "then 5"]
    assert chat.complete(questions, max_tokens=5) == expected
    assert len(endpoint.bodies) == 3
    assert (chat.usage.answers, chat.usage.cached) == (3, 3)
    again = asking(endpoint, cache=cache)
    assert again.complete(questions, max_tokens=5) == expected
    assert len(endpoint.bodies) == 3
    for changes in ({"max_tokens": 6}, {"temperature": 0.1}, {"seed": 1}):
        again.complete(questions[:1], **{"max_tokens": 5, **changes})
    ServerChat("other", endpoint.url, cache=cache).complete(questions[:1], max_tokens=5)
    again.complete([[{"role": "system", "content": "be brief"}, *questions[0]]], max_tokens=5)
    assert len(endpoint.bodies) == 8


def test_two_processes_share_a_cache(tmp_path):
    first, second = AnswerCache(tmp_path / "a.jsonl"), AnswerCache(tmp_path / "a.jsonl")
    first.put("k1", "m", Answer("één", 1, 2, False))
    second.refresh()
    assert second.get("k1") == Answer("één", 1, 2, False)
    second.put("k2", "m", Answer("two"))
    first.refresh()
    assert first.get("k2") == Answer("two")
    assert first.get("k3") is None


def test_malformed_conversations_are_refused(endpoint):
    chat = asking(endpoint)
    for conversation, message in (
        ([], "no messages"),
        ([{"role": "wizard", "content": "x"}], "role 'wizard'"),
        ([{"content": "x"}], "role None"),
        ([{"role": "user", "content": None}], "without text"),
    ):
        with pytest.raises(BenchError, match=message):
            chat.complete([conversation], max_tokens=5)
    with pytest.raises(BenchError, match="max_tokens=0"):
        chat.complete([say("x")], max_tokens=0)
    assert not endpoint.bodies


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gpt", "write local:NAME, server:MODEL@URL or replay:FILE"),
        ("local:", "write local:NAME"),
        ("server:gpt", "names no address"),
        ("server:http://localhost/v1", "names no model"),
        ("server:gpt@localhost:8000", "is no address"),
        ("server:gpt@http://user:secret@host/v1", "the address of host holds a name or key"),
    ],
)
def test_names_that_are_refused(spec, message):
    with pytest.raises(BenchError, match=message) as caught:
        chat_model(spec)
    assert "secret" not in str(caught.value)


def test_a_server_by_name_keeps_its_answers_in_the_cache_folder(endpoint, tmp_path):
    chat = chat_model(f"server:@org/small@{endpoint.url}/chat/completions")
    assert (chat.name, chat.url) == ("@org/small", endpoint.url)
    assert chat.complete([say("x")], max_tokens=5) == ["echo x"]
    assert chat_model(f"server:@org/small@{endpoint.url}").complete([say("x")], max_tokens=5) == ["echo x"]
    assert len(endpoint.bodies) == 1
    assert len(list((tmp_path / "cache" / "chat").glob("*.jsonl"))) == 1
    assert chat_model(f"server:m@{endpoint.url}", cache=False).cache is None


@pytest.fixture
def stories(models_folder, monkeypatch) -> str:
    monkeypatch.setenv("RECLLM_MODELS", str(models_folder))
    return "llama2-stories260k"


@pytest.mark.shared
def test_a_local_model_without_a_template_answers_in_roles(stories):
    chat = chat_model(f"local:{stories}", device="cpu", cache=False)
    assert "backbone" not in vars(chat)  # not loaded before it is asked
    conversation = [{"role": "system", "content": "Tell stories."}, *say("Tell me of Lily.")]
    (answer,) = chat.complete([conversation], max_tokens=30)
    text = "System: Tell stories.\nUser: Tell me of Lily.\nAssistant:"
    (tokens,) = generate(chat.backbone, [chat.backbone.tokenizer(text)["input_ids"]], max_new_tokens=30)
    assert answer == chat.backbone.tokenizer.decode(tokens, skip_special_tokens=True).split("\nUser:")[0].strip()
    assert chat.name == stories
    assert chat.usage.prompt_tokens == len(chat.backbone.tokenizer(text)["input_ids"])


@pytest.mark.shared
def test_local_answers_do_not_depend_on_the_batch_and_are_cached(stories, tmp_path):
    backbone = load_backbone(stories, device="cpu")
    questions = [say("Tell me of Lily."), say("A dog"), say("Once upon a time there was a big red ball. And")]
    for temperature in (0.0, 0.8):
        batched = LocalChat(backbone).complete(questions, max_tokens=20, temperature=temperature)
        single = LocalChat(backbone, batch_size=1).complete(questions[::-1], max_tokens=20, temperature=temperature)
        assert batched == single[::-1]
    cached = LocalChat(stories, device="cpu", cache=tmp_path / "a.jsonl")
    first = cached.complete(questions, max_tokens=20)
    again = LocalChat(stories, device="cpu", cache=tmp_path / "a.jsonl")
    assert again.complete(questions, max_tokens=20) == first
    assert "backbone" not in vars(again)


@pytest.mark.shared
def test_a_long_conversation_loses_the_end_of_its_longest_message(stories, caplog):
    chat = LocalChat(stories, device="cpu")
    long = say("Lily had a dog. " * 200)
    ids, cut = chat._fitting([{"role": "system", "content": "Keep this."}, *long], 400)
    assert cut
    assert 380 < len(ids) <= 400
    text = chat.backbone.tokenizer.decode(ids, skip_special_tokens=True)
    assert text.startswith("System: Keep this.\nUser: Lily had a dog.")
    assert text.endswith("\nAssistant:")
    with caplog.at_level("WARNING", logger="recllm_bench"):
        assert len(chat.complete([long, say("x")], max_tokens=10)) == 2
    assert "1 of 2 conversations are cut to 502 tokens" in caplog.text
    with pytest.raises(BenchError, match="leaves no room for a question: set at most 496"):
        chat.complete([say("x")], max_tokens=500)


@pytest.mark.shared
def test_a_chat_template_is_used_and_its_limits_are_met(stories):
    backbone = load_backbone(stories, device="cpu")
    backbone.tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "[{{ m.role }}] {{ m.content }} {% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    chat = LocalChat(backbone)
    ids, _ = chat._fitting([{"role": "system", "content": "Be brief."}, *say("Hello")], 400)
    assert ids[0] == backbone.tokenizer.bos_token_id
    assert ids.count(backbone.tokenizer.bos_token_id) == 1
    assert backbone.tokenizer.decode(ids[1:]) == "[user] Be brief.\n\nHello [assistant]"
    assert torch.tensor(ids).max() < backbone.vocabulary
