"""``recllm-bench list``: what is known by name, with a line about each. Imports no model and none of RecBole."""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import textwrap
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recllm_bench.errors import BenchError

Rows = Sequence[tuple[str, str]]


def listing(options: argparse.Namespace) -> None:
    parts = []
    for kind, (title, rows) in KINDS.items():
        if options.what == kind or (options.what is None and kind != "zoo"):
            found = rows()
            if options.what is None and kind == "recipes":
                found = [(name, about.partition(". ")[0]) for name, about in found]
            parts.append(f"{title}\n{found}" if isinstance(found, str) else _lines(title, found))
    print("\n\n".join(parts))
    if options.what is None:
        print(f"\nRecBole's {len(_zoo())} models: recllm-bench list zoo; by name, or recbole:Name")


def _lines(title: str, rows: Rows) -> str:
    """Names and what is said of them, folded to the terminal."""
    room = shutil.get_terminal_size((120, 24)).columns
    width = min(max((len(name) for name, _ in rows), default=0), room // 2)
    lines = [title]
    for name, about in rows:
        text = textwrap.fill(
            f"{name:<{width}}  {about}".rstrip(), max(40, room - 2), subsequent_indent=" " * (width + 2),
            break_on_hyphens=False, break_long_words=False,
        )  # fmt: skip
        lines += [f"  {line}" for line in text.splitlines()]
    return "\n".join(lines)


def _models() -> Rows:
    from recllm_bench.api import registry
    from recllm_bench.models import ABOUT

    zoo = {name.removeprefix(registry.ZOO) for name, _ in _zoo()}
    own = [name for name in registry.names("models") if name.removeprefix(registry.ZOO) not in zoo]
    return [(name, ABOUT.get(name) or _docstring("models", name)) for name in own]


def _zoo() -> Rows:
    """RecBole's models, each with the first sentence of its docstring, read from the file."""
    from recllm_bench.api.registry import zoo_names

    spec = find_spec("recbole")
    root = Path((spec.submodule_search_locations or [""])[0], "model") if spec else Path()
    files = {path.stem: path for path in root.glob("*_recommender/*.py")}
    rows = []
    for name in zoo_names():
        path = files[name.lower()]
        kind = path.parent.name.partition("_")[0]
        rows.append((name, f"{kind}: {_first_line(path, name)}".removesuffix(": ")))
    return rows


def _simulators() -> Rows:
    from recllm_bench.api import registry

    forms = {"local": "local:NAME", "server": "server:MODEL@URL", "replay": "replay:FILE"}
    return [(forms.get(name, name), _docstring("simulators", name)) for name in registry.names("simulators")]


def _docstring(kind: str, name: str) -> str:
    from recllm_bench.api.registry import place

    module, _, attribute = place(kind, name).partition(":")
    try:
        spec = find_spec(module) if module else None
        return _first_line(Path(spec.origin), attribute) if spec and spec.origin else ""
    except (ImportError, OSError, ValueError, SyntaxError) as error:
        return f"cannot be read: {error}"


def _first_line(path: Path, name: str) -> str:
    """The first sentence of a class's or function's docstring, without importing it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            text = " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
            sentence = re.sub(r":\w+:`([^`]+)`", r"\1", text.partition(". ")[0].rstrip("."))
            return sentence if len(sentence) <= 160 else sentence[:157].rpartition(" ")[0] + " ..."
    return ""


def _llms() -> Rows:
    from recllm_bench.language.backbone_files import language_models

    return language_models()


def _datasets() -> str:
    from recllm_bench.data.listing import dataset_table, listed_datasets

    return dataset_table(listed_datasets(), shutil.get_terminal_size((0, 24)).columns)


def _protocols() -> Rows:
    from recllm_bench.evaluation.protocols import protocol_lines

    return protocol_lines()


def _metrics() -> Rows:
    from recllm_bench.evaluation.metrics import metric_lines

    return metric_lines()


def _recipes() -> Rows:
    """Each recipe with what it runs and its ``about``."""
    from recllm_bench.recipe import read_recipe_file, recipe_names

    rows = []
    for name in recipe_names():
        try:
            values = read_recipe_file(name)
        except BenchError as error:
            rows.append((name, f"cannot be used: {error}"))
            continue
        verb = f"sweep of {len(values['rows'])} rows" if values.get("rows") else "run"
        about = " ".join(str(values.get("about") or "").split())
        rows.append((name, f"{verb}: {about}".removesuffix(": ")))
    return rows


KINDS: dict[str, tuple[str, Callable[[], Any]]] = {
    "models": ("models of this bench and of plug-ins (recllm-bench options MODEL)", _models),
    "zoo": ("RecBole's models (by name, or recbole:Name)", _zoo),
    "llms": ("language models (llm=NAME, or local:NAME to talk)", _llms),
    "simulators": ("simulated users (--set conversation.simulator=NAME)", _simulators),
    "datasets": ("datasets", _datasets),
    "protocols": ("protocols (--protocol NAME)", _protocols),
    "metrics": ("metrics (--metrics NAME or NAME@K)", _metrics),
    "recipes": ("recipes (recllm-bench run --recipe NAME, or sweep NAME)", _recipes),
}
"""What can be listed, with its title."""
