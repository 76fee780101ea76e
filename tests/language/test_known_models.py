"""Which model is the one a paper used: by shape, vocabulary and weights; a name decides nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from recllm_bench.artifacts import file_hash
from recllm_bench.language import known_models
from recllm_bench.language.backbone import substitute_for
from recllm_bench.language.backbone_files import BackboneFiles, find_backbone
from recllm_bench.language.known_models import KNOWN, KnownModel, difference, is_served

LLAMA = "Llama-2-7b"
SHAPE = {**KNOWN[LLAMA].shape, "vocab_size": 32_000, "model_type": "llama"}


def files(folder: Path, source: str = "", **config) -> BackboneFiles:
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"random weights")
    return BackboneFiles(folder.name, folder, source or f"{folder.name}@0", {**SHAPE, **config}, {"w": ((7, 10**9), 0)})


def test_random_weights_in_a_folder_of_that_name_are_a_substitute(tmp_path):
    """The shape of the 7B model, its name and its vocabulary, but not its weights."""
    found = files(tmp_path / "Llama-2-7b-hf")
    assert difference(found, LLAMA) == "other weights"
    assert substitute_for(found, LLAMA) == "Llama-2-7b-hf (7.0B, other weights) for Llama-2-7b"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hidden_size": 512}, "another shape"),
        ({"num_hidden_layers": 31}, "another shape"),
        ({"vocab_size": 32_001}, "another vocabulary"),
    ],
)
def test_what_sets_a_model_apart(tmp_path, changes, expected):
    official = "meta-llama/Llama-2-7b-hf@01c7f73d771d"
    assert difference(files(tmp_path / "one", official), LLAMA) is None
    assert difference(files(tmp_path / "two", official, **changes), LLAMA) == expected


@pytest.mark.parametrize(
    "source",
    [
        "meta-llama/Llama-2-7b-hf@0123456789ab",  # a revision nobody knows
        "meta-llama/Llama-2-7b-hf",  # none
        "someone/Llama-2-7b-hf@01c7f73d771d",  # another's repository
    ],
)
def test_another_revision_or_publisher_needs_the_weights(tmp_path, source, monkeypatch):
    found = files(tmp_path / "model", source)
    assert difference(found, LLAMA) == "other weights"
    own = KnownModel(KNOWN[LLAMA].shape, 32_000, "x/y", (), frozenset({file_hash(found.folder / "model.safetensors")}))
    monkeypatch.setitem(KNOWN, LLAMA, own)
    assert difference(found, LLAMA) is None
    (found.folder / "model-00002-of-00002.safetensors").write_bytes(b"one file too many")
    assert difference(found, LLAMA) == "other weights"


@pytest.mark.shared
def test_a_real_folder_is_known_by_its_weights_under_any_name(models_folder, tmp_path, monkeypatch):
    folder = tmp_path / "Llama-2-7b-hf"
    shutil.copytree(models_folder / "llama2-stories260k", folder, copy_function=shutil.copyfile)
    assert substitute_for(find_backbone(str(folder)), LLAMA) == "Llama-2-7b-hf (260.0k) for Llama-2-7b"
    config = json.loads((folder / "config.json").read_text())
    shape = {name: config[name] for name in KNOWN[LLAMA].shape}
    weights = frozenset({file_hash(folder / "model.safetensors")})
    monkeypatch.setitem(KNOWN, LLAMA, KnownModel(shape, config["vocab_size"], "x/y", (), weights))
    renamed = folder.rename(tmp_path / "anything")
    assert substitute_for(find_backbone(str(renamed)), LLAMA) == ""
    with open(renamed / "model.safetensors", "r+b") as file:  # one weight differs
        file.seek(-4, 2)
        file.write(b"\0\0\0\1")
    assert substitute_for(find_backbone(str(renamed)), LLAMA).endswith("other weights) for Llama-2-7b")


def test_an_unknown_name_is_never_met(tmp_path):
    assert difference(files(tmp_path / "model"), "Some-1B") == "another shape"
    assert all(len(weight) == 64 for known in known_models.KNOWN.values() for weight in known.weights)


LLAMA_3 = {**KNOWN["Llama-3-8B"].shape, "vocab_size": 128_256}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("meta-llama/Meta-Llama-3-8B@8cde5ca83804", None),
        ("meta-llama/Meta-Llama-3-8B@62bd457b6fe9", None),  # an earlier revision
        ("Meta-Llama-3-8B@0123456789ab", "weights not checked"),  # a folder
        ("someone/Llama-3-8B-tuned@0123456789ab", "weights not checked"),
        ("meta-llama/Meta-Llama-3-8B-Instruct@8afb486c1db2", "other weights"),  # known to be another model
    ],
)
def test_weights_without_a_known_hash_are_not_called_others(tmp_path, source, expected):
    found = files(tmp_path / "model", source, **LLAMA_3)
    assert difference(found, "Llama-3-8B") == expected
    called = source.partition("@")[0].rpartition("/")[2]
    said = f"{called} (7.0B, {expected}) for Llama-3-8B" if expected else ""
    assert substitute_for(found, "Llama-3-8B") == said


def test_what_can_be_seen_is_still_seen(tmp_path):
    found = files(tmp_path / "model", "meta-llama/Meta-Llama-3-8B@8cde5ca83804", **{**LLAMA_3, "vocab_size": 128_257})
    assert difference(found, "Llama-3-8B") == "another vocabulary"
    longer = files(tmp_path / "longer", "folder@0", **{**LLAMA_3, "max_position_embeddings": 131_072})
    assert difference(longer, "Llama-3-8B") == "another shape", "3.1 has the weights' shape of 3, and a longer context"
    assert difference(longer, "Llama-3.1-8B-Instruct") == "weights not checked"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("server:gpt-4o-mini@https://api.openai.com/v1", True),
        ("server:openai/GPT-4o-mini@https://openrouter.ai/api/v1", True),
        ("server:gpt-4o-mini-search-preview@https://api.openai.com/v1", False),
        ("server:gpt-4o@https://api.openai.com/v1", False),
        ("local:gpt-4o-mini", False),
        ("rules", False),
    ],
)
def test_a_hosted_model_is_known_by_its_name_at_a_server(spec, expected):
    assert is_served(spec, "gpt-4o-mini") is expected
