"""A chat server for the tests of this folder."""

from __future__ import annotations

import threading

import pytest

from recllm_bench.language import chat_server
from tests.language.chat_endpoint import Endpoint


@pytest.fixture
def endpoint(monkeypatch):
    for name in chat_server.KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Endpoint()
    threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
