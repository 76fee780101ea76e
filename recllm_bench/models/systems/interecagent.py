"""InteRecAgent (Huang et al., 2023): a chat model plans calls of tools at once, tools that share a buffer of items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch.nn.functional import normalize

from recllm_bench.api.measure import Measure
from recllm_bench.api.method import Job, Stage
from recllm_bench.conversation.dialogue import Dialogue, Response
from recllm_bench.errors import BenchError
from recllm_bench.language.asking import Cost, ask
from recllm_bench.language.titles.matching import TitleMatcher
from recllm_bench.models.systems.item_database import FILE, ItemDatabase, write_database
from recllm_bench.models.systems.listing import Listing, SystemMethod
from recllm_bench.models.systems.plans import FALLBACK, TOLD, Step, read_plan
from recllm_bench.models.systems.prompts import Messages, past, talk
from recllm_bench.models.systems.recommender import Recommender, RecommenderOptions, best_first
from recllm_bench.options import option


@dataclass(frozen=True)
class InteRecAgentOptions(RecommenderOptions):
    """Options of :class:`InteRecAgent`."""

    retries: int = option(2, "times a plan that cannot be read is asked for again, with the reason", low=0)
    plan_tokens: int = option(160, "most tokens of a plan", low=16)
    similar: int = option(200, "items that 'similar' keeps", low=1)


class InteRecAgent(Listing):
    """Plans calls of tools: an attribute query, similar items, and a recommender's order."""

    Options = InteRecAgentOptions
    display_name = "InteRecAgent"


