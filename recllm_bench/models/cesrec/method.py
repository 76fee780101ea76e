"""CESRec as stages: backend, miniature language model, aligned item vectors, training pairs, constructor."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recllm_bench.api.method import Job, Method, Stage
from recllm_bench.api.words import Speaker, Undeclared, Words
from recllm_bench.artifacts import write_json
from recllm_bench.conversation.understanding import Understanding
from recllm_bench.data.splits import Cases
from recllm_bench.errors import BenchError, NotEnough
from recllm_bench.language.backbone_files import MINIATURE as MINIATURE_FACTS
from recllm_bench.models.cesrec.backends import TrainedBackend, backend_cell, trained_backend
from recllm_bench.models.cesrec.checks import check_names
from recllm_bench.models.cesrec.edits import any_title, fitting_title, random_masker, repeated, retitled
from recllm_bench.models.cesrec.language_model import language_model, llm_key, miniature, tuned_model
from recllm_bench.models.cesrec.masking import Masked, mask_outliers
from recllm_bench.models.cesrec.model import CESRec
from recllm_bench.models.cesrec.options import CESRecOptions, check_options
from recllm_bench.models.cesrec.outcomes import report
from recllm_bench.models.cesrec.round_store import (
    ADAPTER,
    BACKEND,
    CONSTRUCTOR,
    FACTS,
    MINIATURE,
    PAIRS,
    WRITING,
    RoundStore,
)
from recllm_bench.models.cesrec.talking import Talker
from recllm_bench.training.sequence import training_counts
from recllm_bench.training.stages import run_stages

TUNED = "adapter"
_MASKING = ("min_keep", "similarity", "mask_mode")
_VECTORS = ("text_pool", "item_text", "collab_source")
_PAIRS = ("replace_with", "pair_targets", "outliers", "examples", "prompt_items")
_PROMPTS = ("output", "wording", "prompt_items", "title_tokens", "most_edits")
_DRAWS = 3
_CONTROLS: dict[str, dict[str, Any]] = {
    "CESRec, acceptance off": {},
    "CESRec w/o c., acceptance off": {"use_constructor": False},
    **{f"A random item masked ({n + 1})": {"edit": "random_mask", "draw": n} for n in range(_DRAWS)},
    **{f"A random title written ({n + 1})": {"edit": "random_title", "draw": n} for n in range(_DRAWS)},
    "A title that fits the words, no language model": {"edit": "fitting_title"},
    "The words alone": {"edit": "words"},
    "The words, then the back end": {"edit": "words_backend"},
}
_CONTRACTS = 1  # part of keys: raise it when equal options give another product


class CESRecMethod(Method):
    """Backend, aligned item vectors, training pairs, constructor; what the options leave out is not there."""

    model = CESRec

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.options: CESRecOptions = check_options(job.options)
        options = self.options
        self.cell = backend_cell(job, options.backend, options.backend_options, options.backend_training)

    @cached_property
    def folders(self) -> dict[str, Path]:
        """The finished stages."""
        return run_stages(self.job, self.stages(), self.job.recipe.family)[0]

    def load(self, folders: Mapping[str, Path]) -> CESRec:
        """The model around the trained backend, in evaluation mode."""
        model = CESRec.around(self.job, self.backend(folders), self.reader if self.options.ranks_by_words else None)
        model.talker = Talker(self, folders)
        return model

    def columns(self, cases: Cases, words: Words | Undeclared) -> dict[str, np.ndarray]:
        """``pseudo_list [n, L]`` and ``pseudo_length [n]``: what the rounds of feedback made of each history.

        Simulated users know their targets here; what leaves this function holds item ids alone.
        """
        self.rounds = RoundStore(self, cases, words)
        return self.rounds.columns(self.rounds.played.rounds[-1])

    def report(self, folders: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
        """What the rounds of :meth:`columns` measured, and what stood in for the paper's parts."""
        return report(self.rounds)

    def happened(self) -> list[list[dict[str, Any]]]:
        """The rounds of each case."""
        return self.rounds.told()

    @classmethod
    def comparison_rows(cls, options: Mapping[str, Any]) -> list[Any]:
        """The backend itself, each half of the method alone, and controls; these are played without acceptance.

        A user who says yes to the target keeps the history that ranks it first: with acceptance a number holds what
        only a simulation knows, so what is compared with the backend is without.
        """
        backend = {"model": options.get("backend") or CESRecOptions().backend}
        for part in ("options", "training"):
            if options.get(f"backend_{part}"):
                backend[part] = dict(options[f"backend_{part}"])
        return [
            backend,
            {"model": "cesrec", "label": "CESRec w/o d.a.", "options": {"use_masking": False}},
            {"model": "cesrec", "label": "CESRec w/o c.", "options": {"use_constructor": False}},
            *(_unaccepted(label, **changes) for label, changes in _CONTROLS.items()),
        ]

    def check(self) -> None:
        """See :meth:`recllm_bench.api.method.Method.check`."""
        check_names(self.job, self.options, self.tunes)
        self.cell.method.check()

    # what is needed

    @property
    def masks(self) -> bool:
        """Whether the outliers of histories are masked when they are ranked."""
        options = self.options
        return options.use_masking and options.k > 0 and options.edit not in ("random_mask", "words", "words_backend")

    @property
    def tunes(self) -> bool:
        """Whether a constructor is trained."""
        return self.options.use_constructor and self.options.decoding == "trie"

    @property
    def train_k(self) -> int:
        """Items masked in training prompts; the same with and without masking at test time, so that Table 3's rows
        share one constructor.
        """
        options = self.options
        if not options.train_on_masked:
            return 0
        return options.k if options.train_k < 0 else options.train_k

    @property
    def has_neighbours(self) -> bool:
        """Whether training pairs need items like the target."""
        return self.options.replace_with == "neighbour" or self.options.outliers > 1

    @property
    def aligns(self) -> bool:
        """Whether anything needs hybrid item vectors; controls share what the method needs."""
        return (self.options.use_masking and self.options.k > 0) or (
            self.tunes and (self.train_k > 0 or self.has_neighbours)
        )

    def stages(self) -> list[Stage]:
        """Stages in order; what the options do not need is left out."""
        if self.tunes and not any(self.job.dataset.catalogue.titles):
            name = self.job.dataset.name
            raise NotEnough(
                f"cesrec: the items of {name} have no titles, which its constructor writes; put an item table beside "
                f"the data ({name}.items.csv with the columns item and title)"
            )
        stages = [Stage(BACKEND, {**self._backend_key(), "version": _CONTRACTS}, self.make_backend, ())]
        if (self.aligns or self.tunes) and not self.options.llm:
            stages.append(Stage(MINIATURE, self.llm_key, self.make_miniature, ()))
        if self.aligns:
            key = {**self._key(_VECTORS), **dataclasses.asdict(self._alignment()), "llm": self.llm_key}
            stages.append(Stage(ADAPTER, {**key, "version": _CONTRACTS}, self.make_alignment, (BACKEND,)))
        if self.tunes:
            drawn = {**self._key(_PAIRS), "train_k": self.train_k, "feedback": self.speaker.key()}
            if self.train_k:
                drawn |= self._key(_MASKING)
            needs = (ADAPTER,) if self.train_k or self.has_neighbours else ()
            # The vectors of neighbours and masks are the adapter's; without either, pairs are every backend's.
            stages.append(Stage(PAIRS, {**drawn, "version": _CONTRACTS}, self.make_pairs, needs))
            tuned = {**self._key(_PROMPTS), "tuning": dataclasses.asdict(self._tuning()), "llm": self.llm_key}
            stages.append(Stage(CONSTRUCTOR, {**tuned, "version": _CONTRACTS}, self.make_constructor, (PAIRS,)))
        return stages

    # products

    def make_backend(self, work: Path, done: Mapping[str, Path]) -> None:
        """Train the recommender as its own row does, and note its hash."""
        backend = trained_backend(self.cell)
        seconds = 0.0 if self.cell.entry.reads_words else sum(self.cell.trained[1].values())
        facts = {"name": self.cell.entry.name, "sha256": backend.weights_hash(), "trained_seconds": round(seconds, 3)}
        write_json(work / FACTS, {**facts, "history_length": backend.history_length})

    def make_miniature(self, work: Path, done: Mapping[str, Path]) -> None:
        """Pre-train the stand-in for a language model, and note what it is."""
        shutil.copy(miniature(self.job, self.options) / MINIATURE_FACTS, work)

    def make_alignment(self, work: Path, done: Mapping[str, Path]) -> None:
        """Item vectors of the language model (1), aligned with the recommender's (2), (11)."""
        from recllm_bench.models.cesrec.adapter import fit_adapter

        job, backend = self.job, self.backend(done)
        contextual = self.options.collab_source == "contextual"
        wanted = backend.contextual_vectors(job.split) if contextual else backend.item_vectors()
        label = "CESRec: alignment"
        options: dict[str, Any] = {
            "seed": job.recipe.seed,
            "device": job.device,
            "label": label,
            "items": self._trained_items(),
        }
        fit_adapter(self.semantic_vectors(), wanted, self._alignment(), work, **options)
        model = language_model(job, self.options)
        write_json(work / FACTS, {"llm": model.source, "substitute": model.substitute})
        self.assert_unchanged(backend, done)

    def make_pairs(self, work: Path, done: Mapping[str, Path]) -> None:
        """Training pairs: histories, what is said, and histories that agree with it."""
        from recllm_bench.models.cesrec.pairs import make_pairs

        job, options, speaker = self.job, self.options, self.speaker
        vectors = self.hybrid_vectors(done) if ADAPTER in done else None
        pairs = make_pairs(
            job.split,
            job.dataset.catalogue,
            lambda shown, targets, users: speaker.say(users, shown, targets),
            n=options.examples,
            outliers=options.outliers,
            replace_with=options.replace_with,
            targets=options.pair_targets,
            items=options.prompt_items,
            mask=self._masker(vectors, self.train_k) if vectors is not None and self.train_k else None,
            vectors=None if vectors is None else vectors.cpu().numpy(),
            seed=job.recipe.seed,
        )
        pairs.save(work / "pairs.json")
        facts = {**pairs.counts, "leaks": speaker.n_leaks, "empty": speaker.n_empty, "speaker": speaker.name}
        write_json(work / FACTS, facts)

    def make_constructor(self, work: Path, done: Mapping[str, Path]) -> None:
        """Tune the language model on the pairs (8); ``adapter/`` is a folder that peft loads elsewhere."""
        from recllm_bench.language.tuning import tune
        from recllm_bench.models.cesrec.pairs import Pairs

        job, model = self.job, language_model(self.job, self.options)
        prompts = self._prompts(model)
        learnt, held_out = Pairs.load(done[PAIRS] / "pairs.json").examples(prompts)
        frozen = model.weights_hash()
        tuning = self._tuning()
        mends = (
            ["a smaller tune_tokens"] if tuning.checkpointing else ["tune_checkpointing=true", "a smaller tune_tokens"]
        )
        facts = tune(
            model, learnt, held_out, tuning, work, seed=job.recipe.seed, device=job.device,
            label="CESRec: constructor", mends=mends,
        )  # fmt: skip
        if model.weights_hash() != frozen:
            raise BenchError("cesrec: the language model's own weights changed while it was tuned; this is a defect")
        titles = dict(prompts.layout.trie.counts)
        about = {"titles": titles, "wording": prompts.wording, "substitute": model.substitute}
        write_json(work / FACTS, {**facts, **about})

    # what the loop uses

    def backend(self, folders: Mapping[str, Path]) -> TrainedBackend:
        """The trained recommender; the same object whenever it is asked for.

        Raises
        ------
        BenchError
            When its weights are not those that the first stage noted.
        """
        if self._backend is None:
            self._backend = trained_backend(self.cell)
            if BACKEND in folders:
                self.assert_unchanged(self._backend, folders)
        return self._backend

    _backend: TrainedBackend | None = None

    def assert_unchanged(self, backend: TrainedBackend, folders: Mapping[str, Path]) -> None:
        """The recommender is what it was when it was trained."""
        noted = json.loads((folders[BACKEND] / FACTS).read_text())["sha256"]
        if backend.weights_hash() != noted:
            raise BenchError(f"cesrec: backend {backend.name} has changed since it was trained; this is a defect")

    @cached_property
    def llm_key(self) -> dict[str, Any]:
        """What the language model is."""
        return llm_key(self.job, self.options)

    @cached_property
    def speaker(self) -> Speaker:
        """Who answers recommendations in training pairs."""
        return self.speaker_of(self.job.words)

    def speaker_of(self, words: Words | Undeclared, cases: Cases | None = None) -> Speaker:
        """Who answers recommendations, among the users of some words."""
        return words.feedback(self.options.feedback, self.options.feedback_facts, cases)

    def speaker_key(self, words: Words) -> dict[str, Any]:
        """Who answers recommendations: no opening is heard but in dialogues, whose users are named too."""
        table = getattr(self.speaker, "attributes", None)
        asked: dict[str, Any] = {
            "simulator": f"feedback {self.options.feedback}",
            "wishes": self.options.feedback_facts,
        }
        if self.options.feedback == "rules":
            asked["version"] = self.speaker.key()["version"]
        talk = self.job.recipe.conversation
        if talk.users:
            asked |= {"dialogues": talk.simulator, "leaves": talk.leaves}
        return {**asked, **(table.key if table else {})}

    def semantic_vectors(self) -> np.ndarray:
        """E_llm, float32 [n_items + 1, d_l]."""
        from recllm_bench.models.cesrec.item_vectors import item_vectors

        options, job = self.options, self.job
        return item_vectors(
            language_model(job, options), job.dataset.catalogue, job.store, pool=options.text_pool,
            text=options.item_text, key={**self.llm_key, "code": dict(job.code)},
        )  # fmt: skip

    def hybrid_vectors(self, folders: Mapping[str, Path]) -> torch.Tensor:
        """E_hyb [n_items + 1, d_r] on the job's device."""
        from recllm_bench.models.cesrec.adapter import load_hybrid

        return torch.from_numpy(load_hybrid(folders[ADAPTER])).to(self.job.device)

    def masker(self, folders: Mapping[str, Path]) -> Callable[[torch.Tensor, torch.Tensor], Masked] | None:
        """Masks histories (3) to (5), or None without masking."""
        options = self.options
        if options.edit == "random_mask":
            return random_masker(options.k, options.min_keep, options.mask_mode, (self.job.recipe.seed, options.draw))
        return self._masker(self.hybrid_vectors(folders), self.options.k) if self.masks else None

    def constructor(self, folders: Mapping[str, Path]) -> Callable[..., Any] | None:
        """``construct(items, masked, feedback, targets) -> Written`` (7), or None without a constructor."""
        options, job = self.options, self.job
        if not options.writes:
            return None
        popularity = training_counts(job.split).numpy()
        if not self.tunes:
            from recllm_bench.models.cesrec.free_constructor import FreeConstructor

            written = FreeConstructor(options, job.dataset.catalogue, job.store, popularity).construct
        else:
            from recllm_bench.models.cesrec.constructor import Constructor

            model = tuned_model(job, options, folders[CONSTRUCTOR] / TUNED)
            written = Constructor(
                model,
                self._prompts(model),
                popularity=popularity,
                most_edits=options.most_edits or None,
                speculate=options.speculate,
                batch_size=options.construct_batch,
            ).construct

        def construct(items: Any, masked: Any, feedback: Any, targets: Any) -> Any:
            # The constructor never learns what is wanted; a strict run only keeps it from writing that title.
            return written(items, masked, feedback, [[target] for target in targets] if options.forbid_target else None)

        # Rows of a table differ in their edit alone: what the constructor says to the same questions is asked once.
        said_by = folders[CONSTRUCTOR].name if self.tunes else options.chat
        who = [
            said_by,
            job.dataset.checksum,
            *(getattr(options, name) for name in (*WRITING, "construct_batch", "forbid_target")),
        ]
        construct = repeated(construct, who, reuse=options.edit != "constructor")
        if options.edit == "constructor":
            return construct
        choose = (
            any_title(job.split.histories.n_items, (job.recipe.seed, options.draw))
            if options.edit == "random_title"
            else fitting_title(self.reader, popularity)
        )
        return retitled(construct, choose)

    @cached_property
    def reader(self) -> Understanding:
        """Reads remarks by the catalogue's facts, as any system could."""
        return Understanding(self.job.dataset.catalogue)

    # parts

    def _masker(self, vectors: torch.Tensor, k: int) -> Callable[[torch.Tensor, torch.Tensor], Masked]:
        options = self.options
        how: dict[str, Any] = {
            "min_keep": options.min_keep,
            "similarity": options.similarity,
            "mode": options.mask_mode,
        }
        return lambda items, lengths: mask_outliers(vectors, items, lengths, k=k, **how)

    def _prompts(self, model: Any) -> Any:
        from recllm_bench.language.titles.lists import ListLayout
        from recllm_bench.models.cesrec.prompts import PromptWriter

        options, titles = self.options, self.job.dataset.catalogue.titles
        lines = options.prompt_items
        return PromptWriter(
            ListLayout.of(titles, model.tokenizer, most_tokens=options.title_tokens, most_lines=lines),
            model.tokenizer,
            output=options.output,
            limit=min(model.context, options.tune_tokens),
            items=lines,
            wording=options.wording,
            small=not self._named,
            edits=max(1, options.most_edits),
        )

    @cached_property
    def _named(self) -> bool:
        """Whether the language model is a named one, not a miniature made here."""
        return "backbone" in self.llm_key

    def _trained_items(self) -> np.ndarray:
        """Items that training interactions hold: what the recommender knows something of."""
        return np.flatnonzero(training_counts(self.job.split).numpy() > 0)

    def _alignment(self) -> Any:
        from recllm_bench.models.cesrec.adapter import AdapterOptions

        own = self.options
        return AdapterOptions(
            hidden=own.adapter_hidden, standardise=own.standardise, learning_rate=own.adapter_learning_rate,
            batch_size=own.adapter_batch, epochs=own.adapter_epochs, patience=own.adapter_patience,
        )  # fmt: skip

    def _tuning(self) -> Any:
        from recllm_bench.language.tuning import TuningOptions

        own = self.options
        return TuningOptions(
            rank=own.lora_rank, alpha=own.lora_alpha, dropout=own.lora_dropout, target_modules=own.lora_modules,
            learning_rate=own.tune_learning_rate, epochs=own.tune_epochs, batch_size=own.tune_batch,
            most_tokens=own.tune_tokens, tokens_at_once=own.tune_tokens_at_once,
            checkpointing=own.tune_checkpointing,
        )  # fmt: skip

    def _backend_key(self) -> dict[str, Any]:
        return {**self.cell.key, "history_only": self.cell.entry.reads_words}

    def _key(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: getattr(self.options, name) for name in names}


def _unaccepted(label: str, **options: Any) -> dict[str, Any]:
    return {"model": "cesrec", "label": label, "options": {**options, "early_accept": False}}
