"""Print first utterances of a simulator for a data set, and what they leave: read them before you trust a table.

    python benchmarks/utterances.py ml-100k rules --count 200
    python benchmarks/utterances.py ml1m rules rules:2 taste local:smollm2 --beside all --users 500

With ``--beside`` (redial, inspired, opendialkg, all) it prints instead how far each simulator is from what people said
in these dialogues (docs/people.md; ``--json FILE`` records it); ``people`` in place of a simulator prints what people
said.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from recllm_bench.artifacts import write_json
from recllm_bench.conversation.disclosure import disclosure, in_words
from recllm_bench.conversation.likeness import likeness, likeness_table
from recllm_bench.conversation.profile import build_profiles
from recllm_bench.conversation.real_users import real_cases
from recllm_bench.conversation.simulators import simulator_named
from recllm_bench.data.prepare import prepare
from recllm_bench.data.splits import leave_one_out
from recllm_bench.reporting.machine import machine_facts


def spoken(dataset: str, simulator: str, users: int, filter: str) -> tuple[list[str], list[int], str]:
    """First utterances of tested users, how many items fit each, and what that is in words."""
    data = prepare(dataset, filter=filter)
    split = leave_one_out(data.histories)
    guarded, cases = simulator_named(simulator, data.catalogue, seed=42), split.test
    cases = cases.take(np.arange(min(users, len(cases)) if users else len(cases)))
    profiles = build_profiles(
        data.catalogue, data.histories, cases.users, cases.ends, cases.targets,
        attributes=guarded.attributes, train_ends=split.train_ends,
    )  # fmt: skip
    texts, said, refused = guarded.open(profiles), guarded.facts_said(profiles), guarded.facts_refused(profiles)
    left = guarded.attributes.count_matches(said, refused).tolist()
    counts = getattr(guarded.simulator, "counts", {})  # of a chat model
    told = f"{', '.join(f'{count} {name}' for name, count in counts.items())}; " if counts else ""
    return texts, left, told + in_words(disclosure(guarded.attributes, said, refused, cases.targets.tolist()))


def recorded(rows: dict[str, list[str]], people: list[str], given: argparse.Namespace) -> dict[str, Any]:
    """What the table shows, to the last digit."""
    half = {"people, half against half": likeness(people[::2], people[1::2])}
    found = {name: dataclasses.asdict(each) for name, each in half.items()}
    found |= {name: dataclasses.asdict(likeness(texts, people)) for name, texts in rows.items()}
    for each in found.values():
        each["distinct"] = None if math.isnan(each["distinct"]) else each["distinct"]
    asked = {name: getattr(given, name) for name in ("dataset", "users", "filter", "beside")}
    return {"benchmark": "utterances", "machine": machine_facts("cpu"), **asked, "people": len(people), "rows": found}


def main(words: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("simulators", nargs="+")
    parser.add_argument("--count", type=int, default=200, help="utterances to print")
    parser.add_argument("--users", type=int, default=0, help="users who speak (default: all)")
    parser.add_argument("--filter", default="all")
    parser.add_argument("--beside", default="", help="people of which dialogues")
    parser.add_argument("--json", type=Path, help="write what --beside shows to this file")
    given = parser.parse_args(words)
    people = []
    if given.beside or "people" in given.simulators:
        shelf = prepare(given.dataset, filter=given.filter).catalogue
        people = [case["words"] for case in real_cases(shelf, given.beside or "all")[0]]
    if given.beside:
        rows = {name: spoken(given.dataset, name, given.users, given.filter)[0] for name in given.simulators}
        print(f"{len(people)} utterances of people\n\n{likeness_table(rows, people)}")
        if given.json:
            write_json(given.json, recorded(rows, people, given))
        return
    for name in given.simulators:
        texts, left, what = (
            (people, [], "") if name == "people" else spoken(given.dataset, name, given.users, given.filter)
        )
        print(what)
        for place, text in enumerate(texts[: given.count]):
            print(f"{left[place] if left else '':>6}  {text}")


if __name__ == "__main__":
    main()
