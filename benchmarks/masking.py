"""Measure how fast outliers of histories are masked, beside a loop over users.

    python benchmarks/masking.py                       200,000 invented users, 64 numbers a vector
    python benchmarks/masking.py --device cuda --assert --json FILE

The loop computes each user's mean, cosines and order with NumPy; both must mask the same items, up to ties within
rounding. ``--assert`` fails above five seconds on a CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from recllm_bench.models.cesrec.masking import SIMILARITIES, mask_outliers
from recllm_bench.reporting.machine import machine_facts

MOST_SECONDS = 5.0


def invented(users: int, items: int, width: int, mean: float, longest: int, seed: int = 0):
    """Item vectors and histories whose lengths are geometric above five, as in a five-core."""
    rng = np.random.default_rng(seed)
    vectors = torch.from_numpy(rng.standard_normal((items + 1, width)).astype(np.float32))
    lengths = np.minimum(4 + rng.geometric(1 / max(1.0, mean - 4), users), longest)
    item_seq = rng.integers(1, items + 1, (users, int(lengths.max())))
    item_seq[np.arange(item_seq.shape[1]) >= lengths[:, None]] = 0
    return vectors, torch.from_numpy(item_seq), torch.from_numpy(lengths)


def one_by_one(vectors: np.ndarray, rows: np.ndarray, lengths: np.ndarray, k: int, similarity: str) -> np.ndarray:
    """The straightforward loop; positions masked, bool ``[B, L]``."""
    masked = np.zeros(rows.shape, dtype=bool)
    for row, (items, length) in enumerate(zip(rows, lengths, strict=True)):
        own = vectors[items[:length]]
        mean = own.mean(0)
        if similarity == "cosine":
            likeness = own @ mean / (np.linalg.norm(own, axis=1) * np.linalg.norm(mean))
        else:
            likeness = -np.linalg.norm(own - mean, axis=1)
        masked[row, np.argsort(likeness, kind="stable")[: max(0, min(k, length - 3))]] = True
    return masked


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=80_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--mean", type=float, default=9.0, help="mean length of a history")
    parser.add_argument("--longest", type=int, default=50)
    parser.add_argument("--k", type=int, default=1)
    parser.add_argument("--peer-users", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--assert", dest="strict", action="store_true")
    options = parser.parse_args(words)
    vectors, item_seq, lengths = invented(options.users, options.items, options.width, options.mean, options.longest)
    device = torch.device(options.device)
    placed = [value.to(device) for value in (vectors, item_seq, lengths)]
    measured = []
    for similarity in SIMILARITIES:
        times = []
        for _ in range(options.repeat):
            start = time.perf_counter()
            masked = mask_outliers(*placed, k=options.k, similarity=similarity).masked.cpu().numpy()
            times.append(time.perf_counter() - start)
        peer = min(options.peer_users, options.users)
        start = time.perf_counter()
        expected = one_by_one(vectors.numpy(), item_seq[:peer].numpy(), lengths[:peer].numpy(), options.k, similarity)
        alone = (time.perf_counter() - start) * options.users / peer
        differ = int((masked[:peer] != expected).any(1).sum())
        seconds = statistics.median(times)
        facts = {
            "similarity": similarity,
            "users": options.users,
            "mean length": round(float(lengths.double().mean()), 2),
            "k": options.k,
            "threads": torch.get_num_threads(),
            "device": str(device),
            "seconds": round(seconds, 3),
            "users/s": round(options.users / seconds),
            "one by one, seconds": round(alone, 1),
            "ratio": round(alone / seconds, 1),
            "rows that differ": differ,
        }
        print(json.dumps(facts))
        measured.append(facts)
        if differ > peer / 1000:
            raise SystemExit(f"{differ} of {peer} rows differ from the loop")
        if options.strict and device.type == "cpu" and seconds > MOST_SECONDS:
            raise SystemExit(f"masking took {seconds:.1f} s, over {MOST_SECONDS} s")
    if options.json:
        record = {"machine": machine_facts(str(device)), "measured": measured}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
