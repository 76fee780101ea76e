"""Settings of CESRec by the size of its language model."""

import pytest

from recllm_bench.models.cesrec.options import CESRecOptions, preset_for
from recllm_bench.options import describe_options, option, quickened, read_options

PAPER = {
    "prompt_items": 20, "pair_targets": "last", "examples": 10000, "lora_rank": 16, "lora_alpha": 32.0,
    "lora_modules": ("q_proj", "k_proj", "v_proj", "o_proj"), "tune_learning_rate": 1e-4, "tune_batch": 64,
}  # fmt: skip


def settings(**given):
    read = read_options(CESRecOptions, given, "options of cesrec")
    return {name: getattr(read, name) for name in PAPER}


@pytest.mark.parametrize(
    "llm", ["meta-llama/Meta-Llama-3-8B", "mistralai/Mistral-7B-Instruct-v0.3", "Qwen/Qwen2.5-3B", "someone/a-model"]
)
def test_a_large_model_gets_the_papers_settings(llm):
    assert settings(llm=llm) == PAPER


def test_a_miniature_gets_larger_steps_more_pairs_and_shorter_prompts():
    found = settings()
    assert (found["tune_learning_rate"], found["examples"], found["prompt_items"]) == (3e-3, 12000, 5)
    assert found["lora_modules"] == ("all-linear",) and found["pair_targets"] == "any"


@pytest.mark.parametrize("llm", ["HuggingFaceTB/SmolLM2-135M", "Qwen/Qwen2.5-0.5B-Instruct"])
def test_a_name_says_that_a_model_is_small(llm):
    assert settings(llm=llm)["tune_learning_rate"] == 5e-4


def test_what_is_set_stays_and_a_preset_can_be_named():
    found = settings(llm="meta-llama/Meta-Llama-3-8B", tune_learning_rate=2e-4, preset="small")
    assert found["tune_learning_rate"] == 2e-4 and found["examples"] == 2000


def test_a_quick_run_is_limited_below_its_preset():
    assert quickened(read_options(CESRecOptions, {}, ""), 1).examples == 500


@pytest.mark.shared
def test_a_folder_is_judged_by_its_parameters(models_folder, tmp_path, monkeypatch):
    """A tiny model in a folder of a large one's name is a tiny model."""
    place = tmp_path / "Llama-3-8B"
    place.symlink_to(models_folder / "llama2-stories260k")
    assert preset_for(str(place)) == "miniature"
    monkeypatch.setenv("RECLLM_MODELS", str(models_folder))
    assert preset_for("llama2-stories260k") == "miniature"


def test_help_tells_the_presets():
    rows = {name: (default, text) for name, default, text in describe_options(CESRecOptions)}
    default, text = rows["tune_learning_rate"]
    assert default == "0.0001" and "miniature: 0.003" in text and "small: 0.0005" in text


def test_presets_serve_any_options_class():
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Own:
        size: str = option("big", "which")
        width: int = option(64, "how wide", presets={"tiny": 4})

        @classmethod
        def preset_of(cls, given):
            return given.get("size", "big")

    assert [read_options(Own, given, "").width for given in ({}, {"size": "tiny"}, {"size": "tiny", "width": 9})] == [
        64, 4, 9,
    ]  # fmt: skip
