"""A small shop of our own, and what every refused command has in common: exit code 2 and one line that helps."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from recllm_bench import cli
from recllm_bench.cli import looking, running
from recllm_bench.cli.parser import EPILOG
from tests.conftest import planted_catalogue, planted_histories

Refused = Callable[..., str]
LONGEST = 700
"""Characters of a line that a person still reads."""


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own table of 40 users and 30 items, with its catalogue beside it."""
    folder = tmp_path_factory.mktemp("shop")
    histories, catalogue = planted_histories(40, 30, 10), planted_catalogue(30)
    lines = ["user_id,item_id,timestamp"]
    for user in range(1, 41):
        lines += [f"u{user},m{item},{1_000_000_000 + place}" for place, item in enumerate(histories.of(user))]
    (folder / "shop.csv").write_text("\n".join(lines) + "\n")
    rows = [f"m{item},{catalogue.titles[item]},{'|'.join(catalogue.categories[item])}" for item in range(1, 31)]
    (folder / "shop.items.csv").write_text("\n".join(["item_id,title,categories", *rows]) + "\n")
    return folder / "shop.csv"


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all cases: what is refused must leave nothing that the next case would find."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECLLM_CACHE", str(shared_cache))
    monkeypatch.setenv("RECLLM_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("RECLLM_DATA_MIRROR", raising=False)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture, tmp_path: Path) -> Refused:
    """A function that runs a bad command, checks how it is refused, and returns the line it ends in."""

    def checked(arguments: list[object], *said: str) -> str:
        words = [str(argument) for argument in arguments]
        code = exit_code(words)
        printed = capsys.readouterr()
        lines = [line for line in printed.err.splitlines() if re.match(r"(recllm-bench( \w+)?: )?error: ", line)]
        assert code == 2, f"exit code {code}, printed: {(printed.err or printed.out)[-400:]}"
        assert len(lines) == 1, printed.err
        assert "Traceback" not in printed.err
        assert printed.err.rstrip().endswith(lines[0]), "the reason stands last, on one line"
        assert len(lines[0]) <= LONGEST, "a line that is read"
        for part in said:
            assert part in lines[0]
        assert not list(tmp_path.rglob("run.json.bad")), "nothing is left behind"
        follow_hints(words, lines[0], capsys)
        return lines[0]

    return checked


def exit_code(words: list[str]) -> int:
    """Exit code of a command, whether the command line or the command itself refuses it."""
    try:
        return cli.main(words)
    except SystemExit as error:
        return int(error.code or 0)


def follow_hints(words: list[str], line: str, capsys: pytest.CaptureFixture) -> None:
    """Do what a message says, as far as that can be done here.

    A name that was meant instead must end the complaint about the wrong one; commands, flags and environment variables
    must exist.
    """
    parser = cli.build_parser()
    verbs = parser._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    for verb in re.findall(r"'recllm-bench (\w+)", line):
        assert verb in verbs, f"the hint names a command that does not exist: {line}"
    flags = {flag for each in verbs.values() for action in each._actions for flag in action.option_strings}
    for flag in re.findall(r"(?<![\w'-])--[a-z][a-z-]*", line.replace(" ".join(words), "")):
        assert flag in flags or flag in " ".join(words), f"the hint names an option that does not exist: {line}"
    for name in re.findall(r"RECLLM_[A-Z_]+", line):
        assert name in EPILOG, f"the hint names a variable that does not exist: {line}"
    found = re.search(r"'([^']*)'[^']*\. Did you mean '([^']+)'\?", line)
    if found:
        wrong, right = found.groups()
        mended = [_replaced(word, wrong, right) for word in words]
        if mended != words:
            assert f"'{wrong}'" not in _planning_error(mended), "the hint does not mend it"


def _replaced(word: str, wrong: str, right: str) -> str:
    return re.sub(rf"(?<![\w-]){re.escape(wrong)}(?![\w-])", right, word)


def _planning_error(words: list[str]) -> str:
    """What is wrong with a command before anything is trained; empty when nothing is."""
    from recllm_bench.errors import BenchError
    from recllm_bench.planning import comparison_recipes, sweep_recipes

    options = cli.build_parser().parse_args(words)
    try:
        if options.command is running.run or options.command is running.chat:
            for values in running.seeded(options)[0]:
                comparison_recipes(values, "here")
        elif options.command is running.sweep:
            for values in running.seeded(options)[0]:
                sweep_recipes(values, "here")
        elif options.command is looking.model_options:
            options.command(options)
        elif options.command in (looking.prepare, looking.describe):
            from recllm_bench.data.prepare import canonical_name

            canonical_name(options.dataset)
    except BenchError as error:
        return str(error)
    return ""
