"""Ask or recommend: a policy around any model of the bench that converses."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from recllm_bench.api.measure import Measure
from recllm_bench.api.method import Job, Method, Stage
from recllm_bench.artifacts import write_json
from recllm_bench.conversation.attributes import AttributeTable
from recllm_bench.conversation.dialogue import Dialogue, Response
from recllm_bench.conversation.dialogue_state import StateReader
from recllm_bench.conversation.questions import Questions, question
from recllm_bench.conversation.spoken import SpokenFacts
from recllm_bench.conversation.understanding import Understanding
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.ranks import query_function
from recllm_bench.options import option
from recllm_bench.recbole_bridge.bare import Ids, bare_config
from recllm_bench.recbole_bridge.untrained import Untrained
from recllm_bench.training.cells import inner_cell


@dataclasses.dataclass(frozen=True)
class AskingOptions:
    """Options of :class:`Asking`."""

    model: str = option("text-retrieval", "the model that recommends; it must converse")
    model_options: dict | None = option(None, "changes to its own options")  # noqa: RUF009
    model_training: dict | None = option(None, "changes to its training options")  # noqa: RUF009
    questions: int = option(2, "most questions of a dialogue; 0 never asks", low=0)
    enough: int = option(2, "turns' worth of items that still fit at which it asks no more", low=1)
    least_gain: float = option(0.5, "bits that the answer to a question must be expected to tell", low=0)
    with_items: bool = option(False, "recommend in the turn of a question too")


class Asking(Untrained):
    """Asks for the kind of fact that is expected to tell most of the items that still fit, else lets a model recommend.

    What was said is read by :mod:`recllm_bench.conversation.dialogue_state`, as any system could.

    Parameters
    ----------
    config, dataset
        As any model's.
    model : torch.nn.Module, optional
        The trained model that recommends.
    policy : AskingMethod, optional
        Decides.
    """

    Options = AskingOptions
    display_name = "Ask or recommend"
    reads_words = True
    default_protocol = "latentcrs.multi_turn"
    training_defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any, dataset: Any, model: Any = None, policy: AskingMethod | None = None) -> None:
        super().__init__(config, dataset)
        self.model, self.policy = model, policy

    def full_sort_predict(self, interaction_: Any) -> torch.Tensor:
        """Scores ``float [B, n_items + 1]`` of the model inside."""
        if self.model is None:
            return self.nothing.new_zeros(len(interaction_[self.ITEM_SEQ]), self.n_items)
        query = query_function(self.model)
        if query is None:
            return self.model.full_sort_predict(interaction_)
        scores = query(interaction_).float() @ self.model.item_vectors()[: self.n_items].float().T
        scores[:, 0] = -torch.inf
        return scores

    def respond(self, job: Job, dialogues: Sequence[Dialogue]) -> list[Response]:
        """A question, or what the model inside recommends; those that recommend are one batch."""
        if self.policy is None:
            raise NotImplementedError("Asking converses on the bench alone")
        return self.policy.respond(self.model, job, dialogues)


class AskingMethod(Method):
    """The model inside as one stage; nothing of the policy is trained."""

    model: ClassVar[type] = Asking

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        options = job.options
        self.inner = inner_cell(job, options.model, options.model_options, options.model_training, "asking: model")
        if not self.inner.entry.converses:
            raise BenchError(
                f"asking: {options.model} does not converse; name a model with respond(), such as latentcrs"
            )
        self.asked: dict[str, int] = {}

    def check(self) -> None:
        """See :meth:`recllm_bench.api.method.Method.check`."""
        self.inner.method.check()

    @cached_property
    def heard(self) -> StateReader:
        """Reads what was said."""
        catalogue, own = self.job.dataset.catalogue, self.job.words.attributes
        tables = [AttributeTable(catalogue), SpokenFacts(catalogue)]
        reader = Understanding(catalogue, *tables, *([] if type(own) in map(type, tables) else [own]))
        return StateReader(catalogue, reader)

    @cached_property
    def questions(self) -> Questions:
        """What can be asked: the kinds of facts that these users speak of."""
        return Questions(self.job.words.attributes)

    def stages(self) -> list[Stage]:
        """``model``: what recommends."""
        policy = {name: getattr(self.job.options, name) for name in _POLICY}
        return [Stage("model", {"inner": self.inner.key, **policy}, self._train)]

    def load(self, folders: Mapping[str, Path]) -> Asking:
        """The policy around the trained model."""
        job, trained = self.job, self.inner.load()
        length = self.inner.history_length(trained)
        model = self.model(
            bare_config(job.options, length, job.device), Ids(job.split.histories.n_items), trained, self
        )
        model.history_length = length
        return model.to(job.device).eval()

    def columns(self, cases: Any, words: Any) -> dict[str, np.ndarray]:
        """Those of the model inside."""
        return self.inner.method.columns(cases, words)

    def report(self, folders: Mapping[str, Path]) -> dict[str, Any]:
        """How often each kind of fact was asked for, beside what the model inside reports."""
        said = dict(self.inner.method.report(self.inner.trained[0]))
        asked = [Measure(f"questions for a {kind}", count, "dialogues") for kind, count in sorted(self.asked.items())]
        return {**said, "measures": [*(said.get("measures") or []), *asked]}

    def kind_to_ask(self, dialogue: Dialogue, shown: int) -> str:
        """The kind of fact to ask for, ``""`` where it recommends.

        Parameters
        ----------
        dialogue : Dialogue
        shown : int
            Items of a turn.
        """
        options = self.job.options
        if sum(map(bool, dialogue.asked)) >= options.questions:
            return ""
        state = self.heard.of(dialogue)
        fits = self.heard.fits(state).copy()
        fits[dialogue.shown] = False
        items = np.flatnonzero(fits)
        if len(items) <= options.enough * shown:
            return ""
        terms = {" ".join(self.heard.reader.terms[term]) for term in (*state.wanted, *state.unwanted)}
        known = {fact for fact in self.questions.table.vocabulary if fact.value.casefold() in terms}
        gains = {kind: gain for kind, gain in self.questions.gains(items, known).items() if kind not in dialogue.asked}
        best = max(gains, key=lambda kind: gains[kind], default="")
        return best if best and gains[best] >= options.least_gain else ""

    def respond(self, model: Any, job: Job, dialogues: Sequence[Dialogue]) -> list[Response]:
        """Decide for every dialogue; the model inside gets those that recommend as one batch."""
        start, shown = time.perf_counter(), job.protocol.shown_per_turn or 5
        kinds = [self.kind_to_ask(dialogue, shown) for dialogue in dialogues]
        share = (time.perf_counter() - start) / max(1, len(dialogues))
        domain, with_items = job.dataset.catalogue.domain, self.job.options.with_items
        rows = [row for row, kind in enumerate(kinds) if with_items or not kind]
        found = dict(zip(rows, model.respond(job, [dialogues[row] for row in rows]) if rows else [], strict=True))
        responses = []
        for row, kind in enumerate(kinds):
            response = found.get(row) or Response([])
            if kind:
                self.asked[kind] = self.asked.get(kind, 0) + 1
                listed = [job.dataset.catalogue.titles[item] for item in response.items]
                said = f"Perhaps {', '.join(filter(None, listed))}? " if any(listed) else ""
                response = dataclasses.replace(response, ask=kind, say=said + question(kind, domain))
            responses.append(dataclasses.replace(response, seconds=response.seconds + share))
        return responses

    def _train(self, work: Path, done: Mapping[str, Path]) -> None:
        seconds = self.inner.trained[1]
        write_json(work / "model.json", {"model": self.inner.entry.name, "stages": sorted(seconds)})


_POLICY = ("questions", "enough", "least_gain", "with_items")
