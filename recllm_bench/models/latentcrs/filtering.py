"""LatentCRS_F: hard wishes filter what the generative net ranks, soft ones are what it reads (section 7)."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recllm_bench.conversation.attributes import AttributeTable, Fact
from recllm_bench.conversation.dialogue_state import StateReader
from recllm_bench.conversation.spoken import SpokenFacts
from recllm_bench.conversation.understanding import Understanding, Wish
from recllm_bench.language.asking import Cost, ask
from recllm_bench.language.chat import Chat

if TYPE_CHECKING:
    from recllm_bench.conversation.dialogue import Dialogue
    from recllm_bench.data.catalogue import Catalogue

RULES = "rules"
_ANSWER_TOKENS = 96
_FEW, _COMMON = 60, 20  # names up to which all are allowed; else items that a name must have


class Extracted(NamedTuple):
    """What a dialogue asks for.

    Attributes
    ----------
    wish : Wish
        Features that an item must have and must not have.
    intents : tuple of str
        What else is wanted, in words; empty where it could not be read.
    """

    wish: Wish
    intents: tuple[str, ...] = ()


class Extractor:
    """Reads whole dialogues, by the catalogue's vocabulary or by a chat model that fills in a schema.

    Parameters
    ----------
    catalogue : Catalogue
        Gives the features.
    chat : Chat or None
        Who extracts; None goes by :mod:`recllm_bench.conversation.understanding`, which knows no intents.
    seed : int
        For a server that wants one.

    Attributes
    ----------
    counts : Counter
        ``dialogues``, ``unread`` answers, ``unknown`` features that were dropped, ``all`` features named at once.
    """

    def __init__(self, catalogue: Catalogue, chat: Chat | None, seed: int = 0) -> None:
        self.catalogue, self.chat, self.seed, self.counts = catalogue, chat, seed, Counter[str]()
        names = allowed_features(AttributeTable(catalogue))
        told = self.reader.told([((Fact("category", name),), ()) for name in names])
        self.features = {_plain(name): wish.wanted[0] for name, wish in zip(names, told, strict=True) if wish.wanted}
        self._shown = ", ".join(names)

    @cached_property
    def reader(self) -> Understanding:
        """Knows which items have which feature."""
        return Understanding(self.catalogue, AttributeTable(self.catalogue), SpokenFacts(self.catalogue))

    @cached_property
    def _states(self) -> StateReader:
        return StateReader(self.catalogue, self.reader)

    def read(self, dialogues: Sequence[Dialogue], costs: Sequence[Cost]) -> list[Extracted]:
        """What each dialogue asks for; a chat model reads all of them as one batch."""
        self.counts["dialogues"] += len(dialogues)
        if self.chat is None:
            said = [self._states.of(dialogue) for dialogue in dialogues]
            return [Extracted(self._known(Wish(state.wanted, state.unwanted))) for state in said]
        asked = [self._question(dialogue) for dialogue in dialogues]
        return [self.parsed(text) for text in ask(self.chat, asked, costs, max_tokens=_ANSWER_TOKENS, seed=self.seed)]

    def parsed(self, text: str) -> Extracted:
        """An answer as features and intents; what is not JSON has neither."""
        found = first_object(text)
        if found is None:
            self.counts["unread"] += 1
            return Extracted(Wish(()))
        intents = found.get("intents")
        said = [intents] if isinstance(intents, str) else intents if isinstance(intents, list) else []
        named = found.get("item_features")
        named = [each for each in named if isinstance(each, str)] if isinstance(named, list) else []
        terms = {self.features[_plain(name)] for name in named if _plain(name) in self.features}
        self.counts["unknown"] += sum(_plain(name) not in self.features for name in named)
        if len(self.features) > 1 and len(terms) == len(self.features):  # whoever names all has chosen none
            self.counts["all"] += 1
            terms = set()
        return Extracted(
            Wish(tuple(sorted(terms))), tuple(each.strip() for each in said if isinstance(each, str) and each.strip())
        )

    def _known(self, wish: Wish) -> Wish:
        """Without what is no allowed feature."""
        allowed = set(self.features.values())
        return Wish(*(tuple(term for term in side if term in allowed) for side in wish))

    def _question(self, dialogue: Dialogue) -> list[dict[str, str]]:
        system = (
            f"You read what a user says who looks for a {self.catalogue.domain}, and answer in JSON alone: "
            '{"item_features": [...], "intents": [...]}. item_features: those of the allowed features that the user '
            "asks for in so many words, often none. intents: what else the user wants, in a few short phrases.\n"
            f"Allowed features: {self._shown}"
        )
        said = "\n".join(f"{role}: {text}" for role, text in dialogue.messages if text)
        return [{"role": "system", "content": system}, {"role": "user", "content": said}]


def allowed_features(table: AttributeTable) -> list[str]:
    """Category names of a catalogue; where there are many, those that at least 20 items have."""
    counts = np.asarray(table.matrix.sum(0)).ravel()
    pairs = zip(table.vocabulary, counts, strict=True)
    named = [(fact.value, int(count)) for fact, count in pairs if fact.kind == "category"]
    return [name for name, count in named if len(named) <= _FEW or count >= _COMMON]


def first_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in an answer, whatever stands around it."""
    for start in (match.start() for match in re.finditer(r"\{", text)):
        try:
            found, _ = json.JSONDecoder().raw_decode(text[start:])
        except (ValueError, RecursionError):
            continue
        return found
    return None


def filtered(scores: Tensor, wishes: Sequence[Wish], reader: Understanding, rule: str, pool: int) -> Tensor:
    """Scores of the same order but for a filter on hard wishes.

    Parameters
    ----------
    scores : float [B, n_items + 1]
        Minus infinity where an item may not be shown; it stays there.
    wishes : sequence of Wish
        One a row.
    reader : Understanding
        Knows which items have which feature.
    rule : {"strict", "overlap_rerank"}
        Items with all that is wanted and nothing that is refused before the others, or the more of the wishes an item
        meets the further in front (a refused feature counts against it). Both leave equal items in their order.
    pool : int
        How many of the best are put in order; 0 for all.

    Returns
    -------
    float [B, n_items + 1]
        Whole numbers, none twice in a row.
    """
    n = scores.shape[1]
    order = scores.argsort(dim=1, descending=True, stable=True)
    places = torch.empty_like(order).scatter_(1, order, torch.arange(n, device=scores.device).expand_as(order))
    counts = np.stack([met(reader, wish, rule) for wish in wishes])
    keys = torch.from_numpy(counts - counts.min()).to(scores.device)
    inside = places < (pool or n)
    ranked = (torch.where(inside, keys + 1, 0) * n - places).to(scores.dtype)
    return ranked.masked_fill(scores == -torch.inf, -torch.inf)


def met(reader: Understanding, wish: Wish, rule: str) -> np.ndarray:
    """What an item's place depends on, int64 [n_items + 1]: whether it fits, or how many of the wishes it meets."""
    if rule == "strict":
        return reader.fits(wish).astype(np.int64)
    has = np.asarray(reader.matrix[:, list(wish.wanted)].sum(1)).ravel().astype(np.int64)
    return has - np.asarray(reader.matrix[:, list(wish.unwanted)].sum(1)).ravel().astype(np.int64)


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())
