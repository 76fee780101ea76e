"""A dataset in one file: the films of MovieLens 100K that were rated in the evening, from the copy inside RecBole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recllm_bench.data.interactions import Interactions, ItemText

CARD: dict[str, Any] = {
    "name": "ml-100k-evenings",
    "title": "MovieLens 100K, rated between 18 and 24 o'clock UTC",
    "domain": "movie",
    "licence": {"name": "GroupLens research use", "notice": "MovieLens 100K: see the card of ml-100k."},
    "reader": "recllm_bench_example.evenings:read",
    "variants": [
        {
            "name": "recbole-wheel",
            "package": "recbole",
            "times": True,
            "files": {
                "inter": {"path": "dataset_example/ml-100k/ml-100k.inter"},
                "item": {"path": "dataset_example/ml-100k/ml-100k.item"},
            },
        }
    ],
    "filters": {"all": {"users_min": 5}, "latentcrs": {"min_rating": 4, "users_min": 5}},
}


def read(files: Mapping[str, Path]) -> Interactions:
    """Rows of the files, by the names that the card gives them."""
    rows = pd.read_csv(files["inter"], sep="\t", dtype={"user_id:token": str, "item_id:token": str})
    rows = rows[rows["timestamp:float"] % 86400 >= 18 * 3600]
    users, user_tokens = pd.factorize(rows["user_id:token"])
    items, item_tokens = pd.factorize(rows["item_id:token"])
    films = pd.read_csv(files["item"], sep="\t", dtype=str, keep_default_na=False).itertuples(index=False)
    return Interactions(
        users,
        items,
        list(user_tokens),
        list(item_tokens),
        order=rows["timestamp:float"].to_numpy(np.int64),
        has_times=True,
        ratings=rows["rating:float"].to_numpy(np.float32),
        text={
            film[0]: ItemText(film[1], int(film[2]) if film[2].isdigit() else 0, (*film[3].split(),)) for film in films
        },
    )
