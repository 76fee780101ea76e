"""Why an item is in the list: which wishes it fits, and near which items of the history it lies."""

from __future__ import annotations

from collections.abc import Sequence

from recllm_bench.conversation.spoken import spoken_title
from recllm_bench.talk.neighbours import Neighbours
from recllm_bench.talk.vocabulary import Vocabulary
from recllm_bench.talk.wishes import FACTS, YEARS, Constraint, Wishes

_MOST_LETTERS, _MOST_NAMED = 40, 3  # of a title, facts of one wish


def why(
    item: int,
    wishes: Wishes,
    vocabulary: Vocabulary,
    neighbours: Neighbours,
    history: Sequence[int],
    titles: Sequence[str],
) -> str:
    """One line: the wishes that an item fits, and what of the history it lies near; empty when there is neither."""
    parts = []
    if wishes:
        parts.append("fits " + ", ".join(_fact(item, wish, vocabulary) for wish in wishes))
    near = neighbours.near(item, history)
    if near:
        of = f" of its {near[0].users} users"
        named = [
            f"{_short(called(titles[one.item]))} ({one.both}{'' if place else of})" for place, one in enumerate(near)
        ]
        parts.append("near " + " and ".join(named))
    return "; ".join(parts)


def _fact(item: int, wish: Constraint, vocabulary: Vocabulary) -> str:
    """What of an item meets a wish."""
    if not wish.wanted:
        return str(wish)
    if wish.kind == YEARS:
        return f"{vocabulary.years[item]}"
    own = vocabulary.terms_of(item)
    terms = [
        term for term in (wish.terms if wish.kind == FACTS else vocabulary.categories_of(wish.item)) if term in own
    ]
    names = " and ".join(vocabulary.facts[term].value for term in terms[:_MOST_NAMED])
    return names if wish.kind == FACTS else f"{wish.label}{f' ({names})' if names else ''}"


def called(title: str) -> str:
    """A title as it is said within a sentence, its article in front."""
    return title if "(" in title or "[" in title else spoken_title(title)


def _short(title: str) -> str:
    return title if len(title) <= _MOST_LETTERS else title[: _MOST_LETTERS - 1] + "…"
