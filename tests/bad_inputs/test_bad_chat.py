"""A chat on the terminal whose input ends, or is no text."""

from __future__ import annotations

import io
import sys

import pytest

from recllm_bench import cli


@pytest.fixture
def talk(shop, monkeypatch):
    def said(data: bytes, *options: str) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        return cli.main(["chat", "text-retrieval", str(shop), *options])

    return said


def test_the_end_of_the_input_ends_the_chat(talk, capsys) -> None:
    assert talk(b"") == 0
    assert talk(b"a comedy\n") == 0
    assert talk(b"a comedy") == 0, "the last line may lack its end"
    printed = capsys.readouterr()
    assert "error:" not in printed.err and printed.out.count("Goodbye.") == 3


@pytest.mark.parametrize("data", [b"\xff\xfe\n", b"caf\xe9\n", b"an invented story\n\xc3(\n", b"\xed\xa0\x80\n"])
def test_input_that_is_not_utf8_is_one_line(talk, capsys, data: bytes) -> None:
    assert talk(data) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "utf-8" in lines[0]


@pytest.mark.parametrize(
    "data", [b"\x00\x01\x02\n", b"x" * 100_000 + b"\n", "\U0001f3b8 \u202e\n".encode(), b"\n\n \n"]
)
def test_odd_sentences_change_nothing_that_is_filtered(talk, capsys, data: bytes) -> None:
    assert talk(data + b"filter\n") == 0
    printed = capsys.readouterr().out
    assert "No filter; ranked by Text retrieval only" in printed
    assert all(letter.isprintable() for line in printed.splitlines() for letter in line)


def test_what_the_end_of_the_input_leaves_open_is_refused(talk, capsys) -> None:
    assert talk(b"", "--history", "Invented Story") == 2
    assert "write the title whole" in capsys.readouterr().err
    assert talk(b"2\nhistory\n", "--history", "Invented Story") == 0
    assert "You know: Invented Story" in capsys.readouterr().out
