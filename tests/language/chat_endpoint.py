"""A server on this machine that answers as a test wants, for whatever asks chat models."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from recllm_bench.language.chat_answers import Chat
from recllm_bench.language.chat_server import ServerChat


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


class Endpoint(ThreadingHTTPServer):
    """An OpenAI-compatible server whose replies a test decides."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.times: list[float] = []
        self.busy = self.most_busy = 0
        self.guard = threading.Lock()
        self.reply = lambda body, number: (200, completion("echo " + body["messages"][-1]["content"]))

    def handle_error(self, *_) -> None:
        """A client that no longer waits is no news."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


def completion(text: str | None, **usage) -> dict:
    message = {"role": "assistant", "content": text}
    return {"choices": [{"message": message, "finish_reason": usage.pop("finish", "stop")}], "usage": usage}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server: Endpoint = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.guard:
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            server.times.append(time.monotonic())
            number = len(server.bodies)
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
        status, reply, *extra = server.reply(body, number)
        with server.guard:
            server.busy -= 1
        text = reply if isinstance(reply, bytes) else (reply if isinstance(reply, str) else json.dumps(reply)).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **(extra[0] if extra else {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


class SmallModel:
    """Replies of an :class:`Endpoint` by a real model on this machine: all who wait are answered in one batch."""

    def __init__(self, chat: Chat, most: int = 8) -> None:
        self.chat, self.most, self.batches = chat, most, list[int]()
        self._waiting: list[tuple[dict, Future]] = []
        self._guard, self._working = threading.Lock(), threading.Lock()

    def __call__(self, body: dict, number: int) -> tuple[int, dict]:
        answer: Future[str] = Future()
        with self._guard:
            self._waiting.append((body, answer))
        with self._working:
            with self._guard:
                taken, self._waiting = self._waiting, []
            if taken:
                self.batches.append(len(taken))
                asked = [each["messages"] for each, _ in taken]
                for (_, future), text in zip(taken, self.chat.complete(asked, max_tokens=self.most), strict=True):
                    future.set_result(text)
        text = answer.result(30)
        return 200, completion(text, prompt_tokens=len(str(body["messages"])) // 4, completion_tokens=len(text) // 4)


class Faults:
    """Every fifth call goes wrong, in each way in turn."""

    KINDS = ("busy", "broken", "silent", "cut", "garbled", "empty", "thinking", "thoughts alone")
    RETRIED = KINDS[:5]

    def __init__(self, reply: Callable[[dict, int], tuple], stall: float) -> None:
        self.reply, self.stall, self.stalls = reply, stall, 0
        self.met: list[tuple[str, str]] = []  # what each call met, by its last message

    def __call__(self, body: dict, number: int) -> tuple:
        kind = self.KINDS[number // 5 % len(self.KINDS)] if number % 5 == 0 else "well"
        self.stalls += kind == "silent"
        if kind == "silent" and self.stalls > 2:  # each costs as long as a client waits
            kind = "broken"
        self.met.append((body["messages"][-1]["content"], kind))
        if kind == "busy":
            return 429, {"error": {"message": "slow down"}}, {"Retry-After": "0.05"}
        if kind == "broken":
            return 500, "<html>Internal Server Error</html>"
        if kind == "silent":
            time.sleep(self.stall)
        if kind == "garbled":
            return 200, '{"choices": [{"message": {"content": "half a rep'
        if kind == "empty":
            return 200, completion("")
        status, reply = self.reply(body, number)
        text = reply["choices"][0]["message"]["content"]
        if kind == "thinking":
            return 200, completion(f"<think>They want something. I say yes.</think>{text}")
        if kind == "thoughts alone":
            return 200, completion("<think>They want something, so", finish="length")
        return (status, reply, {"Content-Length": "100000"}) if kind == "cut" else (status, reply)


def asking(endpoint: Endpoint, **options) -> ServerChat:
    return ServerChat("small", endpoint.url, **{"backoff": 0.01, "timeout": 5.0, **options})
