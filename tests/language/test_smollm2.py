"""The language model that comes as a package: what is converted, what is said where it is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from recllm_bench.errors import BenchError
from recllm_bench.language import smollm2
from recllm_bench.language.backbone_files import find_backbone, language_models
from recllm_bench.language.encoder_files import find_encoder, revision
from recllm_bench.language.smollm2 import CALLED, INSTALL, SMOLLM2
from recllm_bench.manifests import written_hash
from tests.language.chat_endpoint import SmallModel, say


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    pytest.importorskip("gguf")
    if not any(name == SMOLLM2 and "not installed" not in about for name, about in language_models()):
        pytest.skip(f"the package is not installed; {INSTALL}")
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder(cache, monkeypatch) -> Path:
    """The converted model, made once for this file."""
    monkeypatch.setenv("RECLLM_CACHE", str(cache))
    return find_backbone(SMOLLM2).folder


def test_weights_are_those_of_transformers_own_reading(folder):
    """Each number of a layer of every kind, read from the package's file by another reader."""
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    file = smollm2.packaged_file()
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).state_dict()
    with safe_open(folder / "model.safetensors", "pt") as ours:
        assert set(ours.keys()) == set(theirs) - {"lm_head.weight"}
        assert sum(ours.get_tensor(name).numel() for name in ours.keys()) == 134_515_008  # noqa: SIM118
        for name in theirs:
            if name != "lm_head.weight":
                assert torch.equal(ours.get_tensor(name), theirs[name]), name


def test_digits_stand_alone_so_that_no_pretokeniser_is_missing():
    """The model splits numbers into digits before its merges; no merge has one, so merges alone do the same."""
    from gguf import GGUFReader

    merges = GGUFReader(smollm2.packaged_file()).fields["tokenizer.ggml.merges"].contents()
    assert len(merges) == 48_900
    assert not [merge for merge in merges if any(sign.isdigit() and sign.isascii() for sign in merge)]


def test_one_name_serves_language_model_and_encoder_with_one_revision(folder):
    files, encoder = find_backbone(SMOLLM2), find_encoder(SMOLLM2)
    assert files.folder == encoder.folder == folder
    assert files.source == f"{CALLED}@{files.revision}"
    assert (encoder.causal, encoder.pooling, encoder.max_tokens) == (True, "last", 8192)
    assert json.loads((folder / "artifact.json").read_text())["key"]["file"] == smollm2._listed_hash()


def test_the_hash_in_the_manifest_serves_until_the_file_is_touched(tmp_path):
    from recllm_bench.artifacts import ArtifactStore, file_hash

    made = ArtifactStore(tmp_path).build("thing", {}, lambda work: (work / "a.json").write_text("{}"))
    assert written_hash(made / "a.json") == file_hash(made / "a.json")
    before = revision(made)
    (made / "a.json").write_text("[]")
    assert written_hash(made / "a.json") == ""
    assert revision(made) != before
    assert written_hash(made / "absent.json") == ""


def test_missing_package_is_one_line_with_the_command(monkeypatch, capsys):
    monkeypatch.setattr(smollm2, "_MODULE", "no_such_package_anywhere")
    for find in (find_backbone, find_encoder):
        with pytest.raises(BenchError, match=INSTALL) as caught:
            find(SMOLLM2)
        assert "\n" not in str(caught.value)
    assert (SMOLLM2, f"not installed; {INSTALL}") in language_models()
    from recllm_bench.cli import main

    assert main(["list", "llms"]) == 0
    assert INSTALL in capsys.readouterr().out


def test_damaged_file_is_refused_with_a_mend(tmp_path, monkeypatch):
    (tmp_path / smollm2._FILE).write_bytes(b"GGUF, cut short")
    with pytest.raises(BenchError, match=r"is damaged; run .*--force-reinstall"):
        smollm2._convert(tmp_path / smollm2._FILE, tmp_path)


def test_rotation_order_by_hand():
    """Two heads of four rows: pairs (0, 1), (2, 3) of a head become its rows 0, 2, 1, 3."""
    rows = torch.arange(8.0)[:, None]
    assert smollm2._halves(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert np.array_equal(smollm2._halves(rows, 1)[:, 0].numpy(), [0, 2, 4, 6, 1, 3, 5, 7])


def test_a_recipe_of_the_language_model_goes_before_the_general_one():
    from recllm_bench.planning import recipe_values

    small, general = (recipe_values("cesrec", "ml-100k", llm=llm) for llm in (SMOLLM2, "another/model"))
    assert (small["options"]["llm"], small["options"]["examples"], small["dataset"]) == (SMOLLM2, 300, "ml-100k")
    assert general == recipe_values("cesrec", "ml-100k")
    assert recipe_values("relrec", "ml-100k", llm=SMOLLM2)["training"]["epochs"] == 1


def test_a_chat_server_with_it_behind_speaks_the_protocol(folder, endpoint):
    from recllm_bench.language.chat import chat_model

    local = chat_model(f"local:{SMOLLM2}", cache=False, device="cpu")
    endpoint.reply = SmallModel(local)
    chat = chat_model(f"server:{SMOLLM2}@{endpoint.url}", cache=False, timeout=60)
    asked = [say(text) for text in ("Name a colour.", "What is 2 + 2?", "Say hello.")]
    assert chat.complete(asked, max_tokens=8) == local.complete(asked, max_tokens=8)
    assert sum(endpoint.reply.batches) == chat.usage.answers == len(asked)
    assert chat.usage.prompt_tokens > 0
