"""What the systems share: lists of items in place of scores, one opening or a whole dialogue, and what each cost."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from recllm_bench.api.measure import Measure
from recllm_bench.api.method import Job, Method, Stage
from recllm_bench.api.words import NEUTRAL_OPENING
from recllm_bench.artifacts import write_json
from recllm_bench.conversation.dialogue import Dialogue, Response
from recllm_bench.conversation.spoken import spoken_title
from recllm_bench.errors import BenchError
from recllm_bench.language.asking import Cost, spent, timed
from recllm_bench.language.chat import Chat, chat_model
from recllm_bench.options import option, options_from_config
from recllm_bench.recbole_bridge.bare import Ids, bare_config
from recllm_bench.recbole_bridge.untrained import Untrained

LISTED = "listed_items"
"""Column of a case: the items that the system lists, best first, filled up with 0."""
DIALOGUES = "dialogues"


@dataclasses.dataclass(frozen=True)
class SystemOptions:
    """Options of every system."""

    chat: str = option("local:smollm2", "chat model: local:NAME, server:MODEL@URL or replay:FILE")
    listed: int = option(20, "items listed after one utterance; what is not listed is not ranked", low=1)
    titles: int = option(24, "newest titles of a history that the chat model reads", low=1)


class Listing(Untrained):
    """Ranks the items that a system lists; the others have no score.

    Parameters
    ----------
    config : recbole.config.Config
        Carries the fields of the class's options.
    dataset : recbole.data.dataset.Dataset
        For the number of items.
    system : SystemMethod, optional
        Who answers dialogues; without one (plain RecBole, where nobody speaks) all items are equal.
    """

    Options: ClassVar[type] = SystemOptions
    reads_words = True
    default_protocol = "latentcrs.multi_turn.n24"
    training_defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any, dataset: Any, system: SystemMethod | None = None) -> None:
        super().__init__(config, dataset)
        self.history_length: int = options_from_config(self.Options, config).titles
        self.system = system

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """Scores ``float [B, n_items + 1]``: minus infinity where an item is not listed."""
        shape = (len(interaction[self.ITEM_SEQ]), self.n_items)
        if LISTED not in getattr(interaction, "columns", interaction):
            return self.nothing.new_zeros(shape)
        listed = interaction[LISTED].long()
        scores = self.nothing.new_full(shape, -torch.inf).detach()
        places = torch.arange(listed.shape[1], 0, -1, device=scores.device, dtype=scores.dtype)
        scores.scatter_(1, listed, places.expand(len(listed), -1))
        scores[:, 0] = -torch.inf
        return scores

    def respond(self, job: Job, dialogues: Sequence[Dialogue]) -> list[Response]:
        """The system's answer in every dialogue; all calls of a turn are one batch."""
        if self.system is None:
            raise NotImplementedError(f"{type(self).__name__} converses on the bench alone")
        return self.system.answers(dialogues, job.protocol.shown_per_turn or 5, DIALOGUES, job)


