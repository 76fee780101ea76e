"""What the simulated users of a run say, and its vectors: spoken once, embedded once, shared by all who read words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.api.measure import Measure
from recllm_bench.api.registry import resolve
from recllm_bench.api.words import NEUTRAL_OPENING, Speaker
from recllm_bench.artifacts import ArtifactStore, content_hash, write_atomic, write_json
from recllm_bench.conversation import SIMULATORS
from recllm_bench.conversation.answers import VERSION, Manners
from recllm_bench.conversation.attributes import AttributeTable, Fact
from recllm_bench.conversation.dialogue_loop import Outcomes, run_dialogues
from recllm_bench.conversation.dialogue_state import StateReader
from recllm_bench.conversation.disclosure import disclosure, nothing_to_say
from recllm_bench.conversation.feedback import feedback_named
from recllm_bench.conversation.other_words import Exchanged, Mute, NoSpeaker, OtherSpeaker, other_user
from recllm_bench.conversation.practice import practise, read, written
from recllm_bench.conversation.profile import VISIBILITIES, Profile, build_profiles
from recllm_bench.conversation.real_users import WithRealUsers
from recllm_bench.conversation.simulators import GuardedSimulator, leaves_a_share, simulator_named
from recllm_bench.conversation.understanding import Understanding
from recllm_bench.errors import BenchError, NotEnough
from recllm_bench.files import write_array
from recllm_bench.progress import log
from recllm_bench.provenance import code_hash, package_code_hash
from recllm_bench.recipe import ConversationOptions

if TYPE_CHECKING:
    from recllm_bench.conversation.dialogue import Dialogue, Response
    from recllm_bench.data.prepared import PreparedDataset
    from recllm_bench.data.splits import Cases, Split

_MANNERS = [field.name for field in fields(Manners)]


@dataclass(frozen=True)
class SimulatedWords:
    """The simulated users of a run; implements :class:`recllm_bench.api.words.Words`.

    Attributes
    ----------
    talk : ConversationOptions
        Simulator, encoder, and whose words are handed out.
    dataset, split
        Whom the users want what from.
    seed : int
        Of all that is said.
    store : ArtifactStore
        Where sentences are kept.
    encode : callable
        ``encode(texts) -> float32 [n, width]``; it keeps what it has embedded.
    encoder_key : mapping
        What decides vectors.
    reads_facts : bool
        Whether who gets them declares that it is handed the facts behind the words.
    """

    talk: ConversationOptions
    dataset: PreparedDataset
    split: Split
    seed: int
    store: ArtifactStore
    encode: Callable[[Sequence[str]], np.ndarray]
    encoder_key: Mapping[str, Any]
    reads_facts: bool = False

    @property
    def key(self) -> dict[str, Any]:
        """See :attr:`recllm_bench.api.words.Words.key`."""
        whose = {} if self.talk.words == "own" else {"words": self.talk.words}
        return {
            **self._simulator.key,
            **self._told,
            "speech": speech_code(self.talk.simulator),
            **self.encoder_key,
            **whose,
        }

    @property
    def speaker_key(self) -> dict[str, Any]:
        """See :attr:`recllm_bench.api.words.Words.speaker_key`."""
        return {**self._simulator.key, **self._told, **(self._in_dialogues if self.talk.users else {})}

    @property
    def attributes(self) -> AttributeTable:
        """The vocabulary of facts that these users speak of."""
        return self._simulator.attributes

    def of(self, whose: str) -> SimulatedWords:
        """The same users, handing out their own words, another user's, or none."""
        return replace(self, talk=replace(self.talk, words=whose))

    def openings(self, cases: Cases) -> list[str]:
        """First sentences, spoken once and kept; ``""`` where there was nothing to say.

        Raises
        ------
        BenchError
            When the simulator answers with another number of texts.
        """
        if self.talk.words == "none":
            return [""] * len(cases)
        texts = self._spoken(cases)
        if self.talk.words == "another":
            return [texts[row] for row in other_user(cases.users, self.seed).tolist()]
        return texts

    def facts(self, cases: Cases) -> list[tuple[tuple[Fact, ...], tuple[Fact, ...]]]:
        """See :meth:`recllm_bench.api.words.Words.facts`."""
        if not self.reads_facts:
            raise BenchError(
                "words.facts are what is behind the words, made from the target: only a class with reads_facts = True, "
                "the ceiling of a table, is handed them; read words.openings(cases)"
            )
        if self.dataset.said:
            raise NotEnough("what real people had in mind is not known: there are no words.facts behind their words")
        if self.talk.words == "none":
            return [((), ())] * len(cases)
        profiles = self.profiles(cases)
        said = list(zip(self._simulator.facts_said(profiles), self._simulator.facts_refused(profiles), strict=True))
        if self.talk.words == "another":
            return [said[row] for row in other_user(cases.users, self.seed).tolist()]
        return said

    def opening_vectors(self, cases: Cases) -> np.ndarray:
        """Vectors ``float32 [n, width]``; a neutral sentence stands for a user who said nothing."""
        rows, vectors = self._embedded([text or NEUTRAL_OPENING for text in self.openings(cases)])
        return vectors[rows]

    def distinct_vectors(self, cases: Cases) -> tuple[np.ndarray, np.ndarray]:
        """Rows ``int64 [n]`` (-1 where nothing was said) into vectors ``float32 [m, width]`` of distinct sentences."""
        texts = self.openings(cases)
        said = np.array([row for row, text in enumerate(texts) if text], dtype=np.int64)
        if len(said) < len(texts):
            log.warning(f"{len(texts) - len(said)} of {len(texts)} training records have no utterance and are dropped")
        rows = np.full(len(texts), -1, dtype=np.int64)
        rows[said], vectors = self._embedded([texts[row] for row in said])
        return rows, vectors

    @property
    def practice_key(self) -> dict[str, Any]:
        """See :attr:`recllm_bench.api.words.Words.practice_key`."""
        return {**self.key, "simulator": self._talking().key}

    def practice(self, cases: Cases) -> list[Dialogue]:
        """See :meth:`recllm_bench.api.words.Words.practice`; held once and kept."""

        def make(work: Path) -> None:
            speaker, split, catalogue = self._talking(), self.split, self.dataset.catalogue
            seen = split.histories.items[split.histories.before(split.train_ends)]
            talks = practise(
                speaker,
                self.profiles(cases),
                cases,
                split.histories,
                StateReader(catalogue, Understanding(catalogue, speaker.attributes)),
                np.bincount(seen, minlength=split.histories.n_items + 1),
                self.seed,
            )
            write_atomic(work / "dialogues.json", lambda file: file.write(written(talks).encode()))

        key = {**self._key_of(cases), "simulator": self._talking().key}
        folder = self.store.build("practice", key, make)
        return read((folder / "dialogues.json").read_text(encoding="utf-8"), cases, self.split.histories)

    def disclosure(self, cases: Cases) -> list[Measure]:
        """What the openings of some cases give away; nothing where the simulator does not tell its facts."""
        found = [Measure.of(each) for each in self._given_away(cases)["measures"]]
        counts = self._counts.get(content_hash(self._key_of(cases)), {})
        return [*found, *(Measure("openings by a chat model", count, name) for name, count in counts.items())]

    def check_facts(self, cases: Cases) -> str:
        """What to say about users who have nothing to say; empty when all have.

        Raises
        ------
        BenchError
            When nobody has anything to say.
        """
        if self.dataset.said:  # people always say something, if not of the catalogue
            return ""
        found = self._given_away(cases)
        return nothing_to_say(self._simulator.name, self.dataset.name, found["silent"], found["users"])

    def feedback(self, spec: str, facts: int, cases: Cases | None = None) -> Speaker:
        """Who answers recommendations; see :func:`recllm_bench.conversation.feedback.feedback_named`."""
        if self.dataset.said:
            raise BenchError("real people cannot be asked for feedback: take a protocol without dialogues")
        if self.talk.words == "none":
            return NoSpeaker()
        speaker = feedback_named(spec, self.dataset.catalogue, seed=self.seed, facts=facts)
        if self.talk.words == "own":
            return speaker
        if cases is None:
            raise BenchError("another user's words: name the cases whose users are exchanged")
        return OtherSpeaker(speaker, cases, self.seed)

    def speaker(self, cases: Cases | None = None) -> GuardedSimulator:
        """A fresh simulator behind the guard, for whole dialogues.

        Parameters
        ----------
        cases : Cases, optional
            Whom it will answer for; another user's words need to know them.
        """
        speaker = self._talking()
        if self.talk.words == "own" or cases is None:
            return speaker
        who: Any = Mute(speaker.attributes)
        if self.talk.words == "another":
            others = self.profiles(cases.take(other_user(cases.users, self.seed)))
            pairs = zip(cases.users.tolist(), cases.targets.tolist(), strict=True)
            who = Exchanged(speaker, dict(zip(pairs, others, strict=True)))
        return GuardedSimulator(who, self.dataset.catalogue)

    def hold(
        self, respond: Callable[[list[Dialogue]], Sequence[Response]], cases: Cases, turns: int, shown: int
    ) -> Outcomes:
        """See :meth:`recllm_bench.api.words.Words.hold`."""
        return run_dialogues(
            respond,
            self.speaker(cases),
            self.profiles(cases),
            cases,
            self.dataset.histories,
            self.dataset.catalogue,
            max_turns=turns,
            shown_per_turn=shown,
        )

    def _talking(self) -> GuardedSimulator:
        return self._speaking(leaves=self.talk.opens, **{name: getattr(self.talk, name) for name in _MANNERS})

    def profiles(self, cases: Cases) -> list[Profile]:
        """What the users of some cases know; no system under test sees it."""
        return build_profiles(
            self.dataset.catalogue,
            self.dataset.histories,
            cases.users,
            cases.ends,
            cases.targets,
            visibility=self.talk.target_visibility,
            attributes=self._simulator.attributes,
            train_ends=self.split.train_ends,
        )

    @property
    def _told(self) -> dict[str, str]:
        """The part of keys that says what users know of the target, where it is more than by default."""
        visibility = self.talk.target_visibility
        return {} if visibility == VISIBILITIES[0] else {"target_visibility": visibility}

    @cached_property
    def _counts(self) -> dict[str, dict[str, int]]:
        """What a chat model was asked for and what of it served, by the key of the openings."""
        return {}

    @cached_property
    def _simulator(self) -> GuardedSimulator:
        """Who opens where there is one turn."""
        return self._speaking(leaves=self.talk.leaves)

    def _speaking(self, **own: Any) -> GuardedSimulator:
        own = own if leaves_a_share(self.talk.simulator) else {}
        guarded = simulator_named(self.talk.simulator, self.dataset.catalogue, seed=self.seed, **own)
        if self.dataset.said:
            guarded.simulator = WithRealUsers(guarded.simulator, self.dataset.said, self.dataset.catalogue)
        return guarded

    @property
    def _in_dialogues(self) -> dict[str, Any]:
        """The part of keys that says how users behave in dialogues."""
        if not leaves_a_share(self.talk.simulator):
            return {}
        manners = Manners(**{name: getattr(self.talk, name) for name in _MANNERS})
        return {"opens": self.talk.opens, "answers": VERSION, **manners.key}

    def _key_of(self, cases: Cases) -> dict[str, Any]:
        columns = (cases.users, cases.ends, cases.targets)
        rows = [np.ascontiguousarray(column, dtype=np.int64) for column in columns]
        return {
            "data": self.dataset.checksum,
            "split": self.split.checksum,
            "seed": self.seed,
            "simulator": self._simulator.key,
            "code": speech_code(self.talk.simulator),
            "rows": content_hash([column.tolist() for column in rows]),
            **self._told,
        }

    def _given_away(self, cases: Cases) -> dict[str, Any]:
        """What the openings give away, and how many users have nothing to say; found once."""

        def make(work: Path) -> None:
            found: dict[str, Any] = {"measures": [], "silent": 0, "users": len(cases)}
            if hasattr(self._simulator.simulator, "facts_said"):
                profiles = self.profiles(cases)
                said, refused = self._simulator.facts_said(profiles), self._simulator.facts_refused(profiles)
                measures = disclosure(self.attributes, said, refused, cases.targets.tolist())
                found["measures"] = [measure.as_dict() for measure in measures]
                found["silent"] = sum(not yes and not no for yes, no in zip(said, refused, strict=True))
            write_json(work / "disclosure.json", found)

        return json.loads(
            (self.store.build("disclosure", self._key_of(cases), make) / "disclosure.json").read_text(encoding="utf-8")
        )

    def _spoken(self, cases: Cases) -> list[str]:
        def make(work: Path) -> None:
            counts = getattr(self._simulator.simulator, "counts", {})
            before = dict(counts)
            said = self._simulator.open(self.profiles(cases))
            if lost := sum(text is None for text in said):
                raise BenchError(
                    f"simulator {self._simulator.name}: {lost} of {len(said)} openings got no answer; the others are "
                    "kept: the same command asks for the rest"
                )
            texts = [(text or "").strip() for text in said]
            write_json(work / "counts.json", {name: count - before[name] for name, count in counts.items()})
            unique, place = np.unique(np.array(texts, dtype=object), return_inverse=True)
            write_atomic(work / "texts.json", lambda file: file.write(json.dumps(unique.tolist()).encode()))
            write_array(work / "rows.npy", place.reshape(-1).astype(np.int64))

        folder = self.store.build("utterances", self._key_of(cases), make)
        self._counts[content_hash(self._key_of(cases))] = json.loads((folder / "counts.json").read_text())
        unique = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
        return [unique[row] for row in np.load(folder / "rows.npy").tolist()]

    def _embedded(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Row of each text ``int64 [n]``, and one vector ``float32 [m, width]`` for each distinct one."""
        row_of: dict[str, int] = {}
        rows = np.fromiter((row_of.setdefault(text, len(row_of)) for text in texts), np.int64, len(texts))
        return rows, self.encode(list(row_of))


def speech_code(simulator: str) -> str:
    """Hash of the code that speaks: this floor's, and that of a simulator from outside."""
    name = simulator.partition(":")[0]
    source = resolve("simulators", name if name in SIMULATORS else simulator)
    return content_hash([package_code_hash(["conversation", "api"]), code_hash(source)])
