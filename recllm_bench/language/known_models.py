"""Whether a model is the one that a paper used: by shape, vocabulary and weights, or by its server."""

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
        Entries of ``config.json`` that tell it apart, the vocabulary not among them.
    vocabulary : int
        Rows of its embedding.
    repository : str
        Its publisher's hub id.
    commits : tuple of str
        Revisions of that repository whose weights are the published ones, where their hashes are known.
    weights : frozenset of str
        SHA-256 of its safetensors files; empty: not known, so that its publisher's repository alone tells it.
    """

    shape: Mapping[str, int]
    vocabulary: int
    repository: str
    commits: tuple[str, ...] = ()
    weights: frozenset[str] = frozenset()


def _shape(*sizes: int) -> dict[str, int]:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    return dict(zip(names, sizes, strict=False))


_LLAMA_3 = {**_shape(4096, 14336, 32, 32, 8), "max_position_embeddings": 8192}
UNCHECKED = "weights not checked"
"""Said of a model of the right shape and vocabulary whose published weights have no hash here."""

KNOWN = {
    "Llama-2-7b": KnownModel(
        _shape(4096, 11008, 32, 32),
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
    "Llama-2-7b-chat": KnownModel(_shape(4096, 11008, 32, 32), 32_000, "meta-llama/Llama-2-7b-chat-hf"),
    "Llama-3-8B": KnownModel(_LLAMA_3, 128_256, "meta-llama/Meta-Llama-3-8B"),
    "Llama-3-8B-Instruct": KnownModel(_LLAMA_3, 128_256, "meta-llama/Meta-Llama-3-8B-Instruct"),
    "Llama-3.1-8B-Instruct": KnownModel(
        {**_LLAMA_3, "max_position_embeddings": 131_072}, 128_256, "meta-llama/Llama-3.1-8B-Instruct"
    ),
    "Mistral-7B-Instruct-v0.3": KnownModel(
        _shape(4096, 14336, 32, 32, 8), 32_768, "mistralai/Mistral-7B-Instruct-v0.3"
    ),
    "Qwen2.5-3B-Instruct": KnownModel(_shape(2048, 11008, 36, 16, 2), 151_936, "Qwen/Qwen2.5-3B-Instruct"),
    "Qwen2.5-7B-Instruct": KnownModel(_shape(3584, 18944, 28, 28, 4), 152_064, "Qwen/Qwen2.5-7B-Instruct"),
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
        ``"another shape"``, ``"another vocabulary"``, ``"other weights"`` or :data:`UNCHECKED`. Weights are right when
        they come from a known revision of the publisher's repository, or when every file has a published SHA-256;
        where none is known here, when they come from that repository at all.
    """
    known = KNOWN.get(name)
    if known is None or any(files.config.get(entry) != value for entry, value in known.shape.items()):
        return "another shape"
    if files.config.get("vocab_size") != known.vocabulary:
        return "another vocabulary"
    repository, _, commit = files.source.partition("@")
    own = repository == known.repository
    if not known.weights:
        is_another = repository in {other.repository for other in KNOWN.values()}
        return None if own else "other weights" if is_another else UNCHECKED
    if own and any(commit and revision.startswith(commit) for revision in known.commits):
        return None
    found = {_hash(path) for path in files.folder.glob("model*.safetensors")}
    return None if found == known.weights else "other weights"


def is_served(spec: str, *names: str) -> bool:
    """Whether a chat model is a hosted one by one of these names (``server:MODEL@URL``); a local one is none."""
    kind, _, rest = spec.partition(":")
    return kind == "server" and rest.partition("@")[0].rpartition("/")[2].casefold() in names


def _hash(path: Path) -> str:
    state = path.stat()
    key = (str(path.resolve()), state.st_size, state.st_mtime_ns)
    if key not in _hashes:
        _hashes[key] = file_hash(path)
    return _hashes[key]
