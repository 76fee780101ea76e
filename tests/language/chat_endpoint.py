"""A server on this machine that answers as a test wants, for whatever asks chat models."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from recllm_bench.language.chat import ServerChat


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


class Endpoint(ThreadingHTTPServer):
    """An OpenAI-compatible server whose replies a test decides."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.times: list[float] = []
        self.busy = self.most_busy = 0
        self.guard = threading.Lock()
        self.reply = lambda body, number: (200, completion("echo " + body["messages"][-1]["content"]))

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
        for name, value in (extra[0] if extra else {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def asking(endpoint: Endpoint, **options) -> ServerChat:
    return ServerChat("small", endpoint.url, **{"backoff": 0.01, "timeout": 5.0, **options})
