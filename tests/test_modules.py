"""Files of a user's own that add names to the registry."""

from __future__ import annotations

import sys

import pytest

from recllm_bench.api import modules, registry
from recllm_bench.errors import BenchError


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts with nothing registered."""
    monkeypatch.setattr(modules, "_targets", {kind: {} for kind in modules.KINDS})
    monkeypatch.setattr(modules, "_owners", {})


def test_attributes_and_calls_register(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text(
        "from functools import partial\n"
        "from recllm_bench.api.modules import register\n"
        "class Talker: pass\n"
        "def first(targets, k): return targets.total_gain([1.0])\n"
        "SIMULATORS = {'talker': Talker}\n"
        "METRICS = {'First': first, 'Later': 'recllm_bench.evaluation.metrics:ndcg'}\n"
        "register('metrics', 'Bound', partial(first))\n"
    )
    (module,) = modules.load_modules([own])
    assert registry.resolve("simulators", "talker") is module.Talker
    assert registry.resolve("metrics", "first") is module.first
    assert registry.resolve("metrics", "Bound").func is module.first
    assert registry.resolve("metrics", "Later").__name__ == "ndcg"
    assert {"First", "Later", "Bound"} <= set(registry.names("metrics"))
    assert sys.modules[module.Talker.__module__] is module
    assert modules.load_modules([str(own)])[0] is module


def test_a_changed_file_is_another_module(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text("PROTOCOLS = {'mine': {'users': 5}}\n")
    (before,) = modules.load_modules([own])
    hashed = modules.source_hash(before)
    own.write_text("PROTOCOLS = {'mine': {'users': 6}}\n")
    (after,) = modules.load_modules([own])
    assert after.__name__ != before.__name__
    assert modules.source_hash(after) != hashed
    assert registry.resolve("protocols", "mine") == {"users": 6}
    assert modules.source_hash(sys) == ""


def test_equal_files_in_two_folders_are_two_modules(tmp_path):
    found = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text("from pathlib import Path\nHERE = Path(__file__).parent.name\n")
        found += modules.load_modules([tmp_path / folder / "mine.py"])
    assert [module.HERE for module in found] == ["a", "b"]


def test_two_files_may_not_share_a_name(tmp_path):
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text("METRICS = {'First': print}\n")
    with pytest.raises(BenchError, match=r"'First' of metrics is registered by .*one\.py and by .*two\.py"):
        modules.load_modules([tmp_path / "one.py", tmp_path / "two.py"])


def test_a_built_in_name_is_not_taken_over(tmp_path):
    modules.register("models", "sasrec", object)
    with pytest.raises(BenchError, match="'sasrec' is a built-in name of models"):
        registry.names("models")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ndef (\n", r"mine\.py:2: invalid syntax"),
        ("\n\n1 / 0\n", r"mine\.py:3: ZeroDivisionError: division by zero; mend it there"),
        ("import json\njson.loads('{')\n", r"mine\.py:2: JSONDecodeError"),
        ("import no_such_package\n", "No module named 'no_such_package'; install it"),
        ("raise SystemExit(0)\n", r"mine\.py:1: SystemExit"),
        ("METRICS = ['a']\n", "METRICS must be a mapping"),
        ("METRICS = {'a@b': print}\n", "a name is text without"),
        ("METRICS = {5: print}\n", "cannot register 5 under metrics"),
        (
            "from recllm_bench.api.modules import register\nregister('metric', 'a', print)\n",
            "unknown kind 'metric'. Did you mean 'metrics'",
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_line(text, said, tmp_path):
    own = tmp_path / "mine.py"
    own.write_text(text)
    with pytest.raises(BenchError, match=said) as caught:
        modules.load_modules([own], "recipe.yaml: modules")
    assert str(caught.value).startswith("recipe.yaml: modules: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("paths", ["mine.py", 5, [5], [""], ["none.py"], ["no.such.module"], [None]])
def test_what_is_no_list_of_files(paths, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchError, match=r"^modules: "):
        modules.load_modules(paths)


def test_a_module_by_dotted_name(tmp_path, monkeypatch):
    (tmp_path / "planted_dotted.py").write_text("def first(targets, k): pass\nMETRICS = {'First': first}\n")
    monkeypatch.syspath_prepend(tmp_path)
    (module,) = modules.load_modules(["planted_dotted"])
    assert registry.resolve("metrics", "First") is module.first
