"""A sweep beside the published table of the same switches."""

from __future__ import annotations

import re

import pytest

from recllm_bench import cli, planning
from recllm_bench.api.measure import Measure
from recllm_bench.errors import BenchError
from recllm_bench.recipe import read_recipe_file, recipe_names
from recllm_bench.reporting.ablation import ablation_table, check_table
from recllm_bench.reporting.html import write_report
from recllm_bench.reporting.page import Look
from recllm_bench.reporting.published_numbers import load_published
from recllm_bench.reporting.table import comparison_table

ROWS = ["proj=none", "proj=1layer"]


def two(make, **changes):
    first = make("none", 1.0, protocol="relrec.full", measures=[Measure("label similarity", 0.5, "items")], **changes)
    return [
        first,
        make("one", 0.8, protocol="relrec.full", measures=[Measure("label similarity", 0.4, "items")], **changes),
    ]


def test_each_number_stands_beside_its_change_against_the_first_row(make):
    text = ablation_table(two(make), ROWS, "relrec T10")
    head, *rows = text.splitlines()[-4:]
    assert "Recall@20, ours" in head
    assert "published Yelp" in head
    assert "similarity_item, ours" in head
    assert "similarity_user" not in head, "no row of ours has that measure"
    assert "0.4000 (-20.0%)" in rows[-1], "our own measure"
    assert "0.4538 (-13.7%)" in rows[-1], "Table 10: 0.4538 against 0.5261"
    assert "0.1048 (+5.3%)" in rows[-1], "Table 10: 0.1048 against 0.0995"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": "yelp"}, "ours on yelp; brackets hold"),
        ({"dataset": "ml-100k"}, "ours on ml-100k; other data than published, so compare effects; brackets hold"),
        (
            {"dataset": "yelp", "substitutes": {"language model": "x for y"}},
            "ours on yelp; other language model than published, so compare effects; brackets hold",
        ),
        (
            {"dataset": "ml-100k", "substitutes": {"language model": "x for y", "labels": "z"}},
            "ours on ml-100k; other data, language model, labels than published, so compare effects; brackets hold",
        ),
    ],
)
def test_only_what_is_other_than_published_is_said(make, changes, said):
    assert said in " ".join(ablation_table(two(make, **changes), ROWS, "relrec T10").split())


def test_rows_without_a_published_twin_have_a_dash(make):
    text = ablation_table(two(make), ["proj=none", ""], "relrec T10", Look(format="markdown"))
    assert len(re.findall(r"\| +- ", text.splitlines()[-1])) >= 2


def test_a_variant_of_several_models_is_named_with_its_model(make):
    """Table 2 of CESRec prints "base" of SASRec and of LLaRA: on MovieLens-1M NDCG@10 .6045 and .1542."""
    records = [make(model, 1.0, protocol="cesrec.sampled100") for model in ("SASRec", "LLaRA")]
    text = ablation_table(records, ["SASRec base", "LLaRA base"], "cesrec T2", Look(format="markdown"))
    sasrec, llara = text.splitlines()[-2:]
    assert "0.6045" in sasrec and "0.1542" in llara and "0.6045" not in llara
    with pytest.raises(BenchError, match="cesrec T2 has no row 'base'"):
        ablation_table(records, ["base", ""], "cesrec T2")


def test_rows_of_several_data_sets_stand_beside_their_own(make):
    records = [
        make(f"{who}, {data}", 1.0, protocol="cesrec.sampled100", dataset=data)
        for data in ("ml1m", "amazon-2018-toys-and-games")
        for who in ("SASRec", "CESRec")
    ]
    names = ["SASRec base", "SASRec cesrec_llama3"] * 2
    first, second = ablation_table(records, names, "cesrec T2", Look(format="markdown")).split("| row")[1:]
    assert "published MovieLens-1M" in first and "published Toys" in second
    assert "Toys" not in first and "MovieLens" not in second
    assert "0.6244 (+3.3%)" in first and "0.3659 (+4.3%)" in second, "0.6244 / 0.6045 and 0.3659 / 0.3509"


def test_seconds_of_a_user_stand_beside_table_7(make):
    named = {"masking": 0.5, "construction": 2.0, "masking and construction": 2.5}
    measures = [Measure(f"{name}, seconds a user", value) for name, value in named.items()]
    text = ablation_table(
        [make("whole list", 1.0, measures=measures)], ["cesrec_llama3-8b"], "cesrec T7", Look(format="markdown")
    )
    row = [cell.strip() for cell in text.splitlines()[-1].strip("|").split("|")]
    assert row == [
        "whole list", "0.5000", "0.1407", "0.1597", "0.1757", "2.0000", "10.4124", "7.6398", "9.1576", "2.5000",
        "10.5532", "7.7996", "9.3334",
    ]  # fmt: skip


def test_unknown_tables_and_rows_are_refused(make):
    with pytest.raises(BenchError, match=r"no published table 'relrec T99'"):
        check_table("relrec T99")
    with pytest.raises(BenchError, match=r"relrec T10 has no row 'proj=three'.*proj="):
        ablation_table(two(make), ["proj=none", "proj=three"], "relrec T10")


def test_every_recipe_names_rows_that_are_published():
    known = {
        (cell.place, name)
        for cell in load_published()
        for name in (cell.variant or cell.model, f"{cell.model} {cell.variant}")
    }
    tables = {name: read_recipe_file(name) for name in recipe_names()}
    tables = {name: values for name, values in tables.items() if "published" in values}
    assert {f"relrec-table{number}" for number in (3, 4, 5, 6, 9, 10, 11, 12)} <= set(tables)
    assert {f"cesrec-table{number}" for number in range(2, 8)} <= set(tables)
    for name, values in tables.items():
        rows = {(values["published"], row["published"]) for row in values["rows"] if "published" in row}
        assert rows, name
        assert rows <= known, name
        assert planning.sweep_recipes(values, name)


def test_a_sweep_of_an_unknown_table_stops_before_it_runs(tmp_path, capsys):
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text("model: pop\ndataset: ml-100k\npublished: relrec T0\nrows: [{seed: 1}]\n")
    assert cli.main(["sweep", str(recipe)]) == 2
    assert "no published table 'relrec T0'" in capsys.readouterr().err


def test_measures_are_shown_where_people_look(make, tmp_path):
    records = two(make, tokens={"trained": 12})
    text = comparison_table(records)
    assert "Beside the ranking" in text
    below = text[text.index("Beside the ranking") :].splitlines()
    assert below[2].split() == ["measure", "none", "one"]
    assert below[4].rsplit(maxsplit=2) == ["label similarity, items", "0.5", "0.4"]
    page = write_report(records, tmp_path / "report.html").read_text()
    assert "<td>label similarity, items</td><td>0.5</td><td>0.4</td>" in page


def test_one_language_model_for_all_rows():
    values = planning.recipe_values("relrec", "ml-100k")
    values["options"] = {**values["options"], "llm": "some-model"}
    rows = {recipe.model: recipe for _, recipe in planning.comparison_recipes(values, "here")}
    assert rows["llama2-seq"].options["llm"] == rows["relrec"].options["llm"] == "some-model"
    assert "llm" not in rows["sasrec"].options
