"""The benchmark of the chat at a small size: on films, and on data that have categories and no years."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from recllm_bench.testing.planted import planted_files
from tests.talk.conftest import FILMS, cell_of, write_films

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "chat.py"


@pytest.fixture(scope="module")
def chat() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_chat", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_what_the_chat_shows_fits_on_movielens(chat: ModuleType, tmp_path: Path) -> None:
    lines: list[str] = []
    found = chat.measure(cell_of(Path("ml-100k"), tmp_path), 2, lines.append)
    assert found["requests"] == 30
    assert found["all"]["filter"] >= 0.9 > found["all"]["alone"]
    for kind in ("kind", "negation", "title", "correction"):  # nothing may be newer than the newest
        assert found[kind]["filter"] >= 0.9, found["unfit"]
    assert any("model alone" in line for line in lines)


@pytest.mark.parametrize("years", [True, False])
def test_on_other_data_the_script_is_the_catalogues(chat: ModuleType, tmp_path: Path, years: bool) -> None:
    path = planted_files(tmp_path, n_items=80) if years else write_films(tmp_path, [*FILMS] * 4, years=False)
    found = chat.measure(cell_of(path, tmp_path / "cache"), 3, lambda line: None)
    assert found["requests"] >= 10 and ("years" in found) == years
    assert found["all"]["filter"] >= 0.9 > found["all"]["alone"], found


def test_the_check_does_not_ask_the_chat(chat: ModuleType, tmp_path: Path) -> None:
    catalogue = cell_of(write_films(tmp_path, FILMS), tmp_path / "cache").dataset.catalogue
    titles = catalogue.titles

    def fitting(asked: Any, before: Sequence[str] = ()) -> set[str]:
        held = [titles.index(title) for title in before]
        return {titles[item] for item in range(1, len(titles)) if asked.fits(item, catalogue, held)}

    assert fitting(chat.Asked("", "", ["Comedy"], none=["Romance"], low=1990)) == {"The Laughing Lamp"}
    assert fitting(chat.Asked("", "", some=["Western", "War"], high=1970)) == {"Dust and Saddles", "Trenches of Snow"}
    assert fitting(chat.Asked("", "", like="The Cellar Below: The Return")) >= {
        "The Cellar Below",
        "A Giggle in the Dark",
    }
    assert fitting(chat.Asked("", "", newer=True), ["Barnyard Parade"]) == {"The Last Bugle", "Orbit of Glass"}
