"""Who plays the user: the contract, the guard around every simulator, and simulators by name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from recllm_bench.api.registry import resolve
from recllm_bench.conversation.attributes import AttributeTable, Fact
from recllm_bench.conversation.dialogue import Dialogue, Reply
from recllm_bench.conversation.profile import Profile
from recllm_bench.conversation.redaction import Redactor
from recllm_bench.conversation.rules import RuleSimulator
from recllm_bench.errors import BenchError

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue


class Simulator(Protocol):
    """Plays many users at once.

    A class is made as ``Class(catalogue, seed=seed, **options)``. Equal seeds give equal words, whatever else is in
    the batch.
    """

    def open(self, profiles: Sequence[Profile]) -> list[str | None]:
        """First sentence of each user; ``None`` where the chat model failed for good."""
        ...

    def reply(
        self, profiles: Sequence[Profile], dialogues: Sequence[Dialogue], shown: Sequence[Sequence[int]]
    ) -> list[Reply]:
        """Answer of each user to the items just shown."""
        ...


class GuardedSimulator:
    """A simulator behind the leakage guard; nothing it says reaches a system otherwise.

    Parameters
    ----------
    simulator : Simulator
        Who speaks.
    catalogue : Catalogue
        For the guard.
    record : Path, optional
        Every utterance is appended to this file as a JSON line: raw and guarded text, user, target, turn.

    Attributes
    ----------
    redactor : Redactor
        Its counters hold the totals.
    leaked, ambiguous : array [n]
        What the guard found in the last batch.
    """

    def __init__(self, simulator: Simulator, catalogue: Catalogue, record: Path | None = None) -> None:
        self.simulator, self.record, self._catalogue = simulator, record, catalogue
        self.redactor = Redactor(catalogue)
        self.leaked, self.ambiguous = np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64)

    @property
    def name(self) -> str:
        """Name for labels."""
        return getattr(self.simulator, "name", type(self.simulator).__name__)

    @property
    def key(self) -> dict[str, Any]:
        """Who speaks, as part of what is measured: the simulator with its options and vocabulary."""
        return dict(getattr(self.simulator, "key", None) or {"simulator": self.name})

    @cached_property
    def attributes(self) -> AttributeTable:
        """The vocabulary of facts: the simulator's, or categories, decades and years."""
        return getattr(self.simulator, "attributes", None) or AttributeTable(self._catalogue)

    def open(self, profiles: Sequence[Profile]) -> list[str | None]:
        """First sentences, guarded."""
        raw = self.simulator.open(profiles)
        self._check(raw, profiles, "open")
        texts = self._guard(raw, profiles)
        self._write(profiles, [0] * len(texts), raw, [Reply(text or "") for text in texts])
        return texts

    def reply(
        self, profiles: Sequence[Profile], dialogues: Sequence[Dialogue], shown: Sequence[Sequence[int]]
    ) -> list[Reply]:
        """Answers, guarded."""
        raw = self.simulator.reply(profiles, dialogues, shown)
        self._check(raw, profiles, "reply")
        texts = self._guard([reply.text for reply in raw], profiles)
        replies = [replace(reply, text=text or "") for reply, text in zip(raw, texts, strict=True)]
        turns = [len([role for role, _ in dialogue.messages if role == "user"]) for dialogue in dialogues]
        self._write(profiles, turns, [reply.text for reply in raw], replies)
        return replies

    def facts_said(self, profiles: Sequence[Profile]) -> list[tuple[Fact, ...]]:
        """The facts that :meth:`open` states of each target.

        Raises
        ------
        BenchError
            When the simulator does not tell them.
        """
        if not hasattr(self.simulator, "facts_said"):
            raise BenchError(f"simulator {self.name} does not tell which facts it states; give it facts_said(profiles)")
        return self.simulator.facts_said(profiles)

    def facts_refused(self, profiles: Sequence[Profile]) -> list[tuple[Fact, ...]]:
        """The facts that :meth:`open` states as not wanted; none where the simulator does not tell."""
        told = getattr(self.simulator, "facts_refused", None)
        return told(profiles) if told else [()] * len(profiles)

    def _check(self, answers: Sequence[Any], profiles: Sequence[Profile], call: str) -> None:
        if len(answers) != len(profiles):
            raise BenchError(f"simulator {self.name}: {call} returned {len(answers)} answers for {len(profiles)} users")

    def _guard(self, raw: Sequence[str | None], profiles: Sequence[Profile]) -> list[str | None]:
        texts = [" ".join((text or "").split()) for text in raw]
        if getattr(self.simulator, "target_free", False):  # knows no target; to take one out would tell it
            self.leaked, self.ambiguous = np.zeros(len(raw), dtype=bool), np.zeros(len(raw), dtype=np.int64)
            return [None if old is None else new for old, new in zip(raw, texts, strict=True)]
        redacted = self.redactor.redact(texts, [profile.target for profile in profiles])
        self.leaked, self.ambiguous = redacted.leaked, redacted.ambiguous
        return [None if old is None else new for old, new in zip(raw, redacted.texts, strict=True)]

    def _write(
        self, profiles: Sequence[Profile], turns: Sequence[int], raw: Sequence[str | None], replies: Sequence[Reply]
    ) -> None:
        if self.record is None:
            return
        self.record.parent.mkdir(parents=True, exist_ok=True)
        with open(self.record, "a", encoding="utf-8") as file:
            for row, (profile, turn, said, reply) in enumerate(zip(profiles, turns, raw, replies, strict=True)):
                entry = {
                    "user": profile.user,
                    "target": profile.target,
                    "turn": turn,
                    "raw": said,
                    "text": reply.text,
                    "leaked": bool(self.leaked[row]),
                    "ambiguous": int(self.ambiguous[row]),
                    "accepted": reply.accepted,
                    "end": reply.end,
                    "error": reply.error,
                }
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")


