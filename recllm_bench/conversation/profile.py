"""What a simulated user knows: the target's attributes and the user's past. The system under test never sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recllm_bench.conversation.attributes import AttributeTable, Fact
from recllm_bench.conversation.redaction import Redactor
from recllm_bench.errors import BenchError

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue
    from recllm_bench.data.histories import Histories

HISTORY_TITLES = 24
VISIBILITIES = ("attributes_only", "title_and_attributes")


@dataclass(frozen=True, slots=True)
class Profile:
    """One simulated user with one wanted item.

    Attributes
    ----------
    user : int
        User id.
    target : int
        The wanted item's id: for the leakage guard and for the rules, never for a prompt.
    domain : str
        What an item is called, such as ``"movie"``.
    history : tuple of str
        Titles of the last 24 items before the target, oldest first; items without a title are left out.
    facts : tuple of Fact
        Attributes of the target, most common in the catalogue first.
    description : str
        Free text about the target, redacted.
    title : str
        The target's title, only under ``title_and_attributes``.
    past : tuple of int
        The items of ``history``, without those that the training part of the split does not have.
    tested : bool
        Whether the target lies outside the training part: such users have phrasings of their own.
    """

    user: int
    target: int
    domain: str
    history: tuple[str, ...]
    facts: tuple[Fact, ...]
    description: str = ""
    title: str = ""
    past: tuple[int, ...] = ()
    tested: bool = True


def build_profiles(
    catalogue: Catalogue,
    histories: Histories,
    users: np.ndarray,
    ends: np.ndarray,
    targets: np.ndarray,
    visibility: str = "attributes_only",
    redactor: Redactor | None = None,
    *,
    attributes: AttributeTable | None = None,
    train_ends: np.ndarray | None = None,
) -> list[Profile]:
    """Profiles of ranking cases.

    Attribute text that names the target does not reach the simulator: such facts are left out, and descriptions are
    redacted (protocols, section 5.4, rule 2).

    Parameters
    ----------
    catalogue, histories
        The items and who consumed what.
    users, ends, targets : array [n]
        As in :class:`~recllm_bench.data.splits.Cases`; only ``items[offsets[user - 1]:end]`` is read.
    visibility : {"attributes_only", "title_and_attributes"}
        Whether the simulator is told the title; the guard is on in both cases.
    redactor : Redactor, optional
        A guard to share; made when it is not given.
    attributes : AttributeTable, optional
        The vocabulary of facts; by default categories, decades and years.
    train_ends : int64 [n_users], optional
        Ends of the training part; without them everybody is tested, and all of the past counts as training.

    Raises
    ------
    BenchError
        For an unknown visibility, or a target that the catalogue does not have.
    """
    if visibility not in VISIBILITIES:
        raise BenchError(f"target_visibility '{visibility}' is not one of {', '.join(VISIBILITIES)}")
    users, ends, targets = (np.asarray(column, dtype=np.int64) for column in (users, ends, targets))
    bad = np.flatnonzero((targets < 1) | (targets >= len(catalogue)))
    if len(bad):
        raise BenchError(
            f"user {users[bad[0]]}: target {targets[bad[0]]} is not in the catalogue of {len(catalogue) - 1}"
        )
    attributes = attributes or AttributeTable(catalogue)
    guard = redactor or Redactor(catalogue)
    wanted = np.unique(targets).tolist()
    facts = {item: _safe_facts(attributes.facts(item), item, guard) for item in wanted}
    told = {item: text for item, text in zip(wanted, catalogue.descriptions_of(wanted), strict=True) if text}
    described = dict(zip(told, guard.redact(list(told.values()), list(told)).texts, strict=True))
    starts = np.maximum(histories.offsets[users - 1], ends - HISTORY_TITLES)
    titles, items, domain = catalogue.titles, histories.items, catalogue.domain
    shows_title = visibility == "title_and_attributes"
    limits = ends if train_ends is None else np.minimum(ends, np.asarray(train_ends)[users - 1])
    tested = np.ones(len(users), dtype=bool) if train_ends is None else ends >= np.asarray(train_ends)[users - 1]
    return [
        Profile(
            user,
            target,
            domain,
            tuple([titles[item] for item in items[start:end].tolist() if titles[item]]),
            facts[target],
            described.get(target, ""),
            titles[target] if shows_title else "",
            tuple(items[start:limit].tolist()),
            later,
        )
        for user, start, end, target, limit, later in zip(
            *(column.tolist() for column in (users, starts, ends, targets, limits, tested)), strict=True
        )
    ]


def uttered_facts(
    profile: Profile, sentences: Sequence[str], attributes: AttributeTable | None = None
) -> tuple[Fact, ...]:
    """Facts of the target that the user's sentences state, found by their words, or others that a vocabulary knows."""
    from recllm_bench.conversation.redaction import contains

    text = " . ".join(sentences)
    forms = {fact: (fact.value, *(attributes.wordings(fact) if attributes else ())) for fact in profile.facts}
    return tuple(fact for fact in profile.facts if any(contains(text, form) for form in forms[fact]))


def _safe_facts(facts: Sequence[Fact], target: int, guard: Redactor) -> tuple[Fact, ...]:
    return tuple(fact for fact in facts if not guard.names(fact.value, target))
