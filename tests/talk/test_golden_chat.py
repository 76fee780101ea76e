"""Whole sessions as they are kept in ``sessions/``: through a pipe to the letter, and typed at a terminal."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

from recllm_bench.talk.console import Console
from recllm_bench.talk.session import Conversation, Reply

SESSIONS = sorted((Path(__file__).parent / "sessions").glob("*.txt"))
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def typed(conversation: Conversation, *keys: str, columns: int = 200, console: Console | None = None) -> str:
    """What a terminal shows while keys are pressed, as text; those of a later argument half a second later."""
    screen = io.StringIO()
    with create_pipe_input() as pipe:
        pipe.send_text(keys[0])
        for place, later in enumerate(keys[1:], 1):
            threading.Timer(place / 2, pipe.send_text, [later]).start()
        output = Vt100_Output(screen, lambda: Size(rows=50, columns=columns), term="xterm")
        with create_app_session(input=pipe, output=output):
            (console or Console(interactive=True)).run(conversation)
    return screen.getvalue()


@pytest.mark.parametrize("path", SESSIONS, ids=[path.stem for path in SESSIONS])
def test_a_session_through_a_pipe(path: Path, fresh: Callable, monkeypatch, capsys) -> None:
    expected = path.read_text(encoding="utf-8")
    said = "".join(line[2:] + "\n" for line in expected.splitlines() if line.startswith("> "))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said.encode()), encoding="utf-8"))
    Console().run(fresh())
    printed = capsys.readouterr().out
    if os.environ.get("WRITE_GOLDEN"):
        path.write_text(printed, encoding="utf-8")
    assert printed == expected


@pytest.mark.parametrize("path", SESSIONS, ids=[path.stem for path in SESSIONS])
def test_the_same_session_at_a_terminal(path: Path, fresh: Callable) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    said = [line[2:] for line in lines if line.startswith("> ")]
    over = "" if lines[-1] == "Goodbye." and said[-1] == "quit" else "\x04"
    shown = _ESCAPE.sub("", typed(fresh(), "".join(f"{sentence}\r" for sentence in said) + over))
    place = 0
    for line in lines:
        if not line.startswith("> "):
            place = shown.find(line.strip(), place)
            assert place >= 0, f"'{line}' does not follow"


def test_arrows_edit_and_bring_back_what_was_typed(fresh: Callable) -> None:
    conversation = fresh()
    typed(conversation, "horrror\x1b[D\x1b[D\x7f\r", "\x1b[A\r", "\x04")
    assert conversation.state.said == ("horror", "horror")


def test_ctrl_c_takes_back_the_line_and_says_how_to_end(fresh: Callable) -> None:
    conversation = fresh()
    shown = typed(conversation, "a comedy\x03" + "\x03" + "horror\r" + "\x04")
    assert conversation.state.said == ("horror",)
    assert shown.count("Ctrl-D or 'quit' ends") == 1, "only where nothing was typed"
    assert "Goodbye." in shown


def test_ctrl_c_while_it_ranks_changes_nothing(fresh: Callable, monkeypatch) -> None:
    conversation = fresh()

    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(conversation.orders, "order", stopped)
    shown = typed(conversation, "a comedy\r\x04")
    assert "that sentence changes nothing" in shown and not conversation.state.wishes


def test_ctrl_c_while_it_prints_ends_nothing(fresh: Callable, monkeypatch) -> None:
    conversation, show = fresh(), Console.show

    def stopped(console: Console, reply: Reply) -> None:
        monkeypatch.setattr(Console, "show", show)
        raise KeyboardInterrupt

    monkeypatch.setattr(Console, "show", stopped)
    shown = typed(conversation, "a comedy\rhorror\r\x04")
    assert conversation.state.said == ("a comedy", "horror") and "Goodbye." in shown


@pytest.mark.parametrize("seconds", [0.01, 0.02, 0.03, 0.05, 0.08, 0.15, 0.3, 1])
def test_a_process_that_is_told_to_end_ends(fresh: Callable, seconds: float) -> None:
    """At any moment: before the prompt stands, while it is drawn, while it answers, while it waits."""
    before = signal.getsignal(signal.SIGTERM)
    console, start = Console(interactive=True), time.monotonic()
    ask = console._turn

    def turn(conversation: Conversation) -> bool:
        threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
        console._turn = ask
        return ask(conversation)

    console._turn = turn  # the clock starts when signals are heard
    with pytest.raises(SystemExit) as ended:
        typed(fresh(), "hello\r", console=console)
    assert ended.value.code == 143 and time.monotonic() - start < 30
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_whose_exception_is_lost_ends_it_too(fresh: Callable) -> None:
    """Python ignores what is raised while it drops an object, such as one of the prompt's."""
    console = Console(interactive=True)
    ask = console._turn

    class Thing:
        pass

    def turn(conversation: Conversation) -> bool:
        console._turn = ask
        thing = Thing()
        watched = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        del thing
        assert watched() is None
        return ask(conversation)

    console._turn = turn
    with pytest.raises(SystemExit) as ended:
        typed(fresh(), "hello\r", console=console)
    assert ended.value.code == 143


def test_lines_fit_a_narrow_terminal(fresh: Callable) -> None:
    shown = typed(fresh("Harbour, The", "Trenches of Snow"), "a comedy\rhelp\r\x04", columns=60)
    for line in _ESCAPE.sub("", shown).splitlines():
        if line.startswith("  "):  # of an answer; what is typed, and the bar below, are drawn over themselves
            assert len(line.rstrip()) <= 60