class InteRecAgentMethod(SystemMethod):
    """The recommender's stage and the catalogue's database, then a plan for each utterance."""

    model: ClassVar[type] = InteRecAgent

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.recommender = Recommender(job, "interecagent")
        if not hasattr(self.recommender.cell.entry.model, "item_vectors"):
            raise BenchError(
                f"interecagent: recommender={job.options.recommender} has no item vectors to tell what is similar; "
                "name sasrec or iclrec"
            )
        self._folder: Path | None = None

    def stages(self) -> list[Stage]:
        """``recommender``, ``database`` and ``system``."""
        return [self.recommender.stage, Stage("database", {}, self._write, ()), *super().stages()]

    def load(self, folders: Mapping[str, Path]) -> Listing:
        """The model around this system."""
        self._folder = folders["database"]
        return super().load(folders)

    @cached_property
    def database(self) -> ItemDatabase:
        """The catalogue, to be read alone."""
        if self._folder is None:
            raise BenchError("interecagent answers once it is loaded")
        return ItemDatabase(self._folder / FILE)

    @cached_property
    def matcher(self) -> TitleMatcher:
        """Finds the titles that a plan names."""
        return TitleMatcher(self.said, encoder=None)

    @cached_property
    def vectors(self) -> torch.Tensor:
        """Unit vectors of the recommender's items, ``float [n_items + 1, d]``."""
        size = self.job.split.histories.n_items + 1
        return normalize(self.recommender.model.item_vectors()[:size].detach().float(), dim=1)

    def turn(
        self, dialogues: Sequence[Dialogue], count: int, forbid: Sequence[set[int]], costs: Sequence[Cost]
    ) -> tuple[list[Response], Mapping[str, int]]:
        """Plan all dialogues as one batch, those that cannot be read once more, then run every plan."""
        counts: Counter[str] = Counter(dict.fromkeys(("plans", "retries", "fallbacks", *_FAULTS), 0))
        plans = self._plans(dialogues, costs, counts)
        scores = self.recommender.scores(dialogues, forbid)
        responses = []
        for plan, row in zip(plans, scores, strict=True):
            responses.append(Response(self.run(plan, row, count, counts)))
        return responses, counts

    def run(self, plan: Sequence[Step], scores: torch.Tensor, count: int, counts: Counter[str]) -> list[int]:
        """The ``count`` items that a plan leaves.

        Parameters
        ----------
        plan : sequence of Step
        scores : float [n_items + 1]
            Of the recommender; minus infinity for what must not be listed.
        count : int
            Items; where the plan leaves fewer, the recommender's best follow (counted ``filled``).
        counts : Counter
            Of what went wrong: ``empty`` (a step left nothing and was undone), ``unknown titles``, ``unsorted`` (the
            plan does not rank, so the recommender does), ``filled``.
        """
        free = scores > -torch.inf
        left, ranked = free.clone(), False
        for step in plan:
            kept = self._kept(step, left, counts)
            ranked |= step.tool == "rank"
            if kept.any():
                left = kept
            else:
                counts["empty"] += 1
        counts["unsorted"] += not ranked
        items = best_first(scores.masked_fill(~left, -torch.inf)[None], count)[0]
        if len(items) < min(count, int(free.sum())):
            counts["filled"] += 1
            rest = scores.clone()
            rest[items] = -torch.inf
            items += best_first(rest[None], count - len(items))[0]
        return items

    def measures(self, counts: Counter[str], about: str) -> list[Measure]:
        """How many plans could not be read, and what went wrong in those that could."""
        plans = max(1, counts["plans"])
        found = [Measure("plans that could not be read, share", counts["fallbacks"] / plans, about)]
        found.append(Measure("plans asked for again, a plan", counts["retries"] / plans, about))
        return found + [Measure(f"{what}, a plan", counts[name] / plans, about) for name, what in _FAULTS.items()]

    def _plans(
        self, dialogues: Sequence[Dialogue], costs: Sequence[Cost], counts: Counter[str]
    ) -> list[Sequence[Step]]:
        domain = self.job.dataset.catalogue.domain
        asked = [
            talk(each.messages, f"You plan how to find a {domain}. {past(self.history_titles(each), domain)}", TOLD)
            for each in dialogues
        ]
        counts["plans"] += len(dialogues)
        plans: list[Sequence[Step]] = [FALLBACK] * len(dialogues)
        rows = list(range(len(dialogues)))
        for attempt in range(self.options.retries + 1):
            counts["retries"] += len(rows) if attempt else 0
            texts = ask(
                self.chat,
                [asked[row] for row in rows],
                [costs[row] for row in rows],
                max_tokens=self.options.plan_tokens,
                seed=self.job.recipe.seed,
            )
            failed = []
            for row, text in zip(rows, texts, strict=True):
                try:
                    plans[row] = read_plan(text)
                except BenchError as error:
                    asked[row] = [*asked[row], *_again(text, str(error))]
                    failed.append(row)
            rows = failed
            if not rows:
                break
        counts["fallbacks"] += len(rows)
        return plans

    def _kept(self, step: Step, left: torch.Tensor, counts: Counter[str]) -> torch.Tensor:
        """What of the buffer a step keeps, bool ``[n_items + 1]``."""
        if step.tool == "rank":
            return left
        if step.tool == "query":
            kept = torch.zeros_like(left)
            kept[self.database.query(step.where)] = True
            return kept & left
        seeds = [items[0] for items, _ in self.matcher.match(step.titles) if items]
        counts["unknown titles"] += len(step.titles) - len(seeds)
        if not seeds:
            return left
        likeness = (self.vectors @ self.vectors[seeds].T).mean(1).masked_fill(~left, -torch.inf)
        kept = torch.zeros_like(left)
        kept[best_first(likeness[None], self.options.similar)[0]] = True
        return kept

    def _write(self, work: Path, done: Mapping[str, Path]) -> None:
        write_database(work / FILE, self.job.dataset.catalogue)


_FAULTS: dict[str, str] = {
    "empty": "steps that left nothing and were undone",
    "unknown titles": "titles named that are not in the catalogue",
    "unsorted": "plans that do not rank",
    "filled": "lists filled up by the recommender",
}


def _again(text: str, reason: str) -> Messages:
    """A plan that could not be read, and why."""
    return [
        {"role": "assistant", "content": text or "..."},
        {"role": "user", "content": f"That plan cannot be run: {reason}. Write the whole plan again."},
    ]
