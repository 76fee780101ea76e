"""What a chat server's reply holds: words, thoughts, a count of tokens, or an error; whatever its form."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NAMES = (
    "think|thinking|thought|thoughts|thought_process|reasoning|reason|reflection|scratchpad|analysis|antthinking"
    "|inner_monologue|inner_thoughts|chain_of_thought|cot"
)
# As models and servers write them: <think>, <seed:think>, [THINK] (Magistral), ◁think▷ (Kimi), <|begin_of_thought|>
# (Sky-T1), <|START_THINKING|> (Cohere), <|channel>thought ... <channel|> (Gemma), also with their brackets escaped.
_MARK = re.compile(
    rf"(?:<|&lt;)\s*(?P<end>/?)\s*(?:\w+:)?(?:{_NAMES})(?:\s[^<>]*?)?(?P<none>/?)\s*(?:>|&gt;)"
    rf"|<[|｜](?P<end2>/?)(?:{_NAMES})[|｜]>|◁(?P<end3>/?)(?:{_NAMES})▷|(?-i:\[(?P<end4>/?)(?:THINK|REASONING)\])"
    r"|<\|(?:(?P<end5>end_of_|end_)|begin_of_|start_)(?:thought|thinking)\|>"
    r"|<\|channel>\s*(?:thought|analysis)|(?P<end6><channel\|>)",
    re.IGNORECASE,
)
_HARMONY = re.compile(
    r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>(.*?)(?=<\|(?:end|return|call|start|channel)\|>|\Z)", re.S
)
_IN_WORDS = re.compile(r"\s*Here(?:['’]s| is) my (?:thought|thinking|reasoning) process:", re.IGNORECASE)  # Granite
_THEN_WORDS = re.compile(r"Here(?:['’]s| is) my (?:response|answer):", re.IGNORECASE)
_WRAPPED = re.compile(
    r"\A\s*(?:<(?:answer|response|final|final_answer|output|solution)>|<\|(?:begin_of_solution|START_RESPONSE)\|>)"
    r"|(?:</(?:answer|response|final|final_answer|output|solution)>|<\|(?:end_of_solution|END_RESPONSE)\|>)\s*\Z",
    re.IGNORECASE,
)
_SILENT = ("thinking", "thought", "reasoning", "redacted_thinking", "reasoning_content", "summary", "analysis")
_CODES = {  # names that servers put where others have a number
    "rate_limit": 429, "too_many_requests": 429, "resource_exhausted": 429, "insufficient_quota": 429,
    "overloaded": 503, "unavailable": 503, "server_error": 500, "internal": 500, "timeout": 504,
    "insufficient_credit": 402, "insufficient_balance": 402, "payment_required": 402, "billing": 402,
    "invalid_api_key": 401, "authentication": 401, "unauthorized": 401, "unauthenticated": 401, "permission": 403,
    "not_found": 404, "content_filter": 400, "content_policy": 400, "invalid_request": 400, "bad_request": 400,
    "context_length": 400,
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """One completion.

    Attributes
    ----------
    text : str
        What the model wrote, without surrounding space; thoughts that came apart stand before it in ``<think>``.
    prompt_tokens, completion_tokens : int
        What it read and wrote, as counted by the model; 0 where a server says nothing, or nonsense.
    finished : bool
        False when it was cut at ``max_tokens``.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finished: bool = True


@dataclass(frozen=True)
class ServerError:
    """An error that a server put into a reply with status 200.

    Attributes
    ----------
    status : int
        The HTTP status that would have said so.
    body : str
        The error as JSON, to be read as the body of such a status.
    """

    status: int
    body: str


