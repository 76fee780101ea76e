"""Progress on a terminal, in a log file, and when the process is killed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

BARS = """
import sys, time
from recllm_bench import progress
progress.show_log()
if len(sys.argv) > 2:
    progress.LOG_SECONDS = float(sys.argv[2])
end = time.monotonic() + float(sys.argv[1])
with progress.track(label="training", total=1000, unit="epoch") as outer:
    while time.monotonic() < end:
        for _ in progress.track(range(20), "epoch", unit="step"):
            time.sleep(0.005)
        outer.update()
        outer.set_postfix_str("loss 0.5")
progress.log.info("trained")
"""
LINE = re.compile(r"(training: \d+ of 1000 epoch|epoch: \d+ of 20 step) in \d\d:\d\d, .* left(, loss 0\.5)?")


def bars(*arguments: str) -> list[str]:
    return [sys.executable, "-c", BARS, *arguments]


def test_a_log_file_gets_whole_lines_no_more_often_than_asked(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w") as file:
        subprocess.run(bars("1.6", "0.5"), stderr=file, check=True, timeout=60)
    *lines, last = (tmp_path / "log").read_text().split("\n")
    assert last == "" and lines.pop() == "trained"
    assert 2 <= len(lines) <= 4
    assert all(LINE.fullmatch(line) for line in lines), lines


def test_a_pipe_gets_nothing_within_the_first_minute() -> None:
    done = subprocess.run(bars("2.6"), capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == "trained\n"


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_process_leaves_no_half_line(sent: signal.Signals) -> None:
    with subprocess.Popen(bars("60", "0.01"), stderr=subprocess.PIPE) as process:
        time.sleep(1.5)
        process.send_signal(sent)
        text = process.communicate(timeout=60)[1].decode()
    assert text.endswith("\n") and "\r" not in text
    assert LINE.fullmatch(text.split("\n")[-2])


def terminal_output(command: list[str], until: str, sent: signal.Signals | None = None) -> str:
    """What a command writes to a terminal; ``sent`` goes to it once ``until`` is on the screen."""
    screen, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=inside, start_new_session=True)
    os.close(inside)
    text = b""
    while True:
        if not select.select([screen], [], [], 60)[0]:
            process.kill()
            pytest.fail(f"nothing was written for a minute; before that: {text[-300:]!r}")
        try:
            text += os.read(screen, 1 << 16)
        except OSError:  # Linux's word for the end of a terminal
            break
        if sent is not None and until.encode() in text:
            process.send_signal(sent)
            sent = None
    os.close(screen)
    process.wait(timeout=60)
    return text.decode()


def test_a_terminal_gets_a_bar() -> None:
    text = terminal_output(bars("3"), "")
    assert re.search(r"\rtraining: +\d+%\|", text)


def test_kill_stops_the_command_as_ctrl_c_does_and_clears_the_bar() -> None:
    training = ["run", "sasrec", "ml-100k", "--alone", "--set", "training.epochs=200", "training.patience=200"]
    command = [sys.executable, "-m", "recllm_bench.cli", *training]
    text = terminal_output(command, "%|", signal.SIGTERM)
    assert "stopped; the same command goes on from here" in text.splitlines()[-1]
    assert "%|" not in text.splitlines()[-1] and "Traceback" not in text
