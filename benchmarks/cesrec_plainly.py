"""The plain way of writing lists of titles: one user at a time, the whole list, by the allowed tokens of each step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from recllm_bench.language.backbone import Backbone
from recllm_bench.language.titles.lists import ListLayout


class Node:
    """A node of the trie: where tokens lead, and how many titles lie below."""

    __slots__ = ("below", "next", "title")

    def __init__(self) -> None:
        self.next: dict[int, Node] = {}
        self.below, self.title = 0, -1


class PlainWriter:
    """Writes with ``generate`` and ``prefix_allowed_tokens_fn``, as one does it first.

    It keeps the rules of :func:`recllm_bench.language.titles.writing.write_lists`: a line may stay, and a new
    title is none that the list had or has already.
    """

    def __init__(self, backbone: Backbone, layout: ListLayout) -> None:
        self.backbone, self.layout = backbone, layout
        self.root = Node()
        trie = layout.trie
        starts, tokens = trie.paths.path_start.tolist(), trie.paths.path_token.tolist()
        self.paths = [tokens[start:end] for start, end in pairwise(starts)]
        free = trie.free.tolist()
        for title, path in enumerate(self.paths):
            node = self.root
            node.below += free[title]
            for token in path:
                node = node.next.setdefault(token, Node())
                node.below += free[title]
            node.title = title
        self.items = [trie.items_of(title) for title in range(len(self.paths))]
        self.heads = [layout.tokens([layout.first_head + line]).tolist() for line in range(layout.most_lines)]

    @torch.no_grad()
    def write(self, prompt: Sequence[int], before: Sequence[int], processors: Sequence = ()) -> tuple[list[int], int]:
        """One list, and how many tokens were generated."""
        walk = _Walk(self, list(before))
        ids = torch.tensor([list(prompt)], device=self.backbone.device)
        output = self.backbone.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            prefix_allowed_tokens_fn=lambda _, tokens: walk.allowed(tokens, len(prompt)),
            logits_processor=list(processors),
            max_new_tokens=self.backbone.context - len(prompt),
            do_sample=False,
            pad_token_id=self.layout.end,
            eos_token_id=self.layout.end,
        )
        return walk.out, output.shape[1] - len(prompt)


class _Walk:
    """The state of one list."""

    def __init__(self, writer: PlainWriter, before: list[int]) -> None:
        self.writer, self.before = writer, before
        self.out: list[int] = []
        self.own = [int(path) for path in writer.layout.path_of_item[before]]
        self.barred: dict[int, int] = {}  # nodes by identity: barred titles below
        self.closed: set[int] = set()
        for title in self.own:
            self._bar(title)
        self.literal = list(writer.heads[0]) if before else [writer.layout.end]
        self.node, self.depth, self.seen = writer.root, 0, 0

    def _bar(self, title: int) -> None:
        if title in self.closed or not self.writer.items[title]:
            return
        self.closed.add(title)
        node = self.writer.root
        self.barred[id(node)] = self.barred.get(id(node), 0) + 1
        for token in self.writer.paths[title]:
            node = node.next[token]
            self.barred[id(node)] = self.barred.get(id(node), 0) + 1

    def allowed(self, tokens: torch.Tensor, start: int) -> list[int]:
        """The tokens that may come next."""
        for token in tokens[start + self.seen :].tolist():
            self._take(token)
            self.seen += 1
        if self.literal:
            return self.literal[:1]
        path = self.writer.paths[self.own[len(self.out)]]
        own = path[self.depth] if self.on_own else -1
        return [
            token for token, node in self.node.next.items() if token == own or node.below > self.barred.get(id(node), 0)
        ]

    @property
    def on_own(self) -> bool:
        return self.depth == 0 or self.walked == self.writer.paths[self.own[len(self.out)]][: self.depth]

    def _take(self, token: int) -> None:
        if self.literal:
            self.literal.pop(0)
            return
        self.walked = [*self.walked, token] if self.depth else [token]
        self.node, self.depth = self.node.next[token], self.depth + 1
        if self.node.title < 0:
            return
        line, title = len(self.out), self.node.title
        fresh = title != self.own[line]
        self.out.append(self.writer.items[title][0] if fresh else self.before[line])
        if fresh:
            self._bar(title)
        self.node, self.depth = self.writer.root, 0
        done = len(self.out) == len(self.before)
        self.literal = [self.writer.layout.end] if done else list(self.writer.heads[len(self.out)])
