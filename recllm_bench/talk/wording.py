"""A chat model says the first sentence of an answer; what it says is held against the facts, or not shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from recllm_bench.conversation.redaction import words
from recllm_bench.errors import BenchError
from recllm_bench.talk.console import printable
from recllm_bench.talk.wishes import FACTS, LIKE, YEARS, Constraint, Wishes

if TYPE_CHECKING:
    from recllm_bench.language.chat import ChatModel
    from recllm_bench.talk.reading import Reader

_MOST_TOKENS, _MOST_WORDS = 40, 40
_SYSTEM = (
    "You introduce a list of recommendations in one short friendly sentence. Use only the wishes you are given: name "
    "no title, year, number, genre or person beside them, and judge nothing."
)
_EXAMPLES = (  # a small model follows them better than it follows rules
    ("books: Fantasy, no Romance", "Here are some fantasy books without any romance."),
    ("games: like Portal, newer than 2010", "If you like Portal, these newer games may be for you."),
    ("songs: nothing in particular", "Here are a few songs that may be for you."),
)
_SENTENCE = re.compile(r"^(.+?[.!?])(?:\s|$)", re.DOTALL)
_QUOTED = re.compile(r"[\"“«]([^\"“”«»]+)[\"”»]")


class Wording:
    """Asks a chat model for a sentence.

    Parameters
    ----------
    chat : ChatModel
    reader : Reader
        Reads what it wrote, as it reads what people say.
    say : callable
        Told once when the model fails; it is not asked again then.
    """

    def __init__(self, chat: ChatModel, reader: Reader, say: Callable[[str], None]) -> None:
        self._chat, self._reader, self._say = chat, reader, say
        self._fails = False

    def __call__(self, wishes: Wishes, items: Sequence[int]) -> str:
        """A sentence before a list; empty when there is none that keeps to the facts."""
        if self._fails:
            return ""
        asked = printable(", ".join(map(str, wishes))) or "nothing in particular"
        talk = [{"role": "system", "content": _SYSTEM}]
        for wished, sentence in (*_EXAMPLES, (f"{self._reader.catalogue.domain}s: {asked}", "")):
            talk += [{"role": "user", "content": wished}, {"role": "assistant", "content": sentence}]
        talk.pop()  # the last sentence is asked for
        try:
            text = self._chat.complete([talk], max_tokens=_MOST_TOKENS)[0]
        except BenchError as error:
            self._fails = True
            self._say(f"{self._chat.name} fails, so I go on in my own words: {error}")
            return ""
        found = _SENTENCE.match(" ".join(printable(text).split()))
        return found[1] if found and self.keeps_to(found[1], wishes, items) else ""

    def keeps_to(self, sentence: str, wishes: Wishes, items: Sequence[int]) -> bool:
        """Whether a sentence names no title, number, year or fact but those of the wishes and the list.

        A category may be named when it was wished for, or when every item of the list has it.
        """
        reader = self._reader
        spoken = words(sentence)
        if not spoken or len(spoken) > _MOST_WORDS:
            return False
        shown = " ".join([*map(str, wishes), *map(reader.called, items)])
        if set(re.findall(r"\d+", sentence)) - set(re.findall(r"\d+", shown)) - {str(len(items))}:
            return False
        allowed = {*items, *(wish.item for wish in wishes if wish.kind == LIKE)}
        rest = sentence
        for item in sorted(allowed, key=lambda item: -len(reader.catalogue.titles[item])):
            rest = rest.replace(reader.catalogue.titles[item], " ") if reader.catalogue.titles[item] else rest
        if any(not set(reader.titles.exact(said)) & allowed for said in _QUOTED.findall(rest)):
            return False
        if any(not set(found) & allowed for found in reader.named_in(rest)):
            return False
        return all(self._is_true(said, wishes, items) for said in reader.read(rest).constraints)

    def _is_true(self, said: Constraint, wishes: Wishes, items: Sequence[int]) -> bool:
        if said.kind == YEARS:
            return any(wish.kind == YEARS and (wish.low, wish.high) == (said.low, said.high) for wish in wishes)
        if said.kind == LIKE:
            return True  # its title was looked at
        wished = any(wish.kind == FACTS and set(said.terms) <= set(wish.terms) for wish in wishes)
        holds = said.holds(self._reader.vocabulary)
        return wished or all(holds[item] == said.wanted for item in items)
