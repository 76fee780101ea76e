"""Tables in a terminal of 80, 120 and 200 columns, and in the formats for other programs."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from recllm_bench.api.measure import Measure
from recllm_bench.cli.running import _has_colour
from recllm_bench.errors import BenchError
from recllm_bench.language.chat_spending import price_table
from recllm_bench.recipe import ConversationOptions
from recllm_bench.reporting.costs import COSTS, cost_names, duration
from recllm_bench.reporting.exported import written
from recllm_bench.reporting.page import Cell, Look, Page
from recllm_bench.reporting.table import compared, comparison_table

GOLDEN = Path(__file__).parent / "golden"
WIDTHS = (80, 120, 200)
TALK = {"model": "latentcrs", "block": "text"}
NAMES = ("Recall@5", "Recall@10", "Recall@20", "NDCG@5", "NDCG@10", "NDCG@20")


@pytest.fixture
def rows(make):
    """Long names, published numbers, notes, costs, measures that matter and workings that do not."""
    counted = [Measure("n_exact", 700.0), Measure("fallback rate", 0.0), Measure("masking, seconds a user", 0.01)]
    others = {"substitutes": {"simulator": "rules"}, "tokens": {"prompt": 40000.0, "generated": 4000.0}}
    return [
        make("SASRec (ours)", 2.5, seed=6, costs={"parameters": 123_456, "peak_memory": 300 * 2**20}),
        make("Pop (RecBole)", 0.5, model="pop", seed=7),
        make(
            "LatentCRS",
            4.0,
            seed=5,
            measures=[Measure("label similarity", 0.42, "users"), *counted],
            notes=["at most 10 epochs"],
            **others,
            **TALK,
        ),
        make(
            "LatentCRS, another user's words",
            1.0,
            seed=1,
            conversation=ConversationOptions(words="another"),
            measures=[Measure("label similarity", 0.31, "users"), *counted],
            **TALK,
        ),
        make("Best history row among items that fit the words", 2.0, model="words-fit", block="text", seed=3),
    ]


def wide(records, **choices) -> str:
    from recllm_bench.reporting.chosen_metrics import with_metrics

    chosen, columns = with_metrics(records, ["Recall@5", "Recall@10", "Recall@20", "NDCG@5", "NDCG@10", "NDCG@20"])
    return written(compared(chosen, metrics=columns), Look(**choices))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_at_each_width(rows, width: int):
    text = wide(rows, width=width)
    path = GOLDEN / f"{width}.txt"
    if not path.exists():
        path.write_text(text + "\n", encoding="utf-8")
        pytest.fail(f"{path.name} was written; look at it and keep it")
    assert text + "\n" == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", (60, *WIDTHS, 300))
def test_every_line_fits_and_the_main_metric_stays(rows, width: int):
    text = wide(rows, width=width, costs=tuple(COSTS))
    assert max(map(cell_len, text.splitlines())) <= width
    grids = [line for line in text.splitlines() if line.startswith("model ")]
    assert len(grids) == 2 and all("NDCG@10" in line for line in grids)
    if width == 300:
        assert "too narrow" not in text and all(name in grids[0] for name in NAMES)
        assert "0.4200" not in text and "0.42" in text, "a measure has four digits at most"
    elif width <= 120:
        gone = re.search(r"\(too narrow for (.+?): (\d+) columns or", " ".join(text.split()))
        assert not set(gone[1].split(", ")) & set(re.split(r"\s+", grids[0]))
        again = wide(rows, width=int(gone[2]), costs=tuple(COSTS))
        assert "too narrow" not in again.split("With words")[0], "as wide as it says, nothing is left out"


def test_what_is_dropped_is_the_least_important(rows):
    def gone(**look) -> list[str]:
        text = " ".join(wide(rows, width=60, **look).split("With words")[0].split())
        return re.search(r"\(too narrow for (.+?):", text)[1].split(", ")

    assert gone() == ["NDCG@5", "NDCG@20", "training"], "the cost, then secondary metrics from the last"
    assert gone(costs=("evaluation", "latency")) == ["Recall@10", "Recall@20", "NDCG@5", "NDCG@20"], "asked for"


def test_colour_and_links_are_for_terminals_alone(rows, monkeypatch):
    text = wide(rows, width=200, colour=True)
    assert re.search(r"\x1b\[(1;)?32m ▲", text) and "\x1b]8;" in text
    assert rows[0].folder.as_uri() in text
    plain = re.sub(r"\x1b\]8;[^\x1b]*\x1b\\|\x1b\[[\d;]*m", "", text)
    assert [line.rstrip() for line in plain.splitlines()] == wide(rows, width=200).splitlines()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert _has_colour()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not _has_colour()


def test_names_from_data_cannot_steer_the_terminal(make):
    hostile = "\x1b[2J\x1b]0;x\x07row\u202e\r\nnext"
    for look in (Look(), Look(colour=True), Look(format="markdown"), Look(format="latex")):
        text = comparison_table([make(hostile, 1.0), make("b", 2.0, seed=1)], look=look)
        assert "\x1b[2J" not in text and "\x1b]0" not in text and "\u202e" not in text and "\r" not in text
        assert "x1b[2J" in text


def test_a_narrow_grid_of_wide_signs():
    cells = [[Cell("model"), Cell("値段")], [Cell("推薦" * 20), Cell("1.0")]]
    text = Page(Look(width=40)).grid(cells)
    assert max(map(cell_len, text.splitlines())) <= 40 and text.count("推薦") >= 18


def test_workings_are_shown_when_asked_for(rows):
    text = comparison_table(rows)
    assert "label similarity, users" in text and "title" not in text.split("Beside the ranking")[1]
    assert "(3 more with --verbose: counts of the workings" in text
    every = comparison_table(rows, look=Look(verbose=True))
    assert re.search(r"lines that are a title +700 +700", every) and "n_exact" not in every
    assert "fallback rate" in every and "masking, seconds a user" in every and "more with --verbose" not in every


def test_costs_by_choice(rows, tmp_path):
    (tmp_path / "prices.yaml").write_text("rules: {input: 10, output: 40}\nother: {input: 1, output: 1}\n")
    prices = price_table(tmp_path / "prices.yaml")
    asked = {"rules": {"answers": 9, "new": 9, "prompt_tokens": 40000, "completion_tokens": 4000}}
    rows[2].spent = asked
    rows[3].spent = {**asked, "no price": asked["rules"]}
    look = Look(format="json", costs=tuple(COSTS), prices=prices)
    (table,) = json.loads(written(compared(rows), look))
    costs = {row["row"]: row["costs"] for row in table["rows"]}
    ours, words = costs["SASRec (ours)"], costs["LatentCRS"]
    assert ours["parameters"] == 123_456 and ours["peak memory"] == 300 * 2**20
    assert words["parameters"] is None and ours["tokens in"] is None, "not known is not 0"
    assert (words["tokens in"], words["tokens out"]) == (100.0, 10.0), "of 400 users"
    assert words["price"] == pytest.approx(1000 * (100 * 10 + 10 * 40) / 1e6)
    other = costs["LatentCRS, another user's words"]
    assert other["price"] is None and other["tokens in"] == 200.0, "a model without a price, and both models' tokens"
    assert ours["latency"] == pytest.approx(0.4 / 400) and ours["training"] == 15.0
    text = comparison_table(rows, look=Look(width=200, costs=tuple(COSTS), prices=prices))
    for shown in ("123.5 k", "300 MiB", "15.0 s", "1 ms", "1.40"):
        assert shown in text
    assert "tokens: read and written by language models for one user" in " ".join(text.split())
    assert [duration(seconds) for seconds in (0.001, 0.05, 0.5)] == ["1 ms", "50 ms", "0.5 s"]


def test_wrong_costs_are_one_line():
    with pytest.raises(BenchError, match=r"no cost 'latncy'.*Did you mean 'latency'"):
        cost_names("training,latncy")
    assert cost_names("all") == tuple(COSTS) and cost_names("none") == ()


def test_json_holds_what_the_table_says(rows):
    (table,) = json.loads(written(compared(rows), Look(format="json")))
    assert (table["subject"], table["primary"]) == ("LatentCRS", "NDCG@20")
    assert {each["role"] for each in table["planned"]} >= {"best baseline", "control"}
    row = next(row for row in table["rows"] if row["row"] == "LatentCRS")
    assert row["metrics"]["NDCG@20"]["mark"] == "better" and row["is_subject"]
    assert row["published"]["Recall@5"]["place"] == "latentcrs T2"
    assert row["records"] == [str(rows[2].folder)]
    assert table["conclusions"]["text"].startswith("LatentCRS is better than")


def test_csv_is_a_line_for_each_row(rows):
    found = list(csv.DictReader(io.StringIO(written(compared(rows), Look(format="csv")))))
    assert len(found) == 5 and {line["dataset"] for line in found} == {"ml1m"}
    line = next(line for line in found if line["row"] == "LatentCRS")
    facts = compared(rows)[0].records
    mean = next(record for record in facts if record.name == "LatentCRS").metrics["NDCG@20"]["mean"]
    assert float(line["NDCG@20"]) == mean and line["NDCG@20 mark"] == "better" and line["training"] == "15.0"


def test_latex_is_escaped_and_complete(make):
    text = comparison_table([make("50% a_b & {c}", 1.0), make("b", 2.0, seed=1)], look=Look(format="latex"))
    assert r"50\% a\_b \& \{c\}" in text and text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 1
    assert r"$\pm$" in text and not re.search(r"[▲▼±≈]", text)
    rows = re.findall(r"^(?!\\).* \\\\$", text, re.MULTILINE)
    assert len(rows) == 3 and {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {5}


def test_what_the_command_line_prints_without_a_terminal(rows):
    """In a pipe: no escape sequences, and COLUMNS decides."""
    code = "import sys; from recllm_bench.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["compare", "--results", str(rows[0].folder.parent)]
    import os

    said = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "COLUMNS": "70"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "\x1b" not in said and max(map(cell_len, said.splitlines())) <= 70
