"""What a user wants after several sentences."""

from __future__ import annotations

from collections.abc import Sequence

from recllm_bench.conversation.understanding import Understanding, Wish


def wish_of(reader: Understanding, sentences: Sequence[str]) -> Wish:
    """What a user wants and refuses after several sentences; a later one corrects an earlier one."""
    state: dict[int, bool] = {}
    for wish in reader.read(sentences):
        state |= dict.fromkeys(wish.wanted, True) | dict.fromkeys(wish.unwanted, False)
    return Wish(*(tuple(sorted(term for term, wanted in state.items() if wanted is side)) for side in (True, False)))
