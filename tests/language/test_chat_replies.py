"""Odd replies of chat servers: thoughts, parts, broken text, errors in a 200, answers without end, keys in URLs."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from recllm_bench.errors import BenchError
from recllm_bench.language.chat import ServerChat, chat_model
from recllm_bench.language.chat_replies import ServerError, error_message, read_reply, spoken, whole_text
from recllm_bench.language.chat_transport import LARGEST
from recllm_bench.language.labels.label_records import valid_text
from tests.language.chat_endpoint import asking, completion, say

WORDS = "Something scary in space."
THOUGHTS = {
    "tags": f"<think>\nThey want Alien.\n</think>\n\n{WORDS}",
    "the opening tag was in the prompt": f"They want Alien.\n</think>\n\n{WORDS}",
    "empty": f"<think>\n\n</think>\n\n{WORDS}",
    "capitals": f"<THINK>Alien</THINK>{WORDS}",
    "spaces and attributes": f'< think duration="3" >Alien</ think >{WORDS}',
    "another word": f"<thinking>Alien</thinking> {WORDS}",
    "thought": f"<thought>Alien</thought> {WORDS}",
    "reasoning": f"<reasoning>Alien</reasoning>\n{WORDS}",
    "a name space": f"<seed:think>Alien</seed:think>{WORDS}",
    "opened and closed by different words": f"<think>Alien</thinking>{WORDS}",
    "escaped": f"&lt;think&gt;Alien&lt;/think&gt;{WORDS}",
    "brackets": f"[THINK]Alien[/THINK]{WORDS}",
    "triangles": f"◁think▷Alien◁/think▷{WORDS}",
    "special tokens": f"<|begin_of_thought|>Alien<|end_of_thought|><|begin_of_solution|>{WORDS}<|end_of_solution|>",
    "more special tokens": f"<|START_THINKING|>Alien<|END_THINKING|><|START_RESPONSE|>{WORDS}<|END_RESPONSE|>",
    "channels": (
        f"<|channel|>analysis<|message|>Alien<|end|><|start|>assistant<|channel|>final<|message|>{WORDS}<|return|>"
    ),
    "a channel that ends": f"<|channel>thought\nAlien<channel|>{WORDS}",
    "in words": f"Here is my thought process: Alien.\nHere is my response: {WORDS}",
    "an answer in tags as well": f"<think>Alien</think>\n<answer>\n{WORDS}\n</answer>",
    "twice": f"<think>Alien</think> <think>or Aliens</think> {WORDS}",
    "between": "<think>Alien</think>Something scary <think>not Alien</think> in space.",
    "one within another": f"<think>Alien <think>or not</think> Aliens</think> {WORDS}",
    "none": WORDS,
    "a tag of nothing": f"<think/>{WORDS}",
}
UNFINISHED = {
    "tags": "<think>They want Alien, I must not",
    "after an opening": "Sure. <think>They want Alien",
    "a second thought": "<think>Alien</think> <thinking>no, Aliens",
    "channel": "<|channel|>analysis<|message|>They want Alien",
    "brackets": "[THINK]They want Alien",
    "in words": "Here's my thought process: they want Alien",
    "thoughts alone": "<think>They want Alien</think>",
    "solution never begun": "<|begin_of_thought|>Alien",
}


@pytest.mark.parametrize("kind", THOUGHTS)
def test_thoughts_are_no_words(endpoint, kind, caplog, tmp_path):
    endpoint.reply = lambda body, number: (200, completion(THOUGHTS[kind]))
    chat = asking(endpoint, cache=tmp_path / "a.jsonl")
    assert chat.complete([say("x")], max_tokens=5) == [WORDS]
    assert chat.usage.unspoken == 0
    assert "thoughts" not in caplog.text
    assert asking(endpoint, cache=tmp_path / "a.jsonl").complete([say("x")], max_tokens=5) == [WORDS]
    assert len(endpoint.bodies) == 1
    assert valid_text(THOUGHTS[kind]) == WORDS  # labels that somebody else had written


@pytest.mark.parametrize("kind", UNFINISHED)
def test_an_answer_that_ends_in_its_thoughts_is_empty_and_told_once(endpoint, kind, caplog):
    texts = {"1": UNFINISHED[kind], "2": UNFINISHED[kind], "3": WORDS}
    endpoint.reply = lambda body, number: (200, completion(texts[body["messages"][0]["content"]], finish="length"))
    chat = asking(endpoint)
    with caplog.at_level("WARNING", logger="recllm_bench"):
        assert chat.complete([say(name) for name in texts], max_tokens=5) == ["", "", WORDS]
        assert chat.complete([say(name) for name in texts], max_tokens=6) == ["", "", WORDS]
    assert chat.usage.unspoken == 4
    assert caplog.text.count("2 of 3 answers end within the model's thoughts and count as empty") == 1


@pytest.mark.parametrize(
    "text", ["I <3 space", "a < b > c", "I think> so", "[think] of me", "x <thinker> y", "Thought: none", "<b>bold</b>"]
)
def test_what_only_looks_like_thoughts_stays(text):
    assert spoken(text) == text


PARTS = {
    "thoughts first": [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": WORDS},
    ],
    "in pieces": [{"type": "text", "text": "Something scary"}, {"type": "text", "text": " in space."}],
    "plain": ["Something scary ", "in space."],
    "reasoning": [{"type": "reasoning", "text": "hm"}, {"type": "output_text", "text": WORDS}],
    "hidden": [{"type": "redacted_thinking", "data": "c2VjcmV0"}, {"type": "text", "text": WORDS}],
    "marked as thought": [{"text": "hm", "thought": True}, {"text": WORDS}],
    "a value": [{"type": "text", "text": {"value": WORDS, "annotations": []}}],
    "a picture": [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": WORDS}],
    "one part without a list": {"type": "text", "text": WORDS},
    "tags in a part": [{"type": "text", "text": "<think>hm</think>"}, {"type": "text", "text": WORDS}],
    "nothing between": [None, {"type": "text", "text": WORDS}],
}


@pytest.mark.parametrize("kind", PARTS)
def test_content_in_parts_is_joined(endpoint, kind):
    endpoint.reply = lambda body, number: (200, completion(PARTS[kind]))
    assert asking(endpoint).complete([say("x")], max_tokens=5) == [WORDS]


def test_thoughts_without_words_are_counted_whatever_their_form(endpoint):
    thought = {"type": "thinking", "thinking": "They want </think> Alien"}
    apart = completion(None)
    apart["choices"][0]["message"]["reasoning_content"] = "They want Alien"
    replies = [completion([thought]), completion([thought, {"type": "text", "text": " "}]), apart]
    endpoint.reply = lambda body, number: (200, replies[int(body["messages"][0]["content"])])
    chat = asking(endpoint)
    assert chat.complete([say("0"), say("1"), say("2")], max_tokens=5) == ["", "", ""]
    assert chat.usage.unspoken == 3


BROKEN = {
    "first half": (r'"bad \ud83d half"', "bad \ufffd half"),
    "second half": (r'"bad \ude00 half"', "bad \ufffd half"),
    "at the end": (r'"cut \ud83d"', "cut \ufffd"),
    "in the wrong order": (r'"\ude00\ud83d"', "\ufffd\ufffd"),
    "two first halves": (r'"\ud83d\ud83d!"', "\ufffd\ufffd!"),
    "a half and a whole": (r'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
    "halves in two parts": (r'["\ud83d", "\ude00 whole"]', "\U0001f600 whole"),
    "whole": (r'"\ud83d\ude00 whole"', "\U0001f600 whole"),
    "bytes that are not UTF-8": (b'"caf\xe9"', "caf\ufffd"),
    "zero": (r'"a\u0000b"', "a\x00b"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_text_is_mended_and_kept(endpoint, tmp_path, kind):
    written, expected = BROKEN[kind]
    written = written if isinstance(written, bytes) else written.encode()
    body = b'{"choices": [{"message": {"content": ' + written + b'}, "finish_reason": "stop"}]}'
    endpoint.reply = lambda _, number: (200, body)
    for _ in range(2):
        chat = asking(endpoint, cache=tmp_path / "a.jsonl")
        assert chat.complete([say("x")], max_tokens=5) == [expected]
    assert len(endpoint.bodies) == 1


def test_questions_with_broken_text_are_asked_and_kept(endpoint, tmp_path):
    for _ in range(2):
        chat = asking(endpoint, cache=tmp_path / "a.jsonl")
        assert chat.complete([say("half \ud83d")], max_tokens=5) == ["echo half \ufffd"]
    assert len(endpoint.bodies) == 1
    assert whole_text("\ud83d\ude00") == "\U0001f600"


NOW = {  # an error that asking again cannot mend, in a reply with status 200 -> what is said, once
    "402": ({"error": {"message": "Insufficient credits", "code": 402}}, r"no credit .402.: Insufficient credits"),
    "402 by name": ({"error": {"message": "Top up", "type": "insufficient_balance"}}, r"no credit .402.: Top up"),
    "401": ({"error": {"message": "No auth", "code": 401}}, "asks for a key .401."),
    "401 as text": ({"error": {"message": "No auth", "code": "401"}}, "asks for a key .401."),
    "404": ({"error": {"message": "no such model", "code": "model_not_found"}}, "not found .404."),
    "400": ({"error": {"message": "too long", "code": 400}}, "refuses the request .400.: too long"),
    "quota": ({"error": {"message": "x", "code": "insufficient_quota"}}, "quota is used up"),
    "vLLM": ({"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}, "400.: too long"),
    "in a list": ([{"error": {"message": "too long", "code": 400}}], "400.: too long"),
    "in a choice": ({"choices": [{"error": {"message": "too long", "code": 400}}]}, "400.: too long"),
}
LATER = {
    "429": ({"error": {"message": "free-models-per-day", "code": 429}}, "429 Too Many Requests: free-models-per-day"),
    "429 by name": ({"error": {"message": "slow down", "type": "rate_limit_error"}}, "429 .*: slow down"),
    "503 in a choice": (
        {"choices": [{"error": {"message": "overloaded", "code": 503}, "message": {"content": ""}}]},
        "503 .*: overloaded",
    ),
    "plain": ({"error": "model is loading"}, "500 .*: model is loading"),
    "no code": ({"error": {"message": "provider returned error"}}, "500 .*: provider returned error"),
    "an odd code": ({"error": {"message": "busy", "code": 1e400}}, "500 .*: busy"),
    "a detail": ({"detail": "not ready"}, "500 .*: not ready"),
}


@pytest.mark.parametrize("kind", NOW)
def test_an_error_in_a_200_is_read_like_its_status(endpoint, kind):
    endpoint.reply = lambda body, number: (200, NOW[kind][0])
    with pytest.raises(BenchError, match=NOW[kind][1]) as caught:
        asking(endpoint, concurrency=1).complete([say("x"), say("y")], max_tokens=5)
    assert len(endpoint.bodies) == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", LATER)
def test_an_error_in_a_200_that_may_pass_is_asked_again(endpoint, kind):
    reply, message = LATER[kind]
    endpoint.reply = lambda body, number: (200, reply)
    with pytest.raises(BenchError, match=f"did not answer in 2 attempts: {message}"):
        asking(endpoint, attempts=2).complete([say("x")], max_tokens=5)
    assert len(endpoint.bodies) == 2
    endpoint.reply = lambda body, number: (200, reply) if number < 4 else (200, completion("at last"))
    assert asking(endpoint).complete([say("x")], max_tokens=5) == ["at last"]


def test_402_is_not_asked_again_and_an_answer_beside_an_error_is_kept(endpoint):
    endpoint.reply = lambda body, number: (402, {"error": {"message": "Top up at example.org"}})
    with pytest.raises(BenchError, match=r"no credit .402.: Top up at example.org"):
        asking(endpoint).complete([say("x")], max_tokens=5)
    assert len(endpoint.bodies) == 1
    endpoint.reply = lambda body, number: (200, {**completion("paid"), "error": {"code": 200, "message": "ok"}})
    assert asking(endpoint).complete([say("x")], max_tokens=5) == ["paid"]
    assert read_reply('{"choices": [], "error": null}') is None


def test_messages_of_servers_are_one_line():
    assert error_message('{"error": {"message": "a\\nb\\u001b[31m\\ud83d"}}') == "a b [31m\ufffd"
    assert error_message("<html>\n<b>x") == "<html> <b>x"
    assert error_message("{}") == ""
    assert error_message("[" * 100_000).startswith("[[[")
    assert isinstance(read_reply('{"error": {"code": "' + "9" * 5000 + '"}}'), ServerError)


ODD = ["Infinity", "-Infinity", "NaN", "1e999", "-5", '"many"', "null", "[1]", '{"a": 1}', "true", "1" * 400, "12.0"]


@pytest.mark.parametrize("number", ODD)
def test_odd_counts_of_tokens_cost_no_answer(endpoint, number):
    text = '{"choices": [{"message": {"content": "paid"}}], "usage": {"prompt_tokens": 3, "completion_tokens": ODD}}'
    endpoint.reply = lambda body, _: (200, text.replace("ODD", number))
    chat = asking(endpoint, attempts=1)
    assert chat.complete([say("x")], max_tokens=5) == ["paid"]
    assert (chat.usage.prompt_tokens, chat.usage.completion_tokens) == (3, {"12.0": 12, "true": 1}.get(number, 0))


@pytest.mark.parametrize("usage", ["Infinity", "[]", '"none"', "7"])
def test_odd_forms_of_usage_cost_no_answer(endpoint, usage):
    endpoint.reply = lambda body, number: (
        200,
        '{"choices": [{"message": {"content": "paid"}}], "usage": ODD}'.replace("ODD", usage),
    )
    assert asking(endpoint, attempts=1).complete([say("x")], max_tokens=5) == ["paid"]


DEEP = {
    "lists": "[" * 200_000,
    "objects": '{"a":' * 200_000,
    "an answer in lists": '{"choices": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "an error in lists": '{"error": ' + "[" * 900 + "]" * 900 + "}",
    "content in lists": '{"choices": [{"message": {"content": ' + "[" * 300 + "]" * 300 + "}}]}",
    "closed lists": "[" * 100_000 + "]" * 100_000,
    "a huge number": '{"choices": ' + "1" * 100_000 + "}",
    "text": '"hello"',
    "null": "null",
    "a choice of null": '{"choices": [null]}',
    "a message of text": '{"choices": [{"message": "hello"}]}',
}


@pytest.mark.parametrize("kind", DEEP)
def test_json_in_no_form_is_no_traceback(endpoint, kind):
    endpoint.reply = lambda body, number: (200, DEEP[kind])
    with pytest.raises(
        BenchError, match=r"did not answer in 1 attempts: (an answer that is not in the OpenAI form|500 )"
    ):
        asking(endpoint, attempts=1).complete([say("x")], max_tokens=5)
    endpoint.reply = lambda body, number: (400, DEEP[kind])
    with pytest.raises(BenchError, match=r"refuses the request .400."):
        asking(endpoint, attempts=1).complete([say("x")], max_tokens=5)


def test_thoughts_in_deep_parts_are_no_traceback(endpoint):
    deep = '{"choices": [{"message": {"content": [{"type": "thinking", "thinking": ' + "[" * 900 + "]" * 900 + "}]}}]}"
    endpoint.reply = lambda body, number: (200, deep)
    assert asking(endpoint, attempts=1).complete([say("x")], max_tokens=5) == [""]


@contextmanager
def raw(serve):
    """A server of bytes: ``serve(connection)`` for each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def one(connection):
        with connection:
            connection.recv(65536)
            try:
                serve(connection, ended)
            except OSError:
                return

    def run():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=run, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    ended.set()
    listener.close()


