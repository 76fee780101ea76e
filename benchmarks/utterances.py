"""Print first utterances of a simulator for a data set, and what they leave: read them before you trust a table.

Usage: python benchmarks/utterances.py ml-100k rules 200
"""

from __future__ import annotations

import sys

from recllm_bench.conversation.disclosure import disclosure, in_words
from recllm_bench.conversation.profile import build_profiles
from recllm_bench.conversation.simulators import simulator_named
from recllm_bench.data.prepare import prepare
from recllm_bench.data.splits import leave_one_out


def main(dataset: str, simulator: str, count: int) -> None:
    """Print ``count`` utterances of tested users, each with the number of items that fit it."""
    data = prepare(dataset)
    split = leave_one_out(data.histories)
    guarded, cases = simulator_named(simulator, data.catalogue, seed=42), split.test
    profiles = build_profiles(
        data.catalogue, data.histories, cases.users, cases.ends, cases.targets,
        attributes=guarded.attributes, train_ends=split.train_ends,
    )  # fmt: skip
    texts, said, refused = guarded.open(profiles), guarded.facts_said(profiles), guarded.facts_refused(profiles)
    left = guarded.attributes.count_matches(said, refused)
    print(in_words(disclosure(guarded.attributes, said, refused, cases.targets.tolist())))
    for text, number in list(zip(texts, left.tolist(), strict=True))[:count]:
        print(f"{number:6}  {text}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
