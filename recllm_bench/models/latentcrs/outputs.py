"""The outputs F and V of LatentCRS around its trained networks: a ranking and answers in dialogues."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recllm_bench.api.measure import Measure
from recllm_bench.conversation.dialogue import Dialogue, Response
from recllm_bench.conversation.understanding import UNWANTED, WANTED, Wish
from recllm_bench.errors import BenchError
from recllm_bench.language.asking import Cost, spent, timed
from recllm_bench.language.chat import Chat, chat_model
from recllm_bench.models.latentcrs.filtering import RULES, Extracted, Extractor, filtered
from recllm_bench.models.latentcrs.options import LatentCRSOptions
from recllm_bench.models.latentcrs.stand_ins import reader
from recllm_bench.models.latentcrs.verifying import Verifier
from recllm_bench.recbole_bridge.bare import Ids, bare_config
from recllm_bench.recbole_bridge.untrained import Untrained

if TYPE_CHECKING:
    from recllm_bench.api.method import Job
    from recllm_bench.models.latentcrs.model import LatentCRS

VERIFIED = "verified_items"
SMALL, FEW = "local:smollm2", 24  # the chat model that runs anywhere, and dialogues for which that takes minutes
_DIALOGUES_AT_ONCE = 512


class LatentCRSOutput(Untrained):
    """The trained model with a filter behind it, and for V a verifier.

    Parameters
    ----------
    model : LatentCRS
        Trained.
    output : Output
        What is put behind it.
    config, dataset
        As any model's.
    """

    def __init__(self, config: Any, dataset: Any, model: LatentCRS, output: Output) -> None:
        super().__init__(config, dataset)
        self.model, self.output, self.history_length = model, output, model.history_length

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Scores ``float [B, n_items + 1]``; padding has minus infinity."""
        scores = self.model.query_vectors(interaction) @ self.model.item_vectors().T
        scores[:, 0] = -torch.inf
        sides = (
            [tuple(term for term in row if term >= 0) for row in interaction[name].tolist()]
            for name in (WANTED, UNWANTED)
        )
        scores = self.output.filtered(scores, [Wish(*pair) for pair in zip(*sides, strict=True)])
        if VERIFIED in getattr(interaction, "columns", interaction):
            first = interaction[VERIFIED].long()
            bonus = torch.arange(first.shape[1], 0, -1, device=scores.device, dtype=scores.dtype)
            top = scores.max(1, keepdim=True).values + bonus
            scores.scatter_(1, first, torch.where(first > 0, top, -torch.inf))
            scores[:, 0] = -torch.inf
        return scores

    @torch.no_grad()
    def respond(self, job: Job, dialogues: Sequence[Dialogue]) -> list[Response]:
        """Recommend in every dialogue, all of them as one batch."""
        costs, count = [Cost() for _ in dialogues], job.protocol.shown_per_turn or 5
        with timed(costs):
            lists = self.output.lists(self.model, job, dialogues, costs, count, True)[0]
        return [
            Response(
                items[:count],
                input_tokens=cost.input_tokens,
                output_tokens=cost.output_tokens,
                seconds=cost.seconds,
                error=cost.error,
            )
            for items, cost in zip(lists, costs, strict=True)
        ]


