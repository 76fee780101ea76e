"""What the pages show is run: Python in order, files and commands as they stand, the notebook from top to bottom.

In a page, ``<!-- file: NAME -->`` before a block writes it to a file, and ``<!-- from: PATH -->`` says that its lines
stand in that file of the project, which tests run.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from recllm_bench.api import model as contract
from recllm_bench.api.method import Job, Method, Stage
from recllm_bench.api.words import Words

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "recllm_bench_example"
_BLOCK = re.compile(r"(?:<!-- (file|from): (\S+) -->\n)?```(\w*)\n(.*?)\n```", re.DOTALL)
_SHOWN = ("toml", "yaml", "")  # nothing in them can be run


def blocks(page: str) -> list[tuple[str, str, str, str, int]]:
    """Of a page: (marker, its argument, language, code, line)."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    result = []
    for found in _BLOCK.finditer(text):
        marker, argument, language, code = found.groups("")
        result.append((str(marker), str(argument), str(language), str(code), text[: found.start()].count("\n") + 1))
    return result


def environment(folder: Path) -> dict[str, str]:
    """What a reader has set who follows the page: the project and the examples can be imported."""
    paths = [str(ROOT), str(EXAMPLE), str(folder)]
    binaries = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": os.pathsep.join([binaries, os.environ["PATH"]]),
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.parametrize("page", ["python.md", "plugins.md"])
def test_a_page_runs_from_top_to_bottom(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (EXAMPLE, tmp_path):
        monkeypatch.syspath_prepend(folder)
    names: dict[str, Any] = {"__name__": "page"}
    found = blocks(page)
    assert sum(language in ("python", "sh") for _, _, language, _, _ in found) >= 5
    for marker, argument, language, code, line in found:
        place = f"docs/{page}:{line}"
        if marker == "file":
            (tmp_path / argument).write_text(code + "\n", encoding="utf-8")
        elif marker == "from":
            assert without_indent(code) in without_indent((ROOT / argument).read_text(encoding="utf-8")), place
        elif language == "python":
            exec(compile(code, place, "exec"), names)
        elif language == "sh":
            done = subprocess.run(
                ["bash", "-ec", code], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
            )
            assert done.returncode == 0, f"{place}: {done.stdout[-1500:]}{done.stderr[-1500:]}"
        else:
            assert language in _SHOWN, f"{place}: nobody runs a block of {language}"
    for name in [name for name in sys.modules if name.startswith("recllm_bench_example")]:
        del sys.modules[name]


def without_indent(text: str) -> str:
    """Lines without indentation and empty lines, to find a part of a class in its file."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def contract_names() -> set[str]:
    """Every public name that a plug-in's author may write or use."""
    names = set(contract.Declarations.__annotations__)
    for part in (*contract.CAPABILITIES, Method, Words):
        members = vars(part).items()
        names |= {
            name
            for name, value in members
            if not name.startswith("_") and (callable(value) or isinstance(value, (classmethod, property)))
        }
    names |= {field.name for field in (*dataclasses.fields(Job), *dataclasses.fields(Stage))}
    return {*names, *(part.__name__ for part in contract.CAPABILITIES), "model"}


def test_the_page_documents_every_name_of_the_contract() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    documented = {word for code in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"\w+", code)}
    assert len(contract_names()) > 30
    assert not contract_names() - documented


def test_the_tables_of_a_model_are_its_contract() -> None:
    """Their first column, name by name: what is gone from the contract must go from the page."""
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    part = text[text.index("## The contract of a model") : text.index("## The contract of a method")]
    rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    named = {match for row in rows for match in re.findall(r"`(\w+)", row)}
    capabilities = {name for part in contract.CAPABILITIES for name in vars(part) if name in contract_names()}
    assert named == {*contract.Declarations.__annotations__, *capabilities}


def test_signatures_on_the_page_are_those_of_the_contract() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    for part in contract.CAPABILITIES:
        for name, value in vars(part).items():
            if name.startswith("_") or not (inspect.isfunction(value) or isinstance(value, classmethod)):
                continue
            function = value.__func__ if isinstance(value, classmethod) else value
            arguments = [key for key in inspect.signature(function).parameters if key not in ("self", "cls")]
            assert f"`{name}({', '.join(arguments)})" in text, name


def test_the_notebook_runs(tmp_path: Path) -> None:
    """Within two minutes on two cores; here one core has three."""
    import nbclient
    import nbformat

    book = nbformat.read(ROOT / "examples" / "first_steps.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "committed without outputs"
    start = time.perf_counter()
    client = nbclient.NotebookClient(book, timeout=180, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=environment(tmp_path))
    assert time.perf_counter() - start < 180
    shown = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("<table>" in output.get("data", {}).get("text/html", "") for output in shown)
    assert not any(output.output_type == "error" for output in shown)
