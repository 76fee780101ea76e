"""Chat models behind any OpenAI-compatible HTTP endpoint."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from recllm_bench.errors import BenchError
from recllm_bench.language.chat_answers import Chat, Conversation
from recllm_bench.language.chat_replies import Answer, ServerError, error_message, read_reply
from recllm_bench.language.chat_spending import process_budget, question_tokens
from recllm_bench.language.chat_transport import LARGEST, TimedOpener
from recllm_bench.progress import log

KEYS = ("RECLLM_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key, the first one set is taken."""

NEAR = ("localhost", "127.0.0.1", "::1")
"""This machine, where nothing is paid for."""

_RETRIED = (408, 409, 429, 500, 502, 503, 504, 529)
_LONGEST_WAIT = 60.0  # seconds between two attempts
_DEAD = 8  # questions given up in a row after which the server counts as gone


class ServerChat(Chat):
    """A hosted model, asked over HTTP with several requests at a time.

    Parameters
    ----------
    model : str
        The server's name for it.
    url : str
        The endpoint's base, such as ``http://localhost:8000/v1``.
    concurrency : int
        Requests in flight at most.
    timeout : float
        Seconds that one request may take, from the connection to the answer's last byte.
    attempts : int
        Tries of one request that meets 429, a server error or a broken connection.
    backoff : float
        Seconds before the second try; doubled at every further one. What the server asks for has precedence.
    requests_per_minute : float, optional
        At most so many requests are begun in a minute.

    Notes
    -----
    The key is read from the environment (:data:`KEYS`) at each request. It is never an attribute, and it is removed
    from whatever a server sends back. ``OPENAI_API_KEY`` is not sent unencrypted to another machine; set
    ``RECLLM_API_KEY`` where that is meant.
    """

    def __init__(
        self,
        model: str,
        url: str,
        *,
        concurrency: int = 64,
        timeout: float = 120.0,
        attempts: int = 6,
        backoff: float = 1.0,
        requests_per_minute: float | None = None,
        cache: Path | None = None,
    ) -> None:
        super().__init__(cache)
        self.name, self.url = model, _base(url)
        if concurrency < 1 or attempts < 1 or timeout <= 0 or backoff < 0:
            raise BenchError(f"{model}: concurrency and attempts are at least 1, timeout is over 0 seconds")
        if requests_per_minute is not None and requests_per_minute <= 0:
            raise BenchError(f"{model}: requests_per_minute is over 0, or not given")
        self.concurrency, self.timeout, self.attempts, self.backoff = concurrency, timeout, attempts, backoff
        self._gap = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._next = 0.0  # when the next request may begin; moved on by the pace and by what the server asks for
        self._guard = threading.Lock()
        self._stopped = threading.Event()
        self._fatal: Exception | None = None  # the refusal that ended it
        self._given_up = 0  # questions in a row, without an answer to any other
        self._left_out: set[str] = set()  # parameters this server does not take
        self._limit_name = "max_tokens"
        self._opener = TimedOpener(timeout)

    def key(self) -> dict[str, Any]:
        return {"server": self.url, "model": self.name}

    @property
    def lacks_limit(self) -> bool:
        return not (_is_near(self.url) or self.budget.limit or process_budget().limit)

    def ask(
        self, conversations: Sequence[Conversation], *, max_tokens: int, temperature: float, seed: int
    ) -> Iterator[tuple[int, Answer | None]]:
        self.check_limit()
        parameters = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        self._stopped.clear()
        self._fatal = None
        pool = ThreadPoolExecutor(min(self.concurrency, len(conversations)), thread_name_prefix="chat")
        try:
            waiting = {
                pool.submit(self._answer, place, conversation, parameters): place
                for place, conversation in enumerate(conversations)
            }
            for done in as_completed(waiting):
                if done.exception() is None:  # what was in flight at a refusal has been paid for, and is kept
                    yield waiting[done], done.result()
                elif isinstance(done.exception(), _GivenUp) and self._fatal is None:
                    yield waiting[done], None
            if self._fatal is not None:
                raise self._fatal
        finally:
            self._stopped.set()  # wakes those that wait for another attempt
            pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, place: int, conversation: Conversation, parameters: Mapping[str, Any]) -> Answer:
        """An answer, kept at once; the first refusal stops all others."""
        if self._stopped.is_set():
            raise _Stopped
        save = self.save
        most = question_tokens(conversation) + parameters["max_tokens"]
        budgets = [self.budget] if _is_near(self.url) else [self.budget, process_budget()]
        try:
            with ExitStack() as held:
                counts = [held.enter_context(budget.room(most)) for budget in budgets]
                if self._stopped.is_set():  # while it waited for room
                    raise _Stopped
                answer = self._insist(conversation, parameters)
                for count in counts:
                    count(answer.prompt_tokens + answer.completion_tokens or most)  # some servers tell none
            save(place, answer)
            self._given_up = 0
            return answer
        except _GivenUp as error:
            self._given_up += 1
            if not self.loses or self._given_up >= _DEAD:
                self._end(error)
            raise
        except Exception as error:
            self._end(error)
            raise

    def _end(self, error: Exception) -> None:
        with self._guard:
            if not self._stopped.is_set():
                self._fatal = error
                self._stopped.set()

    def _insist(self, conversation: Conversation, parameters: Mapping[str, Any]) -> Answer:
        reason, tries = "", 0
        while tries < self.attempts:
            self._pace()
            wait = min(_LONGEST_WAIT, self.backoff * 2**tries * random.uniform(0.75, 1.25))
            sent = self._body(conversation, parameters)
            try:
                status, headers, text = self._post(sent)
            except ssl.SSLCertVerificationError as error:
                raise BenchError(f"{self.url}: its certificate is not trusted ({error.verify_message})") from None
            except (OSError, http.client.HTTPException) as error:
                reason = self._clean(f"{getattr(error, 'reason', None) or error}" or type(error).__name__)
            else:
                reply = read_reply(text) if status == 200 else None
                if isinstance(reply, ServerError):
                    status, text = reply.status, self._clean(reply.body)
                elif reply is not None:
                    return replace(reply, text=self._clean(reply.text))
                if status == 200:
                    reason = "an answer that is not in the OpenAI form"
                elif status in (400, 422) and (self._adapt(text) or self._body(conversation, parameters) != sent):
                    continue  # not an attempt: the same question as the server wants it, now or since it was sent
                elif status in (400, 403) and re.search(r"content_(filter|policy)", text):
                    return Answer("")  # the provider will not read this text; the others go on
                elif status not in _RETRIED or "insufficient_quota" in text:
                    raise BenchError(self._refusal(status, text))
                else:
                    said = self._clean(error_message(text))
                    reason = f"{status} {http.client.responses.get(status, '')}".strip() + (f": {said}" if said else "")
                    asked = _seconds(headers.get("retry-after"))
                    if asked is not None:
                        wait = min(_LONGEST_WAIT, asked)
                        with self._guard:  # the others wait as well
                            self._next = max(self._next, time.monotonic() + wait)
            tries += 1
            if tries < self.attempts:
                log.debug(f"{self.name}: {reason}; trying again in {wait:.1f} s")
                if self._stopped.wait(wait):
                    raise _Stopped
        raise _GivenUp(
            f"{self.name} at {self.url} did not answer in {self.attempts} attempts: {reason}; see whether it is up."
            " Answers so far are kept: the same command goes on from there"
        )

    def _body(self, conversation: Conversation, parameters: Mapping[str, Any]) -> bytes:
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [{"role": message["role"], "content": message["content"]} for message in conversation],
            self._limit_name: parameters["max_tokens"],
            "temperature": parameters["temperature"],
            "seed": parameters["seed"],
        }
        return json.dumps({name: value for name, value in body.items() if name not in self._left_out}).encode()

    def _post(self, body: bytes) -> tuple[int, Mapping[str, str], str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "recllm-bench"}
        key = _api_key(self.url)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.url}/chat/completions", data=body, headers=headers, method="POST")
        try:
            status, replied, text = self._opener.open(request)
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise error.reason from None
            raise
        if status == 200 and len(text) > LARGEST:
            raise BenchError(
                f"{self.name} at {self.url} answers with more than {LARGEST >> 20} MiB; see whether it is a chat server"
            )
        said = text.decode("utf-8", "replace")
        return status, replied, said if status == 200 else self._clean(said)

    def _adapt(self, text: str) -> bool:
        """Leave out or rename a parameter that the server's message names as not taken."""
        with self._guard:
            if "max_completion_tokens" in text and self._limit_name == "max_tokens":
                self._limit_name = "max_completion_tokens"
                return True
            for name in ("seed", "temperature"):
                if re.search(rf"\b{name}\b", text) and name not in self._left_out:
                    self._left_out.add(name)
                    log.warning(f"{self.name} does not take {name}; it is left out")
                    return True
        return False

    def _refusal(self, status: int, text: str) -> str:
        where = f"{self.name} at {self.url}"
        held = next((name for name in KEYS if os.environ.get(name)), None)
        if status in (401, 403):
            if held is None or not _api_key(self.url):
                return f"{where} asks for a key ({status}); set {KEYS[0]}"
            return f"{where} refuses the key in {held} ({status}); check the key and what it may use"
        if status == 404:
            return f"{where}: not found (404); check the model's name, and that the URL ends as in http://host:8000/v1"
        if 300 <= status < 400:
            return f"{where} points to another address ({status}); give that address"
        if "insufficient_quota" in text:
            return f"{where}: the account's quota is used up ({status})"
        said = self._clean(error_message(text))
        if status == 402:
            return f"{where}: the account has no credit (402){': ' + said if said else ''}"
        return f"{where} refuses the request ({status}){': ' + said if said else ''}"

    def _pace(self) -> None:
        with self._guard:
            now = time.monotonic()
            begin = max(now, self._next)
            self._next = begin + self._gap if self._gap else self._next
        if begin > now:
            self._stopped.wait(begin - now)

    @staticmethod
    def _clean(text: str) -> str:
        """Text without any key that it might hold."""
        for name in KEYS:
            key = (os.environ.get(name) or "").strip()
            if len(key) >= 4:
                text = text.replace(key, "***")
        return text


