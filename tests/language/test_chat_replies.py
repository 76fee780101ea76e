"""Odd replies of chat servers, over a real connection on this machine."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time

import pytest

from recllm_bench.errors import BenchError
from recllm_bench.language import http_limits
from recllm_bench.language.chat import chat_model
from recllm_bench.language.chat_answers import AnswerCache
from recllm_bench.language.chat_text import mended, opens_thought, without_thoughts
from tests.language.test_chat import asking, completion, endpoint, say  # noqa: F401

WANTED = "Something scary in space."
FINISHED = [
    "<think>\nThey want Alien.\n</think>\n\n{}",
    "<thinking>Alien</thinking>{}",
    "<THINK>Alien</Think> {}",
    '<think reason="deep">Alien</think>{}',
    "<thought>Alien</thought>{}",
    "<reasoning>Alien</reasoning>\n{}",
    "<seed:think>Alien</seed:think>{}",
    "&lt;think&gt;Alien&lt;/think&gt;{}",
    "[THINK]Alien[/THINK]{}",
    "◁think▷Alien◁/think▷{}",
    "<|START_THINKING|>Alien<|END_THINKING|><|START_RESPONSE|>{}<|END_RESPONSE|>",
    "<|begin_of_thought|>Alien<|end_of_thought|><|begin_of_solution|>{}<|end_of_solution|>",
    "<unused94>thought\nAlien<unused95>{}",
    "<|channel|>analysis<|message|>Alien<|end|><|start|>assistant<|channel|>final<|message|>{}",
    "Alien, so I say ...\n</think>\n{}",  # the prompt had opened it
    "<think>a<think>Alien</think>b Alien</think>{}",
    "<think>Alien</think><reasoning>Alien</reasoning>{}<think>Alien again</think>",
]


@pytest.mark.parametrize("form", FINISHED)
def test_thoughts_are_dropped_in_every_spelling(endpoint, form):  # noqa: F811
    endpoint.reply = lambda body, number: (200, completion(form.format(WANTED)))
    chat = asking(endpoint)
    assert chat.complete([say("x")], max_tokens=5) == [WANTED]
    assert chat.usage.unfinished_thoughts == 0


@pytest.mark.parametrize(
    "text",
    ["<think>Alien", "[THINK]Alien, then", "<think>a</think><think>Alien", "<|channel|>analysis<|message|>Alien",
     "◁think▷Alien", "<think>only Alien</think>"],
)  # fmt: skip
def test_an_unfinished_thought_is_empty_counted_and_warned(endpoint, text, caplog):  # noqa: F811
    endpoint.reply = lambda body, number: (200, completion(text, finish="length", completion_tokens=5))
    chat = asking(endpoint)
    with caplog.at_level(logging.WARNING):
        assert chat.complete([say("x"), say("y")], max_tokens=5) == ["", ""]
    assert (chat.usage.unfinished_thoughts, chat.usage.completion_tokens) == (2, 10)
    assert "2 of 2 answers end inside a thought and are empty; raise max_tokens" in caplog.text


def test_thoughts_in_a_field_of_their_own_leave_an_empty_answer_that_is_counted(endpoint):  # noqa: F811
    reply = completion(None, finish="length")
    reply["choices"][0]["message"]["reasoning_content"] = "Alien"
    endpoint.reply = lambda body, number: (200, reply)
    chat = asking(endpoint)
    assert chat.complete([say("x")], max_tokens=5) == [""]
    assert chat.usage.unfinished_thoughts == 1


@pytest.mark.parametrize(
    "text", ["I think of a film", "a < b and c > d", "[a thinking film]", "the <b>analysis</b>", "reasoning: none"]
)
def test_words_about_thinking_stay(text):
    assert without_thoughts(text) == (text, False)


def test_prompts_that_open_a_thought_are_known():
    assert opens_thought("<|im_start|>assistant\n<think>\n") and opens_thought("x [THINK]")
    assert not opens_thought("<think>a</think>\n") and not opens_thought("Assistant:")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "Alien"}]}, {"type": "text", "text": WANTED}],
         WANTED),
        ([{"type": "text", "text": "Something "}, {"type": "text", "text": "scary."}], "Something scary."),
        (["Something ", {"text": "scary."}], "Something scary."),
        ([{"type": "output_text", "text": WANTED}, {"type": "image_url", "image_url": {"url": "x"}}], WANTED),
        ({"type": "text", "text": WANTED}, WANTED),
        ([{"type": "text", "text": {"value": WANTED, "annotations": []}}], WANTED),
        ([{"text": "Alien", "thought": True}, {"text": WANTED}], WANTED),
        ([{"type": "reasoning", "text": "Alien"}, {"type": "text", "text": WANTED}, None, 5], WANTED),
        ([{"type": "text", "text": "<think>Alien"}, {"type": "text", "text": "</think>" + WANTED}], WANTED),
        ([], ""),
    ],
)  # fmt: skip
def test_content_in_parts_is_joined(endpoint, content, text):  # noqa: F811
    endpoint.reply = lambda body, number: (200, completion(content))
    assert asking(endpoint).complete([say("x")], max_tokens=5) == [text]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("bad \ud83d half", "bad \ufffd half"),
        ("\ude00 begins", "\ufffd begins"),
        ("two \ud83d\ud83d", "two \ufffd\ufffd"),
        ("turned \ude00\ud83d", "turned \ufffd\ufffd"),
        ("whole \U0001f600", "whole \U0001f600"),
        ([{"type": "text", "text": "split \ud83d"}, {"type": "text", "text": "\ude00"}], "split \U0001f600"),
    ],
)
def test_broken_characters_cost_no_answer(endpoint, tmp_path, content, text):  # noqa: F811
    endpoint.reply = lambda body, number: (200, completion(content))
    chat = asking(endpoint, cache=tmp_path / "answers.jsonl")
    assert chat.complete([say("x \udc80")], max_tokens=5) == [text]
    again = asking(endpoint, cache=tmp_path / "answers.jsonl")
    assert again.complete([say("x \udc80")], max_tokens=5) == [text]
    assert len(endpoint.bodies) == 1
    assert endpoint.bodies[0]["messages"][0]["content"] == "x \ufffd"


def test_mending_leaves_whole_text_alone():
    text = "žluťoučký \U0001f600 \ufffd \x00 עברית"
    assert mended(text) == text


@pytest.mark.parametrize(
    ("reply", "tries", "message"),
    [
        ({"error": {"message": "Limit: free-models-per-day", "code": 429}}, 2, "429 .*free-models-per-day"),
        ({"error": {"message": "No credit", "code": 402}}, 1, r"no credit \(402\): No credit"),
        ({"error": {"message": "slow down", "type": "rate_limit_error"}}, 2, "429 .*slow down"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 2, "529.*Overloaded"),
        ({"error": "model is loading"}, 2, "500 .*model is loading"),
        ([{"error": {"code": 503, "message": "try later", "status": "UNAVAILABLE"}}], 2, "503 .*try later"),
        ({"object": "error", "message": "no such model", "type": "NotFoundError", "code": 404}, 1, "not found .404"),
        ({"error": {"message": "prompt too long", "code": "context_length_exceeded"}}, 1, r"\(400\): prompt too long"),
        ({"choices": [{"error": {"code": "502", "message": "upstream gone"}, "message": {"content": ""}}]}, 2,
         "502 .*upstream gone"),
        ({"error": {"message": {"detail": "odd"}, "code": float("inf")}}, 2, "500 .*odd"),
        ({"error": {"message": "bad key", "code": 401}}, 1, "asks for a key"),
    ],
)  # fmt: skip
def test_an_error_inside_a_success_counts_as_its_status(endpoint, reply, tries, message):  # noqa: F811
    endpoint.reply = lambda body, number: (200, reply)
    with pytest.raises(BenchError, match=message) as found:
        asking(endpoint, attempts=2).complete([say("x")], max_tokens=5)
    assert len(endpoint.bodies) == tries and "\n" not in str(found.value)


def test_an_error_inside_a_success_passes_and_its_retry_after_counts(endpoint):  # noqa: F811
    limited = {"error": {"message": "slow down", "code": 429}}
    endpoint.reply = lambda body, number: (
        (200, limited, {"Retry-After": "0.3"}) if number == 1 else (200, {**completion("ok"), "error": None})
    )
    assert asking(endpoint).complete([say("x")], max_tokens=5) == ["ok"]
    assert 0.3 <= endpoint.times[1] - endpoint.times[0] < 0.8


def test_402_is_not_asked_again(endpoint):  # noqa: F811
    endpoint.reply = lambda body, number: (402, {"error": {"message": "Insufficient credits"}})
    with pytest.raises(BenchError, match=r"no credit \(402\): Insufficient credits"):
        asking(endpoint).complete([say("x")], max_tokens=5)
    assert len(endpoint.bodies) == 1


@pytest.mark.parametrize(
    "usage",
    ['{"prompt_tokens": Infinity, "completion_tokens": NaN}', '{"prompt_tokens": -3, "completion_tokens": "many"}',
     '{"prompt_tokens": 1e999}', "[3, 4]", '"none"', '{"prompt_tokens": {"a": 1}, "completion_tokens": [2]}',
     '{"prompt_tokens": ' + "9" * 400 + "}"],
)  # fmt: skip
def test_odd_counts_cost_no_answer(endpoint, usage):  # noqa: F811
    body = json.dumps(completion("paid")).replace('"usage": {}', f'"usage": {usage}')
    assert usage in body
    endpoint.reply = lambda *_: (200, body)
    chat = asking(endpoint, attempts=1)
    assert chat.complete([say("x")], max_tokens=5) == ["paid"]
    assert (chat.usage.prompt_tokens, chat.usage.completion_tokens) == (0, 0)


@pytest.mark.parametrize(
    "body",
    ["[" * 100_000, '{"a":' * 100_000, '{"choices": ' + "[" * 50_000 + "]" * 50_000 + "}", '{"choices": {"0": 1}}',
     '{"choices": [{"message": "text"}]}', '{"choices": [{"message": {"content": true}}]}', "null", "5"],
)  # fmt: skip
def test_deep_and_odd_json_is_one_line(endpoint, body):  # noqa: F811
    endpoint.reply = lambda *_: (200, body)
    with pytest.raises(BenchError, match="not in the OpenAI form"):
        asking(endpoint, attempts=1).complete([say("x")], max_tokens=5)


def test_a_deep_refusal_is_one_line(endpoint):  # noqa: F811
    endpoint.reply = lambda *_: (418, "[" * 100_000)
    with pytest.raises(BenchError, match=r"refuses the request \(418\)"):
        asking(endpoint).complete([say("x")], max_tokens=5)


def test_an_answer_has_a_bound(endpoint, monkeypatch):  # noqa: F811
    monkeypatch.setattr(http_limits, "LARGEST", 1 << 20)
    endpoint.reply = lambda *_: (200, json.dumps(completion("ok")) + " " * (2 << 20))
    with pytest.raises(BenchError, match="an answer of more than 1 MiB"):
        asking(endpoint, attempts=1).complete([say("x")], max_tokens=5)
    endpoint.reply = lambda *_: (500, " " * (2 << 20))
    with pytest.raises(BenchError, match="an answer of more than 1 MiB"):
        asking(endpoint, attempts=1).complete([say("x")], max_tokens=5)


HEAD = b"HTTP/1.1 200 OK\r\n"
DRIBBLES = {
    "body": (HEAD + b"Content-Length: 9999\r\n\r\n", b" "),
    "body without a length": (HEAD + b"\r\n", b" "),
    "header": (HEAD + b"X-Slow: ", b"a"),
    "status": (b"HTTP/1.1 200 ", b"O"),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "refusal": (b"HTTP/1.1 500 No\r\nContent-Length: 9999\r\n\r\n", b" "),
}


@pytest.mark.parametrize("kind", DRIBBLES)
def test_a_dribbling_server_ends(kind, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    begin, piece = DRIBBLES[kind]
    ended = threading.Event()

    def serve(listener):
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            try:
                connection.sendall(begin)
                while not ended.wait(0.05):
                    connection.sendall(piece)
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,), daemon=True)
        server.start()
        chat = chat_model(
            f"server:m@http://127.0.0.1:{listener.getsockname()[1]}/v1", cache=False, timeout=0.6, attempts=1
        )
        started = time.monotonic()
        with pytest.raises(BenchError, match=r"timed out: no whole answer in 0\.6 s"):
            chat.complete([say("x")], max_tokens=5)
        assert time.monotonic() - started < 5
        ended.set()
        server.join(5)


@pytest.mark.parametrize(
    "spec",
    ["server:m@http://host/v1?api_key=SECRET", "server:m@https://host/v1#SECRET", "server:m@http://host/v1;key=SECRET",
     "server:http://host/v1?key=SECRET", "server:m@http://u:SECRET@host/v1", "server:m@ftp://u:SECRET@host",
     "server:m@http://host:port/v1?k=SECRET", "server:@http://host?SECRET", "servr:m@http://host?SECRET",
     "server:m@http://[::1?SECRET", "server:m@http://ho st/v1?SECRET"],
)  # fmt: skip
def test_keys_in_addresses_are_refused_and_never_shown(spec):
    with pytest.raises(BenchError) as found:
        chat_model(spec, cache=False)
    assert "SECRET" not in str(found.value) and "\n" not in str(found.value)


def test_thoughts_in_an_older_file_of_answers_are_dropped(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"key": "k", "text": "<think>Alien</think>ok"}) + "\n" + "[" * 9999 + "\n")
    cache = AnswerCache(path)
    cache.refresh()
    assert cache.get("k").text == "ok"
