"""A metric in one file: how many pages a user turns until the wanted item appears."""

from __future__ import annotations

from typing import Any

import numpy as np

_PAGES = 20


def pages(targets: Any, k: int) -> np.ndarray:
    """1 / page of the target with k items a page, 0 behind page 20; equal scores take the mean over their orders."""
    return targets.total_gain(1.0 / np.repeat(np.arange(1, _PAGES + 1), k)) / targets.relevant
