"""RecTools' SASRec, trained by RecTools: the peer's half of ``training.py``, run by an environment of its own.

It reads the histories that ``training.py`` wrote and answers in the same form. Validation is after each epoch, with the
history among the candidates, and its time counts on both sides.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side

_RUN: dict[str, Any] = {}
"""What the callback reads and notes: Lightning is handed a copy of it, so that it cannot keep anything itself."""


def rectools(
    place: str, device: str, seed: int, max_length: int, epochs: int, patience: int, budget: float
) -> dict[str, Any]:
    """Train until validation stops improving; returns what ``training.ours`` returns."""
    import pandas as pd
    import torch
    from pytorch_lightning import Callback, Trainer, seed_everything
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    with np.load(Path(place) / "histories.npz") as arrays:
        items, offsets = arrays["items"], arrays["offsets"]
    lengths = np.diff(offsets)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    places = np.arange(len(items)) - offsets[:-1][owners]
    training = (lengths[owners] < 3) | (places < lengths[owners] - 2)
    frame = pd.DataFrame(
        {
            Columns.User: owners[training],
            Columns.Item: items[training],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(places[training], unit="s"),
        }
    )
    seed_everything(seed, verbose=False)
    long = np.flatnonzero(lengths >= 3)
    _RUN.update(
        seconds=[], trace=[], test=0.0, best=-1.0, stale=0, valid=(long, offsets[1:][long] - 2), items=items,
        offsets=offsets, last=(long, offsets[1:][long] - 1), max_length=max_length, patience=patience, budget=budget,
    )  # fmt: skip

    class Watch(Callback):
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            _RUN.setdefault("start", time.perf_counter())
            _RUN["epoch"] = time.perf_counter()

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            side_by_side.wait_for(device)
            _RUN["seconds"].append(time.perf_counter() - _RUN["epoch"])
            value = ndcg(module, *_RUN["valid"])
            _RUN["trace"].append((time.perf_counter() - _RUN["start"], value))
            _RUN["stale"] += 1
            if value > _RUN["best"]:
                _RUN.update(best=value, stale=0)
                paused = time.perf_counter()
                _RUN["test"] = ndcg(module, *_RUN["last"])
                _RUN["start"] += time.perf_counter() - paused
            spent = _RUN["trace"][-1][0]
            print(f"  RecTools: epoch {len(_RUN['trace'])}, NDCG@10 {value:.4f}, {spent:.0f} s", file=sys.stderr)
            trainer.should_stop = _RUN["stale"] >= patience or bool(budget and spent >= budget)

    def make_trainer() -> Any:
        return Trainer(
            max_epochs=epochs, min_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False, devices=1, accelerator="gpu" if device.startswith("cuda") else "cpu",
            callbacks=[Watch()],
        )  # fmt: skip

    dataset = Dataset.construct(frame)
    model = SASRecModel(
        n_blocks=2, n_heads=2, n_factors=64, dropout_rate=0.2, session_max_len=max_length, loss="softmax", lr=0.001,
        batch_size=128, get_trainer_func=make_trainer,
    )  # fmt: skip
    torch.set_num_threads(side_by_side.threads())
    before = side_by_side.resident()
    model.fit(dataset)
    seconds = _RUN["seconds"]
    versions = {name: _version(name) for name in ("rectools", "pytorch-lightning", "torch", "numpy")}
    return {
        "before_gib": before,
        "seconds": float(np.median(seconds[1:] or seconds)),
        "quality": _RUN["best"],
        "epochs": len(seconds),
        "trace": [list(point) for point in _RUN["trace"]],
        "test": _RUN["test"],
        "versions": versions,
    }


def ndcg(module: Any, users: np.ndarray, ends: np.ndarray, rows_at_once: int = 512) -> float:
    """Mean NDCG@10 of the items at ``ends`` among all items that RecTools knows, given what stands before them."""
    import torch

    prepared, net, items = module.data_preparator, module.torch_model, _RUN["items"]
    ids = np.zeros(int(items.max()) + 1, np.int64)  # an item that no training prefix has stays 0: it cannot be found
    known = np.asarray(prepared.item_id_map.external_ids[prepared.n_item_extra_tokens :], dtype=np.int64)
    ids[known] = np.arange(len(known)) + prepared.n_item_extra_tokens
    column = np.arange(_RUN["max_length"]) - _RUN["max_length"]
    total, was_training = 0.0, module.training
    module.eval()
    with torch.no_grad():
        device = net.item_model.device
        table = net.item_model.get_all_embeddings()
        for start in range(0, len(users), rows_at_once):
            rows = slice(start, start + rows_at_once)
            positions = ends[rows, None] + column
            real = positions >= _RUN["offsets"][users[rows], None]
            sessions = torch.from_numpy(np.where(real, ids[items[np.maximum(positions, 0)]], 0)).to(device)
            states = net.encode_sessions({"x": sessions}, table)[:, -1]
            scores = states @ table.T
            scores[:, : prepared.n_item_extra_tokens] = float("-inf")
            targets = torch.from_numpy(ids[items[ends[rows]]]).to(device)
            wanted = scores.gather(1, targets[:, None])
            place = (scores > wanted).sum(1).double()
            found = (place < 10) & (targets > 0)
            total += float((found / torch.log2(place + 2)).sum())
    module.train(was_training)
    return total / len(users)


def _version(package: str) -> str:
    from importlib import metadata

    return metadata.version(package)


def main() -> int:
    """Be the child."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--action", required=True)
    parser.add_argument("--answer", type=Path, required=True)
    given = parser.parse_args()
    name, arguments = json.loads(given.action)
    side_by_side.run_action({"rectools": rectools}, name, arguments, given.answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
