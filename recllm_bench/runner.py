"""One cell of the bench, from recipe to run record."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from recllm_bench.api.faults import own_faults
from recllm_bench.api.measure import Measure
from recllm_bench.api.method import Job, Stage
from recllm_bench.api.modules import load_modules
from recllm_bench.api.registry import ModelEntry, model_named
from recllm_bench.api.words import Undeclared
from recllm_bench.artifacts import ArtifactStore, content_hash
from recllm_bench.data.cards import default_store
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.protocols import Protocol, protocol_named
from recllm_bench.language.chat_spending import Spending, price_table, spending
from recllm_bench.language.encoder_files import EncoderKey
from recllm_bench.locations import results_folder
from recllm_bench.machine_costs import measured_costs, reset_peak_memory
from recllm_bench.models import DIALOGUE_PROTOCOL
from recllm_bench.options import shown
from recllm_bench.planning import changed_from_default
from recllm_bench.progress import log, log_to
from recllm_bench.provenance import package_code_hash
from recllm_bench.recipe import ConversationOptions, Recipe

_EVALUATES = ("artifacts.py", "data", "evaluation", "models", "options.py", "recbole_bridge", "training", "runner.py")
"""Parts of the package that a number goes through when a trained model is measured."""


def device_named(name: str):
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a torch device.

    Raises
    ------
    BenchError
        When CUDA is asked for and absent, or the name is unknown.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise BenchError(f"device '{name}' is unknown; use auto, cpu, cuda or cuda:0")
    if kind == "cuda" and (not torch.cuda.is_available() or int(index or 0) >= torch.cuda.device_count()):
        raise BenchError(f"device '{name}' is not on this machine; leave DEVICE=auto or see 'recllm-bench doctor'")
    return torch.device(name)


class BenchCell:
    """A recipe on its data: what is trained, measured and recorded share what they need.

    Parameters
    ----------
    recipe : Recipe
        What to run, resolved.
    label : str
        Name of the row where the model's display name does not serve.

    Raises
    ------
    BenchError
        For every mistake in the recipe that a user can mend; nothing is trained yet.
    """

    def __init__(self, recipe: Recipe, label: str = "", store: ArtifactStore | None = None) -> None:
        from recllm_bench.conversation.real_users import evaluated_data

        load_modules(recipe.modules)
        self.recipe, self.store = recipe, store or default_store()
        self.entry: ModelEntry = model_named(recipe.model)
        self.name = label or self.entry.display_name
        self.device = device_named(recipe.device)
        self.protocol: Protocol = protocol_named(recipe.protocol)
        self.dataset, self.split = evaluated_data(recipe.dataset, self.protocol, self.store)
        self.encoder_key = EncoderKey(recipe.conversation)

    @cached_property
    def folder(self) -> Path:
        """Where the record is, or will be."""
        recipe, dataset = self.recipe, Path(self.recipe.dataset).name
        key = {"recipe": recipe.hash(), "label": self.name, **self.depends()}
        stem = f"{recipe.model}-{dataset}-{recipe.protocol}".lower().replace(":", "-").replace("/", "-")
        return results_folder() / "runs" / f"{stem}-{content_hash(key, 10)}"

    def depends(self) -> dict[str, Any]:
        """Everything that the numbers of the record rest on, in groups (:mod:`recllm_bench.reporting.dependence`).

        Raises
        ------
        BenchError
            When a part of it, such as a language model, is not there.
        """
        from recllm_bench.evaluation.metrics import metric_key

        data, stages = self.dataset, self.cell.method.stages()
        own = {key: value for key, value in self.recipe.as_dict().items() if key != "device"}
        found = {
            "data": {"name": data.name, "filter": self.protocol.filter, "checksum": data.checksum},
            "split": {"name": self.split.name, "checksum": self.split.checksum},
            "protocol": {"name": self.protocol.name, "fingerprint": self.protocol.fingerprint()},
            "recipe": own,
            "stages": {stage.name: content_hash(dict(stage.key)) for stage in stages},
            "training": dict(self.job.code),
            "evaluation": {
                "code": package_code_hash(_EVALUATES),
                "metrics": {name: metric_key(name) for name in self.protocol.metrics},
            },
        }
        if self.entry.reads_words:
            found["words"] = dict(self._words(self.recipe.conversation.words).key)
        return found

    @cached_property
    def cell(self) -> Any:
        """The model on its job (:class:`recllm_bench.training.cells.Cell`)."""
        from recllm_bench.training.cells import Cell

        return Cell(self.entry, self.job)

    @cached_property
    def job(self) -> Job:
        """What the method gets."""
        from recllm_bench.training.cells import code_of, typed_options

        recipe = self.recipe
        where = f"{recipe.model} on {recipe.dataset}"
        options, training = typed_options(
            self.entry, recipe.options, recipe.training, where, quick=recipe.quick, split=self.split
        )
        return Job(
            recipe=recipe,
            dataset=self.dataset,
            split=self.split,
            protocol=self.protocol,
            store=self.store,
            device=self.device,
            options=options,
            training=training,
            encode=self._encode,
            encoder_key=self.encoder_key,
            words=self._words("own") if self.entry.reads_words else Undeclared(self.entry.display_name),
            code=code_of(self.entry, self.device, training.validate_metric),
        )

    def check(self, *, again: bool = False) -> None:
        """Name what would stop the run, before anything is trained.

        Parameters
        ----------
        again : bool
            Also what would stop a run whose record is finished.

        Raises
        ------
        BenchError
            For an option, a language model, a simulator or an encoder that cannot serve, too little data, or a chat
            model that may have to be paid for where no limit is set.
        """
        from recllm_bench.evaluation.candidates import evaluated_cases, protocol_candidates
        from recllm_bench.language.chat import check_chat

        price_table()
        with own_faults(self.entry):
            stages = self.cell.method.stages()
        if not isinstance(stages, list) or not all(isinstance(stage, Stage) for stage in stages):
            raise BenchError(f"'{self.entry.name}': stages() must return a list of Stage objects, got {shown(stages)}")
        cases = evaluated_cases(self.split.test, self.protocol)
        protocol_candidates(self.protocol, self.split, cases, self.store)
        if self.entry.reads_words:
            self._words("own").speaker()
            if said := self._silent(cases):
                log.warning(f"{self.name}: {said}")
            dict(self.encoder_key)
        elif not self.encoder_key.was_read and self.recipe.conversation != ConversationOptions():
            raise BenchError(
                f"{self.name} encodes no text with these options, so conversation.encoder, template and pooling would "
                "do nothing; leave them out"
            )
        if again or not (self.folder / "run.json").exists():
            with own_faults(self.entry):
                self.cell.method.check()
            talk = self.recipe.conversation
            if talk.simulator.startswith("server:") and (
                self._hears_openings() or (talk.users and self.entry.converses)
            ):
                check_chat(talk.simulator)

    def products(self) -> dict[str, Path]:
        """Where the product of each stage is, or will be."""
        from recllm_bench.training.stages import stage_keys

        stages = self.cell.method.stages()
        paths = (self.store.path(self.entry.family, key) for key in stage_keys(self.job, stages))
        return {stage.name: path for stage, path in zip(stages, paths, strict=True)}

    def run(self, *, again: bool = False) -> Path:
        """Run it and return the folder of its record; a finished record is reused.

        Parameters
        ----------
        again : bool
            Compute the evaluation again even when a record exists.

        Returns
        -------
        Path
            Folder with ``run.json``, ``users.parquet``, ``recipe.yaml``, ``log.jsonl``.

        Raises
        ------
        BenchError
            For every mistake a user can mend.
        """
        from recllm_bench.reporting import records
        from recllm_bench.reporting.verification import is_finished

        if not again and is_finished(self.folder):
            return self.folder
        records.check_writable(self.folder.parent)
        with log_to(self._journal), own_faults(self.entry), spending() as spent:
            return self._run(spent)

    @property
    def _journal(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}.log.jsonl")

    def _run(self, spent: Spending) -> Path:
        from recllm_bench.evaluation.candidates import evaluated_cases, protocol_candidates
        from recllm_bench.evaluation.ranks import rank_cases
        from recllm_bench.reporting import records

        start = time.perf_counter()
        reset_peak_memory(self.device)
        log.info(f"{self.name} on {self.dataset.name} ({self.recipe.protocol}, seed {self.recipe.seed})")
        folders, stages = self.cell.trained
        model = self.cell.load()
        cases = evaluated_cases(self.split.test, self.protocol)
        before = time.perf_counter()
        columns = self.columns(cases)
        answer_seconds = time.perf_counter() - before
        candidates = protocol_candidates(self.protocol, self.split, cases, self.store)
        before = time.perf_counter()
        ranks = rank_cases(
            model,
            self.split,
            cases,
            self.protocol,
            columns=columns,
            candidates=candidates,
            max_length=self.cell.history_length(model),
            device=self.device,
            top=max(self.protocol.cutoffs),
        )
        evaluation_seconds = time.perf_counter() - before
        before = time.perf_counter()
        outcomes = self._dialogues(model)
        answer_seconds += time.perf_counter() - before
        report = self._report(folders)
        record = records.make_record(
            name=self.name,
            recipe=self.recipe,
            block="text" if self.entry.reads_words else "history",
            speaker=self._speaker(),
            dataset=self.dataset,
            protocol=self.protocol,
            split=self.split,
            ranks=ranks,
            outcomes=outcomes,
            stages=stages,
            evaluation_seconds=evaluation_seconds,
            answer_seconds=answer_seconds,
            measures=[
                *(*report["measures"], *self._disclosure(cases)),
                *(outcomes.measures() if outcomes is not None else ()),
            ],
            tokens=report["tokens"],
            costs=measured_costs(model, self.device),
            notes=[*self._notes(folders), *(f"{key}: {value}" for key, value in report["notes"].items())],
            curves=_by_epoch(folders, "validation"),
            losses=_by_epoch(folders, "loss"),
            candidates=candidates,
            # What a method reports as empty had no part in it.
            substitutes={what: who for what, who in {**self._substitutes(), **report["substitutes"]}.items() if who},
            device=str(self.device),
            depends=self.depends(),
            model_name=self.entry.display_name,
            changed=changed_from_default(self.recipe, self.split),
        )
        record.spent = spent.facts()
        log.info(f"{self.name}: done in {time.perf_counter() - start:.1f} s")
        files = {**self._transcripts(outcomes), **self._cases(cases, ranks)}
        return records.write_record(self.folder, record, ranks, outcomes, self._journal, files)

    def columns(self, cases: Any) -> dict[str, Any] | None:
        """Further columns of the cases; words and targets reach a reader of words alone."""
        import numpy as np

        if self.entry.reads_words:
            found = self.cell.method.columns(cases, self._words(self.recipe.conversation.words))
        else:
            hidden = dataclasses.replace(cases, targets=np.zeros_like(cases.targets))
            found = self.cell.method.columns(hidden, self.job.words)
        return found or None

    def talking_job(self) -> Job:
        """The job under a protocol that has turns: its own, or the published one for dialogues."""
        rules = self.protocol if self.protocol.turns else protocol_named(DIALOGUE_PROTOCOL)
        if self.recipe.conversation.known_items == "never":
            rules = dataclasses.replace(rules, exclude_history=True)
        return dataclasses.replace(self.job, protocol=rules)

    @cached_property
    def _said(self) -> dict[str, Any]:
        return {}

    def _words(self, whose: str) -> Any:
        if whose not in self._said:
            self._said[whose] = self._new_words(whose)
        return self._said[whose]

    def _new_words(self, whose: str) -> Any:
        from recllm_bench.conversation.simulated_words import SimulatedWords

        return SimulatedWords(
            dataclasses.replace(self.recipe.conversation, words=whose),
            self.dataset,
            self.split,
            self.recipe.seed,
            self.store,
            self._encode,
            self.encoder_key,
            self.entry.reads_facts,
        )

    def _encode(self, texts: Sequence[str]):
        from recllm_bench.language.vectors import text_vectors

        talk = self.recipe.conversation
        return text_vectors(
            talk.encoder, texts, self.store, template=talk.template, pooling=talk.pooling, device=self.device
        )

    def _speaker(self) -> dict[str, Any]:
        """Who speaks; nobody to a row that reads no words."""
        return dict(self.cell.method.speaker_key(self._words("own"))) if self.entry.reads_words else {}

    def _hears_openings(self) -> bool:
        """Whether the row hears what the simulator opens with; a method may have speakers of its own."""
        return self.entry.reads_words and self._speaker() == dict(self._words("own").speaker_key)

    def _silent(self, cases: Any) -> str:
        return self._words("own").check_facts(cases) if self._hears_openings() else ""

    def _disclosure(self, cases: Any) -> list[Measure]:
        """What the words give away; the controls with other words say nothing about these targets."""
        own = self.recipe.conversation.words == "own" and self._hears_openings()
        return self._words("own").disclosure(cases) if own else []

    def _notes(self, folders: Mapping[str, Path]) -> list[str]:
        """What must be said beside the numbers: the recipe's budget, and a stage that ran out of time."""
        from recllm_bench.training.cells import outcomes

        notes = [self.cell.schedule] if self.recipe.budget else []
        if self.recipe.quick:
            notes.append(f"quick: at most {self.recipe.quick} passes over the data in every training")
        for name, facts in outcomes(folders).items():
            if facts.get("stopped_by") == "budget":
                notes.append(f"{name}: stopped by its budget after {facts['epochs']} epochs")
        return notes

    def _dialogues(self, model: Any) -> Any:
        """Play the multi-turn conversations, when the recipe asks for them and the model can talk."""
        talk = self.recipe.conversation
        if not talk.users or not self.entry.converses or self.dataset.said:
            return None
        from recllm_bench.evaluation.candidates import evaluated_cases

        job, words = self.talking_job(), self._words(talk.words)
        rules = job.protocol
        wanted = min(talk.users, self.dataset.histories.n_users)
        cases = evaluated_cases(self.split.test, dataclasses.replace(rules, users=wanted))
        return words.hold(lambda talks: model.respond(job, talks), cases, rules.turns, rules.shown_per_turn)

    def _transcripts(self, outcomes: Any) -> dict[str, Callable[[Path], None]]:
        """The dialogues as a file for people to read."""
        if outcomes is None:
            return {}
        from recllm_bench.conversation.dialogue_loop import write_transcripts

        return {"dialogues.jsonl": lambda path: write_transcripts(path, outcomes, self.dataset.catalogue)}

    def _cases(self, cases: Any, ranks: Any) -> dict[str, Callable[[Path], None]]:
        """What ``recllm-bench show`` tells of a case."""
        from recllm_bench.reporting.case import FILE, write_cases

        said = self._words(self.recipe.conversation.words).openings(cases) if self._hears_openings() else None
        rounds = self.cell.method.happened()
        return {FILE: lambda path: write_cases(path, ranks, said, rounds)}

    def _report(self, folders: Mapping[str, Path]) -> dict[str, Any]:
        """What the method says beside its ranking: measures, tokens, notes, and what stood in for the paper's parts."""
        said = self.cell.method.report(folders)
        wrong = [each for each in said.get("measures") or [] if not isinstance(each, Measure)]
        if wrong:
            raise BenchError(f"{self.name}: report() has {wrong[0]!r} among its measures; make it Measure(name, value)")
        return {key: said.get(key) or {} for key in ("measures", "tokens", "notes", "substitutes")}

    def _substitutes(self) -> dict[str, str]:
        if not self.entry.reads_words:
            return {}
        talk = self.recipe.conversation
        speaks = f"people, trained with {talk.simulator}" if self.dataset.said else talk.simulator
        return {"simulator": speaks, "text encoder": talk.encoder}


def _by_epoch(folders: Mapping[str, Path], kind: str) -> dict[str, list[list[float]]]:
    """Rows of (epoch, value) for each trained stage that has values of this kind."""
    from recllm_bench.training.cells import outcomes

    found = {
        name: [[entry["epoch"], entry[kind]] for entry in facts["history"] if kind in entry]
        for name, facts in outcomes(folders).items()
    }
    return {name: points for name, points in found.items() if points}
