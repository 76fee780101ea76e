"""Which labels ReLRec trains on: extractive, generated, imported, or another dataset's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recllm_bench.errors import BenchError
from recllm_bench.language.chat_spending import TokenBudget
from recllm_bench.models.relrec.options import ReLRecOptions
from recllm_bench.progress import log

if TYPE_CHECKING:
    from recllm_bench.api.method import Job
    from recllm_bench.language.chat import Chat

_KEY = (
    "labels",
    "label_scope",
    "two_stage",
    "label_versions",
    "anonymise_names",
    "switched_labels",
    "switched_from",
)
_WRITER = ("chat", "document_words", "chat_temperature", "chat_precision")
_MADE = ("extractive", "generated")
PAPERS_GENERATOR = "gpt-3.5-turbo"
"""Who wrote the paper's labels."""
_GENERATOR = re.compile(
    rf"(?:openai/)?{re.escape(PAPERS_GENERATOR)}(?:-16k)?(?:-\d{{4}})?"
)  # with the date of a snapshot


def labels_key(options: ReLRecOptions) -> dict[str, Any]:
    """What the labels depend on, beside data, split and seed.

    Raises
    ------
    BenchError
        When a file of labels is missing.
    """
    key = {name: getattr(options, name) for name in _KEY}
    if options.labels == "generated":
        key |= {name: getattr(options, name) for name in _WRITER}
        from recllm_bench.language.backbone import chat_key

        key |= {"writer": chat_key(options.chat)}
    if options.labels not in _MADE:
        from recllm_bench.language.labels.label_files import find_label_file, labels_hash

        key["labels"] = labels_hash(find_label_file(options.labels))
        if options.switched_file:
            key["switched_file"] = labels_hash(find_label_file(options.switched_file))
    return key


def make_labels(job: Job, options: ReLRecOptions, work: Path) -> Any:
    """The labels of the job's dataset, after any switch.

    Parameters
    ----------
    work : Path
        Folder in which a generator keeps what it has done.

    Returns
    -------
    Labels
        Of ``language.labels``.
    """
    from recllm_bench.language.labels import Labels, switched

    budget = TokenBudget("token_budget", options.token_budget)  # of both datasets together
    labels = _labels_of(job, options, job.dataset, job.split, work, budget)
    if options.switched_labels == "none":
        return labels
    other = _labels_of(job, options, *_other_dataset(job, options), work / "other", budget, is_other=True)
    mixed = switched(labels, other)
    kinds = "users and items" if options.switched_labels == "both" else options.switched_labels
    return Labels(
        users=labels.users if options.switched_labels == "items" else mixed.users,
        items=labels.items if options.switched_labels == "users" else mixed.items,
        source=f"{labels.source}, {kinds} switched with {options.switched_from}",
        scope=labels.scope,
        counts=labels.counts,
        writers=tuple({*(labels.writers or (labels.source,)), *(other.writers or (other.source,))}),
    )


def check_labels(job: Job, options: ReLRecOptions) -> None:
    """Name what would stop :func:`make_labels`, before anything is trained.

    Raises
    ------
    BenchError
        For another dataset or a chat model that is not there, and with the questions and tokens that it would take
        where the writer may have to be paid for and no limit is set.
    """
    corpora = [(job.dataset, job.split)]
    if options.switched_labels != "none":
        corpora.append(_other_dataset(job, options))
    if options.labels != "generated":
        return
    chat = _writer(job, options, TokenBudget("token_budget", options.token_budget))
    if chat.lacks_limit:
        plans = [_planned(options, *corpus) for corpus in corpora]
        questions, tokens = (sum(plan[place] for plan in plans) for place in (1, 2))
        raise BenchError(
            f"labels of {' and '.join(dataset.name for dataset, _ in corpora)} take {questions:,} questions to "
            f"{chat.name} and at most about {tokens:,} tokens, which may be paid for; set a limit, such as "
            f"token_budget={tokens}, or -1 for none"
        )


def label_substitute(facts: Mapping[str, Any]) -> str:
    """What a table says of labels that the paper's generator did not write; empty where it wrote every one.

    Parameters
    ----------
    facts : mapping
        :meth:`Labels.statistics`; ``writers`` decides, so that a file is judged by the model its lines name.
    """
    writers = facts.get("writers") or [facts["source"]]
    return "" if all(map(_GENERATOR.fullmatch, writers)) else f"{facts['source']} for {PAPERS_GENERATOR}"


def _labels_of(
    job: Job,
    options: ReLRecOptions,
    dataset: Any,
    split: Any,
    work: Path,
    budget: TokenBudget,
    is_other: bool = False,
) -> Any:
    """Labels of a dataset; another dataset's keep titles as words, for its item numbers mean other items here."""
    anonymous = options.anonymise_names and not is_other
    common: dict[str, Any] = {
        "scope": options.label_scope,
        "versions": options.label_versions,
        "anonymise_names": anonymous,
    }
    if options.labels == "extractive":
        from recllm_bench.language.labels import extractive_labels

        return extractive_labels(dataset, split, seed=job.recipe.seed, **common)
    if options.labels == "generated":
        return _written(job, options, dataset, split, work, budget, common)
    from recllm_bench.language.labels import anonymise, labels_from_file

    labels = labels_from_file(options.switched_file if is_other else options.labels, dataset)
    return anonymise(labels, dataset.catalogue.titles) if anonymous else labels


def _written(
    job: Job,
    options: ReLRecOptions,
    dataset: Any,
    split: Any,
    work: Path,
    budget: TokenBudget,
    common: dict[str, Any],
) -> Any:
    """Labels by a chat model."""
    from recllm_bench.language.labels.generated import generated_labels

    chat = _writer(job, options, budget)
    documents, questions, tokens = _planned(options, dataset, split)
    log.info(f"labels of {dataset.name}: {questions:,} questions, at most about {tokens:,} tokens")
    work.mkdir(parents=True, exist_ok=True)
    return generated_labels(
        dataset,
        split,
        chat,
        work=work,
        documents=documents,
        two_stage=options.two_stage,
        temperature=options.chat_temperature,
        seed=job.recipe.seed if options.chat_temperature else 0,
        batch_size=options.chat_batch,
        **common,
    )


def _writer(job: Job, options: ReLRecOptions, budget: TokenBudget) -> Chat:
    from recllm_bench.language.chat import chat_model

    local: dict[str, Any] = {
        "precision": options.chat_precision,
        "precision_option": "chat_precision",
        "device": options.chat_device,
        "store": job.store,
    }
    chat = chat_model(options.chat, **(local if options.chat.startswith("local:") else {}))
    chat.budget = budget
    return chat


def _planned(options: ReLRecOptions, dataset: Any, split: Any) -> tuple[Any, int, int]:
    """What the writer is given, how many questions that takes, and how many tokens at most."""
    from recllm_bench.language.labels import label_documents
    from recllm_bench.language.labels.generated import estimate

    documents = label_documents(dataset, split, options.label_scope, options.document_words)
    return documents, *estimate(dataset, documents, two_stage=options.two_stage, versions=options.label_versions)


def _other_dataset(job: Job, options: ReLRecOptions) -> tuple[Any, Any]:
    from recllm_bench.data.prepare import prepare
    from recllm_bench.data.splits import split_named

    protocol = job.protocol
    dataset = prepare(options.switched_from, filter=protocol.filter, store=job.store)
    return dataset, split_named(protocol.split, dataset.histories, **dict(protocol.split_params))
