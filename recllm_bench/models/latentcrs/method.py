"""The schedule of LatentCRS as stages: backbone, utterances, states, intents, two warm-ups, joint EM."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from recllm_bench.api.measure import Measure
from recllm_bench.api.method import Job, Method, Stage
from recllm_bench.api.words import NEUTRAL_OPENING
from recllm_bench.artifacts import write_json
from recllm_bench.conversation.dialogue_state import StateReader
from recllm_bench.conversation.understanding import reader_for
from recllm_bench.data.splits import Cases
from recllm_bench.data.windows import DeviceHistories
from recllm_bench.errors import BenchError
from recllm_bench.files import write_array
from recllm_bench.models.latentcrs import in_use
from recllm_bench.models.latentcrs.backbone import (
    backbone_of,
    encode_cases,
    frozen_items,
    last_states,
    pooled_states,
    trained_encoder,
)
from recllm_bench.models.latentcrs.em import Examples, ExpectationMaximisation
from recllm_bench.models.latentcrs.intents import cluster_states
from recllm_bench.models.latentcrs.measuring import Curves, check_vectors, measure
from recllm_bench.models.latentcrs.model import LatentCRS
from recllm_bench.models.latentcrs.networks import GenerativeNet, InferenceNet, tie_value_map
from recllm_bench.models.latentcrs.options import LatentCRSOptions, check_options
from recllm_bench.models.latentcrs.outputs import LatentCRSOutput, Output, further_rows
from recllm_bench.models.latentcrs.records import read_examples, training_records
from recllm_bench.models.latentcrs.stand_ins import stand_ins
from recllm_bench.recbole_bridge.bare import Ids, bare_config
from recllm_bench.recipe import family
from recllm_bench.training.cells import Cell
from recllm_bench.training.loop import fit, load_weights, takes_fixed_steps, threads
from recllm_bench.training.stages import run_stages
from recllm_bench.training.training_options import TrainingOptions

if TYPE_CHECKING:
    from recllm_bench.api.model import Model

_NEGATIVES = ("train_repeat", "negatives", "neg_resample", "neg_exclude")
_STATES = ("encoder_dropout_in_train", "encoder_states", "train_encoder", "pad_to")
_INFERENCE = ("temperature", "value_map_on", "w_e_rec")
_GENERATIVE = (
    *("use_wm", "ffn_layernorm", "ffn_final_relu", "g_form", "g_item_map", "tie_value_map", "text_hidden"),
    *("text_dropout", "nce_logits", "nce_intent_reduce", "rec_form", "kl_epsilon", "w_nce", "w_rec", "lambda_kl"),
)
_JOINT = ("posterior_form", "stage3_intent_init")


class LatentCRSMethod(Method):
    """Backbone, utterances, states, intents, two warm-ups, joint EM."""

    model = LatentCRS

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.options: LatentCRSOptions = check_options(job.options)
        self.forms = in_use.forms(job)
        self.backbone: Cell = backbone_of(job, self.options)
        self.output = None if self.options.variant_output == "B" else Output(job, self.options)

    def stages(self) -> list[Stage]:
        """Stages in order; which ones depends on the ablation. F and V share all training with B."""
        last = [] if self.output is None else [Stage("output", self.output.key, self.make_output, ())]
        return [*self.training_stages(), *last]

    def check(self) -> None:
        """See :meth:`recllm_bench.api.method.Method.check`."""
        self.backbone.method.check()
        for chat in self.output.chats.values() if self.output is not None else ():
            chat.check_limit()

    def training_stages(self) -> list[Stage]:
        """What is trained."""
        options, augment = self.options, self.options.ablation != "no_augmentation"
        training = dataclasses.asdict(self.job.training)
        warm = {**training, "epochs": options.warmup_epochs or training["epochs"]}
        data = {"window": options.window, "augment": augment}
        common = self._key(_NEGATIVES, _STATES)
        weights = {"w_rec": self.w_rec, "w_e_rec": self.w_e_rec}
        states = {**data, **self._key(("encoder_dropout_in_train", "encoder_states", "pad_to"))}
        states["repeats"] = options.train_repeat if self._draws_states() else 0
        intents = self._key(("intents", "intent_pool", "intent_normalise", "intent_source"))
        text = {**data, "text": dict(self.job.words.key)}
        if self.forms:
            text |= {"text": dict(self.job.words.practice_key), "forms": self.forms}
        inference = {**data, **common, **self._key(_INFERENCE), "training": warm}
        generative = {**data, **common, **self._key(_GENERATIVE), "w_rec": self.w_rec, "training": warm}
        stages = [
            Stage("backbone", self.backbone.key, self.make_backbone, ()),
            Stage("utterances", text, self.make_utterances, ()),
            Stage("states", states, self.make_states, ("backbone",)),
            Stage("intents", intents, self.make_intents, ("backbone",)),
        ]
        before = ("utterances", "states", "intents")
        if options.ablation == "no_inference":
            key = {**generative, "training": training, "loss": "ranking alone"}
            return self._choosing([*stages, Stage("generative", key, self.make_ranking_only, before)])
        joint = {**data, **common, **self._key(_INFERENCE, _GENERATIVE, _JOINT), **weights, "training": training}
        if options.ablation == "direct_kl":
            stages.append(Stage("joint", {**joint, "direct": "from the start"}, self.make_direct, before))
            return self._choosing(stages)
        stages += [
            Stage("inference", inference, self.make_inference, ("states", "intents")),
            Stage("generative", generative, self.make_generative, (*before, "inference")),
            Stage("joint", joint, self.make_joint, (*before, "inference", "generative")),
        ]
        return self._choosing(stages)

    def _choosing(self, stages: list[Stage]) -> list[Stage]:
        """The stages, and one more where validation dialogues choose what is embedded."""
        if len(self.forms) < 2:
            return stages
        key = {**in_use.key(self.job, self.forms), "seen_policy": self.options.seen_policy}
        return [*stages, Stage("choose", key, self.make_choice)]

    @property
    def w_rec(self) -> float:
        """alpha_M after the ablation."""
        return 0.0 if self.options.ablation == "no_rec" else self.options.w_rec

    @property
    def w_e_rec(self) -> float:
        """alpha_E of joint training after the ablation."""
        return 0.0 if self.options.ablation == "no_rec" else self.options.w_e_rec

    def load(self, folders: Mapping[str, Path]) -> LatentCRS | LatentCRSOutput:
        """The model from its finished stages, on the job's device, in evaluation mode; behind it the output F or V."""
        model = self.load_trained(folders)
        return model if self.output is None else self.output.around(model).to(self.job.device).eval()

    def load_trained(self, folders: Mapping[str, Path]) -> LatentCRS:
        """The trained model."""
        job, intents = self.job, torch.from_numpy(np.load(folders["intents"] / "intents.npy"))
        width = np.load(folders["utterances"] / "records_vectors.npy", mmap_mode="r").shape[1]
        config = bare_config(job.options, self.options.window - 1, job.device, text_width=width)
        model = self.model(config, Ids(job.split.histories.n_items), self._encoder(), intents)
        modules: dict[str, nn.Module] = {"generative": model.generative}
        if model.inference is not None:
            modules["inference"] = model.inference
        load_weights(folders["generative" if "joint" not in folders else "joint"], modules)
        if "choose" in folders:
            model.x_text = in_use.read(folders)["x_text"]
        if (model.x_text or self.options.embedded) == "summary":
            model.reader = StateReader(job.dataset.catalogue, reader_for(job))
        return model.to(job.device).eval().requires_grad_(False)

    def history_encoder(self) -> Model:
        """The encoder of histories alone, trained by its own recipe."""
        return self._encoder()

    def columns(self, cases: Cases, words: Any) -> dict[str, np.ndarray]:
        """``utterance_vector [n, d_x]``: what each user says first."""
        if self.output is None:
            columns = super().columns(cases, words)
        else:
            texts = [text or NEUTRAL_OPENING for text in words.openings(cases)]
            columns = self.output.columns(cases, texts, self._trained_model)
        check_vectors(columns["utterance_vector"])
        return columns

    def _trained_model(self) -> LatentCRS:
        return self.load_trained(run_stages(self.job, self.training_stages(), family(self.job.recipe.model))[0])

    @torch.no_grad()
    def report(self, folders: Mapping[str, Path]) -> dict[str, Any]:
        """Test metrics of the parts that read no words: the encoder by itself, and q after joint training."""
        test, model = self.job.split.test, self.load_trained(folders)
        wanted = (test, self.job.protocol.metrics, self.job.protocol.cutoffs)
        states, items = self._case_states(test, None)
        parts = {"encoder alone": (states, items)}
        if (q := model.inference) is not None:
            states, items = self._case_states(test, q.encoder)
            parts["q alone"] = (q.item_query(q(states)), q.item_vectors(items))
        found = {name: measure(self.job, *part, *wanted) for name, part in parts.items()}
        own = [] if self.output is None else self.output.measures()
        return {
            "measures": [*(Measure(*row, name) for name, metrics in found.items() for row in metrics.items()), *own],
            "substitutes": {**stand_ins(self.job), **({} if self.output is None else self.output.substitutes())},
            # how the encoder below was trained: its budget is this row's too
            "notes": {
                **({} if self.output is None else self.output.notes()),
                "encoder": f"{self.backbone.entry.display_name}, {self.backbone.schedule}".removesuffix(", "),
                **in_use.note(folders),
            },
        }

    @classmethod
    def dialogue_rows(cls, options: Mapping[str, Any]) -> list[Any]:
        """The outputs F and V beside B."""
        return further_rows(options)

    def records(self) -> Cases:
        """Training records, by the split's training prefixes alone."""
        augment = self.options.ablation != "no_augmentation"
        return training_records(self.job.split.histories, self.job.split.train_ends, self.options.window, augment)

    # products

    def make_backbone(self, work: Path, done: dict[str, Path]) -> None:
        """Train the encoder, or find the plain baseline's."""
        seconds = self.backbone.trained[1]
        write_json(work / "backbone.json", {"model": self.options.backbone, "seconds": sum(seconds.values())})

    def make_utterances(self, work: Path, done: dict[str, Path]) -> None:
        """Opening utterances of training records and validation cases, and their vectors (stage 0b)."""
        for name, cases in (("records", self.records()), ("valid", self.job.split.valid)):
            rows, vectors = (
                in_use.said(self.job, self.forms, cases) if self.forms else self.job.words.distinct_vectors(cases)
            )
            check_vectors(vectors)
            _save(work / f"{name}_rows.npy", rows)
            _save(work / f"{name}_vectors.npy", vectors.astype(np.float32))

    def make_choice(self, work: Path, done: dict[str, Path]) -> None:
        """Which form succeeds soonest in dialogues about validation targets."""
        write_json(work / in_use.CHOSEN, in_use.chosen(self.job, self.load_trained(done), self.forms))

    def make_states(self, work: Path, done: dict[str, Path]) -> None:
        """States of records (without dropout, and one draw with it for each repeat) and of validation cases."""
        encoder, histories = self._encoder(), self._histories()
        length, pad_to = self.options.window - 1, self.options.pad_to
        records, split = self.records(), self.job.split
        for name, cases in (("clean", records), ("valid", split.valid)):
            _save(work / f"{name}.npy", encode_cases(encoder, histories, cases, length, pad_to, f"states: {name}"))
        _save(work / "items.npy", frozen_items(encoder))
        if self._draws_states():
            encoder.train()
            torch.manual_seed(self.job.recipe.seed)
            draws = [
                encode_cases(encoder, histories, records, length, pad_to, f"states: draw {number + 1}")
                for number in range(self.options.train_repeat)
            ]
            _save(work / "noisy.npy", torch.stack(draws))

    def make_intents(self, work: Path, done: dict[str, Path]) -> None:
        """K-means over the encoder's states of users (3)."""
        encoder, options = self._encoder(), self.options
        if options.intent_source == "backbone":
            own = getattr(encoder, "centroids", None)
            if own is None or len(own) != options.intents:
                raise BenchError(
                    f"latentcrs: the backbone has no {options.intents} centroids; set intent_source=recluster "
                    "or the same number of intents in backbone_options"
                )
            centroids = own.detach().cpu().numpy()
            if options.intent_normalise:
                centroids = centroids / np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
        else:
            length = int(getattr(encoder, "max_seq_length", 0) or self.backbone.job.training.max_length)
            states = pooled_states(encoder, self.job.split, self._histories(), length, options.intent_pool)
            centroids = cluster_states(states, options.intents, options.intent_normalise)
        _save(work / "intents.npy", centroids.astype(np.float32))

    def make_inference(self, work: Path, done: dict[str, Path]) -> None:
        """Stage 1: warm up q by its ranking loss; stop on the ranking by r, which reads no text."""
        inference = self.inference_net(done)
        em = self._em(inference, None, done)
        self._fit(
            work, em, em.warm_up_inference, {"inference": inference}, lambda: self._validate_q(inference, done), True
        )

    def make_generative(self, work: Path, done: dict[str, Path]) -> None:
        """Stage 2: warm up f and g with q frozen; stop on the ranking by h."""
        inference, generative = self.inference_net(done), self.generative_net(done)
        load_weights(done["inference"], {"inference": inference})
        if self.options.tie_value_map:
            tie_value_map(inference, generative)
        em = self._em(inference, generative, done)
        validate = self._validator(generative, done)
        self._fit(work, em, em.warm_up_generative, {"generative": generative}, validate, True)

    def make_ranking_only(self, work: Path, done: dict[str, Path]) -> None:
        """Ablation ``no_inference``: the generative net by its ranking loss, and nothing else."""
        generative = self.generative_net(done)
        em = self._em(None, generative, done)
        self._fit(work, em, em.ranking_only, {"generative": generative}, self._validator(generative, done), False)

    def make_output(self, work: Path, done: dict[str, Path]) -> None:
        """Nothing is trained: who reads and who verifies."""
        write_json(work / "output.json", self.output.substitutes() if self.output else {})

    def make_joint(self, work: Path, done: dict[str, Path]) -> None:
        """Stage 3: an E-pass and an M-pass in each epoch; stop on the ranking by h; keep the best pair."""
        inference, generative = self.inference_net(done), self.generative_net(done)
        load_weights(done["inference"], {"inference": inference})
        load_weights(done["generative"], {"generative": generative})
        if self.options.tie_value_map:
            tie_value_map(inference, generative)
        if self.options.stage3_intent_init == "from_generative":
            with torch.no_grad():
                inference.intents.copy_(generative.intents)
        self._fit_both(work, done, inference, generative, ExpectationMaximisation.joint)

    def make_direct(self, work: Path, done: dict[str, Path]) -> None:
        """Ablation ``direct_kl``: one loop over the sum of all losses, both networks from their start."""
        inference, generative = self.inference_net(done), self.generative_net(done)
        if self.options.tie_value_map:
            tie_value_map(inference, generative)
        self._fit_both(work, done, inference, generative, ExpectationMaximisation.direct)

    def _fit_both(
        self, work: Path, done: dict[str, Path], inference: InferenceNet, generative: GenerativeNet, batches: Any
    ) -> None:
        em, modules = self._em(inference, generative, done), {"inference": inference, "generative": generative}
        self._fit(work, em, MethodType(batches, em), modules, self._validator(generative, done), False)

    # networks

    def inference_net(self, done: dict[str, Path]) -> InferenceNet:
        """A fresh inference net on the start intents."""
        torch.manual_seed(self.job.recipe.seed)
        return self._with_encoder(InferenceNet(self._intents(done), self.options).to(self.job.device))

    def generative_net(self, done: dict[str, Path]) -> GenerativeNet:
        """A fresh generative net on the start intents."""
        torch.manual_seed(self.job.recipe.seed + 1)
        width = np.load(done["utterances"] / "records_vectors.npy", mmap_mode="r").shape[1]
        return self._with_encoder(GenerativeNet(self._intents(done), width, self.options).to(self.job.device))

    def _with_encoder(self, network: Any) -> Any:
        if self.options.train_encoder:
            network.encoder = copy.deepcopy(self._encoder()).requires_grad_(True)
        return network

    def _intents(self, done: dict[str, Path]) -> Tensor:
        return torch.from_numpy(np.load(done["intents"] / "intents.npy")).to(self.job.device)

    # training

    def _em(
        self, inference: InferenceNet | None, generative: GenerativeNet | None, done: dict[str, Path]
    ) -> ExpectationMaximisation:
        training = self.job.training.on(self.job.device)
        return ExpectationMaximisation(
            inference,
            generative,
            self._examples(done),
            self.options,
            training.batch_size,
            self.job.recipe.seed,
            w_rec=self.w_rec,
            w_e_rec=self.options.w_e_rec if generative is None else self.w_e_rec,
            together=training.steps_a_graph if self._takes_fixed_steps(training) else 1,
        )

    def _takes_fixed_steps(self, training: TrainingOptions) -> bool:
        return self.options.encoder_states != "live" and takes_fixed_steps(training, self.job.device)

    def _examples(self, done: dict[str, Path]) -> Examples:
        live = self._live_encoder if self.options.encoder_states == "live" else None
        return read_examples(self.job, self.options, self.records(), done, live)

    def _live_encoder(self, records: Cases) -> Callable[[Model | None, Tensor], Tensor]:
        histories, options = self._histories(), self.options
        frozen = self._encoder().train()

        def encode(encoder: Model | None, rows: Tensor) -> Tensor:
            places = rows.cpu().numpy()
            batch = histories.history_batch(records.users[places], records.ends[places], options.window - 1)
            return last_states(frozen if encoder is None else encoder, *batch, options.pad_to)

        return encode

    def _fit(
        self,
        work: Path,
        em: ExpectationMaximisation,
        batches: Callable,
        modules: dict[str, nn.Module],
        validate: Callable[[], float],
        warm_up: bool,
    ) -> None:
        training = self.job.training.on(self.job.device)
        if warm_up and self.options.warmup_epochs:
            training = dataclasses.replace(training, epochs=self.options.warmup_epochs)
        curves = Curves(work / "curves.json")

        def counted(epoch: int):
            curves.epoch = epoch
            yield from batches(epoch)

        def measured() -> float:
            value = validate()
            curves.add({**em.take_curves(), "validation": value})
            return value

        has_cases = len(self.job.split.valid) > 0
        with threads(2):  # the networks are so small that more would wait for each other longer than they work
            fit(
                counted,
                em.loss,
                modules,
                measured if has_cases else None,
                training,
                work,
                device=self.job.device,
                seed=self.job.recipe.seed,
                label=f"latentcrs: {batches.__name__.replace('_', ' ')}",
                fixed=self._takes_fixed_steps(training),
            )

    # validation

    def _validator(self, generative: GenerativeNet, done: dict[str, Path]) -> Callable[[], float]:
        device = self.job.device
        rows = torch.from_numpy(np.load(done["utterances"] / "valid_rows.npy")).to(device)
        vectors = torch.from_numpy(np.load(done["utterances"] / "valid_vectors.npy")).to(device)
        # A case without words is ranked by history alone.
        vectors = torch.cat([vectors, torch.zeros_like(vectors[:1])])

        def validate() -> float:
            states, items = self._valid_states(generative, done)
            query = generative.item_query(*generative(states, vectors, rows))
            return self._measure(query, generative.item_vectors(items), self.job.split.valid)

        return validate

    def _validate_q(self, inference: InferenceNet, done: dict[str, Path]) -> float:
        states, items = self._valid_states(inference, done)
        return self._measure(
            inference.item_query(inference(states)), inference.item_vectors(items), self.job.split.valid
        )

    def _valid_states(self, network: Any, done: dict[str, Path]) -> tuple[Tensor, Tensor]:
        """States of validation cases and the item table: kept ones, or those of the encoder that trains now."""
        if network.encoder is not None:
            return self._case_states(self.job.split.valid, network.encoder)
        states, items = (torch.from_numpy(np.load(done["states"] / f"{name}.npy")) for name in ("valid", "items"))
        return states.to(self.job.device), items.to(self.job.device)

    def _case_states(self, cases: Cases, encoder: Model | None) -> tuple[Tensor, Tensor]:
        """By an encoder, or by the frozen one."""
        encoder = encoder or self._encoder()
        length, pad_to = self.options.window - 1, self.options.pad_to
        return encode_cases(encoder, self._histories(), cases, length, pad_to), frozen_items(encoder)

    def _measure(self, query: Tensor, items: Tensor, cases: Cases) -> float:
        metric = self.job.training.validate_metric
        return measure(self.job, query, items, cases, (metric,), (), candidates="all")[metric]

    def _key(self, *groups: tuple[str, ...]) -> dict[str, Any]:
        return {name: getattr(self.options, name) for group in groups for name in group}

    def _encoder(self) -> Model:
        return trained_encoder(self.backbone)

    def _histories(self) -> DeviceHistories:
        return DeviceHistories(self.job.split.histories, self.job.device)

    def _draws_states(self) -> bool:
        return self.options.encoder_dropout_in_train and self.options.encoder_states == "cached"


def _save(path: Path, values: np.ndarray | Tensor) -> None:
    write_array(path, values.detach().cpu().numpy() if isinstance(values, Tensor) else values)
