"""The table: blocks, best values, significance, published numbers, footnotes; and the HTML page."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser

import numpy as np
import pytest

from recllm_bench.errors import BenchError
from recllm_bench.evaluation.statistics import holm, paired_bootstrap
from recllm_bench.reporting import seeds as seeds_module
from recllm_bench.reporting.comparison import compare
from recllm_bench.reporting.html import write_report
from recllm_bench.reporting.records import read_record
from recllm_bench.reporting.table import comparison_table, duration
from recllm_bench.reporting.users_file import user_values


@pytest.fixture
def rows(make):
    return [
        make("Popularity", 0.5, model="pop"),
        make("GRU4Rec", 2.0, model="GRU4Rec", seed=1),
        make("SASRec", 2.05, seed=2),
        make("Text retrieval only", 0.8, model="text-retrieval", block="text", seed=3),
        make(
            "LatentCRS",
            4.0,
            model="latentcrs",
            block="text",
            seed=4,
            substitutes={"simulator": "rules", "text encoder": "minilm"},
            notes=["10 of 300 epochs"],
        ),
    ]


def line_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.lstrip("| *\x1b[1m").startswith(name))


def test_significance_is_the_papers_tests(rows):
    found = compare(rows)
    assert found.metrics == ["Recall@5", "Recall@20", "NDCG@5", "NDCG@20"]
    # By hand: the history block holds every row against the best other row, Holm over all of its tests.
    values = {row: user_values(rows[row])[1] for row in range(3)}
    means = {row: {m: v.mean() for m, v in values[row].items()} for row in values}
    p_values, keys = [], []
    for metric in found.metrics:
        order = sorted(values, key=lambda row, metric=metric: -means[row][metric])
        for row in order:
            other = order[1] if row == order[0] else order[0]
            p_values.append(paired_bootstrap(values[row][metric], values[other][metric]).p)
            keys.append((row, metric, means[row][metric] > means[other][metric]))
    for (row, metric, higher), p in zip(keys, holm(p_values), strict=True):
        expected = "equal" if p >= 0.05 else "better" if higher else "worse"
        assert found.marks["history", row, metric] == expected
    assert found.marks["history", 0, "NDCG@20"] == "worse"
    assert found.marks["text", 4, "NDCG@20"] == "better"
    assert [row for row, _ in found.differences] == [0, 1, 2, 3]
    pair = dict(found.differences)[0]
    assert pair.low > 0
    assert pair.significant
    assert pair.adjusted >= pair.p


def test_the_terminal_table(rows):
    text = comparison_table(rows, colour=True)
    places = [
        text.index(part) for part in ("History only", "Popularity", "With words", "\nLatentCRS", "Text retrieval")
    ]
    assert places == sorted(places)  # blocks in order, rows by their quality
    assert "not with the rows above" in " ".join(text.split())
    best = line_of(text, "LatentCRS")
    mean = rows[4].metrics["Recall@5"]["mean"]
    assert re.search(rf"\x1b\[1m *{mean:.4f} ±0\.0\d+ ▲\x1b\[0m", best)
    assert "15.0 s" in best
    assert "\x1b" not in line_of(text, "Popularity")
    published = line_of(text, "published, latentcrs T2")
    assert f"0.1437 n.c. ({mean / 0.1437 - 1:+.0%})" in published
    flat = " ".join(text.split())
    assert "stand-ins for the paper's: simulator rules, text encoder minilm" in flat
    assert "10 of 300 epochs" in flat
    assert "LatentCRS minus the others" in flat
    assert "3 targets were in the user's history already" in flat
    assert "\x1b" not in comparison_table(rows)


def test_the_markdown_table(rows, make):
    text = comparison_table([*rows, make("a|b <i>*x*", 1.0)], markdown=True)
    line = line_of(text, "a")
    assert "a\\|b &lt;i&gt;\\*x\\*" in line
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert f"**{rows[4].metrics['Recall@5']['mean']:.4f}" in text


def test_a_named_baseline(rows):
    text = comparison_table(rows[:3], baseline="Popularity", metrics=["NDCG@20"])
    assert "Against Popularity" in text
    assert line_of(text, "SASRec").count("▲") == 1
    assert "▲" not in line_of(text, "Popularity")
    with pytest.raises(BenchError, match="Did you mean 'Popularity'"):
        comparison_table(rows, baseline="popularit")
    with pytest.raises(BenchError, match="Recall@5"):
        comparison_table(rows, metrics=["Recall@6"])
    with pytest.raises(BenchError, match="no run records"):
        comparison_table([])


def test_dialogues_have_their_own_block(make):
    rng = np.random.default_rng(0)
    good = np.where(rng.random(400) < 0.7, rng.integers(1, 4, 400), 0)
    poor = np.where(rng.random(400) < 0.3, rng.integers(1, 6, 400), 0)
    shared = {"protocol": "latentcrs.multi_turn", "block": "text", "model": "latentcrs"}
    rows = [make("shuffled", 1.0, turns=poor, **shared), make("LatentCRS", 2.0, turns=good, seed=1, **shared)]
    found = compare(rows)
    assert found.marks["dialogue", 1, "S@5"] == "better"
    assert found.marks["dialogue", 1, "AT"] == "better"  # fewer turns
    assert found.best["dialogue", "AT"] == 1
    text = comparison_table(rows)
    assert "Dialogues" in text
    assert "S@3" in text
    assert f"{good[good > 0].size / 400:.4f}" in text


def test_rows_of_other_data_are_not_paired(rows, make):
    import dataclasses

    other = dataclasses.replace(rows[0], pairing="else", name="Other data")
    found = compare([other, *rows[1:]])
    assert 0 not in dict(found.differences)
    assert ("history", 0, "NDCG@20") not in found.marks
    assert found.unpaired == ["Other data"]
    assert "Not paired" in comparison_table([other, *rows[1:]])


def test_protocols_are_never_mixed_in_one_table(rows, make):
    full = make("Full", 1.0, protocol="unified.full")
    text = comparison_table([*rows, full])
    assert text.count("± half a 95 %") == 2
    assert "unified.full" in text
    with pytest.raises(BenchError, match="one protocol"):
        compare([*rows, full])


def test_sampled_candidates_are_warned_about(make):
    text = comparison_table([make("SASRec", 1.0, protocol="cesrec.sampled100")])
    assert "not comparable with full ranking" in " ".join(text.split())


def test_a_repeated_table_reads_the_cache(rows, monkeypatch: pytest.MonkeyPatch):
    first = comparison_table(rows)
    cache = rows[0].folder.parent / ".pairs.json"
    assert json.loads(cache.read_text())

    def refuse(*_):
        raise AssertionError("per-user values were read again")

    monkeypatch.setattr(seeds_module, "user_values", refuse)
    start = time.perf_counter()
    again = comparison_table([read_record(record.folder) for record in rows])
    assert again == first
    assert time.perf_counter() - start < 1
    monkeypatch.undo()
    cache.write_text("{damaged")
    assert comparison_table(rows) == first


def test_duration():
    assert [duration(s) for s in (0.5, 99, 600, 36000)] == ["0.5 s", "99.0 s", "10.0 min", "10.0 h"]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)
        if tag not in ("meta", "br", "rect", "path", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_one_safe_page(rows, make, tmp_path):
    hostile = '<script>alert("x")</script><img src=x onerror=y>'
    bad = make(hostile, 1.0, notes=[hostile], curves={"train": [[1, 0.1], [2, 0.3], [3, 0.2]]})
    page = write_report([*rows, bad], tmp_path / "report.html").read_text(encoding="utf-8")
    parser = Tags()
    parser.feed(page)
    assert parser.open == []
    assert "script" not in parser.tags
    assert "img" not in parser.tags
    assert parser.tags.count("svg") == 2  # intervals and training curves
    assert "polyline" in parser.tags
    assert "&lt;script&gt;" in page
    assert "http" not in page
    assert f"{rows[4].metrics['NDCG@20']['mean']:.4f}" in page
    assert "published, latentcrs T2" in page
    assert len(page) < 200_000


def test_a_report_needs_records_and_a_place(rows, tmp_path):
    with pytest.raises(BenchError, match="no run records"):
        write_report([], tmp_path / "x.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="--output"):
        write_report(rows, tmp_path / "file" / "x.html")
