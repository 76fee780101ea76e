"""User and item tokens beside a frozen vocabulary: their ids, their text form, their rows.

Extended ids: words ``0..V-1``, then users ``1..U`` at ``V..V+U-1``, then items ``1..I`` at ``V+U..V+U+I-1``. The
language model's own matrices are never resized; what is new lives in side tables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recllm_bench.errors import BenchError

_TOKEN = re.compile(r"(?<!\w)([ui]id)_([1-9]\d*)(?!\w)")
_BATCH = 4096  # texts tokenised in one call
_ANCHOR = "\n"  # a text's own first word is marked by some tokenizers; behind this one it is in the middle of a text


class Vocabulary:
    """Extended ids and the text they stand for.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Of the language model; it is not changed.
    n_words : int
        V, rows of the word embedding.
    n_users, n_items : int
        U and I.

    Raises
    ------
    BenchError
        When the tokenizer takes a user or item token apart, or has no end-of-text token.
    """

    def __init__(self, tokenizer: Any, n_words: int, n_users: int, n_items: int) -> None:
        self.tokenizer = tokenizer
        self.n_words, self.n_users, self.n_items = n_words, n_users, n_items
        if tokenizer.eos_token_id is None:
            raise BenchError("the language model's tokenizer has no end-of-text token; labels need one")
        self.end = int(tokenizer.eos_token_id)
        self.start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        self._anchor: list[int] = []
        anchor, marked, plain = (self._words([text])[0] for text in (_ANCHOR, f"{_ANCHOR}a", "a"))
        if marked[: len(anchor)] == anchor and marked[len(anchor) :] != plain:
            self._anchor = anchor
        self._check()

    def __len__(self) -> int:
        return self.n_words + self.n_users + self.n_items

    def user(self, users: Any) -> Any:
        """Extended ids of user ids (a number or an array).

        Raises
        ------
        BenchError
            For an id outside the table.
        """
        return self._shifted(users, self.n_users, self.n_words, "user")

    def item(self, items: Any) -> Any:
        """Extended ids of item ids (a number or an array).

        Raises
        ------
        BenchError
            For an id outside the table.
        """
        return self._shifted(items, self.n_items, self.n_words + self.n_users, "item")

    def encode(self, texts: Sequence[str], inside: bool = False) -> list[list[int]]:
        """Extended ids of texts, without begin and end tokens; every ``uid_k`` and ``iid_k`` is one id.

        Parameters
        ----------
        texts : sequence of str
        inside : bool
            Whether the texts go on where another ended: a tokenizer that marks the beginning of a text (Llama-2's
            writes a space of its own there) then marks none. What follows a token within a text is never marked.

        Raises
        ------
        BenchError
            When a text names a user or item that does not exist.
        """
        pieces: list[str] = []
        within: list[bool] = []
        plans: list[list[int]] = []  # for each text: -1 - place of a piece, or an extended id
        for text in texts:
            plan, last = [], 0
            for match in _TOKEN.finditer(text):
                if match.start() > last:
                    plan.append(-1 - len(pieces))
                    # The mark of a word is its token's own business: the space before it would be a piece by itself.
                    pieces.append(text[last : match.start()].rstrip(" " if self._anchor else ""))
                    within.append(inside or last > 0)
                number = int(match[2])
                plan.append(int(self.user(number) if match[1] == "uid" else self.item(number)))
                last = match.end()
            if last < len(text):
                plan.append(-1 - len(pieces))
                pieces.append(text[last:])
                within.append(inside or last > 0)
            plans.append(plan)
        words = self._words(pieces)
        if self._anchor:
            places = [place for place, is_within in enumerate(within) if is_within]
            anchored = self._words([_ANCHOR + pieces[place] for place in places])
            for place, row in zip(places, anchored, strict=True):
                if row[: len(self._anchor)] == self._anchor:
                    words[place] = row[len(self._anchor) :]
        return [[part for step in plan for part in (words[-1 - step] if step < 0 else [step])] for plan in plans]

    def _words(self, texts: Sequence[str]) -> list[list[int]]:
        rows: list[list[int]] = []
        for start in range(0, len(texts), _BATCH):
            batch = self.tokenizer(texts[start : start + _BATCH], add_special_tokens=False, verbose=False)
            rows += batch["input_ids"]
        return rows

    def decode(self, ids: Sequence[int]) -> str:
        """Text of extended ids; special tokens of the language model are left out."""
        text = ""
        words: list[int] = []

        def spaced(left: str, right: str) -> str:
            glued = not left or not right or left[-1].isspace() or not (right[0].isalnum() or right[0] == "_")
            return left + right if glued else f"{left} {right}"

        def flush() -> None:
            nonlocal text
            if words:
                text = spaced(text, self.tokenizer.decode(words, skip_special_tokens=True))
                words.clear()

        for value in map(int, ids):
            if value < self.n_words:
                words.append(value)
                continue
            flush()
            text = spaced(text, self.name(value))
        flush()
        return text.strip()

    def name(self, extended: int) -> str:
        """``uid_k`` or ``iid_k`` of an extended id past the words."""
        place = extended - self.n_words
        return f"uid_{place + 1}" if place < self.n_users else f"iid_{place - self.n_users + 1}"

    def _shifted(self, ids: Any, count: int, first: int, kind: str) -> Any:
        values = np.asarray(ids)
        if values.size and (values.min() < 1 or values.max() > count):
            wrong = int(values.min() if values.min() < 1 else values.max())
            raise BenchError(f"{kind} id {wrong} is out of range: this dataset has {kind}s 1 to {count}")
        return ids + (first - 1)

    def _check(self) -> None:
        for extended in {self.n_words, self.n_words + self.n_users, len(self) - 1}:
            name = self.name(extended)
            found = self.encode([f"about {name}, in short"])[0]
            if found.count(extended) != 1 or name not in self.decode(found):
                raise BenchError(f"this tokenizer takes the token '{name}' apart; use another language model")


class Projection(nn.Module):
    """Maps rows of width p into the language model's input space.

    ``none``: rows have the full width; ``1layer``: linear; ``2layer``: linear, GELU, linear.

    Parameters
    ----------
    kind : {"none", "1layer", "2layer"}
    p : int
        Width of a row.
    width : int
        D, width of the language model.
    """

    def __init__(self, kind: str, p: int, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.inner = nn.Linear(p, p) if kind == "2layer" else None
        self.outer = None if kind == "none" else nn.Linear(p, width)
        for layer in (self.inner, self.outer):
            if layer is not None:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def hidden(self, rows: Tensor) -> Tensor:
        """What the last linear layer reads, ``[..., p]``."""
        return rows if self.inner is None else nn.functional.gelu(self.inner(rows))

    def forward(self, rows: Tensor) -> Tensor:
        """Projected rows ``[..., D]``."""
        return rows if self.outer is None else self.outer(self.hidden(rows))

    def query(self, states: Tensor) -> tuple[Tensor, Tensor | None]:
        """``(q [N, p], c [N])`` with ``states . forward(a) = q . hidden(a) + c``: no row of width D is made."""
        if self.outer is None:
            return states, None
        states = states.to(self.outer.weight.dtype)
        return states @ self.outer.weight, states @ self.outer.bias

    @torch.no_grad()
    def start_at(self, centre: Tensor, row: Tensor, noise: float) -> None:
        """Set the last layer so that ``forward(row)`` is ``centre`` but for noise of ``noise / sqrt(p)``."""
        if self.outer is None:
            return
        hidden = self.hidden(row)
        self.outer.weight.copy_(torch.outer(centre, hidden / hidden.square().sum()))
        self.outer.weight.add_(torch.randn_like(self.outer.weight) * (noise / len(row) ** 0.5))


class SideTable(nn.Module):
    """Trainable rows of users or of items.

    Parameters
    ----------
    count : int
        Rows; row ``k`` belongs to id ``k + 1``.
    p : int
        Width of a row (ignored by ``projection.kind == "none"``).
    width : int
        D.
    projection : Projection
        May be shared with another table.
    sparse : bool
        Whether look-ups give row-sparse gradients; only for tables that stand in no softmax.
    """

    def __init__(self, count: int, p: int, width: int, projection: Projection, sparse: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, width if projection.kind == "none" else p))
        self.projection = projection
        self.sparse = sparse
        self.is_narrow = projection.kind != "none" and p <= width
        """Whether scores are made in the width of the table's own rows."""

    def forward(self, places: Tensor) -> Tensor:
        """Rows ``[n, D]`` that enter the language model."""
        return self.projection(nn.functional.embedding(places, self.weight, sparse=self.sparse))

    def scoring(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """``(q [N, d], table [count, d], c [N] or None)``: logits of all rows are ``q @ table.T + c``.

        ``d`` is the smaller of p and D. Where p is smaller, states are brought down to it, and no row of width D is
        made; else rows are projected, which costs less than scoring in p numbers.
        """
        if not self.is_narrow:
            return states, self.projection(self.weight), None
        query, shift = self.projection.query(states)
        return query, self.projection.hidden(self.weight), shift

    @torch.no_grad()
    def start(self, init: str, centre: Tensor, noise: float, row: Tensor | None = None) -> None:
        """Initialise: ``avg`` puts every projected row at ``centre`` [D] but for noise; ``random`` is normal, 0.02.

        ``row`` is the unit vector all rows lie around; the projection must have been started at it.
        """
        if init == "random":
            nn.init.normal_(self.weight, std=0.02)
            return
        self.weight.copy_(centre if self.projection.kind == "none" or row is None else row)
        self.weight.add_(torch.randn_like(self.weight) * noise)


class SideTables(nn.Module):
    """All that ReLRec trains: A_u, A_i and their projections, and an output table where the item head is separate.

    Parameters
    ----------
    n_users, n_items : int
        U (0: no user token) and I.
    width : int
        D.
    options : ReLRecOptions
        ``p, proj, share_projection, item_head, seq_softmax, recon, init, init_noise``.
    centre : Tensor [D]
        The mean word vector.
    """

    def __init__(self, n_users: int, n_items: int, width: int, options: Any, centre: Tensor) -> None:
        super().__init__()
        # A table in no softmax gets gradients for the rows that were looked up, and for no other.
        sparse_users = options.seq_softmax == "items_only" and not options.recon
        sparse_items = options.item_head == "separate"
        projection = Projection(options.proj, options.p, width)
        self.items = SideTable(n_items, options.p, width, projection, sparse_items)
        self.users: SideTable | None = None
        if n_users:
            own = projection if options.share_projection else Projection(options.proj, options.p, width)
            self.users = SideTable(n_users, options.p, width, own, sparse_users)
        self.output: SideTable | None = None
        if options.item_head == "separate":
            self.output = SideTable(n_items, options.p, width, Projection(options.proj, options.p, width))
        centre = centre.to(self.items.weight)
        rows: dict[Projection, Tensor] = {}
        for table in (self.items, self.users, self.output):
            if table is None:
                continue
            if table.projection not in rows:
                row = nn.functional.normalize(torch.randn(options.p), dim=0)
                if options.init == "avg":
                    table.projection.start_at(centre, row, options.init_noise)
                rows[table.projection] = row
            table.start(options.init, centre, options.init_noise, rows[table.projection])

    @property
    def head(self) -> SideTable:
        """The table whose rows score items."""
        return self.items if self.output is None else self.output
