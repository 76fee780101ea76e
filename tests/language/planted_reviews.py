"""A small corpus with review text in Amazon's raw form, prepared the real way."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from recllm_bench.data.histories import Histories
from recllm_bench.data.prepare import prepare
from recllm_bench.data.prepared import PreparedDataset
from recllm_bench.data.splits import Split, leave_one_out
from tests.conftest import planted_catalogue
from tests.data.planted_prepared import prepared_from

THEMES = {
    "jazz": ("smoky saxophone solo", "upright bass", "late night piano"),
    "metal": ("crushing guitar riffs", "double kick drums", "guttural vocals"),
    "folk": ("fingerpicked banjo", "close harmony singing", "quiet fiddle tunes"),
}
POISON = "zyxwquark"
NAMES = ("The Long Road Home Again", "Velvet Morning", "Casino")


def planted(
    folder: Path,
    monkeypatch,
    *,
    n_users: int = 36,
    n_items: int = 18,
    length: int = 6,
    text: Callable[[int, int, str], str] | None = None,
    meta: bool = True,
) -> tuple[PreparedDataset, Split]:
    """Users who listen to one theme each; the last two reviews (validation, test) are poisoned.

    ``text(user, step, theme)`` may give another review than the usual one.
    """
    rng = np.random.default_rng(3)
    themes = list(THEMES)
    rows = []
    for user in range(n_users):
        theme = themes[user % 3]
        own = [item for item in range(n_items) if item % 3 == user % 3]
        for step, item in enumerate(rng.permutation(own)[:length]):
            said = text(user, step, theme) if text else _review(rng, theme, step >= length - 2)
            rows.append(
                {
                    "reviewerID": f"U{user}",
                    "asin": f"A{item}",
                    "overall": 5.0,
                    "reviewText": said,
                    "summary": "" if text else f"{POISON}title" if step >= length - 2 else "Nice",
                    "unixReviewTime": 1_300_000_000 + 86_400 * step + user,
                }
            )
    _write(folder / "amazon/2014/reviews_Digital_Music_5.json.gz", map(json.dumps, rows))
    if meta:
        described = [
            {
                "asin": f"A{item}",
                "title": NAMES[item] if item < len(NAMES) else f"Album Number {item} of Many",
                "description": f"An album of {themes[item % 3]}.",
                "categories": [["Music", themes[item % 3].title()]],
            }
            for item in range(n_items)
        ]
        _write(folder / "amazon/2014/meta_Digital_Music.json.gz", map(repr, described))
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(folder))
    dataset = prepare("amazon-2014-digital-music", "relrec")
    return dataset, leave_one_out(dataset.histories)


def films(n_users: int = 30, n_items: int = 40, length: int = 6) -> tuple[PreparedDataset, Split]:
    """A corpus without reviews: nobody meets an item twice."""
    rng = np.random.default_rng(1)
    rows = [(rng.permutation(n_items)[:length] + 1).tolist() for _ in range(n_users)]
    dataset = prepared_from(Histories.from_rows(rows, n_items), planted_catalogue(n_items))
    return dataset, leave_one_out(dataset.histories)


def _review(rng: np.random.Generator, theme: str, held_out: bool) -> str:
    said = ". ".join(rng.permutation(THEMES[theme]))
    return f"{said}. {POISON} record {POISON} {POISON}." if held_out else f"I liked the {said}. Bought it twice."


def _write(path: Path, lines) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
