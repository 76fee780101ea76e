"""The best allowed step of many walks through a trie at once."""

from __future__ import annotations

import torch

from recllm_bench.errors import BenchError
from recllm_bench.language.titles.paths import PathTrie


class Chooser:
    """Takes, at each node, the edge of the highest score among those that lead to a path that may still be taken.

    A path may be taken when it is free and not barred for the row, or when it is the row's own. Below a node the free
    paths are counted and the barred ones among them are subtracted, so a walk that has begun can always be ended.

    Parameters
    ----------
    trie : PathTrie
        Where all walk.
    free_before : int64 [n_paths + 1]
        How many free paths come before each.
    """

    def __init__(self, trie: PathTrie, free_before: torch.Tensor) -> None:
        self.trie = trie
        self.free_before = free_before

    def keys(self, barred: torch.Tensor) -> torch.Tensor:
        """Barred paths of all rows in one ascending list.

        Parameters
        ----------
        barred : int64 [B, K]
            Free paths, none twice in a row; ``n_paths`` where there is none.
        """
        rows = torch.arange(len(barred), device=barred.device)[:, None]
        return (barred.sort(1).values + rows * (self.trie.n_paths + 1)).reshape(-1)

    def choose(
        self, scores: torch.Tensor, node: torch.Tensor, own: torch.Tensor, row: torch.Tensor, keys: torch.Tensor
    ) -> torch.Tensor:
        """The edge taken by each of D walks; of equal scores, that of the smaller token.

        Parameters
        ----------
        scores : float [D, V]
            Scores of tokens.
        node : int64 [D]
            Where each walk stands; not at an end.
        own : int64 [D]
            A path that this walk may take even if it is barred or not free; -1 for none.
        row : int64 [D]
            Whose bars count.
        keys : int64 [B * K]
            Of :meth:`keys`.

        Returns
        -------
        int64 [D]

        Raises
        ------
        BenchError
            When a score is not a number, or nothing is allowed at a node.
        """
        trie = self.trie
        start, count = trie.edge_start[node], trie.edge_start[node + 1] - trie.edge_start[node]
        walk = torch.repeat_interleave(count)  # of each option
        edge = torch.arange(len(walk), device=node.device) + (start - count.cumsum(0) + count)[walk]
        child = trie.edge_child[edge]
        low, high = trie.first[child], trie.last[child]
        base = (row * (trie.n_paths + 1))[walk]
        barred = torch.searchsorted(keys, base + high) - torch.searchsorted(keys, base + low)
        mine = own[walk]
        allowed = (self.free_before[high] - self.free_before[low] > barred) | ((low <= mine) & (mine < high))
        values = scores[walk, trie.edge_token[edge]].float()
        # What is allowed stays above what is not, even where its score is minus infinity.
        lowest = torch.finfo(torch.float32).min
        values = values.clamp(min=lowest).masked_fill(~allowed, -torch.inf)
        best = torch.full((len(node),), -torch.inf, device=node.device).scatter_reduce(0, walk, values, "amax")
        none = len(trie.edge_token)
        edge = torch.where((values == best[walk]) & allowed, edge, none)
        chosen = torch.full((len(node),), none, device=node.device).scatter_reduce(0, walk, edge, "amin")
        if len(chosen) and int(chosen.max()) == none:
            place = int((chosen == none).nonzero()[0, 0])
            if torch.isnan(best[place]):
                raise BenchError("the language model gave scores that are not numbers; try llm_precision=float32")
            dump = f"row {int(row[place])}, node {int(node[place])}, own path {int(own[place])}"
            raise BenchError(f"no title is left to write at {dump}; this is a fault of the walk, not of the input")
        return chosen
