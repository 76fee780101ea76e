"""Users who have nothing to say are noticed before anything trains."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recllm_bench.conversation.attributes import AttributeTable, Fact
from recllm_bench.conversation.disclosure import FITTING, disclosure, in_words, nothing_to_say
from recllm_bench.errors import BenchError
from recllm_bench.recipe import recipe_from
from recllm_bench.rows import run_cells
from recllm_bench.runner import BenchCell
from tests.conftest import planted_catalogue


def shop(folder, kinds):
    """A data set of one's own whose items may have categories."""
    rng = np.random.default_rng(0)
    rows = [f"{u}\t{i}\t{t}" for u in range(40) for t, i in enumerate(rng.permutation(30)[:12])]
    items = [f"{item}\tPlain Thing {item}\t{kinds(item)}" for item in range(30)]
    heads = ("user_id:token\titem_id:token\ttimestamp:float", "item_id:token\ttitle:token_seq\tgenre:token_seq")
    folder = folder / "shop"
    folder.mkdir()
    for ending, head, lines in (("inter", heads[0], rows), ("item", heads[1], items)):
        (folder / f"shop.{ending}").write_text("\n".join([head, *lines]) + "\n")
    return str(folder)


def cell(data, simulator):
    values = {
        "model": "text-retrieval", "dataset": data, "protocol": "unified.full", "device": "cpu",
        "conversation": {"simulator": simulator},
    }  # fmt: skip
    return recipe_from(values, "test")


@pytest.mark.parametrize("simulator", ["rules", "rules:1", "rules:all", "taste"])
def test_a_catalogue_without_facts_is_refused_before_anything_trains(tmp_path, simulator, monkeypatch):
    recipe = cell(shop(tmp_path, lambda item: ""), simulator)
    monkeypatch.setattr(BenchCell, "run", lambda *given, **named: pytest.fail("it ran"))
    with pytest.raises(BenchError, match=r"40 of 40 users have nothing to say.*categories \(genres, tags\), years or"):
        run_cells([("", recipe)])


def test_some_users_with_nothing_to_say_are_a_warning(tmp_path, caplog):
    recipe = cell(shop(tmp_path, lambda item: "Drum" if item % 3 == 0 else "Flute" if item % 3 == 1 else ""), "rules:1")
    with caplog.at_level("WARNING"):
        BenchCell(recipe).check()
    assert "of 40 users have nothing to say of what they want" in caplog.text


def test_all_users_with_something_to_say_are_no_news(tmp_path, caplog):
    with caplog.at_level("WARNING"):
        BenchCell(cell(shop(tmp_path, lambda item: "Drum" if item % 2 else "Flute"), "rules")).check()
    assert "nothing to say" not in caplog.text
    assert nothing_to_say("x", "y", 0, 10) == ""


def test_what_the_words_give_away_equals_brute_force():
    shelf = planted_catalogue(60)
    table, rng = AttributeTable(shelf), np.random.default_rng(3)
    targets = rng.integers(1, 61, 200).tolist()
    said = [table.facts(target)[: rng.integers(0, 4)] for target in targets]
    refused = [(table.vocabulary[rng.integers(0, 6)],) if rng.random() < 0.5 else () for _ in targets]
    fits = [
        [i for i in range(1, 61) if set(yes) <= set(table.facts(i)) and not set(no) & set(table.facts(i))]
        for yes, no in zip(said, refused, strict=True)
    ]
    found = {measure.about: measure.value for measure in disclosure(table, said, refused, targets)}
    counts = [len(items) for items in fits]
    assert found["median"] == np.median(counts)
    assert (found["5 %"], found["95 %"]) == tuple(np.quantile(counts, [0.05, 0.95]))
    assert found["share: the target alone"] == np.mean([items == [t] for items, t in zip(fits, targets, strict=True)])
    assert found["share: the target among them"] == np.mean(
        [t in items for items, t in zip(fits, targets, strict=True)]
    )
    assert 0 < found["share: the target alone"] < found["share: the target among them"] < 1
    line = in_words(disclosure(table, said, refused, targets))
    assert line.startswith(f"the words leave a median of {np.median(counts):,.0f} of 60 items (5 to 95 %:")
    assert in_words([]) == "" and disclosure(table, [], [], []) == []
    assert dataclasses.astuple(disclosure(table, [()], [()], [1])[0])[:2] == (FITTING, 60.0)
    assert table.count_matches([(Fact("category", "Unheard of"),)]).tolist() == [0]
