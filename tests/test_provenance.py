"""Hashes of code: a constant changes them, a comment does not; helpers count, other people's modules do not."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from recllm_bench import provenance
from recllm_bench.errors import BenchError
from recllm_bench.models.sequence.sasrec import SASRec
from recllm_bench.provenance import code_hash, package_code_hash, stripped_source, versions_of_libraries

MODEL = '''
"""A model."""
import math
from .parts import scaling
import torch


class Model:
    """What it does."""

    width = 64

    def score(self, x):
        """Score."""
        return x * scaling.factor()  # why
'''


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``plug_in(files)`` writes a package, imports its model afresh and gives its hash."""
    monkeypatch.syspath_prepend(str(tmp_path))
    files = {
        "planted_plug_in/__init__.py": "",
        "planted_plug_in/model.py": MODEL,
        "planted_plug_in/parts/__init__.py": "",
        "planted_plug_in/parts/scaling.py": "from ..constants import F\ndef factor():\n    return F\n",
        "planted_plug_in/constants.py": "F = 2\n",
        "planted_plug_in/unused.py": "G = 3\n",
        "torch_beside.py": "",
    }

    def build(changes: dict[str, str] | None = None) -> str:
        for name, text in {**files, **(changes or {})}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for name in [name for name in sys.modules if name.startswith("planted_plug_in")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        provenance._hashed.cache_clear()
        return code_hash(importlib.import_module("planted_plug_in.model").Model)

    yield build
    for name in [name for name in sys.modules if name.startswith("planted_plug_in")]:
        del sys.modules[name]


def model(old: str, new: str) -> dict[str, str]:
    assert old in MODEL
    return {"planted_plug_in/model.py": MODEL.replace(old, new)}


SAME = {
    "a comment": model("# why", "# because"),
    "a docstring": model("What it does.", "Something else."),
    "no docstring": model('"""Score."""\n        ', ""),
    "a blank line": model("    width", "\n\n    width"),
    "a module that nothing imports": {"planted_plug_in/unused.py": "G = 4\n"},
    "a file beside the package": {"torch_beside.py": "x = 1\n"},
}
DIFFERENT = {
    "a constant": model("64", "65"),
    "an operator": model("x *", "x +"),
    "a text that is no docstring": model("width = 64", "width = '64'"),
    "a helper": {"planted_plug_in/parts/scaling.py": "from ..constants import F\ndef factor():\n    return 2 * F\n"},
    "a helper's helper": {"planted_plug_in/constants.py": "F = 2.5\n"},
    "the package's beginning": {"planted_plug_in/parts/__init__.py": "import os\n"},
}


@pytest.mark.parametrize("case", SAME)
def test_what_changes_no_result_changes_no_hash(plug_in, case: str) -> None:
    assert plug_in(SAME[case]) == plug_in()


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_may_change_a_result_changes_the_hash(plug_in, case: str) -> None:
    assert plug_in(DIFFERENT[case]) != plug_in()


def test_a_module_without_a_package_counts_what_lies_beside_it(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "planted_alone.py").write_text("import planted_help\nfrom recllm_bench import options\nclass A: pass\n")
    (tmp_path / "planted_help.py").write_text("X = 1\n")
    alone = importlib.import_module("planted_alone")
    before = code_hash(alone.A)
    assert before == code_hash(alone) and len(before) == 16
    (tmp_path / "planted_help.py").write_text("X = 12\n")
    assert code_hash(alone.A) != before


def test_the_place_of_a_plug_in_does_not_matter(tmp_path, monkeypatch) -> None:
    found = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "planted_moved.py").write_text("class A:\n    x = 1\n")
        monkeypatch.syspath_prepend(str(tmp_path / place))
        sys.modules.pop("planted_moved", None)
        importlib.invalidate_caches()
        found.append(code_hash(importlib.import_module("planted_moved").A))
    assert found[0] == found[1]


def test_what_has_no_source(tmp_path) -> None:
    space: dict = {"__name__": "planted_nowhere"}
    exec("class A: pass", space)
    with pytest.raises(BenchError, match=r"source of A cannot be found.*\.py"):
        code_hash(space["A"])
    (tmp_path / "planted_broken.py").write_text("x = 1\n")
    sys.path.insert(0, str(tmp_path))
    try:
        module = importlib.import_module("planted_broken")
        (tmp_path / "planted_broken.py").write_text("x = = 2\n")
        with pytest.raises(BenchError, match=r"planted_broken\.py cannot be read as Python"):
            code_hash(module)
    finally:
        sys.path.remove(str(tmp_path))


def test_the_package_itself(tmp_path, monkeypatch) -> None:
    assert code_hash(SASRec) == ""
    root = tmp_path / "package"
    (root / "training").mkdir(parents=True)
    (root / "training" / "loop.py").write_text("EPOCHS = 3\n")
    (root / "options.py").write_text("x = 1\n")
    monkeypatch.setattr(provenance, "_PACKAGE", root)
    before = package_code_hash(["training", "options"])
    assert before == package_code_hash(["options.py", "training", "training"])
    assert before != package_code_hash(["training"])
    (root / "options.py").write_text('"""Said."""\nx = 1  # one\n')
    assert before == package_code_hash(["training", "options"])
    (root / "training" / "loop.py").write_text("EPOCHS = 30\n")
    assert before != package_code_hash(["training", "options"])
    changed = package_code_hash(["training"])
    (root / "training" / "more.py").write_text("")
    assert changed != package_code_hash(["training"])
    with pytest.raises(BenchError, match="no part 'trainin'"):
        package_code_hash(["trainin"])


def test_the_real_package_can_be_hashed() -> None:
    parts = ("training", "evaluation", "data", "recbole_bridge", "language", "conversation", "models", "options")
    hashes = {part: package_code_hash([part]) for part in parts}
    assert len(set(hashes.values())) == len(parts)


def test_stripped_source_keeps_what_runs() -> None:
    assert stripped_source('"""d"""\nx = 1') == stripped_source("x = 1  # c")
    assert stripped_source("x = 'd'") != stripped_source("x = 'e'")
    assert stripped_source('def f():\n    "d"') == stripped_source('def f():\n    "other"')
    assert stripped_source("x = 1; 'kept'") != stripped_source("x = 1")


def test_versions_of_libraries() -> None:
    found = versions_of_libraries(["torch", "numpy", "a-package-that-is-not-there"])
    import numpy
    import torch

    assert found == {"a-package-that-is-not-there": "", "numpy": numpy.__version__, "torch": torch.__version__}


def test_it_is_light() -> None:
    import subprocess

    code = "import sys, recllm_bench.provenance; print([m for m in ('torch', 'numpy', 'recbole') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
