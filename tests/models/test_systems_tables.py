"""Rows of the dialogue tables: F and V beside B, printed rows, costs, and who is tested against whom."""

from __future__ import annotations

import types

import numpy as np
import pytest

from recllm_bench.evaluation.dialogue_outcomes import cost_measures
from recllm_bench.models.latentcrs.published import TABLES
from recllm_bench.planning import comparison_recipes, sweep_recipes
from recllm_bench.recipe import read_recipe_file
from recllm_bench.reporting import comparison
from recllm_bench.reporting.ablation import ablation_table, check_table


def labels(**changes) -> dict[str, object]:
    values = {**read_recipe_file("latentcrs-ml-100k"), **changes}
    return {label or recipe.model: recipe for label, recipe in comparison_recipes(values, "test")}


def test_f_and_v_stand_beside_b_where_there_are_turns():
    rows = labels(protocol="latentcrs.multi_turn")
    small = rows["LatentCRS_V, local:smollm2, 24 dialogues"]
    assert rows["LatentCRS_F"].options["variant_output"] == "F" and rows["LatentCRS_F"].conversation.users == 500
    assert small.conversation.users == 24 and small.options["verified"] == "dialogues"
    assert {"LatentCRS, another user's words", "LatentCRS, no words", "text-retrieval", "Pop"} <= rows.keys()
    assert not any("LatentCRS_" in label for label in labels())


def test_another_verifier_holds_all_dialogues():
    options = {"verifier": "server:m@http://localhost:1/v1"}
    rows = labels(
        protocol="latentcrs.multi_turn", options={**read_recipe_file("latentcrs-ml-100k")["options"], **options}
    )
    assert rows["LatentCRS_V"].conversation.users == 500 and "verified" not in rows["LatentCRS_V"].options


@pytest.mark.parametrize("table", ["T3", "T4", "T6"])
def test_the_tables_are_sweeps_beside_printed_rows(table):
    name = f"latentcrs-table{table[1]}"
    values = read_recipe_file(name)
    check_table(values["published"])
    rows = sweep_recipes(values, name)
    assert [row["published"] for row in values["rows"]][:3] == ["B", "F", "V"]
    assert {recipe.protocol for _, recipe in rows} == {"latentcrs.multi_turn.n24"}
    assert {recipe.conversation.users for _, recipe in rows} == {24}
    outputs = [recipe.options.get("variant_output") for _, recipe in rows][:3]
    assert outputs == [None, "F", "V"] and rows[2][1].options["intents"] == 64


def test_table_6_stands_beside_what_was_counted():
    records = [
        types.SimpleNamespace(
            name=name, metrics={}, dialogue={}, dataset={"name": "ml-100k"}, substitutes={},
            measures=[types.SimpleNamespace(label=label, value=value) for label, value in found.items()],
        )
        for name, found in {
            "B": {},
            "F": {"tokens read a turn, one turn": 200.0, "tokens written a turn, one turn": 20.0},
        }.items()
    ]  # fmt: skip
    text = ablation_table(records, ["B", "F"], "latentcrs T6")
    assert "200.0000" in text and "317.5000" in text and "20.0000" in text


@pytest.mark.parametrize(
    ("recipe", "row"),
    [
        ({"model": "zero-shot", "options": {"chat": "server:gpt-4-turbo@http://x/v1"}}, "GPT-4"),
        ({"model": "zero-shot", "options": {"chat": "server:gemini-1.5-pro-002@http://x/v1"}}, "Gemini-1.5-pro"),
        ({"model": "zero-shot", "options": {}}, "Llama-3.1-8B"),
        ({"model": "chat-rec"}, "Chat-Rec"),
        ({"model": "interecagent"}, "InteRecAgent"),
        ({"model": "iclrec"}, "iclrec"),
    ],
)
def test_systems_find_their_printed_row(recipe, row):
    assert TABLES.row(recipe) == (row, "")


def test_costs_of_dialogues():
    seconds = np.arange(1.0, 22.0)
    tokens = np.full(21, 40)
    found = {measure.label: measure.value for measure in cost_measures(seconds, tokens, np.zeros(21, dtype=np.int64))}
    assert found == {
        "tokens read a dialogue, dialogues": 40,
        "seconds a dialogue, of a batch, dialogues": 11,
        "seconds a dialogue, 95th percentile, dialogues": 20,
    }
    assert cost_measures(np.zeros(0), tokens[:0], tokens[:0]) == []


def test_rows_of_other_dialogues_are_not_tested():
    """Who held 24 dialogues shares few users with who held 500."""
    held = [
        comparison._held(types.SimpleNamespace(dialogue=dialogue))
        for dialogue in ({"n": 490, "invalid": 10}, {"n": 24, "invalid": 0}, {})
    ]
    assert held == [500, 24, 0]
