"""One pool of loaded language models: whoever needs the same one gets the same one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recllm_bench.language import pool
from recllm_bench.language.pool import empty_pool, pooled_backbone, tuned_backbone


@pytest.fixture(autouse=True)
def empty():
    empty_pool()
    yield
    empty_pool()


@pytest.fixture
def stories(models_folder: Path) -> Path:
    return models_folder / "llama2-stories260k"


def test_one_model_is_loaded_once_whatever_it_stands_for_and_is_called(stories, tmp_path):
    one = pooled_backbone("llama2-stories260k", device="cpu", stands_for="Llama-2-7b")
    link = tmp_path / "other-name"
    link.symlink_to(stories)
    other = pooled_backbone(str(link), device="cpu", stands_for="Llama-3-8B")
    assert one.model is other.model and len(pool._plain) == 1
    assert one.substitute.endswith("for Llama-2-7b") and other.substitute.endswith("for Llama-3-8B")


def test_another_precision_or_model_takes_its_place(stories):
    one = pooled_backbone(str(stories), precision="float32", device="cpu")
    half = pooled_backbone(str(stories), precision="bfloat16", device="cpu")
    assert half.model is not one.model and half.dtype == torch.bfloat16 and len(pool._plain) == 1


def test_cesrec_over_relrec_holds_its_language_model_once(stories, tmp_path):
    """Both ask for the model by their own way; before, each kept a copy of its own."""
    from recllm_bench.artifacts import ArtifactStore
    from recllm_bench.models.cesrec.language_model import language_model
    from recllm_bench.models.cesrec.options import CESRecOptions
    from recllm_bench.models.relrec.method import ReLRecMethod
    from recllm_bench.models.relrec.options import ReLRecOptions
    from tests.models.test_relrec_pipeline import make_job

    job = make_job(tmp_path, llm=str(stories))
    assert isinstance(job.options, ReLRecOptions) and isinstance(job.store, ArtifactStore)
    inner = ReLRecMethod(job).backbone()
    outer = language_model(job, CESRecOptions(llm=str(stories)))
    assert inner.model is outer.model and len(pool._plain) == 1


def test_a_tuned_copy_stands_beside_the_plain_one(stories, tmp_path):
    from recllm_bench.language.tuning import ADAPTER, TuningOptions, tune

    plain = pooled_backbone(str(stories), device="cpu")
    examples = [([1, 5, 6, 7], [5, 2])] * 8
    quick = TuningOptions(rank=2, epochs=1, batch_size=4, target_modules=("q_proj",))
    tune(plain, examples, examples[:2], quick, tmp_path, seed=1, device="cpu")
    tuned = tuned_backbone(plain, tmp_path / ADAPTER)
    assert tuned is tuned_backbone(plain, tmp_path / ADAPTER) and tuned.model is not plain.model
    again = pooled_backbone(str(stories), device="cpu")
    assert tuned_backbone(again, tmp_path / ADAPTER) is tuned, "asked for by another cell"
