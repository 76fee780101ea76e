"""A small catalogue with every difficulty, and the slowest way of writing lists, as an oracle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from recllm_bench.language.titles.lists import ListLayout
from recllm_bench.language.titles.trie import TitleTrie

TITLES = [
    "",
    "The Cat",
    "The Cat Returns",
    "Dog",
    "Dog Days",
    "The Cat",  # as item 1
    "Lily",
    "Lily and Tom",
    "A\nPark  in\tspring",
    "",  # no title
    "One Day",
    "Once upon a time",
    "Once upon a hill",
    "The Cat Returns (1995)",
    "Zebra!",
    "10 Things",
]
UNTITLED = 9


def legal_titles(layout: ListLayout, before: Sequence[int], forbid: Iterable[int], written: Iterable[tuple[int, ...]]):
    """Titles, as tuples of tokens, that a list may have anew."""
    named = [item for item in range(1, layout.trie.n_items + 1) if TITLES[item]]
    closed = {path(layout, item) for item in (*before, *forbid)} | set(written)
    return {path(layout, item) for item in named} - closed


def title_tokens(trie: TitleTrie, item: int) -> list[int]:
    """The tokens of an item's title in a trie, without the line end."""
    number = int(trie.path_of_item[item])
    start, stop = trie.paths.path_start[number : number + 2].tolist()
    return trie.paths.path_token[start : stop - len(trie.line_end)].tolist()


def path(layout: ListLayout, item: int) -> tuple[int, ...]:
    """The tokens of an item's title."""
    return tuple(title_tokens(layout.trie, item))


def written_slowly(
    layout: ListLayout,
    best,
    before: Sequence[int],
    mode: str,
    most_edits: int | None = None,
    forbid: Iterable[int] = (),
) -> list[int]:
    """One list, token by token, each the best of all that some legal answer has there.

    ``best(answer so far, allowed tokens)`` names one of the allowed tokens.
    """
    items = {path(layout, item): item for item in range(layout.trie.n_items, 0, -1)}
    out, changed, answer, line, end = list(before), set(), [], 0, layout.end

    def follow(choices: dict[tuple[int, ...], int]) -> int:
        """Walk to one of the choices; what it stands for."""
        walked = ()
        while walked not in choices:
            allowed = {choice[len(walked)] for choice in choices if choice[: len(walked)] == walked}
            token = next(iter(allowed)) if len(allowed) == 1 else best(answer, sorted(allowed))
            walked = (*walked, token)
            answer.append(token)
        return choices[walked]

    close = tuple(layout.trie.line_end)
    most = len(before) if most_edits is None else most_edits
    while line < len(before):
        fresh = legal_titles(layout, before, forbid, changed) if len(changed) < most else set()
        choices = {(*title, *close): items[title] for title in fresh}
        if mode == "sequence":
            answer.extend(layout.tokens(layout.first_head + torch.tensor([line]).numpy()).tolist())
            choices[(*path(layout, before[line]), *close)] = -1
        else:
            heads = {
                tuple(layout.tokens([layout.first_edit_head + at]).tolist()): at for at in range(line, len(before))
            }
            line = follow({**(heads if fresh else {}), (end,): -1})
            if line < 0:
                break
        item = follow(choices)
        if item >= 0:
            out[line] = item
            changed.add(path(layout, item))
        line += 1
    return out


@dataclass
class Cache:
    """Remembers nothing but which rows there are."""

    rows: torch.Tensor

    def batch_select_indices(self, kept: torch.Tensor) -> None:
        self.rows = self.rows[kept]

    def batch_repeat_interleave(self, times: int) -> None:
        self.rows = self.rows.repeat_interleave(times)


@dataclass
class Scripted:
    """Stands in for a language model: the state after a token is (the number in the prompt, the place of the token).

    A prompt is the number of a row, which is a token, and fillers; ``score`` takes the answers to prefer from a table,
    or random scores that depend on row and place.
    """

    vocabulary: int
    scripts: list[list[int]] = field(default_factory=list)
    prompt_length: int = 5
    context: int = 100_000
    name: str = "script"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    width: int = 2
    read: int = 0

    def prompts(self, count: int) -> list[list[int]]:
        return [[3] * (self.prompt_length - 1) + [row] for row in range(count)]

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return ids[..., None].double()

    def advance(self, inputs, mask, positions, cache=None):
        assert mask.shape == (len(inputs), mask.shape[1])
        assert bool((mask[:, -inputs.shape[1] :].sum(1) >= 0).all())
        if cache is None or not len(cache.rows):
            cache = Cache(torch.full((len(inputs),), -1.0, dtype=torch.double))
        here = positions == self.prompt_length - 1
        found = torch.where(here, inputs[..., 0], 0).sum(1)
        cache.rows = torch.where(here.any(1), found, cache.rows)
        self.read += int(mask[:, -inputs.shape[1] :].sum())
        return torch.stack([cache.rows[:, None].expand(positions.shape), positions.double()], 2), cache

    def score(self, states: torch.Tensor) -> torch.Tensor:
        rows, places = states[:, 0].long().tolist(), states[:, 1].long().tolist()
        scores = torch.zeros(len(rows), self.vocabulary)
        for number, (row, place) in enumerate(zip(rows, places, strict=True)):
            at = place + 1 - self.prompt_length
            if at < len(self.scripts[row]):  # a draft may be longer than what is written in its place
                scores[number, self.scripts[row][at]] = 1.0
        return scores

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Random, the same for the same row and place."""
        generators = (torch.Generator().manual_seed(int(row * 100_003 + place)) for row, place in states.tolist())
        return torch.stack([torch.randn(self.vocabulary, generator=generator) for generator in generators])
