"""Prompts with answers as the rows of one pass, what prompts have in common read once.

Examples share rows. Those whose prompts begin alike share that beginning too: it is read once, and each continuation
sees the beginning and itself, at the positions it would have alone. So a pass gives every token the state it would
have in a row of its own.
"""

from __future__ import annotations

import itertools
from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from recllm_bench.language.block_attention import Documents

Example = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt, and of its answer (with its end)."""
_ROWS = (256, 512, 1024)
"""Row widths that are tried beside the largest unit's."""
_LEAST = 8  # tokens in common that are worth a group


@dataclass(frozen=True)
class Packed:
    """Some examples laid into rows.

    Attributes
    ----------
    tokens, positions : int64 [R, C]
        Inputs, and the place of each in its own example.
    units : int64 [R, C]
        Which group of examples with a common beginning a token belongs to, from 1 (0: padding).
    branches : int64 [R, C]
        Which continuation of the unit; 0: the common beginning.
    scored : int64 [N]
        Flattened places whose next token belongs to an answer; a beginning's last place may come more than once.
    targets : int64 [N]
        Those next tokens.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    units: torch.Tensor
    branches: torch.Tensor
    scored: torch.Tensor
    targets: torch.Tensor

    def documents(self) -> Documents:
        """Which places each place sees."""
        return Documents(self.units, self.branches)

    @property
    def n_tokens(self) -> int:
        """Places that are no padding."""
        return int((self.units > 0).sum())


@dataclass(frozen=True)
class _Unit:
    """Examples with a common beginning: their numbers, how long it is, and places in all."""

    members: list[int]
    common: int
    size: int


def pack(examples: Sequence[Example], *, width: int = 0, scale: float = 1e3, share: bool = True) -> Packed:
    """Lay examples into rows: largest units first, each into the fullest row that has room.

    Parameters
    ----------
    examples : sequence of (prompt, answer)
        At least one; neither part empty.
    width : int
        Places of a row (0: what costs least); a larger unit widens all rows.
    scale : float
        Row width at which attention costs as much as everything else: six times the state's length.
    share : bool
        Read common beginnings of prompts once.
    """
    units = units_of(examples, scale=scale, share=share)
    sizes = np.array([unit.size for unit in units])
    largest = int(sizes.max())
    widths = [max(width, largest)] if width else sorted({largest, *(w for w in _ROWS if w > largest)})
    rows, columns, wide = _cheapest(sizes, widths, scale)
    shape = (int(rows.max()) + 1, wide)
    tokens, positions, numbers, branches = (np.zeros(shape[0] * wide, np.int64) for _ in range(4))
    scored, targets = [], []
    for number, unit in enumerate(units):
        at = first = int(rows[number]) * wide + int(columns[number])
        prompt = np.asarray(examples[unit.members[0]][0], np.int64)
        at += unit.common
        tokens[first:at], positions[first:at] = prompt[: unit.common], np.arange(unit.common)
        for branch, member in enumerate(unit.members, 1):
            prompt, answer = (np.asarray(part, np.int64) for part in examples[member])
            own = np.concatenate([prompt[unit.common :], answer[:-1]])  # the last token is only a target
            end = at + len(own)
            tokens[at:end], branches[at:end] = own, branch
            positions[at:end] = unit.common + np.arange(len(own))
            places = np.arange(at - 1, end)[-len(answer) :]
            if len(prompt) == unit.common:  # the first answer token follows the common beginning
                places[0] = first + unit.common - 1
            scored.append(places)
            targets.append(answer)
            at = end
        numbers[first:at] = number + 1
    grids = [part.reshape(shape) for part in (tokens, positions, numbers, branches)]
    return Packed(*map(torch.from_numpy, [*grids, np.concatenate(scored), np.concatenate(targets)]))


def units_of(
    examples: Sequence[Example], *, scale: float = 1e3, share: bool = True, most: int = 1 << 30
) -> list[_Unit]:
    """Groups of examples, in the order of their prompts, that are cheaper to read together.

    Parameters
    ----------
    examples, scale, share
        As for :func:`pack`. A unit is at most as wide as attention stays a part of the cost.
    most : int
        Most examples of a unit.
    """
    full = [len(prompt) + len(answer) - 1 for prompt, answer in examples]
    if not share:
        return [_Unit([number], len(examples[number][0]), size) for number, size in enumerate(full)]
    prompts = [np.asarray(example[0], np.int32) for example in examples]
    order = sorted(range(len(examples)), key=lambda number: prompts[number].astype(">i4").tobytes())
    near = [_common(prompts[one], prompts[other]) for one, other in itertools.pairwise(order)]
    widest = max(max(full), int(min(2048, scale / 2)))
    units = [_Unit([order[0]], len(prompts[order[0]]), full[order[0]])]
    for place, number in enumerate(order[1:]):
        last = units[-1]
        shared = min(near[place], last.common)
        following = near[place + 1] if place + 1 < len(near) else 0
        # What the others lose by a shorter beginning must not exceed what this one gains from sharing it.
        lost = (last.common - shared) * (len(last.members) - 1)
        size = last.size + (last.common - shared) * (len(last.members) - 1) + full[number] - shared
        closer = following <= 1.25 * near[place] + _LEAST
        if shared > max(lost, _LEAST) and closer and size <= widest and len(last.members) < most:
            units[-1] = _Unit([*last.members, number], shared, size)
        else:
            units.append(_Unit([number], len(prompts[number]), full[number]))
    return units


def chunks(examples: Sequence[Example], budget: int) -> Iterator[list[Example]]:
    """Examples in order, as many at a time as ``budget`` tokens allow."""
    chunk: list[Example] = []
    size = 0
    for example in examples:
        length = len(example[0]) + len(example[1])
        if chunk and size + length > budget:
            yield chunk
            chunk, size = [], 0
        chunk.append(example)
        size += length
    if chunk:
        yield chunk


def _common(first: np.ndarray, second: np.ndarray) -> int:
    """How many tokens two prompts have in common at their beginning."""
    length = min(len(first), len(second))
    differ = first[:length] != second[:length]
    return int(differ.argmax()) if differ.any() else length


def _cheapest(sizes: np.ndarray, widths: Sequence[int], scale: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows, columns and width of the placing whose passes cost least."""
    found: tuple[np.ndarray, np.ndarray, int] | None = None
    least = np.inf
    for width in widths:
        rows, columns = best_fit(sizes, width)
        wide = int((columns + sizes).max())
        cost = (int(rows.max()) + 1) * wide * (1 + wide / scale)
        if cost < least:
            found, least = (rows, columns, wide), cost
    assert found is not None
    return found


def best_fit(sizes: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each piece: largest first, into the fullest row that has room (best fit decreasing)."""
    rows, columns = np.zeros(len(sizes), np.int64), np.zeros(len(sizes), np.int64)
    rooms: list[tuple[int, int]] = []  # (free places, row), sorted
    count = 0
    for number in np.argsort(-sizes, kind="stable"):
        need = int(sizes[number])
        at = next((place for place, (room, _) in enumerate(rooms) if room >= need), None)
        room, row = (width, count) if at is None else rooms.pop(at)
        count += at is None
        rows[number], columns[number] = row, width - room
        insort(rooms, (room - need, row))
    return rows, columns
