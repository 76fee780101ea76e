"""What code and which libraries a product was made by, as hashes and versions that go into its key.

Hashes are of the syntax tree without docstrings: a comment, a blank line or a docstring changes nothing, a constant
does. Nothing is imported to find them.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from recllm_bench.errors import BenchError
from recllm_bench.files import content_hash

_PACKAGE = Path(__file__).resolve().parent
_OWN = __name__.partition(".")[0]


def code_hash(source: ModuleType | type | Any) -> str:
    """Hash of the sources of a class, function or module from outside this package.

    They are the module's own file and the modules that it imports, directly or through each other, from its own
    package (or, for a module without a package, from the folder it lies in). What was typed into a notebook counts
    as it was typed. Another version of Python may give another hash.

    Returns
    -------
    str
        16 hexadecimal digits; empty for what is a part of recllm_bench (:func:`package_code_hash` serves there).

    Raises
    ------
    BenchError
        When there is no source file, or it is no Python.
    """
    name = source.__name__ if isinstance(source, ModuleType) else getattr(source, "__module__", "")
    if name.partition(".")[0] == _OWN:
        return ""
    module = source if isinstance(source, ModuleType) else sys.modules.get(name)
    file = getattr(module, "__file__", None) or ""
    if not file.endswith(".py"):
        return content_hash(_typed_in(source, name))
    path = Path(file).resolve()
    root = _top_folder(path, name)
    return content_hash({str(part.relative_to(root)): _tree_hash(part) for part in _reached(path, root, name)})


def package_code_hash(parts: Iterable[str]) -> str:
    """Hash of the sources of some parts of recllm_bench.

    Parameters
    ----------
    parts : iterable of str
        Subpackages or modules below ``recllm_bench``, such as ``"training"``, ``"models/latentcrs"`` or
        ``"evaluation/ranks.py"``; of a folder every ``.py`` below it counts.

    Returns
    -------
    str
        16 hexadecimal digits.

    Raises
    ------
    BenchError
        When a part does not exist.
    """
    found: dict[str, str] = {}
    for part in sorted(set(parts)):
        path = _PACKAGE / part
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path if path.suffix else path.with_suffix(".py")]
        if not files or not all(file.is_file() for file in files):
            raise BenchError(f"recllm_bench has no part '{part}' whose sources could be hashed")
        found |= {file.relative_to(_PACKAGE).as_posix(): _tree_hash(file) for file in files}
    return content_hash(found)


def versions_of_libraries(names: Iterable[str]) -> dict[str, str]:
    """Installed versions by distribution name; empty for what is not installed."""
    return {name: _version(name) for name in sorted(set(names))}


def stripped_source(text: str) -> str:
    """The syntax tree of a source as text, without comments, docstrings and places.

    Raises
    ------
    SyntaxError, ValueError, RecursionError
        When the text is no Python.
    """
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return ast.dump(tree, annotate_fields=False)


def _tree_hash(path: Path) -> str:
    at = path.stat()
    return _hashed(path, at.st_mtime_ns, at.st_size)


@lru_cache(maxsize=4096)
def _hashed(path: Path, written: int, size: int) -> str:
    try:
        return hashlib.sha256(stripped_source(path.read_text(encoding="utf-8")).encode("utf-8", "replace")).hexdigest()
    except (SyntaxError, ValueError, RecursionError) as error:
        raise BenchError(f"{path} cannot be read as Python: {error}") from error


def _reached(path: Path, root: Path, name: str) -> list[Path]:
    """A module's file and those of its own that it imports, directly or not."""
    within = root / name.partition(".")[0] if "." in name or path.name == "__init__.py" else root
    alone = within == root and root.name in ("site-packages", "dist-packages")  # beside it lie other people's modules
    seen, waiting = {path: None}, [path]
    while waiting and not alone:
        for found in _imported(waiting.pop(), root):
            if found not in seen and within in found.parents and _PACKAGE not in found.parents:
                seen[found] = None
                waiting.append(found)
    return sorted(seen)


def _imported(path: Path, root: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise BenchError(f"{path} cannot be read as Python: {error}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files_of(root, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            start = root if not node.level else path.parents[node.level - 1]
            steps = (node.module or "").split(".") if node.module else []
            yield from _files_of(start, steps)
            for alias in node.names:  # "from . import helper", "from package import helper"
                yield from _files_of(start, [*steps, alias.name])


def _files_of(start: Path, steps: list[str]) -> Iterator[Path]:
    """Files that importing ``a.b.c`` runs: ``a/__init__.py``, ``a/b/__init__.py``, ``a/b/c.py``, where they exist."""
    place = start
    for step in steps:
        place = place / step
        for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if file.is_file():
                yield file.resolve()


def _top_folder(path: Path, name: str) -> Path:
    """The folder from which the module's top package is imported."""
    above = len(name.split(".")) - (path.name != "__init__.py")
    if name == "__main__" or above < 0 or above >= len(path.parents):
        return path.parent
    return path.parents[above]


def _typed_in(source: Any, name: str) -> str:
    try:
        return stripped_source(textwrap.dedent(inspect.getsource(source)))
    except (OSError, TypeError, SyntaxError) as error:
        raise BenchError(
            f"the source of {getattr(source, '__qualname__', name)} cannot be found, so a change of it could not be "
            "noticed; keep it in a .py file"
        ) from error


@lru_cache
def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
