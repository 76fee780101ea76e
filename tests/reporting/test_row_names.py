"""No two rows of a table have one name; a name says what differs from the default recipe, and no more than it takes."""

from __future__ import annotations

import dataclasses
import itertools

from recllm_bench.reporting.comparison import compare
from recllm_bench.reporting.records import RunRecord
from recllm_bench.reporting.row_names import told_apart
from recllm_bench.reporting.table import comparison_table, row_notes


def names(records) -> list[str]:
    return [record.name for record in told_apart(records)]


def plain(make, number: int, **changes):
    """A run of SASRec with these options, as the bench records it: all of them differ from the defaults."""
    changed = {f"options.{name}": value for name, value in changes.items()}
    return make("SASRec", 1.0, options=changes, seed=number, model_name="SASRec", changed=changed)


def test_runs_that_differ_in_an_option_have_different_names(make):
    rows = [plain(make, 1), plain(make, 2, hidden_size=16), plain(make, 3, hidden_size=32)]
    assert names(rows) == ["SASRec", "SASRec, hidden_size=16", "SASRec, hidden_size=32"]
    assert [record.name for record in compare(rows).records] == names(rows)


def test_a_name_has_only_what_tells(make):
    rows = [plain(make, 1, hidden_size=16, n_layers=1), plain(make, 2, hidden_size=16, n_layers=2)]
    assert names(rows) == ["SASRec, n_layers=1", "SASRec, n_layers=2"], "both have the same width"
    grid = [plain(make, 10 + n, a=a, b=b, c=5) for n, (a, b) in enumerate(itertools.product((1, 2), (0.5, 0.25)))]
    assert names(grid) == [
        "SASRec, a=1, b=0.5",
        "SASRec, a=1, b=0.25",
        "SASRec, a=2, b=0.5",
        "SASRec, a=2, b=0.25",
    ]
    nested = [plain(make, 30 + n, backbone_options={"size": n, "kind": "x"}) for n in (1, 2)]
    for record, n in zip(nested, (1, 2), strict=True):
        record.changed = {"options.backbone_options.size": n}
    assert names(nested) == ["SASRec, backbone_options.size=1", "SASRec, backbone_options.size=2"]


def test_many_rows_in_many_options_all_differ(make):
    base = plain(make, 1)
    rows = []
    for number, values in enumerate(itertools.product((1, 2), repeat=5)):
        changed = {f"options.{name}": value for name, value in zip("abcde", values, strict=True)}
        rows.append(dataclasses.replace(base, changed=changed, users_hash=str(number)))
    found = names(rows)
    assert len(set(found)) == 32
    assert found[0] == "SASRec, a=1, b=1, c=1, d=1, e=1"


def test_a_row_alone_says_what_was_changed(make):
    assert names([plain(make, 1)]) == ["SASRec"]
    assert names([plain(make, 2, hidden_size=16)]) == ["SASRec, hidden_size=16"]
    row = plain(make, 3, hidden_size=16, n_layers=1, dropout=0.5)
    assert names([row]) == ["SASRec, hidden_size=16, n_layers=1 and 1 more"]
    (named,) = told_apart([row])
    assert row_notes(named)[-1] == "changed from its default recipe: hidden_size=16, n_layers=1, dropout=0.5"
    assert told_apart([named]) == [named], "a second time changes nothing"
    label = dataclasses.replace(row, name="half the width")
    assert names([label]) == ["half the width"], "a label says it already"
    assert names([dataclasses.replace(row, changed=None)]) == ["SASRec"], "an earlier record does not know"


def test_earlier_records_of_one_name_are_told_by_their_recipes(make):
    rows = [make("SASRec", 1.0, options={"hidden_size": size, "n_heads": 2}, seed=size) for size in (16, 32)]
    assert [record.changed for record in rows] == [None, None]
    assert names(rows) == ["SASRec, hidden_size=16", "SASRec, hidden_size=32"]


def test_the_same_recipe_twice_is_told_by_its_record(make):
    rows = [make("SASRec", 1.0, seed=1), make("SASRec", 2.0, seed=2)]
    for row in rows:
        row.created = "2026-01-01T00:00:00Z"
    assert names(rows) == ["SASRec, record 1", "SASRec, record 2"]
    rows[1].created = "2026-01-02T00:00:00Z"
    assert names(rows) == [f"SASRec, made {row.created}" for row in rows]


def test_speakers_and_words_are_told_apart_by_what_was_set(make):
    from recllm_bench.recipe import ConversationOptions

    rows = [
        make("LatentCRS", 1.0, model="latentcrs", block="text", seed=n, conversation=ConversationOptions(users=n))
        for n in (10, 20)
    ]
    assert names(rows) == ["LatentCRS, conversation.users=10", "LatentCRS, conversation.users=20"]


def test_the_table_shows_these_names(make):
    text = comparison_table([plain(make, 1), plain(make, 2, hidden_size=16)], subject="SASRec, hidden_size=16")
    assert "SASRec, hidden_size=16 minus the others" in text


def test_an_option_that_only_an_earlier_recipe_has_is_no_change():
    facts = {"dataset": {"name": "d"}, "protocol": {"name": "p"}, "model_name": "M", "block": "history"}
    old = RunRecord("M", recipe={"model": "m", "conversation": {"gone_since": False}}, changed=None, **facts)
    new = RunRecord("M", recipe={"model": "m", "quick": 2}, changed={"quick": 2}, **facts)
    assert [row.name for row in told_apart([old, new])] == ["M", "M, quick=2"]
