"""Planted splits and places for the tests of reports."""

from __future__ import annotations

import numpy as np

from recllm_bench.data.histories import Histories
from recllm_bench.data.splits import Cases, Split
from recllm_bench.evaluation.places import Ranks

N = 400


def planted_split(n: int = N) -> Split:
    histories = Histories.from_rows([[1 + user % 50, 1 + user % 7, 50] for user in range(n)], n_items=60)
    ends = histories.offsets[1:] - 1
    cases = Cases(np.arange(1, n + 1), ends, histories.items[ends].astype(np.int32))
    return Split("leave_one_out", histories, ends, cases, cases, checksum="split-1", dropped={"short": 2})


def planted_ranks(quality: float, seed: int = 0, n: int = N) -> Ranks:
    """Places that get better with ``quality``, correlated over models through the user's own difficulty."""
    difficulty = np.random.default_rng(99).exponential(12, n)
    noise = np.random.default_rng(seed).normal(0, 0.5, n)
    higher = np.clip(difficulty / quality + noise, 0, 58).astype(np.int64)
    ones = np.ones(n, np.int64)
    top = np.tile(np.arange(1, 11, dtype=np.int32), (n, 1))
    return Ranks(np.arange(1, n + 1), np.full(n, 50, np.int32), higher, ones, ones * 60, top, repeats=3)