class SystemMethod(Method):
    """A chat model with what it works with; a subclass answers in :meth:`turn`."""

    model: ClassVar[type] = Listing

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.options = job.options
        self.costs: dict[str, list[Cost]] = {}
        self.counts: dict[str, Counter[str]] = {}
        self.begun = 0

    @cached_property
    def chat(self) -> Chat:
        """The chat model; its answers are kept in the cache folder."""
        where: dict[str, Any] = {"device": self.job.device} if self.options.chat.startswith("local:") else {}
        return chat_model(self.options.chat, **where)

    @cached_property
    def said(self) -> list[str]:
        """Titles as they are said, by item id."""
        return [spoken_title(title) for title in self.job.dataset.catalogue.titles]

    def stages(self) -> list[Stage]:
        """``system``: which chat model answers, with which options; a subclass puts what it works with before it."""
        key = {"chat": self.chat.key(), **dataclasses.asdict(self.options)}
        return [Stage("system", key, self._note)]

    def check(self) -> None:
        """See :meth:`recllm_bench.api.method.Method.check`."""
        self.chat.check_limit()

    def load(self, folders: Mapping[str, Path]) -> Listing:
        """The model around this system."""
        job = self.job
        config = bare_config(job.options, self.options.titles, job.device)
        return self.model(config, Ids(job.split.histories.n_items), self).to(job.device).eval()

    def turn(
        self, dialogues: Sequence[Dialogue], count: int, forbid: Sequence[set[int]], costs: Sequence[Cost]
    ) -> tuple[list[Response], Mapping[str, int]]:
        """Answer all dialogues.

        Parameters
        ----------
        dialogues : sequence of Dialogue
            The last message of each is its user's.
        count : int
            Items to list.
        forbid : sequence of set of int
            Items that a list may not hold.
        costs : sequence of Cost
            Where the chat model's calls are added, by dialogue.

        Returns
        -------
        list of Response
            At most ``count`` items each; costs are put in by the caller.
        mapping
            What is counted, by name.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no turn()")

    def measures(self, counts: Counter[str], about: str) -> list[Measure]:
        """What the counts of one phase say."""
        return [Measure(name, counts[name], about) for name in sorted(counts)]

    def answers(self, dialogues: Sequence[Dialogue], count: int, about: str, job: Job) -> list[Response]:
        """Answer dialogues, with the cost of each; ``about`` names the phase in measures."""
        hides = job.protocol.exclude_history
        forbid = [{*dialogue.shown, *(dialogue.history.tolist() if hides else ())} for dialogue in dialogues]
        costs = [Cost() for _ in dialogues]
        with timed(costs):
            responses, counts = self.turn(dialogues, count, forbid, costs)
        self.begun += sum(len(dialogue.messages) == 1 for dialogue in dialogues) if about == DIALOGUES else 0
        self.costs.setdefault(about, []).extend(costs)
        self.counts.setdefault(about, Counter()).update(counts)
        return [
            dataclasses.replace(
                response,
                input_tokens=cost.input_tokens,
                output_tokens=cost.output_tokens,
                seconds=cost.seconds,
                error=response.error or cost.error,
            )
            for response, cost in zip(responses, costs, strict=True)
        ]

    def columns(self, cases: Any, words: Any) -> dict[str, np.ndarray]:
        """``listed_items int32 [n, listed]``: what the system lists after each user's first utterance."""
        histories, listed = self.job.split.histories, np.zeros((len(cases), self.options.listed), dtype=np.int32)
        starts = histories.offsets[cases.users - 1]
        dialogues = [
            Dialogue(user, histories.items[start:end], [("user", text or NEUTRAL_OPENING)])
            for user, start, end, text in zip(
                cases.users.tolist(), starts.tolist(), cases.ends.tolist(), words.openings(cases), strict=True
            )
        ]
        for row, response in enumerate(self.answers(dialogues, self.options.listed, "one turn", self.job)):
            if response.error:
                raise BenchError(f"user {dialogues[row].user}: {response.error}; the same command asks again")
            listed[row, : len(response.items)] = response.items
        return {LISTED: listed}

    def report(self, folders: Mapping[str, Path]) -> dict[str, Any]:
        """What was counted and what an utterance cost, in one turn and in dialogues; which chat model stood in."""
        measures = []
        for about, costs in self.costs.items():
            measures += self.measures(self.counts[about], about)
            measures += spent(costs, about, self.chat, self.begun if about == DIALOGUES else 0)
        return {"measures": measures, "substitutes": {"chat model": self.chat.name, "text encoder": ""}}

    def history_titles(self, dialogue: Dialogue) -> list[str]:
        """The newest titles of a history, oldest first."""
        return [self.said[item] for item in dialogue.history[-self.options.titles :].tolist() if self.said[item]]

    def _note(self, work: Path, done: Mapping[str, Path]) -> None:
        write_json(work / "system.json", {"chat": self.chat.name})
