"""The framework's floors know no paper: names of the papers stand in code only in their own folders and at the door."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import recllm_bench

PACKAGE = Path(recllm_bench.__file__).parent
PAPERS = re.compile(r"cesrec|latentcrs|relrec|llama2.?seq|iclrec", re.IGNORECASE)
AT_THE_DOOR = {"parser.py"}  # examples and defaults of the command line


def named_in_code(path: Path) -> list[str]:
    """Identifiers and strings that name a paper; docstrings may cite one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    cited = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = []
    for node in ast.walk(tree):
        names = [
            getattr(node, "id", ""),
            getattr(node, "attr", ""),
            getattr(node, "name", ""),
            getattr(node, "arg", ""),
        ]
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in cited:
            names.append(node.value)
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        found += [
            f"{path.name}:{node.lineno}: {name}" for name in names if isinstance(name, str) and PAPERS.search(name)
        ]
    return found


def test_the_framework_names_no_paper() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "models"]
    assert len(files) > 50
    found = [line for path in files if path.name not in AT_THE_DOOR for line in named_in_code(path)]
    assert not found


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text('"""LatentCRS may be cited."""\nfrom a.cesrec import b\nx = "relrec.full"\n')
    assert named_in_code(planted) == ["planted.py:2: a.cesrec", "planted.py:3: relrec.full"]


def test_files_of_the_framework_have_names_of_their_own() -> None:
    """A file name says which file is meant; only the folders of methods repeat each other's."""
    files = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "models"]
    counts = Counter(path.name for path in files if path.name not in ("__init__.py", "__main__.py"))
    assert [name for name, count in counts.items() if count > 1] == []
