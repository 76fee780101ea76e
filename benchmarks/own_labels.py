"""Whether ReLRec's tokens learnt their own labels: each label's loss behind its own token and behind another's.

    python benchmarks/own_labels.py                             Musical Instruments, seeds 1, 2 and 3
    python benchmarks/own_labels.py --visits 0 20 --json FILE   and after 20 passes over the labels alone
    python benchmarks/own_labels.py --set recon_users=20        any option of the recipe

Every user and item with a label is measured, by teacher forcing: nothing is written. A label keeps its partner, and
versions and openings are drawn alike, in all runs. Two tests: over labels, whose differences are averaged over the
seeds first (paired sign flips), and over seeds, of which each gives one mean difference (paired t; with three seeds it
has two degrees of freedom).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

import recllm_bench as rb
from recllm_bench.artifacts import write_json
from recllm_bench.evaluation.statistics import sign_flip
from recllm_bench.models.relrec.inference import own_against_other
from recllm_bench.models.relrec.trainer import label_book
from recllm_bench.recipe import override, recipe_from
from recllm_bench.reporting.machine import machine_facts
from recllm_bench.runner import BenchCell

KINDS = ("user", "item")
_DRAWS = 7  # seed of partners, versions and openings: one for all models, whose labels can then be paired


def losses(dataset: str, seed: int, changes: dict[str, Any]) -> tuple[rb.Run, dict[str, np.ndarray]]:
    """A run of ReLRec, and by kind the losses ``[2, labels]``: behind the own token, behind another's."""
    run = rb.run("relrec", dataset, seed=seed, **changes)
    cell = BenchCell(recipe_from(run.record.recipe, run.name))
    method, folders = cell.cell.method, cell.products()
    model = method.load(folders)
    book = label_book(model, cell.split.histories, method.read_labels(folders))
    return run, {kind: np.array(own_against_other(model, book, kind, sample=0, seed=_DRAWS)) for kind in KINDS}


def tested(found: list[np.ndarray]) -> dict[str, Any]:
    """Both tests of one kind; ``found`` has the losses of each seed."""
    own, other = np.array(found).transpose(1, 0, 2)  # [seeds, labels] each
    gain = other - own
    facts = {
        "labels": own.shape[1],
        "own": own.mean(1).tolist(),
        "other": other.mean(1).tolist(),
        "nearer to the own": (gain > 0).mean(1).tolist(),
        "difference": float(gain.mean()),
        "p over labels, each seed": [sign_flip(*pair) for pair in zip(own, other, strict=True)],
        "p over labels": sign_flip(own.mean(0), other.mean(0)),
    }
    if len(gain) > 1:
        facts["p over seeds"] = float(ttest_1samp(gain.mean(1), 0).pvalue)
    return facts


def main(words: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="amazon-2014-musical-instruments")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--visits", type=int, nargs="+", default=[0], help="label_visits, a table for each")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="options of every run")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(words)
    settings = override({}, given.set)
    tables = {}
    for visits in given.visits:
        changes = {**settings, "options": {**settings.get("options", {}), "label_visits": visits}}
        runs = [losses(given.dataset, seed, changes) for seed in given.seeds]
        table = {kind: tested([found[kind] for _, found in runs]) for kind in KINDS}
        tables[str(visits)] = {
            "records": [run.folder.name for run, _ in runs],
            "epochs": [len(run.record.curves["train"]) for run, _ in runs],
            **table,
        }
        print(f"{given.dataset}, seeds {', '.join(map(str, given.seeds))}, {visits} passes over the labels alone")
        for kind, facts in table.items():
            pairs = ", ".join(f"{a:.4f}/{b:.4f}" for a, b in zip(facts["own"], facts["other"], strict=True))
            tests = [f"{name} {facts[name]:.4f}" for name in ("p over labels", "p over seeds") if name in facts]
            print(f"  {facts['labels']:,} {kind}s, own/other's token: {pairs}; ", end="")
            print(f"{facts['difference']:+.4f} nearer to the own; {', '.join(tests)}")
    if given.json:
        settled = {"dataset": given.dataset, "seeds": given.seeds, "settings": given.set}
        write_json(given.json, {"machine": machine_facts("cpu"), **settled, "label_visits": tables})


if __name__ == "__main__":
    main()
