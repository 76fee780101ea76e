"""The table in the README is the one that its command prints."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from recllm_bench import cli
from recllm_bench.reporting.records import find_records

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_shows_what_the_command_prints(tmp_path, capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    arguments, shown = re.search(r"<!-- table: (.+?) -->\n(.*?)<!-- end -->", text, re.DOTALL).groups()
    dataset, protocol = re.search(r"compare (\S+) --protocol (\S+)", arguments).groups()
    for folder in find_records(ROOT / "results" / "reference"):
        if f"-{dataset}-{protocol}-" in folder.name:
            shutil.copytree(folder, tmp_path / folder.name)
    assert cli.main([*arguments.split(), "--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    lines = [line for line in shown.splitlines() if line]
    assert len(lines) >= 12
    missing = [line for line in lines if line not in printed]
    assert not missing, "make it again with the command that stands above it"
