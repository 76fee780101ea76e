"""The terminal of a conversation: an editable line with history where there is one, plain lines from a pipe."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from html import unescape
from typing import TYPE_CHECKING, Any

from recllm_bench.errors import BenchError
from recllm_bench.talk import commands

if TYPE_CHECKING:
    from recllm_bench.talk.session import Conversation, Reply

_PROMPT = "> "
_STYLES = {"filter": "ansicyan", "number": "bold", "why": "ansibrightblack", "plain": ""}
_COMPLETED = (
    *(commands.MORE, commands.UNDO, commands.RESTART, commands.ACCEPT, commands.SEEN, commands.HISTORY),
    *("filter", commands.HELP, commands.QUIT, "like", "something newer", "something older", "any year", "any kind"),
)


class _Told(Exception):
    """The process is to end."""


class Console:
    """Reads sentences and shows answers.

    Parameters
    ----------
    interactive : bool, optional
        Whether a person types; by default whether input and output are terminals.

    Notes
    -----
    Nothing that is shown holds a control character: titles are somebody else's text, and a terminal obeys some.
    """

    def __init__(self, interactive: bool | None = None) -> None:
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty() if interactive is None else interactive
        self._conversation: Conversation | None = None
        self._signals: list[int] = []  # that told the process to end

    def say(self, line: str, style: str = "plain", indent: int = 0) -> None:
        """Print a line, wrapped where there is a terminal."""
        text = " " * indent + printable(line)
        if not self.interactive:
            encoding = sys.stdout.encoding or "utf-8"
            print(text.encode(encoding, "replace").decode(encoding), flush=True)
            return
        from prompt_toolkit import print_formatted_text
        from prompt_toolkit.formatted_text import FormattedText

        width = max(20, self._width() - 1)
        rows = textwrap.wrap(text, width, subsequent_indent=" " * (indent or 2), break_on_hyphens=False) or [""]
        for row in rows:
            print_formatted_text(FormattedText([(_STYLES[style], row)]))

    def ask(self, question: str) -> str:
        """Put a question and read the answer; empty at the end of the input."""
        self.say(question)
        try:
            return self._read()
        except EOFError:
            return ""

    def run(self, conversation: Conversation) -> None:
        """Talk until the input ends or somebody says so.

        Raises
        ------
        BenchError
            When the input is no text.
        SystemExit
            With 130 after Ctrl-C where nobody types, 143 when the process is told to end.
        """
        self._conversation = conversation
        with self._ended_by_signal():
            while True:
                try:
                    if self._turn(conversation):
                        return
                except _Told:
                    pass
                except KeyboardInterrupt:  # while something is printed, too: the rest of it is not wanted
                    if not self.interactive:
                        raise SystemExit(130) from None
                if self._signals:
                    raise SystemExit(128 + self._signals[0])

    def show(self, reply: Reply) -> None:
        """Print an answer."""
        for line in reply.says:
            self.say(line, "filter" if line.startswith(("I filter", "No filter")) else "plain")
        for number, (line, reason) in enumerate(reply.lines, 1):
            self.say(f"{number}. {line}", "number", indent=2 if number < 10 else 1)
            if reason:
                self.say(reason, "why", indent=5)
        for line in reply.after:
            self.say(line)

    def _turn(self, conversation: Conversation) -> bool:
        """Read a sentence and answer it; whether the conversation is over."""
        try:
            sentence = self._read()
        except EOFError:
            self.say("Goodbye.")
            return True
        except KeyboardInterrupt:
            if self.interactive and not self._session.default_buffer.text:  # else it took back what was typed
                self.say("Ctrl-D or 'quit' ends the conversation.")
            raise
        return bool(sentence.strip()) and self._answer(conversation, sentence)

    def _answer(self, conversation: Conversation, sentence: str) -> bool:
        before = replace(conversation.state)
        try:
            reply = conversation.answer(sentence)
        except KeyboardInterrupt:
            if not self.interactive:
                raise SystemExit(130) from None
            conversation.state = before
            self.say("Stopped; that sentence changes nothing.")
            return False
        self.show(reply)
        return reply.ends

    def _read(self) -> str:
        if self.interactive:
            return str(self._session.prompt(_PROMPT, pre_run=self._leave_if_told))
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError as error:
            code = sys.stdin.encoding
            raise BenchError(f"chat: the input is not {code} ({error.reason}); set the terminal to {code}") from error
        if not line:
            raise EOFError
        self.say(_PROMPT + line.rstrip("\r\n")[:200])
        return line

    @cached_property
    def _session(self) -> Any:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import InMemoryHistory

        facts = self._conversation.vocabulary.examples(200) if self._conversation else []
        words = WordCompleter([*_COMPLETED, *map(printable, facts)], ignore_case=True, sentence=False)
        return PromptSession(
            history=InMemoryHistory(),
            completer=words,
            complete_while_typing=False,
            bottom_toolbar=self._toolbar,
        )

    @contextmanager
    def _ended_by_signal(self) -> Iterator[None]:
        """Let the process be ended from outside while it waits for a sentence: that is no Ctrl-C at the prompt.

        What a signal raises is lost where it meets the end of an object or a task of the prompt's loop, which then
        waits on. So it is noted as well, a prompt that begins looks, and one that stands is told by its own loop.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def end(number: int, frame: Any) -> None:
            self._signals.append(number)
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:  # nobody types
                raise SystemExit(128 + number) from None
            loop.call_soon_threadsafe(self._leave_if_told)

        earlier = signal.signal(signal.SIGTERM, end)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, earlier)

    def _leave_if_told(self) -> None:
        app = self._session.app
        if self._signals and app.is_running and not app.is_done:
            app.exit(exception=_Told())

    def _toolbar(self) -> str:
        line = self._conversation.filter_line() if self._conversation else ""
        return printable(line)[: max(20, self._width() - 1)]

    def _width(self) -> int:
        from prompt_toolkit.application import get_app_session

        try:
            return int(get_app_session().output.get_size().columns)
        except (AttributeError, OSError):
            return shutil.get_terminal_size().columns


def printable(text: str) -> str:
    """A text on one line, its HTML entities read, without control characters or marks that turn its direction."""
    return "".join(letter if letter.isprintable() else " " for letter in unescape(text))
