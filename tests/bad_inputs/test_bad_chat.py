"""A chat on the terminal whose input ends, or is no text."""

from __future__ import annotations

import io
import sys

import pytest

from recllm_bench import cli


@pytest.fixture
def talk(shop, monkeypatch):
    def said(data: bytes) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        return cli.main(["chat", "text-retrieval", str(shop)])

    return said


def test_the_end_of_the_input_ends_the_chat(talk, capsys) -> None:
    assert talk(b"") == 0
    assert talk(b"an invented story\n") == 0
    assert "error:" not in capsys.readouterr().err


@pytest.mark.parametrize("data", [b"\xff\xfe\n", b"caf\xe9\n", b"an invented story\n\xc3(\n", b"\xed\xa0\x80\n"])
def test_input_that_is_not_utf8_is_one_line(talk, capsys, data: bytes) -> None:
    assert talk(data) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "utf-8" in lines[0]


@pytest.mark.parametrize("data", [b"\x00\x01\x02\n", b"x" * 100_000 + b"\n", "\U0001f3b8 \u202e\n".encode()])
def test_odd_sentences_get_an_answer(talk, capsys, data: bytes) -> None:
    assert talk(data) == 0
    assert "  1. " in capsys.readouterr().out
