"""A zoo model's state on disk, without pickled code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recllm_bench.artifacts import Damaged, write_atomic
from recllm_bench.errors import BenchError


def save_state(model: Any, path: Path) -> None:
    """Write parameters, buffers and RecBole's ``other_parameter`` (counts, similarity matrices) without pickled code.

    Graphs and history tables that the constructor derives from the dataset are not written: :func:`build_model`
    makes them again.
    """
    import torch

    extra = model.other_parameter().items()
    # RecBole lists whole layers too (dien.py, gru4recf.py); their weights are parameters already.
    other = {key: _stored(value) for key, value in extra if not isinstance(value, torch.nn.Module)}
    state = {"parameters": model.state_dict(), "other": other}
    write_atomic(Path(path), lambda file: torch.save(state, file))


def load_state(model: Any, path: Path) -> None:
    """Read what :func:`save_state` wrote into a model built with the same data and options.

    Raises
    ------
    Damaged
        When the file is missing, cut short or no saved state.
    BenchError
        When the file does not fit the model.
    """
    import torch

    device = next(iter(model.parameters())).device
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        parameters = state["parameters"]
        other = {key: _restored(value) for key, value in state["other"].items()}
    except Exception as error:  # unpickling somebody's bytes may raise anything
        if "out of memory" in str(error):
            raise
        raise Damaged(f"{path} is missing, damaged or no saved state ({type(error).__name__})") from error
    load_tensors(model, parameters, path)
    model.load_other_parameter(other)


def load_tensors(model: Any, tensors: Mapping[str, Any], path: Path) -> None:
    """Load parameters and buffers that came from a file; BenchError with the reason where they do not fit."""
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise BenchError(f"{path}: does not fit {type(model).__name__} ({reason})") from error


def _stored(value: Any) -> Any:
    """Tensors, strings and numbers only, which torch reads back with ``weights_only``."""
    import torch
    from scipy import sparse

    if sparse.issparse(value):
        rows = value.tocsr()
        arrays = [torch.from_numpy(np.ascontiguousarray(part)) for part in (rows.data, rows.indices, rows.indptr)]
        return {"kind": "sparse", "format": value.format, "shape": list(value.shape), "arrays": arrays}
    if isinstance(value, np.ndarray):
        kind = "matrix" if isinstance(value, np.matrix) else "array"
        return {"kind": kind, "array": torch.from_numpy(np.ascontiguousarray(np.asarray(value)))}
    return {"kind": "plain", "value": value}


def _restored(saved: Mapping[str, Any]) -> Any:
    from scipy import sparse

    if saved["kind"] == "sparse":
        arrays = tuple(part.cpu().numpy() for part in saved["arrays"])
        return sparse.csr_matrix(arrays, shape=tuple(saved["shape"])).asformat(saved["format"])
    if saved["kind"] in ("array", "matrix"):
        array = saved["array"].cpu().numpy()
        return np.asmatrix(array) if saved["kind"] == "matrix" else array
    return saved["value"]
