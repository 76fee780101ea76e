"""Does the order of the interactions say anything? A Markov chain on true and on shuffled histories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recllm_bench.data.histories import Histories
from recllm_bench.data.markov import MarkovChain, Places
from recllm_bench.data.splits import leave_one_out

CUTOFF = 10
SMALLEST_DROP = 0.10
FEWEST_HITS = 30
RULE = (
    f"order carries signal when NDCG@{CUTOFF} falls by at least {100 * SMALLEST_DROP:.0f} % under shuffling and the "
    f"95 % interval of the fall, over users, lies above 0; with fewer than {FEWEST_HITS} targets in the first {CUTOFF} "
    "nobody can tell"
)
# Where more targets than this are repeats, leaving out the history would leave out what has to be found.
_REPEATS = 0.05
_Z95 = 1.959963984540054


@dataclass(frozen=True)
class SequentialStructure:
    """What shuffling does to a first-order Markov chain.

    Attributes
    ----------
    cases, users : int
        Test cases scored, and users that have one.
    shuffles, seed : int
        How many shuffles, and what seeds them.
    history_excluded : bool
        Whether a user's own history is left out of the candidates.
    repeated_targets : float
        Share of cases whose target is in the history already.
    true, popularity, shuffled : dict of str to float
        ``HR@10`` and ``NDCG@10``: on the true order, by popularity alone, on shuffled histories (mean).
    ties_shuffled : dict or None
        The same with only those inputs shuffled that share their second with the last one; None without such ties.
    tied_targets : float or None
        Share of cases whose target has the second of the input before it; None without times.
    change : dict of str to float or None
        Relative change, ``shuffled / true - 1``; None when the true value is 0.
    change_spread : dict of str to float or None
        Standard deviation of the relative change over the shuffles.
    fall, fall_low, fall_high : float
        NDCG@10 lost by shuffling, in absolute terms, with its 95 % interval over users (None for a single one).
    verdict : str
        ``"order carries signal"``, ``"hardly any"`` or ``"cannot tell"``.
    rule : str
        When the verdict is which.
    """

    cases: int
    users: int
    shuffles: int
    seed: int
    history_excluded: bool
    repeated_targets: float
    true: dict[str, float]
    popularity: dict[str, float]
    shuffled: dict[str, float]
    ties_shuffled: dict[str, float] | None
    tied_targets: float | None
    change: dict[str, float | None]
    change_spread: dict[str, float | None]
    fall: float
    fall_low: float | None
    fall_high: float | None
    verdict: str
    rule: str = RULE


def sequential_structure(
    histories: Histories, shuffles: int = 5, seed: int = 42, max_cases: int = 60_000
) -> SequentialStructure:
    """Compare a Markov chain's ranking of each user's last item on true and on shuffled histories.

    The chain is fitted once, on the true order of the training part of a leave-one-out split. The test inputs are
    ranked from as they are, and again after a random permutation within each user; targets stay. This is the
    model-based test of Klenitskiy, Volodkevich, Pembek and Vasilev, Does It Look Sequential? (RecSys 2024), with a
    Markov chain where they train SASRec and GRU4Rec; the concern is that of Hidasi and Czapp, Widespread Flaws in
    Offline Evaluation of Recommender Systems (RecSys 2023). Like theirs it cannot tell order from recency: a
    shuffled history puts an older item last.

    A first-order chain reads only the last input, and a uniform permutation puts every input last with equal
    probability, so a shuffle is one draw for each user.

    Candidates are all items but the user's history (the target always stays). Where more than 5 % of the targets are
    repeats, the history stays in: otherwise a chain would be forgiven every repeat but the right one.

    Parameters
    ----------
    shuffles : int
        Permutations to average over.
    seed : int
        Seeds the permutations and the sample of cases.
    max_cases : int
        Above this many test cases, a random sample of them is scored.

    Raises
    ------
    BenchError
        When no user has three interactions.
    """
    split = leave_one_out(histories)
    rng = np.random.default_rng(seed)
    cases = split.test
    if len(cases) > max_cases:
        cases = cases.take(np.sort(rng.choice(len(cases), max_cases, replace=False)))
    items, ends, targets = histories.items, cases.ends, cases.targets
    starts = histories.offsets[cases.users - 1]
    seen_offsets, seen, repeated = _seen_items(histories, starts, ends, targets)
    exclude = bool(repeated.mean() <= _REPEATS)
    excluded = (seen_offsets, seen) if exclude else None
    chain = MarkovChain.fit(histories, split.train_ends)

    def gains(previous: np.ndarray) -> dict[str, np.ndarray]:
        return expected_gains(chain.places(previous, targets, excluded))

    true = gains(items[ends - 1])
    shuffled = [gains(items[rng.integers(starts, ends)]) for _ in range(shuffles)]
    ties_shuffled, tied_targets = None, None
    if histories.times is not None:
        tied_targets = float(np.mean(histories.times[ends] == histories.times[ends - 1]))
        first = _tied_from(histories, ends)
        if (first < ends - 1).any():
            tied = [gains(items[rng.integers(first, ends)]) for _ in range(shuffles)]
            ties_shuffled = {name: float(np.mean([row[name] for row in tied])) for name in true}

    means = {name: float(values.mean()) for name, values in true.items()}
    each = {name: np.array([row[name].mean() for row in shuffled]) for name in true}
    primary = f"NDCG@{CUTOFF}"
    lost = true[primary] - np.mean([row[primary] for row in shuffled], axis=0)
    fall = float(lost.mean())
    margin = _Z95 * float(lost.std(ddof=1)) / len(lost) ** 0.5 if len(lost) > 1 else None
    if means[f"HR@{CUTOFF}"] * len(cases) < FEWEST_HITS:
        verdict = "cannot tell"
    else:
        carries = fall >= SMALLEST_DROP * means[primary] and margin is not None and fall - margin > 0
        verdict = "order carries signal" if carries else "hardly any"
    return SequentialStructure(
        cases=len(cases),
        users=len(split.test),
        shuffles=shuffles,
        seed=seed,
        history_excluded=exclude,
        repeated_targets=float(repeated.mean()),
        true=means,
        popularity={name: float(values.mean()) for name, values in gains(np.zeros_like(targets)).items()},
        shuffled={name: float(values.mean()) for name, values in each.items()},
        ties_shuffled=ties_shuffled,
        tied_targets=tied_targets,
        change={name: float(each[name].mean() / means[name] - 1) if means[name] else None for name in means},
        change_spread={
            name: float((each[name] / means[name]).std(ddof=1)) if means[name] and shuffles > 1 else None
            for name in means
        },
        fall=fall,
        fall_low=None if margin is None else fall - margin,
        fall_high=None if margin is None else fall + margin,
        verdict=verdict,
    )


def expected_gains(places: Places, cutoff: int = CUTOFF) -> dict[str, np.ndarray]:
    """HR and NDCG of one target each, in expectation over random orders of ties.

    With g better and t equal candidates the target has the ranks g + 1 to g + t with equal probability, so its
    expectation is the mean gain of these ranks; gains are 1 (HR) and 1 / log2(rank + 1) (NDCG) up to the cut-off.

    Returns
    -------
    dict of str to float64 [m]
    """
    low = np.minimum(places.higher, cutoff)
    high = np.minimum(places.higher + places.tied, cutoff)
    until = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, cutoff + 2)))])
    return {
        f"HR@{cutoff}": (high - low) / places.tied,
        f"NDCG@{cutoff}": (until[high] - until[low]) / places.tied,
    }


def _seen_items(
    histories: Histories, starts: np.ndarray, ends: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Different items of each case's history but its target, as offsets and items; and whether the target was there."""
    lengths, width = ends - starts, histories.n_items + 1
    case = np.repeat(np.arange(len(starts)), lengths)
    positions = np.arange(len(case)) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    keys = np.unique(case * np.int64(width) + histories.items[positions])
    case, items = np.divmod(keys, width)
    is_target = items == targets[case]
    repeated = np.bincount(case[is_target], minlength=len(starts)) > 0
    counts = np.bincount(case[~is_target], minlength=len(starts))
    return np.concatenate([[0], np.cumsum(counts)]), items[~is_target], repeated


def _tied_from(histories: Histories, ends: np.ndarray) -> np.ndarray:
    """First position of the run of equal times that the last input of each case ends, int64 [m]."""
    changes = np.ones(len(histories.items), dtype=bool)
    changes[1:] = np.diff(np.asarray(histories.times)) != 0
    begins = histories.offsets[:-1]
    changes[begins[begins < len(changes)]] = True
    borders = np.flatnonzero(changes)
    return borders[np.searchsorted(borders, ends - 1, "right") - 1]
