"""A prepared dataset made of given histories, without any file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recllm_bench.data.catalogue import Catalogue
from recllm_bench.data.histories import Histories
from recllm_bench.data.prepared import PreparedDataset


def prepared_from(histories: Histories, catalogue: Catalogue | None = None) -> PreparedDataset:
    """Dress histories as a dataset; without a catalogue its items have no text."""
    size = histories.n_items + 1
    catalogue = catalogue or Catalogue(
        [""] * size, [""] * size, np.zeros(size, np.int32), [()] * size, [""] * size, "thing"
    )
    return PreparedDataset(
        name="planted",
        filter="all",
        folder=Path(),
        histories=histories,
        catalogue=catalogue,
        user_tokens=[""] * (histories.n_users + 1),
        facts={"catalogue_items": 40},
        checksum="abc",
        has_times=histories.times is not None,
        variant="table",
        card={"title": "Planted", "licence": {"name": "yours"}},
    )
