"""Controls: users who say what another user would, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.api.words import NEUTRAL_OPENING, Ids
from recllm_bench.conversation.attributes import AttributeTable
from recllm_bench.conversation.dialogue import Dialogue, Reply
from recllm_bench.conversation.feedback import PLAIN_WISHES
from recllm_bench.conversation.profile import Profile
from recllm_bench.conversation.rules import PLAIN_REFUSALS
from recllm_bench.conversation.simulators import GuardedSimulator
from recllm_bench.errors import BenchError

if TYPE_CHECKING:
    from recllm_bench.data.splits import Cases


class NoSpeaker:
    """Control: a user who refuses and says nothing of what is wanted."""

    name = "nobody"
    n_leaks = n_empty = 0

    def say(self, users: Ids, shown: Ids, targets: Ids, turn: int | Ids = 0) -> list[str]:
        """The same plain refusal for everybody."""
        return [f"{PLAIN_REFUSALS[0]} {PLAIN_WISHES[0]}"] * len(users)

    def key(self) -> dict[str, Any]:
        """Nothing decides the words."""
        return {"feedback": "none"}


class Mute:
    """Control in dialogues: users who refuse and say nothing of what is wanted."""

    name, target_free = "nobody", True

    def __init__(self, attributes: AttributeTable) -> None:
        self.attributes = attributes

    def open(self, profiles: Sequence[Profile]) -> list[str | None]:
        """The neutral sentence."""
        return [NEUTRAL_OPENING] * len(profiles)

    def reply(
        self, profiles: Sequence[Profile], dialogues: Sequence[Dialogue], shown: Sequence[Sequence[int]]
    ) -> list[Reply]:
        """The same plain refusal for everybody."""
        return [Reply(f"{PLAIN_REFUSALS[0]} {PLAIN_WISHES[0]}")] * len(profiles)


class Exchanged:
    """Control in dialogues: every user says what another would, of what is shown; the guard knows both targets.

    Parameters
    ----------
    speaker : GuardedSimulator
        Who speaks.
    others : mapping of (user, target) to Profile
        Whose words each user gets.
    """

    target_free = False

    def __init__(self, speaker: GuardedSimulator, others: Mapping[tuple[int, int], Profile]) -> None:
        self._speaker, self._others, self.name = speaker, others, speaker.name
        self.attributes = speaker.attributes

    def open(self, profiles: Sequence[Profile]) -> list[str | None]:
        """What the others open with."""
        return self._speaker.open(self._of(profiles))

    def reply(
        self, profiles: Sequence[Profile], dialogues: Sequence[Dialogue], shown: Sequence[Sequence[int]]
    ) -> list[Reply]:
        """What the others answer."""
        return self._speaker.reply(self._of(profiles), dialogues, shown)

    def _of(self, profiles: Sequence[Profile]) -> list[Profile]:
        return [self._others[profile.user, profile.target] for profile in profiles]


class OtherSpeaker:
    """Control: every user of some cases says what another of these users would say.

    Parameters
    ----------
    speaker : Speaker
        Who speaks.
    cases : Cases
        Whose users are exchanged.
    seed : int
        Fixes the exchange.
    """

    def __init__(self, speaker: Any, cases: Cases, seed: int) -> None:
        self._speaker, self._seed, self.name = speaker, seed, speaker.name
        pairs = zip(cases.users.tolist(), cases.targets.tolist(), strict=True)
        wanted = cases.targets[other_user(cases.users, seed)].tolist()
        self._wanted = dict(zip(pairs, wanted, strict=True))

    @property
    def n_leaks(self) -> int:
        """See :class:`recllm_bench.api.words.Speaker`."""
        return self._speaker.n_leaks

    @property
    def n_empty(self) -> int:
        """See :class:`recllm_bench.api.words.Speaker`."""
        return self._speaker.n_empty

    def say(self, users: Ids, shown: Ids, targets: Ids, turn: int | Ids = 0) -> list[str]:
        """What another user would say of what is shown; neither target is named."""
        own = [int(target) for target in targets]
        others = [self._wanted[int(user), target] for user, target in zip(users, own, strict=True)]
        return self._speaker.redactor.redact(self._speaker.say(users, shown, others, turn), own).texts

    def key(self) -> dict[str, Any]:
        """What decides the words."""
        return {**self._speaker.key(), "words": "another", "seed": self._seed}


def other_user(users: np.ndarray, seed: int) -> np.ndarray:
    """A permutation of the rows in which no row gets a row of its own user.

    The rows are put in a random order, user by user, and rotated by the largest number of rows one user has.

    Parameters
    ----------
    users : array [n]
        User of each row.
    seed : int
        Fixes the order of the users.

    Returns
    -------
    int64 [n]
        For each row, the row it takes instead.

    Raises
    ------
    BenchError
        When one user has more than half of the rows, so that no such permutation exists.
    """
    _, group, counts = np.unique(users, return_inverse=True, return_counts=True)
    if not len(users):
        return np.zeros(0, dtype=np.int64)
    shift = int(counts.max())
    if 2 * shift > len(users):
        raise BenchError("words of another user: one user has more than half of the cases, nobody else's are left")
    rng = np.random.default_rng([seed, 0x5F])
    order = np.lexsort((rng.random(len(users)), rng.permutation(len(counts))[group.reshape(-1)]))
    source = np.empty(len(users), dtype=np.int64)
    source[order] = np.roll(order, -shift)
    return source
