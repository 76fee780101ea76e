"""Chat-Rec (Gao et al., 2023): a recommender finds candidates, a chat model that hears the user orders them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch

from recllm_bench.api.measure import Measure
from recllm_bench.api.method import Job, Stage
from recllm_bench.conversation.attributes import AttributeTable
from recllm_bench.conversation.dialogue import Dialogue, Response
from recllm_bench.conversation.dialogue_state import StateReader
from recllm_bench.conversation.spoken import SpokenFacts, with_facts
from recllm_bench.conversation.understanding import Understanding, put_first
from recllm_bench.language.asking import Cost, ask
from recllm_bench.language.ordering import NUMBER_TOKENS, listed, read_order, reordered
from recllm_bench.models.systems.listing import Listing, SystemMethod
from recllm_bench.models.systems.prompts import past, talk
from recllm_bench.models.systems.recommender import Recommender, RecommenderOptions, best_first
from recllm_bench.options import option

_REASON_TOKENS = 60


@dataclass(frozen=True)
class ChatRecOptions(RecommenderOptions):
    """Options of :class:`ChatRec`."""

    candidates: int = option(20, "items that the chat model puts in order", low=1)
    retrieve: str = option(
        "words",
        "which candidates: those that fit the words before the others, or the recommender's best alone",
        choices=("words", "history"),
    )
    explain: bool = option(False, "have it say in a sentence why")


class ChatRec(Listing):
    """Orders a recommender's candidates by a chat model that reads the past, the candidates and the dialogue."""

    Options = ChatRecOptions
    display_name = "Chat-Rec"


class ChatRecMethod(SystemMethod):
    """The recommender's stage, then a call for each utterance; an answer that names no candidate keeps their order."""

    model: ClassVar[type] = ChatRec

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.recommender = Recommender(job, "chat-rec")

    def stages(self) -> list[Stage]:
        """``recommender`` and ``system``."""
        return [self.recommender.stage, *super().stages()]

    @cached_property
    def heard(self) -> StateReader:
        """Which items fit what is said."""
        catalogue = self.job.dataset.catalogue
        return StateReader(catalogue, Understanding(catalogue, AttributeTable(catalogue), SpokenFacts(catalogue)))

    def turn(
        self, dialogues: Sequence[Dialogue], count: int, forbid: Sequence[set[int]], costs: Sequence[Cost]
    ) -> tuple[list[Response], Mapping[str, int]]:
        """Candidates of every dialogue at once, then all calls as one batch."""
        scores = self._fitting(dialogues, self.recommender.scores(dialogues, forbid))
        found, explain = best_first(scores, self.options.candidates), self.options.explain
        asked = [
            talk(dialogue.messages, self._system(dialogue, items), _wanted(explain))
            for dialogue, items in zip(dialogues, found, strict=True)
        ]
        most = NUMBER_TOKENS * self.options.candidates + (_REASON_TOKENS if explain else 0)
        counts: Counter[str] = Counter({"answers": len(asked), "unread": 0})
        responses = []
        texts = ask(self.chat, asked, costs, max_tokens=most, seed=self.job.recipe.seed)
        for items, text in zip(found, texts, strict=True):
            order = read_order(text, [self.said[item] for item in items])
            counts["unread"] += order is None
            chosen = reordered(items, order or [])[:count]
            responses.append(Response(chosen, say=self._said_with(text, chosen) if explain else ""))
        return responses, counts

    def measures(self, counts: Counter[str], about: str) -> list[Measure]:
        """How often no order could be read from the answer."""
        return [Measure("answers without an order, share", counts["unread"] / max(1, counts["answers"]), about)]

    def _fitting(self, dialogues: Sequence[Dialogue], scores: torch.Tensor) -> torch.Tensor:
        """Scores in which items that fit the words stand before those that do not."""
        if self.options.retrieve == "history":
            return scores
        fitting = put_first(scores, self.heard.fitting(dialogues))
        return fitting.masked_fill(scores == -torch.inf, -torch.inf)

    def _system(self, dialogue: Dialogue, items: Sequence[int]) -> str:
        catalogue = self.job.dataset.catalogue
        lines = listed([with_facts(catalogue, item) for item in items])
        before = past(self.history_titles(dialogue), catalogue.domain)
        return f"You help to choose. {before}\nCandidates:\n{lines}"

    def _said_with(self, text: str, items: Sequence[int]) -> str:
        """The reason that follows the numbers, and the list."""
        reason = " ".join(line.strip() for line in text.splitlines()[1:] if line.strip())
        return "\n".join(filter(None, [reason, listed([self.said[item] for item in items])]))


def _wanted(explain: bool) -> str:
    last = "Order the candidates: write the numbers of those that fit the words best, the best first, with commas."
    return last + (" Then say in one sentence why." if explain else " Write nothing else.")
