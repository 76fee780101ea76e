"""A constructor without logits: a chat model writes freely, and its lines are matched with the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.language.titles.counters import Written
from recllm_bench.language.titles.grounding import write_lists_freely
from recllm_bench.language.titles.matching import TitleMatcher
from recllm_bench.language.titles.trie import MASK_WORD, clean_title
from recllm_bench.models.cesrec.prompts import INSTRUCTIONS, with_hidden

if TYPE_CHECKING:
    from recllm_bench.artifacts import ArtifactStore
    from recllm_bench.data.catalogue import Catalogue
    from recllm_bench.language.chat import ChatModel
    from recllm_bench.models.cesrec.options import CESRecOptions

_LINE_TOKENS = 40  # room for a line of an answer


class FreeConstructor:
    """Rewrites histories by asking a chat model, as it is.

    Parameters
    ----------
    options : CESRecOptions
        ``chat, output, prompt_items``.
    catalogue : Catalogue
        Titles by item id.
    store : ArtifactStore
        Keeps the titles' sentence vectors.
    popularity : array [n_items + 1]
        Training interactions of each item, to tell apart items of one title.
    chat : ChatModel, optional
        By default the one that ``options.chat`` names; its answers are kept.
    encoder : str or None
        Of the sentence vectors that lines are matched by at last; None goes without.
    """

    def __init__(
        self,
        options: CESRecOptions,
        catalogue: Catalogue,
        store: ArtifactStore,
        popularity: np.ndarray,
        chat: ChatModel | None = None,
        encoder: str | None = "minilm",
    ) -> None:
        if chat is None:
            from recllm_bench.language.chat import chat_model

            chat = chat_model(options.chat)
        self.chat, self.output, self.items = chat, options.output, options.prompt_items
        self.titles = [clean_title(title) for title in catalogue.titles]
        self.matcher = TitleMatcher(catalogue.titles, encoder=encoder, store=store, popularity=popularity)

    def conversation(self, items: Sequence[int], said: str) -> list[dict[str, str]]:
        """What the chat model is asked about one history; 0 is a hidden place."""
        titles = (self.titles[item] or f"item {item}" if item else MASK_WORD for item in items)
        listed = "\n".join(f"{number}. {title}" for number, title in enumerate(titles, 1))
        content = f"{INSTRUCTIONS[self.output]}\n\n{listed}\n\nThe user's remark: {said}"
        return [{"role": "user", "content": content}]

    def construct(
        self,
        items: Sequence[Sequence[int]],
        masked: Sequence[Sequence[bool]] | None,
        feedback: Sequence[str],
        forbid: Sequence[Iterable[int]] | None = None,
    ) -> Written:
        """Pseudo-histories; see :meth:`recllm_bench.models.cesrec.constructor.Constructor.construct`."""
        lists = with_hidden(items, masked)
        older = [row[: -self.items] for row in lists]
        newest = [row[-self.items :] for row in lists]
        asked = [self.conversation(row, said) for row, said in zip(newest, feedback, strict=True)]
        banned: list[set[Any]] = [{*row} - {0} for row in older]
        if forbid is not None:
            banned = [known | set(more) for known, more in zip(banned, forbid, strict=True)]
        written = write_lists_freely(
            self.chat, asked, newest, self.matcher, mode=self.output, forbid=banned,
            max_tokens=_LINE_TOKENS * min(self.items, max(map(len, newest), default=1)),
        )  # fmt: skip
        written.lists = [[*old, *new] for old, new in zip(older, written.lists, strict=True)]
        return written
