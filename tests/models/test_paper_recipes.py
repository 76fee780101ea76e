"""Every recipe that bears a paper's name is held against what that paper says, by one of the tests of the methods."""

from __future__ import annotations

from recllm_bench.recipe import recipe_names
from tests.models import test_cesrec_recipes, test_latentcrs_recipes, test_relrec_recipes


def test_no_paper_recipe_is_unread():
    held = {
        *(f"relrec-table{table}-paper" for table in test_relrec_recipes.ROWS),
        *(f"relrec-figure-{weight}-paper" for weight in test_relrec_recipes.FIGURES),
        *test_latentcrs_recipes.SCRIPTS,
        "iclrec-ml1m-paper",  # the encoder of the first of these
        *(f"cesrec-table{table}-paper" for table in test_cesrec_recipes.TABLES),
        *(f"cesrec-{dataset}-paper" for dataset in (test_cesrec_recipes.ML, test_cesrec_recipes.GAMES)),
        *(f"cesrec-sasrec-{dataset}-paper" for dataset in (test_cesrec_recipes.ML, test_cesrec_recipes.GAMES)),
    }
    assert held == {name for name in recipe_names() if name.endswith("-paper")}
