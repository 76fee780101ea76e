"""Which part of each history trains, and what is to be predicted."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recllm_bench.data.histories import Histories
from recllm_bench.errors import BenchError, NotEnough, nearest


@dataclass(frozen=True)
class Cases:
    """Ranking tasks: one row for one target.

    Attributes
    ----------
    users : int64 [n]
        User ids.
    ends : int64 [n]
        The history of a case is ``items[offsets[user - 1]:end]`` (absolute, exclusive).
    targets : int32 [n]
        Item ids to be predicted.
    """

    users: np.ndarray
    ends: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: np.ndarray) -> Cases:
        """The cases at ``rows`` (indices or a mask)."""
        return Cases(self.users[rows], self.ends[rows], self.targets[rows])


@dataclass(frozen=True)
class Split:
    """A training prefix for each user, and the cases to validate and test on.

    Attributes
    ----------
    name : str
        Rule and parameters, such as ``"leave_one_out"``.
    histories : Histories
        All interactions; the split holds views into them, no copies.
    train_ends : int64 [n_users]
        Absolute exclusive end of each user's training prefix.
    valid, test : Cases
        What is to be predicted.
    dropped : dict of str to int
        Users or cases left out, by reason.
    checksum : str
        Hash of the data and of the cut points; names the split in run records.
    """

    name: str
    histories: Histories
    train_ends: np.ndarray
    valid: Cases
    test: Cases
    checksum: str
    dropped: dict[str, int] = field(default_factory=dict)


def leave_one_out(histories: Histories, min_length: int = 3) -> Split:
    """Test on each user's last interaction, validate on the one before, train on the rest.

    The history of a test case holds the validation item, as in every published leave-one-out evaluation.

    Parameters
    ----------
    min_length : int
        Users with fewer interactions have no case and stay whole in training; at least 3, so that a validation
        case has a history.

    Returns
    -------
    Split
        ``dropped["short users"]`` counts the users without a case.

    Raises
    ------
    BenchError
        For ``min_length`` below 3, or when no user is long enough.
    """
    if min_length < 3:
        raise BenchError(f"leave_one_out: min_length must be at least 3 (train, validation, test), got {min_length}")
    long = histories.lengths >= min_length
    last = histories.offsets[1:] - 1
    train_ends = np.where(long, last - 1, last + 1)
    users = np.flatnonzero(long) + 1
    return _split(
        "leave_one_out" if min_length == 3 else f"leave_one_out(min_length={min_length})",
        histories,
        train_ends,
        _cases(histories, users, last[long] - 1),
        _cases(histories, users, last[long]),
        {"short users": int((~long).sum())},
    )


def ratio(histories: Histories, train: float = 0.8, valid: float = 0.1) -> Split:
    """Cut each history by shares: the oldest part trains, the next validates, the newest tests.

    Of ``n`` interactions the first ``max(1, floor(n * train))`` train and those before ``floor(n * (train + valid))``
    validate. Every later interaction is a case of its own whose history is all that came before it, so evaluation
    rolls forward through the user's time.

    Parameters
    ----------
    train, valid : float
        Shares, both above 0 (``valid`` may be 0), together below 1.

    Returns
    -------
    Split
        ``dropped["short users"]`` counts users without a test case; they stay whole in training.

    Raises
    ------
    BenchError
        For shares that leave nothing to train or test on.
    """
    if not (0 < train < 1 and 0 <= valid < 1 and train + valid < 1):
        raise BenchError(f"ratio: train={train} and valid={valid} must leave a share for testing (train + valid < 1)")
    lengths = histories.lengths
    first = histories.offsets[:-1]
    # The small term undoes binary rounding: 10 * (0.8 + 0.1) must be 9, not 8.
    train_ends = first + np.maximum(1, np.floor(lengths * train + 1e-9).astype(np.int64))
    valid_ends = np.maximum(train_ends, first + np.floor(lengths * (train + valid) + 1e-9).astype(np.int64))
    short = valid_ends >= histories.offsets[1:]
    train_ends = np.where(short, histories.offsets[1:], train_ends)
    valid_ends = np.where(short, histories.offsets[1:], valid_ends)
    owners = histories.users_of_positions()
    in_test = ~histories.before(valid_ends)
    valid_places, test_places = np.flatnonzero(~histories.before(train_ends) & ~in_test), np.flatnonzero(in_test)
    return _split(
        f"ratio(train={train:g},valid={valid:g})",
        histories,
        train_ends,
        _cases(histories, owners[valid_places], valid_places),
        _cases(histories, owners[test_places], test_places),
        {"short users": int(short.sum())},
    )


def global_time(histories: Histories, valid_from: float = 0.8, test_from: float = 0.9, targets: str = "last") -> Split:
    """Cut all histories at the same two moments, so that nothing from the future trains a model.

    The moments are the times of the interactions at the shares ``valid_from`` and ``test_from`` of all interactions
    sorted by time. Earlier than the first moment: training. From the first and earlier than the second: validation.
    From the second on: test.

    Parameters
    ----------
    histories : Histories
        All interactions, with times.
    valid_from, test_from : float
        Shares of all interactions, ``0 < valid_from < test_from < 1``.
    targets : {"last", "first", "all"}
        Which of a user's interactions inside a window are cases. The history of a case is all that the user did
        before it, earlier interactions of the same window included.

    Returns
    -------
    Split
        ``dropped`` counts the cases whose user has no earlier interaction, and the users without a test case.

    Raises
    ------
    BenchError
        Without times, with shares out of order, or when a window has no case.
    """
    if histories.times is None:
        raise BenchError(
            "no global time split: this variant of the data has the order of interactions but not their times; "
            "use a leave-one-out protocol such as unified.full, or the variant of the source with timestamps"
        )
    if not 0 < valid_from < test_from < 1:
        raise BenchError(f"global_time: need 0 < valid_from < test_from < 1, got {valid_from} and {test_from}")
    choices = ("last", "first", "all")
    if targets not in choices:
        raise BenchError(f"global_time: unknown targets '{targets}'.{nearest(targets, choices)}")
    times, owners = np.asarray(histories.times), histories.users_of_positions()
    same_user = owners[1:] == owners[:-1]
    if (np.diff(times)[same_user] < 0).any():
        raise BenchError("global_time: a history is not sorted by time; prepare the dataset again")
    total = len(times)
    ranks = [min(int(total * share + 1e-9), total - 1) for share in (valid_from, test_from)]
    valid_time, test_time = np.partition(times, ranks)[ranks] if total else (0, 0)
    # Times rise within a user, so counting the earlier ones gives the absolute end of each prefix.
    first = histories.offsets[:-1]
    train_ends = first + _count_by_user(histories, owners, times < valid_time)
    valid_ends = first + _count_by_user(histories, owners, times < test_time)
    ends = histories.offsets[1:]
    valid, empty_valid = _window_cases(histories, train_ends, valid_ends, owners, targets)
    test, empty_test = _window_cases(histories, valid_ends, ends, owners, targets)
    for part, cases in (("validation", valid), ("test", test)):
        if not len(cases):
            raise NotEnough(f"global_time: the {part} window has no user with a history; move valid_from or test_from")
    return _split(
        f"global_time(valid_from={valid_from:g},test_from={test_from:g},targets={targets})",
        histories,
        train_ends,
        valid,
        test,
        {
            "validation cases without history": empty_valid,
            "test cases without history": empty_test,
            "users without a test case": histories.n_users - len(np.unique(test.users)),
        },
    )


SPLITS: dict[str, Callable[..., Split]] = {"leave_one_out": leave_one_out, "ratio": ratio, "global_time": global_time}


def split_named(name: str, histories: Histories, **params: Any) -> Split:
    """Split by the rule's name; ``params`` are the rule's own.

    Raises
    ------
    BenchError
        For an unknown rule or parameter.
    """
    if name not in SPLITS:
        raise BenchError(f"unknown split '{name}'.{nearest(name, SPLITS)}")
    rule = SPLITS[name]
    known = list(inspect.signature(rule).parameters)[1:]
    for key in params:
        if key not in known:
            raise BenchError(f"split {name}: unknown parameter '{key}'.{nearest(key, known)}")
    return rule(histories, **params)


def with_tests(split: Split, histories: Histories, test: Cases, name: str, dropped: dict[str, int]) -> Split:
    """The split of an enlarged dataset: trained and validated as before, tested on cases of the further users.

    Parameters
    ----------
    split : Split
        Of the users before.
    histories : Histories
        Theirs first, unchanged, then those of users of whom nothing trains.
    test : Cases
        Of the further users.
    name, dropped
        As in :class:`Split`.
    """
    train_ends = np.concatenate([split.train_ends, histories.offsets[len(split.train_ends) : -1]])
    return _split(name, histories, train_ends, split.valid, test, dropped)


def _cases(histories: Histories, users: np.ndarray, positions: np.ndarray) -> Cases:
    positions = positions.astype(np.int64)
    return Cases(users.astype(np.int64), positions, np.asarray(histories.items[positions], dtype=np.int32))


def _count_by_user(histories: Histories, owners: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.bincount(owners[mask] - 1, minlength=histories.n_users).astype(np.int64)


def _window_cases(
    histories: Histories, starts: np.ndarray, ends: np.ndarray, owners: np.ndarray, targets: str
) -> tuple[Cases, int]:
    """Cases of the positions ``starts[u]:ends[u]`` of each user, and how many had no history."""
    if targets == "all":
        positions = np.flatnonzero(histories.before(ends) & ~histories.before(starts))
    else:
        filled = ends > starts
        positions = (ends - 1 if targets == "last" else starts)[filled]
    users = owners[positions]
    known = positions > histories.offsets[users - 1]
    return _cases(histories, users[known], positions[known]), int((~known).sum())


def _split(
    name: str, histories: Histories, train_ends: np.ndarray, valid: Cases, test: Cases, dropped: dict[str, int]
) -> Split:
    if not len(test):
        raise NotEnough(f"{name}: no user has enough interactions for a test case; use more data or another split")
    train_ends = train_ends.astype(np.int64)
    digest = hashlib.sha256(str(histories.n_items).encode())
    cut = (part for cases in (valid, test) for part in (cases.users, cases.ends, cases.targets))
    for array in (histories.items, histories.offsets, train_ends, *cut):
        # The length and type go in first: two neighbouring arrays cannot trade elements unnoticed.
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return Split(name, histories, train_ends, valid, test, digest.hexdigest()[:16], dropped)
