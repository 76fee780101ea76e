"""One bench cell from recipe to run record."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recllm_bench import __version__, plugins
from recllm_bench.artifacts import ArtifactStore, content_hash
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.protocols import Protocol, protocol_named
from recllm_bench.locations import cache_folder, results_folder
from recllm_bench.options import read_options
from recllm_bench.planning import reads_text, resolved
from recllm_bench.progress import log, log_to
from recllm_bench.recipe import Recipe, recipe_from


def default_store() -> ArtifactStore:
    """The artifact store of this machine."""
    return ArtifactStore(cache_folder() / "artifacts")


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


def run_cell(recipe: Recipe, label: str = "", *, store: ArtifactStore | None = None, again: bool = False) -> Path:
    """Run one cell and return the folder of its record; a finished record is reused.

    Parameters
    ----------
    recipe : Recipe
        What to run, resolved.
    label : str
        Name of the row where the model's display name does not serve.
    store : ArtifactStore, optional
        Where products are kept.
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
    from recllm_bench.data.prepare import prepare
    from recllm_bench.data.splits import split_named
    from recllm_bench.reporting import records

    store = store or default_store()
    protocol = protocol_named(recipe.protocol)
    dataset = prepare(recipe.dataset, filter=protocol.filter, store=store)
    split = split_named(protocol.split, dataset.histories, **dict(protocol.split_params))
    name = label or plugins.display_name(recipe.model)
    key = {
        "recipe": recipe.hash(),
        "label": name,
        "split": split.checksum,
        "protocol": protocol.fingerprint(),
        "version": __version__,
    }
    stem = f"{recipe.model}-{Path(recipe.dataset).name}-{recipe.protocol}".lower().replace(":", "-").replace("/", "-")
    folder = results_folder() / "runs" / f"{stem}-{content_hash(key, 10)}"
    if (folder / "run.json").exists() and not again:
        return folder
    records.check_writable(folder.parent)
    with log_to(folder.with_name(f".{folder.name}.log.jsonl")):
        return _Cell(recipe, name, protocol, dataset, split, store).run(folder)


