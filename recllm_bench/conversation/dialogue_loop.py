"""The dialogue loop: all users advance in lock-step, one batch for the system and one for the simulator each turn."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.api.measure import Measure
from recllm_bench.artifacts import write_atomic
from recllm_bench.conversation.attributes import AttributeTable
from recllm_bench.conversation.dialogue import Dialogue, Reply, Response
from recllm_bench.conversation.dialogue_state import StateReader
from recllm_bench.conversation.profile import Profile, uttered_facts
from recllm_bench.conversation.simulators import GuardedSimulator, Simulator
from recllm_bench.conversation.understanding import Understanding
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.dialogue_outcomes import FAILED, INVALID, cost_measures, valid_outcomes
from recllm_bench.evaluation.dialogue_turns import convention_measures, turn_measures
from recllm_bench.progress import log, track

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue
    from recllm_bench.data.histories import Histories
    from recllm_bench.data.splits import Cases

__all__ = ["Dialogue", "Outcomes", "Reply", "Response", "run_dialogues", "write_transcripts"]


@dataclass(frozen=True)
class Outcomes:
    """What became of the dialogues, one row for each.

    Attributes
    ----------
    users : int64 [n]
        User ids.
    targets : int32 [n]
        Item ids.
    turns : int64 [n]
        Turn at which the target was shown (from 1); 0: never; -1: invalid, left out of all means.
    leaked : bool [n]
        The simulator named the target at least once (the guard took it out).
    ambiguous : int64 [n]
        One-word titles that the guard left.
    near_misses : int64 [n]
        Shown items with the target's title but another id.
    n_match : int64 [n]
        Catalogue items that have every fact the user stated: the difficulty of the simulation.
    false_accepts : bool [n]
        The user said to have found the item, and had not.
    empty : int64 [n]
        Empty sentences of the user.
    input_tokens, output_tokens : int64 [n]
        The system's language model calls.
    seconds : float64 [n]
        The system's time, as it reports it.
    dialogues : list of Dialogue
        What was said and shown.
    left : int64 [n, turns]
        Before each turn of the system, how many items fit all that was said and were not shown yet, as any system
        could read it; -1 where the turn was not held.
    ended : list of str
        ``"success"``, ``"turns"``, ``"user left"``, ``"silence"``, or ``"error: ..."``.
    """

    users: np.ndarray
    targets: np.ndarray
    turns: np.ndarray
    leaked: np.ndarray
    ambiguous: np.ndarray
    near_misses: np.ndarray
    n_match: np.ndarray
    false_accepts: np.ndarray
    empty: np.ndarray
    input_tokens: np.ndarray
    output_tokens: np.ndarray
    seconds: np.ndarray
    dialogues: list[Dialogue]
    ended: list[str]
    left: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    @property
    def invalid(self) -> np.ndarray:
        """Dialogues that could not be held, bool [n]."""
        return self.turns == INVALID

    @property
    def leaks(self) -> np.ndarray:
        """1 for each dialogue in which the simulator named the target, int64 [n]."""
        return self.leaked.astype(np.int64)

    @property
    def tokens(self) -> dict[str, float]:
        """Mean tokens of the system's language model calls in a valid dialogue; empty when it made none."""
        valid = ~self.invalid
        if not valid.any() or not (self.input_tokens.any() or self.output_tokens.any()):
            return {}
        means = {"input": self.input_tokens[valid].mean(), "output": self.output_tokens[valid].mean()}
        return {name: float(mean) for name, mean in means.items()}

    @property
    def known(self) -> np.ndarray:
        """Share of each dialogue's shown items that its user already had, float64 [n]; NaN where none was shown."""
        shares = [np.isin(talk.shown, talk.history).mean() if talk.shown else np.nan for talk in self.dialogues]
        return np.array(shares, dtype=np.float64)

    def measures(self) -> list[Measure]:
        """What stands beside the outcomes: how the dialogues went, what they cost, and how hard their turns were."""
        shown = np.array([len(talk.shown) for talk in self.dialogues])
        share = np.nansum(self.known * shown) / max(1, shown.sum())
        known = Measure("shown items that the user already had, share", float(share), "dialogues")
        most = max((size for talk in self.dialogues for size in talk.sizes), default=0)
        gone = [end == "user left" for end in self.ended]
        held = convention_measures(self.turns, self.left.shape[1], self.leaked)
        valid = ~self.invalid
        costs = cost_measures(self.seconds[valid], self.input_tokens[valid], self.output_tokens[valid])
        return [known, *costs, *held, *turn_measures(self.turns, self.left, gone, most)]

    def columns(self) -> dict[str, np.ndarray]:
        """The arrays by name, for a table of users."""
        arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: array for name, array in arrays.items() if isinstance(array, np.ndarray) and array.ndim == 1}

    def facts(self) -> dict[str, Any]:
        """Counts and means for the run record."""
        valid = ~self.invalid
        return {
            "dialogues": len(self),
            "invalid": int(self.invalid.sum()),
            "leaked": int(self.leaked.sum()),
            "ambiguous": int(self.ambiguous.sum()),
            "near_misses": int(self.near_misses.sum()),
            "false_accepts": int(self.false_accepts.sum()),
            "empty_utterances": int(self.empty.sum()),
            "ended": {reason: sum(end.split(":")[0] == reason for end in self.ended) for reason in _ENDINGS},
            "mean_n_match": round(float(self.n_match[valid].mean()), 2) if valid.any() else None,
        }


