"""Which row a table is about, and which it is held against, whatever was made when."""

from __future__ import annotations

import random

import pytest

from recllm_bench.errors import BenchError
from recllm_bench.recipe import ConversationOptions
from recllm_bench.reporting.comparison import compare
from recllm_bench.reporting.subject import row_key
from recllm_bench.reporting.table import comparison_table

TALK = {"model": "latentcrs", "block": "text"}


@pytest.fixture
def mixed(make):
    """Two methods with words, their controls, a ceiling, baselines and RecBole's, made in no order."""
    return [
        make("LatentCRS, another user's words", 9.0, seed=1, conversation=ConversationOptions(words="another"), **TALK),
        make("Facts", 20.0, model="facts-fit", block="text", seed=2),
        make("SASRec (RecBole)", 3.0, model="recbole:SASRec", seed=3),
        make("CESRec", 2.0, model="cesrec", block="text", seed=4, options={"early_accept": False}),
        make("LatentCRS", 4.0, seed=5, **TALK),
        make("SASRec (ours)", 2.5, seed=6),
        make("Pop", 0.5, model="pop", seed=7),
        make("CESRec, random", 8.0, model="cesrec", block="text", seed=8, options={"edit": "random_title"}),
    ]


def name_of(found) -> str:
    return found.records[found.subject].name


def test_the_best_method_that_is_no_control_is_the_subject_whenever_it_was_made(mixed):
    for seed in range(4):
        order = random.Random(seed).sample(mixed, len(mixed))
        for second, record in enumerate(order):
            record.created = f"2026-01-01T00:00:{second:02d}Z"
        found = compare(order)
        assert name_of(found) == "LatentCRS"
        roles = {found.records[each.row].name: each.role for each in found.planned}
        assert roles["SASRec (RecBole)"] == "best baseline", "the best in its block"
        assert roles["LatentCRS, another user's words"] == "control" and roles["Facts"] == "ceiling"
        assert "CESRec, random" not in roles, "a control of another method says nothing about this one"
    worse = [record for record in mixed if record.name != "LatentCRS"]
    assert name_of(compare(worse)) == "CESRec", "a control is never the subject while there is a method"
    assert name_of(compare([mixed[0], mixed[5], mixed[6]])) == "SASRec (ours)"
    assert name_of(compare(mixed[:2])) == "Facts", "nothing else is there"


def test_subject_and_baseline_are_named_in_three_ways(mixed):
    chosen = mixed[5]
    for name in ("SASRec (ours)", row_key(chosen), "sasrec", "SASREC"):
        assert name_of(compare(mixed, subject=name)) == "SASRec (ours)"
        found = compare(mixed, baseline=name)
        assert found.reference == "SASRec (ours)"
        assert [found.records[each.row].name for each in found.planned if each.role == "baseline"] == ["SASRec (ours)"]
    assert name_of(compare(mixed, subject="latentcrs")) == "LatentCRS", "the model's own row, not its control"
    with pytest.raises(BenchError, match=r"no row is named 'SASRec \(our\)'.*SASRec \(ours\)"):
        compare(mixed, subject="SASRec (our)")


def test_a_row_is_not_held_against_itself(mixed):
    with pytest.raises(BenchError, match="'LatentCRS' is the subject and the baseline"):
        compare(mixed, subject="LatentCRS", baseline="latentcrs")
    assert name_of(compare(mixed, baseline="LatentCRS")) == "CESRec", "the next best method"


def test_a_control_may_be_the_baseline(mixed):
    found = compare(mixed, baseline="CESRec, random")
    assert [found.records[each.row].name for each in found.planned if each.role == "baseline"] == ["CESRec, random"]
    text = " ".join(comparison_table(mixed, baseline="CESRec, random").split())
    assert "Against CESRec, random, in a block without it the best row: ▲ better" in text


def test_a_name_of_some_tables_chooses_these(mixed, make):
    other = make("Only here", 1.0, protocol="unified.full", model="iclrec")
    text = comparison_table([*mixed, other], subject="iclrec")
    assert "unified.full" in text and "latentcrs.one_turn" not in text
