"""Text vectors as artifacts: the second call loads no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recllm_bench.artifacts import ArtifactStore, content_hash
from recllm_bench.files import write_array
from recllm_bench.language.encoders import TextEncoder, load_text_encoder
from recllm_bench.provenance import package_code_hash

_named_encoders: dict[tuple, TextEncoder] = {}
_PART = 8192  # texts between two saves, so that a kill loses little


def text_vectors(
    encoder: str | TextEncoder | Callable[[], TextEncoder],
    texts: Sequence[str],
    store: ArtifactStore,
    *,
    label: str = "",
    **parameters: Any,
) -> np.ndarray:
    """Vectors of texts, taken from the store where they exist.

    Parameters
    ----------
    encoder : str, TextEncoder or callable
        A name for :func:`~recllm_bench.language.encoders.load_text_encoder`, an encoder, or a function that makes one.
    texts : sequence of str
        Repeated texts and their order do not matter to the key.
    store : ArtifactStore
        Where vectors are kept (kind ``"text-vectors"``).
    label : str
        What the progress bar says.
    **parameters
        ``device``, ``dtype``, ``template``, ``pooling``, ``double_bos`` when ``encoder`` is a name.

    Returns
    -------
    float32 [n, width]

    Raises
    ------
    BenchError
        When the encoder cannot be found, or a vector is degenerate.
    """
    if isinstance(encoder, str):
        encoder = _named(encoder, tuple(sorted((name, str(value)) for name, value in parameters.items())), parameters)
    elif not isinstance(encoder, TextEncoder):
        encoder = encoder()
    unique = sorted(set(texts))
    code = package_code_hash(["language/encoders.py", "language/encoder_files.py", "language/vectors.py"])
    key = {**encoder.key(), "texts": content_hash(unique), "n": len(unique), "code": code}

    def make(work: Path) -> None:
        parts = []
        for start in range(0, len(unique), _PART):
            part = work / f"part-{start:09d}.npy"
            if not part.exists():
                write_array(part, encoder.encode(unique[start : start + _PART], label))
            parts.append(part)
        whole = np.concatenate([np.load(part) for part in parts]) if parts else encoder.encode([])
        write_array(work / "vectors.npy", whole)
        for part in parts:
            part.unlink()

    vectors = np.load(store.build("text-vectors", key, make) / "vectors.npy")
    row_of = {text: row for row, text in enumerate(unique)}
    return vectors[np.fromiter((row_of[text] for text in texts), np.int64, len(texts))]


def _named(spec: str, key: tuple, parameters: dict[str, Any]) -> TextEncoder:
    """An encoder by name; the last one stays loaded, since a dialogue asks for it at every turn."""
    if (spec, key) not in _named_encoders:
        encoder = load_text_encoder(spec, **parameters)
        _named_encoders.clear()
        _named_encoders[spec, key] = encoder
    return _named_encoders[spec, key]
