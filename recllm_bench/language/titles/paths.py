"""A trie of token paths as flat arrays, so that many walks through it advance by tensor operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch

from recllm_bench.errors import BenchError


@dataclass(frozen=True)
class PathTrie:
    """A trie of token paths of which none is the beginning of another.

    Paths are sorted by their tokens and numbered in that order; nodes are numbered in depth-first order, 0 being the
    root. So the paths below a node are a range, and a run of nodes without a choice is a range of nodes.

    Attributes
    ----------
    edge_start : int64 [n_nodes + 1]
        Edges of node ``v`` are ``edge_start[v]:edge_start[v + 1]``, in the order of their tokens.
    edge_token, edge_child : int64 [n_edges]
        What an edge reads and where it leads.
    first, last : int64 [n_nodes]
        Paths below a node: ``first[v]`` to ``last[v]``, the latter excluded.
    depth : int64 [n_nodes]
        Tokens read on the way to a node.
    skip : int64 [n_nodes]
        The nearest node, itself included, that has several edges or none: what lies between is no choice.
    path_start : int64 [n_paths + 1]
        Tokens of path ``p`` are ``path_token[path_start[p]:path_start[p + 1]]``.
    path_token : int64 [n_tokens]
    path_node : int64 [n_tokens]
        The node at which each of these tokens is read.
    """

    edge_start: torch.Tensor
    edge_token: torch.Tensor
    edge_child: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor
    depth: torch.Tensor
    skip: torch.Tensor
    path_start: torch.Tensor
    path_token: torch.Tensor
    path_node: torch.Tensor

    @property
    def n_nodes(self) -> int:
        return len(self.first)

    @property
    def n_paths(self) -> int:
        return len(self.path_start) - 1

    def to(self, device: torch.device | str) -> PathTrie:
        """The same trie on a device."""
        return PathTrie(**{name: value.to(device) for name, value in self.tensors().items()})

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every array by its name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> PathTrie:
        """The trie of arrays that :meth:`tensors` gave."""
        return cls(**{field.name: tensors[field.name].long() for field in fields(cls)})


def build_paths(tokens: np.ndarray, offsets: np.ndarray) -> tuple[PathTrie, np.ndarray]:
    """A trie of token paths.

    Parameters
    ----------
    tokens : int [total]
        Tokens of all paths, one after the other; none negative.
    offsets : int [n + 1]
        Where each path begins. Paths may be equal; none may be empty or the beginning of another.

    Returns
    -------
    PathTrie
        Of the distinct paths.
    int64 [n]
        Number of each given path in it.

    Raises
    ------
    BenchError
        When there is no path, or one is empty or the beginning of another.
    """
    lengths = np.diff(offsets)
    if not len(lengths) or lengths.min() < 1:
        raise BenchError("a trie of token paths needs at least one path, and none that is empty")
    table = np.full((len(lengths), int(lengths.max())), -1, np.int32)
    within = np.arange(len(tokens)) - np.repeat(offsets[:-1], lengths)
    table[np.repeat(np.arange(len(lengths)), lengths), within] = tokens
    table, number = np.unique(table, axis=0, return_inverse=True)
    lengths = (table >= 0).sum(1)
    # Tokens that each path shares with the one before it.
    shared = np.zeros(len(table), np.int64)
    shared[1:] = np.cumprod(table[1:] == table[:-1], axis=1).sum(1)
    if (shared[1:] >= lengths[:-1]).any():
        raise BenchError("a trie of token paths: one path is the beginning of another")
    column = np.arange(table.shape[1])
    inside = column < lengths[:, None]
    new = inside & (column >= shared[:, None])
    numbers = np.cumsum(new.ravel()).reshape(new.shape)  # the root is node 0
    node = np.maximum.accumulate(np.where(new, numbers, 0), axis=0)
    paths, columns = np.nonzero(new)
    parent = np.where(columns > 0, node[paths, columns - 1], 0)
    below = np.concatenate([[len(table)], np.bincount(node[inside], minlength=len(paths) + 1)[1:]])
    first = np.concatenate([[0], paths])
    degree = np.bincount(parent, minlength=len(first))
    # Children have larger numbers than their parents, and smaller tokens come first.
    order = np.argsort(parent, kind="stable")
    stops = np.where(degree != 1, np.arange(len(first)), len(first))
    arrays = {
        "edge_start": np.concatenate([[0], np.cumsum(degree)]),
        "edge_token": table[paths, columns][order],
        "edge_child": order + 1,
        "first": first,
        "last": first + below,
        "depth": np.concatenate([[0], columns + 1]),
        "skip": np.minimum.accumulate(stops[::-1])[::-1],
        "path_start": np.concatenate([[0], np.cumsum(lengths)]),
        "path_token": table[inside],
        "path_node": np.concatenate([np.zeros_like(node[:, :1]), node[:, :-1]], 1)[inside],
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values, np.int64)) for name, values in arrays.items()}
    return PathTrie(**tensors), number.reshape(-1).astype(np.int64)


def join(one: PathTrie, other: PathTrie) -> PathTrie:
    """Two tries as one set of arrays: nodes and paths of the other come after those of the one, its root included."""
    edges, tokens = len(one.edge_token), len(one.path_token)
    moves = {"edge_start": edges, "path_start": tokens, "first": one.n_paths, "last": one.n_paths}
    moves |= {"edge_child": one.n_nodes, "skip": one.n_nodes, "path_node": one.n_nodes}
    arrays = {}
    for name, value in one.tensors().items():
        moved = other.tensors()[name] + moves.get(name, 0)
        # The last bound of the one is the first of the other.
        arrays[name] = torch.cat([value[:-1] if name.endswith("_start") else value, moved])
    return PathTrie(**arrays)


def gather_ragged(pool: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Pieces ``pool[start:start + length]``, one after the other."""
    before = np.concatenate([[0], np.cumsum(lengths)])
    return pool[np.repeat(starts - before[:-1], lengths) + np.arange(before[-1])]
