"""Recommenders below CESRec, behind one narrow interface: histories in, scores out. None of them sees a word."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from recllm_bench import plugins
from recllm_bench.data.splits import Split
from recllm_bench.data.windows import DeviceHistories, training_windows
from recllm_bench.errors import BenchError
from recllm_bench.locations import resource
from recllm_bench.options import read_options
from recllm_bench.recbole_bridge import interaction
from recllm_bench.recipe import read_recipe_file
from recllm_bench.training.options import TrainingOptions
from recllm_bench.training.stages import Job, run_stages

_SCORES_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Scores of one block of users over the whole catalogue."""


class Backend(Protocol):
    """A recommender that scores histories.

    Attributes
    ----------
    name : str
        As its recipe names it.
    history_length : int
        Most items it reads, the newest ones.
    """

    name: str
    history_length: int

    def score(self, item_seq: Tensor, lengths: Tensor, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Scores ``[B, C]`` of candidates ``[B, C]``, or ``[B, n_items + 1]`` of all ids.

        Parameters
        ----------
        item_seq : int64 [B, L]
            Right-padded, ``L <= history_length``.
        lengths : int64 [B]
            At least 1.
        users : int64 [B]
            For recommenders with user tokens.
        candidates : int64 [B, C], optional
        """

    def item_vectors(self) -> Tensor:
        """Its item table, ``[n_items + 1, d_r]``, without gradient; the padding row is zero."""

    def weights_hash(self) -> str:
        """SHA-256 of its weights, hexadecimal: equal before and after CESRec."""


class TrainedBackend:
    """A trained model of the bench or of RecBole's zoo as a back end.

    Parameters
    ----------
    name : str
        Shown in messages.
    model : Module
        In evaluation mode; never changed here.
    n_items : int
        Items of the dataset, padding not counted.
    history_length : int
        Most items it reads.
    device : torch.device
        Where it lies.
    """

    def __init__(
        self, name: str, model: nn.Module, n_items: int, history_length: int, device: torch.device | str = "cpu"
    ) -> None:
        self.name, self.model, self.n_items, self.history_length = name, model, n_items, history_length
        self.device = torch.device(device)
        self._vectors: Tensor | None = None

    @property
    def query(self) -> Callable[[Mapping[str, Tensor]], Tensor] | None:
        """A batch's query vectors ``[B, d]``, or None when scores are no dot products."""
        model = self.model
        if not hasattr(model, "item_vectors"):
            return None
        if hasattr(model, "query_vectors"):
            return model.query_vectors
        return self._last_states if hasattr(model, "sequence_states") else None

    def scored_vectors(self) -> Tensor:
        """Item side of the dot products, ``[n_items + 1, d]``, as the model gives it."""
        if self._vectors is not None:
            return self._vectors
        with torch.inference_mode():
            vectors = self.model.item_vectors()[: self.n_items + 1].float()
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            self._vectors = vectors  # the model will not change any more
        return vectors

    @torch.inference_mode()
    def score(self, item_seq: Tensor, lengths: Tensor, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """See :class:`Backend`."""
        batch = {"user_id": users, "item_id_list": item_seq, "item_length": lengths}
        query = self.query
        if query is None:
            scores = self.model.full_sort_predict(interaction(batch)).float().reshape(len(users), -1)
            scores = scores[:, : self.n_items + 1]
            return scores if candidates is None else scores.gather(1, candidates)
        states, vectors = query(batch).float(), self.scored_vectors()
        if candidates is None:
            return states @ vectors.T
        # As in the evaluator: one product and one sum for each pair, in one order, so that equal vectors tie.
        return (states[:, None, :] * vectors[candidates]).sum(-1)

    def rows_at_once(self, width: int) -> int:
        """Histories scored at once when each has ``width`` scores."""
        most = _SCORES_AT_ONCE.get(self.device.type, _SCORES_AT_ONCE["cpu"])
        return max(1, min(1024, most // max(1, width)))

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """See :class:`Backend`.

        Raises
        ------
        BenchError
            When the model has no vector for each item.
        """
        model = self.model
        if hasattr(model, "item_vectors"):
            table = model.item_vectors()
        else:
            table = getattr(getattr(model, "item_embedding", None), "weight", None)
        if table is None or table.dim() != 2 or len(table) <= self.n_items:
            raise BenchError(
                f"cesrec: backend {self.name} has no vector for each item to align with; set use_masking=false and "
                "replace_with=target, or choose another backend"
            )
        table = table[: self.n_items + 1].detach().float().clone()
        table[0] = 0
        return table

    @torch.no_grad()
    def contextual_vectors(self, split: Split) -> Tensor:
        """Mean state behind each item over the training windows, ``[n_items + 1, d_r]``.

        An item that no training window holds has the vector of the item table.

        Raises
        ------
        BenchError
            When the model has no states at all positions, or they are not as long as its item vectors.
        """
        table = self.item_vectors()
        if not hasattr(self.model, "sequence_states"):
            raise BenchError(f"cesrec: backend {self.name} has no state behind each item; set collab_source=item_table")
        windows = training_windows(split.histories, split.train_ends, self.history_length)
        histories = DeviceHistories(split.histories, self.device)
        sums = counts = None
        for start in range(0, len(windows), 256):
            rows = np.arange(start, min(start + 256, len(windows)))
            batch = histories.window_batch(windows, rows, self.history_length)
            inside = batch.inputs > 0
            states = self.model.sequence_states(batch.inputs, batch.lengths)[inside].float()
            if sums is None:
                sums, counts = states.new_zeros(len(table), states.shape[1]), states.new_zeros(len(table))
            sums.index_add_(0, batch.inputs[inside], states)
            counts.index_add_(0, batch.inputs[inside], torch.ones_like(states[:, 0]))
        if sums is None or sums.shape[1] != table.shape[1]:
            raise BenchError(f"cesrec: states of backend {self.name} are no item vectors; set collab_source=item_table")
        return torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], table)

    def weights_hash(self) -> str:
        """See :class:`Backend`; covers all parameters and stored buffers."""
        digest = hashlib.sha256()
        for key, value in sorted(self.model.state_dict().items()):
            flat = value.detach().contiguous().cpu()
            digest.update(f"{key} {flat.dtype} {tuple(flat.shape)};".encode())
            digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
        return digest.hexdigest()

    def _last_states(self, batch: Mapping[str, Tensor]) -> Tensor:
        states = self.model.sequence_states(batch["item_id_list"], batch["item_length"])
        return states[torch.arange(len(states), device=states.device), batch["item_length"] - 1]


@dataclasses.dataclass(frozen=True)
class BackendCell:
    """A back end's own cell: its recipe on the same data, split and seed, with the changes asked for.

    Its artifacts are those of the plain row of the same name, so nothing is trained twice.
    """

    job: Job
    model_class: type
    name: str

    @property
    def kind(self) -> str:
        """Artifact family, as for the model's own row."""
        return self.name.lower().replace(":", "-").replace(".", "-")

    def key(self) -> dict[str, Any]:
        """What the trained back end depends on, beside data, split and seed."""
        stages = [{"stage": stage.name, "key": dict(stage.key)} for stage in self._stages()]
        return {"model": self.name, "stages": stages, "history_only": self._hears}

    def train(self) -> tuple[dict[str, Path], float]:
        """Train it unless it exists; returns its folders and the seconds it took when it was made."""
        if self._hears:
            self.load()
            return {}, 0.0
        folders, seconds = run_stages(self.job, self._stages(), self.kind)
        return folders, sum(seconds.values())

    def load(self) -> TrainedBackend:
        """The trained back end in evaluation mode on the job's device."""
        job = self.job
        if self._hears:
            model = self.model_class.history_encoder(job)
        else:
            folders, _ = self.train()
            model = self.model_class.load(job, folders) if self._is_pipeline else self._single().load(folders)
        model = model.to(job.device).eval().requires_grad_(False)
        length = int(getattr(model, "history_length", 0) or 0)
        if self._hears:  # the encoder of a method that hears words: its own length, not that of the method
            length = length or int(getattr(model, "max_seq_length", 0) or 0)
        length = length or job.training.max_length
        return TrainedBackend(self.name, model, job.split.histories.n_items, length, job.device)

    @property
    def _is_pipeline(self) -> bool:
        return hasattr(self.model_class, "stages")

    @property
    def _hears(self) -> bool:
        return "text" in getattr(self.model_class, "needs", ())

    def _single(self) -> Any:
        from recllm_bench.training.single import single_stage

        zoo = plugins.model_kind(self.name) == "zoo"
        return single_stage(self.job, self.name if zoo else self.model_class)

    def _stages(self) -> list[Any]:
        return self.model_class.stages(self.job) if self._is_pipeline else [self._single().stage]


def backend_cell(
    job: Job, name: str, options: Mapping[str, Any] | None = None, training: Mapping[str, Any] | None = None
) -> BackendCell:
    """Describe the back end of a job.

    Parameters
    ----------
    job : Job
        CESRec's; data, split, seed, device and store are taken from it.
    name : str
        Any model that scores histories.
    options, training : mapping, optional
        Changes to the back end's own recipe.

    Raises
    ------
    BenchError
        For an unknown model, wrong options, or a model that needs words to rank.
    """
    model_class = plugins.resolve("models", name)
    name = plugins.canonical_name(name)
    hears = "text" in getattr(model_class, "needs", ())
    if hears and not hasattr(model_class, "history_encoder"):
        raise BenchError(
            f"cesrec: backend {name} ranks by what users say, and a back end sees histories alone; use sasrec, "
            "GRU4Rec, iclrec or relrec"
        )
    values = _own_recipe(name, job.recipe.dataset)
    own = {**(values.get("options") or {}), **(options or {})}
    trained = {**getattr(model_class, "training_defaults", {}), **(values.get("training") or {}), **(training or {})}
    where = f"backend {name} of cesrec"
    zoo = plugins.model_kind(name) == "zoo"
    typed = own if zoo or not hasattr(model_class, "Options") else read_options(model_class.Options, own, where)
    recipe = dataclasses.replace(job.recipe, model=name, options=own, training=dict(trained), budget="")
    inner = dataclasses.replace(
        job, recipe=recipe, options=typed, training=read_options(TrainingOptions, trained, f"{where}: training")
    )
    return BackendCell(inner, model_class, name)


def backend_for(job: Job, name: str) -> TrainedBackend:
    """A trained back end by name, through its own recipe; trained now where no run has trained it before."""
    return backend_cell(job, name).load()


def _own_recipe(name: str, dataset: str) -> dict[str, Any]:
    stem = f"{name.lower().replace(':', '-')}-{dataset}"
    return read_recipe_file(stem) if (resource("recipes") / f"{stem}.yaml").exists() else {}


def write_facts(path: Path, cell: BackendCell, backend: TrainedBackend, seconds: float) -> None:
    """What a record says of a back end: its name, its hash, what its training took."""
    from recllm_bench.artifacts import write_json

    facts = {"name": cell.name, "sha256": backend.weights_hash(), "trained_seconds": round(seconds, 3)}
    write_json(path, {**facts, "history_length": backend.history_length})


def read_facts(path: Path) -> dict[str, Any]:
    """What :func:`write_facts` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))
