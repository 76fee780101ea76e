"""One step's sequences, user labels and item labels as the rows of a single pass.

Sequences share rows; each attends to itself alone (a block-diagonal causal mask) and counts its positions from zero,
so that the pass gives every token the state it would have in a row of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from recllm_bench.data.histories import Histories
from recllm_bench.data.windows import Windows
from recllm_bench.errors import BenchError
from recllm_bench.language.block_attention import Documents
from recllm_bench.language.packing import best_fit
from recllm_bench.models.relrec.prompts import SLOT
from recllm_bench.models.relrec.tokens import Vocabulary

SEQUENCE, USER_LABEL, ITEM_LABEL = 0, 1, 2
"""Kinds of sequences in a step."""
_ROWS = (256, 208, 176, 144, 128)
"""Widths tried for a packed row: wide ones have few gaps, narrow ones cost less attention."""


@dataclass(frozen=True)
class Plan:
    """Sequences of one step: each is four pieces of a book of tokens, end to end.

    Attributes
    ----------
    starts, lengths : int64 [S, 4]
        The pieces: opening, token, words after it, body.
    contexts : int64 [S]
        Leading tokens that are no targets.
    kinds : int64 [S]
        ``SEQUENCE``, ``USER_LABEL`` or ``ITEM_LABEL``.
    """

    starts: np.ndarray
    lengths: np.ndarray
    contexts: np.ndarray
    kinds: np.ndarray

    def __len__(self) -> int:
        return len(self.kinds)

    def only(self, kind: int) -> Plan:
        """The sequences of one kind."""
        return self.take(self.kinds == kind)

    def take(self, rows: slice | np.ndarray) -> Plan:
        """Some sequences."""
        return Plan(self.starts[rows], self.lengths[rows], self.contexts[rows], self.kinds[rows])


@dataclass(frozen=True)
class PackedBatch:
    """A step on the device.

    Attributes
    ----------
    words : int64 [R, C]
        Word ids; 0 at user tokens, item tokens and padding.
    positions : int64 [R, C]
        Places within the sequence.
    segments : int32 [R, C]
        Number of the sequence, from 1; 0 is padding.
    user_places, user_rows, item_places, item_rows : int64
        Where (in the flattened rows) which row of a side table goes.
    scored : int64 [N]
        Flattened places whose next token is a target.
    targets : int64 [N]
        Extended ids.
    kinds : int64 [N]
        Kind of the sequence of each target.
    weights : float32 [N]
        1 / (sequences of the kind x targets of the sequence): a weighted sum is the mean over sequences of the mean
        over targets.
    counts : tuple of int
        Targets of each kind; those of sequences come first.
    n_tokens : int
        Tokens that are no padding.
    """

    words: Tensor
    positions: Tensor
    segments: Tensor
    user_places: Tensor
    user_rows: Tensor
    item_places: Tensor
    item_rows: Tensor
    scored: Tensor
    targets: Tensor
    kinds: Tensor
    weights: Tensor
    counts: tuple[int, ...]
    n_tokens: int

    def documents(self) -> Documents:
        """Which positions each position sees."""
        return Documents(self.segments)

    def of(self, kind: int) -> PackedBatch:
        """The same rows with the targets of one kind."""
        chosen = self.kinds == kind
        fields = {name: getattr(self, name)[chosen] for name in ("scored", "targets", "kinds", "weights")}
        counts = tuple(count if number == kind else 0 for number, count in enumerate(self.counts))
        return replace(self, **fields, counts=counts)


class LabelTokens:
    """Labels as extended ids, cut to their longest length.

    Parameters
    ----------
    versions : sequence of sequence of str
        By id, entry 0 is padding; an id without a label has no version.
    limit : int
        Most tokens of a label with its end token, which a longer one keeps when it is cut.

    Attributes
    ----------
    flat : int64 [total]
        All labels, one after the other.
    starts, lengths : int64 [n_labels]
    first, count : int64 [n_ids]
        Labels ``first[id] : first[id] + count[id]`` are the versions of an id.
    cut : int
        Labels that were too long.
    """

    def __init__(self, versions: Sequence[Sequence[str]], vocabulary: Vocabulary, limit: int) -> None:
        self.count = np.array([len(texts) for texts in versions], dtype=np.int64)
        self.first = np.cumsum(self.count) - self.count
        # The space lets byte-level tokenizers see a label as they see it inside a sentence.
        rows = vocabulary.encode([f" {text.strip()}" for texts in versions for text in texts], inside=True)
        self.lengths = np.array([len(row) + 1 for row in rows], dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.flat = np.array([token for row in rows for token in (*row, vocabulary.end)], dtype=np.int64)
        self._end, self.cut = vocabulary.end, 0
        self.cut_to(limit)

    def cut_to(self, limit: int) -> None:
        """Shorten labels to ``limit`` tokens, the last of which is the end token."""
        long = self.lengths > limit
        self.cut += int(long.sum())
        self.lengths = np.minimum(self.lengths, limit)
        self.flat[(self.starts + self.lengths)[long] - 1] = self._end

    def draw(self, ids: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One version of each id, uniformly; ids without a label are left out.

        Returns
        -------
        ids, labels : int64 [m]
        """
        ids = ids[self.count[ids] > 0]
        return ids, self.first[ids] + generator.integers(0, self.count[ids])