class ReplaySimulator:
    """Says what was recorded, user by user and turn by turn.

    Parameters
    ----------
    catalogue, seed
        Not used; every simulator is made with them.
    path : str or Path
        A file written by :class:`GuardedSimulator`; a later line of the same user, target and turn counts.

    Raises
    ------
    BenchError
        When the file is missing or a line is malformed (file and line), or a turn was never recorded.
    """

    name = "replay"

    def __init__(self, catalogue: Catalogue | None = None, seed: int = 0, path: str | Path = "") -> None:
        if not path:
            raise BenchError("simulator replay needs its file: conversation.simulator=replay:path/to/file.jsonl")
        self.path = Path(path)
        self._said: dict[tuple[int, int, int], Mapping[str, Any]] = {}
        try:
            file = open(self.path, encoding="utf-8")  # noqa: SIM115  (the block below closes it)
        except OSError as error:
            raise BenchError(f"simulator replay: cannot read {path} ({error.strerror})") from error
        with file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    entry = json.loads(line)
                    self._said[int(entry["user"]), int(entry["target"]), int(entry["turn"])] = entry
                except (ValueError, KeyError, TypeError) as error:
                    raise BenchError(
                        f"{path}:{number}: not a recorded utterance (JSON with user, target, turn, raw)"
                    ) from error

    def open(self, profiles: Sequence[Profile]) -> list[str | None]:
        """First sentences, as recorded."""
        return [self._entry(profile, 0).get("raw") for profile in profiles]

    def reply(
        self, profiles: Sequence[Profile], dialogues: Sequence[Dialogue], shown: Sequence[Sequence[int]]
    ) -> list[Reply]:
        """Answers, as recorded: the words do not depend on what is shown now."""
        replies = []
        for profile, dialogue in zip(profiles, dialogues, strict=True):
            entry = self._entry(profile, sum(role == "user" for role, _ in dialogue.messages))
            ends = bool(entry.get("end")), str(entry.get("error") or "")
            replies.append(Reply(entry.get("raw") or "", bool(entry.get("accepted")), *ends))
        return replies

    def _entry(self, profile: Profile, turn: int) -> Mapping[str, Any]:
        entry = self._said.get((profile.user, profile.target, turn))
        if entry is None:
            what = "opening" if turn == 0 else f"reply {turn}"
            raise BenchError(f"{self.path}: no {what} of user {profile.user} for item {profile.target} was recorded")
        return entry


_PEOPLE = ("rules", "taste", "local", "server")


def leaves_a_share(name: str) -> bool:
    """Whether a simulator is one of people, who leave a share of the catalogue and have manners."""
    kind, _, argument = name.partition(":")
    return kind in _PEOPLE and not (kind == "rules" and argument)


def simulator_named(
    name: str, catalogue: Catalogue, *, seed: int = 0, record: Path | None = None, **options: Any
) -> GuardedSimulator:
    """A simulator by name, behind the guard.

    Parameters
    ----------
    name : str
        ``"rules"``, ``"taste"``, a chat model (``"local:NAME"``, ``"server:MODEL@URL"``), ``"rules:1"``,
        ``"rules:2"`` or ``"rules:all"`` (so many facts first, by templates), ``"replay:file.jsonl"``, or a plug-in
        (entry point group ``recllm_bench.simulators``, or ``module:Class``).
    catalogue : Catalogue
        The items.
    seed : int
        Fixes every random choice.
    record : Path, optional
        File to which every utterance is appended.
    **options
        Passed to the simulator.

    Raises
    ------
    BenchError
        For an unknown name or option.
    """
    kind, _, argument = name.partition(":")
    maker: Any
    if kind == "rules" and argument:
        maker, options = RuleSimulator, {"facts_in_opening": argument, **options}
    elif kind in ("local", "server"):
        from recllm_bench.conversation.chatting import Chatting

        maker, options = Chatting, {"chat": name, **options}
    elif kind == "replay":
        maker, options = ReplaySimulator, {"path": argument, **options}
    else:
        maker = resolve("simulators", name)
    try:
        simulator = maker(catalogue, seed=seed, **options)
    except TypeError as error:
        raise BenchError(f"simulator {name}: {error}") from error
    return GuardedSimulator(simulator, catalogue, record)
