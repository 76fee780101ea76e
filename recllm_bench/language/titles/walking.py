"""What all batches of lists share, and the state of one batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from recllm_bench.language.titles.choosing import Chooser
from recllm_bench.language.titles.lists import ListLayout
from recllm_bench.language.titles.paths import join
from recllm_bench.language.titles.trie import TitleTrie

_HOPE = 10.0


class Walk:
    """Tries, the items of titles and the heads of lines, on the device.

    Nodes and paths of titles come first, then those of the positions of edits.

    Parameters
    ----------
    layout : ListLayout
        Of the catalogue.
    lines : int
        Lines of the longest list.
    mode : str
        ``sequence`` or ``edits``.
    popularity : array [n_items + 1], optional
        Decides which item a title means.

    Attributes
    ----------
    hope : float
        Lines that one may expect to stay between two that change; learnt from one batch for the next.
    """

    def __init__(
        self, layout: ListLayout, lines: int, mode: str, device: torch.device, popularity: np.ndarray | None
    ) -> None:
        titles = layout.trie.to("cpu")
        positions, choices = layout.positions(lines)
        trie = join(titles.paths, positions)
        self.trie = trie.to(device)
        self.device, self.sequence, self.reserve = device, mode == "sequence", layout.reserve
        self.positions_root = titles.paths.n_nodes
        self.n_titles, self.nothing = titles.paths.n_paths, trie.n_paths  # nothing: no path
        self.n_free = int(titles.free_before[-1])
        free_before = torch.cat([titles.free_before, torch.arange(1, positions.n_paths + 1) + self.n_free])
        self.chooser = Chooser(self.trie, free_before.to(device))
        self.position_path = (choices + self.n_titles).to(device)  # [lines + 1]; 0: the end of text
        line_of = torch.zeros(positions.n_paths, dtype=torch.long)
        line_of[choices] = torch.arange(-1, lines)
        self.line_of_position = line_of.to(device)  # -1: the end of text
        self.degree = self.trie.edge_start.diff()
        self.path_length = self.trie.path_start.diff()
        self.path_of_item, self.free = titles.path_of_item.to(device), titles.free.to(device)
        self.meant, self.ambiguous = (values.to(device) for values in _meant(titles, popularity))
        self.hope = _HOPE
        starts, lengths = layout.spans
        heads = slice(layout.first_head, layout.first_head + lines)
        head_tokens = torch.from_numpy(layout.pool[: starts[layout.first_edit_head]])
        self.pool = torch.cat([trie.path_token, head_tokens]).to(device)
        self.head_start = torch.from_numpy(starts[heads] + len(trie.path_token)).to(device)
        self.head_length = torch.from_numpy(lengths[heads]).to(device)

    def barred(self, before: torch.Tensor, forbid: Sequence[Iterable[int]], more: int) -> torch.Tensor:
        """Titles that may not be written anew: those of the list and the forbidden ones.

        Parameters
        ----------
        before : int64 [B, L]
            Items; 0 for none.
        forbid : sequence of iterable of int
            For each row.
        more : int
            Columns to leave empty at the end.

        Returns
        -------
        int64 [B, K + more]
            Free paths, none twice in a row; ``nothing`` where there is none.
        """
        flat = [(row, item) for row, items in enumerate(forbid) for item in items]
        pairs = torch.tensor(flat, dtype=torch.long, device=self.device).reshape(-1, 2)
        row, column = before.nonzero(as_tuple=True)
        paths = self.path_of_item[torch.cat([before[row, column], pairs[:, 1]])]
        keys = (torch.cat([row, pairs[:, 0]]) * (self.nothing + 1) + paths)[self.free[paths]].unique()
        row, paths = keys // (self.nothing + 1), keys % (self.nothing + 1)
        count = torch.bincount(row, minlength=len(before))
        width = int(count.max()) if len(row) else 0
        table = torch.full((len(before), width + more), self.nothing, device=self.device)
        table[row, torch.arange(len(row), device=self.device) - (count.cumsum(0) - count)[row]] = paths
        return table


def _meant(trie: TitleTrie, popularity: np.ndarray | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The item that each path means when it is written anew (0: none), and whether there were several."""
    items, starts = trie.item.numpy(), trie.item_start.numpy()
    count = np.diff(starts)
    paths = np.repeat(np.arange(len(count)), count)
    weight = np.zeros(len(items)) if popularity is None else np.asarray(popularity, np.float64)[items]
    order = np.lexsort((items, -weight, paths))
    meant = np.zeros(len(count), np.int64)
    meant[count > 0] = items[order][starts[:-1][count > 0]]
    return torch.from_numpy(meant), torch.from_numpy(count > 1)


@dataclass
class Rows:
    """The lists of a batch that are still being written; B of them, with L places.

    Attributes
    ----------
    number : int64 [B]
        Which list of the batch each is.
    before : int64 [B, L]
        Items as they were.
    own : int64 [B, L]
        Their paths.
    size : int64 [B]
        How many there are.
    barred : int64 [B, K]
        Paths that may not be written anew (see :meth:`Walk.barred`).
    n_barred : int64 [B]
        How many there are.
    line : int64 [B]
        The line being written; between two edits the last one that was (-1: none).
    node : int64 [B]
        Where the walk stands.
    length : int64 [B]
        Tokens in the context.
    start, count : int64 [B, 3]
        Pieces of the pool that are settled but not read yet: of the prompt, of a path, of a line's head.
    """

    number: torch.Tensor
    before: torch.Tensor
    own: torch.Tensor
    size: torch.Tensor
    barred: torch.Tensor
    n_barred: torch.Tensor
    line: torch.Tensor
    node: torch.Tensor
    length: torch.Tensor
    start: torch.Tensor
    count: torch.Tensor

    @classmethod
    def begin(
        cls, walk: Walk, before: Sequence[Sequence[int]], forbid: Sequence[Iterable[int]], most_edits: int
    ) -> Rows:
        """All lists of a batch before the first token."""
        device, count = walk.device, len(before)
        size = torch.tensor([len(row) for row in before], device=device)
        items = torch.zeros(count, max(1, int(size.max())), dtype=torch.long, device=device)
        flat = torch.tensor([item for row in before for item in row], dtype=torch.long, device=device)
        items[torch.arange(items.shape[1], device=device) < size[:, None]] = flat
        barred = walk.barred(items, forbid, min(most_edits, items.shape[1]))
        zero = torch.zeros(count, dtype=torch.long, device=device)
        start, length = zero.new_zeros(count, 3), zero.new_zeros(count, 3)
        if walk.sequence:
            start[:, 2], length[:, 2] = walk.head_start[0], walk.head_length[0]
        return cls(
            number=torch.arange(count, device=device),
            before=items,
            own=walk.path_of_item[items],
            size=size,
            barred=barred,
            n_barred=(barred < walk.nothing).sum(1),
            line=zero.clone() if walk.sequence else zero - 1,
            node=zero.clone() if walk.sequence else zero + walk.positions_root,
            length=zero.clone(),
            start=start,
            count=length,
        )

    def take(self, kept: torch.Tensor) -> Rows:
        """Some of the rows."""
        return Rows(**{field.name: getattr(self, field.name)[kept] for field in fields(self)})
