"""Rounds of feedback as artifacts: played once, ranked once, and a longer run goes on from a shorter one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.evaluation.candidates import protocol_candidates
from recllm_bench.files import write_arrays
from recllm_bench.models.cesrec.model import ITEMS, LENGTHS
from recllm_bench.models.cesrec.rounds import Loop, Round
from recllm_bench.progress import log

if TYPE_CHECKING:
    from recllm_bench.api.words import Undeclared, Words
    from recllm_bench.data.splits import Cases
    from recllm_bench.evaluation.candidates import Candidates
    from recllm_bench.evaluation.places import Ranks
    from recllm_bench.evaluation.protocols import Protocol

_LOOP = ("use_masking", "use_constructor", "early_accept", "refine_from", "pool", "forbid_target", "edit", "draw")
_MASKING = ("k", "min_keep", "similarity", "mask_mode")
WRITING = ("output", "speculate", "decoding", "chat", "prompt_items", "title_tokens", "most_edits", "wording")
_VERSION = 2  # part of keys: raise it when equal options give other rounds, or rounds keep more
BACKEND, MINIATURE, ADAPTER, PAIRS, CONSTRUCTOR = "backend", "miniature", "adapter", "pairs", "constructor"
FACTS = "facts.json"


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

    def __init__(self, method: Any, cases: Cases, words: Words | Undeclared) -> None:
        job = method.job
        self.method, self.job, self.folders, self.cases = method, job, method.folders, cases
        self.options = method.options
        self.speaker = method.speaker_of(words, cases)
        self.candidates: Candidates | None = protocol_candidates(job.protocol, job.split, cases, job.store)
        self._loop: Loop | None = None
        self._model: Any = None

    def key(self, number: int) -> dict[str, Any]:
        """What a round depends on; the number of rounds asked for is no part of it."""
        from recllm_bench.language.backbone import chat_key

        options, job, cases = self.options, self.job, self.cases
        masks = self.method.masks or options.edit == "random_mask"
        names = _LOOP + (_MASKING if masks else ()) + (WRITING if options.writes else ())
        rows = np.column_stack([cases.users, cases.ends, cases.targets]).astype(np.int64)
        needed = [BACKEND]
        needed += [ADAPTER] if self.method.masks else []
        needed += [CONSTRUCTOR] if self.method.tunes and options.writes else []
        key = {
            "data": job.dataset.checksum,
            "code": dict(job.code),
            "split": job.split.checksum,
            "protocol": job.protocol.fingerprint(),
            "stages": {name: self.folders[name].name for name in needed},
            "cases": hashlib.sha256(rows.tobytes()).hexdigest(),
            "candidates": "" if self.candidates is None else self.candidates.hash(),
            "options": {name: getattr(options, name) for name in names},
            "writer": chat_key(options.chat) if options.writes else {},
            "feedback": self.speaker.key() if self._uses_words else "",
            "seed": job.recipe.seed,
            "version": _VERSION,
        }
        return {**key, "round": number}

    @cached_property
    def played(self) -> Played:
        """All rounds up to the number asked for."""
        folders: list[Path] = []
        for number in range(self.options.rounds + 1):
            key = self.key(number)
            if self.job.store.find("cesrec-round", key) is None:
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
                # Who rewrites nothing by words, nor ranks by them, needs none.
                say=self.speaker.say if self._uses_words else None,
                early_accept=options.early_accept,
                refine_from=options.refine_from,
                pool=options.pool,
                keeps_masked=options.mask_mode == "mark",
            )
        return self._loop

    def _make(self, work: Path, number: int, before: Path | None) -> None:
        loop = self.loop()
        if before is None:
            played = loop.first()
        else:
            leaks = self._leaks()
            played = loop.next(Round.load(before), number)
            played.counters["feedback_leaks"] = self._leaks() - leaks
        ranks = self.rank(played)
        arrays = {"higher": ranks.higher, "tied": ranks.tied, "candidates": ranks.candidates, "lengths": ranks.lengths}
        write_arrays(work / "ranks.npz", arrays)
        played.save(work)

    def _leaks(self) -> int:
        return self.speaker.n_leaks if self._uses_words else 0

    @property
    def _uses_words(self) -> bool:
        return self.options.writes or self.options.ranks_by_words

    def columns(self, played: Round) -> dict[str, np.ndarray]:
        """A round as columns of the cases: its pseudo-histories, and what was said where that ranks items itself."""
        found = {ITEMS: played.pseudo.items, LENGTHS: played.pseudo.lengths}
        if self.options.ranks_by_words:
            found |= self.method.reader.columns(self.method.reader.read(played.feedback))
        return found

    def told(self) -> list[list[dict[str, Any]]]:
        """For each case its rounds, as :meth:`recllm_bench.api.method.Method.happened` has them; round 0 first."""
        rows = np.arange(len(self.cases))
        by_round = []
        for played, ranks in zip(self.played.rounds, self.played.ranks, strict=True):
            names = ("shown", "said", "accepted", "masked", "history", "higher", "tied")
            masked = [[item for item in row if item] for row in played.masked.tolist()]
            columns = (played.shown.tolist(), played.feedback, played.accepted.tolist(), masked)
            places = (played.pseudo.lists(rows), ranks.higher.tolist(), ranks.tied.tolist())
            by_round.append([dict(zip(names, row, strict=True)) for row in zip(*columns, *places, strict=True)])
        return [list(rounds) for rounds in zip(*by_round, strict=True)]

    def rank(self, played: Round, rules: Protocol | None = None) -> Ranks:
        """Places of the targets after a round, under the job's protocol or another one."""
        from recllm_bench.evaluation.ranks import rank_cases

        if self._model is None:
            self._model = self.method.load(self.folders)
        job, rules = self.job, rules or self.job.protocol
        return rank_cases(
            self._model,
            job.split,
            self.cases,
            rules,
            columns=self.columns(played),
            candidates=self.candidates if rules.samples_candidates else None,
            max_length=self._model.history_length,
            device=job.device,
        )

    def _load_ranks(self, folder: Path) -> Ranks:
        from recllm_bench.evaluation.places import Ranks

        with np.load(folder / "ranks.npz") as arrays:
            return Ranks(self.cases.users, self.cases.targets, **{name: arrays[name] for name in arrays.files})
