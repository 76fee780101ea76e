"""Recipes of CESRec: the paper's values one by one, every sweep planned, one of them run, printed rows found."""

from __future__ import annotations

import contextlib
import io

import pyarrow.parquet as pq
import pytest

from recllm_bench import cli
from recllm_bench.api.registry import model_named
from recllm_bench.evaluation.protocols import protocol_named
from recllm_bench.models.cesrec.options import CESRecOptions, check_options
from recllm_bench.models.cesrec.published import row
from recllm_bench.models.sequence.sasrec import SASRecOptions
from recllm_bench.options import read_options
from recllm_bench.planning import recipe_values, resolved, sweep_recipes
from recllm_bench.recipe import read_recipe_file, recipe_from, recipe_names
from recllm_bench.reporting.published_numbers import load_published
from recllm_bench.reporting.records import find_records, read_record
from recllm_bench.reporting.users_file import read_ranks, record_data
from recllm_bench.training.training_options import TrainingOptions
from tests.conftest import planted_catalogue, planted_histories

GAMES, ML, TOYS = "amazon-2018-video-games", "ml1m", "amazon-2018-toys-and-games"
LLAMA_2, LLAMA_3 = "meta-llama/Llama-2-7b-hf", "meta-llama/Meta-Llama-3-8B"
MAIN = {
    # stated by the paper
    "llm": LLAMA_3, "k": 1, "feedback": "server:gpt-4o-mini@https://api.openai.com/v1", "similarity": "cosine",
    "use_masking": True, "use_constructor": True, "output": "sequence", "replace_with": "target", "backend": "sasrec",
    # the specification's, where the paper says nothing
    "rounds": 1, "min_keep": 3, "mask_mode": "drop", "text_pool": "last_token", "item_text": "title",
    "collab_source": "item_table", "standardise": True, "adapter_hidden": 512, "adapter_learning_rate": 1e-3,
    "adapter_batch": 512, "adapter_epochs": 200, "adapter_patience": 10, "decoding": "trie", "prompt_items": 20,
    "outliers": 1, "train_on_masked": True, "pair_targets": "last", "examples": 10000, "lora_rank": 16,
    "lora_alpha": 32.0, "lora_dropout": 0.05, "lora_modules": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "tune_learning_rate": 1e-4, "tune_batch": 64, "tune_epochs": 3, "tune_tokens": 1024, "pool": "candidates",
    "refine_from": "last", "edit": "constructor", "latency_users": 10,
}  # fmt: skip
SASREC = {"hidden_size": 64, "n_layers": 2, "n_heads": 1}
SASREC_TRAINING = {
    "epochs": 200, "learning_rate": 1e-3, "batch_size": 256, "objective": "bce", "negatives": 1, "patience": 0,
    "validate_metric": "NDCG@10", "decay": "none", "weight_decay": 0.0,
}  # fmt: skip
DROPOUT, LENGTH = {ML: 0.2, GAMES: 0.5, TOYS: 0.5}, {ML: 200, GAMES: 50, TOYS: 50}
ALONE = {"use_masking": False, "use_constructor": False}
TABLES = {
    2: [
        (f"SASRec {variant}", changes, dataset)
        for dataset in (GAMES, ML, TOYS)
        for variant, changes in (("base", ALONE), ("cesrec_llama2", {"llm": LLAMA_2}), ("cesrec_llama3", {}))
    ],
    3: [
        (variant, changes, dataset)
        for dataset in (GAMES, ML, TOYS)
        for variant, changes in (
            ("base", ALONE),
            ("cesrec_llama3_wo_dual_alignment", {"use_masking": False}),
            ("cesrec_llama3_wo_constructor", {"use_constructor": False}),
            ("cesrec_llama3", {}),
        )
    ],
    4: [
        ("base", ALONE, GAMES),
        ("cesrec_llama2-7b-instruct", {"llm": "meta-llama/Llama-2-7b-chat-hf"}, GAMES),
        ("cesrec_llama3-8b-instruct", {"llm": "meta-llama/Meta-Llama-3-8B-Instruct"}, GAMES),
        ("cesrec_mistral-7b-instruct-v0.3", {"llm": "mistralai/Mistral-7B-Instruct-v0.3"}, GAMES),
        ("cesrec_qwen2.5-3b-instruct", {"llm": "Qwen/Qwen2.5-3B-Instruct"}, GAMES),
        ("cesrec_qwen2.5-7b-instruct", {"llm": "Qwen/Qwen2.5-7B-Instruct"}, GAMES),
    ],
    6: [("base", ALONE, GAMES), ("cesrec_llama3_cosine", {}, GAMES), ("cesrec_llama3_l2", {"similarity": "l2"}, GAMES)],
    7: [
        (variant, {"speculate": False, **changes}, dataset)
        for dataset in (GAMES, ML, TOYS)
        for variant, changes in (("cesrec_llama3-8b", {}), ("cesrec_qwen2.5-7b", {"llm": "Qwen/Qwen2.5-7B-Instruct"}))
    ],
}