class _Cell:
    """The steps of one cell, sharing what they need."""

    def __init__(self, recipe: Recipe, name: str, protocol: Protocol, dataset, split, store: ArtifactStore) -> None:
        self.recipe, self.name, self.protocol = recipe, name, protocol
        self.dataset, self.split, self.store = dataset, split, store
        self.device = device_named(recipe.device)
        self.own = plugins.model_kind(recipe.model) == "own"
        self.model_class = plugins.resolve("models", recipe.model)
        self._simulator = None
        self._encoder_facts: dict[str, Any] = {}
        self.job = self._job()

    def run(self, folder: Path) -> Path:
        from recllm_bench.evaluation.candidates import evaluated_cases, protocol_candidates
        from recllm_bench.evaluation.ranks import rank_cases
        from recllm_bench.reporting import records

        start = time.perf_counter()
        log.info(f"{self.name} on {self.dataset.name} ({self.recipe.protocol}, seed {self.recipe.seed})")
        model, stages, folders = self.train()
        cases = evaluated_cases(self.split.test, self.protocol)
        columns = self.model_class.case_columns(self.job, cases) if hasattr(self.model_class, "case_columns") else None
        candidates = protocol_candidates(self.protocol, self.split, cases, self.store)
        before = time.perf_counter()
        ranks = rank_cases(
            model,
            self.split,
            cases,
            self.protocol,
            columns=columns,
            candidates=candidates,
            max_length=self._history_length(model),
            device=self.device,
            top=max(self.protocol.cutoffs),
        )
        evaluation_seconds = time.perf_counter() - before
        outcomes = self._dialogues(model)
        report = self._report(folders)
        record = records.make_record(
            name=self.name,
            recipe=self.recipe,
            block="text" if reads_text(self.model_class) else "history",
            dataset=self.dataset,
            protocol=self.protocol,
            split=self.split,
            ranks=ranks,
            outcomes=outcomes,
            stages=stages,
            evaluation_seconds=evaluation_seconds,
            measures=report["measures"],
            tokens=report["tokens"],
            notes=[*self._notes(folders), *(f"{key}: {value}" for key, value in report["notes"].items())],
            curves=_curves(folders),
            candidates=candidates,
            # What a method reports as empty had no part in it.
            substitutes={what: who for what, who in {**self._substitutes(), **report["substitutes"]}.items() if who},
            device=str(self.device),
        )
        log.info(f"{self.name}: done in {time.perf_counter() - start:.1f} s")
        journal = folder.with_name(f".{folder.name}.log.jsonl")
        return records.write_record(folder, record, ranks, outcomes, journal, self._transcripts(outcomes))

    def _job(self):
        from recllm_bench.training.options import TrainingOptions
        from recllm_bench.training.stages import Job

        where = f"{self.recipe.model} on {self.recipe.dataset}"
        defaults = dict(getattr(self.model_class, "training_defaults", {}))
        training = read_options(TrainingOptions, {**defaults, **self.recipe.training}, f"{where}: training")
        options: Any = dict(self.recipe.options)
        if self.own and hasattr(self.model_class, "Options"):
            options = read_options(self.model_class.Options, options, f"{where}: options")
        talk = self.recipe.conversation
        return Job(
            recipe=self.recipe,
            dataset=self.dataset,
            split=self.split,
            protocol=self.protocol,
            store=self.store,
            device=self.device,
            options=options,
            training=training,
            speak=self._speak,
            encode=self._encode,
            feedback=self._feedback,
            text_key={
                "simulator": talk.simulator,
                "encoder": talk.encoder,
                "template": talk.template,
                "pooling": talk.pooling,
            },
        )

    def train(self) -> tuple[Any, dict[str, float], dict[str, Path]]:
        from recllm_bench.training.single import single_stage
        from recllm_bench.training.stages import run_stages

        kind = self.recipe.model.lower().replace(":", "-").replace(".", "-")
        if hasattr(self.model_class, "stages"):
            stages = self.model_class.stages(self.job)
            folders, seconds = run_stages(self.job, stages, kind)
            model = self.model_class.load(self.job, folders)
        else:
            single = single_stage(self.job, self.recipe.model if not self.own else self.model_class)
            folders, seconds = run_stages(self.job, [single.stage], kind)
            model = single.load(folders)
        return model.eval() if hasattr(model, "eval") else model, seconds, folders

    def _notes(self, folders: Mapping[str, Path]) -> list[str]:
        """What must be said beside the numbers: the recipe's budget, and a stage that ran out of time."""
        notes = [self.recipe.budget] if self.recipe.budget else []
        for name, facts in _outcomes(folders).items():
            if facts.get("stopped_by") == "budget":
                notes.append(f"{name}: stopped by its budget after {facts['epochs']} epochs")
        return notes

    def _history_length(self, model: Any) -> int:
        return int(getattr(model, "history_length", 0) or self.job.training.max_length)

    def _profiles(self, users, ends, targets):
        from recllm_bench.conversation.profile import build_profiles

        return build_profiles(self.dataset.catalogue, self.dataset.histories, users, ends, targets)

    def _speaker(self, seed: int | None = None):
        from recllm_bench.conversation.simulators import simulator_named

        return simulator_named(
            self.recipe.conversation.simulator, self.dataset.catalogue, seed=self.recipe.seed if seed is None else seed
        )

    def _speak(self, users, ends, targets, seed: int) -> list[str]:
        return [text or "" for text in self._speaker(seed).open(self._profiles(users, ends, targets))]

    def _feedback(self, spec: str, facts: int):
        from recllm_bench.conversation.feedback import feedback_named

        return feedback_named(spec, self.dataset.catalogue, seed=self.recipe.seed, facts=facts)

    def _encode(self, texts: Sequence[str]):
        from recllm_bench.language.vectors import text_vectors

        talk = self.recipe.conversation
        return text_vectors(
            talk.encoder, texts, self.store, template=talk.template, pooling=talk.pooling, device=self.device
        )

    def _dialogues(self, model: Any):
        """Play the multi-turn conversations, when the recipe asks for them and the model can talk.

        The control with another user's words has none: its dialogues would be those of the model itself.
        """
        talk = self.recipe.conversation
        if not talk.users or talk.shuffle_utterances or not hasattr(model, "respond"):
            return None
        from recllm_bench.conversation.loop import run_dialogues
        from recllm_bench.evaluation.candidates import evaluated_cases

        job = self.talking_job()
        rules = job.protocol
        wanted = min(talk.users, self.dataset.histories.n_users)
        cases = evaluated_cases(self.split.test, dataclasses.replace(rules, users=wanted))
        return run_dialogues(
            lambda dialogues: model.respond(job, dialogues),
            self._speaker(),
            self._profiles(cases.users, cases.ends, cases.targets),
            cases,
            self.dataset.histories,
            self.dataset.catalogue,
            max_turns=rules.turns,
            shown_per_turn=rules.shown_per_turn,
        )

    def talking_job(self):
        """The job under a protocol that has turns: its own, or the published one for dialogues."""
        rules = self.protocol if self.protocol.turns else protocol_named("latentcrs.multi_turn")
        return dataclasses.replace(self.job, protocol=rules)

    def _transcripts(self, outcomes: Any) -> dict[str, Callable[[Path], None]]:
        """The dialogues as a file for people to read."""
        if outcomes is None:
            return {}
        from recllm_bench.conversation.loop import write_transcripts

        return {"dialogues.jsonl": lambda path: write_transcripts(path, outcomes, self.dataset.catalogue)}

    def _report(self, folders: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
        """What the method says beside its ranking: measures, tokens, notes, and what stood in for the paper's parts."""
        said = self.model_class.report(self.job, folders) if hasattr(self.model_class, "report") else {}
        return {key: dict(said.get(key) or {}) for key in ("measures", "tokens", "notes", "substitutes")}

    def _substitutes(self) -> dict[str, str]:
        if not reads_text(self.model_class):
            return {}
        talk = self.recipe.conversation
        return {"simulator": talk.simulator, "text encoder": talk.encoder}


def _outcomes(folders: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """``outcome.json`` of every stage that trained something."""
    paths = {name: folder / "outcome.json" for name, folder in folders.items()}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def _curves(folders: Mapping[str, Path]) -> dict[str, list[list[float]]]:
    """Validation curves: for each stage rows of (epoch, metric)."""
    curves = {}
    for name, facts in _outcomes(folders).items():
        points = [[entry["epoch"], entry["validation"]] for entry in facts["history"] if "validation" in entry]
        if points:
            curves[name] = points
    return curves


def run_cells(recipes: Sequence[tuple[str, Recipe]], *, again: bool = False) -> list[Path]:
    """Run the cells of a comparison one after the other and return their records' folders."""
    store = default_store()
    return [run_cell(recipe, label, store=store, again=again) for label, recipe in recipes]


def evaluate_checkpoint(model: str, checkpoint: Path, dataset: str, protocol_name: str, device: str) -> str:
    """Evaluate a released checkpoint and return its metrics as text.

    Raises
    ------
    BenchError
        When the file is missing, is no checkpoint of that model, or its item table does not fit the dataset.
    """
    from recllm_bench.data.prepare import prepare
    from recllm_bench.data.splits import split_named
    from recllm_bench.evaluation.metrics import per_user
    from recllm_bench.evaluation.ranks import rank_cases

    protocol = protocol_named(protocol_name)
    prepared = prepare(dataset, filter=protocol.filter, store=default_store())
    split = split_named(protocol.split, prepared.histories, **dict(protocol.split_params))
    model_class = plugins.resolve("models", model)
    if not hasattr(model_class, "load_released"):
        raise BenchError(f"{model} cannot read released checkpoints; a model that can has 'load_released'")
    place = device_named(device)
    network = model_class.load_released(checkpoint, n_items=prepared.histories.n_items).to(place).eval()
    ranks = rank_cases(network, split, split.test, protocol, max_length=network.history_length, device=place)
    values = per_user(ranks, protocol.metrics, protocol.cutoffs, protocol.ties)
    lines = [f"{checkpoint.name} on {prepared.name}: {protocol.name}, {len(split.test):,} users"]
    lines += [f"  {name:<9} {column.mean():.4f}" for name, column in values.items()]
    return "\n".join(lines)


def chat(values: Mapping[str, Any], where: str, user: int) -> None:
    """Talk with a conversational model on the terminal, as one of the dataset's users.

    Raises
    ------
    BenchError
        When the model does not converse, or there is no such user.
    """
    from recllm_bench.conversation.loop import Dialogue
    from recllm_bench.data.prepare import prepare
    from recllm_bench.data.splits import split_named

    recipe = resolved(recipe_from({key: value for key, value in values.items() if key != "compare"}, where))
    protocol = protocol_named(recipe.protocol)
    store = default_store()
    dataset = prepare(recipe.dataset, filter=protocol.filter, store=store)
    split = split_named(protocol.split, dataset.histories, **dict(protocol.split_params))
    cell = _Cell(recipe, plugins.display_name(recipe.model), protocol, dataset, split, store)
    if not hasattr(cell.model_class, "respond"):
        raise BenchError(f"{recipe.model} does not converse; try latentcrs")
    if not 1 <= user <= dataset.histories.n_users:
        raise BenchError(f"--user {user}: {dataset.name} has users 1 to {dataset.histories.n_users}")
    model, _, _ = cell.train()
    job = cell.talking_job()
    titles = dataset.catalogue.titles
    history = dataset.histories.of(user)
    print(f"user {user} likes: " + "; ".join(titles[item] for item in history[-5:]))
    print("say what you are looking for; an empty line ends")
    dialogue = Dialogue(user=user, history=history, messages=[], shown=[])
    while sentence := input("> ").strip():
        dialogue.messages.append(("user", sentence))
        answer = model.respond(job, [dialogue])[0]
        dialogue.shown.extend(answer.items)
        dialogue.messages.append(("assistant", answer.say))
        for number, item in enumerate(answer.items, 1):
            print(f"  {number}. {dataset.catalogue.text(item)}")
