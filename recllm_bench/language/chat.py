"""Chat models by name: a local language model, or any OpenAI-compatible server."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch

from recllm_bench.artifacts import ArtifactStore, content_hash
from recllm_bench.errors import BenchError
from recllm_bench.language.backbone import Backbone, load_backbone
from recllm_bench.language.backbone_files import find_backbone
from recllm_bench.language.chat_answers import Chat, Conversation, Usage
from recllm_bench.language.chat_replay import ReplayChat
from recllm_bench.language.chat_replies import Answer, has_thoughts
from recllm_bench.language.chat_server import ServerChat, shown
from recllm_bench.language.generation import generate
from recllm_bench.locations import cache_folder
from recllm_bench.progress import log

__all__ = ["Answer", "Chat", "ChatModel", "Conversation", "LocalChat", "ServerChat", "Usage", "chat_model"]

_SPOKEN = {"system": "System", "user": "User", "assistant": "Assistant"}
_NEXT_TURN = re.compile(r"\n\s*(?:System|User|Assistant):")
_TOKENS_AT_ONCE = 1 << 14  # of a batch on this machine: their keys and values are 750 MB for a model of 135 million
_LEAST_ROOM = 16  # tokens of a prompt below which nothing can be asked


class ChatModel(Protocol):
    """What those who ask need of a chat model."""

    name: str

    def complete(
        self,
        conversations: Sequence[Sequence[Mapping[str, str]]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        """Answers, in the order of the conversations."""
        ...

    def attempt(
        self,
        conversations: Sequence[Sequence[Mapping[str, str]]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Answer | None]:
        """Answers with what they took; None for a question that got none."""
        ...


class LocalChat(Chat):
    """A causal language model as a chat model.

    Parameters
    ----------
    backbone : str or Backbone
        A name for :func:`~recllm_bench.language.backbone.load_backbone`, loaded when something must be asked, or a
        loaded model.
    precision, device, store
        As for ``load_backbone``.
    batch_size : int
        Conversations at once at most; fewer where they are long.
    precision_option : str
        What a user sets for ``precision``, named in messages; nothing by default.

    Notes
    -----
    The tokenizer's chat template is used where it has one; else the conversation is written as lines that begin with
    ``System:``, ``User:`` and ``Assistant:``, and the answer ends where the model begins a turn of its own. A
    conversation that does not fit the context loses the end of its longest message.
    """

    def __init__(
        self,
        backbone: str | Backbone,
        *,
        precision: str = "auto",
        device: str | torch.device = "auto",
        store: ArtifactStore | None = None,
        batch_size: int = 96,
        cache: Path | None = None,
        precision_option: str = "",
    ) -> None:
        super().__init__(cache)
        if batch_size < 1:
            raise BenchError(f"batch_size={batch_size} of a local chat model: at least 1")
        self.batch_size = batch_size
        self._options: dict[str, Any] = {
            "precision": precision,
            "device": device,
            "store": store,
            "precision_option": precision_option,
        }
        if isinstance(backbone, Backbone):
            self.source, self.precision, self.backbone = backbone.source, str(backbone.dtype), backbone
            called = backbone.name
        else:
            files = find_backbone(backbone, store)
            self.source, self.precision, self._spec = files.source, precision, backbone
            called = files.name
        self.name = called if called == "miniature" else self.source.partition("@")[0]  # no machine's folders

    @cached_property
    def backbone(self) -> Backbone:
        """The language model, loaded at its first use."""
        return load_backbone(self._spec, **self._options)

    def key(self) -> dict[str, Any]:
        return {"local": self.source, "precision": self.precision}

    def ask(
        self, conversations: Sequence[Conversation], *, max_tokens: int, temperature: float, seed: int
    ) -> Iterator[tuple[int, Answer]]:
        backbone = self.backbone
        room = backbone.context - max_tokens
        if room < _LEAST_ROOM:
            raise BenchError(
                f"{self.name} has a context of {backbone.context} tokens; max_tokens={max_tokens} leaves no room for a"
                f" question: set at most {backbone.context - _LEAST_ROOM}"
            )
        prompts = [self._fitting(conversation, room) for conversation in conversations]
        cut = sum(shortened for _, shortened in prompts)
        if cut:
            log.warning(f"{self.name}: {cut} of {len(prompts)} conversations are cut to {room} tokens")
        order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place][0]))
        while order:
            longest = len(prompts[order[0]][0]) + max_tokens
            size = min(self.batch_size, max(32, _TOKENS_AT_ONCE // longest))
            places, order = order[:size], order[size:]
            # Drawn from the conversation itself, so that an answer does not depend on what else is asked.
            seeds = [int(content_hash([seed, prompts[place][0]], 12), 16) for place in places]
            read = sum(len(prompts[place][0]) for place in places)
            with self.budget.room(read + max_tokens * len(places)) as count:
                written = generate(
                    backbone,
                    [prompts[place][0] for place in places],
                    max_new_tokens=max_tokens,
                    temperature=temperature,
                    seed=seeds,
                    batch_size=size,
                )
                count(read + sum(map(len, written)))
            for place, tokens in zip(places, written, strict=True):
                text = self._decoded(tokens)
                finished = len(tokens) < max_tokens
                if not backbone.tokenizer.chat_template and (turn := _NEXT_TURN.search(text)):
                    text, finished = text[: turn.start()], True
                yield place, Answer(text.strip(), len(prompts[place][0]), len(tokens), finished)

    def prompt(self, conversation: Conversation, max_tokens: int) -> list[int]:
        """Token ids that the model reads before it answers with at most ``max_tokens``."""
        return self._fitting(conversation, self.backbone.context - max_tokens)[0]

    def _decoded(self, tokens: list[int]) -> str:
        """The text of new tokens; of its special ones, those that set thoughts apart from words stay."""
        tokenizer = self.backbone.tokenizer
        raw = str(tokenizer.decode(tokens, skip_special_tokens=False))
        if not has_thoughts(raw):
            return str(tokenizer.decode(tokens, skip_special_tokens=True))
        ends = {tokenizer.convert_ids_to_tokens(token) for token in self.backbone.stop_ids}
        for token in {*ends, tokenizer.bos_token, tokenizer.pad_token, tokenizer.eos_token} - {None}:
            raw = raw.replace(token, "")
        return raw

    def _fitting(self, conversation: Conversation, room: int) -> tuple[list[int], bool]:
        """Token ids of a conversation, and whether it had to be cut."""
        messages = [dict(message) for message in conversation]
        ids = self._tokens(self._written(messages))
        shortened = False
        while len(ids) > room:
            shortened = True
            longest = max(messages, key=lambda message: len(message["content"]))
            spans = self.backbone.tokenizer(
                longest["content"], add_special_tokens=False, return_offsets_mapping=True, verbose=False
            )["offset_mapping"]
            kept = len(spans) - (len(ids) - room) - 1
            if not spans:
                raise BenchError(f"{self.name}: {room} tokens are too few for a conversation's own frame")
            longest["content"] = longest["content"][: spans[kept][0]].rstrip() if kept > 0 else ""
            ids = self._tokens(self._written(messages))
        return ids, shortened

    def _tokens(self, text: str) -> list[int]:
        tokenizer = self.backbone.tokenizer
        begun = bool(tokenizer.bos_token and text.startswith(tokenizer.bos_token))  # many templates write it themselves
        return tokenizer(text, add_special_tokens=not begun, verbose=False)["input_ids"]

    def _written(self, messages: list[dict[str, str]]) -> str:
        tokenizer = self.backbone.tokenizer
        if not tokenizer.chat_template:
            lines = [f"{_SPOKEN[message['role']]}: {message['content']}\n" for message in messages]
            return "".join(lines) + "Assistant:"
        # The date is fixed, or every day would have answers of its own; thinking aloud would use up max_tokens.
        fixed: dict[str, Any] = {"date_string": "26 Jul 2024", "enable_thinking": False}
        try:
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **fixed))
        except Exception as error:
            if messages[0]["role"] == "system" and len(messages) > 1:  # some templates know no system message
                first = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
                return self._written([first, *messages[2:]])
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BenchError(f"{self.name}: its chat template does not take the conversation: {line}") from error


def chat_model(spec: str, *, cache: Path | bool = True, **options: Any) -> Chat:
    """Make a chat model by name.

    Parameters
    ----------
    spec : str
        ``"local:NAME"`` (``smollm2``, a folder, a name under ``RECLLM_MODELS``, a hub id), ``"server:MODEL@URL"``
        for any OpenAI-compatible endpoint, such as ``server:qwen3@http://localhost:8000/v1``, or ``"replay:FILE"`` for
        what one of them has answered before.
    cache : Path or bool
        The file of answers; true puts it into the cache folder, false keeps none.
    **options
        Of :class:`LocalChat` or :class:`~recllm_bench.language.chat_server.ServerChat`.

    Raises
    ------
    BenchError
        For a name in no such form, or a model that cannot be found.
    """
    kind, _, rest = spec.partition(":")
    if kind == "server":
        model, at, url = rest.rpartition("@")
        if not at and "://" in rest:
            raise BenchError(f"chat model '{shown(spec)}' names no model; write server:MODEL@URL")
        if not at or not model:
            raise BenchError(f"chat model '{shown(spec)}' names no address; write server:MODEL@http://host:8000/v1")
        if "://" in model:  # an address with a name or key in it was split in the wrong place
            model, _, url = rest.partition("@")
        chat: Chat = ServerChat(model, url, **options)
    elif kind == "local" and rest:
        chat = LocalChat(rest, **options)
    elif kind == "replay" and rest:
        return ReplayChat(rest)
    else:
        raise BenchError(f"chat model '{shown(spec)}': write local:NAME, server:MODEL@URL or replay:FILE")
    if cache is True:
        cache = cache_folder() / "chat" / f"{content_hash(chat.key())}.jsonl"
    if cache:
        chat.remember(Path(cache))
    return chat


def check_chat(spec: str) -> None:
    """Say what would stop a chat model, before anything is trained for its questions.

    Raises
    ------
    BenchError
        For a name in no known form, a model that cannot be found, or a server on another machine without a limit.
    """
    chat_model(spec, cache=False).check_limit()
