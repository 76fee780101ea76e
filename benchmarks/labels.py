"""Measure whether an item is found from its extractive label, here and in another checkout of the project.

    python benchmarks/labels.py                                       Musical Instruments and ml-100k
    python benchmarks/labels.py --before FOLDER --json FILE           the labels of the checkout in FOLDER beside

Each item's label and text become vectors of the bench's own encoder (MiniLM); hit@10 is the share of items that are
among the ten nearest to their label. Where the catalogue has titles, an item's text is the catalogue's; else it is the
reviews of test interactions, none of which a label was made of.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from recllm_bench.artifacts import write_json
from recllm_bench.data.prepare import prepare
from recllm_bench.data.splits import split_named
from recllm_bench.evaluation.protocols import protocol_named
from recllm_bench.language.encoders import load_text_encoder
from recllm_bench.language.labels.retrieval import known_texts, retrieval
from recllm_bench.reporting.machine import machine_facts
from recllm_bench.runner import default_store

DATASETS = ("amazon-2014-musical-instruments", "ml-100k")
_MAKE = """
import json, sys
from recllm_bench.data.prepare import prepare
from recllm_bench.data.splits import split_named
from recllm_bench.evaluation.protocols import protocol_named
from recllm_bench.language.labels import extractive_labels
from recllm_bench.reporting.machine import machine_facts
from recllm_bench.runner import default_store

protocol = protocol_named("relrec.full")
dataset = prepare(sys.argv[1], filter=protocol.filter, store=default_store())
split = split_named(protocol.split, dataset.histories, **dict(protocol.split_params))
labels = extractive_labels(dataset, split, versions=3)
facts = {"revision": machine_facts()["revision"], "data": dataset.checksum, "tokens": dataset.catalogue.tokens}
print(json.dumps({**facts, "items": labels.items}))
"""


def labels_of(checkout: Path, dataset: str) -> dict[str, Any]:
    """Item labels as a checkout makes them, in a process and a cache of its own."""
    with tempfile.TemporaryDirectory() as cache:
        own = {"PYTHONPATH": str(checkout), "RECLLM_CACHE": cache}
        done = subprocess.run(
            [sys.executable, "-c", _MAKE, dataset], env={**os.environ, **own}, cwd=cache, capture_output=True, text=True
        )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure(checkouts: dict[str, Path], name: str, parts: list[str]) -> dict[str, Any]:
    """Retrieval by the labels of each checkout, over the same items and texts."""
    protocol = protocol_named("relrec.full")
    dataset = prepare(name, filter=protocol.filter, store=default_store())
    split = split_named(protocol.split, dataset.histories, **dict(protocol.split_params))
    known, what = known_texts(dataset, split, parts)
    encoder = load_text_encoder()
    facts: dict[str, Any] = {"item text": what, "encoder": encoder.key()}
    for called, checkout in checkouts.items():
        made = labels_of(checkout, name)
        if made["tokens"] != dataset.catalogue.tokens:
            raise SystemExit(f"{name}: the checkout in {checkout} numbers its items otherwise")
        labelled = [item for item, labels in enumerate(made["items"]) if labels]
        some = {str(item): made["items"][item][0] for item in labelled[:: max(1, len(labelled) // 5)][:5]}
        facts[called] = {
            "revision": made["revision"],
            **retrieval(made["items"], known, encoder.encode),
            "such as": some,
        }
    return facts


def main(words: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS))
    parser.add_argument("--before", type=Path, help="folder of another checkout, whose labels are measured too")
    parser.add_argument("--parts", nargs="+", default=["test"], help="of the split, whose reviews are an item's text")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(words)
    here = Path(__file__).resolve().parents[1]
    checkouts = ({"before": given.before.resolve()} if given.before else {}) | {"after": here}
    found = {name: measure(checkouts, name, given.parts) for name in given.datasets}
    for name, facts in found.items():
        print(f"{name}: {facts['item text']}")
        for called in checkouts:
            row = facts[called]
            print(
                f"  {called:<7}hit@10 {row['hit@10']:.4f} of {row['items']:,} items (chance {row['chance']:.4f}), "
                f"{row['distinct labels']:.1%} of the labels distinct"
            )
            for item, label in row["such as"].items():
                print(f"           item {item}: {label}")
    if given.json:
        write_json(given.json, {"machine": machine_facts("cpu"), "datasets": found})


if __name__ == "__main__":
    main()
