"""Label reconstruction: what the language model writes about a token, and how near it comes to the label."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recllm_bench.errors import BenchError
from recllm_bench.models.relrec.losses import negative_log_likelihood
from recllm_bench.models.relrec.packing import ITEM_LABEL, USER_LABEL, pack, prompt_tokens
from recllm_bench.models.relrec.prompts import ITEM_PROMPTS, USER_PROMPTS

if TYPE_CHECKING:
    from recllm_bench.data.splits import Split
    from recllm_bench.models.relrec.model import ReLRec
    from recllm_bench.models.relrec.packing import Book, Plan

_PROMPTS = {"user": USER_PROMPTS, "item": ITEM_PROMPTS}
_KINDS = {"user": USER_LABEL, "item": ITEM_LABEL}
_AT_ONCE = 16  # labels whose loss is taken in one pass


def reconstruct(
    model: ReLRec,
    kind: str,
    ids: Sequence[int],
    *,
    most: int = 128,
    batch_size: int = 256,
    prompt: str = "fixed",
    seed: int = 42,
) -> list[str]:
    """Write the labels of users or items from their tokens alone: greedily, all tokens allowed.

    Parameters
    ----------
    model : ReLRec
        In evaluation mode.
    kind : {"user", "item"}
    ids : sequence of int
        User or item ids.
    most : int
        New tokens of a label.
    batch_size : int
        Labels written at once.
    prompt : {"fixed", "random"}
        Behind the first opening, or behind one drawn for each id; the draw of an id depends on no other.
    seed : int
        Of the draw.

    Returns
    -------
    list of str
        May hold ``iid_k``, and may be empty.
    """
    from recllm_bench.language.generation import generate

    if kind == "user" and model.tables.users is None:
        raise BenchError("relrec: user labels need user tokens; set user_token=true")
    vocabulary = model.vocabulary
    openings = [prompt_tokens(vocabulary, text) for text in _PROMPTS[kind]]
    tokens = vocabulary.user(np.asarray(ids)) if kind == "user" else vocabulary.item(np.asarray(ids))
    prompts = []
    for token in map(int, tokens):
        drawn = int(np.random.default_rng([seed, token]).integers(len(openings))) if prompt == "random" else 0
        before, after = openings[drawn]
        prompts.append([*before, token, *after])
    with torch.no_grad():
        embed, score = extended_embedding(model), extended_scores(model)
        answers = generate(
            model.backbone,
            prompts,
            max_new_tokens=most,
            batch_size=batch_size,
            embed=embed,
            score=score,
            stop=[vocabulary.end],
            label=f"{model.display_name}: writing {kind} labels",
        )
    return [vocabulary.decode(answer) for answer in answers]


def extended_embedding(model: ReLRec) -> Callable[[Tensor], Tensor]:
    """Input vectors ``[n, D]`` of extended ids ``[n]``, as a function."""
    vocabulary = model.vocabulary
    first_item = vocabulary.n_words + vocabulary.n_users

    def embed(ids: Tensor) -> Tensor:
        ids = ids.to(model.backbone.device)
        vectors = model.word_vectors(ids.clamp(max=vocabulary.n_words - 1))
        is_item, is_user = ids >= first_item, (ids >= vocabulary.n_words) & (ids < first_item)
        if is_user.any():
            vectors[is_user] = model.user_rows(ids[is_user] - vocabulary.n_words + 1).to(vectors.dtype)
        if is_item.any():
            vectors[is_item] = model.tables.items(ids[is_item] - first_item).to(vectors.dtype)
        return vectors

    return embed


def extended_scores(model: ReLRec) -> Callable[[Tensor], Tensor]:
    """Logits ``[B, V + U + I]`` of states ``[B, D]`` over words, users and items, as a function."""

    def score(states: Tensor) -> Tensor:
        parts = []
        for block in model.blocks(states):
            kind = torch.promote_types(block.table.dtype, torch.float32)
            logits = block.query.to(kind) @ block.table.to(kind).T
            for added in (None if block.shift is None else block.shift[:, None], block.bias):
                if added is not None:
                    logits = logits + added
            parts.append(logits)
        return torch.cat(parts, 1)

    return score


def similarities(
    written: Sequence[str],
    references: Sequence[Sequence[str]],
    encode: Callable[[Sequence[str]], np.ndarray],
    over_versions: str = "mean",
) -> np.ndarray:
    """Cosine of sentence vectors between what was written and the label, float64 [n].

    Parameters
    ----------
    written : sequence of str
        An empty text has similarity 0.
    references : sequence of sequence of str
        Versions of each label, at least one.
    encode : callable
        ``encode(texts) -> float32 [n, width]``.
    over_versions : {"mean", "max"}
        What is taken over the versions.
    """
    counts = np.array([len(versions) for versions in references])
    texts = [text for versions in references for text in versions]
    told = sorted({text for text in (*written, *texts) if text})
    if not told:
        return np.zeros(len(written))
    vectors = np.asarray(encode(told), dtype=np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.concatenate([vectors, np.zeros_like(vectors[:1])])  # the last row is the empty text
    row_of = {text: row for row, text in enumerate(told)}
    left = np.array([row_of.get(text, -1) for text in written], dtype=np.int64)
    right = np.array([row_of[text] for text in texts], dtype=np.int64)
    values = (vectors[np.repeat(left, counts)] * vectors[right]).sum(1)
    first = np.cumsum(counts) - counts
    if over_versions == "max":
        return np.maximum.reduceat(values, first)
    return np.add.reduceat(values, first) / counts


@torch.no_grad()
def own_against_other(model: ReLRec, book: Book, kind: str, *, sample: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Loss of labels behind their own token and behind another's, by teacher forcing: nothing is written.

    Parameters
    ----------
    model : ReLRec
    book : Book
        With labels of the kind.
    kind : {"user", "item"}
    sample : int
        Ids with a label, drawn once for a seed (0: all). Each lends its token to the next one drawn.
    seed : int
        Of ids, versions and openings, which both losses share.

    Returns
    -------
    own, other : float64 [n]
        Mean negative log-likelihood of a label's tokens, end token included; empty for fewer than two labels.
    """
    labels = book.labels.get(_KINDS[kind])
    generator = np.random.default_rng([seed, 0x0507])
    known = np.flatnonzero(labels.count) if labels is not None else np.zeros(0, np.int64)
    ids = generator.permutation(known)[: sample or None]
    if len(ids) < 2:
        return np.zeros(0), np.zeros(0)
    own = book.label_plan(_KINDS[kind], ids, generator)
    starts = own.starts.copy()
    starts[:, 1] = np.roll(starts[:, 1], 1)
    return _label_losses(model, book, own), _label_losses(model, book, replace(own, starts=starts))


