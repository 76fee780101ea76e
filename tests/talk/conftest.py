"""A small cinema of invented films with a trained model of the bench, for conversations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from recllm_bench.artifacts import ArtifactStore
from recllm_bench.planning import recipe_values, resolved
from recllm_bench.recipe import recipe_from
from recllm_bench.runner import BenchCell
from recllm_bench.talk import conversation_of
from recllm_bench.talk.session import Conversation, State

FILMS = (
    ("The Laughing Lamp", 1994, "Comedy"),
    ("Two Brides Too Many", 1992, "Comedy|Romance"),
    ("The Cellar Below", 1979, "Horror|Thriller"),
    ("The Cellar Below: The Return", 1986, "Horror|Thriller"),
    ("Dust and Saddles", 1953, "Western"),
    ("Letters to Marigold", 1995, "Drama|Romance"),
    ("Trenches of Snow", 1962, "Drama|War"),
    ("The Last Bugle", 1998, "War"),
    ("Orbit of Glass", 1997, "Sci-Fi"),
    ("Orbit of Glass", 1968, "Sci-Fi|Thriller"),
    ("Barnyard Parade", 1996, "Children's|Animation|Musical"),
    ("A Giggle in the Dark", 1987, "Comedy|Horror"),
    ("Harbour, The", 1991, "Drama"),
    ("Twelve Kettles", 1984, "Comedy|Drama"),
)


def write_films(folder: Path, rows: Sequence[tuple[str, int, str]], years: bool = True) -> Path:
    """The films with 30 users who each saw seven of them, earlier ones more often."""
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    weights = np.linspace(2, 1, len(rows))
    for user in range(1, 31):
        seen = rng.choice(len(rows), 7, replace=False, p=weights / weights.sum())
        lines += [f"u{user},i{item},{1_000_000_000 + place}" for place, item in enumerate(seen.tolist())]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cinema.csv").write_text("\n".join(lines) + "\n")
    head = "item_id,title,year,categories" if years else "item_id,title,categories"
    body = [f'i{n},"{title}",{f"{year}," if years else ""}{kinds}' for n, (title, year, kinds) in enumerate(rows)]
    (folder / "cinema.items.csv").write_text("\n".join([head, *body]) + "\n")
    return folder / "cinema.csv"


def cell_of(path: Path, cache: Path, model: str = "pop") -> BenchCell:
    """A cell of a model on some data, with a cache of its own."""
    recipe = resolved(recipe_from({**recipe_values(model, str(path), "", ""), "compare": []}, "here"))
    return BenchCell(recipe, store=ArtifactStore(cache))


@pytest.fixture(scope="module")
def cinema(tmp_path_factory: pytest.TempPathFactory) -> Conversation:
    """A conversation about the films, ranked by a trained popularity model."""
    folder = tmp_path_factory.mktemp("cinema")
    return conversation_of(cell_of(write_films(folder, FILMS), folder / "cache"), say=lambda line: None)


@pytest.fixture
def fresh(cinema: Conversation) -> Callable[..., Conversation]:
    """The conversation from its beginning, somebody knowing one film or others."""

    def begun(*titles: str) -> Conversation:
        known = [cinema.catalogue.titles.index(title) for title in titles or ("Harbour, The",)]
        cinema.state, cinema._earlier, cinema._asked = State(history=tuple(known)), [], None
        cinema.shown, cinema.filters, cinema.wording = 5, True, None
        return cinema

    return begun