_ENDINGS = ("success", "turns", "user left", "silence", "error")


def run_dialogues(
    respond: Callable[[list[Dialogue]], Sequence[Response]],
    simulator: Simulator,
    profiles: Sequence[Profile],
    cases: Cases,
    histories: Histories,
    catalogue: Catalogue,
    *,
    max_turns: int = 5,
    shown_per_turn: int = 5,
) -> Outcomes:
    """Hold one dialogue for each case (protocols, sections 1.3 and 5.6; LatentCRS, section 7).

    The user speaks first. A dialogue ends when the target is among the items shown, after ``max_turns``, when the
    user leaves, after two empty sentences in a row, or on an error. Success is decided by item id.

    Parameters
    ----------
    respond : callable
        The system: one :class:`Response` for each :class:`Dialogue`. It gets nothing else.
    simulator : Simulator
        The users; it is put behind the leakage guard when it is not yet.
    profiles : sequence of Profile [n]
        Read by the simulator alone.
    cases : Cases [n]
        Users, their histories' ends, and targets.
    histories, catalogue
        Of the dataset.
    max_turns, shown_per_turn : int
        Limits of the protocol.

    Raises
    ------
    BenchError
        When the system's answer does not fit, or more than 1 % of the dialogues are invalid.
    """
    if len(profiles) != len(cases):
        raise BenchError(f"{len(profiles)} profiles for {len(cases)} dialogues")
    if max_turns < 1 or shown_per_turn < 1:
        raise BenchError("dialogues need at least one turn and one item shown; set the protocol's turns")
    guarded = simulator if isinstance(simulator, GuardedSimulator) else GuardedSimulator(simulator, catalogue)
    reader = StateReader(catalogue, Understanding(catalogue, guarded.attributes))
    state = _State(cases, histories, catalogue, max_turns)
    active = state.open(guarded, profiles)
    for turn in track(range(1, max_turns + 1), "dialogues", unit="turn"):
        if not len(active):
            break
        state.left[active, turn - 1] = [reader.left(state.dialogues[row]) for row in active]
        answers = respond([state.view(row) for row in active])
        if len(answers) != len(active):
            raise BenchError(f"the system gave {len(answers)} responses to {len(active)} dialogues")
        shown = {
            row: state.show(row, answer, turn, shown_per_turn) for row, answer in zip(active, answers, strict=True)
        }
        active = state.open_rows(active)
        if turn < max_turns and len(active):
            active = state.hear(guarded, profiles, active, shown)
    outcomes = state.outcomes(profiles, guarded.attributes)
    valid_outcomes(outcomes.turns)
    facts = outcomes.facts()
    log.info(f"dialogues: {facts['ended']['success']} of {len(cases)} succeed", extra={"facts": facts})
    return outcomes


def write_transcripts(path: Path, outcomes: Outcomes, catalogue: Catalogue) -> None:
    """Write the dialogues for people to read: a JSON line each, with titles beside ids."""

    def named(item: int) -> dict[str, Any]:
        return {"item": int(item), "text": catalogue.text(int(item))}

    def write(file) -> None:
        for row, dialogue in enumerate(outcomes.dialogues):
            entry = {
                "user": int(outcomes.users[row]),
                "target": named(outcomes.targets[row]),
                "turns": int(outcomes.turns[row]),
                "ended": outcomes.ended[row],
                "leaked": bool(outcomes.leaked[row]),
                "n_match": int(outcomes.n_match[row]),
                "n_match_by_turn": [int(count) for count in outcomes.left[row] if count >= 0],
                "history": [named(item) for item in dialogue.history[-5:]],
                "messages": [{"role": role, "text": text} for role, text in dialogue.messages],
                "shown": [named(item) for item in dialogue.shown],
            }
            file.write((json.dumps(entry, ensure_ascii=False) + "\n").encode())

    write_atomic(path, write)


