"""Whether simulated users separate systems: success by turn of controls that need no training, and what still fits.

Usage: python benchmarks/dialogues.py ml1m rules --users 500 --set persona=terse opens=0.1
       python benchmarks/dialogues.py ml1m rules --trained --json FILE        (dialogue_figure.py draws it)
       python benchmarks/dialogues.py ml-100k taste --read 50

``ignored`` shows the most popular items one after the other; ``fits`` those that fit what was understood so far, by
popularity or by ItemKNN; ``oracle`` knows the target. Beside them stands popularity's own hit rate at as many items.
``--trained`` adds LatentCRS, trained by its recipe for dialogues (``--quick 2``: in at most two passes over the data)
where the cache folder does not have it yet; seconds are those of the dialogues alone. ``--read`` prints as many
dialogues with a system that lists what fits, and with one that asks first, to be read by people.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from recllm_bench.artifacts import ArtifactStore, write_json
from recllm_bench.conversation.dialogue import Response
from recllm_bench.conversation.dialogue_loop import Outcomes, run_dialogues
from recllm_bench.evaluation.candidates import evaluated_cases
from recllm_bench.evaluation.dialogue_outcomes import success_at
from recllm_bench.evaluation.dialogue_turns import turn_measures
from recllm_bench.locations import cache_folder
from recllm_bench.planning import recipe_values, resolved
from recllm_bench.recipe import laid_over, override, recipe_from
from recllm_bench.reporting.machine import machine_facts
from recllm_bench.runner import BenchCell

PROTOCOL = "latentcrs.multi_turn"
Row = tuple[str, dict[str, Any]]
"""A model and its options."""
ORACLE = "oracle"
CONTROLS: dict[str, Row] = {
    "popularity, ignored": ("words-fit", {"hears": "nothing"}),
    "ItemKNN, ignored": ("words-fit", {"hears": "nothing", "among": {"recent-knn": {}}}),
    "popularity, opening fits": ("words-fit", {"hears": "opening"}),
    "popularity, fits": ("words-fit", {}),
    "ItemKNN, fits": ("words-fit", {"among": {"recent-knn": {}}}),
    ORACLE: ("words-fit", {}),
}
TRAINED: dict[str, Row] = {"LatentCRS_B": ("latentcrs", {}), "LatentCRS_F": ("latentcrs", {"variant_output": "F"})}
MODELS = {model for model, _ in TRAINED.values()}
READ: dict[str, Row] = {"lists": ("words-fit", {}), "asks": ("asking", {"model": "words-fit", "questions": 3})}


def cell_of(row: Row, dataset: str, simulator: str, users: int, settings: list[str], quick: int = 0) -> BenchCell:
    """A row, with the users that all rows share."""
    model, options = row
    values = recipe_values(model, dataset, PROTOCOL)
    changes = {"device": "cpu", "options": options, "conversation": {"simulator": simulator, "users": users}}
    changes |= {"quick": quick} if quick and model in MODELS else {}
    values = override(laid_over(values, changes), [f"conversation.{setting}" for setting in settings])
    return BenchCell(resolved(recipe_from(values, "here")), store=ArtifactStore(cache_folder()))


def hold(cell: BenchCell, users: int, knows_target: bool = False) -> tuple[Outcomes, dict[str, float]]:
    """The dialogues of a row, and their seconds on the clock and of all cores; training is over by then."""
    job, words, data = cell.talking_job(), cell.job.words, cell.dataset
    cases = evaluated_cases(
        cell.split.test, dataclasses.replace(job.protocol, users=min(users, data.histories.n_users))
    )
    target = dict(zip(cases.users.tolist(), cases.targets.tolist(), strict=True))
    respond: Callable = lambda talks: [Response([target[talk.user]]) for talk in talks]  # noqa: E731
    if not knows_target:
        model = cell.cell.load()
        respond = lambda talks: model.respond(job, talks)  # noqa: E731
    start, busy = time.perf_counter(), time.process_time()
    outcomes = run_dialogues(
        respond, words.speaker(cases), words.profiles(cases), cases, data.histories, data.catalogue,
        max_turns=job.protocol.turns, shown_per_turn=job.protocol.shown_per_turn,
    )  # fmt: skip
    return outcomes, {"seconds": time.perf_counter() - start, "CPU seconds": time.process_time() - busy}


def found(outcomes: Outcomes, seconds: dict[str, float], shown: int) -> dict[str, Any]:
    """What became of a row, for people, figures and records."""
    turns = outcomes.left.shape[1]
    columns = [column[column >= 0] for column in outcomes.left.T]
    gone = [end == "user left" for end in outcomes.ended]
    measures = turn_measures(outcomes.turns, outcomes.left, gone, shown)
    return {
        "success": [float(success_at(outcomes.turns, turn).mean()) for turn in range(1, turns + 1)],
        "still fit, median": [float(np.median(column)) for column in columns if len(column)],
        "share that left": float(np.mean(gone)),
        **seconds,
        "measures": [[each.name, each.about, each.value] for each in measures],
    }


def hit_rates(cell: BenchCell, outcomes: Outcomes) -> list[float]:
    """Popularity's own hit rate at as many items as each turn has shown."""
    histories, shown = cell.split.histories, cell.talking_job().protocol.shown_per_turn
    counts = np.bincount(histories.items[histories.before(cell.split.train_ends)], minlength=histories.n_items + 1)
    ranks = np.argsort(np.argsort(-counts[1:], kind="stable"))[outcomes.targets - 1]
    return [float((ranks < shown * turn).mean()) for turn in range(1, outcomes.left.shape[1] + 1)]


