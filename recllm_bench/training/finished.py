"""What a training run leaves: the best epoch's weights, and how it came to them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from recllm_bench.artifacts import Damaged, content_hash, file_hash, set_aside, write_atomic, write_json

HISTORY = "history.json"
OUTCOME = "outcome.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Outcome:
    """What a training run came to.

    Attributes
    ----------
    best_epoch : int
        Epoch (from 1) whose weights were kept.
    best_metric : float
        Validation metric of that epoch (NaN when there was no validation).
    epochs : int
        Epochs run.
    seconds : float
        Training and validation time, over all attempts.
    stopped_by : str
        ``"patience"``, ``"epochs"`` or ``"budget"``.
    history : list of dict
        For each epoch: ``epoch, loss, seconds`` and, where it was validated, ``validation``.
    """

    best_epoch: int
    best_metric: float
    epochs: int
    seconds: float
    stopped_by: str
    history: list[dict[str, Any]] = field(default_factory=list)


def save_weights(folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Write parameters and buffers of the modules to ``folder/model.safetensors``."""
    from safetensors.torch import save

    tensors = {
        f"{name}/{key}": value.detach().cpu().contiguous().clone()  # tied tensors are stored twice
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    write_atomic(folder / WEIGHTS, lambda file: file.write(save(tensors)))


def load_weights(folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Read what :func:`save_weights` wrote; a subset of the modules may be given.

    Raises
    ------
    Damaged
        When the file is missing, cut short or no weights file.
    BenchError
        When the file does not fit the modules.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from recllm_bench.recbole_bridge.state import load_tensors

    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, FileNotFoundError) as error:
        raise Damaged(f"{folder / WEIGHTS} cannot be read ({str(error).splitlines()[0]})") from error
    for name, module in modules.items():
        prefix = f"{name}/"
        own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        load_tensors(module, own, folder / WEIGHTS)


def save_outcome(folder: Path, outcome: Outcome) -> None:
    """Write ``outcome.json`` and ``history.json``; their presence says that training is finished.

    ``outcome.json`` also keeps the checksum of the weights beside it, and its own.
    """
    write_json(folder / HISTORY, outcome.history)
    plain = asdict(outcome)
    plain["best_metric"] = None if math.isnan(outcome.best_metric) else outcome.best_metric
    plain["weights"] = file_hash(folder / WEIGHTS) if (folder / WEIGHTS).exists() else ""
    write_json(folder / OUTCOME, {**plain, "seal": content_hash(plain)})


def load_outcome(folder: Path) -> Outcome | None:
    """Read what :func:`save_outcome` wrote; ``None`` when training has not finished there.

    It has not when the file or the weights beside it are damaged, either: they are set aside then.
    """
    path, weights = folder / OUTCOME, folder / WEIGHTS
    if not path.exists():
        return None
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain.pop("seal") != content_hash(plain):
            raise ValueError("its checksum differs")
        kept = plain.pop("weights")
        plain["best_metric"] = math.nan if plain["best_metric"] is None else plain["best_metric"]
        outcome = Outcome(**plain)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        set_aside(path, f"{path} is damaged ({type(error).__name__}); training is done again")
        return None
    if kept and not (weights.exists() and file_hash(weights) == kept):
        set_aside(path, f"{weights} is damaged or missing; training is done again")
        if weights.exists():
            set_aside(weights, f"{weights} is damaged")
        return None
    return outcome
