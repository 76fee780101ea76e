"""How a model is measured: named, versioned protocols. A number without its protocol means nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

from recllm_bench.artifacts import content_hash
from recllm_bench.errors import BenchError, nearest

_CHOICES = {
    "split": ("leave_one_out", "ratio", "global_time"),
    "seen_score": ("neg_inf", "zero"),
    "ties": ("expected", "pessimistic", "optimistic"),
    "at_failure": ("max_turns", "exclude", "max_turns_plus_1"),
}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Everything that decides what a number means.

    Attributes
    ----------
    name, version : str, int
        The version grows when a change of meaning makes older numbers incomparable.
    about : str
        One line for people; not part of the fingerprint.
    filter : str
        Name of the dataset filter (a dataset card's ``filters``).
    split : str
        ``leave_one_out``, ``ratio`` or ``global_time``.
    split_params : tuple of (str, value)
        Parameters of the split function.
    users : int
        Users evaluated: 0 for all, or the size of a sample drawn once with ``user_seed``.
    user_seed : int
        Seed of that sample and of the candidate file.
    candidates : str
        ``all`` for the whole catalogue, ``sampledN`` for the target and N items the user never touched.
    exclude_history : bool
        Whether items of the case's history are taken out of the ranking (the target never is).
    seen_score : str
        How they are taken out: ``neg_inf`` (no candidates), or ``zero`` (they stay with score 0, as some
        released scripts do).
    exclude_pad : bool
        Whether the padding row is no candidate.
    ties : str
        ``expected`` (mean over random orders of equal scores), ``pessimistic`` or ``optimistic``.
    metrics, cutoffs : tuple
        Reported metrics and their K.
    turns, shown_per_turn : int
        For dialogues: the most turns, and items shown at each; ``turns=0`` means there are none.
    at_failure : str
        What a failed dialogue adds to the average number of turns.
    has_text : bool
        Whether the simulated user says something before the ranking.
    """

    name: str
    about: str = ""
    version: int = 1
    filter: str = "all"
    split: str = "leave_one_out"
    split_params: tuple[tuple[str, Any], ...] = ()
    users: int = 0
    user_seed: int = 2024
    candidates: str = "all"
    exclude_history: bool = True
    seen_score: str = "neg_inf"
    exclude_pad: bool = True
    ties: str = "expected"
    metrics: tuple[str, ...] = ("Recall", "NDCG", "MRR")
    cutoffs: tuple[int, ...] = (1, 5, 10, 20, 50)
    turns: int = 0
    shown_per_turn: int = 0
    at_failure: str = "max_turns"
    has_text: bool = False

    def __post_init__(self) -> None:
        for field, known in _CHOICES.items():
            if getattr(self, field) not in known:
                value = getattr(self, field)
                raise BenchError(f"protocol {self.name}: {field} '{value}' is not one of {', '.join(known)}")
        if self.candidates != "all" and not self.candidates.removeprefix("sampled").isdigit():
            raise BenchError(f"protocol {self.name}: candidates must be 'all' or 'sampledN', got '{self.candidates}'")
        if not self.cutoffs or min(self.cutoffs) < 1:
            raise BenchError(f"protocol {self.name}: cutoffs must be at least 1, got {self.cutoffs}")
        if self.users < 0:
            raise BenchError(f"protocol {self.name}: users must be 0 (all) or a sample size, got {self.users}")

    @property
    def negatives(self) -> int:
        """Sampled candidates beside the target; 0 for full ranking."""
        return 0 if self.candidates == "all" else int(self.candidates.removeprefix("sampled"))

    @property
    def samples_candidates(self) -> bool:
        """Whether ranks are among sampled candidates (not comparable with full ranking)."""
        return self.negatives > 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a run record."""
        return dataclasses.asdict(self)

    def fingerprint(self) -> str:
        """Hash of everything but the explanation: results pair only when it is equal.

        The metrics and cut-offs are left out: they only say what is printed of the same ranks.
        """
        facts = self.as_dict()
        for key in ("about", "metrics", "cutoffs"):
            facts.pop(key)
        return content_hash(facts)


def _catalogue() -> dict[str, Protocol]:
    one_turn = Protocol(
        "latentcrs.one_turn",
        "one opening utterance, full ranking, history items stay in (LatentCRS, Tables 2 and 5)",
        filter="latentcrs",
        exclude_history=False,
        metrics=("Recall", "NDCG"),
        cutoffs=(5, 20),
        has_text=True,
    )
    sampled = Protocol(
        "cesrec.sampled100",
        "the target among 100 items the user never touched (CESRec, Tables 2 to 6); not comparable with full ranking",
        filter="cesrec",
        candidates="sampled100",
        exclude_history=False,
        metrics=("HR", "NDCG"),
        cutoffs=(5, 10),
    )
    full = Protocol("unified.full", "full ranking without the history, leave-one-out: for tables across papers")
    protocols = (
        full,
        dataclasses.replace(
            full,
            name="unified.time",
            about="full ranking without the history, one point in time splits all users",
            split="global_time",
        ),
        dataclasses.replace(
            full,
            name="unified.ratio",
            about="full ranking without the history, the last tenth of each history tests",
            split="ratio",
        ),
        one_turn,
        dataclasses.replace(
            one_turn,
            name="latentcrs.one_turn.sample500",
            about="latentcrs.one_turn on 500 users drawn once (LatentCRS, Table 3)",
            users=500,
        ),
        dataclasses.replace(
            one_turn,
            name="latentcrs.multi_turn",
            about="at most 5 turns with 5 items each, 500 users, a failure counts 5 turns (LatentCRS, Table 4)",
            users=500,
            turns=5,
            shown_per_turn=5,
        ),
        sampled,
        dataclasses.replace(
            sampled, name="cesrec.sampled100.n1000", about="cesrec.sampled100 on 1000 users drawn once", users=1000
        ),
        dataclasses.replace(
            sampled, name="cesrec.sampled100.n100", about="cesrec.sampled100 on 100 users drawn once", users=100
        ),
        dataclasses.replace(
            sampled,
            name="cesrec.full",
            about="cesrec.sampled100 with the whole catalogue as candidates, the history taken out",
            candidates="all",
            exclude_history=True,
        ),
        Protocol(
            "relrec.full",
            "full ranking, history items stay in, as in RecBole (ReLRec, Table 2)",
            filter="relrec",
            exclude_history=False,
            metrics=("Recall", "NDCG"),
            cutoffs=(5, 10, 20),
        ),
        Protocol(
            "iclrec.released",
            "full ranking, seen items get score 0 and stay in, as in the released ICLRec script",
            seen_score="zero",
            metrics=("HR", "NDCG"),
            cutoffs=(5, 10, 20),
        ),
    )
    return {protocol.name: protocol for protocol in protocols}


PROTOCOLS: dict[str, Protocol] = _catalogue()


def protocol_named(name: str) -> Protocol:
    """Return a protocol of :data:`PROTOCOLS`.

    Raises
    ------
    BenchError
        For an unknown name, with the nearest valid one.
    """
    if name not in PROTOCOLS:
        raise BenchError(f"unknown protocol '{name}'.{nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]
