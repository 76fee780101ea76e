"""Dialogues to read and users to look at, from the files beside a record; titles where these or the cache hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recllm_bench.reporting.comparison import Comparison
from recllm_bench.reporting.record import RunRecord
from recllm_bench.reporting.seeds import on_disk
from recllm_bench.reporting.site.leaderboards import run_id
from recllm_bench.reporting.site.prepared_behind import prepared_of, split_of
from recllm_bench.reporting.users_file import read_ranks

if TYPE_CHECKING:
    import numpy as np

MOST_DIALOGUES = 500
MOST_USERS = 1000
_LAST = 10
_LONGEST = 160  # of an item's text: some catalogues have descriptions in it


def dialogues_of(record: RunRecord) -> dict[str, Any] | None:
    """A run's dialogues; None where the record has no file of them.

    Returns
    -------
    dict
        ``titles`` (item id to text), ``total``, ``bad`` (lines that are no dialogue) and ``dialogues``: lists of
        ``user, target, turns, ended, leaked, n_match, history, messages ([role, text] each), shown``. Of more than
        :data:`MOST_DIALOGUES` those with a leak, then the first.
    """
    path = None if record.folder is None else record.folder / "dialogues.jsonl"
    if path is None or not path.exists():
        return None
    titles: dict[str, str] = {}
    found, bad = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(_dialogue(json.loads(line), titles))
        except (ValueError, TypeError, KeyError, AttributeError):
            bad += 1
    kept = sorted(range(len(found)), key=lambda place: (not found[place][4], place))[:MOST_DIALOGUES]
    chosen = [found[place] for place in sorted(kept)]
    used = {str(item) for each in chosen for item in (each[1], *each[6], *each[8])}
    return {
        "titles": {item: text for item, text in titles.items() if item in used},
        "total": len(found),
        "bad": bad,
        "dialogues": chosen,
    }


def _dialogue(entry: Any, titles: dict[str, str]) -> list[Any]:
    def named(part: Any) -> int:
        titles[str(int(part["item"]))] = str(part["text"])[:_LONGEST]
        return int(part["item"])

    return [
        int(entry["user"]),
        named(entry["target"]),
        int(entry["turns"]),
        str(entry["ended"]),
        bool(entry["leaked"]),
        int(entry.get("n_match", 0)),
        [named(part) for part in entry["history"]],
        [[str(message["role"]), str(message["text"])] for message in entry["messages"]],
        [named(part) for part in entry["shown"]],
    ]


def users_of(comparison: Comparison, dialogues: Mapping[str, dict[str, Any]]) -> dict[str, Any] | None:
    """Users of a table with their target's place in every row; None where no row has them.

    Parameters
    ----------
    dialogues : mapping of str to dict
        Of the table's runs (:func:`dialogues_of`), by :func:`.run_id`: users are linked to theirs, whose titles and
        histories serve where the cache lacks the data.

    Returns
    -------
    dict
        ``rows`` (``name, run`` each; ``talk``, the run whose dialogues can be read, and ``talked``, the users who held
        them), ``users`` (lists of ``user, target, history length, history, places``),
        ``titles``, ``total`` users, ``pair`` (the subject and its best baseline, as places in ``rows``) and ``about``:
        where titles and histories come from. A place is 1 for the best; ties count half, seeds are averaged; target 0
        is not told (a shared record).
    """
    rows = [record for record in comparison.records if on_disk(record)]
    pairing = comparison.records[comparison.subject].pairing
    rows = [record for record in rows if record.pairing == pairing]
    if not rows:
        return None
    import numpy as np

    places: dict[str, tuple[RunRecord, np.ndarray]] = {}
    users, targets, lengths, _ = _first_cases((rows[0].members or rows)[0])
    for record in rows:
        found = [_first_cases(run) for run in record.members or [record]]
        if all(np.array_equal(each[0], users) for each in found):
            places[run_id(record)] = (record, np.mean([each[3] for each in found], axis=0))
        if not targets.any():
            targets = found[0][1] if len(found[0][1]) == len(targets) else targets
    chosen = np.unique(np.linspace(0, len(users) - 1, min(MOST_USERS, len(users))).astype(int))
    wanted = set(users[chosen].tolist())
    histories, titles, about = _histories(comparison.records[comparison.subject], wanted, list(dialogues.values()))
    listed: list[list[Any]] = []
    for row in chosen.tolist():
        user = int(users[row])
        at = [round(float(column[row]), 1) for _, column in places.values()]
        listed.append([user, int(targets[row]), int(lengths[row]), histories.get(user, []), at])
    keys, subject = list(places), comparison.subject
    baseline = next((each.row for each in comparison.planned if each.role == "best baseline"), subject)
    pair = [run_id(comparison.records[row]) for row in (subject, baseline)]
    used = {str(item) for each in listed for item in (each[1], *each[3])}
    return {
        "rows": [{"name": row.name, "run": key, **_talked(row, dialogues)} for key, (row, _) in places.items()],
        "users": listed,
        "titles": {item: text for item, text in titles.items() if item in used},
        "total": len(users),
        "pair": [keys.index(key) for key in pair if key in keys],
        "about": about,
    }


def _talked(row: RunRecord, dialogues: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Whose dialogues of a row the page holds; of several seeds those of the first that has some."""
    keys = [key for run in row.members or [row] if (key := run_id(run)) in dialogues]
    return {"talk": keys[0], "talked": [each[0] for each in dialogues[keys[0]]["dialogues"]]} if keys else {}


def _first_cases(run: RunRecord) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Users (ascending), and target, length of history and expected place of each one's first case."""
    import numpy as np

    ranks = read_ranks(run)
    users, first = np.unique(ranks.users, return_index=True)
    return users, ranks.targets[first], ranks.lengths[first], (1 + ranks.higher + (ranks.tied - 1) / 2)[first]


def _histories(
    record: RunRecord, wanted: set[int], dialogues: Sequence[dict[str, Any]]
) -> tuple[dict[int, list[int]], dict[str, str], str]:
    """Last items of users before their target, titles by item id, and where both come from."""
    prepared = prepared_of(record)
    split = split_of(record, prepared) if prepared is not None else None
    if prepared is not None and split is not None:
        data = split.histories
        found: dict[int, list[int]] = {}
        for user, end in zip(split.test.users.tolist(), split.test.ends.tolist(), strict=True):
            if user in wanted:
                start = max(int(data.offsets[user - 1]), end - _LAST)
                found.setdefault(user, data.items[start:end].tolist())
        items = {*split.test.targets.tolist(), *(item for row in found.values() for item in row)}
        titles = {str(item): prepared.catalogue.text(item)[:_LONGEST] for item in sorted(items)}
        return found, titles, "Histories (the last ten items) and titles are those of the prepared data in the cache."
    titles = {item: text for each in dialogues for item, text in each["titles"].items()}
    found = {row[0]: row[6] for each in dialogues for row in each["dialogues"] if row[0] in wanted}
    name = record.dataset.get("name")
    missing = f"the prepared data of {name} are not in the cache (recllm-bench prepare {name} puts them there)"
    if titles:
        return found, titles, f"Histories and titles are those that dialogues mention: {missing}."
    return {}, {}, f"No histories and no titles: {missing}."
