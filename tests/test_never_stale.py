"""A record is found again only while nothing that its numbers rest on has changed: one case for each thing."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from recllm_bench import provenance
from recllm_bench.planning import resolved
from recllm_bench.recipe import recipe_from
from recllm_bench.runner import BenchCell
from recllm_bench.training import cells
from tests.conftest import planted_catalogue, planted_histories

PLUGIN = """
from recllm_bench.models.sequence.sasrec import SASRec

WIDTH = 8


class Mine(SASRec):
    display_name = "Mine"
"""
METRIC = """
from recllm_bench.evaluation.metrics import recall


def halved(targets, k):
    return 0.5 * recall(targets, k)
"""


class Bench:
    """A user's folder: data, a plug-in, a language model; and the record that a recipe leads to."""

    def __init__(self, root: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.monkeypatch = root, monkeypatch
        self.catalogue, self.histories = planted_catalogue(60), planted_histories(40, 60, 8)
        self.titles = list(self.catalogue.titles)
        self.write()
        (root / "planted_stale.py").write_text(PLUGIN)
        (root / "planted_metric.py").write_text(METRIC)
        shutil.copytree(models / "llama2-stories260k", root / "llm")
        for path in (root / "llm").iterdir():
            path.chmod(0o644)
        monkeypatch.syspath_prepend(root)

    def write(self, rating: int = 5, swap: bool = False) -> None:
        """The files of the data."""
        rows = []
        for user in range(1, self.histories.n_users + 1):
            items = self.histories.of(user).tolist()
            items = [*items[:-2], items[-1], items[-2]] if swap and user == 1 else items
            rows += [f"{user},{item},{rating},{1600000000 + 9 * place}" for place, item in enumerate(items)]
        (self.root / "shop.csv").write_text("user_id,item_id,rating,timestamp\n" + "\n".join(rows) + "\n")
        items = [f"{item},{self.titles[item]},{'|'.join(self.catalogue.categories[item])}" for item in range(1, 61)]
        (self.root / "shop.items.csv").write_text("item_id,title,categories\n" + "\n".join(items) + "\n")

    def record(self, model: str = "text-retrieval", **values) -> str:
        """Name of the folder of the record."""
        for name in [name for name in sys.modules if name.startswith("planted_")]:
            del sys.modules[name]
        recipe = {"model": model, "dataset": str(self.root / "shop.csv"), "protocol": "unified.full", **values}
        return BenchCell(resolved(recipe_from(recipe, "test"))).folder.name

    def replace(self, name: str, old: str, new: str) -> None:
        """Change a file."""
        path = self.root / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def _title(bench: Bench) -> None:
    bench.titles[3] = "Another name"
    bench.write()


def _weights(bench: Bench) -> None:
    path = bench.root / "llm" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def _code(bench: Bench) -> None:
    bench.monkeypatch.setattr(cells, "package_code_hash", lambda parts: "other code")


def _library(bench: Bench) -> None:
    known = provenance.versions_of_libraries
    bench.monkeypatch.setattr(cells, "versions_of_libraries", lambda names: {**known(names), "torch": "99"})


def _threads(bench: Bench) -> None:
    bench.monkeypatch.setattr(torch, "get_num_threads", lambda: 77)


LLM = {"model": "llama2-seq", "options": {"llm": "llm"}}
MINE = {"model": "planted_stale:Mine"}
CHANGES: dict[str, tuple[dict, dict | Callable[[Bench], None]]] = {
    "a title": ({}, _title),
    "an interaction": ({}, lambda bench: bench.write(swap=True)),
    "a rating that a filter reads": ({"protocol": "latentcrs.one_turn"}, lambda bench: bench.write(rating=4)),
    "weights of a language model": (LLM, _weights),
    "its tokenizer": (LLM, lambda bench: bench.replace("llm/tokenizer_config.json", "{", '{"x": 1, ')),
    "a plug-in's source": (MINE, lambda bench: bench.replace("planted_stale.py", "WIDTH = 8", "WIDTH = 9")),
    "the code of the package": (MINE, _code),
    "the code under a model of the zoo": ({"model": "pop"}, _code),
    "the version of a library": ({"model": "pop"}, _library),
    "the number of threads": (MINE, _threads),
    "an option": ({"model": "sasrec"}, {"options": {"hidden_size": 8}}),
    "an option of training": ({"model": "sasrec"}, {"training": {"epochs": 2}}),
    "the seed": ({}, {"seed": 7}),
    "the protocol": ({}, {"protocol": "unified.ratio"}),
    "sampled candidates": ({}, {"protocol": "cesrec.sampled100.n100"}),
    "the simulator": ({}, {"conversation": {"simulator": "rules:2"}}),
    "whose words": ({}, {"conversation": {"words": "another"}}),
    "the text encoder's template": ({}, {"conversation": {"template": "wanted: {text}"}}),
    "passes of a quick run": ({"model": "sasrec"}, {"quick": 1}),
    "one's own validation metric": (
        {"model": "sasrec", "training": {"validate_metric": "planted_metric:halved@5"}},
        lambda bench: bench.replace("planted_metric.py", "0.5", "0.25"),
    ),
}


@pytest.fixture
def bench(tmp_path: Path, models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A folder of one's own, for one test."""
    root = tmp_path / "own"
    root.mkdir()
    monkeypatch.chdir(root)
    return Bench(root, models_folder, monkeypatch)


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_leads_to_another_record(bench: Bench, what: str) -> None:
    values, change = CHANGES[what]
    before = bench.record(**values)
    assert bench.record(**values) == before, "nothing has changed"
    if callable(change):
        change(bench)
        after = bench.record(**values)
    else:
        after = bench.record(**{**values, **change})
    assert re.sub(r"^.*-", "", after) != re.sub(r"^.*-", "", before)


def test_a_comment_in_a_plug_in_changes_nothing(bench: Bench) -> None:
    before = bench.record(**MINE)
    bench.replace("planted_stale.py", "WIDTH = 8", "WIDTH = 8  # of a state")
    assert bench.record(**MINE) == before
