"""Where a causal language model's files lie, what they say of it, and what is refused before any weight is read."""

from __future__ import annotations

import json
import math
import os
import re
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from recllm_bench.artifacts import ArtifactStore
from recllm_bench.errors import BenchError, nearest
from recllm_bench.language.encoder_files import revision
from recllm_bench.language.smollm2 import CALLED, INSTALL, SMOLLM2, packaged_file, smollm2_folder
from recllm_bench.locations import models_folder
from recllm_bench.progress import log

T = TypeVar("T")

MINIATURE = "miniature.json"
"""The file by which a model pre-trained here is recognised."""

MINIATURE_KIND = "miniature-llm"
"""Kind of artifact under which such models are stored."""

_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
# Only what the model depends on: a folder's own notes and manifests must not change its revision.
_READ = (
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.jinja",
    "chat_template.json",
    "tokenizer.model",
    "model*.safetensors",
    "model.safetensors.index.json",
)
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_PATIENCE = 5.0  # seconds for the hub to answer before it counts as out of reach
_fetched: dict[tuple[str, str], tuple[Path, str]] = {}  # hub ids settled in this process


@dataclass(frozen=True)
class BackboneFiles:
    """A causal language model's folder and what its configuration says.

    Attributes
    ----------
    name : str
        What the user called it (``"miniature"`` for a model pre-trained here).
    folder : Path
        ``config.json``, tokenizer and safetensors weights.
    source : str
        Folder name or hub id, with revision.
    config : dict
        ``config.json``.
    tensors : dict
        Name of each stored tensor -> (shape, bytes in the file).
    """

    name: str
    folder: Path
    source: str
    config: dict[str, Any] = field(repr=False)
    tensors: dict[str, tuple[tuple[int, ...], int]] = field(repr=False)

    @property
    def revision(self) -> str:
        """Hash of weights, configuration and tokenizer, 16 hexadecimal digits."""
        return revision(self.folder, _READ)

    @property
    def is_miniature(self) -> bool:
        """Whether it was pre-trained here on a dataset's own text."""
        return (self.folder / MINIATURE).exists()

    @property
    def stored_quantised(self) -> str:
        """Quantisation method of the stored weights, or nothing."""
        return str((self.config.get("quantization_config") or {}).get("quant_method", ""))


def find_backbone(name: str, store: ArtifactStore | None = None) -> BackboneFiles:
    """Find a causal language model without reading its weights.

    Parameters
    ----------
    name : str
        ``smollm2`` (from its package), a name under ``RECLLM_MODELS``, a folder, the hash of a miniature in ``store``,
        or a hub id (``owner/model`` or ``owner/model@revision``).
    store : ArtifactStore, optional
        Where miniatures are looked up.

    Raises
    ------
    BenchError
        When it is missing, gated, out of reach, broken, not causal, without tokenizer or not in safetensors.
    """
    folder, source = _locate(name, store)
    config = _config(folder, name)
    _refuse_other_kinds(config, name)
    if not any((folder / file).exists() for file in _TOKENIZER):
        raise BenchError(
            f"language model '{name}': {folder} has no tokenizer; put its tokenizer.json beside the weights"
        )
    tensors = {}
    for path in _weight_files(folder, name):
        tensors.update(_header(path, name))
    miniature = (folder / MINIATURE).exists()
    files = BackboneFiles("miniature" if miniature else name, folder, source, config, tensors)
    called = CALLED if name == SMOLLM2 else folder.name
    return files if source else BackboneFiles(files.name, folder, f"{called}@{files.revision}", config, tensors)


def language_models() -> list[tuple[str, str]]:
    """Names that need no hub and what is behind each; reads no weights."""
    try:
        packaged_file()
        found = [(SMOLLM2, f"{CALLED}, 134.5 M parameters, from its package")]
    except BenchError:
        found = [(SMOLLM2, f"not installed; {INSTALL}")]
    shelf = models_folder()
    if shelf is not None and shelf.is_dir():
        found += sorted((path.parent.name, "in RECLLM_MODELS") for path in shelf.glob("*/config.json"))
    return found


