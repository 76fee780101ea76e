"""Labels written by a chat model in two stages, with rewordings; every answer is kept, nothing is asked twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recllm_bench.errors import BenchError
from recllm_bench.language.chat_spending import question_tokens, text_tokens
from recllm_bench.language.labels.anonymise import anonymise
from recllm_bench.language.labels.documents import WORDS, Documents, label_documents
from recllm_bench.language.labels.journal import Journal, Question
from recllm_bench.language.labels.label_records import KINDS, Label, Labels, is_refusal, plural, valid_text
from recllm_bench.language.labels.prompts import (
    REWORDINGS,
    Conversation,
    clean_prompt,
    cleaned,
    most_tokens,
    profile_prompt,
    prompt_hash,
    reword_prompt,
)
from recllm_bench.progress import log, track

if TYPE_CHECKING:
    from recllm_bench.data.prepared import PreparedDataset
    from recllm_bench.data.splits import Split
    from recllm_bench.language.chat import ChatModel

ANSWERS = "answers.jsonl"


@dataclass(frozen=True)
class _Request:
    """One question about one user or item."""

    kind: str
    id: int
    stage: int
    version: int
    conversation: Conversation


def generated_labels(
    dataset: PreparedDataset,
    split: Split,
    chat: ChatModel,
    *,
    scope: str = "train_only",
    two_stage: bool = True,
    versions: int = 3,
    work: Path,
    words: int = WORDS,
    anonymise_names: bool = True,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 64,
    documents: Documents | None = None,
) -> Labels:
    """Have a chat model write the label of every user and item of whom anything is known.

    Stage 1 asks for a profile made of the document, stage 2 for the same without noise, and each further version for
    the same in another form. Empty answers and refusals are dropped and counted; whose profile is dropped has no
    label.

    Parameters
    ----------
    dataset, split, scope, words
        As for :func:`.label_documents`.
    chat : ChatModel
        Who writes.
    two_stage : bool
        Clean the profile before it is used (ReLRec, table 5); else the profile is the label.
    versions : int
        The label and its rewordings, 1 to 7.
    work : Path
        Folder of the answers. With the same folder a killed run goes on where it stopped; a question that changed,
        be it by its instructions or by its document, is asked again.
    anonymise_names : bool
        Write ``iid_17`` for the titles of catalogue items; the answers on disk keep the titles.
    temperature, seed : float, int
        Passed to the chat model.
    batch_size : int
        Questions the model is given at once, and answers that a kill may cost.
    documents : Documents, optional
        Made before, with the same scope.

    Raises
    ------
    BenchError
        When the chat model's budget is spent (what was answered is kept), and for settings out of range.
    """
    if not 1 <= versions <= len(REWORDINGS) + 1:
        raise BenchError(f"labels: 1 to {len(REWORDINGS) + 1} versions can be written, got {versions}")
    if batch_size < 1:
        raise BenchError(f"labels: batch_size must be at least 1, got {batch_size}")
    documents = documents or label_documents(dataset, split, scope, words)
    names = {"thing": dataset.catalogue.domain, "things": plural(dataset.catalogue.domain)}
    asking = _Asking(chat, Journal(Path(work) / ANSWERS), temperature, seed, batch_size)
    sources = {"user": documents.users, "item": documents.items}
    texts = asking.ask(
        "profiles",
        [
            _Request(kind, id, 1, 0, profile_prompt(kind, text, **names))
            for kind in KINDS
            for id, text in enumerate(sources[kind])
            if text
        ],
    )
    stage = 1
    if two_stage:
        stage = 2
        requests = [_Request(kind, id, 2, 0, clean_prompt(kind, text, **names)) for (kind, id), text in texts.items()]
        texts = asking.ask("cleaning", requests)
    found = {place: [text] for place, text in texts.items()}
    for version in range(1, versions):
        requests = [
            _Request(kind, id, stage, version, reword_prompt(kind, text, version, **names))
            for (kind, id), text in texts.items()
        ]
        for place, text in asking.ask(f"rewording {version}", requests).items():
            found[place].append(text)
    rows = {kind: [tuple(found.get((kind, id), ())) for id in range(len(sources[kind]))] for kind in KINDS}
    unlabelled = {f"{kind}s without label": sum(1 for row in rows[kind][1:] if not row) for kind in KINDS}
    counts = {**documents.counts, **asking.counts, **unlabelled}
    # A model on this machine may be called anything: its name alone would pass for a hosted model's.
    source = f"local:{chat.name}" if getattr(chat, "source", "") else chat.name
    labels = Labels(rows["user"], rows["item"], source, documents.scope, counts)
    return anonymise(labels, dataset.catalogue.titles) if anonymise_names else labels


def estimate(
    dataset: PreparedDataset, documents: Documents, *, two_stage: bool = True, versions: int = 3
) -> tuple[int, int]:
    """Questions that labels take, and the most tokens of prompts and answers, at four characters each.

    Every answer counts at full length, also where it is the text of the next question; nothing is asked.
    """
    names = {"thing": dataset.catalogue.domain, "things": plural(dataset.catalogue.domain)}
    questions = tokens = 0
    for kind, texts in (("user", documents.users), ("item", documents.items)):
        answer = most_tokens(kind)
        known = [text for text in texts if text]
        later = [clean_prompt(kind, "", **names)] * two_stage
        later += [reword_prompt(kind, "", version, **names) for version in range(1, versions)]
        tokens += sum(question_tokens(profile_prompt(kind, text, **names)) + answer for text in known)
        tokens += len(known) * sum(question_tokens(prompt) + 2 * answer for prompt in later)
        questions += len(known) * (1 + len(later))
    return questions, tokens


class _Asking:
    """Asks what the journal does not answer, a batch at a time."""

    def __init__(self, chat: ChatModel, journal: Journal, temperature: float, seed: int, batch_size: int) -> None:
        self._chat, self._journal = chat, journal
        self._temperature, self._seed = temperature, seed
        self._batch_size = batch_size
        self.counts = {"asked": 0, "answered before": 0, "tokens": 0, "empty": 0, "refusals": 0}

    def ask(self, what: str, requests: Sequence[_Request]) -> dict[tuple[str, int], str]:
        """Usable answers by kind and id."""
        questions = [self._question(request) for request in requests]
        open_ = [place for place, question in enumerate(questions) if self._journal.answer(question) is None]
        self.counts["answered before"] += len(requests) - len(open_)
        if open_:
            tokens = sum(question_tokens(requests[place].conversation) for place in open_)
            log.info(f"labels: {what}: {len(open_)} questions to {self._chat.name}, about {tokens} tokens of prompts")
        with track(label=f"labels: {what}", total=len(open_), unit="label") as bar:
            for kind in KINDS:  # a batch has one limit of new tokens
                places = [place for place in open_ if requests[place].kind == kind]
                for start in range(0, len(places), self._batch_size):
                    batch = places[start : start + self._batch_size]
                    self._complete([requests[place] for place in batch], [questions[place] for place in batch])
                    bar.update(len(batch))
        usable = {}
        for request, question in zip(requests, questions, strict=True):
            text = cleaned(request.kind, valid_text(self._journal.answer(question) or ""))
            if reason := "empty" if not text else "refusals" if is_refusal(text) else "":
                self.counts[reason] += 1
            else:
                usable[request.kind, request.id] = text
        return usable

    def _complete(self, requests: Sequence[_Request], questions: Sequence[Question]) -> None:
        conversations = [request.conversation for request in requests]
        limit = most_tokens(requests[0].kind)
        answers = self._chat.complete(conversations, max_tokens=limit, temperature=self._temperature, seed=self._seed)
        if len(answers) != len(requests):
            raise BenchError(f"{self._chat.name}: {len(requests)} questions got {len(answers)} answers")
        self._journal.append(
            Label(request.kind, request.id, request.stage, request.version, answer, self._chat.name, question[-1])
            for request, question, answer in zip(requests, questions, answers, strict=True)
        )
        self.counts["asked"] += len(requests)
        self.counts["tokens"] += sum(map(question_tokens, conversations)) + sum(map(text_tokens, answers))

    def _question(self, request: _Request) -> Question:
        settings: dict[str, Any] = {"max_tokens": most_tokens(request.kind), "temperature": self._temperature}
        settings["source"] = str(getattr(self._chat, "source", ""))  # two local models may share a name
        if self._temperature:
            settings["seed"] = self._seed
        asked = prompt_hash(request.conversation, **settings)
        return request.kind, request.id, request.stage, request.version, self._chat.name, asked
