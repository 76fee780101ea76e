"""RecBole's models and ours, made the way RecBole makes them."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.errors import BenchError
from recllm_bench.recbole_bridge.configuration import class_of, is_zoo, model_config
from recllm_bench.recbole_bridge.shims import load_recbole, quietly

if TYPE_CHECKING:
    import torch

    from recllm_bench.data.histories import Histories

_LACKING = {
    "GRU4RecKG": "a knowledge graph",
    "KSR": "a knowledge graph",
    "LDiffRec": "a file of pre-trained item vectors",
    "S3Rec": "a separate pre-training run in RecBole",
}
_FEATURE_MODELS = {"GRU4RecF", "SASRecF", "FDSA"}
_READS_ALL_PREFIXES = {"FEARec"}  # samples other rows with the same target from dataset.inter_feat


def training_dataset(
    dataset_name: str,
    histories: Histories,
    train_ends: np.ndarray,
    config: Any,
    categories: Sequence[Sequence[str]] | None = None,
) -> Any:
    """RecBole's ``Dataset`` of the training prefixes, built in memory, in our id space.

    Parameters
    ----------
    dataset_name : str
        What RecBole shall call it.
    train_ends : int64 [n_users]
        Absolute exclusive end of each training prefix; nothing from there on is read.
    config : recbole Config
        Of :func:`model_config`.
    categories : sequence of sequence of str, optional
        Categories by item id (entry 0 is padding), for models that read item features.
    """
    load_recbole()
    from recbole.utils import ModelType

    from recllm_bench.recbole_bridge.in_memory import InMemoryDataset, InMemorySequentialDataset

    dataset_class = InMemorySequentialDataset if config["MODEL_TYPE"] == ModelType.SEQUENTIAL else InMemoryDataset
    config["dataset"] = dataset_name
    with quietly():
        return dataset_class(config, histories, train_ends, categories)


def build_model(
    model: str | type,
    histories: Histories,
    train_ends: np.ndarray,
    options: Any,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    max_length: int = 50,
    name: str = "data",
    categories: Sequence[Sequence[str]] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> tuple[Any, Any, Any]:
    """Make a model the way RecBole does: configuration, dataset, seed, class.

    A zoo model keeps its class and parameters; one that takes no gradient steps is ready to score. RecBole's SASRec
    and GRU4Rec get ``sequence_states`` and ``item_vectors``; any model that is no causal encoder gets a
    ``full_sort_predict`` that always returns ``[B, n_items + 1]`` (some of RecBole's flatten their scores, need a
    fixed width, or only have ``predict``).

    Parameters
    ----------
    model, options, seed, device, max_length, extra
        As for :func:`model_config`.
    histories, train_ends, name, categories
        As for :func:`training_dataset`.

    Returns
    -------
    model, config, dataset
        The model remembers the other two (``recbole_parts``), for :func:`zoo_training`.

    Raises
    ------
    BenchError
        When the model needs data that the bench does not give it, or RecBole refuses an option.
    """
    load_recbole()
    from recbole.data.transform import construct_transform
    from recbole.utils import init_seed

    from recllm_bench.products import accelerate

    model_class = class_of(model)
    zoo_name = model_class.__name__ if is_zoo(model_class) else ""
    if zoo_name in _LACKING:
        raise BenchError(f"RecBole's {zoo_name} needs {_LACKING[zoo_name]}, which the bench does not give it")
    if zoo_name in _FEATURE_MODELS and not any(categories or ()):
        raise BenchError(f"RecBole's {zoo_name} needs item categories, and this dataset has none; choose another model")
    config = model_config(model_class, options, seed=seed, device=device, max_length=max_length, name=name, extra=extra)
    features = categories if zoo_name in _FEATURE_MODELS else None
    dataset = training_dataset(name, histories, train_ends, config, features)
    if zoo_name in _READS_ALL_PREFIXES:
        dataset.inter_feat = dataset[np.arange(len(dataset))]
    with quietly():
        construct_transform(config)  # data/transform.py writes the names of masked fields into the configuration
        init_seed(seed, config["reproducibility"])
        try:
            built = model_class(config, dataset).to(config["device"])
        except (NotImplementedError, ValueError, KeyError, ZeroDivisionError, AssertionError, RuntimeError) as error:
            if model_class.__module__.split(".")[0] not in ("recbole", "recllm_bench"):
                raise  # a mistake in somebody's class, not in its options
            raise BenchError(f"options of {model_class.__name__}: {_reason(error)}") from error
    if zoo_name == "Pop":
        _count_popularity(built, dataset)
    built.recbole_parts = (config, dataset)
    built = accelerate(give_causal_capabilities(built))
    if not hasattr(built, "sequence_states") and not hasattr(built, "query_vectors"):
        built.full_sort_predict = types.MethodType(_full_sort_predict, built)  # type: ignore[assignment]
    return built, config, dataset


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or "a check inside the model failed"
    return f"no choice {text}" if isinstance(error, KeyError) else text


def give_causal_capabilities(model: Any) -> Any:
    """Attach ``sequence_states`` and ``item_vectors`` to an instance of RecBole's own SASRec or GRU4Rec.

    Both compute the state of every position and then keep the last one (``gather_indexes``); here all are kept.
    Class, parameters and, up to rounding, results stay the same. Any other model is returned as it is.
    """
    if is_zoo(type(model)) and type(model).__name__ in ("SASRec", "GRU4Rec"):
        from torch.nn.functional import gelu

        model.sequence_states = types.MethodType(_all_states, model)
        model.item_vectors = types.MethodType(_item_table, model)
        for part in model.modules():
            # model/layers.py FeedForward.gelu: the exact function, in steps that each keep a copy for the gradient.
            if type(part).__name__ == "FeedForward" and part.intermediate_act_fn == part.gelu:
                part.intermediate_act_fn = gelu
    return model


def interaction(batch: Mapping[str, torch.Tensor]) -> Any:
    """RecBole's ``Interaction`` of a batch: ``user_id``, ``item_id_list``, ``item_length`` and further columns."""
    load_recbole()
    from recbole.data.interaction import Interaction

    return Interaction(dict(batch))


