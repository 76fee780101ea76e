"""Whether two folders hold the same product, whatever the clock said."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from recllm_bench.artifacts import MANIFEST

_CLOCK = ("second", "time", "created", "latency", "seal")  # a seal is a hash of what has seconds in it


def differences(one: Path, other: Path, apart: Collection[str] = ()) -> list[str]:
    """Files of two products that differ in more than what was measured with a clock; empty when none does.

    Arrays, tensors and JSON are compared by their content, everything else byte by byte. Left out are the store's
    manifest, the training loop's checkpoint (a kill at the very end leaves it behind), and the files and the keys of
    JSON files that ``apart`` names.
    """
    from recllm_bench.training.loop import CHECKPOINT

    names = {_name(path, root) for root in (one, other) for path in root.rglob("*") if path.is_file()}
    found = []
    for name in sorted(names - {MANIFEST, CHECKPOINT, *apart}):
        if not ((one / name).is_file() and (other / name).is_file()):
            found.append(f"{name} (in one alone)")
        elif not _equal(_content(one / name, apart), _content(other / name, apart)):
            found.append(name)
    return found


def _name(path: Path, root: Path) -> str:
    return str(path.relative_to(root))


def _content(path: Path, apart: Collection[str]) -> Any:
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".npz":
        return dict(np.load(path))
    if path.suffix == ".json":
        return _kept(json.loads(path.read_text(encoding="utf-8")), apart)
    if path.suffix == ".jsonl":
        return [_kept(json.loads(line), apart) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".pt":
        import torch

        return torch.load(path, map_location="cpu", weights_only=True)
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return load_file(path)
    return path.read_bytes()


def _kept(value: Any, apart: Collection[str]) -> Any:
    if isinstance(value, dict):
        names = [key for key in value if key not in apart and not any(word in key.lower() for word in _CLOCK)]
        return {key: _kept(value[key], apart) for key in names}
    return [_kept(part, apart) for part in value] if isinstance(value, list) else value


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(_equal(*pair) for pair in zip(one, other, strict=True))
    if hasattr(one, "numpy") and hasattr(other, "numpy"):
        one, other = one.detach().float().numpy(), other.detach().float().numpy()
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        kind = one.dtype.kind + other.dtype.kind
        return bool(np.array_equal(one, other, equal_nan=kind == "ff"))
    return bool(one == other)
