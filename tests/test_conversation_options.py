"""An option under ``conversation`` does what it says in the model it is set for, or is refused."""

from __future__ import annotations

import pytest

from recllm_bench.api.registry import model_named
from recllm_bench.errors import BenchError
from recllm_bench.planning import comparison_recipes, resolved, sweep_recipes
from recllm_bench.recipe import recipe_from
from recllm_bench.runner import BenchCell


@pytest.fixture
def shop(tmp_path):
    lines = [f"{user},{(user * place) % 17},{user * 100 + place}" for user in range(1, 30) for place in range(1, 12)]
    (tmp_path / "shop.csv").write_text("user,item,timestamp\n" + "\n".join(lines))
    (tmp_path / "shop.items.csv").write_text("item,title\n" + "\n".join(f"{item},Film {item}" for item in range(17)))
    return tmp_path / "shop.csv"


def values(model, shop, **more):
    return {"model": model, "dataset": str(shop), **more}


@pytest.mark.parametrize("model", ["sasrec", "relrec", "llama2-seq", "recbole:SASRec", "pop"])
@pytest.mark.parametrize(("option", "value"), [("users", 5), ("simulator", "rules:2"), ("words", "none")])
def test_what_users_say_is_refused_where_it_is_not_read(model, option, value, shop):
    with pytest.raises(BenchError, match=rf"conversation\.{option} would do nothing"):
        comparison_recipes(values(model, shop, conversation={option: value}), "here")


@pytest.mark.parametrize("model", ["sasrec", "llama2-seq", "recbole:SASRec"])
def test_an_encoder_is_refused_where_nothing_is_encoded(model, shop, models_folder):
    options = {"llm": "domain-llama-4m"} if model == "llama2-seq" else {}
    recipe = resolved(recipe_from(values(model, shop, options=options, conversation={"pooling": "last"}), "here"))
    with pytest.raises(BenchError, match="would do nothing"):
        BenchCell(recipe).check()


def test_relrec_is_measured_with_the_encoder_that_was_asked_for(shop, models_folder):
    def stages(options, **talk):
        options = {"llm": "domain-llama-4m", **options}
        recipe = resolved(recipe_from(values("relrec", shop, options=options, conversation=talk), "here"))
        cell = BenchCell(recipe)
        cell.check()
        return {stage.name: dict(stage.key) for stage in cell.cell.method.stages()}

    plain, other = stages({}), stages({}, pooling="last")
    assert other["train"] == plain["train"]
    assert other["reconstruction"] != plain["reconstruction"]
    with pytest.raises(BenchError, match="would do nothing"):
        stages({"recon_users": -1, "recon_items": -1}, pooling="last")


def test_a_companion_is_not_blamed_for_what_the_model_was_given(shop):
    rows = comparison_recipes(values("text-retrieval", shop, conversation={"users": 5, "pooling": "last"}), "here")
    for _, recipe in rows:
        reads = model_named(recipe.model).reads_words
        assert (recipe.conversation.users == 5) == (recipe.conversation.pooling == "last") == reads
    assert len(rows) > 4


def test_a_row_is_blamed_for_its_own(shop):
    row = {"model": "pop", "conversation": {"users": 5}}
    with pytest.raises(BenchError, match=r"conversation\.users would do nothing"):
        comparison_recipes(values("text-retrieval", shop, compare=[row]), "here")
    with pytest.raises(BenchError, match=r"conversation\.users would do nothing"):
        sweep_recipes(values("text-retrieval", shop, rows=[row]), "here")
    base = values("text-retrieval", shop, conversation={"users": 5}, rows=[{"model": "pop"}, {"seed": 1}])
    assert [recipe.conversation.users for _, recipe in sweep_recipes(base, "here")] == [0, 5]
