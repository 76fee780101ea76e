"""Whether simulated users separate systems: success by turn of controls that need no training, and what still fits.

Usage: python benchmarks/dialogues.py ml1m rules --users 500 --set persona=terse opens=0.1
       python benchmarks/dialogues.py ml-100k taste --read 50

``ignored`` shows the most popular items one after the other; ``fits`` those that fit what was understood so far, by
popularity or by ItemKNN; ``oracle`` knows the target. Beside them stands popularity's own hit rate at as many items.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable

import numpy as np

from recllm_bench.artifacts import ArtifactStore
from recllm_bench.conversation.dialogue import Response
from recllm_bench.conversation.dialogue_loop import Outcomes, run_dialogues
from recllm_bench.evaluation.candidates import evaluated_cases
from recllm_bench.evaluation.dialogue_outcomes import success_at
from recllm_bench.evaluation.dialogue_turns import turn_measures
from recllm_bench.locations import cache_folder
from recllm_bench.planning import resolved
from recllm_bench.recipe import override, recipe_from
from recllm_bench.runner import BenchCell

ROWS = {
    "popularity, ignored": {"hears": "nothing"},
    "ItemKNN, ignored": {"hears": "nothing", "among": {"recent-knn": {}}},
    "popularity, opening fits": {"hears": "opening"},
    "popularity, fits": {},
    "ItemKNN, fits": {"among": {"recent-knn": {}}},
}


def main(dataset: str, simulator: str, users: int, settings: list[str], read: int = 0) -> dict[str, Outcomes]:
    """Hold the dialogues of every row and print what became of them."""
    base = {"model": "words-fit", "dataset": dataset, "protocol": "latentcrs.multi_turn", "device": "cpu"}
    base["conversation"] = {"simulator": simulator, "users": users}
    base = override(base, [f"conversation.{setting}" for setting in settings])
    store, found = ArtifactStore(cache_folder()), {}
    for name, options in {**ROWS, "oracle": {}}.items():
        cell = BenchCell(resolved(recipe_from({**base, "options": options}, "here")), store=store)
        rules = dataclasses.replace(cell.protocol, users=min(users, cell.dataset.histories.n_users))
        cases, words = evaluated_cases(cell.split.test, rules), cell.job.words
        target = dict(zip(cases.users.tolist(), cases.targets.tolist(), strict=True))
        respond: Callable = lambda talks, target=target: [Response([target[talk.user]]) for talk in talks]  # noqa: E731
        if name != "oracle":
            model, job = cell.cell.load(), cell.talking_job()
            respond = lambda talks, model=model, job=job: model.respond(job, talks)  # noqa: E731
        start = time.perf_counter()
        found[name] = outcomes = run_dialogues(
            respond, words.speaker(cases), words.profiles(cases), cases, cell.dataset.histories,
            cell.dataset.catalogue, max_turns=rules.turns, shown_per_turn=rules.shown_per_turn,
        )  # fmt: skip
        shares = [success_at(outcomes.turns, turn).mean() for turn in range(1, rules.turns + 1)]
        fitting = [np.median(column[column >= 0]) for column in outcomes.left.T if (column >= 0).any()]
        print(
            f"{name:25} S@1..{rules.turns} {' '.join(f'{share:.3f}' for share in shares)}  "
            f"left {np.mean([end == 'user left' for end in outcomes.ended]):.3f}  still fit "
            f"{' '.join(f'{count:.0f}' for count in fitting)}  {time.perf_counter() - start:.1f} s",
            flush=True,
        )
    seen = cell.split.histories.before(cell.split.train_ends)
    counts = np.bincount(cell.split.histories.items[seen], minlength=cell.split.histories.n_items + 1)
    ranks = np.argsort(np.argsort(-counts[1:], kind="stable"))[cases.targets - 1]
    hits = [(ranks < rules.shown_per_turn * turn).mean() for turn in range(1, rules.turns + 1)]
    print(f"{'popularity, hit rate':25}       {' '.join(f'{share:.3f}' for share in hits)}")
    if read:
        _print_dialogues(found["popularity, fits"], cell.dataset.catalogue, read)
    else:
        outcomes = found["popularity, fits"]
        gone = [end == "user left" for end in outcomes.ended]
        for measure in turn_measures(outcomes.turns, outcomes.left, gone, rules.shown_per_turn):
            print(f"  popularity, fits: {measure.label}: {measure.value:.4g}")
    return found


def _print_dialogues(outcomes: Outcomes, catalogue, count: int) -> None:
    for row, talk in enumerate(outcomes.dialogues[:count]):
        print(f"\n{catalogue.text(int(outcomes.targets[row]))} -> {outcomes.ended[row]} {outcomes.left[row].tolist()}")
        lists = iter(talk.lists())
        for role, text in talk.messages:
            shown = "; ".join(catalogue.text(item) for item in next(lists)) if role != "user" else ""
            print(f"  user: {text}" if role == "user" else f"    shown: {shown}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("simulator")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="options under conversation")
    parser.add_argument("--read", type=int, default=0, metavar="N", help="print so many dialogues")
    given = parser.parse_args()
    main(given.dataset, given.simulator, given.users, given.set, given.read)
