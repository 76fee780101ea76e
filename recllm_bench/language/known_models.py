"""Whether a folder holds the model that a paper used: by shape, vocabulary and weights, never by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recllm_bench.artifacts import file_hash
from recllm_bench.language.backbone_files import BackboneFiles


@dataclass(frozen=True)
class KnownModel:
    """A published model.

    Attributes
    ----------
    shape : mapping
        Entries of ``config.json`` that its weights have, the vocabulary apart.
    vocabulary : int
        Rows of its embedding.
    repository : str
        Its publisher's hub id.
    commits : tuple of str
        Revisions of that repository whose weights are the published ones.
    weights : frozenset of str
        SHA-256 of its safetensors files; empty: known by its revision alone.
    """

    shape: Mapping[str, int]
    vocabulary: int
    repository: str
    commits: tuple[str, ...]
    weights: frozenset[str] = frozenset()


KNOWN = {
    "Llama-2-7b": KnownModel(
        {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
        32_000,
        "meta-llama/Llama-2-7b-hf",
        ("01c7f73d771dfac7d292323805ebc428287df4f9",),
        frozenset(
            (
                "4ec71fd53e99766de38f24753b30c9e8942630e9e576a1ba27b0ec531e87be41",
                "41780b5dac322ac35598737e99208d90bdc632a1ba3389ebedbb46a1d8385a7f",
            )
        ),
    ),
    "Llama-3-8B": KnownModel(
        {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
        128_256,
        "meta-llama/Meta-Llama-3-8B",
        ("8cde5ca8380496c9a6cc7ef3a8b46a0372a1d920",),
    ),
}
"""Models that published methods stand on."""

_hashes: dict[tuple[str, int, int], str] = {}  # gigabytes are read once in a process


def difference(files: BackboneFiles, name: str) -> str | None:
    """What sets a model apart from a published one, ``None`` where it is that model.

    Parameters
    ----------
    files : BackboneFiles
    name : str
        A key of :data:`KNOWN`; nothing is a model that is not listed there.

    Returns
    -------
    str or None
        ``"another shape"``, ``"another vocabulary"`` or ``"other weights"``. Weights are right when they come from a
        known revision of the publisher's repository, or when every file has a published SHA-256.
    """
    known = KNOWN.get(name)
    if known is None or any(files.config.get(entry) != value for entry, value in known.shape.items()):
        return "another shape"
    if files.config.get("vocab_size") != known.vocabulary:
        return "another vocabulary"
    repository, _, commit = files.source.partition("@")
    if repository == known.repository and any(commit and own.startswith(commit) for own in known.commits):
        return None
    found = {_hash(path) for path in files.folder.glob("model*.safetensors")} if known.weights else set()
    return None if found and found == known.weights else "other weights"


def _hash(path: Path) -> str:
    state = path.stat()
    key = (str(path.resolve()), state.st_size, state.st_mtime_ns)
    if key not in _hashes:
        _hashes[key] = file_hash(path)
    return _hashes[key]