def different(found, wanted):
    return {name: getattr(found, name) for name, value in wanted.items() if getattr(found, name) != value}


def assert_is_the_papers(recipe, changes, dataset):
    assert (recipe.model, recipe.dataset, recipe.seed, recipe.budget, recipe.quick) == ("cesrec", dataset, 42, "", 0)
    options = check_options(read_options(CESRecOptions, recipe.options, "recipe"))
    assert different(options, {**MAIN, **changes}) == {}
    assert_is_the_papers_sasrec(options.backend_options, options.backend_training, dataset)


def assert_is_the_papers_sasrec(options, training, dataset):
    below = read_options(SASRecOptions, options, "backend")
    assert different(below, {**SASREC, "dropout": DROPOUT[dataset]}) == {}
    defaults = {**model_named("sasrec").training_defaults, **training}
    wanted = {**SASREC_TRAINING, "max_length": LENGTH[dataset]}
    assert different(read_options(TrainingOptions, defaults, "backend"), wanted) == {}


@pytest.mark.parametrize(("name", "dataset"), [("cesrec-ml1m-paper", ML), (f"cesrec-{GAMES}-paper", GAMES)])
def test_a_paper_recipe_has_the_papers_values(name, dataset):
    assert_is_the_papers(resolved(recipe_from(read_recipe_file(name), name), name), {}, dataset)


@pytest.mark.parametrize(
    ("name", "dataset"), [("cesrec-sasrec-ml1m-paper", ML), (f"cesrec-sasrec-{GAMES}-paper", GAMES)]
)
def test_the_papers_sasrec_is_a_recipe_of_its_own(name, dataset):
    recipe = resolved(recipe_from(read_recipe_file(name), name), name)
    assert (recipe.model, recipe.dataset, recipe.protocol) == ("sasrec", dataset, "cesrec.sampled100")
    assert_is_the_papers_sasrec(recipe.options, recipe.training, dataset)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_the_paper_has_its_values(table):
    name = f"cesrec-table{table}-paper"
    values = read_recipe_file(name)
    assert values["published"] == f"cesrec T{table}"
    rows = [
        (str(changes["published"]), recipe)
        for changes, (_, recipe) in zip(values["rows"], sweep_recipes(values, name), strict=True)
        if "published" in changes
    ]
    assert [variant for variant, _ in rows] == [variant for variant, _, _ in TABLES[table]]
    for (_, recipe), (_, changes, dataset) in zip(rows, TABLES[table], strict=True):
        assert_is_the_papers(recipe, changes, dataset)
        assert recipe.protocol == "cesrec.sampled100.n1000", "the grain of the paper's rates is that of 1,000 users"


@pytest.mark.parametrize("table", [3, 7])
def test_a_table_of_three_data_sets_has_rows_of_each(table):
    names = {GAMES: "VideoGames", ML: "MovieLens-1M", TOYS: "Toys"}
    printed = {(cell.dataset, cell.variant) for cell in load_published() if cell.place == f"cesrec T{table}"}
    assert {(names[dataset], variant) for variant, _, dataset in TABLES[table]} == printed


