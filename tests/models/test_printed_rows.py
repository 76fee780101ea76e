"""A printed number stands beside a run only where the run is that row's method: every switch is tried."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from recllm_bench.models.cesrec.options import CESRecOptions
from recllm_bench.models.cesrec.published import row as cesrec_row
from recllm_bench.models.latentcrs.options import LatentCRSOptions
from recllm_bench.models.latentcrs.published import row as latentcrs_row
from recllm_bench.models.relrec.options import LlamaSeqOptions, ReLRecOptions
from recllm_bench.models.relrec.published import row as relrec_row
from recllm_bench.planning import sweep_recipes
from recllm_bench.recipe import read_recipe_file

METHODS: dict[str, Any] = {
    "latentcrs": (latentcrs_row, LatentCRSOptions, "ml1m", {"intents": 512, "w_nce": 0.0, "w_rec": 5.0}),
    "relrec": (relrec_row, ReLRecOptions, "yelp", {}),
    "llama2-seq": (relrec_row, LlamaSeqOptions, "yelp", {}),
    "cesrec": (cesrec_row, CESRecOptions, "ml1m", {}),
}
FREE = {  # how it is computed, measured or limited, or what a footnote tells
    "latentcrs": {
        "hard_filter",  # of F and V alone
        "verified", "encoder_states", "pad_to", "exclude_pad", "train_text", "x_text", "seen_policy",
    },
    "relrec": {
        "llm_precision", "chat_precision", "long_sequences", "checkpointing", "packed_attention", "recon_prompt",
        "recon_similarity", "label_scope",
    },
    "llama2-seq": {
        "llm_precision", "chat_precision", "long_sequences", "checkpointing", "packed_attention", "recon_prompt",
        "recon_similarity", "label_scope", "two_stage", "anonymise_names", "switched_labels", "share_projection",
    },
    "cesrec": {"preset", "llm_precision", "tune_checkpointing", "early_accept", "output", "speculate", "wording",
               "pair_targets", "every_cutoff"},
}  # fmt: skip


def found(model: str, **options: Any) -> tuple[str, str] | None:
    find, _, dataset, own = METHODS[model]
    return find({"model": model, "dataset": dataset, "options": {**own, **options}})


def switches() -> list[tuple[str, str, Any]]:
    """Every other value of every option that is a choice."""
    found = []
    for model, (_, options, _, own) in METHODS.items():
        for field in dataclasses.fields(options):
            default = own.get(field.name, field.default)
            values = [not default] if isinstance(default, bool) else field.metadata.get("choices") or ()
            found += [(model, field.name, value) for value in values if value != default]
    return found


@pytest.mark.parametrize(("model", "name", "value"), switches())
def test_a_switch_leaves_the_row_or_is_known_to_make_no_other_method(model, name, value):
    same = (model, name, value) in {("latentcrs", "variant", "code")} or name in FREE[model]
    assert (found(model, **{name: value}) == found(model)) == same


@pytest.mark.parametrize("model", METHODS)
def test_a_method_has_its_row(model):
    assert (
        found(model)
        == {
            "latentcrs": ("latentcrs", "B"),
            "relrec": ("relrec", "full"),
            "llama2-seq": ("llama2-seq", ""),
            "cesrec": ("SASRec", "cesrec_llama3"),
        }[model]
    )


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("latentcrs", {"intents": 128}),
        ("latentcrs", {"lambda_kl": 0.1}),
        ("latentcrs", {"w_nce": 1.0}),
        ("latentcrs", {"w_rec": 1.0}),
        ("latentcrs", {"w_e_rec": 1.0}),
        ("latentcrs", {"backbone": "sasrec"}),
        ("latentcrs", {"backbone_options": {"item_loss": "ce"}}),
        ("latentcrs", {"variant_output": "F", "hard_filter_pool": 0}),
        ("latentcrs", {"variant_output": "F", "ablation": "direct_kl"}),
        ("relrec", {"label_visits": 20}),
        ("relrec", {"label_versions": 1}),
        ("relrec", {"seq_template": "Films: {user}{items}"}),
        ("relrec", {"beta": 0.1}),
        ("relrec", {"recon": False, "label_visits": 20}),
        ("llama2-seq", {"seq_template": "Films: {items}"}),
        ("cesrec", {"outliers": 2}),
        ("cesrec", {"train_k": 0}),
        ("cesrec", {"most_edits": 1}),
        ("cesrec", {"min_keep": 5}),
        ("cesrec", {"use_masking": False, "forbid_target": True}),
    ],
)
def test_a_variant_that_nobody_printed_has_no_row(model, options):
    assert found(model, **options) is None


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("latentcrs", {"warmup_epochs": 20, "text_hidden": 256, "extractor": "local:smollm2"}),
        ("latentcrs", {"backbone_options": {"intents": 64, "views": 3}, "backbone_training": {"epochs": 1}}),
        ("relrec", {"llm": "smollm2", "labels": "generated", "label_tokens": 12, "recon_users": 5}),
        ("relrec", {"label_scope": "all"}),
        ("llama2-seq", {"p": 64, "llm": "smollm2", "timed_batches": 5}),
        ("cesrec", {"llm": "smollm2", "examples": 300, "tune_epochs": 1, "prompt_items": 5, "train_k": 1}),
        ("cesrec", {"output": "sequence", "feedback": "exact", "latency_users": 3}),
    ],
)
def test_sizes_budgets_and_stand_ins_leave_the_row(model, options):
    assert found(model, **options) == found(model)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("latentcrs-ml1m-sweep-intents", [None, None, "B", None]),
        ("latentcrs-ml1m-ablations", ["B", "B_wo_inference_model", "B_direct_kl", "B_wo_augmentation", None,
                                      "B_wo_recloss"]),
    ],
)  # fmt: skip
def test_rows_of_a_sweep_stand_beside_their_own_numbers_or_none(name, expected):
    rows = [latentcrs_row(recipe.as_dict()) for _, recipe in sweep_recipes(read_recipe_file(name), name)]
    assert [row and row[1] for row in rows] == expected


@pytest.mark.parametrize("name", ["lambda", "alpha-e", "alpha-m"])
def test_one_point_of_a_figure_at_most_is_the_printed_row(name):
    name = f"latentcrs-ml1m-sweep-{name}"
    rows = [latentcrs_row(recipe.as_dict()) for _, recipe in sweep_recipes(read_recipe_file(name), name)]
    assert sum(row is not None for row in rows) <= 1 < len(rows)


@pytest.mark.parametrize("dataset", ["ml1m", "amazon-2023-video-games", "amazon-2023-cds-and-vinyl"])
def test_a_script_is_that_of_its_data_set(dataset):
    own = read_recipe_file(f"latentcrs-{dataset}")["options"]
    recipe = {"model": "latentcrs", "dataset": dataset, "options": own}
    assert latentcrs_row(recipe) == ("latentcrs", "B")
    for output in "FV":
        assert latentcrs_row({**recipe, "options": {**own, "variant_output": output}}) == ("latentcrs", output)
    others = {"intents": 64, "w_nce": 0.5, "w_rec": 2.0}
    for name, value in others.items():
        assert latentcrs_row({**recipe, "options": {**own, name: value}}) is None
    left_out = latentcrs_row({"model": "latentcrs", "dataset": dataset})
    assert left_out == (("latentcrs", "B") if dataset == "amazon-2023-video-games" else None), "defaults are not ml1m's"


@pytest.mark.parametrize(
    ("chat", "printed"),
    [
        ("server:gpt-4@https://host/v1", "GPT-4"),
        ("server:openai/gpt-4-0613@https://host/v1", "GPT-4"),
        ("server:gemini-1.5-pro-002@https://host/v1", "Gemini-1.5-pro"),
        ("server:gpt-4o-mini@https://host/v1", "Llama-3.1-8B"),
        ("server:gemini-1.5-flash@https://host/v1", "Llama-3.1-8B"),
        ("local:gpt-4", "Llama-3.1-8B"),
        ("local:smollm2", "Llama-3.1-8B"),
    ],
)
def test_a_hosted_chat_model_has_its_own_row_and_no_namesakes(chat, printed):
    assert latentcrs_row({"model": "zero-shot", "options": {"chat": chat}}) == (printed, "")
