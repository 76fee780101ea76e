"""A chat model alone: it reads the past and the words, and names titles; those that are in the catalogue count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from recllm_bench.api.measure import Measure
from recllm_bench.conversation.dialogue import Dialogue, Response
from recllm_bench.language.asking import Cost, ask
from recllm_bench.language.titles.matching import TitleMatcher
from recllm_bench.language.titles.naming import named_items, validity
from recllm_bench.models.systems.listing import Listing, SystemMethod, SystemOptions
from recllm_bench.models.systems.prompts import zero_shot
from recllm_bench.options import option

_TITLE_TOKENS = 14  # of a numbered line with a title


@dataclass(frozen=True)
class ZeroShotOptions(SystemOptions):
    """Options of :class:`ZeroShot`."""

    nearest: bool = option(
        False,
        "a line that spells no title takes the nearest one by sentence vectors, where their cosine is 0.5 or more",
    )


class ZeroShot(Listing):
    """Ranks the titles that a chat model names; nothing tells it what the catalogue holds."""

    Options = ZeroShotOptions
    display_name = "Zero-shot LLM"


class ZeroShotMethod(SystemMethod):
    """Asks, and finds the titles of the answer in the catalogue."""

    model: ClassVar[type] = ZeroShot

    @cached_property
    def matcher(self) -> TitleMatcher:
        """Finds titles as they are said; of items that share one, the most popular of the training part is meant."""
        split = self.job.split
        owned = split.histories.items[split.histories.before(split.train_ends)]
        popularity = np.bincount(owned, minlength=split.histories.n_items + 1)
        encoder = "minilm" if self.options.nearest else None
        return TitleMatcher(self.said, encoder=encoder, store=self.job.store, popularity=popularity)

    def turn(
        self, dialogues: Sequence[Dialogue], count: int, forbid: Sequence[set[int]], costs: Sequence[Cost]
    ) -> tuple[list[Response], Mapping[str, int]]:
        """One call a dialogue; a line that names no item is dropped."""
        domain = self.job.dataset.catalogue.domain
        asked = [zero_shot(self.history_titles(dialogue), domain, dialogue.messages, count) for dialogue in dialogues]
        texts = ask(self.chat, asked, costs, max_tokens=_TITLE_TOKENS * count + 16, seed=self.job.recipe.seed)
        lists, counts = named_items(texts, self.matcher, count, forbid, [d.history.tolist() for d in dialogues])
        return [Response(items) for items in lists], counts

    def measures(self, counts: Counter[str], about: str) -> list[Measure]:
        """How much of what was named is in the catalogue, and what became of the lines."""
        lines = max(1, counts["lines"])
        shares: dict[str, Any] = {
            "named titles that are catalogue titles, share": validity(counts),
            "named titles found by spelling, share": counts["fuzzy"] / lines,
            "named titles found by meaning, share": counts["embed"] / lines,
            "named titles dropped, share": (counts["none"] + counts["repeated"] + counts["forbidden"]) / lines,
            "lists without an item, share": counts["without a title"] / max(1, counts["answers"]),
            "lines a list": counts["lines"] / max(1, counts["answers"]),
        }
        return [Measure(name, value, about) for name, value in shares.items()]
