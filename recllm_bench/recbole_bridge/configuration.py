"""RecBole's ``Config`` from a mapping, and the options of its zoo."""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recllm_bench.api.registry import zoo_names
from recllm_bench.errors import BenchError, nearest
from recllm_bench.locations import cache_folder
from recllm_bench.options import read_options
from recllm_bench.recbole_bridge.shims import INSTALL, load_recbole, quietly

if TYPE_CHECKING:
    import torch

_OF_THE_LOOP = {
    "epochs": "epochs",
    "learning_rate": "learning_rate",
    "weight_decay": "weight_decay",
    "stopping_step": "patience",
    "clip_grad_norm": "clip_norm",
    "MAX_ITEM_LIST_LENGTH": "max_length",
}
"""RecBole's names for what the training loop decides here."""
_OF_THE_BATCHES = ("train_batch_size", "train_neg_sample_args", "require_pow", "transform", "shuffle")
"""RecBole's general settings that change a zoo model's batches or loss."""


def zoo_class(name: str) -> type | None:
    """RecBole's class of that name, whatever its case; ``None`` when its zoo has no such model."""
    found = _spelled(name)
    if found is None:
        return None
    load_recbole()
    import torch
    from recbole.utils import get_model

    model = get_model(found)
    # model/sequential_recommender/sine.py turns anomaly detection on as it is imported, for all of torch: each later
    # step of any model would pay for it.
    torch.autograd.set_detect_anomaly(False)
    return model


def zoo_options(name: str) -> dict[str, Any]:
    """Options of a zoo model with RecBole's defaults: those of the model, then those of its batches.

    Raises
    ------
    BenchError
        For an unknown model.
    """
    import yaml

    found = _spelled(name)
    if found is None:
        raise _no_such_model(name)
    spec = find_spec("recbole")
    assert spec is not None and spec.submodule_search_locations  # the name was found in its files
    folder = Path(spec.submodule_search_locations[0]) / "properties"
    path = folder / "model" / f"{found}.yaml"
    own = (yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None) or {}
    general = yaml.safe_load((folder / "overall.yaml").read_text(encoding="utf-8"))
    return {
        **{key: _value(value) for key, value in own.items()},
        **{key: general[key] for key in _OF_THE_BATCHES if key not in own},
    }


def class_of(model: str | type) -> type:
    """The class itself, or RecBole's of that name (with or without ``recbole:``).

    Raises
    ------
    BenchError
        For an unknown name.
    """
    if isinstance(model, type):
        return model
    found = zoo_class(model)
    if found is None:
        raise _no_such_model(model)
    return found


def is_zoo(model_class: type) -> bool:
    """Whether a class is RecBole's own."""
    return model_class.__module__.startswith("recbole.model.")


def model_config(
    model: str | type,
    options: Any,
    *,
    seed: int,
    device: torch.device | str,
    max_length: int,
    name: str = "data",
    extra: Mapping[str, Any] | None = None,
) -> Any:
    """RecBole's ``Config`` of a model, from a mapping: no file and no command line is read.

    Parameters
    ----------
    model : str or type
        A name of RecBole's zoo, or a class.
    seed : int
        Seed of initialisation and batches.
    max_length : int
        Items of a history the model sees.
    name : str
        What RecBole shall call the dataset.

    Raises
    ------
    BenchError
        For an unknown option of a zoo model, or a value that RecBole refuses.
    """
    load_recbole()
    import torch

    model_class = class_of(model)
    where = f"options of {model_class.__name__}"
    values = dict(options) if isinstance(options, Mapping) else dataclasses.asdict(options)
    if is_zoo(model_class):
        values = _checked(model_class.__name__, values, where)
    elif hasattr(model_class, "Options"):
        # A class that shares its name with one of RecBole's must not inherit the defaults of RecBole's yaml.
        values = dataclasses.asdict(read_options(model_class.Options, values, where))
    device = torch.device(device)
    settings = {
        "seed": seed,
        "reproducibility": True,
        "MAX_ITEM_LIST_LENGTH": max_length,
        "use_gpu": device.type == "cuda",
        "show_progress": False,
        "data_path": str(cache_folder() / "recbole"),
        "checkpoint_dir": str(cache_folder() / "recbole" / "saved"),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        **values,
        **(extra or {}),
    }
    if not hasattr(model_class, "input_type"):
        defaults = zoo_options(model_class.__name__) if is_zoo(model_class) else {}
        settings.setdefault("loss_type", defaults.get("loss_type", "CE"))
        if settings["loss_type"] == "CE":  # configurator.py _set_default_parameters refuses its own default here
            settings.setdefault("train_neg_sample_args", None)
    try:
        with quietly():
            return _config_class()(model_class, name, settings, device)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise BenchError(f"{where}: RecBole refuses them: {error}") from error


@functools.cache
def _config_class() -> type:
    from recbole.config.configurator import Config

    class MappingConfig(Config):
        def __init__(self, model: type, dataset: str, values: dict[str, Any], device: Any) -> None:
            self._device = device
            super().__init__(model=model, dataset=dataset, config_dict=values)

        def _load_cmd_line(self) -> dict[str, Any]:
            return {}  # configurator.py _load_cmd_line reads sys.argv, which is not RecBole's here

        def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
            return config_dict  # configurator.py evaluates every string as Python; ours are typed already

        def _init_device(self) -> None:
            # configurator.py _init_device overwrites CUDA_VISIBLE_DEVICES and always takes the first GPU.
            self.final_config_dict.update(single_spec=True, local_rank=0, gpu_id="", device=self._device)

    return MappingConfig


def _spelled(name: str) -> str | None:
    wanted = name.casefold().removeprefix("recbole:")
    return next((known for known in zoo_names() if known.casefold() == wanted), None)


def _no_such_model(name: str) -> BenchError:
    if not zoo_names():
        return BenchError(f"'{name}' is RecBole's, which is not installed; get it with: {INSTALL}")
    return BenchError(f"RecBole has no sequential or general model '{name}'.{nearest(name, zoo_names())}")


def _checked(name: str, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = zoo_options(name)
    clean = {}
    for key, value in values.items():
        if key not in known and key in _OF_THE_LOOP:
            raise BenchError(f"{where}: '{key}' belongs to the training loop; set training.{_OF_THE_LOOP[key]}")
        if key not in known:
            raise BenchError(f"{where}: unknown option '{key}'.{nearest(key, known)}")
        clean[key] = _like(known[key], _value(value), f"{where}: {key}")
    return clean


def _value(value: Any) -> Any:
    """Read a string that is a Python literal (YAML leaves ``1e-3`` a string)."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        return value


def _like(default: Any, value: Any, where: str) -> Any:
    """``value``, when it has the type of RecBole's default."""
    kinds: dict[type, tuple[tuple[type, ...], str]] = {
        bool: ((bool,), "true or false"),
        int: ((int,), "a whole number"),
        float: ((int, float), "a number"),
        str: ((str,), "text"),
        list: ((list, tuple), "a list"),
        dict: ((Mapping,), "a mapping"),
    }
    if value is None or type(default) not in kinds:
        return value
    allowed, words = kinds[type(default)]
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise BenchError(f"{where}: expected {words}, got {value!r}")
    return list(value) if isinstance(value, tuple) else value
