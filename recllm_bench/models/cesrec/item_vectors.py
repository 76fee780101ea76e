"""Vectors of items from a language model's states over their texts (CESRec, equation 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recllm_bench.errors import BenchError
from recllm_bench.language.encoders import TextEncoder
from recllm_bench.language.vectors import text_vectors
from recllm_bench.progress import track

if TYPE_CHECKING:
    from recllm_bench.artifacts import ArtifactStore
    from recllm_bench.data.catalogue import Catalogue
    from recllm_bench.language.backbone import Backbone

POOLS, TEXTS = ("last_token", "mean"), ("title", "title+category")
_TOKENS_AT_ONCE = {"cpu": 4096, "cuda": 65536}


class StateEncoder(TextEncoder):
    """Texts as states of a loaded causal language model's last layer.

    Parameters
    ----------
    pool : {"last_token", "mean"}
        The state of the last token, or the mean over all tokens but the one that begins a text.
    key : mapping, optional
        What identifies the model in artifacts; by default its source and type.
    """

    def __init__(self, backbone: Backbone, pool: str = "last_token", key: Mapping[str, Any] | None = None) -> None:
        if pool not in POOLS:
            raise BenchError(f"item vectors: text_pool '{pool}' is not one of {', '.join(POOLS)}")
        self.backbone, self.pool, self.name = backbone, pool, backbone.name
        self._key = dict(key) if key else {"backbone": backbone.source, "dtype": str(backbone.dtype)}

    @property
    def revision(self) -> str:
        """Where the model came from."""
        return self.backbone.source

    @property
    def width(self) -> int:
        """Length of a state."""
        return self.backbone.width

    def key(self) -> dict[str, Any]:
        """The model, the pooling, and the template (the text alone, after the tokenizer's own beginning)."""
        return {**self._key, "pool": self.pool, "template": "{text}"}

    @torch.no_grad()
    def encode(self, texts: Sequence[str], label: str = "") -> np.ndarray:
        """See :class:`~recllm_bench.language.encoders.TextEncoder`; texts beyond the context are cut."""
        row_of: dict[str, int] = {}
        rows = np.fromiter((row_of.setdefault(text, len(row_of)) for text in texts), np.int64, len(texts))
        vectors = np.empty((len(row_of), self.width), dtype=np.float32)
        if not row_of:
            return vectors
        tokens = self.backbone.tokenizer(list(row_of), add_special_tokens=True, verbose=False)["input_ids"]
        tokens = [ids[: self.backbone.context] for ids in tokens]
        if empty := [text for text, ids in zip(row_of, tokens, strict=True) if not ids]:
            raise BenchError(f"item vectors: {self.name} makes no tokens of the text {empty[0]!r}")
        lengths = np.array([len(ids) for ids in tokens])
        order = np.argsort(-lengths, kind="stable")
        budget = _TOKENS_AT_ONCE.get(self.backbone.device.type, _TOKENS_AT_ONCE["cpu"])
        start = 0
        with track(label=label or f"item vectors with {self.name}", total=len(order), unit="text") as bar:
            while start < len(order):
                batch = order[start : start + max(1, budget // int(lengths[order[start]]))]
                vectors[batch] = self._pooled([tokens[row] for row in batch], lengths[batch]).cpu().numpy()
                bar.update(len(batch))
                start += len(batch)
        norms = np.linalg.norm(vectors, axis=1)
        if not (np.isfinite(norms) & (norms > 0)).all():
            raise BenchError(
                f"item vectors: {self.name} gives states that are no numbers or zero; try llm_precision=float32"
            )
        return vectors[rows]

    def _pooled(self, tokens: list[list[int]], lengths: np.ndarray) -> torch.Tensor:
        ids = np.zeros((len(tokens), int(lengths.max())), np.int64)
        inside = np.arange(ids.shape[1]) < lengths[:, None]
        ids[inside] = np.concatenate(tokens)
        mask = None if inside.all() else torch.from_numpy(inside).long().to(self.backbone.device)
        states = self.backbone.hidden_states(self.backbone.embed(torch.from_numpy(ids)), mask).float()
        places = torch.from_numpy(lengths).to(states.device) - 1
        if self.pool == "last_token":
            return states[torch.arange(len(states), device=states.device), places]
        counted = torch.from_numpy(inside).to(states.device)
        if self.backbone.tokenizer.bos_token_id is not None:
            begins = torch.from_numpy(ids[:, 0] == self.backbone.tokenizer.bos_token_id).to(states.device)
            counted[:, 0] = ~begins | (places == 0)  # the first state is the same for every text
        return (states * counted[:, :, None]).sum(1) / counted.sum(1, keepdim=True)


def item_texts(catalogue: Catalogue, text: str = "title") -> list[str]:
    """What is read of each item, by id; entry 0 is empty, and an item without a title is read by its own id.

    Parameters
    ----------
    text : {"title", "title+category"}
        The latter adds the categories in brackets.
    """
    if text not in TEXTS:
        raise BenchError(f"item vectors: text '{text}' is not one of {', '.join(TEXTS)}")
    titles = [title.strip() or token for title, token in zip(catalogue.titles, catalogue.tokens, strict=True)]
    if text == "title+category":
        titles = [
            f"{title} ({', '.join(kinds)})" if kinds else title
            for title, kinds in zip(titles, catalogue.categories, strict=True)
        ]
    return ["", *titles[1:]]


def item_vectors(
    model: Backbone | TextEncoder,
    catalogue: Catalogue,
    store: ArtifactStore,
    *,
    pool: str = "last_token",
    text: str = "title",
    key: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Semantic vectors of all items, computed once for a model, a pooling and a choice of text.

    Parameters
    ----------
    model : Backbone or TextEncoder
        A causal language model, before any tuning; or an encoder, whose own pooling then holds.
    store : ArtifactStore
        Where vectors are kept (kind ``"text-vectors"``).
    pool : {"last_token", "mean"}
    text : {"title", "title+category"}
    key : mapping, optional
        What identifies the model in artifacts; by default its source and type.

    Returns
    -------
    float32 [n_items + 1, d_l]
        Row 0 is zero.
    """
    encoder = model if isinstance(model, TextEncoder) else StateEncoder(model, pool, key)
    vectors = text_vectors(lambda: encoder, item_texts(catalogue, text)[1:], store, label="item vectors")
    return np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors])
