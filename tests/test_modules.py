"""Files of a user's own that add names to the registry."""

from __future__ import annotations

import sys

import pytest

from recllm_bench.api import modules, registry
from recllm_bench.data.cards import find_card
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


SHOP = """
import numpy as np
from recllm_bench.data.interactions import Interactions

def read(files):
    rows = [line.split() for line in files["log"].read_text().splitlines()]
    users, items = (sorted({row[place] for row in rows}) for place in (0, 1))
    codes = [np.array([known.index(row[place]) for row in rows]) for place, known in enumerate((users, items))]
    return Interactions(*codes, users, items)

DATASETS = {
    "corner": dict(title="The corner shop", domain="thing", licence=dict(name="free", notice=""),
                   reader=f"{__name__}:read", filters=dict(all={}),
                   variants=[dict(name="own", files=dict(log=dict(path="corner.txt")))]),
}
"""


@pytest.fixture
def corner(tmp_path, monkeypatch):
    """A file with a dataset and its reader, and the data on the mirror."""
    (tmp_path / "corner.txt").write_text("\n".join(f"u{n // 8} i{n * n % 11}" for n in range(240)))
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(tmp_path))
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path / "shop.py"


def test_a_dataset_in_a_file_of_ones_own_is_known_by_name(corner, capsys):
    from recllm_bench import cli

    with pytest.raises(BenchError, match="unknown dataset 'corner'"):
        find_card("corner")
    limits = ["training.epochs=1", f"modules=[{corner}]"]
    assert cli.main(["run", "pop", "corner", "--alone", "--set", *limits]) == 0
    assert "corner · unified.full · 30 users" in capsys.readouterr().out
    assert find_card("corner")["title"] == "The corner shop"


def test_a_card_beside_the_file(tmp_path):
    import yaml

    card = {"name": "yard", "title": "Y", "domain": "thing", "licence": {}, "reader": "x:y", "variants": []}
    (tmp_path / "yard.yaml").write_text(yaml.safe_dump({**card, "filters": {"all": {}}}))
    (tmp_path / "mine.py").write_text("DATASETS = {'yard': 'yard.yaml'}\n")
    modules.load_modules([tmp_path / "mine.py"])
    assert find_card("yard")["title"] == "Y", "its path starts at the file's folder"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{'yard': 'none.yaml'}", "there is no card"),
        ("{'yard': 5}", "is a mapping"),
        ("{'yard': {'title': 'x'}}", "lacks domain"),
        ("{'yard': dict(name='other', title='', domain='', licence={}, reader='', variants=[], filters={'all': {}})}",
         "its card is named 'other'"),
        ("{'ml-100k': dict(title='', domain='', licence={}, reader='', variants=[], filters={'all': {}})}",
         "two dataset cards are named 'ml-100k'"),
    ],
)  # fmt: skip
def test_a_wrong_card_is_one_line(text, said, tmp_path):
    (tmp_path / "mine.py").write_text(f"DATASETS = {text}\n")
    modules.load_modules([tmp_path / "mine.py"])
    with pytest.raises(BenchError, match=said):
        find_card("yard")


def test_python_takes_modules_and_compare_loads_those_of_a_record(corner, tmp_path, capsys, monkeypatch):
    import recllm_bench as rb
    from recllm_bench import cli

    (tmp_path / "rules.py").write_text(
        "def luck(targets, k): return targets.total_gain([1.0] * k)\n"
        "METRICS = {'Luck': luck}\n"
        "PROTOCOLS = {'mine.luck': {'base': 'unified.full', 'metrics': ['Luck'], 'cutoffs': [5]}}\n"
    )
    run = rb.run("pop", "corner", protocol="mine.luck", modules=[corner, tmp_path / "rules.py"])
    assert list(run.metrics) == ["Luck@5"]
    assert run.record.recipe["modules"] == [str(corner), str(tmp_path / "rules.py")]
    for kind in modules.KINDS:  # as in a new process
        monkeypatch.setitem(modules._targets, kind, {})
    capsys.readouterr()
    (tmp_path / "results" / "runs" / ".checked.json").unlink(missing_ok=True)
    assert cli.main(["compare", "--metrics", "Luck@3"]) == 0
    out, err = capsys.readouterr()
    assert "Luck@3" in out
    assert "none of its metrics is known" not in err
    (tmp_path / "rules.py").unlink()
    monkeypatch.setitem(modules._targets, "metrics", {})
    assert cli.main(["compare"]) == 0, "the numbers of the record stand"
    out, err = capsys.readouterr()
    assert "there is no file" in err
    assert "Luck@5" in out