def dribbled(before: bytes, piece: bytes):
    def serve(connection, ended):
        connection.sendall(before)
        while not ended.wait(0.05):
            connection.sendall(piece)

    return serve


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ENDLESS = {
    "body": (HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "body without a length": (HEAD + b"\r\n", b" "),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a header": (HEAD + b"X-Long: ", b"x"),
    "headers": (HEAD, b"X-One: 1\r\n"),
    "the status line": (b"HTTP/1.1 200 ", b"O"),
    "wait a moment": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "an error": (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 1000\r\n\r\n", b" "),
    "an answer that never ends": (HEAD + b'\r\n{"choices": [{"message": {"content": "paid"}}]}', b" "),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_server_that_dribbles_ends(kind, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with raw(dribbled(*ENDLESS[kind])) as url:
        begin = time.monotonic()
        with pytest.raises(BenchError, match=r"did not answer in 2 attempts: .*no whole answer within 0.4 s"):
            ServerChat("m", url, timeout=0.4, attempts=2, backoff=0.01).complete([say("x")], max_tokens=5)
        assert 0.8 <= time.monotonic() - begin < 4


def test_a_huge_answer_is_not_read(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    sent = []

    def serve(connection, ended):
        connection.sendall(HEAD + b"Content-Length: 2000000000\r\n\r\n")
        while not ended.is_set():
            connection.sendall(b" " * (1 << 20))
            sent.append(1 << 20)

    with raw(serve) as url:
        chat = ServerChat("m", url, timeout=20, attempts=3, backoff=0.01)
        with pytest.raises(BenchError, match="answers with more than 8 MiB; see whether it is a chat server"):
            chat.complete([say("x")], max_tokens=5)
    assert sum(sent) < LARGEST + (16 << 20)


def test_an_error_s_long_page_and_a_long_answer_are_read(endpoint):
    long = "word " * 100_000
    endpoint.reply = lambda body, number: (200, completion(long))
    assert asking(endpoint).complete([say("x")], max_tokens=5) == [long.strip()]
    endpoint.reply = lambda body, number: (400, "x" * (9 << 20))
    with pytest.raises(BenchError, match=r"refuses the request .400.: x{200}$"):
        asking(endpoint).complete([say("x")], max_tokens=5)


SECRET = "sk-0123456789secret"


@pytest.mark.parametrize(
    "spec",
    [
        "server:m@http://host/v1?api_key=" + SECRET,
        "server:m@http://host/v1?" + SECRET,
        "server:m@http://host/v1/?key=" + SECRET + "/",
        "server:m@http://host/v1#" + SECRET,
        "server:m@http://host/v1;token=" + SECRET,
        "server:m@http://host/v1%3Fapi_key=" + SECRET,
        "server:m@http://host/api-key=" + SECRET + "/v1",
        "server:m@http://host/v1/chat/completions?api-version=1&subscription-key=" + SECRET,
        "server:m@http://user:" + SECRET + "@host/v1",
        "server:m@host/v1?api_key=" + SECRET,
        "server:http://host/v1?api_key=" + SECRET,
        "server:m?api_key=" + SECRET,
        "server:http://user:" + SECRET + "@host/v1",
        "http://host/v1?api_key=" + SECRET,
        "server:m@http://[::1/v1?k=" + SECRET,
        "server:m@http://host:99999/v1?k=" + SECRET,
    ],
)
def test_keys_in_addresses_are_refused_and_not_shown(spec):
    with pytest.raises(BenchError) as caught:
        chat_model(spec)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__cause__) + repr(caught.value.__context__)


@pytest.mark.parametrize(
    "address", ["http://[::1/v1", "http://host:99999/v1", "http://ho st/v1", "http:///v1", "ftp://host"]
)
def test_addresses_of_nothing_are_one_line(address):
    with pytest.raises(BenchError, match="is no address of a server; write it as in http://localhost:8000/v1"):
        chat_model(f"server:m@{address}")


def test_a_key_in_an_escaped_message_is_not_shown(endpoint, monkeypatch):
    monkeypatch.setenv("RECLLM_API_KEY", SECRET)
    hidden = "".join(f"\\u{ord(sign):04x}" for sign in SECRET)
    for status in (400, 503, 200):
        reply = '{"error": {"message": "key KEY"}}'.replace("KEY", hidden)
        endpoint.reply = lambda body, number, status=status, reply=reply: (status, reply)
        with pytest.raises(BenchError, match=r"key \*\*\*") as caught:
            asking(endpoint, attempts=1).complete([say("x")], max_tokens=5)
        assert SECRET not in str(caught.value)
    reply = json.dumps(completion("x")).replace('"x"', f'"{hidden}"')
    endpoint.reply = lambda body, number: (200, reply)
    assert asking(endpoint).complete([say("x")], max_tokens=5) == ["***"]
