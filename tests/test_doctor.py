"""The doctor: a table, never a traceback."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from recllm_bench import doctor


def found() -> dict[str, tuple[str, str]]:
    return {subject: (mark, text) for mark, subject, text in doctor.rows()}


def test_names_what_is_installed_and_the_device() -> None:
    table = found()
    assert table["numpy"] == ("ok", metadata.version("numpy"))
    assert table["RecBole"][0] == "ok"
    assert table["device"][1].startswith(("cpu", "cuda"))
    assert "GiB free" in table["cache"][1]
    assert "Python" in doctor.report()


def test_a_missing_package_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name in ("faiss-cpu", "peft"):
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    table = found()
    assert table["faiss-cpu"] == ("!!", "missing; pip install -c constraints.txt faiss-cpu")
    assert table["peft"][0] == "--"
    assert "to mend (marked !!)" in doctor.report()


def test_wrong_places_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(tmp_path / "absent"))
    monkeypatch.setenv("RECLLM_CACHE", str(tmp_path / "file" / "below"))
    table = found()
    assert table["RECLLM_DATA_MIRROR"][0] == "!!"
    assert table["cache"][0] == "!!"
    assert "RECLLM_CACHE" in table["cache"][1]
    monkeypatch.setenv("RECLLM_DATA_MIRROR", "https://example.org/data")
    assert found()["RECLLM_DATA_MIRROR"][0] == "ok"


def test_a_broken_installation_gives_a_row_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list:
        raise RuntimeError("libplanted.so is missing\nsecond line")

    monkeypatch.setattr(doctor, "_torch", broken)
    assert ("!!", "broken", "RuntimeError: libplanted.so is missing") in doctor.rows()


def test_low_space_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOW_SPACE", 1 << 62)
    assert found()["cache"][0] == "!!"