def whole_text(text: str) -> str:
    """Text that any file can hold: split surrogate pairs joined, half ones replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace") if _has_half(text) else text


def _has_half(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text)


def has_thoughts(text: str) -> bool:
    """Whether an answer has anything that :func:`spoken` would drop."""
    return bool(_MARK.search(text) or _HARMONY.search(text) or _IN_WORDS.match(text))


def spoken(text: str) -> str:
    """An answer without the thoughts in it, and without surrounding space.

    Thoughts stand between tags in one of the spellings in use; where the opening tag was part of the prompt, all up to
    the closing one is thought. An answer that ends within its thoughts is empty.
    """
    if not has_thoughts(text):
        return text.strip()
    if _HARMONY.search(text):
        final = [said for channel, said in _HARMONY.findall(text) if channel.lower() == "final"]
        return final[-1].strip() if final else ""
    if _IN_WORDS.match(text):
        answer = _THEN_WORDS.split(text, maxsplit=1)
        return spoken(answer[1]) if len(answer) > 1 else ""
    kept: list[str] = []
    place, thinking = 0, False
    for mark in _MARK.finditer(text):
        ends = any(mark[name] for name in ("end", "end2", "end3", "end4", "end5", "end6"))
        if not thinking:
            kept.append(text[place : mark.start()])
        if ends and not thinking:
            kept.clear()  # the thought began in the prompt, or held an end of its own
        if not mark["none"]:
            thinking = not ends
        place = mark.end()
    if thinking:
        return ""
    kept.append(text[place:])
    joined = " ".join(part.strip() for part in kept if part.strip())
    return _WRAPPED.sub("", joined).strip()


def read_reply(text: str) -> Answer | ServerError | None:
    """Read the body of a chat completion.

    Returns
    -------
    Answer, ServerError or None
        None when it is neither an answer nor an error in any known form.
    """
    try:
        reply = json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return None
    if isinstance(reply, list) and len(reply) == 1:
        reply = reply[0]
    if not isinstance(reply, Mapping):
        return None
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(choice, Mapping) and isinstance(message := choice.get("message"), Mapping):
        said = _said(message)
        if said is not None and (said or not _error(reply, choice)):
            usage = reply.get("usage")
            usage = usage if isinstance(usage, Mapping) else {}
            return Answer(
                whole_text(said).strip(),
                _count(usage.get("prompt_tokens")),
                _count(usage.get("completion_tokens")),
                choice.get("finish_reason") != "length",
            )
    return _error(reply, choice if isinstance(choice, Mapping) else {})


def error_message(body: str) -> str:
    """What a server says of an error, in one line; the start of the body where it has no known form."""
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        reply = body
    if isinstance(reply, list) and len(reply) == 1:
        reply = reply[0]
    for _ in range(3):  # {"error": {"message": ...}}, with another such object as text in it at some routers
        if not isinstance(reply, Mapping):
            break
        inner = next(
            (reply[name] for name in ("error", "message", "detail", "msg", "error_msg") if reply.get(name)), None
        )
        if inner is None:
            break
        reply = inner
    said = reply if isinstance(reply, str) else "" if reply in ({}, [], None) else _json(reply)
    said = "".join(sign if sign.isprintable() else " " for sign in whole_text(said))
    return " ".join(said.split())[:200]


def _said(message: Mapping[str, Any]) -> str | None:
    """Words and thoughts of a message; None when its content has no known form."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    said: list[str] = []
    for part in parts:
        if isinstance(part, Mapping):
            kind, text = str(part.get("type", "text")).lower(), part.get("text")
            text = text.get("value") if isinstance(text, Mapping) else text
            if kind in _SILENT or part.get("thought") is True:
                said.append(_thought(_flat(part)))
            elif isinstance(text, str):
                said.append(text)
            elif "type" not in part:
                return None
        elif isinstance(part, str):
            said.append(part)
        elif isinstance(part, (int, float)) and not isinstance(part, bool):
            said.append(str(part))
        elif part is not None and part is not False:
            return None
    text = "".join(said)
    if not text.strip():
        apart = next(
            (message[name] for name in ("reasoning_content", "reasoning", "thinking") if message.get(name)), None
        )
        return _thought(_flat(apart)) if apart else ""
    return text


def _thought(text: str) -> str:
    return f"<think>{_MARK.sub(' ', text)}</think>"


def _flat(value: Any) -> str:
    """All text within a part, however deep."""
    texts: list[str] = []
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, Mapping):
            inner = [held for name, held in inner.items() if name not in ("type", "signature", "id")]
        if isinstance(inner, list):
            waiting += reversed(inner)
        elif isinstance(inner, str):
            texts.append(inner)
    return " ".join(texts)


def _count(value: Any) -> int:
    """A number of tokens; 0 for what is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0
    return int(number) if math.isfinite(number) and 0 <= number < 2**53 else 0


def _error(reply: Mapping[str, Any], choice: Mapping[str, Any]) -> ServerError | None:
    found = reply.get("error") or choice.get("error")
    if not found and (str(reply.get("object", "")).lower() == "error" or "choices" not in reply):
        told = any(reply.get(name) for name in ("message", "detail", "msg", "error_msg"))
        found = dict(reply) if told else None
    if not found:
        return None
    inner = found if isinstance(found, Mapping) else {}
    names = ("code", "status", "status_code", "type", "http_status")
    codes = [*(inner.get(name) for name in names), *(reply.get(name) for name in names)]
    return ServerError(_status(codes, found), _json({"error": found}))


def _json(value: Any) -> str:
    try:
        return json.dumps(value)
    except RecursionError:
        return _flat(value)


def _status(codes: list[Any], found: Any) -> int:
    """The first thing among what a server calls an error's code that can be read as a status; 500 when none can."""
    for code in codes:
        if 400 <= _count(code) < 600:
            return _count(code)
    for code in [*codes, found if isinstance(found, str) else ""]:
        called = str(code or "").lower().replace(" ", "_").replace("-", "_")
        for name, status in _CODES.items():
            if name in called:
                return status
    return 500
