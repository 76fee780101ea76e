"""The loop of CESRec: recommend, hear, mask, rewrite, recommend again; all users in lock-step.

What a user sees and says depends on the target; the backend and the constructor get histories and sentences only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recllm_bench.artifacts import write_json
from recllm_bench.errors import BenchError
from recllm_bench.files import write_arrays

if TYPE_CHECKING:
    from recllm_bench.data.histories import Histories
    from recllm_bench.data.splits import Cases
    from recllm_bench.evaluation.candidates import Candidates
    from recllm_bench.models.cesrec.backends import TrainedBackend
    from recllm_bench.models.cesrec.masking import Masked

Mask = Callable[[torch.Tensor, torch.Tensor], "Masked"]
"""``mask(item_seq [B, L], lengths [B])``."""
Construct = Callable[..., Any]
"""``construct(items, masked, feedback, targets)``, a ``Written`` of ``language.titles``."""
Say = Callable[[np.ndarray, np.ndarray, np.ndarray, int], list[str]]
"""``say(users, shown, targets, turn)``."""


@dataclass(frozen=True)
class Pseudo:
    """Histories as the backend reads them, right-padded.

    Attributes
    ----------
    items : int32 [n, L]
    lengths : int64 [n]
    """

    items: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int]], width: int = 0) -> Pseudo:
        """Pad lists of item ids; at least ``width`` wide."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        items = np.zeros((len(rows), max(width, int(lengths.max(initial=0)))), dtype=np.int32)
        inside = np.arange(items.shape[1]) < lengths[:, None]
        items[inside] = np.fromiter((item for row in rows for item in row), np.int32, int(lengths.sum()))
        return cls(items, lengths)

    @classmethod
    def of_cases(cls, histories: Histories, cases: Cases, length: int) -> Pseudo:
        """The newest ``length`` items before each case.

        Raises
        ------
        BenchError
            When a history is empty.
        """
        starts = np.maximum(histories.offsets[cases.users - 1], cases.ends - length)
        lengths = (cases.ends - starts).astype(np.int64)
        if len(lengths) and lengths.min() < 1:
            user = int(cases.users[np.argmin(lengths)])
            raise BenchError(f"user {user} has an empty history: nothing to rank from; drop the case or the user")
        column = np.arange(int(lengths.max(initial=0)))
        inside = column < lengths[:, None]
        items = np.zeros(inside.shape, dtype=np.int32)
        items[inside] = histories.items[(starts[:, None] + column)[inside]]
        return cls(items, lengths)

    def lists(self, rows: np.ndarray) -> list[list[int]]:
        """Item ids of some rows, oldest first."""
        return [self.items[row, : self.lengths[row]].tolist() for row in rows]

    def tensors(self, rows: np.ndarray, device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
        """``(item_seq [B, L], lengths [B])`` of some rows, as wide as the longest of them."""
        lengths = self.lengths[rows]
        items = self.items[rows, : int(lengths.max(initial=0))]
        return (
            torch.as_tensor(items, dtype=torch.long).to(device),
            torch.as_tensor(lengths, dtype=torch.long).to(device),
        )

    def contains(self, items: np.ndarray) -> np.ndarray:
        """Whether row ``i`` holds ``items[i]``, bool [n]."""
        return (self.items == np.asarray(items)[:, None]).any(1)


@dataclass
class Round:
    """What stands after a round; round 0 is the original history.

    Attributes
    ----------
    pseudo : Pseudo
        The histories that the backend reads next.
    accepted : bool [n]
        Users who were shown their target before this round and said yes.
    shown : int32 [n]
        Item shown in this round; 0 for users who were not asked.
    inserted : bool [n]
        The pseudo-history holds the target, and the original does not (``target_in_pseudo``).
    feedback : list of str [n]
        What was said; empty for users who were not asked.
    masked : int32 [n, m]
        Items that were masked in this round, 0 beyond.
    counters : dict of str to int
        Of this round.
    tokens : dict of str to int
        Language-model tokens of this round.
    seconds : dict of str to float
        ``recommend, say, mask, construct``.
    """

    pseudo: Pseudo
    accepted: np.ndarray
    shown: np.ndarray
    inserted: np.ndarray
    feedback: list[str]
    masked: np.ndarray
    counters: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def save(self, work: Path) -> None:
        """Write ``round.npz`` and ``round.json``."""
        arrays = {"items": self.pseudo.items, "lengths": self.pseudo.lengths}
        for name in ("accepted", "shown", "inserted", "masked"):
            arrays[name] = getattr(self, name)
        write_arrays(work / "round.npz", arrays)
        facts = {name: getattr(self, name) for name in ("feedback", "counters", "tokens", "seconds")}
        write_json(work / "round.json", facts)

    @classmethod
    def load(cls, folder: Path) -> Round:
        """Read what :meth:`save` wrote."""
        import json

        facts = json.loads((folder / "round.json").read_text(encoding="utf-8"))
        with np.load(folder / "round.npz") as arrays:
            pseudo = Pseudo(arrays["items"], arrays["lengths"])
            return cls(pseudo, **{name: arrays[name] for name in ("accepted", "shown", "inserted", "masked")}, **facts)


class Loop:
    """Plays rounds for a set of cases.

    Parameters
    ----------
    backend : TrainedBackend
        Scores histories; never changed.
    cases : Cases
        Users, and the targets that the simulated users have in mind.
    histories : Histories
        For the original histories.
    candidates : Candidates or None
        The candidate file of a sampled protocol; None: the whole catalogue.
    exclude_history : bool
        Items of the original history are never shown (always so where the whole catalogue is meant by ``pool``).
    mask, construct : callable or None
        The two halves of a rewriting; None leaves one out.
    say : callable
        The simulated user.
    early_accept, refine_from, pool
        As in :class:`~recllm_bench.models.cesrec.options.CESRecOptions`.
    keeps_masked : bool
        Whether masked items stay in what ``mask`` returns (``mask_mode`` mark).

    Raises
    ------
    BenchError
        When a candidate list repeats an item or lacks its target.
    """

    def __init__(
        self,
        backend: TrainedBackend,
        cases: Cases,
        histories: Histories,
        *,
        candidates: Candidates | None = None,
        exclude_history: bool = True,
        mask: Mask | None = None,
        construct: Construct | None = None,
        say: Say | None = None,
        early_accept: bool = True,
        refine_from: str = "last",
        pool: str = "candidates",
        keeps_masked: bool = False,
    ) -> None:
        self.backend, self.cases, self.histories = backend, cases, histories
        self.mask, self.construct, self.say = mask, construct, say
        self.early_accept, self.refine_from, self.keeps_masked = early_accept, refine_from, keeps_masked
        self.listed = None if candidates is None else candidates.items
        if self.listed is not None:
            check_candidates(self.listed, cases)
        self.shown_from = self.listed if pool == "candidates" else None
        self.excludes = exclude_history or pool == "catalogue"
        self.start = Pseudo.of_cases(histories, cases, backend.history_length)

    def first(self) -> Round:
        """Round 0: nothing was said yet."""
        n = len(self.cases)
        nobody = np.zeros(n, dtype=bool)
        none = np.zeros((n, 0), dtype=np.int32)
        return Round(self.start, nobody, np.zeros(n, dtype=np.int32), nobody.copy(), [""] * n, none)

    def next(self, last: Round, number: int) -> Round:
        """One more round for everybody who has not accepted.

        Parameters
        ----------
        last : Round
            The round before.
        number : int
            Of this round, from 1.
        """
        clock = _Clock()
        rows = np.flatnonzero(~last.accepted)
        targets = self.cases.targets.astype(np.int64)
        best = self.best(last.pseudo, rows)
        clock.lap("recommend")
        shown = np.zeros(len(targets), dtype=np.int32)
        shown[rows] = best
        hit = best == targets[rows]
        accepted = last.accepted.copy()
        accepted[rows[hit]] = self.early_accept
        rows = rows[~hit] if self.early_accept else rows
        counters = {"asked": len(rows), "accepted": int(accepted.sum()), "shown_is_target": int(hit.sum())}
        said = [""] * len(targets)
        if self.say is not None and len(rows):
            answers = self.say(self.cases.users[rows], shown[rows], targets[rows], number - 1)
            for row, text in zip(rows.tolist(), answers, strict=True):
                said[row] = text
        clock.lap("say")
        base = last.pseudo if self.refine_from == "last" else self.start
        pseudo, more, tokens, masked = self._rewritten(
            base, last.pseudo, rows, [said[row] for row in rows.tolist()], clock
        )
        inserted = pseudo.contains(targets) & ~self.start.contains(targets)
        counters |= {**more, "target_in_pseudo": int(inserted.sum())}
        return Round(pseudo, accepted, shown, inserted, said, masked, counters, tokens, clock.laps)

    def best(self, pseudo: Pseudo, rows: np.ndarray) -> np.ndarray:
        """The item shown to each of some users: the best of the pool, int32 [len(rows)].

        Among equal scores the smallest id is shown: the order of a candidate list, which begins with the target, must
        not decide.

        Raises
        ------
        BenchError
            When a score is not a number, or nothing is left to show.
        """
        device = self.backend.device
        result = np.zeros(len(rows), dtype=np.int32)
        width = self.histories.n_items + 1 if self.shown_from is None else self.shown_from.shape[1]
        order = np.argsort(-pseudo.lengths[rows], kind="stable")
        step = self.backend.rows_at_once(width)
        for start in range(0, len(rows), step):
            places = order[start : start + step]
            some = rows[places]
            users = torch.as_tensor(self.cases.users[some], dtype=torch.long, device=device)
            ids = None
            if self.shown_from is not None:
                ids = torch.as_tensor(self.shown_from[some], dtype=torch.long, device=device)
            scores = self.backend.score(*pseudo.tensors(some, device), users, ids)
            if ids is None:
                scores = self._open(scores, some)
                ids = torch.arange(scores.shape[1], device=device).expand_as(scores)
            top = scores.amax(1, keepdim=True)
            if not torch.isfinite(top).all():
                user = int(users[int((~torch.isfinite(top[:, 0])).nonzero()[0])])
                raise BenchError(f"cesrec: backend {self.backend.name} has no usable score for user {user}")
            found = torch.where(scores == top, ids, torch.full_like(ids, self.histories.n_items + 1)).amin(1)
            result[places] = found.cpu().numpy().astype(np.int32)
        return result

    def _open(self, scores: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """Whole-catalogue scores without padding, and without the original history where it is excluded."""
        scores = scores.clone()
        scores[:, 0] = -torch.inf
        if self.excludes:
            starts = self.histories.offsets[self.cases.users[rows] - 1]
            lengths = self.cases.ends[rows] - starts
            owners = np.repeat(np.arange(len(rows)), lengths)
            first = np.cumsum(lengths) - lengths
            items = self.histories.items[np.arange(len(owners)) - first[owners] + starts[owners]]
            # The evaluator never takes the target out of the ranking, though a history may hold it.
            kept = items != self.cases.targets[rows][owners]
            pair = (torch.as_tensor(owners[kept]), torch.as_tensor(items[kept], dtype=torch.long))
            scores[pair[0].to(scores.device), pair[1].to(scores.device)] = -torch.inf
        return scores

    def _rewritten(
        self, base: Pseudo, last: Pseudo, rows: np.ndarray, said: list[str], clock: _Clock
    ) -> tuple[Pseudo, dict[str, int], dict[str, int], np.ndarray]:
        """The histories after masking and construction; rows that were not asked stay as they are in ``last``.

        Besides counters and tokens, and what was masked of each row.
        """
        counters: dict[str, int] = {}
        tokens: dict[str, int] = {}
        taken: list[list[int]] = [[] for _ in range(len(self.cases))]
        if not len(rows) or (self.mask is None and self.construct is None):
            return (
                (base if not len(rows) else _merged(last, base, rows)),
                counters,
                tokens,
                Pseudo.from_lists(taken).items,
            )
        lists, flags = base.lists(rows), None
        if self.mask is not None:
            found = self.mask(*base.tensors(rows, self.backend.device))
            masked = found.masked.cpu().numpy()
            counters |= {"masked": int(masked.sum()), "masked_fewer": int(found.reduced)}
            for row, items, marks in zip(rows.tolist(), lists, masked, strict=True):
                taken[row] = [item for item, is_masked in zip(items, marks[: len(items)], strict=True) if is_masked]
            lengths = found.lengths.cpu().numpy()
            lists = Pseudo(found.items.cpu().numpy(), lengths).lists(np.arange(len(rows)))
            if self.keeps_masked:
                flags = [row[:length].tolist() for row, length in zip(masked, lengths.tolist(), strict=True)]
        clock.lap("mask")
        if self.construct is not None:
            written = self.construct(lists, flags, said, self.cases.targets[rows].tolist())
            lists = [[item for item in items if item] for items in written.lists]  # 0: a masked place left empty
            for name, value in written.counters.items():
                counters[name] = counters.get(name, 0) + int(value)
            tokens = {name: int(value) for name, value in written.tokens.items()}
        elif flags is not None:
            lists = [
                [item for item, is_masked in zip(items, marks, strict=True) if not is_masked]
                for items, marks in zip(lists, flags, strict=True)
            ]
        clock.lap("construct")
        if empty := [int(row) for row, items in zip(rows, lists, strict=True) if not items]:
            raise BenchError(f"cesrec: user {int(self.cases.users[empty[0]])} was left without a history")
        length = self.backend.history_length
        return (
            _merged(last, Pseudo.from_lists([items[-length:] for items in lists]), rows, dense=True),
            counters,
            tokens,
            Pseudo.from_lists(taken).items,
        )


def check_candidates(items: np.ndarray, cases: Cases) -> None:
    """Refuse candidate lists that repeat an item or do not begin with the target (column 0).

    Raises
    ------
    BenchError
        With the user whose list is wrong.
    """
    if len(items) != len(cases) or not np.array_equal(items[:, 0], cases.targets):
        wrong = len(items) == len(cases) and int(cases.users[np.argmax(items[:, 0] != cases.targets)])
        whose = f" of user {wrong}" if wrong else ""
        raise BenchError(f"cesrec: the candidate list{whose} lacks its target; draw the candidate file for these cases")
    ordered = np.sort(items, axis=1)
    repeats = (ordered[:, 1:] == ordered[:, :-1]).any(1)
    if repeats.any():
        user = int(cases.users[np.argmax(repeats)])
        raise BenchError(f"cesrec: the candidate list of user {user} repeats an item; draw the candidate file again")


def sums(rounds: Sequence[Round], name: str) -> dict[str, float]:
    """Totals over rounds of one of their mappings, such as ``counters``."""
    total: dict[str, float] = {}
    for played in rounds:
        values: Mapping[str, float] = getattr(played, name)
        for key, value in values.items():
            total[key] = total.get(key, 0) + value
    return total


def _merged(last: Pseudo, new: Pseudo, rows: np.ndarray, dense: bool = False) -> Pseudo:
    """``last`` with some rows of ``new``: rows of the same number, or in order where ``new`` holds those alone."""
    source = np.arange(len(rows)) if dense else rows
    width = max(last.items.shape[1], new.items.shape[1])
    items = np.zeros((len(last), width), dtype=np.int32)
    items[:, : last.items.shape[1]] = last.items
    items[rows] = 0
    items[rows, : new.items.shape[1]] = new.items[source]
    lengths = last.lengths.copy()
    lengths[rows] = new.lengths[source]
    return Pseudo(items[:, : int(lengths.max(initial=0))], lengths)


class _Clock:
    """Seconds between laps; on a GPU the work queued so far is awaited."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._since
        self._since = now
