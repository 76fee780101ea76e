"""``trainer: recbole``: RecBole's own loop over its own prefix batches, for parity checks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from recllm_bench import recbole_bridge
from recllm_bench.errors import BenchError
from recllm_bench.progress import log, track
from recllm_bench.training.finished import Outcome, load_outcome, load_weights, save_outcome, save_weights
from recllm_bench.training.training_options import TrainingOptions


def train_with_recbole(
    model: nn.Module,
    options: TrainingOptions,
    *,
    validate: Callable[[], float] | None,
    work: Path,
    label: str = "train",
) -> Outcome:
    """Train with RecBole's ``Trainer`` and its ``calculate_loss``; only the validation is the bench's.

    ``epochs, learning_rate, weight_decay, clip_norm, patience`` and ``validate_every`` of the options apply. The batch
    size is RecBole's ``train_batch_size``, an option of the model, since a batch holds prefixes and not windows. There
    are no checkpoints: a killed run starts again.

    Parameters
    ----------
    model : torch.nn.Module
        Made by ``recbole_bridge.build_model``.
    options, validate, work, label
        As for :func:`recllm_bench.training.sequence.train_sequence_model`.

    Raises
    ------
    BenchError
        When the model did not come from RecBole's configuration.
    """
    parts: Any = getattr(model, "recbole_parts", None)
    if parts is None:
        raise BenchError(f"training: trainer=recbole cannot train {type(model).__name__}; use trainer=engine")
    finished = load_outcome(work)
    if finished is not None:
        load_weights(work, {"model": model})
        return finished
    recbole_bridge.load_recbole()
    from recbole.utils import get_trainer, init_seed

    config, dataset = parts
    settings: dict[str, Any] = {
        "epochs": options.epochs,
        "learning_rate": options.learning_rate,
        "weight_decay": options.weight_decay,
        "stopping_step": options.patience or options.epochs + 1,
        "eval_step": options.validate_every if validate is not None else 0,
        "clip_grad_norm": {"max_norm": options.clip_norm} if options.clip_norm else None,
        "valid_metric_bigger": True,
        "checkpoint_dir": str(work),
    }
    for key, value in settings.items():
        config[key] = value
    init_seed(config["seed"], config["reproducibility"])
    loader = recbole_bridge.training_batches(config, dataset)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    best: dict[str, Any] = {"metric": -math.inf, "epoch": 0, "state": None}
    metrics: list[float] = []
    start = time.perf_counter()
    with track(label=f"{label} (RecBole's trainer)", total=options.epochs, unit="epoch") as bar:

        def valid_epoch(valid_data: Any, show_progress: bool = False) -> tuple[float, dict[str, float]]:
            assert validate is not None  # without it RecBole is given no data to validate on
            metric = float(validate())
            metrics.append(metric)
            if metric > best["metric"]:
                state = {key: value.detach().clone() for key, value in model.state_dict().items()}
                best.update(metric=metric, epoch=len(metrics) * options.validate_every, state=state)
            bar.update(options.validate_every)
            bar.set_postfix_str(f"{options.validate_metric} {metric:.4f} best {best['epoch']}")
            return metric, {options.validate_metric: metric}

        trainer._valid_epoch = valid_epoch
        # trainer.py Trainer.fit validates only when it is given data; ours is in the function above.
        trainer.fit(loader, valid_data=[None] if validate is not None else None, verbose=False, saved=False)
    if best["state"] is not None:
        model.load_state_dict(best["state"])
    model.eval()
    losses = trainer.train_loss_dict
    history = [{"epoch": epoch + 1, "loss": _number(loss) / len(loader)} for epoch, loss in sorted(losses.items())]
    for place, metric in enumerate(metrics, 1):
        history[place * options.validate_every - 1]["validation"] = metric
    epochs = len(history)
    outcome = Outcome(
        best_epoch=best["epoch"] or epochs,
        best_metric=best["metric"] if metrics else math.nan,
        epochs=epochs,
        seconds=round(time.perf_counter() - start, 3),
        stopped_by="epochs" if epochs == options.epochs else "patience",
        history=history,
    )
    save_weights(work, {"model": model})
    save_outcome(work, outcome)
    log.info(f"{label}: RecBole's trainer kept epoch {outcome.best_epoch} of {epochs}, {outcome.seconds:.1f} s")
    return outcome


def _number(loss: Any) -> float:
    return float(sum(loss)) if isinstance(loss, tuple) else float(loss)
