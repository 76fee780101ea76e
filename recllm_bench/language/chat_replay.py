"""Answers from a file, in place of the model that wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recllm_bench.artifacts import content_hash
from recllm_bench.errors import BenchError
from recllm_bench.language.chat_answers import Chat, Conversation, recorded_answer
from recllm_bench.language.chat_replies import Answer
from recllm_bench.language.json_lines import appended


class ReplayChat(Chat):
    """Says what a chat model said before.

    Parameters
    ----------
    path : str or Path
        A file of answers as any chat model keeps it (``chat/*.jsonl`` in the cache folder, with what was asked), or one
        made by hand: an object a line, ``{"asked": {"messages": [...], "max_tokens": 60, "temperature": 0.0, "seed":
        0}, "text": "..."}``.

    Raises
    ------
    BenchError
        For a file that cannot be read or holds no answers.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(None)
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise BenchError(f"chat model 'replay:{path}': there is no such file; give a file of recorded answers")
        self._answers: dict[str, Answer] = {}
        self._asked: dict[str, dict[str, Any]] = {}  # settings under which a conversation was asked last
        names = set()
        for _, entry in appended(self.path):
            if not isinstance(entry, dict):
                continue  # torn
            asked = entry.get("asked")
            if not isinstance(asked, dict) or not isinstance(asked.get("messages"), list):
                continue  # from before questions were kept
            try:
                self._answers[content_hash(asked)] = recorded_answer(entry)
            except TypeError:
                continue
            names.add(str(entry.get("model") or "unknown"))
            self._asked[content_hash(asked["messages"])] = {name: asked[name] for name in asked if name != "messages"}
        if not self._answers:
            raise BenchError(f"{path} holds no answer together with what was asked; record it with this version")
        self.name = f"replay of {', '.join(sorted(names))}"
        self._content = content_hash(sorted((key, vars(answer)) for key, answer in self._answers.items()))

    def key(self) -> dict[str, Any]:
        return {"replay": self._content}

    def ask(
        self, conversations: Sequence[Conversation], *, max_tokens: int, temperature: float, seed: int
    ) -> Iterator[tuple[int, Answer]]:
        settings = {"max_tokens": max_tokens, "temperature": float(temperature), "seed": seed}
        for place, messages in enumerate(conversations):
            answer = self._answers.get(content_hash({"messages": messages, **settings}))
            if answer is None:
                last = " ".join(messages[-1]["content"].split())
                other = self._asked.get(content_hash(messages))
                why = f"it was asked under {_told(other)}" if other else "it was never asked"
                raise BenchError(
                    f"{self.path}: no answer to '{last[:80]}{'...' * (len(last) > 80)}' under {_told(settings)}: {why};"
                    " record it with the model itself, or ask as it was asked"
                )
            yield place, answer


def _told(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())