def _locate(name: str, store: ArtifactStore | None) -> tuple[Path, str]:
    """The model's folder, and its hub id with revision when it came from there."""
    if not name.strip():
        raise BenchError(f"no language model is named; give {SMOLLM2}, a folder, a name in RECLLM_MODELS, or a hub id")
    if name == SMOLLM2:
        return smollm2_folder(), ""
    shelf = models_folder()
    places = [shelf / name] if shelf else []
    places.append(Path(name).expanduser())
    if store is not None:
        places.append(store.root / MINIATURE_KIND / name)
    for path in places:
        if (path / "config.json").exists():
            return path.resolve(), ""
        if path.is_dir():
            inside = " (its tokenizer alone is not enough)" if (path / "tokenizer.json").exists() else ""
            raise BenchError(f"language model '{name}': {path} has no config.json, so it is not a model folder{inside}")
        if path.is_file():
            raise BenchError(
                f"language model '{name}': {path} is a file; give the folder with config.json and safetensors"
            )
    known = [SMOLLM2]
    if shelf:
        known += sorted(path.name for path in shelf.iterdir() if (path / "config.json").exists())
    if name.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@[\w.-]+)?", name):
        raise BenchError(f"language model '{name}': no such folder; give a folder, a hub id{_among(name, known)}")
    if (name, _endpoint()) not in _fetched:
        _fetched[name, _endpoint()] = _from_hub(name, known)
    return _fetched[name, _endpoint()]