class Book:
    """Every token a step can need in one flat array, so that a step is a few gathers.

    Parameters
    ----------
    template : str
        Words around a sequence, with ``{user}`` and ``{items}``.
    user_prompts, item_prompts : sequence of str
        Each with one ``{token}``.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        histories: Histories,
        *,
        template: str = "{user}{items}",
        user_token: bool = True,
        user_labels: LabelTokens | None = None,
        item_labels: LabelTokens | None = None,
        user_prompts: Sequence[str] = (),
        item_prompts: Sequence[str] = (),
    ) -> None:
        self.vocabulary, self.user_token = vocabulary, user_token
        given = {USER_LABEL: user_labels, ITEM_LABEL: item_labels}
        self.labels = {kind: labels for kind, labels in given.items() if labels is not None}
        self._parts: list[np.ndarray] = []
        self._size = 0
        tokens = np.arange(len(vocabulary) - vocabulary.n_words, dtype=np.int64) + vocabulary.n_words
        self._specials = self._add(tokens) - vocabulary.n_words
        self._history = self._add(np.asarray(histories.items, np.int64) + vocabulary.item(1) - 1)
        before, after = template.removesuffix("{items}").split("{user}")
        self.opening = vocabulary.start + vocabulary.encode([before])[0]
        self.joint = vocabulary.encode([after], inside=True)[0]
        self._opening, self._joint = self._add(self.opening), self._add(self.joint)
        self._prompts = {
            USER_LABEL: self._add_prompts(user_prompts),
            ITEM_LABEL: self._add_prompts(item_prompts),
        }
        self._labels = {kind: self._add(labels.flat) for kind, labels in self.labels.items()}
        self.flat = np.concatenate(self._parts)
        del self._parts

    @property
    def overhead(self) -> int:
        """Tokens before the first item of a sequence."""
        return len(self.opening) + len(self.joint) + int(self.user_token)

    def longest_label(self) -> int:
        """Tokens of the longest prompt with the longest label."""
        found = 0
        for kind, labels in self.labels.items():
            if len(labels.lengths):
                prompts = self._prompts[kind]
                found = max(found, int((prompts[:, 1] + prompts[:, 3]).max()) + 1 + int(labels.lengths.max()))
        return found

    def sequences(self, windows: Windows, rows: np.ndarray) -> Plan:
        """Next-item prediction over some windows."""
        starts = np.zeros((len(rows), 4), np.int64)
        lengths = np.zeros((len(rows), 4), np.int64)
        starts[:, 0], lengths[:, 0] = self._opening, len(self.opening)
        starts[:, 2], lengths[:, 2] = self._joint, len(self.joint)
        if self.user_token:
            starts[:, 1], lengths[:, 1] = self._specials + self.vocabulary.user(windows.users[rows]), 1
        starts[:, 3] = self._history + windows.starts[rows]
        lengths[:, 3] = windows.ends[rows] - windows.starts[rows]
        contexts = lengths[:, :3].sum(1) + windows.loss_from[rows] - windows.starts[rows]
        return Plan(starts, lengths, contexts, np.full(len(rows), SEQUENCE))

    def label_plan(self, kind: int, ids: np.ndarray, generator: np.random.Generator) -> Plan:
        """A label of each id, one version and one prompt drawn for each; ids without a label are left out."""
        labels, prompts = self.labels[kind], self._prompts[kind]
        ids, chosen = labels.draw(np.asarray(ids, np.int64), generator)
        prompt = prompts[generator.integers(0, len(prompts), len(ids))]
        special = self.vocabulary.user(ids) if kind == USER_LABEL else self.vocabulary.item(ids)
        starts = np.stack([prompt[:, 0], self._specials + special, prompt[:, 2], labels.starts[chosen]], 1)
        starts[:, 3] += self._labels[kind]
        lengths = np.stack([prompt[:, 1], np.ones_like(ids), prompt[:, 3], labels.lengths[chosen]], 1)
        return Plan(starts, lengths, lengths[:, :3].sum(1), np.full(len(ids), kind))

    def _add(self, values: Sequence[int] | np.ndarray) -> int:
        start = self._size
        self._parts.append(np.asarray(values, dtype=np.int64))
        self._size += len(values)
        return start

    def _add_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        """Rows ``(start, length, start, length)`` of what stands before and after the token."""
        rows = []
        for prompt in prompts:
            if prompt.count(SLOT) != 1:
                raise BenchError(f"the prompt {prompt!r} must hold {SLOT} once")
            before, after = prompt_tokens(self.vocabulary, prompt)
            rows.append((self._add(before), len(before), self._add(after), len(after)))
        return np.array(rows, dtype=np.int64).reshape(-1, 4)


def prompt_tokens(vocabulary: Vocabulary, prompt: str) -> tuple[list[int], list[int]]:
    """What stands before the token of an opening, begin token included, and what follows it."""
    token = "uid_1" if vocabulary.n_users else "iid_1"
    whole = vocabulary.encode([prompt.replace(SLOT, token)])[0]
    place = whole.index(vocabulary.encode([token])[0][0])
    return vocabulary.start + whole[:place], whole[place + 1 :]


def join(plans: Sequence[Plan]) -> Plan:
    """Several plans as one."""
    return Plan(*(np.concatenate([getattr(plan, name) for plan in plans]) for name in Plan.__dataclass_fields__))


def pack(
    book: Book, plan: Plan, device: torch.device | str = "cpu", *, capacity: int = 0, alone: bool = False
) -> PackedBatch:
    """Lay the sequences of a step into rows.

    Parameters
    ----------
    plan : Plan
        At least one sequence.
    capacity : int
        Tokens of a row (0: what leaves the fewest gaps); a longer sequence widens all rows.
    alone : bool
        A row for each sequence, for comparison.
    """
    vocabulary = book.vocabulary
    full = plan.lengths.sum(1)
    inputs = full - 1  # the last token is only a target
    if alone:
        row_of, column_of = np.arange(len(plan)), np.zeros(len(plan), np.int64)
    else:
        row_of, column_of = _tightest(inputs, [capacity] if capacity else _ROWS)
    n_rows = int(row_of.max()) + 1
    width = int((column_of + inputs).max())
    stream = book.flat[_ragged(plan.starts.ravel(), plan.lengths.ravel())]
    owners = np.repeat(np.arange(len(plan)), full)
    inside = np.arange(len(stream)) - np.repeat(np.cumsum(full) - full, full)
    places = (row_of * width + column_of)[owners] + inside
    read = inside < inputs[owners]
    size = n_rows * width
    words, positions, segments = (np.zeros(size, np.int64) for _ in range(3))
    words[places[read]] = np.where(stream[read] < vocabulary.n_words, stream[read], 0)
    positions[places[read]] = inside[read]
    segments[places[read]] = owners[read] + 1
    first_item = vocabulary.n_words + vocabulary.n_users
    is_user = read & (stream >= vocabulary.n_words) & (stream < first_item)
    is_item = read & (stream >= first_item)
    scored = np.flatnonzero(inside >= plan.contexts[owners])
    scored = scored[np.argsort(plan.kinds[owners[scored]], kind="stable")]
    kinds = plan.kinds[owners[scored]]
    counts = full - plan.contexts
    in_kind = np.bincount(plan.kinds, minlength=3)[plan.kinds]
    arrays = {
        "user_places": places[is_user],
        "user_rows": stream[is_user] - vocabulary.n_words,
        "item_places": places[is_item],
        "item_rows": stream[is_item] - first_item,
        "scored": places[scored] - 1,
        "targets": stream[scored],
        "kinds": kinds,
    }
    rows = {"words": words, "positions": positions, "segments": segments}
    return PackedBatch(
        **{name: torch.from_numpy(values.reshape(n_rows, width)).to(device) for name, values in rows.items()},
        **{name: torch.from_numpy(values).to(device) for name, values in arrays.items()},
        weights=torch.from_numpy((1 / (counts * in_kind))[owners[scored]].astype(np.float32)).to(device),
        counts=tuple(np.bincount(kinds, minlength=3).tolist()),
        n_tokens=int(inputs.sum()),
    )


def _ragged(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """``start, start + 1, ...`` of all pieces, end to end."""
    first = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(starts - first, lengths)


def _tightest(lengths: np.ndarray, widths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The placing with the fewest places, over several widths of a row."""
    placed = [best_fit(lengths, width) for width in sorted({max(width, int(lengths.max())) for width in widths})]
    return min(placed, key=lambda place: (int(place[0].max()) + 1) * int((place[1] + lengths).max()))