def main(
    dataset: str,
    simulator: str,
    users: int,
    settings: list[str],
    trained: bool = False,
    file: Path | None = None,
    quick: int = 0,
) -> dict[str, Outcomes]:
    """Hold the dialogues of every row and print what became of them."""
    outcomes, rows, rates = {}, {}, []
    for name, row in {**CONTROLS, **(TRAINED if trained else {})}.items():
        cell = cell_of(row, dataset, simulator, users, settings, quick)
        outcomes[name], seconds = hold(cell, users, name == ORACLE)
        rows[name] = this = found(outcomes[name], seconds, cell.talking_job().protocol.shown_per_turn)
        print(
            f"{name:25} S@1.. {' '.join(f'{share:.3f}' for share in this['success'])}  left "
            f"{this['share that left']:.3f}  still fit {' '.join(f'{n:.0f}' for n in this['still fit, median'])}  "
            f"{seconds['seconds']:.1f} s, {seconds['CPU seconds']:.1f} of CPU",
            flush=True,
        )
        rates = rates or hit_rates(cell, outcomes[name])
    print(f"{'popularity, hit rate':25}       {' '.join(f'{share:.3f}' for share in rates)}")
    for name, about, value in rows["popularity, fits"]["measures"]:
        print(f"  popularity, fits: {name}, {about}: {value:.4g}")
    if file:
        asked = {"dataset": dataset, "simulator": simulator, "users": users, "set": settings, "quick": quick}
        record = {"benchmark": "dialogues", "machine": machine_facts("cpu"), **asked, "hit rate": rates, "rows": rows}
        write_json(file, record)
    return outcomes


def read(dataset: str, simulator: str, count: int, settings: list[str]) -> None:
    """Print dialogues of the same users with a system that lists and with one that asks."""
    for name, row in READ.items():
        cell = cell_of(row, dataset, simulator, count, settings)
        outcomes, catalogue = hold(cell, count)[0], cell.dataset.catalogue
        for place, talk in enumerate(outcomes.dialogues):
            wanted = catalogue.text(int(outcomes.targets[place]))
            print(f"\n{name}: {wanted} -> {outcomes.ended[place]} {outcomes.left[place].tolist()}")
            lists = iter(talk.lists())
            for role, text in talk.messages:
                items = next(lists) if role != "user" else []
                shown = "; ".join(catalogue.text(item) for item in items)
                print(f"  user: {text}" if role == "user" else f"    shown: {shown}" if items else f"    {text}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("simulator")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="options under conversation")
    parser.add_argument("--trained", action="store_true", help="LatentCRS too, with its outputs B and F")
    parser.add_argument("--quick", type=int, default=0, metavar="N", help="passes over the data in training")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--read", type=int, default=0, metavar="N", help="print so many dialogues instead")
    given = parser.parse_args()
    if given.read:
        read(given.dataset, given.simulator, given.read, given.set)
    else:
        main(given.dataset, given.simulator, given.users, given.set, given.trained, given.json, given.quick)
