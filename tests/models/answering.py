"""A chat server for the systems' tests: it answers as a test wants, over the wire, as a real one would."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.language.chat_endpoint import Endpoint, completion


@contextmanager
def answering(reply: Callable[[list[dict]], str]) -> Iterator[tuple[str, Endpoint]]:
    """A server whose answer, of 7 + 3 tokens, is a function of the messages; and its name for ``chat=``."""
    server = Endpoint()
    server.reply = lambda body, number: (
        200,
        completion(reply(body["messages"]), prompt_tokens=7, completion_tokens=3),
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"server:small@{server.url}", server
    finally:
        server.shutdown()
        server.server_close()


def drawn(messages: list[dict], most: int, count: int) -> list[int]:
    """So many different numbers from 1 to ``most`` that depend on all that was said."""
    text = "|".join(message["content"] for message in messages)
    keys = {number: hashlib.sha256(f"{number}{text}".encode()).hexdigest() for number in range(1, most + 1)}
    return sorted(keys, key=keys.__getitem__)[:count]
