"""Recipes of the paper's tables, resolved and held against what the paper states, value by value."""

from __future__ import annotations

import pytest

from recllm_bench.api.registry import model_named
from recllm_bench.evaluation.protocols import protocol_named
from recllm_bench.models.relrec.options import ReLRecOptions, check_options
from recllm_bench.models.relrec.published import row
from recllm_bench.options import read_options
from recllm_bench.planning import resolved, sweep_recipes
from recllm_bench.recipe import read_recipe_file, recipe_from, recipe_names
from recllm_bench.reporting.published_numbers import load_published
from recllm_bench.runner import BenchCell
from recllm_bench.training.training_options import TrainingOptions

MAIN = {
    # stated by the paper
    "llm": "meta-llama/Llama-2-7b-hf",
    "p": 512,
    "alpha": 0.75,
    "beta": 0.3,
    "gamma": 0.9,
    "init": "avg",
    "user_token": True,
    "recon": True,
    "two_stage": True,
    "anonymise_names": True,
    "labels": "generated",
    "proj": "1layer",
    "share_projection": False,  # "to each embedding"
    "recon_prompt": "random",
    # read from it, or ours where it says nothing
    "label_scope": "all",
    "seq_softmax": "full",
    "item_head": "tied",
    "label_versions": 3,
    "label_tokens": 384,
    "label_visits": 0,
    "switched_labels": "none",
}
TRAINING = {"learning_rate": 1e-3, "batch_size": 16, "epochs": 50, "patience": 5, "max_length": 50, "clip_norm": 1.0}
BOOK, YELP, STEAM = "amazon-2014-books", "yelp", "steam"
RANDOM = {"init": "random"}
ROWS = {
    2: [({}, "full", YELP), ({}, "full", BOOK)],
    3: [
        ({**RANDOM, "user_token": False, "proj": "none", "recon": False}, "randinit_user0_pl0", YELP),
        ({**RANDOM, "user_token": False, "recon": False}, "randinit_user0_pl1", YELP),
        ({**RANDOM, "proj": "none", "recon": False}, "randinit_user1_pl0_recon0", YELP),
        ({**RANDOM, "recon": False}, "randinit_user1_pl1_recon0", YELP),
        (RANDOM, "randinit_user1_pl1_recon1", YELP),
    ],
    4: [
        ({"recon": False}, "recon0_itemlabel_ok_userlabel_ok", YELP),
        ({"switched_labels": "items"}, "recon1_itemlabel_switched", YELP),
        ({"switched_labels": "users"}, "recon1_userlabel_switched", YELP),
        ({}, "recon1_labels_ok", YELP),
    ],
    5: [
        ({**RANDOM, "recon": False, "labels": "extractive"}, "recon0_avg0", YELP),
        ({"recon": False, "labels": "extractive"}, "recon0_avg1", YELP),
        (RANDOM, "recon1_avg0_2stage1", YELP),
        ({"two_stage": False}, "recon1_avg1_2stage0", YELP),
        ({}, "recon1_avg1_2stage1", YELP),
    ],
    6: [({"alpha": value}, f"alpha={value:.2f}", YELP) for value in (0.25, 0.5, 0.75, 1.0)],
    8: [({}, "full", STEAM)],
    9: [
        ({**RANDOM, "user_token": False, "proj": "none", "recon": False}, "randinit_user0_pl0_recon0", STEAM),
        ({**RANDOM, "proj": "none", "recon": False}, "randinit_user1_pl0_recon0", STEAM),
        ({**RANDOM, "recon": False}, "randinit_user1_pl1_recon0", STEAM),
        (RANDOM, "randinit_user1_pl1_recon1", STEAM),
    ],
    10: [({"proj": proj}, f"proj={proj}", YELP) for proj in ("none", "1layer", "2layer")],
    11: [({"p": p}, f"proj_dim={p}", YELP) for p in (64, 128, 256, 512, 1024, 2048, 4096)],
    12: [({}, "full", YELP)],
}
FIGURES = {"beta": (0, 0.1, 0.3, 0.6, 0.9, 1.2), "gamma": (0, 0.1, 0.3, 0.6, 0.9, 1.2)}  # Figure 3; points are ours


def rows_of(name: str):
    """Recipes of a sweep with the printed row that each names."""
    values = read_recipe_file(name)
    named = [str(changes.get("published", "")) for changes in values["rows"]]
    return list(zip(sweep_recipes(values, name), named, strict=True))


def assert_is_the_papers(recipe, changes):
    options = check_options(read_options(ReLRecOptions, recipe.options, "recipe"))
    wanted = {**MAIN, **changes}
    assert {name: getattr(options, name) for name in wanted} == wanted
    assert recipe.protocol == "relrec.full" and not recipe.budget and not recipe.quick
    if options.labels == "generated":
        assert options.chat.startswith("server:gpt-3.5-turbo@") and not options.token_budget
    defaults = model_named("relrec").training_defaults
    training = read_options(TrainingOptions, {**defaults, **recipe.training}, "recipe")
    assert {name: getattr(training, name) for name in TRAINING} == TRAINING
    return options


@pytest.mark.parametrize("weight", FIGURES)
def test_a_figure_of_the_paper_has_its_values(weight):
    found = [recipe for (_, recipe), _ in rows_of(f"relrec-figure-{weight}-paper")]
    assert [recipe.options[weight] for recipe in found] == list(FIGURES[weight])
    for recipe, value in zip(found, FIGURES[weight], strict=True):
        assert recipe.dataset == YELP
        assert_is_the_papers(recipe, {weight: value})
        assert row(recipe.as_dict()) == (("relrec", "full") if value == MAIN[weight] else None)


