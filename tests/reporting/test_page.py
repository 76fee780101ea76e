"""The page: what it shows of records, in which order, and that hostile names stay text."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from recllm_bench.errors import BenchError
from recllm_bench.reporting.comparison import compare
from recllm_bench.reporting.html import report_page
from recllm_bench.reporting.site.charts import _front, charts_of
from recllm_bench.reporting.site.leaderboards import leaderboards, printed_numbers
from recllm_bench.reporting.site.learning_curves import learning_figures
from recllm_bench.reporting.site.page_text import chart_text, packed, plain, script_json
from recllm_bench.reporting.site.standings import overview
from recllm_bench.reporting.site.user_parts import _by_quarters, sliced_figures, turn_figures

HOSTILE = (
    '<script>alert("x")</script>',
    '"><img src=x onerror=alert(1)>',
    "</script><!-- <script>",
    "a \u202egnp.exe \u2066b",
    "{{ 7 * 7 }} {% raw %} &amp; \x00\x1b[31m",
)


@pytest.fixture
def rows(make):
    return [
        make("Popularity", 0.5, model="pop"),
        make("GRU4Rec", 2.0, model="GRU4Rec", seed=1),
        make("SASRec", 2.05, seed=2),
        make("Fits", 0.8, model="words-fit", block="text", seed=3),
        make("LatentCRS", 4.0, model="latentcrs", block="text", seed=4, notes=["10 of 300 epochs"]),
    ]


class Tags(HTMLParser):
    """Names of all tags, the text of scripts apart; fails on an attribute that could run or load something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[dict[str, str]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on") and name != "src"
            assert name != "href" or value.startswith("#") or value == "data:,"
        if tag == "script":
            self.scripts.append({**dict(attrs), "text": ""})

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "script" and self.scripts:
            self.scripts[-1]["text"] += data
        self.text.append(data)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(rows, make, name):
    bad = make("Bad", 1.0, notes=[name], seed=9, curves={"train": [[1, 0.1], [2, 0.3], [3, 0.2]]})
    bad.name = name  # no folder could be named so
    clean, page = Tags(report_page(rows)), Tags(report_page([*rows, bad]))
    assert "img" not in page.tags
    assert [each for each in page.scripts if each.get("type") is None] == [
        each for each in clean.scripts if each.get("type") is None
    ], "no script runs but the page's own"
    for island in page.scripts:
        if island.get("type") == "application/json":
            json.loads(island["text"])
    assert any(plain(name).strip() == text.strip() for text in page.text), "the name is shown as it is"
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", "".join(page.text))


def test_the_policy_lets_only_the_pages_own_scripts_run(rows):
    page = report_page(rows)
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["connect-src"] == "'none'"
    assert "unsafe" not in rules["script-src"] and rules["script-src"].count("sha256-") == 2
    assert "connect-src 'self'" in html.unescape(report_page(rows, live="abc"))


def test_text_for_scripts_and_charts():
    assert "</script" not in script_json(["</script>"]) and json.loads(script_json(["</script>"])) == ["</script>"]
    assert json.loads(script_json({"a": float("nan"), "b": [float("inf"), 1.5]})) == {"a": None, "b": [None, 1.5]}
    assert plain("ab\u202ec") == "ab[U+202E]c" and plain("naïve 日本 עברית") == "naïve 日本 עברית" and plain(3) == 3
    assert chart_text("<b>x</b> & y") == "&lt;b&gt;x&lt;/b&gt; &amp; y"
    assert chart_text("one two three", 8) == "one two<br>three"
    assert packed({"a": 1}) == packed({"a": 1})


def test_leaderboards_hold_every_metric_and_cost_and_mark_as_the_terminal_does(rows):
    found = compare(rows)
    history, text = leaderboards(found)
    assert [row.name for row in history.rows] == [found.records[row].name for row in found.rows("history")]
    assert [column.label for column in history.columns if column.shown] == [*found.metrics, "training"]
    assert {"evaluation", "latency"} <= {column.label for column in history.columns if not column.shown}
    assert {row.name: row.kind for row in text.rows} == {"LatentCRS": "method", "Fits": "control"}
    best = history.rows[0].cells[history.order and [c.label for c in history.columns].index(history.order)]
    facts = next(r for r in found.records if r.name == history.rows[0].name).metrics[history.order]
    assert best.text == f"{facts['mean']:.4f}" and best.sort == facts["mean"] and best.best
    assert best.detail == f"[{facts['low']:.4f}, {facts['high']:.4f}]"
    worst = next(row for row in history.rows if row.name == "Popularity").cells[3]
    assert (worst.mark, worst.said) == ("▼", "worse than the reference")
    latentcrs = text.rows[0]
    assert latentcrs.place == "latentcrs T2" and latentcrs.printed[0].text


def test_the_page_shows_what_the_tables_hold(rows):
    page = html.unescape(report_page(rows))
    found = compare(rows)
    for record in found.records:
        assert f"<bdi>{record.name}</bdi>" in page
        assert f"{record.metrics['NDCG@20']['mean']:.4f}" in page
    assert "published, latentcrs T2" in page and "10 of 300 epochs" in page


def test_ranks_are_among_the_methods_of_a_block_over_all_tables(make, rows):
    other = [make("SASRec", 3.0, dataset="ml-100k", seed=21), make("GRU4Rec", 1.0, dataset="ml-100k", seed=22)]
    other[1].recipe["model"] = "GRU4Rec"
    history, text = overview([compare(rows), compare(other)])
    standing = {each.name: each for each in history.methods}
    first, second = (key for key, *_ in history.columns)
    best = max(("SASRec", "GRU4Rec"), key=lambda name: standing[name].places[first].value)
    assert standing[best].places[first].rank == 1 and standing["Popularity"].places[first].rank == 3
    assert standing["SASRec"].places[second].rank == 1
    ranks = [place.rank for place in standing["GRU4Rec"].places.values()]
    assert standing["GRU4Rec"].mean_rank == np.mean(ranks) and standing["GRU4Rec"].wins == ranks.count(1)
    assert standing["Popularity"].contests == 1
    assert [each.name for each in text.controls] == ["Fits"] and text.controls[0].mean_rank is None
    (alone,) = text.methods
    assert (alone.wins, alone.contests, alone.mean_rank) == (0, 0, None), "one method wins nothing"


def test_two_rows_of_one_name_both_stand_in_the_overview(make):
    rows = [make("A", 2.0, seed=1), make("A", 1.0, seed=2, options={"x": 1}), make("B", 1.5, seed=3)]
    found = compare(rows)
    (group,) = overview([found])
    assert len({each.name for each in group.methods}) == 3
    for record in found.records:
        record.name = "A"  # as in records that nothing tells apart
    (group,) = overview([found])
    assert sorted(each.name for each in group.methods) == ["A", "A (2)", "A (3)"]


def test_learning_curves_never_mix_quantities(make):
    def logged(record, *lines):
        text = "\n".join(json.dumps({"message": line}) for line in lines)
        (record.folder / "log.jsonl").write_text(f"no json\n{text}\n[1]\n")
        return record

    curve = [[1, 0.10], [2, 0.3], [3, 0.2]]
    rows = [
        logged(make("Metric", seed=1, curves={"train": curve}), "m: kept epoch 2 of 3, NDCG@10 0.3000, 1.0 s, stopped"),
        logged(
            make("Loss", seed=2, curves={"train": [[1, -2.0], [2, -1.5]], "second": [[1, -0.3], [2, -0.2]]}),
            "a: kept epoch 2 of 2, -distance -1.5000, 1.1 s, stopped by epochs",
            "b: kept epoch 2 of 2, -loss -0.2000, 1.1 s, stopped by epochs",
        ),
        make("Cached", seed=3, model="x", curves={"train": curve}),
        logged(
            make("Other", seed=4, curves={"train": [[1, 0.5], [2, 0.6]]}), "m: kept epoch 2 of 2, R@20 0.6000, 1.0 s"
        ),
        make("Silent", seed=5, model="y", curves={"train": [[1, 0.5], [2, 0.7]]}),
        make("Untold", seed=6, model="z", curves={"train": [[1, -3.0], [2, -1.0]]}),
        make("Flat", seed=7, curves={"train": [[1, 0.5]]}),
    ]
    figures = {figure.quantity: figure for figure in learning_figures(rows, rows)}
    assert {quantity: list(figure.lines) for quantity, figure in figures.items()} == {
        "NDCG@10": ["Metric"],  # the same trained stage under another name is one line
        "-distance": ["Loss, train"],
        "-loss": ["Loss, second"],
        "R@20": ["Other"],
        "metric of y that its log does not name": ["Silent"],
        "-loss of z that its log does not name": ["Untold"],
    }
    assert figures["-distance"].lines["Loss, train"][1] == (-2.0, -2.0, -2.0), "nothing is clipped"
    assert "higher is better" in figures["-loss"].caption and "minus a loss" in figures["-loss"].caption
    fitted = {"losses": {"train": [[1, 5.0], [2, 4.0]]}, "model_name": "M"}
    rows += [make("L1", seed=8, **fitted), make("L2", seed=9, **fitted, options={"item_loss": "bce"})]
    drawn = learning_figures(rows, rows)
    assert [figure.quantity for figure in drawn[-2:]] == ["training loss of M", "training loss of M, bce"]
    assert drawn[-1].lines == {"L2": {1: (5.0,) * 3, 2: (4.0,) * 3}} and "lower is better" in drawn[-1].caption
    alone = learning_figures(rows[2:3], rows)
    assert [figure.quantity for figure in alone] == ["NDCG@10"], "named by the log of the run that trained it"


def test_parts_are_means_of_their_users():
    rng = np.random.default_rng(3)
    amounts, values = rng.integers(1, 90, 200), rng.random((2, 200))
    (figure,) = _by_quarters("NDCG@10", "interactions", amounts, {"A": values})
    bounds = [tuple(map(int, re.match(r"(\d+) to (\d+)", tick).groups())) for tick in figure.ticks]
    assert len(bounds) == 4 and bounds[0][0] == amounts.min() and bounds[-1][1] == amounts.max()
    for part, (low, high) in enumerate(bounds):
        inside = (amounts >= low) & (amounts <= high)
        below, mean, above = figure.lines["A"][part]
        assert mean == pytest.approx(values[:, inside].mean()) and below < mean < above
        assert f"({inside.sum()} users)" in figure.ticks[part] and 40 <= inside.sum() <= 60
    assert _by_quarters("m", "a", np.ones(200, int), {"A": values}) == [], "one part is none"
    assert _by_quarters("m", "a", np.array([1] * 5 + [9] * 195), {"A": values}) == [], "five users are no part"


def test_rows_are_parted_only_where_data_are_there(make):
    found = compare([make("A", 1.0, seed=1), make("B", 2.0, seed=2)])
    assert sliced_figures(found) == ([], []), "no lengths in the planted records, no prepared data in the cache"


def test_success_by_turn_counts_dialogues(make):
    turns = np.array([1] * 30 + [3] * 20 + [0] * 49 + [-1])
    rows = [make("A", 1.0, block="text", seed=1, turns=turns), make("B", 2.0, block="text", seed=2)]
    (figure,) = turn_figures(compare(rows))
    line = figure.lines["A"]
    assert [line[turn][1] for turn in (1, 2, 3, 5)] == pytest.approx([30 / 99, 30 / 99, 50 / 99, 50 / 99])
    assert "B" not in figure.lines and line[1][0] < line[1][1] < line[1][2]


def test_the_front_is_what_no_cheaper_row_beats():
    points = [(1.0, 0.1), (2.0, 0.3), (2.0, 0.2), (3.0, 0.25), (4.0, 0.4), (4.0, 0.4)]
    beaten = {
        i
        for i, (cost, value) in enumerate(points)
        for other, (c, v) in enumerate(points)
        if (c <= cost and v >= value and (c, v) != (cost, value)) or ((c, v) == (cost, value) and other < i)
    }
    assert set(_front(points)) == set(range(len(points))) - beaten


def test_charts_put_one_quantity_on_an_axis_and_show_seeds(make):
    rows = [make("SASRec", 2.0, seed=n, training_seed=n) for n in range(3)] + [make("Pop", 0.5, model="pop", seed=9)]
    found = compare(rows)
    charts = {group.title: group.charts for group in charts_of(found, rows)}
    first = charts["All rows"][0]
    seeds = next(trace for trace in first.traces if trace["name"] == "a seed")
    assert sorted(seeds["x"]) == sorted(row.metrics[found.primary]["mean"] for row in rows[:3])
    (planned, *_) = charts["Differences"]
    pair = found.planned[0].pair
    assert planned.traces[0]["x"][0] == pair.mean
    assert planned.traces[0]["error_x"]["array"][0] == pytest.approx(pair.high - pair.mean)
    assert {chart.title for chart in charts["All rows"]} == set(found.metrics)
    json.loads(script_json([chart.traces for group in charts.values() for chart in group]))


def test_printed_numbers_carry_their_flags(make):
    record = make("LatentCRS", 4.0, model="latentcrs", block="text", seed=4)
    found = printed_numbers([record])
    assert {each.metric for each in found} <= set(record.metrics) and found
    for each in found:
        assert (each.word == "not comparable") == bool(each.reason)
        assert each.value[:6].replace(".", "").isdigit()


def test_the_page_is_about_the_named_row_where_a_table_has_it(make):
    rows = [make(name, quality, model=model, seed=seed) for seed, (name, quality, model) in enumerate(_THREE)]
    rows += [make("Elsewhere", 1.0, dataset="ml-100k", seed=9), make("Beside", 2.0, dataset="ml-100k", seed=8)]
    usual = html.unescape(report_page(rows))
    asked = html.unescape(report_page(rows, subject="Middle", baseline="Last"))
    assert "Middle minus" not in usual and "Middle minus" in asked
    assert "Beside minus" in usual and "Beside minus" in asked, "other tables stay as they are"
    with pytest.raises(BenchError, match=r"no row is named 'Midle'.* mean 'Middle'"):
        report_page(rows, subject="Midle")


_THREE = (("First", 3.0, "sasrec"), ("Middle", 2.0, "iclrec"), ("Last", 1.0, "recbole:GRU4Rec"))
