"""A method: one object for one job, from training to what stands beside the ranking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from recllm_bench.api.words import Undeclared, Words
from recllm_bench.artifacts import ArtifactStore
from recllm_bench.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class Stage:
    """One step of a method, with an artifact as its product.

    Attributes
    ----------
    name : str
        Shown to the user and used in later stages' ``done`` mapping.
    key : mapping
        The options the product depends on, beside the dataset, the split, the seed and the stages before it.
    make : callable
        ``make(work, done)`` fills the folder ``work``; ``done`` maps earlier stages' names to their folders.
        Called again after a kill with what it left in ``work``.
    needs : tuple of str
        Earlier stages the product depends on; by default all of them.
    """

    name: str
    key: Mapping[str, Any]
    make: Callable[[Path, dict[str, Path]], None]
    needs: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Job:
    """Everything a method may use.

    Attributes
    ----------
    recipe : Recipe
        What is run.
    dataset : recllm_bench.data.prepared.PreparedDataset
        Catalogue, histories, reviews.
    split : recllm_bench.data.splits.Split
        Training prefixes (``train_ends``), validation and test cases.
    protocol : recllm_bench.evaluation.protocols.Protocol
        How it is measured.
    store : ArtifactStore
        Where products are kept.
    device : torch.device
        Where tensors live.
    options : object
        The model's ``Options`` (a dict for RecBole's zoo).
    training : recllm_bench.training.training_options.TrainingOptions
        Options of the training loop.
    encode : callable
        ``encode(texts) -> float32 [n, width]``: the run's text encoder.
    encoder_key : mapping
        What decides its vectors, for the keys of stages.
    words : Words
        What simulated users say; any use of it is refused where the model does not declare ``reads_words``.
    code : mapping
        What code, libraries and threads train the model: part of the key of every stage.
    """

    recipe: Recipe
    dataset: Any
    split: Any
    protocol: Any
    store: ArtifactStore
    device: torch.device
    options: Any
    training: Any
    encode: Callable[[Sequence[str]], np.ndarray]
    encoder_key: Mapping[str, Any] = field(default_factory=dict)
    words: Words | Undeclared = field(default_factory=lambda: Undeclared("this model"))
    code: Mapping[str, Any] = field(default_factory=dict)


class Method:
    """What is trained for a model, how it is loaded, and what it tells beside its ranking.

    The methods of one object share what they build. A model without a method of its own has
    :class:`recllm_bench.training.single.SingleStage`: build, train, keep the best epoch.

    Parameters
    ----------
    job : Job
        What is run.
    """

    model: ClassVar[type]
    """The RecBole recommender that :meth:`load` returns; its class attributes are the declarations."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def stages(self) -> list[Stage]:
        """Stages in order; each one's product is made once and shared by all runs that need the same."""
        raise NotImplementedError(f"{type(self).__name__} defines no stages()")

    def check(self) -> None:
        """Name what would stop a run that :meth:`stages` does not see, before anything is trained.

        Such as a chat model that is asked late, by :func:`recllm_bench.language.chat.check_chat`, and what a method
        inside this one needs.
        """

    def load(self, folders: Mapping[str, Path]) -> Any:
        """The model from its finished stages, on the job's device, in evaluation mode."""
        raise NotImplementedError(f"{type(self).__name__} defines no load()")

    def columns(self, cases: Any, words: Words | Undeclared) -> dict[str, np.ndarray]:
        """Further columns ``[n, ...]`` of ranking cases, for ``query_vectors`` and ``full_sort_predict``.

        Parameters
        ----------
        cases : recllm_bench.data.splits.Cases
            Users, ends of histories and targets; the targets are zero for a model that reads no words.
        words : Words
            What the users of these cases say: their own words, or those of a control. A method uses these and not
            ``job.words`` here.

        Returns
        -------
        dict
            By default ``utterance_vector float32 [n, width]`` for a reader of words, else nothing.
        """
        return {"utterance_vector": words.opening_vectors(cases)} if getattr(self.model, "reads_words", False) else {}

    def report(self, folders: Mapping[str, Path]) -> dict[str, Any]:
        """What belongs beside the ranking, after :meth:`columns`: ``measures``, ``substitutes``, ``tokens``, ``notes``.

        ``substitutes`` names what stood in for a part of the paper; an empty name takes one of the run's own out.
        """
        return {}

    def happened(self) -> Sequence[Sequence[Mapping[str, Any]]]:
        """Rounds of each case of the last :meth:`columns`, for ``recllm-bench show``; by default there are none.

        A round may have ``shown`` (an item), ``said``, ``accepted``, ``masked`` and ``history`` (lists of items: what
        was left out, what the next ranking reads), ``higher`` and ``tied`` (the target's place after it, as in
        ``Ranks``). Where it has a first entry of round 0, that is what stood before anything was said.
        """
        return ()

    def speaker_key(self, words: Words) -> Mapping[str, Any]:
        """Who speaks to a reader of words: rows that hear others are not compared with it."""
        return words.speaker_key

    def history_encoder(self) -> Any:
        """What ranks from histories alone, for a method that reads words; None where there is no such part."""
        return None

    @classmethod
    def comparison_rows(cls, options: Mapping[str, Any]) -> list[Any] | None:
        """Rows to compare with where a recipe names none; None takes the bench's baselines."""
        return None

    @classmethod
    def dialogue_rows(cls, options: Mapping[str, Any]) -> list[Any]:
        """Further rows to compare with under a protocol that has turns, such as the method's other outputs."""
        return []