def _all_states(self: Any, item_seq: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    self.gather_indexes = lambda states, last: states
    try:
        return self.forward(item_seq, lengths)
    finally:
        del self.gather_indexes


def _item_table(self: Any) -> torch.Tensor:
    return self.item_embedding.weight


def _count_popularity(model: Any, dataset: Any) -> None:
    """Let Pop count the training interactions.

    general_recommender/pop.py counts an item once in a batch, however often it occurs there, and sampled negatives
    too. So it is fed batches in which an item occurs once: batch k holds the items with at least k interactions.
    """
    import torch

    counts = torch.bincount(dataset.inter_feat[model.ITEM_ID], minlength=model.n_items)
    for k in range(1, int(counts.max()) + 1):
        model.calculate_loss({model.ITEM_ID: (counts >= k).nonzero().squeeze(1).to(model.device)})


def _full_sort_predict(self: Any, rows: Any) -> torch.Tensor:
    """Scores ``float [B, n_items + 1]``, whatever shape and device the model's own function gives."""
    import torch
    from recbole.data.interaction import Interaction
    from torch.nn.functional import pad

    columns = dict(rows.interaction)
    field, width = str(getattr(self, "ITEM_SEQ", "")), getattr(self, "max_seq_length", 0)
    if field in columns:
        columns[field] = pad(columns[field], (0, max(0, width - columns[field].shape[1])))
        # sasreccpr.py, gru4reccpr.py and dien.py compute a loss beside the scores, from columns that scoring lacks.
        columns.setdefault(self.ITEM_ID, torch.ones_like(columns[field][:, 0]))
        columns.setdefault(self.NEG_ITEM_ID + field.removeprefix(self.ITEM_ID), torch.zeros_like(columns[field]))
    rows = Interaction(columns)
    try:
        scores = type(self).full_sort_predict(self, rows)
    except NotImplementedError:
        scores = _scores_by_prediction(self, rows)
    return torch.as_tensor(scores).to(rows[self.USER_ID].device).reshape(len(rows), -1)


def _scores_by_prediction(model: Any, rows: Any, pairs_at_once: int = 1 << 17) -> torch.Tensor:
    """Score every item with ``predict``, as trainer.py ``_full_sort_batch_eval`` does, some users at a time."""
    import torch
    from recbole.data.interaction import Interaction

    _, dataset = model.recbole_parts
    n_ids = model.n_items if hasattr(model, "n_items") else dataset.item_num
    users_at_once = max(1, pairs_at_once // n_ids)
    parts = []
    for start in range(0, len(rows), users_at_once):
        some = rows[start : start + users_at_once]
        pairs = {key: value.repeat_interleave(n_ids, dim=0) for key, value in some.interaction.items()}
        pairs[model.ITEM_ID] = torch.arange(n_ids, device=some[model.USER_ID].device).repeat(len(some))
        parts.append(model.predict(Interaction(pairs)).reshape(len(some), n_ids))
    return torch.cat(parts)
