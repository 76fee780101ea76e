"""Text from data and people, on its way into the page: it stays text, and shows what it hides."""

from __future__ import annotations

import base64
import gzip
import json
import re
from typing import Any

# Signs that nobody sees: controls, and those that turn the reading direction around for all that follows.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(value: Any) -> Any:
    """Text with its hidden signs named, as ``[U+202E]``; what is no text stays as it is."""
    if type(value) is str:  # Markup is a subclass, and was made by the template
        return _HIDDEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", value)
    return value


def plain_all(value: Any) -> Any:
    """The same in every text of nested lists and mappings, names included."""
    if isinstance(value, dict):
        return {plain(str(name)): plain_all(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_all(part) for part in value]
    return plain(value)


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no ``<`` can end it, numbers that are none become null."""
    text = json.dumps(_finite(plain_all(value)), ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def packed(value: Any) -> str:
    """JSON, compressed, as text: for what is read only when somebody asks for it."""
    return packed_text(json.dumps(_finite(plain_all(value)), ensure_ascii=False, allow_nan=False, default=str))


def packed_text(text: str) -> str:
    """Text as base64 of gzip, the same for the same text."""
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode()


def breakable(text: str) -> Any:
    """Markup of a text that a narrow column may break after ``-``, ``_``, ``.``, ``/`` and between words."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[-_./])(?=\w)", plain(text)))


def chart_text(text: str, width: int = 26) -> str:
    """Text for a label of a plot, which reads a few tags: escaped, and broken into lines of about ``width`` signs."""
    lines = [""]
    for word in plain(text).split():
        pieces = [word[start : start + width] for start in range(0, len(word), width)]
        for piece in pieces:
            if lines[-1] and len(lines[-1]) + len(piece) >= width:
                lines.append("")
            lines[-1] = f"{lines[-1]} {piece}".strip()
    return "<br>".join(line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in lines)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value
