"""What one pass of the language model reads: settled tokens and drafts, and the decisions that its states take."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from recllm_bench.language.titles.walking import Rows, Walk


@dataclass(frozen=True)
class Block:
    """Tokens for one pass over B rows, and the D decisions that follow from its states.

    Attributes
    ----------
    tokens : int64 [B, T]
        Padded on the right.
    lengths : int64 [B]
    settled : int64 [B]
        How many tokens of each row are no draft.
    row, place : int64 [D]
        Which state decides: that after reading token ``place`` of a row.
    node, line : int64 [D]
        Where the walk stands then.
    expected : int64 [D]
        The token that a draft takes there; -1 at the end of the block.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    settled: torch.Tensor
    row: torch.Tensor
    place: torch.Tensor
    node: torch.Tensor
    line: torch.Tensor
    expected: torch.Tensor

    @property
    def inside(self) -> torch.Tensor:
        """Which places hold tokens, bool [B, T]."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device) < self.lengths[:, None]


def make_block(walk: Walk, rows: Rows, active: torch.Tensor, drafted: torch.Tensor, pool: torch.Tensor) -> Block:
    """The next block.

    Parameters
    ----------
    rows : Rows
        B of them.
    active : bool [B]
        Rows that read something.
    drafted : int64 [B]
        How many lines follow as a draft, each the item that was there; 0 unless a title is about to begin.
    pool : int64 [P]
        Tokens of all pieces.
    """
    settled = torch.where(active[:, None], rows.count, 0)
    drafted = torch.where(active, drafted, 0)
    start, count, lines, is_draft = _pieces(walk, rows, settled, drafted)
    offset = count.cumsum(1) - count
    lengths = count.sum(1)
    tokens = torch.zeros(len(lengths), int(lengths.max()), dtype=torch.long, device=pool.device)
    piece, index = _ragged(start.reshape(-1), count.reshape(-1))
    tokens[torch.arange(tokens.shape[1], device=pool.device) < lengths[:, None]] = pool[index]

    # Decisions inside drafts: where a path can be left.
    row, which = is_draft.nonzero(as_tuple=True)
    piece, index = _ragged(start[row, 3 + 2 * which], count[row, 3 + 2 * which])
    node = walk.trie.path_node[index]
    open_ = ((walk.degree[node] > 1) | (node == 0)).nonzero()[:, 0]
    piece, index, node = piece[open_], index[open_], node[open_]
    row, which = row[piece], which[piece]
    place = offset[row, 3 + 2 * which] + walk.trie.depth[node] - 1
    # The decision after it all: none when the draft has gone to the end of the list.
    last = active & (drafted < rows.size - rows.line) if walk.sequence else active
    final = last.nonzero()[:, 0]
    return Block(
        tokens=tokens,
        lengths=lengths,
        settled=settled.sum(1),
        row=torch.cat([row, final]),
        place=torch.cat([place, lengths[final] - 1]),
        node=torch.cat([node, rows.node[final]]),
        line=torch.cat([lines[row, which], (rows.line + drafted)[final]]),
        expected=torch.cat([walk.trie.path_token[index], torch.full_like(final, -1)]),
    )


def _pieces(
    walk: Walk, rows: Rows, settled: torch.Tensor, drafted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Starts and lengths of pieces [B, 3 + 2W], the lines [B, W] that are drafted, and which of these there are."""
    most = int(drafted.max())
    ahead = torch.arange(most, device=drafted.device)
    is_draft = ahead < drafted[:, None]
    lines = (rows.line[:, None] + ahead).clamp(max=rows.own.shape[1] - 1)
    path = rows.own.gather(1, lines.clamp(min=0))
    following = (lines + 1).clamp(max=len(walk.head_start) - 1)
    has_next = is_draft & (lines + 1 < rows.size[:, None])
    start = torch.stack([walk.trie.path_start[path], walk.head_start[following]], 2)
    count = torch.stack(
        [torch.where(is_draft, walk.path_length[path], 0), torch.where(has_next, walk.head_length[following], 0)], 2
    )
    start = torch.cat([rows.start, start.flatten(1)], 1)
    return start, torch.cat([settled, count.flatten(1)], 1), lines, is_draft


def _ragged(start: torch.Tensor, count: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which piece each token is of, and its place in the pool, for pieces put one after the other."""
    piece = torch.repeat_interleave(count)
    return piece, torch.arange(len(piece), device=count.device) + (start - count.cumsum(0) + count)[piece]
