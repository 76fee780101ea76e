"""What users' words give away: how many items fit what they state; and users who have nothing to state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recllm_bench.api.measure import Measure
from recllm_bench.conversation.attributes import AttributeTable, Fact
from recllm_bench.errors import NotEnough

FITTING = "items that fit the words"
"""Name of the measures of :func:`disclosure`."""
_MEDIAN, _LOW, _HIGH, _ALL = "median", "5 %", "95 %", "catalogue"
_ALONE, _TARGET = "share: the target alone", "share: the target among them"

Facts = Sequence[tuple[Fact, ...]]


def disclosure(attributes: AttributeTable, said: Facts, refused: Facts, targets: Sequence[int]) -> list[Measure]:
    """How many items have all facts that an utterance states, and none that it refuses.

    Parameters
    ----------
    attributes : AttributeTable
        Vocabulary of the users.
    said, refused : sequence of tuple of Fact [n]
        Of each utterance.
    targets : sequence of int [n]
        The wanted items.

    Returns
    -------
    list of Measure
        Named :data:`FITTING`: median, 5 % and 95 % quantiles of the counts, the size of the catalogue, and the shares
        of utterances that leave the target alone, and that leave the target at all. Empty without utterances.
    """
    if not len(said):
        return []
    left = attributes.count_matches(said, refused)
    has = [set(attributes.facts(target)) for target in targets]
    fits = np.array([set(yes) <= own and not set(no) & own for yes, no, own in zip(said, refused, has, strict=True)])
    low, middle, high = np.quantile(left, [0.05, 0.5, 0.95]).tolist()
    values = {
        _MEDIAN: middle,
        _LOW: low,
        _HIGH: high,
        _ALL: attributes.matrix.shape[0] - 1,
        _ALONE: float(((left == 1) & fits).mean()),
        _TARGET: float(fits.mean()),
    }
    return [Measure(FITTING, float(value), about) for about, value in values.items()]


def nothing_to_say(simulator: str, dataset: str, silent: int, users: int) -> str:
    """What to say about users without any fact; empty when there are none.

    Parameters
    ----------
    simulator, dataset : str
        Who speaks of what.
    silent, users : int
        Users without a fact, and all.

    Raises
    ------
    NotEnough
        When no user has a fact: there would be words without content.
    """
    text = "categories (genres, tags), years or descriptions of the items"
    if silent and silent == users:
        raise NotEnough(
            f"simulator {simulator} on {dataset}: {silent:,} of {users:,} users have nothing to say, for the "
            f"catalogue has no facts; give the data {text}, or take a data set that has them (recllm-bench list)"
        )
    if silent:
        return f"{silent:,} of {users:,} users have nothing to say of what they want: their items have no {text}"
    return ""


def in_words(measures: Sequence[Measure]) -> str:
    """The measures of :func:`disclosure` as a line over a table; empty without them."""
    found = {measure.about: measure.value for measure in measures if measure.name == FITTING}
    if not found:
        return ""
    among = "" if found[_TARGET] == 1 else f"; the target is among them in {100 * found[_TARGET]:.1f} %"
    return (
        f"the words leave a median of {found[_MEDIAN]:,.0f} of {found[_ALL]:,.0f} items (5 to 95 %: {found[_LOW]:,.0f} "
        f"to {found[_HIGH]:,.0f}), the target alone in {100 * found[_ALONE]:.1f} %{among}"
    )