@pytest.mark.parametrize("model", ["cesrec", "relrec"])
def test_a_small_language_model_takes_its_own_recipe_and_states_its_budget(model):
    own, plain = recipe_values(model, "ml-100k", llm="smollm2"), recipe_values(model, "ml-100k")
    assert own["options"]["llm"] == "smollm2"
    assert own["budget"].startswith("{options.llm}, ")
    assert "llm" not in plain["options"]


def test_the_protocols_are_the_papers():
    sampled, wide = protocol_named("cesrec.sampled100"), protocol_named("cesrec.recformer")
    assert (sampled.metrics, sampled.cutoffs, sampled.candidates) == (("HR", "NDCG"), (5, 10), "sampled100")
    assert (wide.metrics, wide.cutoffs, wide.candidates) == (("NDCG", "Recall", "MRR"), (10, 50), "all")
    assert wide.exclude_history and not sampled.exclude_history


@pytest.mark.parametrize("name", [name for name in recipe_names() if "rows" in read_recipe_file(name)])
def test_every_sweep_is_planned(name):
    cells = sweep_recipes(read_recipe_file(name), name)
    assert len({label for label, _ in cells}) == len({recipe.hash() for _, recipe in cells}) == len(cells)


def test_rows_of_cesrec_find_their_printed_row():
    def found(dataset="ml1m", **options):
        return row({"model": "cesrec", "dataset": dataset, "options": options})

    assert found() == found(llm="smollm2") == found(early_accept=False) == ("SASRec", "cesrec_llama3")
    assert found(llm=LLAMA_2) == ("SASRec", "cesrec_llama2")
    assert found(use_masking=False) == ("SASRec", "cesrec_llama3_wo_dual_alignment")
    assert found(use_constructor=False) == ("SASRec", "cesrec_llama3_wo_constructor")
    assert found(**ALONE) == ("SASRec", "base")
    assert row({"model": "sasrec", "options": {}}) == ("sasrec", "base")
    assert found(similarity="l2") == ("SASRec", "cesrec_llama3_l2")
    for other in ({"k": 2}, {"rounds": 3}, {"edit": "random_mask"}, {"backend": "GRU4Rec"}, {"mask_mode": "tail"}):
        assert found(**other) is None, other
    assert found(similarity="l2", llm=LLAMA_2) is None, "L2 is printed of Llama-3-8B alone"
    known = {(cell.model, cell.variant) for cell in load_published() if cell.paper == "cesrec"}
    assert {found(), found(llm=LLAMA_2), found(similarity="l2"), found(**ALONE), found(use_masking=False)} <= known
    for variant, changes, _ in TABLES[4]:
        assert found(**changes) == ("SASRec", variant)


def test_video_games_have_their_recipe():
    values = recipe_values("cesrec", GAMES)
    recipe = resolved(recipe_from({**values, "compare": []}, "recipe"), "recipe")
    assert (recipe.dataset, recipe.protocol) == (GAMES, "cesrec.sampled100")


def planted_shop(folder) -> str:
    """40 users of planted histories among 130 invented films, as files of somebody's own."""
    catalogue, histories = planted_catalogue(130), planted_histories(40, 130, 8)
    films = [
        f'm{item},"{catalogue.titles[item]}",{catalogue.years[item]},{"|".join(catalogue.categories[item])}'
        for item in range(1, 131)
    ]
    rows = [
        f"u{user},m{item},{order}"
        for user in range(1, 41)
        for order, item in enumerate(dict.fromkeys(histories.of(user).tolist()))
    ]
    (folder / "films.csv").write_text("\n".join(["user,item,timestamp", *rows]) + "\n")
    (folder / "films.items.csv").write_text("\n".join(["item_id,title,year,categories", *films]) + "\n")
    return str(folder / "films.csv")


