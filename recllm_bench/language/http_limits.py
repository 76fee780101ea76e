"""HTTP requests that end: a time limit for the whole answer and a bound on its size."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import urllib.request
from typing import Any

LARGEST = 16 << 20
"""Most bytes of an answer: a hundred times the longest context of today's models."""


class Deadline:
    """Ends the connection of a request that takes longer, however slowly its bytes drip in.

    Parameters
    ----------
    seconds : float
        From ``with`` on. A socket's own timeout holds for each read alone.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.passed = seconds, False
        self.socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def _end(self) -> None:
        self.passed = True
        if self.socket is not None:
            with contextlib.suppress(OSError):  # the plain one: that of TLS would wait for its peer
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._timer.cancel()
        if self.passed:
            raise TimeoutError(f"timed out: no whole answer in {self.seconds:g} s") from None


def bounded_text(response: Any) -> str:
    """The body as text; ``HTTPException`` where it has more than :data:`LARGEST` bytes."""
    body = bytearray()
    while piece := response.read(1 << 16):
        body += piece
        if len(body) > LARGEST:
            raise http.client.HTTPException(f"an answer of more than {LARGEST >> 20} MiB")
    expected = response.length  # what a cut answer still owes: read(n) does not tell
    if expected:
        raise http.client.IncompleteRead(bytes(body), expected)
    return body.decode("utf-8", "replace")


def watched_handlers() -> list[urllib.request.BaseHandler]:
    """Handlers for ``urllib`` that show a request's ``deadline`` the socket it goes over."""
    return [_Http(), _Https()]


def _watched(kind: type[http.client.HTTPConnection], request: Any) -> Any:
    class Watched(kind):  # type: ignore[misc, valid-type]
        def connect(self) -> None:
            super().connect()
            request.deadline.socket = self.sock
            if request.deadline.passed:
                raise TimeoutError(f"timed out: no connection in {request.deadline.seconds:g} s")

    return Watched


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request: Any) -> Any:
        return self.do_open(_watched(http.client.HTTPConnection, request), request)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, request: Any) -> Any:
        return self.do_open(_watched(http.client.HTTPSConnection, request), request)