class Output:
    """What F and V put behind the generative ranking.

    Parameters
    ----------
    job : Job
        Catalogue, device, seed.
    options : LatentCRSOptions
        Resolved.

    Raises
    ------
    BenchError
        For a chat model that cannot be found.
    """

    def __init__(self, job: Job, options: LatentCRSOptions) -> None:
        self.job, self.options, self.relaxed = job, options, 0
        self.costs: list[Cost] = []
        catalogue, seed = job.dataset.catalogue, job.recipe.seed
        self.extractor_chat = None if options.extractor == RULES else self._chat(options.extractor)
        self.verifier = (
            Verifier(catalogue, self._chat(options.verifier), seed) if options.variant_output == "V" else None
        )
        self.extractor = Extractor(catalogue, self.extractor_chat, seed)

    @property
    def chats(self) -> dict[str, Chat]:
        """Who is asked."""
        found = {"extracts": self.extractor_chat, "verifies_by": self.verifier.chat if self.verifier else None}
        return {name: chat for name, chat in found.items() if chat is not None}

    @property
    def key(self) -> dict[str, Any]:
        """What decides the output, beside the trained networks."""
        names = ("variant_output", "extractor", "hard_filter", "hard_filter_pool", "verified", "verifies")
        own = {name: getattr(self.options, name) for name in names}
        return {**own, **{name: chat.key() for name, chat in self.chats.items()}}

    def around(self, model: LatentCRS) -> LatentCRSOutput:
        """The trained model with this behind it."""
        config = bare_config(self.job.options, model.history_length, self.job.device)
        return LatentCRSOutput(config, Ids(self.job.split.histories.n_items), model, self)

    def filtered(self, scores: Tensor, wishes: Sequence[Wish]) -> Tensor:
        """Scores behind the filter."""
        rule, pool = self.options.hard_filter, self.options.hard_filter_pool
        return filtered(scores, wishes, self.extractor.reader, rule, pool)

    def lists(
        self,
        model: LatentCRS,
        job: Job,
        dialogues: Sequence[Dialogue],
        costs: Sequence[Cost],
        count: int,
        verifies: bool,
    ) -> tuple[list[list[int]], list[Extracted], list[str]]:
        """The best items of each dialogue, what was extracted, and what the generative net read."""
        extracted = self.extractor.read(dialogues, costs)
        texts = [
            ". ".join(each.intents) or model.read(dialogue, job)
            for each, dialogue in zip(extracted, dialogues, strict=True)
        ]
        wishes = [each.wish for each in extracted]
        wanted = max(count, self.options.verifies if self.verifier is not None and verifies else 0)
        lists: list[list[int]] = []
        for start in range(0, len(dialogues), _DIALOGUES_AT_ONCE):
            part = slice(start, start + _DIALOGUES_AT_ONCE)
            scores = self.filtered(model.dialogue_scores(job, dialogues[part], texts[part]), wishes[part])
            values, items = scores.topk(min(wanted, scores.shape[1] - 1), dim=1)
            keep = (values > -torch.inf).cpu()
            lists += [row[kept].tolist() for row, kept in zip(items.cpu(), keep, strict=True)]
        fits = [self.extractor.reader.fits(wish) for wish in wishes]
        self.relaxed += sum(not mask[items[:count]].all() for mask, items in zip(fits, lists, strict=True))
        if self.verifier is not None and verifies:
            first = self.options.verifies
            orders = self.verifier.order([items[:first] for items in lists], extracted, dialogues, costs)
            lists = [[*order, *items[first:]] for order, items in zip(orders, lists, strict=True)]
        return lists, extracted, texts

    def columns(self, cases: Any, openings: Sequence[str], model: Callable[[], LatentCRS]) -> dict[str, np.ndarray]:
        """What the ranking of some cases needs: wishes, the vector of what is read, and for V the verified items."""
        histories = self.job.split.histories
        starts = histories.offsets[cases.users - 1]
        rows = zip(cases.users.tolist(), starts.tolist(), cases.ends.tolist(), openings, strict=True)
        dialogues = [Dialogue(user, histories.items[start:end], [("user", text)]) for user, start, end, text in rows]
        costs = [Cost() for _ in dialogues]
        verifies = self.verifier is not None and self.options.verified == "all"
        if verifies:
            lists, extracted, texts = self.lists(model(), self.job, dialogues, costs, self.options.verifies, True)
        else:
            lists, extracted = [], self.extractor.read(dialogues, costs)
            texts = [". ".join(each.intents) or text for each, text in zip(extracted, openings, strict=True)]
        for dialogue, cost in zip(dialogues, costs, strict=True):
            if cost.error:
                raise BenchError(f"user {dialogue.user}: {cost.error}; the same command asks again")
        self.costs += costs
        columns = self.extractor.reader.columns([each.wish for each in extracted])
        columns["utterance_vector"] = vectors_of(texts, self.job.encode)
        if verifies:
            columns[VERIFIED] = np.zeros((len(lists), self.options.verifies), dtype=np.int64)
            for row, items in enumerate(lists):
                columns[VERIFIED][row, : len(items)] = items
        return columns

    def measures(self) -> list[Measure]:
        """What the extractor and the verifier could not read."""
        read, asked = self.extractor.counts, max(1, self.extractor.counts["dialogues"])
        found = [Measure("lists filled up with items that do not fit, share", self.relaxed / asked)]
        chat = self.verifier.chat if self.verifier is not None else self.extractor_chat
        if chat is not None and any(cost.calls for cost in self.costs):
            found += spent(self.costs, "one turn", chat)
        if self.extractor_chat is not None:
            found += [
                Measure("extractions that are no JSON, share", read["unread"] / asked),
                Measure("unknown features an extraction", read["unknown"] / asked),
            ]
        if self.verifier is not None:
            counts = self.verifier.counts
            found.append(Measure("verifications without an order, share", counts["unread"] / max(1, counts["answers"])))
        return found

    def notes(self) -> dict[str, str]:
        """What the row leaves out."""
        apart = self.verifier is not None and self.options.verified == "dialogues"
        return {"verified": "dialogues alone; its one-turn ranking is that of LatentCRS_F"} if apart else {}

    def substitutes(self) -> dict[str, str]:
        """Which models extract and verify; empty where the paper's does. Who verified is not said there."""
        named = {"verifier": self.verifier.chat.name} if self.verifier else {}
        extractor = reader(self.options.extractor, self.extractor_chat.name) if self.extractor_chat else RULES
        return {"extractor": extractor, **named}

    def _chat(self, spec: str) -> Chat:
        where: dict[str, Any] = {"device": self.job.device} if spec.startswith("local:") else {}
        return chat_model(spec, **where)


def vectors_of(texts: Sequence[str], encode: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
    """One vector a text, each distinct one embedded once, float32 [n, width]."""
    distinct = sorted(set(texts))
    place = {text: row for row, text in enumerate(distinct)}
    return np.asarray(encode(distinct), dtype=np.float32)[[place[text] for text in texts]]


def further_rows(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of F and V beside B; a small local verifier gets as few dialogues as it answers in minutes."""
    if options.get("variant_output", "B") != "B":
        return []
    rows = [
        {"model": "latentcrs", "label": f"LatentCRS_{output}", "options": {"variant_output": output}} for output in "FV"
    ]
    verifier = str(options.get("verifier") or LatentCRSOptions.verifier)
    if verifier == SMALL:
        rows[1] = {
            "model": "latentcrs",
            "label": f"LatentCRS_V, {verifier}, {FEW} dialogues",
            "options": {"variant_output": "V", "verified": "dialogues"},
            "conversation": {"users": FEW},
        }
    return rows
