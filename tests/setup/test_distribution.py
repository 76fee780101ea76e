"""What the sdist and the wheel hold, and what somebody with the wheel alone is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = shutil.ignore_patterns(".*", "__pycache__", "runs", "*.egg-info", "build", "dist")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel, made by the build backend itself from a copy of the tree."""
    folder = tmp_path_factory.mktemp("dist")
    copy = folder / "copy"
    shutil.copytree(ROOT, copy, ignore=SKIPPED)
    shutil.copytree(ROOT / ".ci", copy / ".ci")
    for kind in ("sdist", "wheel"):
        code = f"from setuptools import build_meta; build_meta.build_{kind}({str(folder)!r})"
        subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True, timeout=120)
    return folder


def test_the_sdist_holds_all_that_the_project_is_made_of(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"Makefile", "constraints.txt", "CHANGELOG.md", ".ci/run", "datasets/README.md", "docs/data.md"}
    assert wanted <= held
    for folder in ("docs", "examples", "tests", "recipes", "datasets", "benchmarks", "protocols", "recllm_bench"):
        here = [path for kind in ("py", "md", "yaml", "ipynb") for path in (ROOT / folder).rglob(f"*.{kind}")]
        missing = {str(path.relative_to(ROOT)) for path in here if not ignored(path)} - held
        assert not missing


def ignored(path: Path) -> bool:
    return any(part.startswith(".") or part in ("build", "dist") for part in path.relative_to(ROOT).parts)


def test_the_wheel_holds_types_cards_and_recipes(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        held = archive.namelist()
    assert "recllm_bench/py.typed" in held
    shared = "data/share/recllm_bench/"
    for name in ("datasets/ml-100k.yaml", "recipes/latentcrs-ml-100k.yaml"):
        assert any(path.endswith(shared + name) for path in held), name
    assert not any(path.startswith("tests/") for path in held)


def test_without_recbole_the_first_command_says_how_to_get_it(built: Path, tmp_path: Path) -> None:
    """The wheel in an environment of its own, with this environment's packages except RecBole."""
    home = tmp_path / "venv"
    venv.create(home, symlinks=True)
    site = next(home.glob("lib/python3*/site-packages"))
    own = home / "packages"
    own.mkdir()
    here = Path(pytest.__file__).resolve().parents[1]
    for entry in here.iterdir():
        if not entry.name.lower().startswith(("recbole", "recllm", "__editable__", "_recllm", "__pycache__")):
            (own / entry.name).symlink_to(entry)
    (site / "packages.pth").write_text(str(own))
    python = home / "bin" / "python"
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        archive.extractall(site)
    (shared,) = site.glob("*.data/data/share")
    shared.rename(home / "share")
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        call = [python, "-m", "recllm_bench.cli", *arguments]
        return subprocess.run(call, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=120)

    how = "RecBole is not installed; get it with: pip install --no-deps recbole==1.2.1"
    for arguments in (["run", "sasrec"], ["run", "GRU4Rec", "ml1m"], ["options", "sasrec"], ["sweep", "none.yaml"]):
        done = command(*arguments)
        assert (done.returncode, done.stderr) == (2, f"error: {how}\n")
    doctor = command("doctor").stdout
    assert how in doctor
    assert "1 to mend" in doctor, doctor
    assert "constraints.txt" not in doctor, "a wheel has no such file"
    assert command("list", "recipes").returncode == 0
