"""What a chat model is asked, in the bench's own words."""

from __future__ import annotations

from collections.abc import Sequence

Messages = list[dict[str, str]]


def past(titles: Sequence[str], domain: str) -> str:
    """A history in words; not numbered, or small models go on where it ends."""
    return f"The user's past, each a {domain}, the newest last: {'; '.join(titles)}." if titles else ""


def talk(messages: Sequence[tuple[str, str]], system: str, last: str) -> Messages:
    """A dialogue as a conversation of a chat model: its rules first, what to do now after what the user says."""
    turns = [{"role": role, "content": text or "..."} for role, text in messages]
    turns[-1]["content"] += f"\n\n{last}"
    return [{"role": "system", "content": system}, *turns]


def zero_shot(titles: Sequence[str], domain: str, messages: Sequence[tuple[str, str]], count: int) -> Messages:
    """Name so many titles that fit what a user says."""
    system = (
        f"You recommend by title. Domain: {domain}. Name real titles that fit the user's past and words, "
        f"never one that was named before.\n{past(titles, domain)}"
    )
    last = f"Recommend {count} titles to me, the best first. Write only the titles, numbered, one on each line."
    return talk(messages, system, last)