def _among(name: str, known: list[str]) -> str:
    if known == [SMOLLM2]:
        return f", {SMOLLM2}, or set RECLLM_MODELS"
    return f", {SMOLLM2}, or a name in RECLLM_MODELS.{nearest(name, known)}"


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _from_hub(name: str, known: list[str]) -> tuple[Path, str]:
    """Fetch a model, or find it in the hub's cache; says within seconds when there is no way to it."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub import errors as hub

    repo, _, wanted = name.partition("@")
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    reachable, size = not offline, 0
    try:
        if reachable:
            try:
                info = _within(
                    2 * _PATIENCE,
                    lambda: HfApi().model_info(repo, revision=wanted or None, timeout=_PATIENCE, files_metadata=True),
                )
            except _hub_answers():
                raise
            except Exception:  # no answer: the hub client lets errors of several HTTP libraries through
                reachable = False
            else:
                listed = {file.rfilename: file.size or 0 for file in info.siblings or ()}
                size = sum(_refuse_unloadable(listed, name).values())
                wanted = wanted or info.sha or ""
        options: dict[str, Any] = {
            "revision": wanted or None,
            "allow_patterns": list(_READ),
            "ignore_patterns": ["*/*"],
        }
        if reachable:
            log.info(f"language model '{name}': {size / 2**30:.1f} GiB of weights, from the hub or its cache")
        folder = Path(snapshot_download(repo, local_files_only=not reachable, **options))
        if not (folder / "config.json").exists():
            raise FileNotFoundError(folder / "config.json")
    except BenchError:
        raise
    except hub.GatedRepoError as error:
        raise BenchError(_gated(name, repo)) from error
    except hub.RevisionNotFoundError as error:
        raise BenchError(f"language model '{name}': the hub's {repo} has no revision '{wanted}'") from error
    except (hub.RepositoryNotFoundError, hub.HFValidationError) as error:
        raise BenchError(
            f"language model '{name}' is not on the hub, or is private ('hf auth login' shows who you are);"
            f" give a folder or a hub id{_among(name, known)}"
        ) from error
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise BenchError(_gated(name, repo)) from error
        if reachable:
            why = f"the hub failed with {status}" if status else _first_line(error)
        elif offline:
            why = "HF_HUB_OFFLINE is set and it is not in the hub's cache"
        else:
            why = f"{_endpoint()} does not answer and it is not in the hub's cache"
        raise BenchError(
            f"language model '{name}' cannot be fetched: {why}; name a local folder{_among(name, known)}"
        ) from error
    return folder, f"{repo}@{folder.name[:12]}"


def _hub_answers() -> tuple[type[Exception], ...]:
    """Exceptions by which the hub itself says no."""
    from huggingface_hub import errors as hub

    return hub.HfHubHTTPError, hub.HFValidationError, BenchError


def _gated(name: str, repo: str) -> str:
    return (
        f"language model '{name}' is gated: accept its licence at {_endpoint()}/{repo}, then run 'hf auth login'"
        " (or set HF_TOKEN)"
    )


def _refuse_unloadable(listed: dict[str, int], name: str) -> dict[str, int]:
    """Weight files of a hub listing; refuses before anything large is fetched."""
    weights = {file: size for file, size in listed.items() if re.fullmatch(r"model[^/]*\.safetensors", file)}
    if "config.json" not in listed:
        raise BenchError(f"language model '{name}': the hub's files have no config.json, so it is not a model to load")
    if not weights:
        pickled = any(file.endswith(tuple(pattern[1:] for pattern in _PICKLED)) for file in listed)
        raise BenchError(_no_safetensors(name, "the hub has", pickled))
    return weights


def _no_safetensors(name: str, place: str, pickled: bool) -> str:
    what = "only pickled weights (.bin, .pt), which may run code when read" if pickled else "no weights"
    return (
        f"language model '{name}': {place} {what}; only safetensors are loaded: fetch such a version, or convert it"
        " with save_pretrained(safe_serialization=True) where you trust it"
    )


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Run a call, giving up on it after a time: name look-ups know no timeout of their own."""
    box: list[Any] = []

    def run() -> None:
        try:
            box.append((True, call()))
        except Exception as error:
            box.append((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not box:
        raise TimeoutError(f"no answer in {seconds:g} s")
    succeeded, value = box[0]
    if not succeeded:
        raise value
    return value


def _config(folder: Path, name: str) -> dict[str, Any]:
    config = _json(folder / "config.json", name)
    if not isinstance(config, dict) or not config.get("model_type"):
        raise BenchError(
            f"language model '{name}': {folder / 'config.json'} names no model_type; fetch the model again"
        )
    return config


def _refuse_other_kinds(config: dict[str, Any], name: str) -> None:
    """Refuse encoders, sequence-to-sequence models, heads for other tasks, and models that bring code."""
    kinds = [str(kind) for kind in config.get("architectures") or ()]
    if config.get("is_encoder_decoder"):
        raise BenchError(
            f"language model '{name}' is sequence-to-sequence ({(kinds or [config['model_type']])[0]}), not causal;"
            " name a decoder such as Llama, Mistral or Qwen"
        )
    if kinds and not any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds):
        bare = kinds[0].endswith("Model")
        what = f"{kinds[0]}, which has no language-model head" if bare else f"{kinds[0]}, not a causal language model"
        raise BenchError(f"language model '{name}' holds {what}; name a decoder such as Llama, Mistral or Qwen")
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = config["model_type"]
    if kind not in CONFIG_MAPPING:
        own = (
            "brings code of its own, which is not run" if config.get("auto_map") else "is unknown to this transformers"
        )
        raise BenchError(f"language model '{name}': its kind '{kind}' {own}; upgrade transformers or choose another")
    encoder = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or encoder:
        raise BenchError(f"language model '{name}': '{kind}' is not causal; name a decoder such as Llama or Qwen")


def _weight_files(folder: Path, name: str) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        listed = sorted(set((_json(index, name).get("weight_map") or {}).values()))
        missing = [file for file in listed if not (folder / file).exists()]
        if missing:
            raise BenchError(
                f"language model '{name}': {len(missing)} of {len(listed)} weight files are missing from {folder},"
                f" such as {missing[0]}; fetch the model again"
            )
        return [folder / file for file in listed]
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    pickled = any(True for pattern in _PICKLED for _ in folder.glob(pattern))
    raise BenchError(_no_safetensors(name, f"{folder} has", pickled))


def _header(path: Path, name: str) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shapes and sizes of a safetensors file's tensors, from its header alone."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, 1 << 28):
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        entries = {key: value for key, value in header.items() if key != "__metadata__"}
        spans = {key: value["data_offsets"] for key, value in entries.items()}
        end = max((span[1] for span in spans.values()), default=0)
        if size != 8 + length + end:
            raise ValueError(f"it has {size} bytes where its header tells of {8 + length + end}")
        return {key: (tuple(entries[key]["shape"]), span[1] - span[0]) for key, span in spans.items()}
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise BenchError(f"language model '{name}': {path} is cut short or broken; fetch it again") from error


def parameter_count(files: BackboneFiles) -> int:
    """Number of stored parameters; a quantised file counts its packed bytes."""
    return sum(math.prod(shape) for shape, _ in files.tensors.values())


def miniature_facts(files: BackboneFiles) -> dict[str, Any]:
    """What the training of a miniature wrote down: parameters, steps, perplexities."""
    return _json(files.folder / MINIATURE, files.name)


def _json(path: Path, name: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise BenchError(
            f"language model '{name}': {path}:{error.lineno} is not valid JSON ({error.msg}); fetch the model again"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"language model '{name}': {path} cannot be read: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
