"""A record beside one of the same run made again: do they agree, and to the bit?"""

from __future__ import annotations

from recllm_bench.errors import BenchError
from recllm_bench.reporting.records import RunRecord
from recllm_bench.reporting.users_file import read_ranks

_MACHINE = ("device", "cpu", "gpu")


def same_machine(first: RunRecord, second: RunRecord) -> bool:
    """Whether two records name one kind of device and processor, as far as both say."""
    both = first.hardware.keys() & second.hardware.keys()
    return all(first.hardware[name] == second.hardware[name] for name in both if name in _MACHINE)


def agreement(record: RunRecord, again: RunRecord) -> tuple[bool, bool, list[str]]:
    """Hold a record against the same run made again.

    Returns
    -------
    exact : bool
        Whether all per-user values (their hash), metrics and dialogue metrics are the same to the bit.
    close : bool
        Whether every mean lies inside the record's interval.
    lines : list of str
        What differs: each metric's two means, and how many users got another rank.
    """
    lines, close = [], True
    for kind in ("metrics", "dialogue"):
        old, new = getattr(record, kind), getattr(again, kind)
        for name in dict.fromkeys((*old, *new)):
            if old.get(name) == new.get(name):
                continue
            facts, found = old.get(name), new.get(name)
            if not (isinstance(facts, dict) and isinstance(found, dict) and "mean" in facts and "mean" in found):
                lines.append(f"{name}: {facts} then, {found} now")
                continue
            inside = facts["low"] <= found["mean"] <= facts["high"]
            close = close and inside
            lines.append(f"{name}: {facts['mean']:.6g} then, {found['mean']:.6g} now")
    exact = not lines and record.users_hash == again.users_hash
    if record.users_hash != again.users_hash:
        lines.append(_ranks(record, again))
    return exact, close, lines


def _ranks(record: RunRecord, again: RunRecord) -> str:
    """How many users got another rank."""
    try:
        old, new = read_ranks(record), read_ranks(again)
    except BenchError as error:
        return f"per-user values cannot be compared: {error}"
    if old.users.shape != new.users.shape or (old.users != new.users).any():
        return f"cases of other users: {len(old.users):,} then, {len(new.users):,} now"
    other = int(((old.higher != new.higher) | (old.tied != new.tied)).sum())
    return (
        f"{other:,} of {len(old.users):,} targets have another rank" if other else "ranks are equal, dialogues differ"
    )
