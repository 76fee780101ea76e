"""Recipes of LatentCRS: the paper's values one by one, one conversation for all, one run for two tables."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
import torch

from recllm_bench import locations
from recllm_bench.api.registry import model_named, names
from recllm_bench.artifacts import ArtifactStore
from recllm_bench.data.splits import leave_one_out
from recllm_bench.errors import BenchError
from recllm_bench.models.latentcrs.backbone import backbone_of
from recllm_bench.models.latentcrs.options import LatentCRSOptions
from recllm_bench.options import quickened
from recllm_bench.planning import recipe_values, resolved, sweep_recipes
from recllm_bench.recipe import Recipe, override, read_recipe_file, recipe_from, recipe_names
from recllm_bench.reporting.records import read_record
from recllm_bench.runner import BenchCell
from recllm_bench.training.cells import typed_options
from tests.conftest import planted_histories

SCRIPTS = {  # K, w_nce, w_rec; ICLRec's layers, length, views
    "latentcrs-ml1m-paper": (512, 0.0, 5.0, 2, 200, 3),
    "latentcrs-amazon-2023-video-games-paper": (256, 1.0, 1.0, 3, 50, 2),
    "latentcrs-amazon-2023-cds-and-vinyl-paper": (128, 1.0, 1.0, 2, 50, 2),
}
SCHEDULE = {
    "batch_size": 480, "epochs": 500, "patience": 20, "min_delta": 1e-5, "learning_rate": 1e-3, "decay": "none",
    "weight_decay": 0.0, "warmup_steps": 0, "validate_metric": "NDCG@10",
}  # fmt: skip
ENCODER = {
    "hidden_size": 64, "n_heads": 2, "dropout": 0.5, "attention_dropout": 0.5, "activation": "gelu",
    "contrast": "both", "sequence_weight": 0.1, "intent_weight": 0.1, "temperature": 1.0, "crop": 0.2, "mask": 0.7,
    "reorder": 0.2, "pool": "mean_all", "remove_false_negatives": False, "kmeans_iterations": 20,
    "kmeans_restarts": 5, "kmeans_seed": 1, "kmeans_points": 4096,
}  # fmt: skip
ENCODER_SCHEDULE = {
    "objective": "bce", "negatives": 1, "batch_size": 256, "epochs": 300, "patience": 40, "learning_rate": 1e-3,
    "validate_metric": "NDCG@20", "coverage": "last", "warmup_steps": 0, "decay": "none", "weight_decay": 0.0,
}  # fmt: skip
CODE = {
    "use_wm": False, "ffn_layernorm": False, "ffn_final_relu": True, "g_form": "intent_only", "g_item_map": False,
    "nce_logits": "f_times_g", "nce_intent_reduce": "mean", "rec_form": "softmax_h",
    "posterior_form": "softmax_product", "value_map_on": "intent",
    "train_repeat": 6, "negatives": 10, "neg_resample": "never", "neg_exclude": "window",
    "tie_value_map": False, "train_encoder": False, "encoder_dropout_in_train": True,
    "stage3_intent_init": "from_generative", "intent_pool": "mean_all", "intent_normalise": True, "kl_epsilon": 1e-5,
    "w_e_rec": 5.0, "lambda_kl": 1.0, "temperature": 1.0, "window": 25, "warmup_epochs": 0, "backbone": "iclrec",
    "text_hidden": 1024, "text_dropout": 0.5, "ablation": "none", "exclude_pad": True,
}  # fmt: skip


def recipe_of(name: str) -> Recipe:
    return resolved(recipe_from(read_recipe_file(name), name), name)


def job_of(recipe: Recipe, users: int = 600) -> _Job:
    """What the backbone of a recipe reads of its job, on planted data."""
    split = leave_one_out(planted_histories(users, 60, 8))
    where = (recipe.options, recipe.training, "a test")
    options, training = typed_options(model_named(recipe.model), *where, split=split)
    parts = {"options": options, "training": training, "split": split, "words": None, "code": {}}
    return _Job(recipe=recipe, device=torch.device("cpu"), **parts)


@dataclasses.dataclass(frozen=True)
class _Job:
    recipe: Recipe
    options: Any
    training: Any
    split: Any
    words: Any
    code: Any
    device: torch.device


def differing(found: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: getattr(found, name) for name, value in wanted.items() if getattr(found, name) != value}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_paper_recipe_has_the_papers_values(name: str):
    intents, w_nce, w_rec, layers, length, views = SCRIPTS[name]
    recipe = recipe_of(name)
    job = job_of(recipe)
    options = job.options
    assert options.embedded == "last"
    assert differing(options, {**CODE, "intents": intents, "w_nce": w_nce, "w_rec": w_rec}) == {}
    assert differing(job.training, SCHEDULE) == {}
    assert (recipe.protocol, recipe.seed, recipe.budget) == ("latentcrs.one_turn", 42, "")
    talk = recipe.conversation
    assert (talk.encoder, talk.template, talk.pooling) == ("meta-llama/Llama-3.1-8B-Instruct", "one_word", "last")
    assert talk.users == 500
    encoder = backbone_of(job, options).job
    wanted = {**ENCODER, "n_layers": layers, "views": views, "intents": intents}
    assert differing(encoder.options, wanted) == {}
    assert differing(encoder.training, {**ENCODER_SCHEDULE, "max_length": length}) == {}


@pytest.mark.parametrize("name", ["iclrec-ml1m-paper", "iclrec-amazon-2023-video-games"])
def test_the_encoders_own_paper_recipe_is_the_encoder_of_the_paper(name: str):
    above = job_of(recipe_of(f"latentcrs-{name.removeprefix('iclrec-').removesuffix('-paper')}-paper"))
    below = backbone_of(above, above.options).job
    alone = job_of(recipe_of(name))
    assert (alone.options, alone.training) == (below.options, below.training)


def test_all_recipes_of_the_paper_share_one_conversation():
    talks = set()
    for name in recipe_names():
        values = read_recipe_file(name)
        if values.get("model") == "latentcrs" and not name.endswith(("-people", "-dialogues")):
            rows = sweep_recipes(values, name) if values.get("rows") else [("", recipe_of(name))]
            talks |= {(row.conversation.simulator, row.conversation.users) for _, row in rows}
    assert talks == {("rules:2", 500)}


def test_the_full_row_of_table_5_is_the_run_of_table_2(data_mirror):
    label, row = sweep_recipes(read_recipe_file("latentcrs-ml1m-ablations"), "")[0]
    full, main = BenchCell(row, label), BenchCell(recipe_of("latentcrs-ml1m"))
    assert full.folder == main.folder, "the key of a record is the name of its folder"
    other = BenchCell(sweep_recipes(read_recipe_file("latentcrs-ml1m-ablations"), "")[1][1])
    assert other.folder != main.folder


def test_the_first_row_of_the_small_table_5_is_the_run_that_it_names():
    values = read_recipe_file("latentcrs-table5")
    assert "its first row is the run of latentcrs-small." in values["about"]
    assert sweep_recipes(values, "")[0][1] == recipe_of("latentcrs-small")


@pytest.mark.parametrize("name", ["iclrec-ml1m", "iclrec-ml1m-ce"])
def test_what_stands_on_a_small_encoder_says_how_it_differs(name):
    stated, _, published = read_recipe_file(name)["budget"].partition("published: ")
    assert {"{options.contrast}", "{options.views}", "{options.item_loss}"} <= set(re.findall(r"{.*?}", stated))
    encoder = backbone_of(job := job_of(recipe_of("latentcrs-ml1m-paper")), job.options).job.options
    assert published.endswith(f"contrast {encoder.contrast}, {encoder.views} views, loss {encoder.item_loss}")


def nested_options() -> list[tuple[str, str]]:
    entries = [(name, model_named(name).options) for name in names("models") if ":" not in name]
    return [
        (name, field.name)
        for name, options in entries
        for field in (dataclasses.fields(options) if options else ())
        if "dict" in str(field.type)
    ]


def test_there_are_nested_options():
    assert {("latentcrs", "backbone_training"), ("cesrec", "backend_options")} <= set(nested_options())


@pytest.mark.parametrize(("model", "name"), nested_options())
def test_a_nested_option_works_by_its_dotted_name(model: str, name: str):
    below = {"backbone_options": "dropout", "backbone_training": "epochs"}.get(name, "epochs")
    short = override({"model": model, "dataset": "ml-100k"}, [f"{name}.{below}=0.25", f"{name}.other.deep=[1, 2]"])
    long = override(
        {"model": model, "dataset": "ml-100k"}, [f"options.{name}={{{below}: 0.25, other: {{deep: [1, 2]}}}}"]
    )
    assert short == long
    assert recipe_of_values(short).options[name] == {below: 0.25, "other": {"deep": [1, 2]}}


def recipe_of_values(values: dict[str, Any]) -> Recipe:
    return resolved(recipe_from(values, "a test"), "a test")


@pytest.mark.parametrize(
    "setting", ["trainnig.epochs=1", "option.k=1", "model.name=x", "seed.x=1", "conversations.users=3"]
)
def test_a_misspelt_section_is_still_named(setting: str):
    with pytest.raises(BenchError, match="unknown section"):
        override({"model": "latentcrs"}, [setting])


def test_an_unknown_nested_option_is_named():
    values = override({"model": "latentcrs", "dataset": "ml-100k"}, ["backbone_trainin.epochs=1"])
    with pytest.raises(BenchError, match=r"unknown option 'backbone_trainin'. Did you mean 'backbone_training'"):
        recipe_of_values(values)


def test_a_row_changes_nested_options_key_by_key():
    values = {"model": "latentcrs", "dataset": "ml-100k", "options": {"backbone_options": {"n_layers": 1, "views": 3}}}
    rows = [{"label": "two", "options": {"backbone_options": {"n_layers": 2}}}]
    ((_, row),) = sweep_recipes({**values, "rows": rows}, "a test")
    assert row.options["backbone_options"] == {"n_layers": 2, "views": 3}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, 80),  # 256 by default, on 80 users
        ({"intents": 32}, 32),
        ({"intents": 32, "backbone_options": {"intents": 16}}, 16),
        ({"intents": 32, "backbone_options": {"views": 3}}, 32),
    ],
)
def test_the_encoders_intents_follow(options: dict[str, Any], wanted: int):
    job = job_of(Recipe("latentcrs", "planted", options=options), users=80)
    below = backbone_of(job, job.options)
    assert below.job.options.intents == wanted
    assert job.options.intents == options.get("intents", 80)


def test_more_intents_than_users_are_refused_before_anything_trains():
    with pytest.raises(BenchError, match="intents=256 needs at least as many users, found 80"):
        job_of(Recipe("latentcrs", "planted", options={"intents": 256}), users=80)
    with pytest.raises(BenchError, match="backbone iclrec of latentcrs: options: intents=90 needs"):
        job = job_of(Recipe("latentcrs", "planted", options={"backbone_options": {"intents": 90}}), users=80)
        backbone_of(job, job.options)


def test_an_encoder_without_intents_gets_none():
    job = job_of(Recipe("latentcrs", "planted", options={"backbone": "sasrec", "intents": 8}), users=80)
    assert not hasattr(backbone_of(job, job.options).job.options, "intents")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory):
    """A file of 40 users with films, small enough to bench whole."""
    path = tmp_path_factory.mktemp("own") / "films.csv"
    rows = [
        f"u{user},i{item},{place}"
        for user in range(1, 41)
        for place, item in enumerate(planted_histories(40, 30, 8).of(user).tolist())
    ]
    path.write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    items = [f"i{item},Story {item},{('Drama', 'Comedy', 'War')[item % 3]}" for item in range(1, 31)]
    path.with_name("films.items.csv").write_text("item_id,title,categories\n" + "\n".join(items) + "\n")
    return path


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("conversation.simulator=ruless", "unknown simulator 'ruless'. Did you mean 'rules'"),
        ("conversation.simulator=rules:9", "is not one of 1, 2, all"),
        ("conversation.encoder=no-such-encoder", "text encoder 'no-such-encoder'"),
        ("backbone=iclrecc", "unknown model 'iclrecc'. Did you mean 'iclrec'"),
        ("backbone=pop", "is no causal encoder; use iclrec or sasrec"),
        ("backbone_training.epoch=3", "unknown option 'epoch'. Did you mean 'epochs'"),
        ("conversation.target_visibility=title", "is not one of attributes_only, title_and_attributes"),
        ("conversation.known_items=hide", "is not one of protocol, never"),
    ],
)
def test_what_is_unknown_is_refused_before_anything_trains(planted, setting: str, message: str, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    values = override({"model": "latentcrs", "dataset": str(planted), "options": {"intents": 4}}, [setting])
    store = ArtifactStore(locations.cache_folder() / "own")
    with pytest.raises(BenchError, match=re.escape(message).replace(r"\ ", " ")):
        BenchCell(recipe_of_values(values), store=store).check()
    assert {path.name for path in store.root.glob("*")} <= {"dataset", "corpus"}


def quick_cell(planted, **talk: Any) -> BenchCell:
    values = {
        "model": "latentcrs",
        "dataset": str(planted),
        "quick": 1,
        "options": {"intents": 4, "train_repeat": 1, "backbone_options": {"hidden_size": 8, "inner_size": 8}},
        "conversation": {"users": 20, "simulator": "rules", **talk},
    }
    return BenchCell(recipe_of_values(values))


def test_known_items_are_measured_or_left_out(planted, models_folder):
    shown = {}
    for choice in ("protocol", "never"):
        record = read_record(quick_cell(planted, known_items=choice).run())
        measures = {measure.label: measure.value for measure in record.measures}
        (label,) = (label for label in measures if label.startswith("shown items that the user already had"))
        shown[choice] = measures[label]
    assert shown["protocol"] > 0 and shown["never"] == 0


def test_the_row_says_how_long_its_encoder_trained(planted, models_folder):
    record = read_record(quick_cell(planted).run())
    assert "encoder: ICLRec, epochs run: 1 (train)" in record.notes


def test_visibility_reaches_the_profiles_and_every_key(planted):
    cells = [quick_cell(planted, target_visibility=how) for how in ("attributes_only", "title_and_attributes")]
    cases = cells[0].split.test
    told = [cell._words("own").profiles(cases)[0].title for cell in cells]
    assert told[0] == "" and told[1].startswith("Story")
    keys = [dict(cell._words("own").key) for cell in cells]
    assert "target_visibility" not in keys[0] and keys[1]["target_visibility"] == "title_and_attributes"
    assert cells[0].folder != cells[1].folder


def test_a_quick_run_shortens_the_warm_ups_too():
    options = LatentCRSOptions(warmup_epochs=10)
    assert (quickened(options, 2).warmup_epochs, quickened(options, 20).warmup_epochs) == (2, 10)
    assert quickened(LatentCRSOptions(), 2).warmup_epochs == 0, "as many as joint training, which is shortened"


def test_a_budget_is_told_with_the_values_of_the_run(planted, models_folder):
    cell = quick_cell(planted)
    recipe = dataclasses.replace(
        cell.recipe,
        budget="at most {training.epochs} epochs for K = {options.intents}; {other}; {protocol.users} users, "
        "dialogues of {conversation.users}",
    )
    notes = read_record(BenchCell(recipe).run()).notes
    assert any(
        note.startswith(
            "at most 1 epochs for K = 4; {other}; all users, dialogues of 20; epochs run: 1 (inference), 1 (gen"
        )
        for note in notes
    )


@pytest.mark.parametrize("name", recipe_names())
def test_no_recipe_states_a_number_that_an_option_could_change(name):
    """Every budget is told with the run's own values; what follows "published" is the paper's."""
    stated = str(read_recipe_file(name).get("budget") or "").partition("published")[0]
    said = re.sub(r"\{(options|training|conversation|protocol)\.\w+\}", "", stated)
    numbers = r"\d|\b(once|twice|one|two|three|four|five|six|seven|eight|nine|ten)\b"
    assert not re.search(numbers, said, re.IGNORECASE), f"{name}: write a place such as {{training.epochs}}"


def test_a_protocol_with_dialogues_takes_the_recipe_for_them():
    def speaker(dataset: str, protocol: str) -> str:
        return recipe_values("latentcrs", dataset, protocol)["conversation"]["simulator"]

    for dataset in ("ml1m", "ml-100k"):
        assert speaker(dataset, "latentcrs.multi_turn") == speaker(dataset, "latentcrs.multi_turn.n24") == "rules"
        assert speaker(dataset, "") == speaker(dataset, "latentcrs.one_turn") == "rules:2"
    unknown = recipe_values("latentcrs", "ml1m", "latentcrs.multi_tern")
    assert unknown["protocol"] == "latentcrs.multi_tern" and unknown["conversation"]["simulator"] == "rules:2"