def _label_losses(model: ReLRec, book: Book, plan: Plan) -> np.ndarray:
    found = []
    for first in range(0, len(plan), _AT_ONCE):
        some = plan.take(slice(first, first + _AT_ONCE))
        batch = pack(book, some, model.backbone.device, capacity=model.options.pack_length)
        values = negative_log_likelihood(model.blocks(model.states(batch)), batch.targets, model.at_once)
        sizes = some.lengths.sum(1) - some.contexts
        found.append(np.add.reduceat(values.double().cpu().numpy(), np.cumsum(sizes) - sizes) / sizes)
    return np.concatenate(found)


def measure(
    model: ReLRec,
    kind: str,
    references: Sequence[Sequence[str]],
    encode: Callable[[Sequence[str]], np.ndarray],
    *,
    sample: int,
    seed: int,
    most: int,
    over_versions: str,
    prompt: str = "random",
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Reconstruct the labels of all users or items (or of a sample) and compare.

    Returns
    -------
    facts : dict
        ``mean``, ``n``, ``empty`` (nothing was written) and ``other`` (the mean against another id's label: what any
        label would give).
    rows : list of dict
        ``kind, id, text, label, similarity`` of each.
    """
    labelled = np.array([number for number, versions in enumerate(references) if versions], dtype=np.int64)
    if not len(labelled):
        return {"mean": 0.0, "n": 0, "empty": 0, "other": 0.0}, []
    if sample and sample < len(labelled):
        labelled = np.sort(np.random.default_rng([seed, 0x1ABE]).choice(labelled, sample, replace=False))
    written = reconstruct(model, kind, labelled.tolist(), most=most, prompt=prompt, seed=seed)
    own = [references[number] for number in labelled]
    values = similarities(written, own, encode, over_versions)
    others = similarities(written, [*own[1:], own[0]], encode, over_versions)
    facts = {
        "mean": float(values.mean()),
        "n": len(values),
        "empty": sum(not text for text in written),
        "other": float(others.mean()),
    }
    rows = [
        {"kind": kind, "id": int(number), "text": text, "label": versions[0], "similarity": round(float(value), 4)}
        for number, text, versions, value in zip(labelled, written, own, values, strict=True)
    ]
    return facts, rows


def ranking_speed(model: ReLRec, split: Split, batches: int, size: int = 16, warm_up: int = 2) -> dict[str, float]:
    """Batches of users ranked per second, one after the other, over all items (Table 12).

    Parameters
    ----------
    model : ReLRec
        In evaluation mode.
    split : Split
        Its first test cases are ranked, again from the start where they are too few.
    batches : int
        Timed, after ``warm_up`` others.
    size : int
        Users of a batch.

    Returns
    -------
    dict
        ``batches/s (16 users)``: the median over batches.
    """
    from recllm_bench.data.windows import DeviceHistories

    device = model.backbone.device
    histories, cases = DeviceHistories(split.histories, device), split.test
    seconds = []
    with torch.no_grad():
        for number in range(warm_up + batches):
            rows = np.arange(number * size, (number + 1) * size) % len(cases)
            users = torch.as_tensor(cases.users[rows], device=device)
            ends = torch.as_tensor(cases.ends[rows], device=device)
            start = time.perf_counter()
            item_seq, lengths = histories.history_batch(users, ends, model.history_length)
            batch = {model.USER_ID: users, model.ITEM_SEQ: item_seq, model.ITEM_SEQ_LEN: lengths}
            model.full_sort_predict(batch).topk(min(20, split.histories.n_items), dim=1).indices.cpu()
            seconds.append(time.perf_counter() - start)
    return {f"batches/s ({size} users)": float(1 / np.median(seconds[warm_up:]))}