SMALL = [
    "quick=1", "llm=llama2-stories260k", "examples=16", "tune_tokens=500", "latency_users=1", "prompt_items=3",
    "lora_rank=2", "title_tokens=24", "device=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def swept(models_folder, tmp_path_factory):
    """Table 7 in small: what it printed, and its results folder."""
    folder = tmp_path_factory.mktemp("table7")
    recipe = folder / "table7.yaml"
    recipe.write_text(
        f"base: cesrec-table7\ndataset: {planted_shop(folder)}\nrows:\n"
        "  - {label: whole list, published: cesrec_llama3-8b, options: {output: sequence, speculate: false}}\n"
        "  - {label: changed lines, options: {output: edits}}\n"
    )
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setenv("RECLLM_CACHE", str(folder / "cache"))
        patch.setenv("RECLLM_RESULTS", str(folder / "results"))
        assert cli.main(["sweep", str(recipe), "--set", *SMALL]) == 0
    return said.getvalue(), folder


def test_table_7_prints_seconds_beside_the_published(swept):
    grid = swept[0].split("Beside cesrec T7")[1]
    whole, edits = (line.split() for line in grid.splitlines() if line.lstrip().startswith(("whole", "changed")))
    assert "0.1407" in whole and "10.4124" in whole and "10.5532" in whole
    for line in (whole, edits):
        assert float(line[2]) > 0, "seconds of masking are measured"


def test_show_tells_a_case_of_cesrec(swept, monkeypatch, capsys):
    """Everything shown is held against the products of the run: rounds, ranks, histories."""
    folder = swept[1]
    monkeypatch.setenv("RECLLM_CACHE", str(folder / "cache"))
    monkeypatch.setenv("RECLLM_RESULTS", str(folder / "results"))
    record = next(r for r in map(read_record, find_records(folder / "results")) if r.name == "changed lines")
    titles = record_data(record)[0].catalogue.titles
    table = pq.read_table(record.folder / "cases.parquet").to_pydict()
    ranks = read_ranks(record)
    assert table["user"] == ranks.users.tolist()
    changed = 0
    for at, rounds in enumerate(table["rounds"]):
        first, last = rounds
        places = [(each["higher"], each["tied"]) for each in rounds]
        assert places[1] == (ranks.higher[at], ranks.tied[at]), "the last round is what the table holds"
        assert not first["masked"] and not first["said"]
        if last["accepted"]:
            assert last["shown"] == ranks.targets[at] and last["history"] == first["history"]
            continue
        assert len(last["masked"]) == 1 and last["masked"][0] in first["history"]
        assert last["said"] and titles[ranks.targets[at]] not in last["said"]
        kept = [item for item in first["history"] if item != last["masked"][0]]
        changed += last["history"] != kept
        if at % 8 == 0:
            assert cli.main(["show", str(record.folder), "--user", str(table["user"][at])]) == 0
            said = capsys.readouterr().out
            assert f"shown:  {titles[last['shown']]}" in said and f"said:   {last['said']}" in said
            assert f"masked: {titles[last['masked'][0]]}" in said and f"- {titles[last['masked'][0]]}" in said
            assert f"wanted: {titles[ranks.targets[at]]}" in said
            for item in set(last["history"]) - set(first["history"]):
                assert f"+ {titles[item]}" in said
            before, after = (each["higher"] + 1 for each in rounds)
            assert f"rank {before} -> {after}" in said.replace(",", "")
    assert changed, "the constructor wrote something to somebody's history"


def test_a_figure_has_every_cutoff(models_folder, tmp_path, capsys):
    """HR and NDCG at 5 and 10, by round and by length of history; the recommender alone needs no language model."""
    recipe = tmp_path / "lengths.yaml"
    recipe.write_text(
        f"base: cesrec-lengths\ndataset: {planted_shop(tmp_path)}\nrows:\n"
        "  - {label: w/o c., options: {use_constructor: false, use_masking: false}}\n"
    )
    assert cli.main(["sweep", str(recipe), "--set", *SMALL]) == 0
    said = capsys.readouterr().out
    for metric in ("HR@5", "NDCG@5", "HR@10", "NDCG@10"):
        assert f"{metric}, round 1" in said
        assert f"{metric}, histories of 6 to 10, round 0" in said
