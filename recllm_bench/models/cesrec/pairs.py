"""Training pairs of the constructor: a history and a remark, and the history that agrees with it (CESRec, equation 8).

The items of a pair come from training interactions alone. Its target is the user's last training item; some places of
the history before it are sampled as outliers, and the answer has the target, or items like it, in their stead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from recllm_bench.artifacts import write_json
from recllm_bench.errors import BenchError, NotEnough
from recllm_bench.progress import log
from recllm_bench.training.sequence import training_counts

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue
    from recllm_bench.data.splits import Split
    from recllm_bench.language.tuning import Example
    from recllm_bench.models.cesrec.masking import Masked
    from recllm_bench.models.cesrec.prompts import PromptWriter

READINGS, TARGETS = ("target", "neighbour"), ("last", "any")
Mask = Callable[[torch.Tensor, torch.Tensor], "Masked"]
Speak = Callable[[np.ndarray, np.ndarray, np.ndarray], Sequence[str]]
"""``speak(shown_items, target_items, users)``."""
_LEAST = 2  # items of a history before its target
_AT_ONCE = 1 << 24  # similarities held at once


@dataclass
class Pairs:
    """Training pairs, a row each.

    Attributes
    ----------
    users : list of int
    before : list of list of int
        Histories after masking; 0 is a hidden place.
    after : list of list of int
        The same with the sampled places replaced.
    places : list of list of int
        The sampled places, ascending; the remark is about the item at the last.
    shown, targets : list of int
        The item there, and what the user wants.
    remarks : list of str
    held_out : list of bool
        Pairs of the users kept aside for validation.
    counts : dict of str to int
        What was left out, and why.
    """

    users: list[int]
    before: list[list[int]]
    after: list[list[int]]
    places: list[list[int]]
    shown: list[int]
    targets: list[int]
    remarks: list[str]
    held_out: list[bool]
    counts: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.users)

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Pairs:
        """Read what :meth:`save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def examples(self, prompts: PromptWriter) -> tuple[list[Example], list[Example]]:
        """Token ids of prompts and answers, of the pairs to learn from and of those held out.

        A pair whose sampled places are older than what its prompt shows is left out.
        """
        written, shown = prompts.write(self.before, self.remarks)
        parts: tuple[list[Example], list[Example]] = ([], [])
        lost = 0
        for row, (prompt, count) in enumerate(zip(written, shown, strict=True)):
            old = len(self.before[row]) - count
            if self.places[row][0] < old:
                lost += 1
                continue
            before, after = self.before[row][old:], self.after[row][old:]
            edits = prompts.output == "edits"
            answer = prompts.layout.encode_edits(before, after) if edits else prompts.layout.encode_sequence(after)
            parts[self.held_out[row]].append((prompt, answer))
        if lost:
            log.warning(f"constructor: {lost} of {len(self)} pairs change items that their prompts have no room for")
        return parts


def make_pairs(
    split: Split,
    catalogue: Catalogue,
    speak: Speak,
    *,
    n: int = 10_000,
    outliers: int = 1,
    replace_with: str = "target",
    targets: str = "last",
    items: int = 20,
    longest: int = 200,
    mask: Mask | None = None,
    vectors: np.ndarray | None = None,
    held_out: float = 0.05,
    seed: int = 0,
) -> Pairs:
    """Make training pairs.

    Parameters
    ----------
    split : Split
        Only training prefixes are read; what a user validates or tests on is known only to be left out.
    catalogue : Catalogue
        Items without a title are never written.
    speak : callable
        ``speak(shown, targets, users) -> list of str``: what users say who want ``targets`` and are shown ``shown``.
    n : int
        Most pairs. Users give one each; while there are too few, they give more, with other places.
    outliers : int
        Places sampled in a pair, r.
    replace_with : {"target", "neighbour"}
        The last sampled place gets the target, and others get neighbours; or all get neighbours of the target: the
        items most like it by cosine, of its main category, from training, not in the history.
    targets : {"last", "any"}
        A user's further pairs have the last training item as target too, or any with a history (ours: for small data).
    items : int
        Places are sampled among so many newest items, those a prompt shows.
    longest : int
        Newest items of a history that are read.
    mask : callable, optional
        ``mask(item_seq [B, L], lengths [B])``, to train on what is used at test time; without it whole histories.
        Where masked items keep their place they are hidden, and sampled first.
    vectors : float [n_items + 1, d], optional
        Item vectors that say what is like the target; needed for neighbours.
    held_out : float
        Share of the users kept aside for validation.

    Raises
    ------
    BenchError
        When a choice is unknown, vectors are missing, or no user has a history to sample from.
    """
    if replace_with not in READINGS or targets not in TARGETS or n < 1 or outliers < 1:
        raise BenchError(
            f"training pairs: n={n}, outliers={outliers} must be at least 1, replace_with='{replace_with}' one of "
            f"{', '.join(READINGS)} and targets='{targets}' one of {', '.join(TARGETS)}"
        )
    if vectors is None and (replace_with == "neighbour" or outliers > 1):
        raise BenchError(
            "training pairs: neighbours of a target need item vectors; set replace_with=target, outliers=1"
        )
    rng = np.random.default_rng([seed, 0xCE5])
    drawn = _Drawn(split, n, targets, longest, rng)
    counts = {"users": drawn.n_users, "drawn": len(drawn.users)}
    rows, lengths, hidden = _masked(drawn.histories(), mask)
    places, enough = _sampled(drawn, lengths, hidden, items, outliers, rng)
    titles = _titles(catalogue)
    wanted = titles[drawn.targets]
    inside = np.arange(rows.shape[1]) < lengths[:, None]
    own = drawn.held_out_items()
    untitled = wanted == 0
    # A title that is there already cannot be written; a user who tests on what the history holds must not train on it.
    repeats = (inside & (titles[rows] == wanted[:, None])).any(1)
    leaks = (np.isin(drawn.keys(rows), own) & inside).any(1) | np.isin(drawn.keys(drawn.targets), own)
    kept = enough & ~untitled & ~repeats & ~leaks
    counts |= {
        "too_short": int((~enough).sum()),
        "untitled": int((enough & untitled).sum()),
        "repeats": int((enough & ~untitled & repeats).sum()),
        "held_out_in_history": int((enough & ~untitled & ~repeats & leaks).sum()),
    }
    new = np.repeat(drawn.targets[:, None], outliers, 1)
    n_neighbours = outliers if replace_with == "neighbour" else outliers - 1
    if n_neighbours and vectors is not None:
        chosen = np.flatnonzero(kept)
        found, fell_back, complete = _neighbours(drawn, chosen, split, catalogue, titles, vectors, n_neighbours)
        new[chosen, :n_neighbours] = found[:, ::-1]  # the one most like the target goes to the newest place
        counts |= {"neighbours_of_any_category": fell_back, "no_neighbour": int((~complete).sum())}
        kept[chosen[~complete]] = False
    if not kept.any():
        why = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in counts.items())
        raise NotEnough(f"training pairs: no history serves ({why}); use more data, or set use_constructor=false")
    chosen = np.flatnonzero(kept)
    ordered = np.sort(places, 1)
    seen = np.take_along_axis(rows, ordered, 1)[:, -1]
    before = np.where(hidden, 0, rows) if hidden is not None else rows
    after = before.copy()
    np.put_along_axis(after, ordered, new, 1)
    aside = rng.permutation(drawn.n_users)[: round(held_out * drawn.n_users)]
    is_aside = np.isin(drawn.users, drawn.eligible[aside])
    users, shown, wanted = drawn.users[chosen], seen[chosen], drawn.targets[chosen]
    remarks = list(speak(shown, wanted, users))
    if len(remarks) != len(chosen):
        raise BenchError(f"training pairs: {len(chosen)} remarks were asked for, {len(remarks)} came")
    return Pairs(
        users=users.tolist(),
        before=[before[row, : lengths[row]].tolist() for row in chosen],
        after=[after[row, : lengths[row]].tolist() for row in chosen],
        places=ordered[chosen].tolist(),
        shown=shown.tolist(),
        targets=wanted.tolist(),
        remarks=remarks,
        held_out=is_aside[chosen].tolist(),
        counts={**counts, "pairs": len(chosen)},
    )


class _Drawn:
    """Which users, and which of their training items is the target of each pair."""

    def __init__(self, split: Split, n: int, targets: str, longest: int, rng: np.random.Generator) -> None:
        self.split, self.longest = split, longest
        histories = split.histories
        self.starts, self.stops = histories.offsets[:-1], split.train_ends
        trained = self.stops - self.starts
        self.eligible = np.flatnonzero(trained > _LEAST) + 1
        if not len(self.eligible):
            raise NotEnough(f"training pairs: no user has {_LEAST + 1} training items; use more data")
        self.n_users = len(self.eligible)
        order = rng.permutation(self.n_users)
        most = n if targets == "any" else min(n, self.n_users * longest)
        turns = np.arange(most) // self.n_users
        self.users = self.eligible[order[np.arange(most) % self.n_users]]
        last = self.stops[self.users - 1] - 1
        if targets == "any":
            drawn = rng.integers(self.starts[self.users - 1] + _LEAST, last + 1)
            last, turns = np.where(turns == 0, last, drawn), np.zeros_like(turns)
        self.ends, self.turns = last, turns
        self.targets = histories.items[last].astype(np.int64)

    def histories(self) -> tuple[np.ndarray, np.ndarray]:
        """What came before the targets: int64 [n, L] right-padded, and lengths."""
        first = np.maximum(self.starts[self.users - 1], self.ends - self.longest)
        lengths = (self.ends - first).astype(np.int64)
        column = np.arange(int(lengths.max()))
        rows = np.zeros((len(lengths), len(column)), np.int64)
        inside = column < lengths[:, None]
        rows[inside] = self.split.histories.items[(first[:, None] + column)[inside]]
        return rows, lengths

    def keys(self, items: np.ndarray) -> np.ndarray:
        """A number for each (row's user, item)."""
        users = self.users if items.ndim == 1 else self.users[:, None]
        return users * (self.split.histories.n_items + 1) + items

    def held_out_items(self) -> np.ndarray:
        """The same numbers of what eligible users validate and test on."""
        histories = self.split.histories
        later = ~histories.before(self.stops)
        owners = histories.users_of_positions()[later]
        return owners * (histories.n_items + 1) + histories.items[later].astype(np.int64)


def _masked(
    histories: tuple[np.ndarray, np.ndarray], mask: Mask | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Histories after masking, and which places are hidden where masked items keep theirs."""
    rows, lengths = histories
    if mask is None:
        return rows, lengths, None
    found = mask(torch.from_numpy(rows), torch.from_numpy(lengths))
    items, kept = found.items.cpu().numpy(), found.lengths.cpu().numpy()
    hidden = found.masked.cpu().numpy() if np.array_equal(items, rows) and np.array_equal(kept, lengths) else None
    return items, kept, hidden


def _sampled(
    drawn: _Drawn, lengths: np.ndarray, hidden: np.ndarray | None, items: int, outliers: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct random places of each row [n, r], and whether there were enough; a user's further rows take others."""
    width = int(lengths.max())
    column = np.arange(width)
    order = rng.random((drawn.n_users, width))[np.searchsorted(drawn.eligible, drawn.users)]
    if hidden is not None:
        order = order - hidden[:, :width]
    usable = (column < lengths[:, None]) & (column >= (lengths - items)[:, None])
    ranked = np.argsort(np.where(usable, order, np.inf), 1, kind="stable")
    at = drawn.turns[:, None] * outliers + np.arange(outliers)
    enough = at[:, -1] < usable.sum(1)
    return np.take_along_axis(ranked, np.minimum(at, width - 1), 1), enough


def _titles(catalogue: Catalogue) -> np.ndarray:
    """A number for each item's title, equal for equal titles; 0: none."""
    spoken = [" ".join(title.split()) for title in catalogue.titles]
    spoken[0] = ""
    known = {title: number for number, title in enumerate(sorted(set(spoken) - {""}), 1)}
    return np.array([known.get(title, 0) for title in spoken], np.int64)


def _neighbours(
    drawn: _Drawn,
    chosen: np.ndarray,
    split: Split,
    catalogue: Catalogue,
    titles: np.ndarray,
    vectors: np.ndarray,
    count: int,
) -> tuple[np.ndarray, int, np.ndarray]:
    """Items most like each row's target [m, count], best first; rows that left the category; rows with enough."""
    histories = split.histories
    main = {"": 0}
    category = np.array([main.setdefault(kinds[0] if kinds else "", len(main)) for kinds in catalogue.categories])
    trained = training_counts(split).numpy() > 0
    _, first = np.unique(np.where(trained, titles, 0), return_index=True)
    trained &= np.isin(np.arange(len(trained)), first) & (titles > 0)  # one item for each title
    table = torch.nn.functional.normalize(torch.as_tensor(vectors).float().cpu(), dim=1)
    unlike, numbers = torch.from_numpy(~trained), torch.from_numpy(titles)
    found = np.zeros((len(chosen), count), np.int64)
    fell_back, complete = 0, np.ones(len(chosen), bool)
    step = max(1, _AT_ONCE // len(titles))
    for start in range(0, len(chosen), step):
        rows = chosen[start : start + step]
        targets = drawn.targets[rows]
        barred = torch.zeros(len(rows), int(numbers.max()) + 1, dtype=torch.bool)
        # The whole history and what comes after it: nothing a user chose is a replacement.
        users = drawn.users[rows]
        spans = histories.offsets[users] - histories.offsets[users - 1]
        owner = np.repeat(np.arange(len(rows)), spans)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(spans) - spans, spans)
        chosen_before = histories.items[histories.offsets[users - 1][owner] + place]
        barred[torch.from_numpy(owner), numbers[torch.from_numpy(chosen_before.astype(np.int64))]] = True
        likeness = table[torch.from_numpy(targets)] @ table.T
        likeness = likeness.masked_fill(barred[:, numbers] | unlike, -torch.inf)
        same = torch.from_numpy(category[None, :] == category[targets][:, None])
        near = likeness.masked_fill(~same, -torch.inf)
        few = torch.isfinite(near).sum(1) < count
        fell_back += int(few.sum())
        near[few] = likeness[few]
        best = near.topk(count, dim=1)
        found[start : start + step] = best.indices.numpy()
        complete[start : start + step] = torch.isfinite(best.values).all(1).numpy()
    return found, fell_back, complete
