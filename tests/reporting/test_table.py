"""The table: blocks, best values, significance, published numbers, footnotes."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from recllm_bench.errors import BenchError
from recllm_bench.evaluation.families import Rows, all_pairs, max_t, with_best
from recllm_bench.evaluation.power import Plan
from recllm_bench.evaluation.statistics import PAIR_TESTS, holm
from recllm_bench.recipe import ConversationOptions
from recllm_bench.reporting import seeds as seeds_module
from recllm_bench.reporting.comparison import compare
from recllm_bench.reporting.html import write_report
from recllm_bench.reporting.page import Look
from recllm_bench.reporting.plan import measured_agreement, plan_table
from recllm_bench.reporting.records import find_records, read_record
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
    lines = (line for line in text.splitlines() if "minus the others" not in line)
    return next(line for line in lines if line.lstrip("| *\x1b[1m").startswith(name))


def test_marks_are_those_of_the_comparisons_with_the_best(rows):
    found = compare(rows)
    assert found.metrics == ["Recall@5", "Recall@20", "NDCG@5", "NDCG@20"]
    history = [row for row, record in enumerate(found.records) if record.block == "history"]
    values = [user_values(found.records[row])[1]["NDCG@20"][None] for row in history]
    best = max(range(3), key=lambda place: values[place].mean())
    _, (p_values,) = with_best([Rows(values)], [best])
    adjusted = dict(zip((place for place in range(3) if place != best), p_values, strict=True))
    first, second = found.families["history"]
    assert (first.metrics, second.metrics) == (["NDCG@20"], ["Recall@5", "Recall@20", "NDCG@5"])
    assert first.references == {"NDCG@20": history[best]} and len(first.pairs) == 2
    for place, row in enumerate(history):
        if place != best:
            pair = first.pairs["NDCG@20", row]
            assert pair.adjusted == pytest.approx(adjusted[place])
            assert pair.mean == pytest.approx((values[place] - values[best]).mean())
            said = found.marks["history", row, "NDCG@20"]
            assert (said == "worse") == (pair.adjusted < 0.05)
    names = {record.name: row for row, record in enumerate(found.records)}
    assert found.marks["history", names["Popularity"], "NDCG@20"] == "worse"
    assert found.marks["text", names["LatentCRS"], "NDCG@20"] == "better"


def test_the_named_row_is_planned_and_comes_first(rows):
    found = compare(rows)
    assert found.records[found.subject].name == "LatentCRS"
    roles = {found.records[each.row].name: each.role for each in found.planned}
    assert roles[next(iter(roles))] == "best baseline"
    assert roles["Text retrieval only"] == "control" and roles["Popularity"] == ""
    assert sorted(roles) == sorted(record.name for record in rows[:4])
    subject = user_values(rows[4])[1]["NDCG@20"]
    for each in found.planned:
        other = user_values(found.records[each.row])[1]["NDCG@20"]
        assert each.pair.mean == pytest.approx((subject - other).mean())
        assert each.pair.p == pytest.approx(ttest_rel(subject, other).pvalue)
        assert each.pair.significant == (not each.pair.low <= 0 <= each.pair.high), "interval and p-value agree"
    text = comparison_table(rows)
    assert text.index("LatentCRS minus the others") < text.index("History only")
    chosen = compare(rows, subject="SASRec")
    assert chosen.records[chosen.subject].name == "SASRec"
    with pytest.raises(BenchError, match="Did you mean 'SASRec'"):
        compare(rows, subject="SASRek")


def test_the_subject_does_not_depend_on_when_rows_were_made(make):
    talk = {"model": "latentcrs", "block": "text"}
    records = [
        make("LatentCRS", 3.0, seed=1, **talk),
        make("LatentCRS, no words", 2.0, seed=2, conversation=ConversationOptions(words="none"), **talk),
        make("Text retrieval only", 1.0, model="text-retrieval", block="text", seed=3),
        make("SASRec (ours)", 2.0, seed=4),
        make("GRU4Rec (RecBole)", 2.5, model="GRU4Rec", seed=5),
    ]
    for number, record in enumerate(records):
        record.created = f"2026-01-0{number + 1}T00:00:00"
    text = comparison_table(records)
    assert "LatentCRS minus the others" in text
    assert "LatentCRS, no words: " in text and "(control, " in text
    assert comparison_table(records[::-1]) == text
    assert "SASRec (ours) minus the others" in comparison_table(records[3:]), "RecBole's are baselines"


def test_two_rows_are_one_pair(make):
    found = compare([make("SASRec", 1.0), make("GRU4Rec", 1.4, model="GRU4Rec", seed=1)])
    ((_, pair),) = found.families["history"][0].pairs.items()
    assert pair.adjusted == pair.p
    assert found.planned[0].pair.p == pytest.approx(pair.p)
    assert sorted(found.marks["history", row, "NDCG@20"] for row in (0, 1)) == ["better", "worse"]


def test_secondary_metrics_are_marked_only_where_the_primary_differs(rows, monkeypatch):
    alike = [rows[1], rows[2]]
    found = compare(alike)
    assert found.primary == "NDCG@20" and not any(p.significant for p in found.families["history"][0].pairs.values())
    assert {word for (_, _, _), word in found.marks.items()} <= {"open", "equal"}


@pytest.mark.parametrize("test", ["t", "sign-flip", "wilcoxon", "mcnemar"])
def test_other_tests_of_pairs_have_holms_correction(rows, test: str):
    found = compare(rows, test=test, metrics=["Recall@5", "NDCG@20"])
    family = found.families["history"][0]
    (metric,) = family.metrics
    assert metric == ("Recall@5" if test == "mcnemar" else "NDCG@20")
    if test == "mcnemar":
        assert not any(name == "NDCG@20" for _, _, name in found.marks), "graded values cannot be tested so"
        with pytest.raises(BenchError, match="neither Recall nor HR"):
            compare(rows, test=test, metrics=["NDCG@20"])
    history = [row for row, record in enumerate(found.records) if record.block == "history"]
    values = {row: user_values(found.records[row])[1][metric] for row in history}
    one = {"t": lambda a, b: ttest_rel(a, b).pvalue, **PAIR_TESTS}[test]
    pairs = [(a, b) for a in history for b in history if a < b]
    expected = dict(zip(pairs, holm([one(values[a], values[b]) for a, b in pairs]), strict=True))
    for (_, row), pair in family.pairs.items():
        assert pair.adjusted == pytest.approx(expected[tuple(sorted((row, family.references[metric])))])
    assert f"{test} with Holm's correction" in " ".join(comparison_table(rows, test=test).split())
    with pytest.raises(BenchError, match="one of max-t, t, sign-flip"):
        compare(rows, test="anova")


def test_equality_and_what_it_takes_are_said(make):
    rows = [make("SASRec", 2.0), make("Twin", 2.0), make("GRU4Rec", 2.02, model="GRU4Rec", seed=7)]
    assert set(compare(rows[:2]).marks.values()) == {"equal"}
    assert "open" in compare(rows).marks.values()
    flat = " ".join(comparison_table(rows[:2], metrics=["NDCG@20"]).split())
    assert "equal within 2 %, p = 1.000" in flat
    flat = " ".join(comparison_table(rows, metrics=["NDCG@20"]).split())
    assert re.search(r"smaller than can be told: needs [\d,]+ users", flat)
    assert re.search(r"Too close to [\w0-9]+ to be told by NDCG@20: \w+ \(needs [\d,]+ users\)", flat)


def test_no_hits_are_no_certainty(make):
    ranks = make("None", 0.001)
    found = compare([ranks], metrics=["Recall@5"])
    facts = found.records[0].metrics["Recall@5"]
    assert facts["mean"] == 0 and 0 < facts["high"] < 0.02
    assert "±0.0000" not in comparison_table([ranks])


def test_rows_that_could_not_be_run_are_named(rows):
    assert "Not run: BERT4Rec: no memory" in comparison_table(rows, failures=[("BERT4Rec", "no memory")])


LONGER = ("ml-100k-relrec.full", "ml-100k-cesrec.sampled100", "ml1m-latentcrs.one_turn")
LONGER += ("amazon-2014-musical-instruments-relrec.full",)


@pytest.mark.parametrize(
    "table",
    ["ml-100k-cesrec.full", "ml-100k-latentcrs.one_turn", *(pytest.param(t, marks=pytest.mark.slow) for t in LONGER)],
)
def test_no_mark_of_a_recorded_table_hangs_on_the_points(table: str, tmp_path, monkeypatch):
    for folder in find_records(Path(__file__).parents[2] / "results" / "reference"):
        if f"-{table}-" in folder.name:
            shutil.copytree(folder, tmp_path / folder.name)
    tested = []

    for method in (max_t, with_best):

        def noted(*arguments, method=method, **changes):
            tested.append((method, arguments, changes))
            return method(*arguments, **changes)

        monkeypatch.setattr(f"recllm_bench.evaluation.families.{method.__name__}", noted)
    compare([read_record(folder) for folder in find_records(tmp_path)])
    assert len(tested) > 1
    for method, arguments, changes in tested:
        found = [np.concatenate(method(*arguments, seed=seed, **changes)[1]) < 0.05 for seed in range(30)]
        assert all((each == found[0]).all() for each in found)


@pytest.mark.parametrize(("size", "users"), [(12, 400), pytest.param(60, 6000, marks=pytest.mark.slow)])
def test_a_large_table_marks_what_is_there_in_time(make, size: int, users: int):
    records = [
        make(f"Row {row:02d}", 8.0 if row == 7 else 1.0, seed=3 * row + seed, training_seed=seed, users=users)
        for row in range(size)
        for seed in range(3)
    ]
    start = time.process_time()
    found = compare(records)
    text = comparison_table(records)
    assert time.process_time() - start < 10
    assert len(found.records) == size and all(len(record.members) == 3 for record in found.records)
    for metric in found.metrics:
        best = found.best["history", metric]
        assert found.records[best].name == "Row 07" and found.marks["history", best, metric] == "better"
        assert all(found.marks["history", row, metric] == "worse" for row in range(size) if row != best)
    assert text.count("▼") >= (size - 1) * len(found.metrics)


def test_the_terminal_table(rows):
    text = re.sub(r"\x1b\]8;[^\x1b]*\x1b\\", "", comparison_table(rows, look=Look(colour=True, width=160)))  # links
    table = text[text.index("History only") :]
    places = [table.index(part) for part in ("Popularity", "\nLatentCRS, which also reads words, is", "With words")]
    places += [table.index(part, places[-1]) for part in ("\nLatentCRS", "\nText retrieval", "\nLatentCRS is better")]
    assert places == sorted(places)  # blocks in order, rows by their quality
    assert "not with the rows above" in " ".join(text.split())
    best = line_of(text[text.index("With words") :], "LatentCRS")
    mean = rows[4].metrics["Recall@5"]["mean"]
    assert re.search(rf"\x1b\[1m *{mean:.4f}\x1b\[0m\x1b\[1m ±0\.0\d+\x1b\[0m\x1b\[1;32m ▲\x1b\[0m", best)
    assert "15.0 s" in best
    assert "\x1b" not in line_of(text, "Popularity")
    published = line_of(re.sub(r"\x1b\[[\d;]*m", "", text), "published, latentcrs T2")
    assert f"0.1437 n.c. ({mean / 0.1437 - 1:+.0%})" in published
    flat = " ".join(text.split())
    assert "stand-ins for the paper's: simulator rules, text encoder minilm" in flat
    assert "10 of 300 epochs" in flat
    assert "LatentCRS minus the others" in flat
    assert "3 targets were in the user's history already" in flat
    assert "\x1b" not in comparison_table(rows)


def test_the_markdown_table(rows, make):
    text = comparison_table([*rows, make("a|b <i>*x*", 1.0)], look=Look(format="markdown"))
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
    assert found.marks["dialogue", 0, "S@5"] == "better"
    assert found.marks["dialogue", 0, "AT"] == "better"  # fewer turns
    assert found.best["dialogue", "AT"] == 0
    text = comparison_table(rows)
    assert "Dialogues" in text
    assert "S@3" in text
    assert f"{good[good > 0].size / 400:.4f}" in text


def test_rows_of_other_data_are_not_paired(rows, make):
    import dataclasses

    other = dataclasses.replace(rows[0], pairing="else", name="Other data")
    found = compare([other, *rows[1:]])
    other_row = next(row for row, record in enumerate(found.records) if record.name == "Other data")
    assert other_row not in [each.row for each in found.planned]
    assert ("history", other_row, "NDCG@20") not in found.marks
    assert found.unpaired == ["Other data"]
    assert "Not paired" in comparison_table([other, *rows[1:]])


def test_protocols_are_never_mixed_in_one_table(rows, make):
    full = make("Full", 1.0, protocol="unified.full")
    text = comparison_table([*rows, full])
    assert text.count("± the longer side of a 95 %") == 2
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
    start = time.process_time()
    again = comparison_table([read_record(record.folder) for record in rows])
    assert again == first
    assert time.process_time() - start < 1
    monkeypatch.undo()
    cache.write_text("{damaged")
    assert comparison_table(rows) == first


def test_duration():
    assert [duration(s) for s in (0.5, 99, 600, 36000)] == ["0.5 s", "99.0 s", "10.0 min", "10.0 h"]


def test_a_report_needs_records_and_a_place(rows, tmp_path):
    with pytest.raises(BenchError, match="no run records"):
        write_report([], tmp_path / "x.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="--output"):
        write_report(rows, tmp_path / "file" / "x.html")


def test_a_plan_knows_how_recorded_models_agree(make):
    rows = [make(name, quality, seed=seed) for seed, (name, quality) in enumerate([("A", 0.5), ("B", 0.8), ("C", 1.0)])]
    agreement, pairs = measured_agreement(rows)
    hits = np.array([user_values(row)[1]["Recall@20"] for row in rows])
    assert pairs == 3
    assert agreement == pytest.approx(np.median([np.corrcoef(hits[a], hits[b])[0, 1] for a, b in all_pairs(3)]))
    again = make("A", 0.5, seed=9)
    assert measured_agreement([*rows, again]) == measured_agreement([again, *rows[1:]]), "the newest of a name"
    assert measured_agreement(rows[:1]) == measured_agreement([]) == (0.0, 0)
    never = make("D", 1e-9, seed=10)  # no hits: nothing to correlate
    assert measured_agreement([*rows, never]) == (agreement, pairs)
    text = " ".join(plan_table("ml1m", Plan(400, 3, agreement=agreement), pairs).split())
    assert f"correlate by {agreement:.2g} over users (the median of 3 pairs of models in the records" in text


@pytest.mark.shared
def test_the_plan_of_a_dataset(data_mirror, monkeypatch, capsys):
    from recllm_bench.cli import main

    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(data_mirror))
    assert main(["plan", "ml-100k", "--protocol", "relrec.full", "--seeds", "3"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "943 users, 6 rows, 3 seeds each" in text and "correlate by 0.5 over users (assumed: there are no" in text
    assert f"0.10 {Plan(943, 6, 3).difference(0.1):.4f}" in text
    assert main(["plan", "ml-100k", "--seeds", "0"]) == 2
    assert "seeds must be at least 1" in capsys.readouterr().err
