"""Every option is in a key: another value is another recipe, and other training where it can matter to training."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from recllm_bench.api.registry import model_named
from recllm_bench.errors import BenchError
from recllm_bench.planning import resolved
from recllm_bench.recipe import ConversationOptions, Recipe
from recllm_bench.runner import BenchCell
from recllm_bench.training.training_options import TrainingOptions
from tests.conftest import planted_catalogue, planted_histories

MODELS = ("sasrec", "iclrec", "latentcrs", "relrec", "llama2-seq", "cesrec", "text-retrieval", "asking")
WORDS = {"latentcrs", "text-retrieval", "cesrec", "asking"}
"""Models whose recipe has a user side."""
TEXTS: dict[str, tuple[Any, ...]] = {
    "simulator": ("rules:2",),
    "template": ("so: {text}",),
    "validate_metric": ("Recall@5",),
    "rec_form": ("mixture", "softmax_h"),
    "backbone_options": ({"hidden_size": 8},),
    "backbone_training": ({"epochs": 3},),
    "backend": ("iclrec",),
    "backend_options": ({"hidden_size": 8},),
    "backend_training": ({"epochs": 3},),
    "lora_modules": (("q_proj",),),
    "feedback": ("exact", "server:m@http://localhost:9/v1"),
    "extractor": ("server:m@http://localhost:9/v1",),
    "verifier": ("server:m@http://localhost:9/v1",),
    "model": ("latentcrs",),
    "model_options": ({"text_width": 8},),
    "model_training": ({"max_length": 9},),
    "seq_template": ("{user} likes {items}",),
    "chat_device": ("cpu",),
}
"""Other values of options whose type alone gives none."""
NOT_TRIED = {"encoder", "llm", "chat", "labels", "switched_from", "switched_file", "backbone", "variant_output"}
"""Names of files and servers, whose content has tests of its own."""
WITH: dict[str, dict[str, Any]] = {
    "train_encoder": {"encoder_states": "live"},
    "intents": {"intents": 4},
    "user_token": {"recon": False},
    **{
        name: {"labels": "generated", "chat": "server:m@http://localhost:9/v1"}
        for name in ("two_stage", "document_words", "chat_temperature", "chat_precision")
    },
    "recon": {"user_token": True},
    "decoding": {"chat": ""},
    "edit": {"early_accept": False},
}
"""What must be set beside an option so that it may change."""
REFUSED = {"decoding", "switched_labels"}
"""Options whose other values need a chat model or another dataset; their parts are tested with them."""
_TRAINING = {field.name for field in dataclasses.fields(TrainingOptions)}
UNTRAINED: dict[str, set[str]] = {
    "sasrec": set(),
    "iclrec": set(),
    "latentcrs": {
        "text_width", "exclude_pad", "x_text", "seen_policy",  # plain RecBole; ranking; dialogues
        "extractor", "hard_filter", "hard_filter_pool", "verifier", "verifies", "verified",  # of other outputs than B
    },
    "relrec": {
        "scores_at_once", "checkpointing",  # memory alone
        "token_budget", "chat_batch", "chat_device",  # limits and places of a writer whose answers stay the same
    },
    "llama2-seq": {
        "scores_at_once", "checkpointing",
        # it has no labels
        "beta", "gamma", "label_scope", "label_versions", "label_tokens", "anonymise_names", "recon_users",
        "recon_items", "recon_similarity", "two_stage", "label_visits", "label_probe", "recon_prompt",
        "token_budget", "document_words", "chat_temperature", "chat_batch", "chat_precision", "chat_device",
    },
    "cesrec": {
        # what is done with a trained constructor
        "use_masking", "rounds", "early_accept", "refine_from", "pool", "forbid_target", "speculate",
        "construct_batch", "latency_users", "every_cutoff", "edit", "draw",
        *_TRAINING,  # it has adapter_..., tune_... and backend_training
    },
    "text-retrieval": {"text_width", *_TRAINING},  # it trains nothing
    "asking": {"model_options", "model_training", *_TRAINING},  # as little as the model inside, text-retrieval
}  # fmt: skip
"""What changes no stage of a model: it is read after training, limits memory, or belongs to another part.

An option that appears here by mistake, or that is forgotten in a key, fails the test.
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    histories, catalogue = planted_histories(40, 30, 10), planted_catalogue(30)
    lines = ["user_id,item_id,timestamp"]
    for user in range(1, 41):
        lines += [f"u{user},m{item},{1_000_000_000 + place}" for place, item in enumerate(histories.of(user))]
    (folder / "shop.csv").write_text("\n".join(lines) + "\n")
    rows = [f"m{item},{catalogue.titles[item]},{'|'.join(catalogue.categories[item])}" for item in range(1, 31)]
    (folder / "shop.items.csv").write_text("\n".join(["item_id,title,categories", *rows]) + "\n")
    return folder / "shop.csv"


