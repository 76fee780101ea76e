"""A simulated user in one file: says the rarest thing there is to say of the wanted item, then nods or leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recllm_bench.conversation.dialogue import Dialogue, Reply
from recllm_bench.conversation.profile import Profile


class TerseUser:
    """Of the facts of a profile, which come most common first, the last one is said.

    Parameters
    ----------
    catalogue : Catalogue
        The items; not used.
    seed : int
        Of all chance; nothing here is left to chance.
    """

    name = "terse"

    def __init__(self, catalogue: Any, seed: int = 0) -> None:
        self.catalogue, self.seed = catalogue, seed

    def open(self, profiles: Sequence[Profile]) -> list[str | None]:
        """One word or two; empty where nothing is known of the item."""
        return [f"{profile.facts[-1].value}." if profile.facts else "" for profile in profiles]

    def reply(
        self, profiles: Sequence[Profile], dialogues: Sequence[Dialogue], shown: Sequence[Sequence[int]]
    ) -> list[Reply]:
        """Takes the wanted item when it is shown, else says the next fact; with none left, leaves."""
        return [self._answer(*row) for row in zip(profiles, dialogues, shown, strict=True)]

    def _answer(self, profile: Profile, dialogue: Dialogue, shown: Sequence[int]) -> Reply:
        if profile.target in shown:
            return Reply("Yes.", accepted=True)
        said = sum(role == "user" for role, _ in dialogue.messages)
        if said >= len(profile.facts):
            return Reply("Never mind.", end=True)
        return Reply(f"No. {profile.facts[-1 - said].value}.")