@pytest.mark.parametrize("table", ROWS)
def test_a_paper_recipe_resolves_to_the_paper_s_values(table):
    found = [
        (recipe, named) for (_, recipe), named in rows_of(f"relrec-table{table}-paper") if recipe.model == "relrec"
    ]
    assert [(named, recipe.dataset) for recipe, named in found] == [(row[1], row[2]) for row in ROWS[table]]
    for (recipe, _), (changes, _, _) in zip(found, ROWS[table], strict=True):
        options = assert_is_the_papers(recipe, changes)
        if options.switched_labels != "none":
            assert options.switched_from == BOOK
        if table == 10:
            assert options.recon_users == options.recon_items == 0
        if table == 12:
            assert options.timed_batches > 0


def test_there_is_a_paper_recipe_for_every_table_of_results():
    printed = {cell.table for cell in load_published() if cell.paper == "relrec"} - {"T1", "T7"}  # statistics of data
    assert printed == {f"T{table}" for table in ROWS}
    for table in ROWS:
        assert read_recipe_file(f"relrec-table{table}-paper")["published"] == f"relrec T{table}"


def test_the_protocol_is_the_paper_s():
    protocol = protocol_named("relrec.full")
    assert protocol.cutoffs == (5, 10, 20) and not protocol.exclude_history and protocol.filter == "relrec"
    assert {"Recall", "NDCG"} <= set(protocol.metrics)


@pytest.mark.parametrize("table", [2, 8])
def test_baselines_of_a_table_carry_nothing_of_relrec(table):
    known = {(cell.dataset, cell.model) for cell in load_published() if cell.place == f"relrec T{table}"}
    others = [
        (recipe, named) for (_, recipe), named in rows_of(f"relrec-table{table}-paper") if recipe.model != "relrec"
    ]
    names = {YELP: "Yelp", BOOK: "AmazonBook", STEAM: "Steam"}
    missing = {"CL4SRec", "P5", "E4SRec", "ReLRec"}
    assert {(names[recipe.dataset], named) for recipe, named in others} == {
        pair for pair in known if pair[1] not in missing
    }
    for recipe, named in others:
        assert not recipe.options
        assert recipe.model.rpartition(":")[2].casefold() == named.casefold()
        assert recipe.training == {"batch_size": 2048, "learning_rate": 1e-3, "epochs": 300, "patience": 10}


def test_the_grid_of_the_baselines():
    """Step size {5e-4, 1e-3, 5e-3} by dropout {0.2, 0.5}, width 64; two of the six models have no dropout."""
    cells: dict[str, set] = {}
    for (_, recipe), _ in rows_of("relrec-baselines-grid"):
        options = recipe.options
        dropout = options.get(
            "dropout_prob", options.get("hidden_dropout_prob", (options.get("dropout_probs") or [None])[-1])
        )
        assert options.get("hidden_size", options.get("embedding_size")) == 64
        cells.setdefault(recipe.model.rpartition(":")[2], set()).add((recipe.training["learning_rate"], dropout))
    steps = (5e-4, 1e-3, 5e-3)
    with_dropout = {(step, share) for step in steps for share in (0.2, 0.5)}
    without = {(step, None) for step in steps}
    assert cells == {
        **dict.fromkeys(("STAMP", "HGN"), without),
        **dict.fromkeys(("GRU4Rec", "SASRec", "BERT4Rec", "NARM"), with_dropout),
    }


@pytest.mark.parametrize("name", sorted(name for name in recipe_names() if name.startswith("relrec-table")))
def test_a_row_of_a_sweep_is_never_compared_with_another_row(name):
    """Its options alone lead to the row that the sweep names, to one of equal options, or to none."""
    same = {
        "recon0_itemlabel_ok_userlabel_ok": "recon0_avg1",
        "recon1_labels_ok": "full",
        "recon1_avg1_2stage1": "full",
    }
    same |= {"alpha=0.75": "full", "proj=1layer": "full", "proj_dim=512": "full"}
    same |= {"recon0_avg0": "randinit_user1_pl1_recon0", "recon1_avg0_2stage1": "randinit_user1_pl1_recon1"}
    for (_, recipe), named in rows_of(name):
        if recipe.model != "relrec":
            continue
        found = row(recipe.as_dict())
        if name.endswith("-paper"):
            assert found is not None
        if found is not None and recipe.options.get("p", 512) == 512:
            assert found[1] == same.get(named, named)


def test_books_stand_beside_amazon_book_and_a_variant_beside_itself():
    from recllm_bench.reporting.published_numbers import published

    assert published("relrec", BOOK, "relrec", "Recall", 10, table="T2", variant="full").dataset == "AmazonBook"
    values = {"model": "relrec", "dataset": YELP}
    assert row(values) == ("relrec", "full")
    assert row({**values, "options": {"recon": False}}) == ("relrec", "recon0_avg1")
    assert row({**values, "options": {"alpha": 0.5, "p": 64}}) is None  # nobody printed both
    assert row({**values, "options": {"beta": 0.1}}) is None
    assert row({"model": "recbole:SASRec", "dataset": YELP}) == ("recbole:SASRec", "")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["relrec-amazon-2014-musical-instruments", "relrec-figure-beta", "relrec-table12"])
def test_reviews_without_titles_serve_the_miniature(name, data_mirror):
    values = read_recipe_file(name)
    rows = sweep_recipes(values, name) if "rows" in values else [("", resolved(recipe_from(values, name), name))]
    for label, recipe in rows:
        BenchCell(recipe, label).check()
