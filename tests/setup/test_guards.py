"""The guards of `make lint` fail when somebody breaks what they guard."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
IGNORED = shutil.ignore_patterns("__pycache__")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the guards read."""
    for folder in ("recllm_bench", "benchmarks", "examples", ".ci"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=IGNORED)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def guard(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=tree, env=environment, capture_output=True, text=True, timeout=300
    )


def plant(tree: Path, module: str, text: str) -> None:
    path = tree / "recllm_bench" / module
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def contracts(tree: Path) -> tuple[int, str]:
    done = guard(tree, "lint-imports", "--no-cache")
    return done.returncode, done.stdout + done.stderr


IMPORT = "from recllm_bench.reporting import table"
UPWARD = {
    "at module level": f"\n{IMPORT}  # noqa\n",
    "inside a function": f"\ndef planted():\n    {IMPORT}\n    return table\n",
    "for a type": f"\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {IMPORT}\n",
}


def test_the_tree_as_it_is_passes(tree: Path) -> None:
    code, text = contracts(tree)
    assert code == 0, text
    assert guard(tree, "vulture").returncode == 0


@pytest.mark.parametrize("kind", UPWARD)
def test_an_upward_import_fails(tree: Path, kind: str) -> None:
    plant(tree, "evaluation/ranks.py", UPWARD[kind])
    code, text = contracts(tree)
    assert code == 1
    assert "recllm_bench.evaluation.ranks -> recllm_bench.reporting.table" in text


def test_a_circle_between_neighbours_fails(tree: Path) -> None:
    (tree / "recllm_bench" / "data" / "planted_one.py").write_text("from recllm_bench.data import planted_two\n")
    later = "def planted():\n    from recllm_bench.data import planted_one\n    return planted_one\n"
    (tree / "recllm_bench" / "data" / "planted_two.py").write_text(later)
    code, text = contracts(tree)
    assert code == 1
    assert "No cycles are allowed in recllm_bench.data" in text


def test_a_method_that_imports_another_fails(tree: Path) -> None:
    plant(tree, "models/relrec/prompts.py", "\nfrom recllm_bench.models.latentcrs import losses  # noqa\n")
    code, text = contracts(tree)
    assert code == 1
    assert "recllm_bench.models.relrec.prompts -> recllm_bench.models.latentcrs.losses" in text


def test_a_module_without_a_floor_fails(tree: Path) -> None:
    (tree / "recllm_bench" / "planted.py").write_text("")
    code, text = contracts(tree)
    assert code == 1
    assert "planted" in text


def test_what_nothing_reaches_fails(tree: Path) -> None:
    plant(tree, "evaluation/ranks.py", "\ndef planted_and_forgotten():\n    return 1\n")
    done = guard(tree, "vulture", "recllm_bench")
    assert done.returncode == 3
    assert "unused function 'planted_and_forgotten'" in done.stdout


def test_a_type_error_too_many_fails(tree: Path) -> None:
    """mypy itself answers, on a package of one file, with the numbers that may not rise set to none and to one."""
    shutil.rmtree(tree / "recllm_bench")
    (tree / "recllm_bench").mkdir()
    (tree / "recllm_bench" / "__init__.py").write_text("")
    (tree / "recllm_bench" / "planted.py").write_text("count: int = 'one'\n")
    done = guard(tree, "python", ".ci/type_errors.py")
    assert done.returncode == 1
    assert "recllm_bench/planted.py:1: error: Incompatible types" in done.stdout
    assert "mypy: 1 errors in planted, at most 0 are allowed" in done.stdout
    script = tree / ".ci" / "type_errors.py"
    script.write_text(script.read_text().replace("ERROR = ", "ALLOWED = {'planted': 1}\nERROR = "))
    assert guard(tree, "python", ".ci/type_errors.py").returncode == 0
