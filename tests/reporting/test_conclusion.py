"""What follows from a block, in one sentence: every outcome, the strongest control, and the same in every form."""

from __future__ import annotations

import html
import re

import pytest

from recllm_bench.recipe import ConversationOptions
from recllm_bench.reporting.comparison import compare
from recllm_bench.reporting.conclusion import conclusion
from recllm_bench.reporting.html import write_report
from recllm_bench.reporting.page import Look
from recllm_bench.reporting.subject import compared_as
from recllm_bench.reporting.table import comparison_table

TALK = {"model": "latentcrs", "block": "text"}


def table(make, subject: float, control: float, ceiling: float = 9.0):
    rows = [
        make("LatentCRS", subject, seed=1, **TALK),
        make("LatentCRS, no words", 1.0, seed=2, conversation=ConversationOptions(words="none"), **TALK),
        make("Popularity that fits", control, model="words-fit", block="text", seed=3),
        make("Popularity, told", ceiling, model="facts-fit", block="text", seed=4),
        make("SASRec", 1.2, seed=5),
    ]
    return rows, compare(rows)


@pytest.mark.parametrize(
    ("subject", "control", "said"), [(4.0, 2.0, "is better than"), (2.0, 4.0, "is not better than")]
)
def test_the_strongest_control_decides(make, subject, control, said):
    _, found = table(make, subject, control)
    sentence = conclusion(found, "text")
    planned = next(each for each in found.planned if found.records[each.row].name == "Popularity that fits")
    value = f"{planned.pair.mean:+.3f}".replace("0.", ".")
    assert sentence == (
        f"LatentCRS {said} Popularity that fits, the strongest of 2 controls (NDCG@20 {value}, p < .001)."
    )
    roles = {found.records[each.row].name: each.role for each in found.planned}
    assert roles["Popularity, told"] == "ceiling", "and no control that a system could fail"
    assert conclusion(found, "history").startswith(
        "LatentCRS, which also reads words, is better than SASRec (NDCG@20 +"
    )


def test_what_cannot_be_told_is_said(make):
    rows = [make("LatentCRS", 2.0, seed=1, **TALK), make("Fits", 2.0, model="words-fit", block="text", seed=3)]
    found = compare(rows)
    (planned,) = found.planned
    assert not planned.pair.significant
    word = "is equal within 2 % to" if planned.pair.equal else "cannot be told from"
    assert conclusion(found, "text").startswith(f"LatentCRS {word} Fits, the control (NDCG@20 ")


def test_equal_rows_are_called_equal(make):
    rows = [make("LatentCRS", 2.0, seed=1, **TALK), make("Fits", 2.0, model="words-fit", block="text", seed=1)]
    assert conclusion(compare(rows), "text").startswith(
        "LatentCRS is equal within 2 % to Fits, the control (NDCG@20 +.000"
    )


def test_one_row_concludes_nothing(make):
    assert conclusion(compare([make("LatentCRS", 2.0, **TALK)]), "text") == ""


def test_a_row_that_is_compared_otherwise_stands_for_its_method(make):
    talk = {"model": "cesrec", "block": "text"}
    rows = [
        make("CESRec", 4.0, seed=1, **talk),
        make("CESRec, acceptance off", 2.0, seed=2, options={"early_accept": False}, **talk),
        make("A random title", 2.5, seed=3, options={"early_accept": False, "edit": "random_title"}, **talk),
        make("SASRec", 2.5, seed=4),
    ]
    found = compare(rows)
    assert found.records[found.subject].name == "CESRec, acceptance off" == rows[compared_as(rows, 0)].name
    assert compared_as(rows, 3) == 3
    assert "A random title, the control" in conclusion(found, "text")
    assert "is not better than SASRec" in conclusion(found, "history")
    assert compare(rows, subject="CESRec").records[compare(rows, subject="CESRec").subject].name == "CESRec"


def test_terminal_markdown_and_html_say_the_same(make, tmp_path):
    rows, found = table(make, 2.0, 4.0)
    page = write_report(rows, tmp_path / "page.html").read_text()
    shown = [
        html.unescape(text)
        for text in (comparison_table(rows), comparison_table(rows, look=Look(format="markdown")), page)
    ]
    for block in ("history", "text"):
        sentence = conclusion(found, block)
        assert all(sentence in re.sub(r"\s+", " ", text.replace("\\", "")) for text in shown)
