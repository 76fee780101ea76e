"""HTTP requests that end: with a time for the whole reply and a bound on its size, and without a redirect."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

LARGEST = 8 << 20
"""Bytes of a reply that are read; the longest answers of today's models have a twentieth of it."""


class TimedOpener:
    """Sends requests, each with a limit for the whole of it.

    Parameters
    ----------
    timeout : float
        Seconds from the connection to the reply's last byte. A time limit of sockets alone would begin again with
        every byte of a server that dribbles.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._opener = urllib.request.build_opener(_NoRedirect(), _Http(), _Https())

    def open(self, request: urllib.request.Request) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of a reply, whatever its status; one byte more than :data:`LARGEST` at most.

        Raises
        ------
        OSError or http.client.HTTPException
            When there is no whole reply in time (``TimeoutError``), or none at all.
        """
        watch = _Watch()
        request.watch = watch  # type: ignore[attr-defined]  # the handlers are given nothing but the request
        timer = threading.Timer(self.timeout, watch.cut)
        timer.daemon = True
        timer.start()
        try:
            try:
                with self._opener.open(request, timeout=self.timeout) as response:
                    reply = response.status, response.headers, response.read(LARGEST + 1)
                    if response.length and len(reply[2]) <= LARGEST:  # read() takes a cut body for a whole one
                        raise http.client.IncompleteRead(reply[2], response.length)
            except urllib.error.HTTPError as error:
                with error:
                    reply = error.code, error.headers, error.read(LARGEST + 1)
        except (OSError, http.client.HTTPException):
            if not watch.late:
                raise
        finally:
            timer.cancel()
        if watch.late:
            raise TimeoutError(f"timed out: no whole answer within {self.timeout:g} s")
        return reply


class _Watch:
    """The connections of one request, which can be cut from another thread."""

    def __init__(self) -> None:
        self.late = False
        self.connections: list[http.client.HTTPConnection] = []

    def cut(self) -> None:
        self.late = True
        for connection in self.connections:
            # urllib takes the socket out of the connection once the headers are there, so it was noted as well.
            for held in (connection.sock, getattr(connection, "noted", None)):
                if held is not None:
                    with contextlib.suppress(OSError):  # closed already
                        held.shutdown(socket.SHUT_RDWR)

    def making(self, kind: type[http.client.HTTPConnection]) -> Callable[..., http.client.HTTPConnection]:
        """A maker of such connections that notes what it makes."""

        def make(*inputs: Any, **named: Any) -> http.client.HTTPConnection:
            connection = kind(*inputs, **named)
            self.connections.append(connection)
            return connection

        return make


class _Noted(http.client.HTTPConnection):
    noted: socket.socket | None = None

    def connect(self) -> None:
        super().connect()
        self.noted = self.sock


class _NotedTls(http.client.HTTPSConnection):
    noted: socket.socket | None = None

    def connect(self) -> None:
        super().connect()
        self.noted = self.sock


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request: Any) -> Any:
        return self.do_open(request.watch.making(_Noted), request)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, request: Any) -> Any:
        return self.do_open(request.watch.making(_NotedTls), request)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected request would carry the key to an address that nobody named."""

    def redirect_request(self, *_: Any) -> None:
        return None