class _State:
    """All dialogues and what is counted about them."""

    def __init__(self, cases: Cases, histories: Histories, catalogue: Catalogue, turns: int) -> None:
        self.cases, self.catalogue = cases, catalogue
        self.n = n = len(cases)
        self.left = np.full((n, turns), -1, dtype=np.int64)
        starts = histories.offsets[np.asarray(cases.users) - 1]
        self.dialogues = [
            Dialogue(user, histories.items[start:end])
            for user, start, end in zip(cases.users.tolist(), starts.tolist(), cases.ends.tolist(), strict=True)
        ]
        self.targets = np.asarray(cases.targets).tolist()
        self.titles = [title.casefold() for title in catalogue.titles]
        self.ended: list[str] = [""] * n
        self.turns = np.full(n, FAILED, dtype=np.int64)
        self.leaked, self.false_accepts = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        counts = np.zeros((6, n), dtype=np.int64)
        self.ambiguous, self.near_misses, self.empty, self.silent, self.input_tokens, self.output_tokens = counts
        self.seconds = np.zeros(n)

    def open(self, simulator: GuardedSimulator, profiles: Sequence[Profile]) -> np.ndarray:
        rows = np.arange(self.n)
        replies = [
            Reply("", error="no opening sentence") if text is None else Reply(text) for text in simulator.open(profiles)
        ]
        self._listen(rows, replies, simulator)
        return self.open_rows(rows)

    def hear(
        self, simulator: GuardedSimulator, profiles: Sequence[Profile], rows: np.ndarray, shown: dict[int, list[int]]
    ) -> np.ndarray:
        replies = simulator.reply(
            [profiles[row] for row in rows], [self.dialogues[row] for row in rows], [shown[row] for row in rows]
        )
        self._listen(rows, replies, simulator)
        return self.open_rows(rows)

    def _listen(self, rows: np.ndarray, replies: Sequence[Reply], simulator: GuardedSimulator) -> None:
        self.leaked[rows] |= simulator.leaked
        self.ambiguous[rows] += simulator.ambiguous
        for row, reply in zip(rows.tolist(), replies, strict=True):
            if reply.error:
                self._invalid(row, reply.error)
                continue
            self.dialogues[row].messages.append(("user", reply.text))
            self.silent[row] = 0 if reply.text else self.silent[row] + 1
            self.empty[row] += not reply.text
            self.false_accepts[row] |= reply.accepted  # a dialogue with the target shown never gets here
            if reply.end or reply.accepted:
                self.ended[row] = "user left"
            elif self.silent[row] == 2:
                self.ended[row] = "silence"

    def show(self, row: int, answer: Response, turn: int, most: int) -> list[int]:
        """Take in one response; returns the items shown."""
        self.input_tokens[row] += answer.input_tokens
        self.output_tokens[row] += answer.output_tokens
        self.seconds[row] += answer.seconds
        if answer.error:
            self._invalid(row, answer.error)
            return []
        items = list(dict.fromkeys(int(item) for item in answer.items))[:most]
        outside = [item for item in items if not 1 <= item < len(self.catalogue)]
        if outside:
            raise BenchError(f"the system recommends {outside[0]}, which is no item: 1 to {len(self.catalogue) - 1}")
        target, dialogue = self.targets[row], self.dialogues[row]
        dialogue.messages.append(("assistant", answer.say or self._listed(items)))
        dialogue.shown.extend(items)
        dialogue.asked.append(answer.ask)
        dialogue.sizes.append(len(items))
        same = [item for item in items if item != target and self.titles[item] == self.titles[target] != ""]
        self.near_misses[row] += len(same)
        if target in items:
            self.turns[row], self.ended[row] = turn, "success"
        return items

    def view(self, row: int) -> Dialogue:
        """What the system sees: a copy, so that nothing it does changes the record."""
        dialogue = self.dialogues[row]
        return dataclasses.replace(
            dialogue,
            history=dialogue.history.copy(),
            messages=list(dialogue.messages),
            shown=list(dialogue.shown),
            asked=list(dialogue.asked),
            sizes=list(dialogue.sizes),
        )

    def open_rows(self, rows: np.ndarray) -> np.ndarray:
        """Those of the rows whose dialogue goes on."""
        return np.array([row for row in rows.tolist() if not self.ended[row]], dtype=np.int64)

    def outcomes(self, profiles: Sequence[Profile], attributes: AttributeTable) -> Outcomes:
        stated = [
            uttered_facts(profile, dialogue.user_sentences(), attributes)
            for profile, dialogue in zip(profiles, self.dialogues, strict=True)
        ]
        return Outcomes(
            users=np.asarray(self.cases.users, dtype=np.int64),
            targets=np.asarray(self.cases.targets, dtype=np.int32),
            turns=self.turns,
            leaked=self.leaked,
            ambiguous=self.ambiguous,
            near_misses=self.near_misses,
            n_match=attributes.count_matches(stated),
            false_accepts=self.false_accepts,
            empty=self.empty,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            seconds=self.seconds,
            dialogues=self.dialogues,
            ended=[end or "turns" for end in self.ended],
            left=self.left,
        )

    def _invalid(self, row: int, why: str) -> None:
        self.turns[row], self.ended[row] = INVALID, f"error: {why}"

    def _listed(self, items: Sequence[int]) -> str:
        lines = [f"{number}. {self.catalogue.titles[item] or 'untitled'}" for number, item in enumerate(items, 1)]
        return "\n".join(["You may like:", *lines]) if lines else "I have nothing to suggest."
