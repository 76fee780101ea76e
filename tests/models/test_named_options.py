"""An error names what its reader can set: options of whoever loaded the language model, and no others."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from recllm_bench.errors import BenchError
from recllm_bench.language import generation, quantisation
from recllm_bench.language.chat import chat_model
from recllm_bench.language.chat_spending import TokenBudget
from recllm_bench.language.generation import generate
from recllm_bench.language.pool import empty_pool, pooled_backbone
from recllm_bench.language.quantisation import placement, settle_precision
from recllm_bench.models.cesrec.options import CESRecOptions
from recllm_bench.models.relrec import labelling
from recllm_bench.models.relrec.options import ReLRecOptions
from recllm_bench.models.systems.listing import SystemOptions

STORIES = "llama2-stories260k"
CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")


def options_named(message: str) -> set[str]:
    return set(re.findall(r"\b([a-z_]+)=", message))


def writes_labels() -> None:
    options = ReLRecOptions(labels="generated", chat=f"local:{STORIES}", chat_device="cpu")
    chat = labelling._writer(SimpleNamespace(store=None), options, TokenBudget("token_budget"))  # type: ignore[arg-type]
    chat.complete([[{"role": "user", "content": "Once"}]], max_tokens=4)


def answers() -> None:
    chat = chat_model(f"local:{STORIES}", device="cpu")
    chat.complete([[{"role": "user", "content": "Once"}]], max_tokens=4)


def reads() -> None:
    empty_pool()
    generate(pooled_backbone(STORIES, device="cpu"), [[1, 2]], max_new_tokens=4, batch_size=1)


def no_room(*_: Any, **__: Any) -> Any:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory")


@pytest.mark.shared
@pytest.mark.parametrize("fault", ["loading", "writing", "numbers"])
@pytest.mark.parametrize(
    ("does", "named", "owner"),
    [
        (reads, {"llm_precision"}, CESRecOptions),
        (reads, {"llm_precision"}, ReLRecOptions),
        (writes_labels, {"chat_precision"}, ReLRecOptions),
        (answers, set(), SystemOptions),
    ],
)
def test_of_a_model_that_fails(does, named, owner, fault, models_folder, monkeypatch):
    import transformers

    if fault == "loading":
        monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", no_room)
    elif fault == "writing":
        monkeypatch.setattr(generation._Writer, "write", no_room)
        monkeypatch.setattr(
            "recllm_bench.language.chat.generate", lambda *a, **k: generate(*a, **{**k, "batch_size": 1})
        )
    else:
        monkeypatch.setattr(generation, "_choose", lambda scores, *_: scores[:, 0].long() * 0)
        monkeypatch.setattr("recllm_bench.language.frozen.Backbone.logits", lambda self, s: s[:, :9] * torch.nan)
    with pytest.raises(BenchError) as caught:
        does()
    assert options_named(str(caught.value)) == named <= {field.name for field in dataclasses.fields(owner)}


@pytest.mark.parametrize("option", ["llm_precision", "chat_precision", ""])
def test_of_a_precision_that_does_not_serve(option, monkeypatch):
    found = []
    for precision, device, stored in (
        ("8bit", torch.device("mps"), ""),
        ("auto", CPU, "awq"),
        ("auto", CPU, "bitsandbytes"),
    ):
        with pytest.raises(BenchError) as caught:
            settle_precision(precision, device, "m", stored, option)
        found.append(str(caught.value))
    monkeypatch.setattr(quantisation.importlib.util, "find_spec", lambda name: None)
    for precision, stored in (("8bit", ""), ("auto", "bitsandbytes")):
        with pytest.raises(BenchError) as caught:
            settle_precision(precision, CUDA, "m", stored, option)
        found.append(str(caught.value))
    with pytest.raises(BenchError) as caught:
        placement("m", {"a.weight": ((40000, 40000), 0)}, "bfloat16", CUDA, [3 * 2**30], option=option)
    found.append(str(caught.value))
    # Whoever has no option asks for no precision: it is named as what it is.
    assert [options_named(text) - {"precision"} for text in found] == [
        {option} - {""}, {option} - {""}, set(), {option} - {""}, set(), {option} - {""},
    ]  # fmt: skip
    # Weights that are stored quantised are read in no other precision, so none is to be tried.
    assert "use its unquantised version" in found[2] and "use its unquantised version" in found[4]
