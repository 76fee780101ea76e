"""A Llama of the 7B model's layout (32 layers, 32 heads, its tokenizer) with tiny widths, end to end from a folder."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from recllm_bench.language.backbone_files import find_backbone
from recllm_bench.language.known_models import KNOWN, difference
from recllm_bench.models.relrec import labelling
from recllm_bench.models.relrec.method import ReLRecMethod
from tests.models.relrec_planted import planted_labels
from tests.models.test_relrec_pipeline import N_ITEMS, N_USERS, Labels, make_job, train

NEEDS_KERNELS = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)


@pytest.fixture(scope="module")
def layout(models_folder, tmp_path_factory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "Llama-2-7b-hf"
    shape = {**KNOWN["Llama-2-7b"].shape, "hidden_size": 64, "intermediate_size": 192}
    torch.manual_seed(0)
    config = LlamaConfig(**shape, vocab_size=32_000, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2)
    LlamaForCausalLM(config).to(torch.float16).save_pretrained(folder)
    for file in (models_folder / "llama2-tokenizer").iterdir():
        if file.suffix in (".json", ".model"):
            shutil.copyfile(file, folder / file.name)
    return folder


@pytest.mark.shared
@pytest.mark.parametrize(
    "precision",
    ["bfloat16", *(pytest.param(bits, marks=NEEDS_KERNELS) for bits in ("8bit", "4bit"))],
)
def test_the_layout_of_7b_runs_from_a_folder(layout, tmp_path, monkeypatch, caplog, precision):
    def ready(job, options, dataset, split, work, is_other=False):
        labels = planted_labels(N_USERS, N_ITEMS)
        return Labels(labels.users, labels.items, "planted", "train_only", {})

    monkeypatch.setattr(labelling, "_labels_of", ready)
    options = {"llm": str(layout), "llm_precision": precision, "recon_users": 2, "recon_items": 2, "label_tokens": 12}
    job = make_job(tmp_path, {"epochs": 1}, **options)
    with caplog.at_level(logging.INFO, logger="recllm_bench"):
        model, folders = train(job)
    plan = next(line for line in caplog.messages if "a training step takes about" in line)
    assert all(part in plan for part in ("frozen weights", "trainable rows", "layers", "logits"))
    facts = json.loads((folders["train"] / "facts.json").read_text())
    assert facts["trainable"] == (N_USERS + N_ITEMS) * 16 + 2 * (16 * 64 + 64)
    assert facts["substitute"].startswith("Llama-2-7b-hf (") and facts["frozen_sha256"] == model.backbone.weights_hash()
    weights = {value.dtype for name, value in model.backbone.model.named_parameters() if "proj" in name}
    assert weights == {{"bfloat16": torch.bfloat16, "8bit": torch.int8, "4bit": torch.uint8}[precision]}
    assert difference(find_backbone(str(layout)), "Llama-2-7b") == "another shape"
    assert ReLRecMethod(job).report(folders)["substitutes"]["language model"].endswith("for Llama-2-7b")
