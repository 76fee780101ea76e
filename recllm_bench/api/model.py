"""What a model can do beside what RecBole asks of it: declarations and capabilities.

A model subclasses a RecBole abstract recommender (``__init__(config, dataset)``, ``calculate_loss``, ``predict``,
``full_sort_predict``). Everything below is optional. A capability is had by defining its methods, under exactly these
names: :func:`recllm_bench.api.check` refuses near-misses whenever a class is resolved.

Shapes: ``B`` rows, ``L`` positions, ``d`` width, ``n`` items; item ids are ``1..n``, 0 is padding, on the right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


class Declarations(Protocol):
    """Class attributes.

    Attributes
    ----------
    Options : type
        Frozen dataclass of :func:`recllm_bench.options.option` fields; the class reads them from its configuration with
        :func:`recllm_bench.options.options_from_config`.
    display_name : str
        What tables call the model; by default the name of the class.
    reads_words : bool
        Whether the model reads what simulated users say. Words are made from the target, so they reach no class that
        does not declare this, and the declaration decides the block of the table.
    reads_facts : bool
        Whether the model is handed the facts behind the words too: a ceiling, no system that could be built.
    default_protocol : str
        Protocol where none is asked for; by default ``unified.full``.
    training_defaults : mapping
        Values of the training loop's options.
    history_length : int
        Set by ``__init__``: items of a history that the model reads; by default ``training.max_length``.
    """

    Options: ClassVar[type]
    display_name: ClassVar[str]
    reads_words: ClassVar[bool]
    reads_facts: ClassVar[bool]
    default_protocol: ClassVar[str]
    training_defaults: ClassVar[Mapping[str, Any]]
    history_length: int


class CausalEncoder(Protocol):
    """One pass gives the state of every position: training at all positions, ranking by matrix products."""

    def sequence_states(self, item_seq: Tensor, lengths: Tensor) -> Tensor:
        """States ``float [B, L, d]`` of ``item_seq int64 [B, L]``; position ``i`` depends on nothing after it."""
        ...

    def item_vectors(self) -> Tensor:
        """Item side of the scores, ``float [n + 1, d]``; row 0 is padding."""
        ...


class QueryEncoder(Protocol):
    """Scores are dot products, but the query needs more than the history."""

    def query_vectors(self, batch: Any) -> Tensor:
        """Queries ``float [B, d]`` of a mapping with ``user_id [B]``, ``item_id_list [B, L]``, ``item_length [B]`` and
        the columns that the model's method made of the cases (``utterance_vector`` for a reader of words).
        """
        ...

    def item_vectors(self) -> Tensor:
        """Item side of the scores, ``float [n + 1, d]``; row 0 is padding."""
        ...


class OwnLoss(Protocol):
    """A loss over windows in place of an objective of the training loop."""

    def training_loss(self, batch: Any, generator: Generator) -> Tensor:
        """Scalar loss of a :class:`recllm_bench.data.windows.WindowBatch`; chance comes from ``generator`` alone."""
        ...


class PreparesEpochs(Protocol):
    """Something to refresh before an epoch, such as clusters."""

    def before_epoch(self, epoch: int, context: Any) -> None:
        """``context`` is a :class:`recllm_bench.training.sequence.EpochContext`; ``epoch`` counts from 1."""
        ...


class WritesProducts(Protocol):
    """Files beside the weights of a finished training."""

    def write_products(self, work: Path) -> None:
        """Write them into the folder ``work``."""
        ...


class Converses(Protocol):
    """Recommends in dialogues; a class that does declares ``reads_words`` too."""

    def respond(self, job: Any, dialogues: Sequence[Any]) -> list[Any]:
        """One :class:`recllm_bench.conversation.dialogue.Response` for each ``Dialogue``, all as one batch.

        It recommends (``items``), asks (``ask`` names a kind of fact, ``say`` holds the question), or both.
        """
        ...


class PaddedStates(Protocol):
    """States at padding positions too, as some released code averages over them."""

    def padded_states(self, item_seq: Tensor) -> Tensor:
        """States ``float [B, L, d]`` of left-padded histories ``int64 [B, L]``."""
        ...


class ReadsReleases(Protocol):
    """Released checkpoints of the authors can be evaluated."""

    @classmethod
    def load_released(cls, path: Path, n_items: int) -> Any:
        """The model from a checkpoint; its item table must fit ``n_items``."""
        ...


if TYPE_CHECKING:

    class Model(nn.Module, CausalEncoder, QueryEncoder, PaddedStates):
        """A trained model, for type checkers: which of the capabilities it has, ``hasattr`` tells."""

        max_seq_length: int

        def calculate_loss(self, interaction: Any) -> Tensor:
            """RecBole's own."""
            ...

        def full_sort_predict(self, interaction: Any) -> Tensor:
            """RecBole's own: scores ``float [B, n + 1]``."""
            ...


CAPABILITIES = (
    CausalEncoder,
    QueryEncoder,
    OwnLoss,
    PreparesEpochs,
    WritesProducts,
    Converses,
    PaddedStates,
    ReadsReleases,
)
