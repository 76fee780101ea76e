"""Whether a reader finds an item from its label: retrieval of items by the vectors of their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from recllm_bench.data.reviews import PARTS

if TYPE_CHECKING:
    from recllm_bench.data.prepared import PreparedDataset
    from recllm_bench.data.splits import Split


def known_texts(
    dataset: PreparedDataset, split: Split, parts: Sequence[str] = PARTS[1:]
) -> tuple[list[tuple[str, ...]], str]:
    """What a reader may know of each item beside its label, and what that is.

    Parameters
    ----------
    dataset : PreparedDataset
    split : Split
        Tells which reviews no training part holds.
    parts : sequence of str
        Of a split; reviews of these stand in for items without a title, none of them is in a ``train_only`` label.

    Returns
    -------
    texts : list of tuple of str [n_items + 1]
        The catalogue's text of an item; where no item has a title, the reviews of ``parts``; may be empty.
    what : str
    """
    reviews = dataset.reviews() if not any(dataset.catalogue.titles) else None
    if reviews is None:
        return [(text,) if text else () for text in dataset.catalogue.texts()], "catalogue text"
    found: list[list[str]] = [[] for _ in range(dataset.histories.n_items + 1)]
    for table in reviews.batches(split, parts=tuple(parts)):
        columns = [table[name].to_pylist() for name in ("title", "text") if name in table.column_names]
        items = dataset.histories.items[table["position"].to_numpy()]
        for item, *written in zip(items.tolist(), *columns, strict=True):
            if text := "\n".join(part.strip() for part in written if part and part.strip()):
                found[item].append(text)
    return [tuple(texts) for texts in found], f"held-out reviews ({', '.join(parts)})"


def retrieval(
    labels: Sequence[Sequence[str]],
    known: Sequence[Sequence[str]],
    encode: Callable[[Sequence[str]], np.ndarray],
    k: int = 10,
) -> dict[str, float]:
    """Share of items that stand among the ``k`` nearest to their own label.

    Parameters
    ----------
    labels : sequence of sequence of str [n_items + 1]
        Versions of each label; the first is read, an item without one is left out and counted.
    known : sequence of sequence of str [n_items + 1]
        Texts of each item; its vector is the mean of their unit vectors. Items without text are no candidates.
    encode : callable
        ``encode(texts) -> float32 [n, width]``.
    k : int
        Cut-off.

    Returns
    -------
    dict
        ``hit@k`` by cosine, in expectation over the order of equal ones; ``chance`` (what any order has);
        ``items`` judged, ``candidates``, ``without label``, and ``distinct labels`` as a share of the labels.
    """
    candidates = [item for item, texts in enumerate(known) if texts]
    judged = [item for item in candidates if labels[item]]
    facts = {f"hit@{k}": 0.0, "chance": 0.0, "items": len(judged), "candidates": len(candidates)}
    facts["without label"] = len(candidates) - len(judged)
    first = [labels[item][0] for item in judged]
    facts["distinct labels"] = len(set(first)) / max(len(first), 1)
    if not judged:
        return facts
    sizes = np.array([len(known[item]) for item in candidates])
    texts = _unit(encode([text for item in candidates for text in known[item]]))
    table = _unit(np.add.reduceat(texts, np.cumsum(sizes) - sizes))
    place = {item: row for row, item in enumerate(candidates)}
    # Rounded, so that equal texts tie however their products were summed.
    scores = (_unit(encode(first)) @ table.T).round(9)
    own = scores[np.arange(len(judged)), [place[item] for item in judged]][:, None]
    higher, tied = (scores > own).sum(1), (scores == own).sum(1)
    facts[f"hit@{k}"] = float(np.clip((k - higher) / tied, 0, 1).mean())
    facts["chance"] = min(1.0, k / len(candidates))
    return facts


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
