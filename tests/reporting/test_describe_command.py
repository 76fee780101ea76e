"""``describe`` and ``datasets`` through the command line, and the screen they print."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from recllm_bench import cli
from recllm_bench.data.dataset_description import describe
from recllm_bench.data.histories import Histories
from recllm_bench.reporting.description import bar, format_description, percent, sparkline
from tests.data.planted_prepared import prepared_from


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch):
    monkeypatch.delenv("RECLLM_DATA_MIRROR", raising=False)


def test_movielens_100k_on_one_screen(capsys, tmp_path):
    file = tmp_path / "described" / "ml.json"
    assert run("describe", "ml-100k", "--json", file) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) < 50
    assert max(map(len, lines)) <= 100
    for said in (
        "MovieLens 100K (ml-100k) · filter all",
        "with times, with ratings",
        "licence: GroupLens research use",
        "943   mean length      106.04   density               6.30 %",
        "tied in time          75.8 %",
        "21,201   21.2 %",  # five stars
        "time: 1997-09-20 to 1998-04-22",
        "sequential structure: order carries signal; shuffling changes NDCG@10 by -",
        "44.0 % of the targets share their second with the item before",
    ):
        assert said in text
    found = json.loads(file.read_text())
    assert found["counts"]["interactions"] == 100_000
    assert sum(found["ratings"]["counts"]) == sum(found["lengths"]["counts"]) + 100_000 - 943 == 100_000
    assert found["repeats"] == {"interactions": 0, "pairs": 0, "share": 0.0}
    assert found["structure"]["history_excluded"] is True
    assert found["structure"]["true"]["NDCG@10"] > 1.5 * found["structure"]["shuffled"]["NDCG@10"]
    from recllm_bench.data.prepare import prepare

    facts = prepare("ml-100k").facts
    assert 100 * found["tied_share"] == pytest.approx(facts["time_ties"], abs=1e-4)
    assert 100 * found["counts"]["sparsity"] == pytest.approx(facts["sparsity"], abs=1e-4)


def test_help_names_both_commands(capsys):
    for arguments, said in (
        (["--help"], ("\n    describe ", "\n    datasets ")),
        (["describe", "--help"], ("--json FILE", "examples:\n  recllm-bench describe ml-100k\n")),
        (["datasets", "--help"], ("--all",)),
    ):
        with pytest.raises(SystemExit):
            cli.main(arguments)
        text = capsys.readouterr().out
        assert all(part in text for part in said)


def test_the_seed_and_the_filter_reach_the_check(capsys, tmp_path):
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        file = tmp_path / f"{name}.json"
        assert run("describe", "ml-100k", "--filter", "latentcrs", "--seed", seed, "--json", file) == 0
        found.append(json.loads(file.read_text()))
    assert found[0] == found[1] != found[2]
    assert found[0]["counts"]["interactions"] == 55_361
    assert found[0]["structure"]["true"] == found[2]["structure"]["true"]
    assert "filter latentcrs" in capsys.readouterr().out


def test_a_users_own_file(capsys, tmp_path):
    path = tmp_path / "shop.csv"
    path.write_text("user,item\n" + "".join(f"u{user},i{place}\n" for user in range(30) for place in range(6)))
    assert run("describe", path) == 0
    text = capsys.readouterr().out
    assert "shop · filter all · variant table · no times, no ratings" in text
    assert "ratings, mean" not in text and "time:" not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["describe", "ml-10k"], "Did you mean 'ml-100k'?"),
        (["describe", "ml-100k", "--filter", "latent"], "has no filter 'latent'"),
        (["describe", "ml-100k", "--seed", "-1"], "--seed must be 0 or more"),
        (["datasets", "ml-100l"], "Did you mean 'ml-100k'?"),
    ],
)
def test_mistakes_end_in_one_line(capsys, arguments, said):
    assert run(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert said in lines[0]


def test_datasets_is_what_list_datasets_shows(capsys):
    assert run("describe", "ml-100k") == 0
    capsys.readouterr()
    assert run("datasets") == 0
    table = capsys.readouterr().out
    assert re.search(r"^  ml-100k +MovieLens 100K +943 +1,682 +100,000 +all +[\d.]+ MB +package ", table, re.M)
    assert "files package: inside an installed package" in table
    assert run("list", "datasets") == 0
    assert capsys.readouterr().out == "datasets\n" + table
    assert run("datasets", "movielens 100k") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "GroupLens" in line] == ["ml-100k"]


def test_the_screen_of_data_with_little_in_it():
    rows = [[user * 20 + place + 1 for place in range(20)] for user in range(15)]
    text = format_description(describe(prepared_from(Histories.from_rows(rows, n_items=5000))))
    assert "sequential structure: cannot tell; only 0 of 15 targets among the first 10" in text
    assert "falls by 0.0000 [0.0000, 0.0000]" in text
    assert "falls by 0" not in format_description(describe(prepared_from(Histories.from_rows([[1, 2, 3, 1]]))))
    text = format_description(describe(prepared_from(Histories.from_rows([[1], [2, 1]]))))
    assert "sequential structure: not checked (leave_one_out: no user has enough interactions" in text


def test_many_years_are_one_line_with_gaps():
    days = np.concatenate([np.full(8, 0), np.full(2, 730), np.full(1, 366 * 9), np.full(4, 366 * 6)])
    days = np.concatenate([days, [366 * 4, 366 * 5]])
    histories = Histories.from_rows([[1, 2, 3]] * 6)
    histories = Histories(histories.items[:17], np.array([0, 17]), 3, np.sort(days) * 86_400 + 10)
    text = format_description(describe(prepared_from(histories)))
    line = next(line for line in text.splitlines() if line.startswith("time: "))
    assert line == "time: 1970-01-01 to 1979-01-08 · interactions per year █ ▂ ▁▁▄  ▁ · most in 1970 (8)"


def test_bars_and_shares():
    assert bar(1.0) == "█" * 16
    assert bar(0.5, 4) == "██  "
    assert bar(1e-9, 4) == "▏   "
    assert bar(0.0, 4) == "    "
    assert sparkline([0, 1, 8]) == " ▁█"
    shares = {0: "0 %", 1: "100 %", 0.937: "93.7 %", 0.000123: "0.0123 %", 1e-7: "<0.001 %", 0.9995: "99.95 %"}
    assert {share: percent(share) for share in shares} == shares
    assert percent(0.999999) == ">99.99 %"
