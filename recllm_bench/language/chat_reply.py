"""What a chat model's reply says: thoughts, parts, broken unicode, faults in the body of a success, odd numbers."""

from __future__ import annotations

import html
import json
import math
import re
from typing import Any, NamedTuple

from recllm_bench.language.chat_answers import Answer
from recllm_bench.language.chat_text import mended, without_thoughts

_NAMED = (  # kinds of errors that come by name, as OpenAI, Anthropic, Google and vLLM spell them
    (429, r"rate.?limit|too.?many|resource.?exhausted|insufficient.?quota"),
    (402, r"payment|credit|billing"),
    (401, r"auth|api.?key|permission"),
    (404, r"not.?found"),
    (529, r"overload"),
    (400, r"invalid|bad.?request|unsupported|content.?(?:filter|policy)|context.?length"),
)


class Fault(NamedTuple):
    """An error as a server tells it: a status as HTTP has it, and the message in one line."""

    status: int
    message: str


def parsed(text: str) -> Any:
    """The JSON of a body; None where it is none, or nested beyond what can be read."""
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None


def read_answer(text: str) -> Answer | None:
    """The first choice of a reply in the OpenAI form.

    Returns
    -------
    Answer or None
        None where the body has another form. Odd counts of tokens are 0: the text was paid for.
    """
    reply = parsed(text)
    try:
        choice = reply["choices"][0]
        message = choice["message"]
        said = _text(message.get("content"))
    except (KeyError, IndexError, TypeError, AttributeError):
        return None
    if said is None:
        return None
    usage = reply.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    spoken, unfinished = without_thoughts(said)
    aside = message.get("reasoning_content") or message.get("reasoning") or isinstance(message.get("content"), list)
    return Answer(
        spoken,
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        choice.get("finish_reason") != "length",
        unfinished or (not spoken and bool(aside or said.strip())),
    )


def read_fault(text: str) -> Fault | None:
    """The error in the body of a reply whose status is 200, with the status it stands for (500 where it names none)."""
    reply = parsed(text)
    if isinstance(reply, list):  # Google wraps errors in a list
        reply = reply[0] if reply else None
    if not isinstance(reply, dict):
        return None
    error = reply.get("error") or (reply if reply.get("object") == "error" else None)
    choices = reply.get("choices")
    if not error and isinstance(choices, list) and choices and isinstance(choices[0], dict):
        error = choices[0].get("error")
    if not error:
        return None
    return Fault(_status(error), _line(error))


def fault_message(text: str) -> str:
    """The message in the body of a refusal, one line of at most 200 characters; else the body's beginning."""
    fault = read_fault(text)
    return fault.message if fault else " ".join(text.split())[:200]


def _text(content: Any) -> str | None:
    """Text of a message's content: as it is, or the text parts of a list joined; parts that think are no text."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return None if isinstance(content, bool) else str(content)
    return "".join(_part(part) for part in content)


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or part.get("thought") is True:
        return ""
    if part.get("type", "text") not in ("text", "output_text"):
        return ""
    text = part.get("text")
    text = text.get("value") if isinstance(text, dict) else text
    return text if isinstance(text, str) else ""


def _count(value: Any) -> int:
    """A count of tokens; 0 for what is none (NaN, Infinity, text, negative)."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0
    return int(number) if math.isfinite(number) and 0 <= number < 2**53 else 0


def _status(error: Any) -> int:
    names = ("code", "status", "status_code", "type")
    said = [error.get(name) for name in names] if isinstance(error, dict) else []
    for value in said:
        number = _count(value)
        if 400 <= number < 600:
            return number
    said = [error] if isinstance(error, str) else said
    words = " ".join(value for value in said if isinstance(value, str))
    return next((status for status, form in _NAMED if re.search(form, words, re.IGNORECASE)), 500)


def _line(error: Any) -> str:
    said = error
    while isinstance(said, dict):
        said = said.get("message") or said.get("detail") or said.get("type") or ""
    return " ".join(mended(html.unescape(str(said))).split())[:200]
