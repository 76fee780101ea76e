"""One user of a run record, told for people: history, what was wanted and said, what was ranked first, each round."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recllm_bench.errors import BenchError
from recllm_bench.reporting.users_file import read_ranks, record_data

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue
    from recllm_bench.evaluation.places import Ranks
    from recllm_bench.reporting.record import RunRecord

FILE = "cases.parquet"
DIALOGUES = "dialogues.jsonl"
_LISTED = 10  # newest items of a history, and first of a ranking


def write_cases(
    path: Path, ranks: Ranks, said: Sequence[str] | None, rounds: Sequence[Sequence[Mapping[str, Any]]]
) -> None:
    """Write what a record keeps of each case beside its place, a row each in the order of ``users.parquet``.

    Parameters
    ----------
    said : sequence of str, optional
        First sentence of each case's user.
    rounds : sequence
        As :meth:`recllm_bench.api.method.Method.happened` gives them; empty without.

    Raises
    ------
    BenchError
        When there are rounds of another number of cases, or with an unknown part.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    items = pa.list_(pa.int32())
    parts = {"shown": pa.int32(), "said": pa.string(), "accepted": pa.bool_(), "masked": items, "history": items}
    parts |= {"higher": pa.int64(), "tied": pa.int64()}
    unknown = {name for case in rounds for each in case for name in each} - set(parts)
    if unknown or (len(rounds) and len(rounds) != len(ranks)):
        what = f"unknown parts {sorted(unknown)}" if unknown else f"{len(rounds)} cases, not {len(ranks)}"
        raise BenchError(f"happened() tells rounds with {what}; the parts are {', '.join(parts)}")
    table = {"user": pa.array(ranks.users, pa.int64())}
    if ranks.top is not None:
        table["top"] = pa.array(ranks.top.tolist(), items)
    if said is not None:
        table["said"] = pa.array(said, pa.string())
    if len(rounds):
        table["rounds"] = pa.array([list(map(dict, case)) for case in rounds], pa.list_(pa.struct(list(parts.items()))))
    pq.write_table(pa.table(table), path, compression="zstd")


def show_case(record: RunRecord, user: int) -> str:
    """Everything that a record and its data tell of a user.

    Parameters
    ----------
    user : int
        Id in the prepared data, from 1.

    Raises
    ------
    BenchError
        When the run did not rank this user, or its data have changed.
    """
    ranks = read_ranks(record)
    rows = (ranks.users == user).nonzero()[0].tolist()
    if not rows:
        known = ranks.users.tolist()
        raise BenchError(
            f"--user {user}: {record.name} has no case of this user; its {len(set(known)):,} users are numbered from "
            f"{min(known)} to {max(known)}, such as {known[len(known) // 2]}"
        )
    dataset, _ = record_data(record)
    catalogue, token = dataset.catalogue, dataset.user_tokens[user]
    kept, lines = _kept(record, len(ranks.users)), []
    for row in rows:
        place = (int(ranks.higher[row]), int(ranks.tied[row]))
        target, length = int(ranks.targets[row]), int(ranks.lengths[row])
        history = dataset.histories.of(user)[:length].tolist()
        case = {name: column[row] for name, column in kept.items()}
        lines += [
            f"{record.name} on {dataset.name} ({record.protocol['name']}), user {user} ('{token}')",
            f"wanted: {_named(catalogue, target) if target else 'not told in a shared copy'}",
            f"rank {_rank(*place)} of {int(ranks.candidates[row]):,}",
            f"history of {length:,}, the newest last:",
            *(_listed(catalogue, history[-_LISTED:], max(0, length - _LISTED))),
        ]
        if said := case.get("said"):
            lines.append(f"the user says: {said}")
        rounds = case.get("rounds") or []
        for number, (before, after) in enumerate(pairwise(rounds), 1):
            lines += [f"round {number}", *_round(catalogue, before, after)]
        if top := [item for item in case.get("top") or [] if item]:
            lines += ["ranked first:"]
            lines += [
                f"  {'*' if item == target else ' '} {number:2}. {_named(catalogue, item)}"
                for number, item in enumerate(top[:_LISTED], 1)
            ]
        lines.append("")
    lines += _dialogue(record, user)
    if not kept:
        again = shlex.join(["recllm-bench", "run", "--recipe", f"{record.folder}/recipe.yaml", "--alone", "--again"])
        lines.append(f"this record does not hold what was ranked first, said and masked; '{again}' makes one that does")
    return "\n".join(lines).rstrip()


def _kept(record: RunRecord, cases: int) -> dict[str, list[Any]]:
    """Columns of the file of cases; empty where a record has none, as an older one and a shared copy."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(record.folder or ".") / FILE
    if not path.exists():
        return {}
    try:
        kept = pq.read_table(path).to_pydict()
    except (OSError, pa.ArrowException) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
        raise BenchError(f"{path} cannot be read ({line}); remove it, or run the cell again") from error
    if len(kept["user"]) != cases:
        raise BenchError(f"{path} has {len(kept['user'])} cases, its record {cases}; remove it, or run the cell again")
    return kept


def _round(catalogue: Catalogue, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What happened in a round, and what it made of the history and of the target's place."""
    lines = []
    if shown := after.get("shown"):
        lines.append(f"  shown:  {_named(catalogue, shown)}")
    if after.get("accepted"):
        lines.append("  the user said yes" + ("" if shown else " before"))
    if after.get("said"):
        lines.append(f"  said:   {after['said']}")
    lines += [f"  masked: {_named(catalogue, item)}" for item in after.get("masked") or ()]
    old, new = before.get("history") or [], after.get("history") or []
    if new and new != old:
        fresh, gone = set(new) - set(old), [item for item in old if item not in new]
        lines.append(f"  history in its place ({len(new)} items; + written, - gone):")
        lines += [f"    - {_named(catalogue, item)}" for item in gone]
        lines += [f"    {'+' if item in fresh else ' '} {_named(catalogue, item)}" for item in new[-_LISTED:]]
        lines += [f"    + {_named(catalogue, item)}" for item in new[:-_LISTED] if item in fresh]
    elif new:
        lines.append("  history as it was")
    if after.get("higher") is not None and before.get("higher") is not None:
        places = (_rank(each["higher"], each["tied"]) for each in (before, after))
        lines.append(f"  rank {' -> '.join(places)}")
    return lines


def _dialogue(record: RunRecord, user: int) -> list[str]:
    path = Path(record.folder or ".") / DIALOGUES
    if not path.exists():
        return []
    with open(path, encoding="utf-8") as file:
        held = next((entry for entry in map(json.loads, file) if entry["user"] == user), None)
    if held is None:
        return []
    said = [f"  {message['role']:9} {message['text']}" for message in held["messages"]]
    return [f"dialogue ({held['turns']} turns, {held['ended']}):", *said, ""]


def _listed(catalogue: Catalogue, items: Sequence[int], older: int) -> list[str]:
    head = [f"    ... {older:,} older"] if older else []
    return head + [f"    {_named(catalogue, item)}" for item in items]


def _named(catalogue: Catalogue, item: int) -> str:
    """Title (or token) of an item, and its categories."""
    kinds = ", ".join(catalogue.categories[item])
    return (catalogue.titles[item] or catalogue.tokens[item]) + (f"  [{kinds}]" if kinds else "")


def _rank(higher: int, tied: int) -> str:
    from recllm_bench.evaluation.places import UNRANKED

    if higher >= UNRANKED:
        return "none (no score)"
    return f"{higher + 1:,}" + (f" to {higher + tied:,} (tied)" if tied > 1 else "")
