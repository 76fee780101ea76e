"""What the rounds of a run leave: pseudo-histories to rank by, counters, places by round, latencies."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.artifacts import write_atomic, write_json
from recllm_bench.evaluation.candidates import protocol_candidates
from recllm_bench.models.cesrec.model import ITEMS, LENGTHS
from recllm_bench.models.cesrec.rounds import Loop, Pseudo, Round, sums
from recllm_bench.progress import log

if TYPE_CHECKING:
    from recllm_bench.api.words import Undeclared, Words
    from recllm_bench.data.splits import Cases
    from recllm_bench.evaluation.candidates import Candidates
    from recllm_bench.evaluation.places import Ranks
    from recllm_bench.evaluation.protocols import Protocol
    from recllm_bench.models.cesrec.method import CESRecMethod

_LOOP = ("use_masking", "use_constructor", "early_accept", "refine_from", "pool", "forbid_target")
_MASKING = ("k", "min_keep", "similarity", "mask_mode")
_WRITING = ("output", "speculate", "decoding", "chat", "prompt_items", "title_tokens", "most_edits", "wording")
_VERSION = 1  # part of keys: raise it when equal options give other rounds
BACKEND, ADAPTER, PAIRS, CONSTRUCTOR = "backend", "adapter", "pairs", "constructor"
FACTS = "facts.json"
BUCKETS = (5, 10, 20, 50, 100)
"""Upper ends of the history lengths whose users are measured apart."""


@dataclass
class Played:
    """All rounds of a run.

    Attributes
    ----------
    rounds : list of Round
        Round 0, the original history, first.
    ranks : list of Ranks
        Places of the targets by the history after each round.
    """

    rounds: list[Round]
    ranks: list[Ranks]


class RoundStore:
    """Rounds as artifacts: one is played when it does not exist, and a longer run goes on from a shorter one.

    Parameters
    ----------
    method : CESRecMethod
        Its stages are finished, or are finished now.
    cases : Cases
        Whom to play with.
    words : Words
        What they say.
    """

    def __init__(self, method: CESRecMethod, cases: Cases, words: Words | Undeclared) -> None:
        job = method.job
        self.method, self.job, self.folders, self.cases = method, job, method.folders, cases
        self.options = method.options
        self.speaker = method.speaker_of(words, cases)
        self.candidates: Candidates | None = protocol_candidates(job.protocol, job.split, cases, job.store)
        self._loop: Loop | None = None
        self._model: Any = None

    def key(self, number: int) -> dict[str, Any]:
        """What a round depends on; the number of rounds asked for is no part of it."""
        options, job, cases = self.options, self.job, self.cases
        names = _LOOP + (_MASKING if self.method.masks else ()) + (_WRITING if options.use_constructor else ())
        rows = np.column_stack([cases.users, cases.ends, cases.targets]).astype(np.int64)
        needed = [BACKEND]
        needed += [ADAPTER] if self.method.masks else []
        needed += [CONSTRUCTOR] if self.method.tunes else []
        key = {
            "data": job.dataset.checksum,
            "split": job.split.checksum,
            "protocol": job.protocol.fingerprint(),
            "stages": {name: self.folders[name].name for name in needed},
            "cases": hashlib.sha256(rows.tobytes()).hexdigest(),
            "candidates": "" if self.candidates is None else self.candidates.hash(),
            "options": {name: getattr(options, name) for name in names},
            "feedback": self.speaker.key() if options.use_constructor else "",
            "seed": job.recipe.seed,
            "version": _VERSION,
        }
        return {**key, "round": number}

    @cached_property
    def played(self) -> Played:
        """All rounds up to the number asked for."""
        folders = []
        for number in range(self.options.rounds + 1):
            key = self.key(number)
            if not (self.job.store.path("cesrec-round", key) / "artifact.json").exists():
                log.info(f"cesrec: round {number} of {self.options.rounds}")
            make = lambda work, number=number: self._make(work, number, folders[-1] if folders else None)  # noqa: E731
            folders.append(self.job.store.build("cesrec-round", key, make))
        if self._loop is not None:
            self.method.assert_unchanged(self._loop.backend, self.folders)
        return Played([Round.load(folder) for folder in folders], [self._load_ranks(folder) for folder in folders])

    def loop(self) -> Loop:
        """The loop with everything it needs, made once."""
        if self._loop is None:
            options, method = self.options, self.method
            self._loop = Loop(
                method.backend(self.folders),
                self.cases,
                self.job.split.histories,
                candidates=self.candidates,
                exclude_history=self.job.protocol.exclude_history,
                mask=method.masker(self.folders),
                construct=method.constructor(self.folders),
                # Who rewrites nothing by words needs none.
                say=self.speaker.say if options.use_constructor else None,
                early_accept=options.early_accept,
                refine_from=options.refine_from,
                pool=options.pool,
                keeps_masked=options.mask_mode == "mark",
            )
        return self._loop

    def latency(self, played: Played) -> dict[str, float]:
        """Seconds a user takes alone, measured once (specification, section 7.5); empty where it is not asked for."""
        options = self.options
        if not options.latency_users or not options.rounds or not (self.method.masks or options.use_constructor):
            return {}
        key = {**self.key(1), "latency_users": options.latency_users, "device": str(self.job.device)}

        def make(work: Path) -> None:
            from recllm_bench.models.cesrec.latency import measure_latency

            write_json(work / "latency.json", measure_latency(self, played.rounds[0]))

        folder = self.job.store.build("cesrec-latency", key, make)
        return json.loads((folder / "latency.json").read_text())

    def in_full_ranking(self, played: Played) -> dict[str, float]:
        """Where candidates are sampled: the metrics of the same histories over the whole catalogue, the history out.

        The protocol ``cesrec.full`` plays rounds of its own, in which the shown item is the best of the catalogue.
        """
        from recllm_bench.evaluation.metrics import per_user

        job = self.job
        if not job.protocol.samples_candidates:
            return {}
        rules = dataclasses.replace(job.protocol, candidates="all", exclude_history=True)
        found = {}
        for number in sorted({0, len(played.rounds) - 1}):
            ranks = self._rank(played.rounds[number].pseudo, rules)
            values = per_user(ranks, rules.metrics, (max(rules.cutoffs),), rules.ties, warn=False)
            found |= {
                f"{name} in full ranking, round {number}": float(column.mean()) for name, column in values.items()
            }
        return found

    def _make(self, work: Path, number: int, before: Path | None) -> None:
        loop = self.loop()
        if before is None:
            played = loop.first()
        else:
            leaks = self._leaks()
            played = loop.next(Round.load(before), number)
            played.counters["feedback_leaks"] = self._leaks() - leaks
        ranks = self._rank(played.pseudo)
        arrays = {"higher": ranks.higher, "tied": ranks.tied, "candidates": ranks.candidates, "lengths": ranks.lengths}
        write_atomic(work / "ranks.npz", lambda file: np.savez(file, **arrays))
        played.save(work)

    def _leaks(self) -> int:
        return self.speaker.n_leaks if self.options.use_constructor else 0

    def _rank(self, pseudo: Pseudo, rules: Protocol | None = None) -> Ranks:
        from recllm_bench.evaluation.ranks import rank_cases

        if self._model is None:
            self._model = self.method.load(self.folders)
        job, rules = self.job, rules or self.job.protocol
        return rank_cases(
            self._model,
            job.split,
            self.cases,
            rules,
            columns=columns(pseudo),
            candidates=self.candidates if rules.samples_candidates else None,
            max_length=self._model.history_length,
            device=job.device,
        )

    def _load_ranks(self, folder: Path) -> Ranks:
        from recllm_bench.evaluation.places import Ranks

        with np.load(folder / "ranks.npz") as arrays:
            return Ranks(self.cases.users, self.cases.targets, **{name: arrays[name] for name in arrays.files})


def columns(pseudo: Pseudo) -> dict[str, np.ndarray]:
    """Pseudo-histories as columns of the cases."""
    return {ITEMS: pseudo.items, LENGTHS: pseudo.lengths}


def report(store: RoundStore) -> dict[str, dict[str, Any]]:
    """See :meth:`recllm_bench.models.cesrec.method.CESRecMethod.report`."""
    job, folders, played, options = store.job, store.folders, store.played, store.options
    measures = {**by_round(played, job.protocol), **monitored(played, job.protocol), **by_length(played, job.protocol)}
    measures |= store.in_full_ranking(played)
    measures |= counted(played) if options.use_constructor else {}
    latency = store.latency(played)
    measures |= latency
    asked = sum(played_round.counters.get("asked", 0) for played_round in played.rounds)
    if latency and asked:
        seconds = sums(played.rounds, "seconds")
        parts = (("mask", "masking", store.method.masks), ("construct", "construction", options.use_constructor))
        for name, what, is_on in parts:
            if is_on:
                measures[f"{what}, seconds a user in batches"] = seconds[name] / asked
    for what in ("masking", "construction"):
        if f"{what}, seconds a user" in latency:
            name = "masking and construction, seconds a user"
            measures[name] = measures.get(name, 0.0) + latency[f"{what}, seconds a user"]
    # Empty: no text encoder has a part, and no simulator where nothing is rewritten by words.
    substitutes, notes = {"text encoder": "", "simulator": ""}, {}
    tokens = sums(played.rounds, "tokens")
    if options.use_constructor:
        speaker = store.speaker.name
        substitutes["simulator"] = f"{speaker} for gpt-4o-mini"
        notes["constructor"] = _output_note(options)
    if ADAPTER in folders:
        facts = json.loads((folders[ADAPTER] / "adapter.json").read_text())
        for name in ("held_out_distance", "held_out_distance_of_mean"):
            if name in facts:
                measures[f"alignment: {name.replace('_', ' ')}"] = facts[name]
    if CONSTRUCTOR in folders:
        facts = json.loads((folders[CONSTRUCTOR] / FACTS).read_text())
        tokens["tuned"] = facts["tokens"]
        for name in ("held_out_loss_before", "held_out_loss"):
            if facts.get(name) is not None:
                measures[f"constructor: {name.replace('_', ' ')}"] = facts[name]
        measures |= {f"titles: {name}": float(value) for name, value in facts["titles"].items() if value}
        pairs = json.loads((folders[PAIRS] / FACTS).read_text())
        measures["training pairs"] = float(pairs["pairs"])
    for name in (ADAPTER, CONSTRUCTOR):
        if name in folders and (substitute := json.loads((folders[name] / FACTS).read_text())["substitute"]):
            substitutes["language model"] = substitute
    return {"measures": measures, "substitutes": substitutes, "tokens": tokens, "notes": notes}


def by_round(played: Played, protocol: Any) -> dict[str, float]:
    """Each metric after each round; round 0 is the back end alone."""
    from recllm_bench.evaluation.metrics import per_user

    if len(played.rounds) < 2:
        return {}
    found = {}
    for number, ranks in enumerate(played.ranks):
        values = per_user(ranks, protocol.metrics, (max(protocol.cutoffs),), protocol.ties, warn=False)
        found |= {f"{name}, round {number}": float(column.mean()) for name, column in values.items()}
    return found


def monitored(played: Played, protocol: Any) -> dict[str, float]:
    """Who accepted, in whose pseudo-history the target stands, and the metrics without those users."""
    from recllm_bench.evaluation.metrics import per_user

    found: dict[str, float] = {}
    if len(played.rounds) > 1:
        shown = played.rounds[1].counters["shown_is_target"]
        found["target shown at round 0 (share of users)"] = shown / max(1, len(played.rounds[1].accepted))
    inserted = played.rounds[-1].inserted
    found["target in pseudo-history (share of users)"] = float(inserted.mean())
    if inserted.any() and not inserted.all():
        kept = _taken(played.ranks[-1], ~inserted)
        values = per_user(kept, protocol.metrics, (max(protocol.cutoffs),), protocol.ties, warn=False)
        found |= {f"{name}, target not in pseudo-history": float(column.mean()) for name, column in values.items()}
    return found


def by_length(played: Played, protocol: Any) -> dict[str, float]:
    """The widest NDCG (or first metric) of users by the length of their original history, and how many they are."""
    from recllm_bench.evaluation.metrics import per_user

    metric = "NDCG" if "NDCG" in protocol.metrics else protocol.metrics[0]
    lengths = played.ranks[-1].lengths
    found, low = {}, 0
    for high in (*BUCKETS, None):
        rows = (lengths > low) & (lengths <= high if high is not None else True)
        if rows.any():
            name = f"histories of {low + 1} to {high}" if high is not None else f"histories above {low}"
            for number in sorted({0, len(played.ranks) - 1}):
                ranks = _taken(played.ranks[number], rows)
                values = per_user(ranks, (metric,), (max(protocol.cutoffs),), protocol.ties, warn=False)
                column = next(iter(values.values()))
                found[f"{metric}@{max(protocol.cutoffs)}, {name}, round {number}"] = float(column.mean())
            found[f"users, {name}"] = float(rows.sum())
        low = high or low
    return found


def counted(played: Played) -> dict[str, float]:
    """Counters of the specification's section 7.3, and the share of lines that had to be guessed."""
    totals = sums(played.rounds, "counters")
    found = {name: float(value) for name, value in totals.items() if name.startswith("n_")}
    for name in ("asked", "masked", "masked_fewer", "feedback_leaks"):
        if name in totals:
            found[name.replace("_", " ")] = float(totals[name])
    lost = sum(totals.get(name, 0) for name in ("n_fuzzy", "n_embed", "n_kept", "n_dropped"))
    found["fallback rate"] = lost / max(1, totals.get("n_lines", 0))
    return found


def _taken(ranks: Ranks, rows: np.ndarray) -> Ranks:
    from recllm_bench.evaluation.places import Ranks

    names = ("users", "targets", "higher", "tied", "candidates", "lengths")
    return Ranks(**{name: getattr(ranks, name)[rows] for name in names})


def _output_note(options: Any) -> str:
    if options.decoding == "free":
        return f"free text in {options.output}, matched with the catalogue"
    copied = ", unchanged lines verified at once" if options.output == "sequence" and options.speculate else ""
    return f"titles of the catalogue alone, output {options.output}{copied}"
