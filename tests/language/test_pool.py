"""The pool of loaded language models: one for all who ask, one at a time."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaForCausalLM

from recllm_bench.artifacts import ArtifactStore
from recllm_bench.language import pool
from recllm_bench.models.cesrec.language_model import language_model
from recllm_bench.models.relrec.stages import Pipeline

pytestmark = pytest.mark.shared
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def empty():
    pool.clear()
    yield
    pool.clear()


def models_in_memory() -> int:
    gc.collect()
    return sum(isinstance(held, LlamaForCausalLM) for held in gc.get_objects())


def test_cesrec_over_relrec_holds_one_model(tmp_path, models_folder):
    name = str(models_folder / "llama2-stories260k")
    job = SimpleNamespace(device=CPU, store=ArtifactStore(tmp_path), recipe=SimpleNamespace(seed=42))
    options = SimpleNamespace(llm=name, llm_precision="float32")
    inner = Pipeline.__new__(Pipeline)
    inner.job, inner.options = job, options
    before = models_in_memory()
    outer = language_model(job, options)
    below = inner.backbone()
    assert models_in_memory() == before + 1
    assert outer.model is below.model is language_model(job, options).model
    assert outer.substitute.endswith("for Llama-3-8B") and below.substitute.endswith("for Llama-2-7b")


def test_another_precision_or_content_takes_the_place_of_the_last(models_folder):
    name = str(models_folder / "llama2-stories260k")
    first = pool.pooled(name, "a", precision="float32", device=CPU)
    assert pool.pooled(lambda: pytest.fail("asked for"), "a", precision="float32", device=CPU) is first
    gone = weakref.ref(first.model)
    other = pool.pooled(name, "a", precision="bfloat16", device=CPU)
    assert other.dtype == torch.bfloat16 and other.model is not first.model
    del first
    gc.collect()
    assert gone() is None
    assert pool.pooled(name, "b", precision="bfloat16", device=CPU).model is not other.model


def test_clear_frees_the_models(models_folder):
    gone = weakref.ref(
        pool.pooled(str(models_folder / "llama2-stories260k"), "a", precision="float32", device=CPU).model
    )
    assert gone() is not None
    pool.clear()
    gc.collect()
    assert gone() is None