class _GivenUp(BenchError):
    """One question got no answer in all its attempts."""


class _Stopped(Exception):
    """Another request was refused, so this one is not made."""


def _base(url: str) -> str:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if not known or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise BenchError(f"'{shown(url)}' is no address of a server; write it as in http://localhost:8000/v1")
    if "@" in parts.netloc:
        raise BenchError(f"the address of {parts.hostname} holds a name or key; leave it out and set {KEYS[0]}")
    if shown(url) != url:
        raise BenchError(
            f"the address of {parts.hostname} holds parameters after its path; leave them out, and set {KEYS[0]} where"
            " it needs a key"
        )
    return url.rstrip("/").removesuffix("/chat/completions")


def shown(url: str) -> str:
    """An address as it may be printed: without what may be a key in it."""
    url = re.sub(r"(//)[^/]*@", r"\1***@", url)
    return re.sub(r"(?:[?#;]|%3f|%23|%3b|[^/]*(?:key|token|secret|auth)[^/]*=).*", "...", url, flags=re.I | re.S)


def _is_near(url: str) -> bool:
    return urlsplit(url).hostname in NEAR


def _api_key(url: str) -> str:
    parts = urlsplit(url)
    for name in KEYS:
        key = (os.environ.get(name) or "").strip()
        if not key:
            continue
        if not re.fullmatch(r"[\x21-\x7e]+", key):
            raise BenchError(f"{name} holds characters that a request cannot carry; set it to the key alone")
        if name == KEYS[0] or parts.scheme == "https" or _is_near(url):
            return key
    return ""


def _seconds(value: str | None) -> float | None:
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None
