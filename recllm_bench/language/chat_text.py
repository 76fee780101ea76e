"""Text of a language model as the words it speaks: without its thoughts, in whole characters."""

from __future__ import annotations

import re

_NAMES = r"(?:seed:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|analysis|inner_monologue)"
_PAIRS = (  # opening, closing: DeepSeek, Qwen, Seed; escaped; Magistral; Kimi; Cohere; OpenThinker; Gemma; gpt-oss
    (rf"(?i:<\s*{_NAMES}(?:\s[^<>]*)?>)", rf"(?i:<\s*/\s*{_NAMES}\s*>)"),
    (rf"(?i:&lt;{_NAMES}&gt;)", rf"(?i:&lt;/{_NAMES}&gt;)"),
    (r"\[(?:THINK|REASONING)\]", r"\[/(?:THINK|REASONING)\]"),
    (r"◁think▷", r"◁/think▷"),
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    (r"<\|(?:think|thinking)\|>", r"<\|/(?:think|thinking)\|>"),
    (r"<unused94>", r"<unused95>"),
    (
        r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)[^<]*<\|message\|>",
        r"<\|end\|>|(?=<\|start\|>)|(?=<\|channel\|>final)",
    ),
)
_EDGES = [(re.compile(begin), re.compile(end)) for begin, end in _PAIRS]
_FRAME = re.compile(
    r"(?:<\|start\|>assistant)?<\|channel\|>final[^<]*<\|message\|>|<\|(?:return|end)\|>\s*$"
    r"|<\|(?:START|END)_RESPONSE\|>|<\|(?:begin|end)_of_solution\|>"
)


def mended(text: str) -> str:
    """Text in which every half of a surrogate pair is U+FFFD, and halves that belong together are one character."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def without_thoughts(text: str) -> tuple[str, bool]:
    """What is said aloud, without surrounding space, and whether the text ends inside a thought.

    A closing mark without an opening one ends a thought that the prompt had begun; nested thoughts are one.
    """
    text = mended(text)
    unfinished = False
    for begin, end in _EDGES:
        kept, at, depth = "", 0, 0
        marks = sorted(
            [(found.start(), found.end(), 1) for found in begin.finditer(text)]
            + [(found.start(), found.end(), -1) for found in end.finditer(text)]
        )
        harmony = "channel" in begin.pattern
        for start, stop, step in marks:
            if step > 0:
                kept, depth = (kept + text[at:start] if depth == 0 else kept), (1 if harmony else depth + 1)
            elif depth:
                depth -= 1
            elif not harmony:
                kept = ""
            else:
                continue
            at = stop
        text, unfinished = kept + (text[at:] if depth == 0 else ""), unfinished or depth > 0
    return _FRAME.sub("", text).strip(), unfinished


def opens_thought(text: str) -> bool:
    """Whether a prompt ends by opening a thought, as the chat templates of some reasoning models do."""
    return any(re.search(rf"(?:{begin})\s*$", text) for begin, _ in _PAIRS)
