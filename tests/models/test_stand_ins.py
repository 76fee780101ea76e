"""What a row calls a stand-in: never what the paper itself used."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from recllm_bench.language import known_models
from recllm_bench.language.backbone_files import BackboneFiles, find_backbone
from recllm_bench.language.known_models import KNOWN, KnownModel
from recllm_bench.models.cesrec import language_model as language_model_module
from recllm_bench.models.cesrec.language_model import language_model
from recllm_bench.models.cesrec.options import CESRecOptions
from recllm_bench.models.cesrec.published import row
from recllm_bench.models.latentcrs import stand_ins as stand_ins_module
from recllm_bench.models.latentcrs.stand_ins import reader, stand_ins
from recllm_bench.planning import sweep_recipes
from recllm_bench.recipe import ConversationOptions, Recipe, read_recipe_file

GEMINI, LLAMA = "server:gemini-1.5-pro-002@https://example.org/v1", "Llama-3.1-8B-Instruct"


def job(said=None, **talk) -> SimpleNamespace:
    recipe = Recipe("latentcrs", "ml1m", conversation=ConversationOptions(**talk))
    return SimpleNamespace(recipe=recipe, dataset=SimpleNamespace(said=said), store=None)


@pytest.fixture
def tiny_paper(monkeypatch, models_folder):
    """A tiny model in the place of the one that the paper reads with."""
    files = find_backbone("llama2-stories260k")
    known = KnownModel({"hidden_size": files.config["hidden_size"]}, files.config["vocab_size"], "x/y")
    monkeypatch.setitem(KNOWN, LLAMA, known)
    monkeypatch.setattr(
        stand_ins_module, "find_backbone", lambda name, store=None: dataclasses.replace(files, source=f"{name}@0")
    )
    monkeypatch.setattr(stand_ins_module, "find_encoder", lambda name: SimpleNamespace(causal=name != "minilm"))


def test_the_papers_simulator_and_encoder_are_no_stand_ins(tiny_paper):
    papers = {"encoder": "x/y", "template": "one_word", "pooling": "last"}
    assert stand_ins(job(simulator=GEMINI, **papers)) == {"simulator": "", "text encoder": ""}
    assert stand_ins(job(simulator="rules:2", **papers)) == {"text encoder": ""}
    assert stand_ins(job(said=True, simulator=GEMINI)) == {}, "people spoke"
    assert stand_ins(job(simulator="local:gemini-1.5-pro", encoder="minilm")) == {}


def test_an_encoder_that_is_nearly_the_papers_says_what_it_is(tiny_paper):
    assert stand_ins(job(encoder="x/y", pooling="last")) == {
        "text encoder": "x/y with template {text} and pooling last"
    }
    assert stand_ins(job(encoder="copy", template="one_word", pooling="last")) == {
        "text encoder": f"copy (260.0k, weights not checked) for {LLAMA}"
    }


def test_the_papers_extractor_is_no_stand_in(tiny_paper):
    assert reader("local:x/y", "x/y") == reader(f"server:meta-llama/{LLAMA}@http://host/v1", "any") == ""
    assert reader("local:copy", "copy") == "copy" and reader("server:gpt-4o@http://host/v1", "gpt-4o") == "gpt-4o"


@pytest.mark.parametrize("table", [2, 4])
def test_a_constructor_of_the_paper_stands_for_itself(table, monkeypatch, tmp_path):
    """Each row's model is asked for as the one its printed row was made with, and its publisher's copy is that one."""
    monkeypatch.setattr("recllm_bench.language.pool.pooled_backbone", lambda name, **options: options["stands_for"])
    name = f"cesrec-table{table}-paper"
    for _, recipe in sweep_recipes(read_recipe_file(name), name):
        options = CESRecOptions(llm=recipe.options["llm"])
        meant = KNOWN[language_model(SimpleNamespace(device="cpu", store=None), options)]
        assert meant.repository == options.llm and row(recipe.as_dict()) is not None
        config = {**meant.shape, "vocab_size": meant.vocabulary}
        commit = meant.commits[0] if meant.commits else "0"
        files = BackboneFiles("model", tmp_path, f"{options.llm}@{commit}", config, {})
        assert known_models.difference(files, next(key for key, model in KNOWN.items() if model is meant)) is None


def test_a_model_that_the_paper_lacks_stands_for_llama_3():
    for llm in ("", "smollm2", "/models/anything"):
        assert language_model_module.constructor(llm) == ("llama3", "Llama-3-8B")