def others(field: dataclasses.Field, hint: Any) -> list[Any]:
    """Values that a field does not have by default and may have."""
    if field.name in TEXTS:
        return list(TEXTS[field.name])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(each for each in typing.get_args(hint) if each is not type(None))
    default, limits = field.default, field.metadata
    if limits.get("presets"):
        default = limits["presets"].get("miniature", default)
    if limits.get("choices"):
        found = list(limits["choices"])
    elif hint is bool:
        found = [True, False]
    elif hint is int:
        start = default if default is not None else int(limits.get("low") or 0)
        found = [start + 1, start + 3] if not limits.get("at_most") else [5]
    else:
        assert hint is float, f"{field.name}: name another value in TEXTS"
        found = [(default or 0.0) / 2, (default or 0.0) / 2 + 0.1]
    return [value for value in found if value != default]


def keys(model: str, shop: Path, section: str, values: dict[str, Any]) -> tuple[Any, str]:
    """What the stages of a model depend on, and the hash of its recipe."""
    given: Any = ConversationOptions(**values) if section == "conversation" else values
    recipe = resolved(Recipe(model=model, dataset=str(shop), protocol="unified.full", **{section: given}))
    return BenchCell(recipe).cell.key, recipe.hash()


@pytest.mark.parametrize("section", ["options", "training"])
@pytest.mark.parametrize("model", MODELS)
def test_every_option_is_in_a_key(model: str, section: str, shop: Path, tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("RECLLM_CACHE", str(tmp_path_factory.getbasetemp() / "keys"))
    options = model_named(model).options if section == "options" else TrainingOptions
    assert options is not None
    hints, unchanged = typing.get_type_hints(options), set()
    for field in dataclasses.fields(options):
        if field.name in NOT_TRIED or field.name in REFUSED:
            continue
        beside = WITH.get(field.name, {})
        base = keys(model, shop, section, beside)
        found = [keys(model, shop, section, {**beside, field.name: value}) for value in others(field, hints[field.name])
                 if (field.name, value) not in beside.items()]  # fmt: skip
        assert all(recipe != base[1] for _, recipe in found), f"{field.name} is not in the recipe's hash"
        if all(stages == base[0] for stages, _ in found):
            unchanged.add(field.name)
    known = {field.name for field in dataclasses.fields(options)}
    assert unchanged == UNTRAINED[model] & known


@pytest.mark.parametrize("model", MODELS)
def test_the_user_side_is_in_the_recipes_hash_where_words_are_read(model, shop, tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("RECLLM_CACHE", str(tmp_path_factory.getbasetemp() / "keys"))
    hints = typing.get_type_hints(ConversationOptions)
    base = keys(model, shop, "conversation", {})
    for field in dataclasses.fields(ConversationOptions):
        if field.name in NOT_TRIED:
            continue
        for value in others(field, hints[field.name]):
            try:
                stages, recipe = keys(model, shop, "conversation", {field.name: value})
            except BenchError as error:  # an option without effect is refused
                assert model not in WORDS and "reads nothing that users say" in str(error)
                continue
            heard = model in WORDS or field.name in ("template", "pooling")  # anyone may read item texts
            assert (recipe != base[1]) == heard, f"{field.name}={value}"
            reads = field.name in ("template", "pooling") and model in (
                "latentcrs",
                "relrec",
                "text-retrieval",
                "asking",
            )
            speaks = field.name in ("simulator", "leaves", "target_visibility") and model == "latentcrs"
            assert (stages != base[0]) == (reads or speaks), f"{field.name}={value}"


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Recipe)])
def test_every_part_of_a_recipe_but_device_and_modules_is_in_its_hash(name: str) -> None:
    """Files of the user's own are hashed where their parts are used; a device names no result."""
    values: dict[str, Any] = {
        "seed": 43, "quick": 2, "options": {"hidden_size": 8}, "training": {"epochs": 3}, "modules": ("my.py",),
        "conversation": ConversationOptions(users=3),
    }  # fmt: skip
    base = Recipe(model="sasrec", dataset="ml-100k")
    changed = dataclasses.replace(base, **{name: values.get(name, "cpu")})
    assert (changed.hash() == base.hash()) == (name in ("device", "modules"))
