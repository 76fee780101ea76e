"""Who speaks is part of what was measured: rows that hear different users share no block and no test."""

from __future__ import annotations

import dataclasses

import pytest

from recllm_bench.api.measure import Measure
from recllm_bench.conversation.disclosure import FITTING
from recllm_bench.reporting.comparison import compare
from recllm_bench.reporting.html import write_report
from recllm_bench.reporting.record import RunRecord
from recllm_bench.reporting.table import comparison_table

SPEAKERS = ("rules:1", "rules:2", "rules:all")
LEFT = {
    "median": 61,
    "5 %": 9,
    "95 %": 240,
    "catalogue": 1682,
    "share: the target alone": 0.004,
    "share: the target among them": 1.0,
}


def speaking(record: RunRecord, simulator: str, vocabulary: str = "abc", **own) -> RunRecord:
    who = {"simulator": simulator, "facts": 40, "vocabulary": vocabulary, **own}
    return dataclasses.replace(record, name=f"{record.name}, {simulator}", speaker=who)


@pytest.fixture
def rows(make):
    plain = make("SASRec", 2.0)
    heard = [
        speaking(make(name, skill, model=model, block="text", seed=seed + 10 * lift), who)
        for who, lift in zip(SPEAKERS, (0, 1, 4), strict=True)
        for name, skill, model, seed in (
            ("LatentCRS", 2 + lift, "latentcrs", 2),
            ("Text retrieval", 1 + lift, "text-retrieval", 3),
        )
    ]
    return [plain, *heard]


def test_one_protocol_under_three_users_gives_three_blocks(rows):
    found = compare(rows, subject="LatentCRS, rules:2")
    assert list(found.blocks) == ["history", "text", "text:2", "text:3"]
    names = [[found.records[row].name for row in found.rows(block)] for block in found.blocks]
    assert names == [
        ["SASRec"],
        *([f"LatentCRS, {who}", f"Text retrieval, {who}"] for who in ("rules:2", "rules:1", "rules:all")),
    ]
    for block, who in zip(("text", "text:2", "text:3"), ("rules:2", "rules:1", "rules:all"), strict=True):
        assert found.blocks[block][1].startswith(f"users: {who} over 40 facts")
        family = found.families[block][0]
        heard = {found.records[row].users for row in (*family.references.values(), *(row for _, row in family.pairs))}
        assert heard == {f"{who} over 40 facts"}
    planned = {found.records[each.row].name for each in found.planned}
    assert planned == {"SASRec", "Text retrieval, rules:2"}
    assert not found.unpaired


def test_the_table_heads_each_block_by_its_users_and_what_they_give_away(rows, tmp_path):
    measures = [Measure(FITTING, value, about) for about, value in LEFT.items()]
    rows[3] = dataclasses.replace(rows[3], measures=measures)  # the first row of rules:2
    text = comparison_table(rows)
    flat = " ".join(text.split())
    assert text.count("With words") == 3
    assert (
        "users: rules:2 over 40 facts; the words leave a median of 61 of 1,682 items (5 to 95 %: 9 to 240), the target "
        "alone in 0.4 %"
    ) in flat
    assert "Beside the ranking" not in text
    page = write_report(rows, tmp_path / "report.html").read_text()
    assert page.count("users: rules:") >= 3


def test_options_and_vocabulary_are_part_of_who_speaks(make):
    row = make("A", 1.0, block="text")
    base = speaking(row, "rules", leaves=0.05)
    assert base.users == "rules over 40 facts, leaves 0.05"
    assert base.pairs_with(base)
    assert not base.pairs_with(speaking(row, "rules", leaves=0.2))
    assert not base.pairs_with(speaking(row, "rules", vocabulary="other", leaves=0.05))
    assert not base.pairs_with(speaking(row, "taste", leaves=0.05))
    assert base.pairs_with(make("B", 1.0)) and make("B", 1.0).pairs_with(base)


def test_a_record_of_before_tells_its_users_by_its_recipe(make):
    row = make("A", 1.0, block="text", substitutes={"simulator": "rules:2"})
    assert row.users == "rules:2"
    assert dataclasses.replace(row, substitutes={"simulator": "rules"}).users == "rules:1"  # the name of that time
    assert make("B", 1.0).users == ""
