"""What belongs beside the ranking: places by round and by length of history, counters, latencies, stand-ins."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.api.measure import Measure
from recllm_bench.artifacts import write_json
from recllm_bench.evaluation.metrics import per_user
from recllm_bench.evaluation.places import Ranks
from recllm_bench.language.known_models import is_served
from recllm_bench.language.titles.counters import fallback_rate
from recllm_bench.models.cesrec.edits import collapse, when_accepting
from recllm_bench.models.cesrec.latency import measure_latency
from recllm_bench.models.cesrec.round_store import ADAPTER, CONSTRUCTOR, FACTS, PAIRS, Played, RoundStore
from recllm_bench.models.cesrec.rounds import sums

if TYPE_CHECKING:
    from recllm_bench.evaluation.protocols import Protocol

_SIMULATOR = ("gpt-4o-mini", "gpt-4o-mini-2024-07-18")
BUCKETS = (5, 10, 20, 50, 100)
"""Upper ends of the history lengths whose users are measured apart."""


def report(store: RoundStore) -> dict[str, Any]:
    """See :meth:`recllm_bench.models.cesrec.method.CESRecMethod.report`."""
    job, folders, played, options = store.job, store.folders, store.played, store.options
    every = options.every_cutoff
    measures = [*by_round(played, job.protocol, every), *monitored(played, job.protocol)]
    measures += by_length(played, job.protocol, every)
    measures += in_full_ranking(store)
    measures += accepted(played, job.protocol, options.ranks_by_words) if not options.early_accept else []
    measures += counted(played) if options.writes else []
    measures += latencies(store)
    # Empty: no text encoder has a part, and no simulator where nothing is rewritten by words.
    substitutes, notes = {"text encoder": "", "simulator": ""}, {}
    cell = store.method.cell
    notes["back end"] = f"{cell.entry.display_name}, {cell.schedule}".removesuffix(", ")
    tokens = sums(played.rounds, "tokens")
    if (options.writes or options.ranks_by_words) and not is_served(options.feedback, *_SIMULATOR):
        substitutes["simulator"] = f"{store.speaker.name} for gpt-4o-mini"
    if options.writes:
        notes["constructor"] = _output_note(options)
        more, warning = collapse(played, job.dataset.catalogue.titles, store.method.reader)
        measures += more
        notes |= {"warning": warning} if warning else {}
    if ADAPTER in folders:
        facts = json.loads((folders[ADAPTER] / "adapter.json").read_text())
        for name in ("held_out_distance", "held_out_distance_of_mean"):
            if name in facts:
                measures.append(Measure(name.replace("_", " "), facts[name], "alignment"))
        if facts.get("held_out_distance", 0.0) > facts.get("held_out_distance_of_mean", math.inf):
            notes["alignment"] = (
                "item vectors of the language model are further from the recommender's than their mean is, on items "
                "held out: which item is masked says little"
            )
    if options.mask_mode == "tail" and options.rounds > 1:
        notes["masking"] = "mask_mode=tail: what a round masks stands last in the history that the next one scores"
    if CONSTRUCTOR in folders:
        facts = json.loads((folders[CONSTRUCTOR] / FACTS).read_text())
        tokens["tuned"] = facts["tokens"]
        for name in ("held_out_loss_before", "held_out_loss"):
            if facts.get(name) is not None:
                measures.append(Measure(name.replace("_", " "), facts[name], "constructor"))
        measures += [Measure(name, float(value), "titles") for name, value in facts["titles"].items() if value]
        pairs = json.loads((folders[PAIRS] / FACTS).read_text())
        measures.append(Measure("training pairs", float(pairs["pairs"])))
        model = f"{options.llm}" if options.llm else "a miniature language model"
        passes = f"{facts['passes']:.3g} pass{'es' * (facts['passes'] != 1)}"
        tuned = f"by {model}, tuned on {facts['examples']:,} pairs ({passes})"
        notes["constructor"] = ", ".join(filter(None, [notes.get("constructor"), tuned]))
    for name in (ADAPTER, CONSTRUCTOR):
        if name in folders and (substitute := json.loads((folders[name] / FACTS).read_text())["substitute"]):
            substitutes["language model"] = substitute
    return {"measures": measures, "substitutes": substitutes, "tokens": tokens, "notes": notes}


def latencies(store: RoundStore) -> list[Measure]:
    """Seconds of masking and construction for a user, alone and in batches (specification, section 7.5).

    Alone is measured once and kept; nothing where it is not asked for.
    """
    options, job, played, method = store.options, store.job, store.played, store.method
    own = options.edit == "constructor" and (method.masks or options.writes)
    if not options.latency_users or not options.rounds or not own:
        return []
    key = {**store.key(1), "latency_users": options.latency_users, "device": str(job.device)}

    def make(work: Path) -> None:
        write_json(work / "latency.json", measure_latency(store, played.rounds[0]))

    alone = json.loads((job.store.build("cesrec-latency", key, make) / "latency.json").read_text())
    found = [Measure(f"{name}, seconds a user", value) for name, value in alone.items()]
    asked = sum(one.counters.get("asked", 0) for one in played.rounds)
    seconds = sums(played.rounds, "seconds")
    for name, what, is_on in (
        ("mask", "masking", method.masks),
        ("construct", "construction", options.use_constructor),
    ):
        if asked and is_on:
            found.append(Measure(f"{what}, seconds a user", seconds[name] / asked, "in batches"))
    both = [alone[what] for what in ("masking", "construction") if what in alone]
    return [*found, Measure("masking and construction, seconds a user", sum(both))] if both else found


def in_full_ranking(store: RoundStore) -> list[Measure]:
    """Where candidates are sampled: the metrics of the same histories over the whole catalogue, the history out.

    The protocol ``cesrec.full`` plays rounds of its own, in which the shown item is the best of the catalogue.
    """
    job, rounds = store.job, store.played.rounds
    if not job.protocol.samples_candidates:
        return []
    rules = dataclasses.replace(job.protocol, candidates="all", exclude_history=True)
    return [
        Measure(name, value, "in full ranking", number)
        for number in sorted({0, len(rounds) - 1})
        for name, value in _means(store.rank(rounds[number], rules), rules).items()
    ]


def by_round(played: Played, protocol: Protocol, every: bool = False) -> list[Measure]:
    """Each metric after each round, at the widest or every cut-off; round 0 is the backend alone."""
    if len(played.rounds) < 2:
        return []
    return [
        Measure(name, value, round=number)
        for number, ranks in enumerate(played.ranks)
        for name, value in _means(ranks, protocol, every=every).items()
    ]


def accepted(played: Played, protocol: Protocol, first: bool) -> list[Measure]:
    """The metrics as they are where a user who is shown the target accepts it."""
    found = _means(when_accepting(played, first), protocol)
    return [Measure(name, value, "where users accept", round=len(played.rounds) - 1) for name, value in found.items()]


def monitored(played: Played, protocol: Protocol) -> list[Measure]:
    """Who accepted, in whose pseudo-history the target stands, and the metrics without those users."""
    found = []
    if len(played.rounds) > 1:
        shown = played.rounds[1].counters["shown_is_target"]
        share = shown / max(1, len(played.rounds[1].accepted))
        found.append(Measure("target shown at round 0 (share of users)", share))
    inserted = played.rounds[-1].inserted
    found.append(Measure("target in pseudo-history (share of users)", float(inserted.mean())))
    if inserted.any() and not inserted.all():
        values = _means(_taken(played.ranks[-1], ~inserted), protocol)
        found += [Measure(name, value, "target not in pseudo-history") for name, value in values.items()]
    return found


def by_length(played: Played, protocol: Protocol, every: bool = False) -> list[Measure]:
    """Users by the length of their original history: the widest NDCG (or first metric), or every metric at every
    cut-off, and how many they are.
    """
    metrics = protocol.metrics if every else ("NDCG",) if "NDCG" in protocol.metrics else protocol.metrics[:1]
    lengths = np.asarray(played.ranks[-1].lengths)
    found, low = [], 0
    for high in (*BUCKETS, None):
        rows = (lengths > low) & (lengths <= (math.inf if high is None else high))
        if rows.any():
            bucket = (low + 1, high)
            for number in sorted({0, len(played.ranks) - 1}):
                values = _means(_taken(played.ranks[number], rows), protocol, metrics, every=every)
                found += [Measure(name, value, round=number, lengths=bucket) for name, value in values.items()]
            found.append(Measure("users", float(rows.sum()), lengths=bucket))
        low = high or low
    return found


def counted(played: Played) -> list[Measure]:
    """Counters of the specification's section 7.3, and the share of lines that had to be guessed."""
    totals = sums(played.rounds, "counters")
    found = [Measure(name, float(value)) for name, value in totals.items() if name.startswith("n_")]
    for name in ("asked", "masked", "masked_fewer", "feedback_leaks"):
        if name in totals:
            found.append(Measure(name.replace("_", " "), float(totals[name])))
    return [*found, Measure("fallback rate", fallback_rate(totals))]


def _means(ranks: Ranks, protocol: Protocol, metrics: tuple[str, ...] = (), *, every: bool = False) -> dict[str, float]:
    """Means of metrics at the protocol's widest cut-off, or at every one."""
    cutoffs = protocol.cutoffs if every else (max(protocol.cutoffs),)
    values = per_user(ranks, metrics or protocol.metrics, cutoffs, protocol.ties, warn=False)
    return {name: float(column.mean()) for name, column in values.items()}


def _taken(ranks: Ranks, rows: np.ndarray) -> Ranks:
    names = ("users", "targets", "higher", "tied", "candidates", "lengths")
    return Ranks(**{name: getattr(ranks, name)[rows] for name in names})


def _output_note(options: Any) -> str:
    if options.decoding == "free":
        return f"free text in {options.output}, matched with the catalogue"
    copied = ", unchanged lines verified at once" if options.output == "sequence" and options.speculate else ""
    return f"titles of the catalogue alone, output {options.output}{copied}"
