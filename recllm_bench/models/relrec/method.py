"""ReLRec as stages: miniature language model, labels, training, reconstruction."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from recllm_bench.api.measure import Measure
from recllm_bench.api.method import Job, Method, Stage
from recllm_bench.artifacts import content_hash, write_atomic, write_json
from recllm_bench.data.windows import Windows, training_windows
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.statistics import sign_flip
from recllm_bench.language.backbone_files import MINIATURE
from recllm_bench.language.labels.retrieval import known_texts, retrieval
from recllm_bench.models.relrec.inference import measure, own_against_other, ranking_speed
from recllm_bench.models.relrec.labelling import check_labels, label_substitute, labels_key, make_labels
from recllm_bench.models.relrec.model import LlamaSeq, ReLRec
from recllm_bench.models.relrec.optimiser import RowAdamW
from recllm_bench.models.relrec.options import ReLRecOptions, check_options
from recllm_bench.models.relrec.prompts import ITEM_PROMPTS, SLOT, USER_PROMPTS
from recllm_bench.models.relrec.trainer import Trainer, label_book, mark_warm_users
from recllm_bench.recbole_bridge.bare import Ids, bare_config
from recllm_bench.training.loop import fit, load_weights
from recllm_bench.training.sequence import validator
from recllm_bench.training.stages import stage_keys

LABELS, FACTS, WRITTEN, MEASURES = "labels.jsonl", "facts.json", "written.jsonl", "measures.json"
_MODEL = ("user_token", "p", "proj", "share_projection", "init", "init_noise", "item_head", "seq_softmax")
_TRAINING = ("seq_template", "recon", "alpha", "long_sequences", "pack_length", "warmup_share", "packed_attention")
_RECON = ("beta", "gamma", "label_tokens", "label_visits", "label_probe")
_MEASURED = ("recon_users", "recon_items", "recon_similarity", "recon_prompt")


class ReLRecMethod(Method):
    """Labels, training, label reconstruction (the first and the last only with ``recon``)."""

    model = ReLRec

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.name = self.model.display_name.lower()
        self.options: ReLRecOptions = check_options(job.options, self.name)

    def stages(self) -> list[Stage]:
        """Stages in order; without ``recon`` there is training alone."""
        options = self.options
        prompts = content_hash([USER_PROMPTS, ITEM_PROMPTS])
        llm = self._llm_key()
        training = {
            **self._key(_MODEL, _TRAINING),
            "llm": llm,
            "precision": options.llm_precision,
            "training": dataclasses.asdict(self.job.training),
        }
        timed = [Stage("speed", self._key(("timed_batches",)), self.make_speed, ("train",))] * bool(
            options.timed_batches
        )
        own = [Stage("miniature", llm, self.make_miniature, ())] * (not self._llm())
        if not options.recon:
            return [*own, Stage("train", training, self.make_training, ()), *timed]
        training = {**training, **self._key(_RECON), "prompts": prompts}
        stages = [
            *own,
            Stage("labels", labels_key(options), self.make_labels, ()),
            Stage("train", training, self.make_training, ("labels",)),
            *timed,
        ]
        if options.recon_users >= 0 or options.recon_items >= 0:
            key = {**self._key(_MEASURED), "encoder": dict(self.job.encoder_key)}
            stages.append(Stage("reconstruction", key, self.make_reconstruction, ("labels", "train")))
        return stages

    def check(self) -> None:
        """See :meth:`recllm_bench.api.method.Method.check`; labels that are made already need nothing."""
        stages = self.stages()
        for stage, key in zip(stages, stage_keys(self.job, stages), strict=True):
            if stage.name == "labels" and self.job.store.find(self.job.recipe.family, key) is None:
                check_labels(self.job, self.options)

    # products

    def make_miniature(self, work: Path, done: Mapping[str, Path]) -> None:
        """Pre-train the stand-in for a language model, and note what it is."""
        shutil.copy(self._miniature() / MINIATURE, work)

    def make_labels(self, work: Path, done: Mapping[str, Path]) -> None:
        """The labels, as JSON lines."""
        from recllm_bench.language.labels import write_labels

        labels = make_labels(self.job, self.options, work)
        write_labels(work / LABELS, labels)
        write_json(work / FACTS, labels.statistics())

    def make_training(self, work: Path, done: Mapping[str, Path]) -> None:
        """Train the side tables, and assert that the language model is what it was."""
        job, options, model = self.job, self.options, self.fresh()
        frozen = model.backbone.weights_hash()
        trainer = Trainer(model, job, self.read_labels(done), work / "terms.json")
        training = job.training
        steps = -(-len(trainer.windows) // training.batch_size)
        if not training.warmup_steps:
            # A share of the planned epochs; early stopping only makes it a larger one.
            training = dataclasses.replace(training, warmup_steps=int(options.warmup_share * steps * training.epochs))
        rows = None
        if any(getattr(table, "sparse", False) for table in model.tables.children()):
            clip = training.clip_norm
            rows = lambda trained: RowAdamW(  # noqa: E731
                trained, lr=training.learning_rate, weight_decay=training.weight_decay, clip_norm=clip
            )
            training = dataclasses.replace(training, clip_norm=0.0)
        outcome = fit(
            trainer.batches,
            trainer.loss,
            {"tables": model.tables},
            trainer.validated(validator(model, job.split, job.protocol, training, device=job.device)),
            training,
            work,
            device=job.device,
            seed=job.recipe.seed,
            label=self.model.display_name,
            steps=steps,
            optimiser=rows,
        )
        after = model.backbone.weights_hash()
        if after != frozen:
            raise BenchError(f"{self.name}: the frozen language model changed while training; this is a defect")
        trained = sum(parameter.numel() for parameter in model.tables.parameters())
        facts = {
            "llm": model.backbone.source,
            "substitute": model.backbone.substitute,
            "frozen_sha256": frozen,
            "trainable": trained,
            "epochs": outcome.epochs,
            **trainer.facts(),
        }
        write_json(work / FACTS, facts)

    def make_reconstruction(self, work: Path, done: Mapping[str, Path]) -> None:
        """Write labels from the trained tokens, and compare them with what was to be learnt."""
        job, options, model = self.job, self.options, self.load(done)
        labels = self.read_labels(done)
        book = label_book(model, job.split.histories, labels)
        known, _ = known_texts(job.dataset, job.split)
        measures: dict[str, Any] = {"retrieval": retrieval(labels.items, known, job.encode)}
        lines: list[dict[str, Any]] = []
        for kind, rows, sample in (
            ("user", labels.users, options.recon_users),
            ("item", labels.items, options.recon_items),
        ):
            if sample < 0:
                continue
            measures[kind], written = measure(
                model,
                kind,
                rows,
                job.encode,
                sample=sample,
                seed=job.recipe.seed,
                most=options.label_tokens,
                over_versions=options.recon_similarity,
                prompt=options.recon_prompt,
            )
            lines += written
            own, other = own_against_other(model, book, kind, sample=sample, seed=job.recipe.seed)
            if len(own):
                losses = {"own": float(own.mean()), "other": float(other.mean()), "labels": len(own)}
                measures[kind]["loss"] = {**losses, "p": sign_flip(own, other)}
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_atomic(work / WRITTEN, lambda file: file.write(text.encode()))
        write_json(work / MEASURES, measures)

    def make_speed(self, work: Path, done: Mapping[str, Path]) -> None:
        """Time ranking as the paper's Table 12 does."""
        write_json(work / MEASURES, ranking_speed(self.load(done), self.job.split, self.options.timed_batches))

    # models

    def backbone(self) -> Any:
        """The language model; it stays loaded between stages and cells."""
        from recllm_bench.language.pool import pooled_backbone

        job, name = self.job, self._llm() or str(self._miniature())
        return pooled_backbone(name, precision=self.options.llm_precision, device=job.device, store=job.store)

    def fresh(self) -> ReLRec:
        """An untrained model; the seed fixes its rows."""
        job = self.job
        histories = job.split.histories
        backbone = self.backbone()
        config = bare_config(job.options, job.training.max_length, job.device)
        torch.manual_seed(job.recipe.seed)
        return self.model(config, Ids(histories.n_items, histories.n_users), backbone)

    def load(self, folders: Mapping[str, Path]) -> ReLRec:
        """The model with the weights of the finished stage, in evaluation mode."""
        model = self.fresh()
        load_weights(folders["train"], {"tables": model.tables})
        mark_warm_users(model, self._windows(model))
        return model.eval().requires_grad_(False)

    def read_labels(self, folders: Mapping[str, Path]) -> Any:
        """The labels of the finished stage (``language.labels.Labels``), or None without reconstruction."""
        if "labels" not in folders:
            return None
        from recllm_bench.language.labels import read_labels

        histories = self.job.split.histories
        return read_labels(folders["labels"] / LABELS, histories.n_users, histories.n_items)

    def report(self, folders: Mapping[str, Path]) -> dict[str, Any]:
        """See :meth:`recllm_bench.api.method.Method.report`."""
        facts = json.loads((folders["train"] / FACTS).read_text())
        measures = [
            Measure("cold users", facts["cold_users"]),
            Measure("trainable parameters", facts["trainable"]),
        ]
        substitutes = {"language model": facts["substitute"]} if facts["substitute"] else {}
        notes = {}
        if "labels" in folders:
            about = json.loads((folders["labels"] / FACTS).read_text())
            if written := label_substitute(about):
                substitutes["labels"] = written
            notes["label scope"] = about["scope"]
        if "speed" in folders:
            found = json.loads((folders["speed"] / MEASURES).read_text())
            measures += [Measure(name, value) for name, value in found.items()]
        if "reconstruction" in folders:
            held = json.loads((folders["reconstruction"] / MEASURES).read_text())
            retrieved = held.pop("retrieval")
            if retrieved["items"]:
                measures.append(Measure("found by the own label, hit@10", retrieved["hit@10"], "items"))
            for kind, found in held.items():
                if loss := found.get("loss"):
                    measures += [
                        Measure("label loss, own token", loss["own"], f"{kind}s"),
                        Measure("label loss, another's token", loss["other"], f"{kind}s"),
                        Measure("p that both are equal", loss["p"], f"{kind}s"),
                    ]
                measures += [
                    Measure("label similarity", found["mean"], f"{kind}s"),
                    Measure("similarity to another's label", found["other"], f"{kind}s"),
                    Measure("labels compared", found["n"], f"{kind}s"),
                ]
        tokens = {"trained": sum(facts["tokens_by_epoch"])}
        return {"measures": measures, "substitutes": substitutes, "tokens": tokens, "notes": notes}

    def _windows(self, model: ReLRec) -> Windows:
        training, split = self.job.training, self.job.split
        return training_windows(split.histories, split.train_ends, model.history_length, training.coverage)

    def _llm_key(self) -> dict[str, Any]:
        if not self._llm():
            from recllm_bench.language.miniature import miniature_key, require_text

            require_text(self.job.dataset, reviews=True)
            return miniature_key(self._text_key(), self.job.recipe.seed)
        from recllm_bench.language.backbone import backbone_key

        return backbone_key(self._llm())

    def _llm(self) -> str:
        from recllm_bench.language.backbone import default_llm

        return self.options.llm or default_llm(self.job.device)

    def _miniature(self) -> Path:
        """The language model pre-trained on the dataset's own training text."""
        from recllm_bench.language.labels import extractive_labels, label_documents
        from recllm_bench.language.miniature import miniature_llm

        job = self.job

        def texts() -> list[str]:
            documents = label_documents(job.dataset, job.split, scope="train_only")
            spoken = extractive_labels(job.dataset, job.split, seed=job.recipe.seed, anonymise_names=False)
            titles = job.dataset.catalogue.titles
            told = [
                *described(spoken.users, USER_PROMPTS, ["someone"] * len(spoken.users)),
                *described(spoken.items, ITEM_PROMPTS, titles),
            ]
            return [text for text in (*documents.items, *documents.users, *told) if text]

        return miniature_llm(texts, job.store, self._text_key(), seed=job.recipe.seed)

    def _text_key(self) -> dict[str, Any]:
        job = self.job
        texts = ["label documents and extractive labels, train_only", content_hash([USER_PROMPTS, ITEM_PROMPTS])]
        return {"data": job.dataset.checksum, "split": job.split.checksum, "texts": texts}

    def _key(self, *groups: tuple[str, ...]) -> dict[str, Any]:
        return {name: getattr(self.options, name) for group in groups for name in group}


def described(labels: Sequence[Sequence[str]], prompts: Sequence[str], names: Sequence[str]) -> list[str]:
    """Labels behind their openings, with a name in place of the token: the form in which a miniature reads them.

    A large language model knows how a description goes on after its opening; a miniature must have seen it.
    """
    return [
        f"{prompts[(number + version) % len(prompts)].replace(SLOT, names[number] or 'this')} {text}"
        for number, versions in enumerate(labels)
        for version, text in enumerate(versions)
    ]


class LlamaSeqMethod(ReLRecMethod):
    """Training alone: no users, no labels."""

    model = LlamaSeq
