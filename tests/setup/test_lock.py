"""The lock satisfies what setup.cfg asks for, on every Python that the project supports."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
COMMENT = re.compile(r"(^|\s)#.*$")


def requirements(text: str) -> list[Requirement]:
    lines = (COMMENT.sub("", line).strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def asked() -> list[Requirement]:
    """Every requirement of setup.cfg, extras included."""
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = declared["options.extras_require"].values()
    return [wanted for text in (declared["options"]["install_requires"], *extras) for wanted in requirements(text)]


def pins(text: str, python: str) -> dict[str, Version]:
    """Package -> version pinned for ``python`` on Linux; one pin each, or a failure."""
    machine = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    found: dict[str, Version] = {}
    for pin in requirements(text):
        if pin.marker is None or pin.marker.evaluate(machine):
            (exact,) = pin.specifier
            assert exact.operator == "==", f"{pin} is no exact pin"
            name = canonicalize_name(pin.name)
            assert name not in found, f"{name} is pinned twice for Python {python}"
            found[name] = Version(exact.version)
    return found


def unmet(wanted: list[Requirement], found: dict[str, Version]) -> list[str]:
    names = [(wish, canonicalize_name(wish.name)) for wish in wanted]
    return [str(wish) for wish, name in names if name not in found or not wish.specifier.contains(found[name], True)]


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_pinned_to_a_version_it_allows(python: str) -> None:
    wanted = [wish for wish in asked() if wish.marker is None or wish.marker.evaluate({"python_version": python})]
    assert len(wanted) > 25
    assert unmet(wanted, pins((ROOT / "constraints.txt").read_text(), python)) == []


def test_a_stale_lock_is_noticed() -> None:
    lock = 'markdown==3.11 ; python_full_version < "3.11"\nmarkdown==3.11.3 ; python_full_version >= "3.11"\n'
    wanted = requirements("Markdown>=3.11.1\ntensorboard  # not in the lock")
    assert unmet(wanted, pins(lock, "3.10")) == ["Markdown>=3.11.1", "tensorboard"]
    assert unmet(wanted, pins(lock, "3.12")) == ["tensorboard"]


def test_the_lock_is_as_the_tool_wrote_it_and_names_no_place() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert "make lock" in text.splitlines()[1]
    assert "://" not in text and "--" not in text
    assert pins(text, "3.11")["torch"] == Version("2.13.0")


def test_the_pythons_tested_are_those_declared() -> None:
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg", encoding="utf-8")
    allowed = SpecifierSet(declared["options"]["python_requires"])
    assert [f"3.{minor}" for minor in range(6, 20) if allowed.contains(f"3.{minor}.0")] == list(PYTHONS)


@pytest.mark.network
def test_each_python_resolves_from_the_lock() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(["make", "check-lock"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:4] == [f"Python {python}" for python in PYTHONS]
